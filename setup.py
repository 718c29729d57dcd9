"""The compiled part of the build; everything else is in pyproject.toml.

The extension is optional: where it cannot be compiled, the package installs without it and runs on its other engines.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

extensions = [Extension("fastconv._machine", ["_cython/machine.pyx"], optional=True)]

setup(ext_modules=cythonize(extensions, build_dir="build/cython", language_level=3))
