"""The example of an external simulator, compiled once for all tests of a virtual environment."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from simenv.worker.external import ExternalProgram

SOURCE = Path(__file__).parents[2] / "examples" / "external" / "statevector.c"


def compiler() -> str:
    """The system's compiler; "" without one."""
    return next((each for each in ("cc", "gcc", "clang") if shutil.which(each)), "")


@functools.cache
def binary() -> Path:
    """The program."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(sys.prefix) / "var" / "simenv-external"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"statevector-{digest}"
    if not program.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "statevector"
            flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
            subprocess.run([compiler(), *flags, "-o", str(built), str(SOURCE), "-lm"], check=True)
            os.replace(built, program)
    return program


def command() -> str:
    """The command of a pool."""
    return f"{binary()} {{circuit}} {{shots}} {{seed}}"


def program() -> ExternalProgram:
    """The program as a worker holds it."""
    return ExternalProgram(command(), Path(tempfile.gettempdir()) / f"simenv-scratch-{os.getpid()}")
