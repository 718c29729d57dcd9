"""The compiled part of the build; everything else is in pyproject.toml.

The extension is optional: where it cannot be compiled, the package installs without it and runs on its other engines.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

extension = Extension(
    "fastconv._machine", ["_cython/machine.pyx"], include_dirs=["_cython"], depends=["_cython/machine.h"], optional=True
)

setup(ext_modules=cythonize([extension], build_dir="build/cython", language_level=3))
