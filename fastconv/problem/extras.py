"""Optional packages: imported where they are used, and named with their installation line where they lack."""

from __future__ import annotations

import importlib
from typing import Any

from fastconv.problem.errors import MissingExtraError


def require(module: str, extra: str, purpose: str) -> Any:
    """Import and return `module`, an optional package that belongs to the extra `extra`.

    Raises `MissingExtraError`, naming `purpose` and the line to install, if it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module.partition('.')[0]}, which could not be imported ({error}); "
            f'install it with: pip install "fastconv[{extra}]"'
        ) from error
