"""The compiled part of the build; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

modules = cythonize(
    [
        Extension(
            "fastconv._machine",
            ["_cython/machine.pyx"],
            include_dirs=["_cython"],
            depends=["_cython/machine.h", "_cython/peak.h"],
        )
    ],
    build_dir="build/cython",
    language_level=3,
)
for module in modules:
    # where it cannot be compiled, the package installs without it; cythonize forgets this if it is said before
    module.optional = True

setup(ext_modules=modules)
