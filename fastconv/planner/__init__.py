"""The planner: the registry of kernels, and a module for each kernel, which says whether it applies, what it costs and
which plans it runs."""
