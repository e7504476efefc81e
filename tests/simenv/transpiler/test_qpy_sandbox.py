"""A QPY file of a stranger ends no process but the one that is there for it."""

import io
import re
import signal
import sys
from collections.abc import Iterator

import pytest
from failing import fails
from qiskit import QuantumCircuit, qpy

from simenv.client.circuits import untrusted_qpy
from simenv.client.qpm import circuit_run
from simenv.client.qpm.requests import Request
from simenv.errors import ConfigError, LimitExceededError, ProgramError
from simenv.transpiler import qpy as qpy_sandbox
from simenv.transpiler.qpy import SandboxProcess


@pytest.fixture(scope="module")
def reader() -> Iterator[SandboxProcess]:
    sandbox_process = SandboxProcess()
    yield sandbox_process
    sandbox_process.close()


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
    reader._process.kill()
    fails(LimitExceededError, r"1024 MiB or 10 s", reader.convert, sound())
    reader.convert(sound())
    reader._process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(qpy_sandbox, "SECONDS", 0.1)
    fails(LimitExceededError, r"0\.1 s", reader.convert, sound())


def test_own_interpreter_reads(reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMENV_PYTHON", raising=False)
    monkeypatch.setattr(sys, "executable", "/opt/defw/bin/defwp")
    reader.convert(sound())
    reader.close()
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    fails(ConfigError, "SIMENV_PYTHON", reader.convert, sound())


def test_unread_reply_is_of_no_use(reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.convert(sound())
    with monkeypatch.context() as patch:

        def interrupted(*_: object) -> bytes:
            raise KeyboardInterrupt

        patch.setattr(reader, "_read", interrupted)
        fails(KeyboardInterrupt, "", reader.convert, sound())
    fails(ProgramError, "", reader.convert, sound()[:-20])
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_exchange", interrupted)
        fails(KeyboardInterrupt, "", reader.convert, sound()[:-20])
    reader.convert(sound())


def test_refused_by_busy_reader(reader: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qpy_sandbox, "QUEUE_SECONDS", 0.01)
    with reader._lock, pytest.raises(LimitExceededError, match="another QPY file is being read"):
        reader.convert(sound())


def test_file_refused_by_qiskit_is_a_program_error_with_file_name(reader: SandboxProcess) -> None:
    with pytest.raises(ProgramError, match=r"circuit\.data: the QPY file cannot be read"):
        reader.convert(sound()[:-20], "circuit.data")


def test_qpm_checks_qpy_in_confined_process_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    class Noted(SandboxProcess):
        def convert(self, data: bytes, name: str = "") -> bytes:
            seen.append(data)
            raise LimitExceededError("too much")

    monkeypatch.setattr(untrusted_qpy, "PROGRAMS", Noted())
    data = greedy()
    fails(LimitExceededError, "", circuit_run.prepare, Request(data, 10, None, None, False, 0))
    assert seen == [data]
    old = data[:6] + b"\x05" + data[7:]  # a version that may hold code
    fails(ProgramError, "version 5", circuit_run.prepare, Request(old, 10, None, None, False, 0))
    assert seen == [data]
