"""Programs that tests run in processes of their own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def python(code: str, *arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process in this folder, where a warning is an error; one that hangs is an error too."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, cwd=HERE, check=False,
        timeout=timeout, env={**os.environ, **environment},
    )  # fmt: skip
