"""The planner's floor: the registry of kernels, and one file for each kernel: whether it applies, what it costs, and
its plan for an engine."""
