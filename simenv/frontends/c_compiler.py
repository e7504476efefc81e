"""The system's C compiler, for what this package ships as source: the C library, the plugin of
Slurm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from simenv.errors import ConfigError

BUILD_S = 120.0
FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-Wshadow"),
    *("-fPIC", "-pthread"),
)


def find_compiler(compiler: str = "") -> str:
    """Return the compiler: the given one, else CC, else cc. Raises ConfigError if it is not
    there."""
    compiler = compiler or os.environ.get("CC") or "cc"
    if shutil.which(compiler) is None:
        hint = "install gcc, or set CC=/path/to/cc"
        raise ConfigError(f"there is no C compiler {compiler!r}", hint=hint)
    return compiler


def compile_sources(argv: Sequence[str], hint: str = "gcc 9 or clang 10, or newer") -> None:
    """Run the compiler. Raises ConfigError with its message and the hint."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{argv[0]} has not ended after {BUILD_S:g} s") from error
    if done.returncode != 0:
        raise ConfigError(f"{argv[0]} failed:\n{done.stderr[-2000:]}", hint=hint)
