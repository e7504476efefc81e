"""A QPY file of a stranger ends no process but the one that is there for it."""

import ast
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from failing import fails
from qiskit import QuantumCircuit, qpy
from waiting import until

from simenv.client.circuits import untrusted_programs
from simenv.client.qpm import programs
from simenv.client.qpm.requests import Request
from simenv.errors import ConfigError, LimitExceededError, ProgramError
from simenv.sandbox import function_process
from simenv.sandbox.function_process import SandboxProcess
from simulators.errors import Stopped


@pytest.fixture(scope="module")
def reader() -> Iterator[SandboxProcess]:
    with closing(SandboxProcess("simenv.transpiler.qpy", "checked")) as process:
        yield process


def pid_of(reader: SandboxProcess) -> int:
    return reader._child.pid


def sound() -> bytes:
    inner = QuantumCircuit(1)
    inner.h(0)
    circuit = QuantumCircuit(1, 1)
    circuit.append(inner.to_gate(label="g"), [0])
    circuit.measure(0, 0)
    file = io.BytesIO()
    qpy.dump(circuit, file)
    return file.getvalue()


def greedy() -> bytes:
    """The definition within says that it has two thousand million qubits."""
    data = bytearray(sound())
    place = [each.start() for each in re.finditer(rb"..f\0\x08\0\0\0\x01", data, re.DOTALL)][1]
    data[place + 5 : place + 9] = (2**31 - 1).to_bytes(4, "big")
    return bytes(data)


def test_file_that_needs_gigabytes_is_refused_and_next_one_is_read(reader: SandboxProcess) -> None:
    reader.convert(sound())
    fails((LimitExceededError, ProgramError), "", reader.convert, greedy(), "circuit.data")
    reader.convert(sound())


