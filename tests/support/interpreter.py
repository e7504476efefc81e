"""Python in a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any


def python(
    *words: str | Path, check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What the interpreter does with these arguments; `options`: of subprocess.run."""
    argv = [sys.executable, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=check, **options)
