"""Programs of others, which know nothing of frames: run to their end, with bounds of output.

Invariant: no process outlives its run: it is killed with its group, and its descendants with it,
when the run ends. Only those that it has moved to another group and that have lost their parent
are left; see `process_tree.kill_orphans`. So are all but the program itself, if it is bound to this
process (`die_with_parent`), when this one is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from simenv.sandbox.process_tree import end_tree, exit_code

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1e-3, 0.05
_END_S = 5.0  # for a killed process to be gone


class OutputLimitError(OSError):
    """A program has written more than its limit."""


def run_program(
    argv: Sequence[str],
    streams: tuple[IO[bytes], IO[bytes]],
    most_bytes: int,
    *,
    environ: Mapping[str, str],
    cwd: str | Path,
    check: Callable[[], None],
    before_exec: Callable[[], None] | None = None,
) -> int:
    """Run a program without input; return its exit code, negative for a signal. `streams`: files
    for its output and its error output, each of `most_bytes`. `check`: called again and again; what
    it raises ends the program. `before_exec`: called in its process, which this one must have
    forked with one thread. Raises OutputLimitError, and OSError if it cannot be started."""
    out, err = streams
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=dict(environ),
            process_group=0,
            preexec_fn=before_exec,
        )
    except subprocess.SubprocessError as error:
        raise OSError(f"{argv[0]} cannot be started with its limits: {error}") from error
    try:
        pause_s = _FIRST_PAUSE_S
        while (code := exit_code(process)) is None:
            check()
            _check_size(streams, most_bytes)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if code == -signal.SIGXFSZ:
            raise OutputLimitError(f"more than {most_bytes} bytes")
        _check_size(streams, most_bytes)
        return code
    finally:
        end_tree(process, 0.0, _END_S)


def last_text(stream: IO[bytes], most_bytes: int) -> str:
    """Return the end of what a program has written, without space around it."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - most_bytes))
    return stream.read().decode("utf-8", "replace").strip()


def _check_size(streams: tuple[IO[bytes], IO[bytes]], most_bytes: int) -> None:
    if any(os.fstat(each.fileno()).st_size > most_bytes for each in streams):
        raise OutputLimitError(f"more than {most_bytes} bytes")
