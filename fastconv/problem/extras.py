"""Optional packages: imported where they are used; if one is missing, the error says how to install it."""

from __future__ import annotations

import importlib
from typing import Any

from fastconv.problem.errors import MissingExtraError


def require(module: str, extra: str, purpose: str) -> Any:
    """Import and return `module`, of an optional package that the extra `extra` installs.

    Raises `MissingExtraError`, naming `purpose` and the command to install it, if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module.partition('.')[0]}, which could not be imported ({error}); "
            f'install it with: pip install "fastconv[{extra}]"'
        ) from error