def test_killed_reader_is_a_limit(reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.convert(sound())
    os.kill(pid_of(reader), signal.SIGKILL)
    text = "1024 MiB of memory, ended with signal 9: it said nothing"
    fails(LimitExceededError, text, reader.convert, sound())
    for data in (sound(), bytes(2**20)):  # the second is more than a pipe holds
        with monkeypatch.context() as patch:
            reader.convert(sound())
            os.kill(pid_of(reader), signal.SIGSTOP)
            patch.setattr(function_process, "SECONDS", 0.1)
            patch.setattr(function_process, "ATTEMPTS", 1)
            fails(LimitExceededError, r"waits for more than 0\.1 s", reader.convert, data)


def test_call_that_hardly_ran_is_tried_again(
    reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reader.convert(sound())
    os.kill(pid_of(reader), signal.SIGSTOP)
    monkeypatch.setattr(function_process, "SECONDS", 1.0)
    assert reader.convert(sound()) == expected


def test_own_interpreter_reads(reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMENV_PYTHON", raising=False)
    monkeypatch.setattr(sys, "executable", "/opt/defw/bin/defwp")
    reader.convert(sound())
    reader.close()
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    fails(ConfigError, "SIMENV_PYTHON", reader.convert, sound())


@pytest.mark.parametrize("at", ["send", "receive"])
def test_unread_reply_is_lost(
    reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    reader.convert(sound())
    with monkeypatch.context() as patch:

        def interrupted(*_: object) -> bytes:
            raise KeyboardInterrupt

        patch.setattr(reader._child, at, interrupted)
        fails(KeyboardInterrupt, "", reader.convert, sound())
    fails(ProgramError, "", reader.convert, sound()[:-20])
    reader.convert(sound())


PRINTING = """
import os

def printing(data):
    os.write(1, b"a message of a library\\n")
    return data
"""


def test_prints_of_a_function_are_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printing_library.py").write_text(PRINTING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(SandboxProcess("printing_library", "printing")) as printer:
        assert printer.convert(b"abc", head=b"0") == b"0abc"


ENVIRON = """
import os

def variables(data):
    return repr(dict(os.environ)).encode()
"""


def test_decoder_gets_no_credentials_and_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environ_library.py").write_text(ENVIRON)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RAYON_NUM_THREADS", "7")
    for name in ("SIMENV_TOKEN", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"):
        monkeypatch.setenv(name, "")
    with closing(SandboxProcess("environ_library", "variables")) as process:
        environ = ast.literal_eval(process.convert(b"").decode())
    assert environ["PATH"] == os.environ["PATH"]
    assert not {"SIMENV_TOKEN", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"} & environ.keys()
    assert environ["RAYON_NUM_THREADS"] == environ["OPENBLAS_NUM_THREADS"] == "1"


def test_refused_by_busy_reader(reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_process, "QUEUE_SECONDS", 0.01)
    with reader._lock:
        fails(LimitExceededError, "another QPY file is being read", reader.convert, sound())


def test_file_refused_by_qiskit_is_a_program_error_with_file_name(reader: SandboxProcess) -> None:
    text = r"circuit\.data: the QPY file cannot be read"
    fails(ProgramError, text, reader.convert, sound()[:-20], "circuit.data")


def test_qpm_checks_qpy_in_confined_process_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    class Noted(SandboxProcess):
        def convert(self, data: bytes, name: str = "") -> bytes:
            seen.append(data)
            raise LimitExceededError("too much")

    monkeypatch.setattr(untrusted_programs, "PROGRAMS", Noted("", ""))
    data = greedy()
    fails(LimitExceededError, "", programs.prepare, Request(data, 10, None, None, False, 0))
    assert seen == [data]
    old = data[:6] + b"\x05" + data[7:]  # a version that may hold code
    fails(ProgramError, "version 5", programs.prepare, Request(old, 10, None, None, False, 0))
    assert seen == [data]


FUNCTIONS = """
import os, re, sys

def large(data):
    return bytearray(2**31)

def long(data):
    return bytes(64 * 2**20 + 1)

def wrong(data):
    return 1 / 0

def forked(data):
    print('a notice', file=sys.stderr)
    print('no room for it', file=sys.stderr, flush=True)
    if os.fork() == 0:
        import signal
        signal.pause()
    os._exit(7)

def holding(data):
    re.match(r'(a+)+$', 'a' * 64 + 'b')

def working(data):
    import time
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass
    return data

def either(data):
    return holding(data) if data == b"hold" else data
"""
TEXTS = {
    "large": (LimitExceededError, "takes more than 1024 MiB of memory"),
    "long": (LimitExceededError, "gives 67108865 bytes; the limit is 67108864"),
    "wrong": (ProgramError, "the request cannot be handled: ZeroDivisionError"),
    "forked": (LimitExceededError, "1024 MiB of memory, ended with exit code 7: no room for it"),
    "holding": (LimitExceededError, r"takes more than 1 s"),
}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of functions that exceed limits."""
    (tmp_path / "greedy_library.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "greedy_library"


@pytest.mark.parametrize("function", TEXTS)
def test_each_limit_has_its_own_text(library: str, function: str) -> None:
    seconds = 1.0 if function == "holding" else 60.0
    process = SandboxProcess(library, function, "request", ("handling", "handled"), seconds)
    kind, text = TEXTS[function]
    with closing(process):
        error = fails(kind, text, process.convert, b"abc", "body")
    assert error.message.startswith("body: ")
    assert "QPY" not in f"{error.message} {error.hint}"
    assert "OpenQASM" not in error.hint


def test_process_that_does_not_start_says_why() -> None:
    process = SandboxProcess("no_such_module", "f", "circuit", ("compiling", "compiled"))
    text = "no circuit can be compiled here: .* exit code 1: ModuleNotFoundError: No module named"
    error = fails(ProgramError, text, process.convert, b"")
    assert "no_such_module" in error.hint


def test_what_a_check_raises_ends_the_process_and_the_next_call_is_answered(library: str) -> None:
    process = SandboxProcess(library, "either", "request", seconds=60.0)

    def check() -> None:
        raise Stopped("the run was stopped")

    with closing(process):
        with pytest.raises(Stopped):
            process.convert(b"hold", check=check)
        assert process._child is None, "stopped while it started"
        assert process.convert(b"abc", check=lambda: None) == b"abc"
        child = psutil.Process(pid_of(process))
        with pytest.raises(Stopped):
            process.convert(b"hold", check=check)
        assert not child.is_running()
        assert process.convert(b"abc") == b"abc"


@pytest.fixture
def busy_processor() -> Iterator[None]:
    """One processor for this process and its children, with eight that compute for ever."""
    former = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(former)})
    argv = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    busy = [subprocess.Popen(argv) for _ in range(8)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()
        os.sched_setaffinity(0, former)


@pytest.mark.usefixtures("busy_processor")
def test_call_on_a_busy_processor_takes_longer_and_does_not_fail(library: str) -> None:
    with closing(SandboxProcess(library, "working", "request", seconds=1.0)) as process:
        assert process.convert(b"abc") == b"abc"
    with closing(SandboxProcess(library, "holding", "request", seconds=1.0)) as process:
        fails(LimitExceededError, "takes more than 1 s of CPU time", process.convert, b"")


CALLER = """
from simenv.sandbox import function_process
process = function_process.SandboxProcess("greedy_library", "holding", seconds=0.5)
print(process._started(None).pid, flush=True)
process.convert(b"")
"""


def test_call_that_holds_the_interpreters_lock_ends_without_its_parent(library: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE)
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        until(lambda: child.num_threads() > 1 and child.status() == psutil.STATUS_RUNNING)
        parent.kill()
    until(lambda: not child.is_running(), message="the call outlives its limit")
