"""Output of a short program, such as `mpirun --version`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


def run(argv: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
    """Run a program without input; return its exit code and its output, with that on stderr.

    Raises OSError if it cannot be started, subprocess.TimeoutExpired.
    """
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")
