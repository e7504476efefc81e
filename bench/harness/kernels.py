"""The compiled kernels of simenv's engine, loaded as a worker loads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from simulators.compiler import warmup

FOLDER = Path(sys.prefix) / "var" / "simenv-kernels"


def load_kernels(*, all_kernels: bool = False) -> None:
    """Load the kernels of a worker's start. `all_kernels`: also load those of wide states, which a
    worker loads later."""
    warmup.prepare(FOLDER)
    if all_kernels:
        warmup.compile_all(FOLDER)


def compile_kernels(folder: Path) -> None:
    """Compile all kernels into a folder, in a process of its own."""
    argv = [sys.executable, "-m", "simulators.compiler.warmup", str(folder)]
    subprocess.run(argv, check=True)
