"""Process in which functions of users run: it has no connection, key or file of its worker.

A child of the worker (`simenv.worker.functions`), which sends it calls as frames and receives what
became of them. It stays for the next call. Confined, it and all that it starts have fewer rights
than the worker: one folder to write, no network, no other process. Invariant: the worker takes the
answers of this process for those of an attacker. No other module of a worker unpickles bytes.

    python -P -m simenv.worker.function_process
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import msgspec

from simenv.model import calls
from simenv.process import import_also_from, log_line
from simenv.sandbox import confinement, private_namespaces
from simenv.sandbox.limits import set_limit
from simenv.sandbox.parent import ParentChannel
from simenv.sandbox.process_tree import adopt_orphans, kill_orphans
from simenv.text import error_summary

if TYPE_CHECKING:
    from collections.abc import Iterator

# Kinds of frames, the first byte of each. To this process: SET_UP, CALL. Those from it have the
# number of the call next, NUMBER_BYTES of little-endian; READY has 0.
SET_UP, CALL = b"s", b"c"
READY, PROGRESS, VALUE, TOO_LARGE, FAILED, STOPPED = b"r", b"p", b"v", b"l", b"f", b"i"
NUMBER_BYTES = 8
TRACE_CHARS = 1_500  # of the end of a traceback
MAX_PROCESSES = 1_024  # with threads, where they are counted for this process's namespace or user
MAX_DESCRIPTORS = 1_024  # of each process
_MISSING_MODULE = (
    "the worker does not find that module: start the environment in its folder, install it,"
    " or send it along with cloudpickle.register_pickle_by_value(module)"
)


class SetUp(msgspec.Struct, frozen=True, array_like=True):
    """What the process is before its first call. `user`: who it becomes. `import_from`: further
    folders of modules, as in PYTHONPATH. Without `write` it is not confined."""

    user: int
    import_from: str = ""
    read: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class Interrupted(BaseException):
    """Exception that stops a function; `except Exception` does not catch it."""


class _Interruption:
    """The handler of SIGUSR1, by which the worker stops a function."""

    def __init__(self) -> None:
        self._armed = False
        signal.signal(signal.SIGUSR1, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False  # only once, so that `finally` blocks are not interrupted
            raise Interrupted

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let the signal raise Interrupted."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False


def main() -> int:
    """Call the function of each frame until the parent process ends the input."""
    channel = ParentChannel()
    interruption = _Interruption()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with suppress(ImportError):  # a call says so
        import cloudpickle  # noqa: F401 - of the extra `functions`
    import numpy  # noqa: F401 - before its first use, which a caller waits for

    first = channel.receive()
    if first is None:
        return 0
    _set_up(msgspec.msgpack.decode(first[1:], type=SetUp))
    adopt_orphans()
    channel.end_with_parent()
    channel.send(READY, bytes(NUMBER_BYTES))

    def report(done: float, total: int, unit: str) -> None:
        channel.send(PROGRESS, number, msgspec.msgpack.encode((done, total, unit)))

    while (frame := channel.receive()) is not None:
        call, name, pickled = msgspec.msgpack.decode(frame[1:], type=tuple[int, str, bytes])
        number = call.to_bytes(NUMBER_BYTES, "little")
        kind, answer = _called(name, pickled, interruption, report)
        del pickled
        with suppress(Exception):
            sys.stdout.flush()
        kill_orphans()
        channel.send(kind, number, answer)
    return 0


def _set_up(rules: SetUp) -> None:
    """Become the user, and give up what functions do not need. Raises OSError."""
    import_also_from(rules.import_from)
    if not rules.write:
        with suppress(OSError):  # this kernel has no Landlock
            confinement.restrict_processes()
        return
    if rules.user != os.geteuid():
        private_namespaces.switch_user(rules.user)
    if private_namespaces.pid_outside() != os.getpid():
        set_limit(resource.RLIMIT_NPROC, MAX_PROCESSES)
    set_limit(resource.RLIMIT_NOFILE, MAX_DESCRIPTORS)
    paths = (tuple(map(Path, each)) for each in (rules.read, rules.listed, rules.write))
    confinement.restrict_files(confinement.FileRules(*paths))
    confinement.filter_calls(allow_shared_memory=False)


def _called(
    name: str, pickled: bytes, interruption: _Interruption, report: calls.Reporter
) -> tuple[bytes, bytes]:
    """Call a function; return the kind and the body of the answer."""
    step = "reading it"
    try:
        with interruption.armed(), calls.reporting(report):
            # Bytes of the environment's own user, or of the account to which this process is
            # confined: the service and the worker refuse those of other owners.
            import cloudpickle

            function, positional, named = cloudpickle.loads(pickled)
            step = "calling it"
            value = function(*positional, **named)
            step = "pickling what it returned"
            # Again: the function may have been one that takes modules away.
            import cloudpickle

            answer = bytes(cloudpickle.dumps(value))
    except Interrupted:
        return STOPPED, b""
    except BaseException as error:  # noqa: BLE001
        # SystemExit too: it ends the function, not this process.
        text = f"function {name}, {step}: {error_summary(error)}\n{_trace(error)}"
        hint = _MISSING_MODULE if isinstance(error, ModuleNotFoundError) else ""
        return FAILED, msgspec.msgpack.encode((text.encode("utf-8", "replace").decode(), hint))
    if len(answer) > calls.MAX_VALUE_BYTES:
        return TOO_LARGE, msgspec.msgpack.encode(len(answer))
    return VALUE, answer


def _trace(error: BaseException) -> str:
    """The end of the traceback, without the frames of this module."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames)
    return "".join(lines).rstrip()[-TRACE_CHARS:]


if __name__ == "__main__":
    try:
        code = main()
    except OSError as error:
        log_line(f"the process of functions cannot be confined: {error.strerror or error}")
        code = 1
    sys.exit(code)
