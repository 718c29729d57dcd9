"""The compiled part of the build, and which folders are packages; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

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

setup(
    ext_modules=modules,
    # the benchmark's layers live beside the benchmarks, and go into a wheel as data of the package
    packages=[*find_packages(include=["fastconv", "fastconv.*"]), "fastconv.shapes"],
    package_dir={"fastconv.shapes": "bench/shapes"},
    package_data={"fastconv": ["py.typed"], "fastconv.shapes": ["*.txt"]},
)
