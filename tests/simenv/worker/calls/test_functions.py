"""The child process of functions: what it has of its worker, what a call leaves, what it sends."""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import pytest
from confined import skip_without_confinement
from failing import fails
from user_programs import by_value
from waiting import until

from simenv.model import TaskOptions
from simenv.model.calls import CALL_FORMAT, PYTHON, FunctionAnswer, FunctionCall
from simenv.model.options import VALUE
from simenv.sandbox.confinement import FileRules
from simenv.sandbox.process_tree import children
from simenv.wire.messages.client import AssignedTask
from simenv.worker import function_process as frames, functions
from simenv.worker.functions import CallFailed, FunctionEngine, FunctionRules
from simulators.engine import RunControl

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36  # linux/prctl.h
TERMS = TaskOptions(outputs=(VALUE,))
TRUSTED = AssignedTask(1, 1, 0, b"", 0, 0, b"", 0, trusted=True)


@pytest.fixture(scope="module")
def engine() -> Iterator[FunctionEngine]:
    """One whose child is not confined."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(functions, "on_exit", lambda _: None)
        result = FunctionEngine()
    yield result
    result.close()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def called(engine: FunctionEngine, function: Callable[..., Any], *args: Any) -> Any:
    call = FunctionCall(CALL_FORMAT, PYTHON, "f", cloudpickle.dumps((function, args, {})))
    value, _, _ = engine.call(call, TRUSTED, TERMS, RunControl())
    return cloudpickle.loads(msgspec.msgpack.decode(value, type=FunctionAnswer).pickled)


@by_value
def descriptors() -> dict[int, str]:
    import os

    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # of the listing
            continue
    return found


def test_child_has_no_descriptor_but_its_frames_and_the_log(
    engine: FunctionEngine, tmp_path: Path
) -> None:
    with (tmp_path / "key").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        found = called(engine, descriptors)
    assert found.pop(0) == os.devnull
    assert found.pop(1) == found.pop(2) == os.readlink("/proc/self/fd/2")
    assert len(found) == 2
    assert all(link.startswith("pipe:") for link in found.values())


@by_value
def look_at_worker() -> dict[str, str]:
    import ctypes
    import os
    import signal

    pid, outcomes = os.getppid(), {}

    def attempt(name: str, call: Callable[[], Any]) -> None:
        try:
            call()
            outcomes[name] = "done"
        except OSError as error:
            outcomes[name] = f"{type(error).__name__} {error.errno}"

    def system_call(*arguments: int) -> None:
        if ctypes.CDLL(None, use_errno=True).syscall(*map(ctypes.c_long, arguments)) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    for file in ("environ", "mem", "maps", "auxv", "fd/0"):
        attempt(file, lambda file=file: open(f"/proc/{pid}/{file}", "rb").close())  # type: ignore[misc]
    attempt("ptrace", lambda: system_call(101, 16, pid, 0, 0))
    at = ctypes.addressof(ctypes.create_string_buffer(64))
    part = (ctypes.c_ulong * 2)(at, 8)
    where = ctypes.addressof(part)
    attempt("process_vm_readv", lambda: system_call(310, pid, where, 1, where, 1, 0))
    for number in (0, signal.SIGTERM, signal.SIGSTOP):
        attempt(f"signal {number}", lambda number=number: os.kill(pid, number))  # type: ignore[misc]
    try:
        handle = os.pidfd_open(pid)
        attempt("pidfd_getfd", lambda: system_call(438, handle, 0, 0))
    except OSError as error:
        outcomes["pidfd_getfd"] = f"{type(error).__name__} {error.errno}"
    return outcomes


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
@pytest.mark.parametrize("confined", [False, True])
def test_child_reaches_nothing_of_its_worker(
    engine: FunctionEngine, tmp_path: Path, confined: bool
) -> None:
    """As this user: root too, and without namespaces."""
    skip_without_confinement()
    engine.close()
    system = FileRules(read=(Path("/"),), write=(tmp_path,))
    with pytest.MonkeyPatch.context() as monkeypatch:
        if confined:
            monkeypatch.setattr(engine, "_rules", FunctionRules(system))
        outcomes = called(engine, look_at_worker)
        engine.close()
    assert len(outcomes) == 11
    refused = {"PermissionError 1", "PermissionError 13"}
    assert not {name: why for name, why in outcomes.items() if why not in refused}


@by_value
def share_memory(folder: str) -> str:
    import ctypes
    import mmap
    import os
    import resource
    import subprocess

    import numpy

    assert numpy.ones((200, 200)).dot(numpy.ones(200)).sum() == 40_000
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda value: value + 1)
    assert callback(1) == 2
    assert subprocess.run(["true"], check=False).returncode == 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1_024, 1_024)
    assert mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with open(f"{folder}/own", "w+b") as file:
        file.write(bytes(4096))
        file.flush()
        assert mmap.mmap(file.fileno(), 4096)
    reasons = []
    for attempt in (
        lambda: os.memfd_create("held"),
        lambda: mmap.mmap(-1, 4096),
        lambda: mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x8000),
        lambda: os.open("/dev/zero", os.O_RDWR),
    ):
        try:
            attempt()
        except OSError as error:
            reasons.append(error.strerror)
    return ", ".join(reasons)


def test_isolated_function_shares_no_memory_but_files(
    engine: FunctionEngine, tmp_path: Path
) -> None:
    """Its size is unknown once one page of it is mapped, and its descriptor closed. Libraries work
    as on a kernel without files in memory."""
    skip_without_confinement()
    engine.close()
    rules = FunctionRules(FileRules(read=(Path("/"),), write=(tmp_path, Path("/dev/null"))))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(engine, "_rules", rules)
        refused = "Permission denied"
        assert (
            called(engine, share_memory, str(tmp_path))
            == f"Function not implemented{f', {refused}' * 3}"
        )
        engine.close()
    assert called(engine, os.strerror, 0) == "Success"


@by_value
def leave_threads(count: int, ends: bool) -> int:
    import os
    import threading

    over = threading.Event()
    own = [threading.Thread(target=over.wait, daemon=True) for _ in range(count)]
    for thread in own:
        thread.start()
    if ends:
        over.set()
        for thread in own:
            thread.join()
    return os.getpid()


def test_process_with_threads_of_an_earlier_call_is_replaced(engine: FunctionEngine) -> None:
    """They could answer the next call of the account. Others keep their process."""
    first = called(engine, leave_threads, 3, True)
    assert called(engine, os.getpid) == first
    assert called(engine, leave_threads, 1, False) == first
    second = called(engine, os.getpid)
    assert second != first
    assert called(engine, os.getpid) == second


@by_value
def leave_processes(way: str) -> int:
    import os
    import subprocess
    import time

    if way == "session":
        return subprocess.Popen(["sleep", "600"], start_new_session=True).pid
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    os.wait()
    left = int(os.read(read, 20))
    if way == "ended":
        os._exit(1)
    return left


@pytest.mark.parametrize("way", ["session", "double fork", "ended"])
def test_no_process_of_a_call_outlives_it(engine: FunctionEngine, way: str) -> None:
    others = set(children(os.getpid()))  # of other tests in this process
    called(engine, abs, -1)
    before = set(children(os.getpid()))
    if way == "ended":
        fails(CallFailed, "its process ended with exit 1", called, engine, leave_processes, way)
        assert set(children(os.getpid())) <= others
    else:
        left = called(engine, leave_processes, way)
        assert not Path(f"/proc/{left}").exists()
        assert set(children(os.getpid())) == before, "the child itself stays"
    assert called(engine, pow, 2, 5) == 32


@by_value
def fork_for_ever() -> None:
    import os

    count, end = 0, time.monotonic() + 0.3
    while time.monotonic() < end and count < 200:
        try:
            if os.fork() == 0:
                os.setsid()
                count += 50
        except OSError:
            break
        count += 1


def test_processes_that_go_on_forking_end_with_their_call(engine: FunctionEngine) -> None:
    before = set(children(os.getpid()))
    for _ in range(2):
        try:
            called(engine, fork_for_ever)
        except CallFailed:  # one of its processes has answered, too
            continue
    assert len(set(children(os.getpid())) - before) <= 1
    assert called(engine, pow, 2, 5) == 32


@by_value
def send(frames: list[bytes]) -> None:
    """Write to the pipe to the worker, whatever that makes of it."""
    import os

    pipes = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                pipes.append(int(name))
        except OSError:
            continue
    for frame in frames:
        for pipe in pipes:
            try:
                os.write(pipe, frame)
            except OSError:
                continue


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(8, "big") + body


def numbered(engine: FunctionEngine, frame: bytes, later: int = 1) -> bytes:
    """`frame`, of a length and a kind, as one of a later call of the engine."""
    number = (engine._number + later).to_bytes(frames.NUMBER_BYTES, "little")
    body = frame[8:9] + number + frame[9:]
    return framed(body) if int.from_bytes(frame[:8], "big") == len(frame) - 8 else frame


HOSTILE = {
    "unknown kind": framed(b"x"),
    "empty": framed(b""),
    "longer than the limit": (2**63).to_bytes(8, "big") + b"v",
    "failure without text": framed(b"f\xc1"),
    "failure of numbers": framed(b"f" + msgspec.msgpack.encode((1, 2))),
    "size that is none": framed(b"l" + msgspec.msgpack.encode("large")),
    "progress that is none": framed(b"p" + msgspec.msgpack.encode((2.0, 1, "rounds"))),
    "endless progress": framed(b"p" + msgspec.msgpack.encode((1.0, 2**63, "rounds"))),
    "progress in escapes": framed(b"p" + msgspec.msgpack.encode((1.0, 2, "\x1b[2J"))),
    "deeply nested": framed(b"p" + b"\x91" * 100_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_frame_that_is_no_answer_is_the_error_of_its_task(
    engine: FunctionEngine, name: str
) -> None:
    hostile = numbered(engine, HOSTILE[name]) if HOSTILE[name][8:] else HOSTILE[name]
    message = str(fails(CallFailed, "", called, engine, send, [hostile]))
    assert "its process sent what is no answer" in message
    assert ("of no call" in message) == (name == "empty")
    assert called(engine, pow, 2, 5) == 32


def test_second_answer_is_not_that_of_the_next_call(engine: FunctionEngine) -> None:
    forged = numbered(engine, framed(b"v" + cloudpickle.dumps("forged")))
    assert called(engine, send, [forged]) == "forged", "its own value is whatever it likes"
    assert called(engine, pow, 2, 5) == 32


@by_value
def answer_later(frame: bytes) -> int:
    """Leave a thread that writes to the pipe to the worker in the next call."""
    import os
    import threading
    import time

    def write() -> None:
        time.sleep(0.1)
        send([frame])

    threading.Thread(target=write, daemon=True).start()
    return os.getpid()


@by_value
def sleep_then(value: int) -> int:
    import time

    time.sleep(0.3)
    return value


def test_thread_of_an_earlier_call_answers_no_later_one(engine: FunctionEngine) -> None:
    """It knows the number of the next call, and is gone before that."""
    forged = numbered(engine, framed(b"v" + cloudpickle.dumps("forged")), later=2)
    first = called(engine, answer_later, forged)
    assert called(engine, sleep_then, 2) == 2
    assert called(engine, os.getpid) != first
    assert [called(engine, pow, 2, each) for each in (3, 4)] == [8, 16], "none is shifted"


def test_answer_to_a_later_call_is_the_error_of_its_task(engine: FunctionEngine) -> None:
    forged = numbered(engine, framed(b"v" + cloudpickle.dumps("forged")), later=2)
    fails(CallFailed, "of no call", called, engine, send, [forged])
    assert called(engine, pow, 2, 5) == 32


def test_process_of_functions_is_stopped_between_calls(engine: FunctionEngine) -> None:
    called(engine, abs, -1)
    assert engine._child is not None
    stat = Path(f"/proc/{engine._child.pid}/stat")
    until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    assert called(engine, os.getpid) == engine._child.pid


def test_output_goes_to_the_log_and_input_is_empty(
    engine: FunctionEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    @by_value
    def talk() -> str:
        import subprocess
        import sys

        print("from Python")  # noqa: T201
        subprocess.run(["echo", "from a program"], check=True)
        return sys.stdin.read() + subprocess.run(["cat"], capture_output=True, text=True).stdout

    engine.close()  # which has the log of an earlier test
    assert called(engine, talk) == ""
    logged = capfd.readouterr().err
    assert "from Python" in logged
    assert "from a program" in logged


def test_stopped_child_that_ignores_the_signal_is_ended(engine: FunctionEngine) -> None:
    @by_value
    def hold() -> None:
        import signal

        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        while True:
            pass

    control = RunControl()
    timer = threading.Timer(0.1, control.stop)
    timer.start()
    call = FunctionCall(CALL_FORMAT, PYTHON, "f", cloudpickle.dumps((hold, (), {})))
    fails(functions.Stopped, "", engine.call, call, TRUSTED, TERMS, control)
    timer.join()
    assert engine._child is None
    assert called(engine, pow, 2, 5) == 32


def test_signal_of_an_ended_call_does_not_stop_the_next(engine: FunctionEngine) -> None:
    called(engine, abs, -1)
    assert engine._child is not None
    os.kill(engine._child.pid, signal.SIGUSR1)
    assert called(engine, time.sleep, 0.05) is None
