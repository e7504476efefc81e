"""Modules that one submit crosses to the socket: what a reader must open to follow it."""

import sys
from pathlib import Path
from types import FrameType

import pytest
from circuits import bell
from qiskit import qasm2

import simenv
from simenv.client.client import Client
from simenv.client.connection import tracing
from simenv.wire.transport.unix_streams import UnixConnection

ROOT = Path(simenv.__file__).parent
MOST = 10


def test_a_submit_crosses_few_modules(env: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, tracing.API, raising=False)  # without spans
    crossed: dict[str, str] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code is UnixConnection.send.__code__:
            sys.setprofile(None)
        if event == "call" and code.co_filename.startswith(f"{ROOT}/"):
            crossed.setdefault(code.co_filename[len(str(ROOT)) :], code.co_name)

    text = qasm2.dumps(bell())
    env.submit(text, shots=10).result()  # parsed once: the reader of the text is a part of its own
    sys.setprofile(note)
    try:
        env.submit(text, shots=10).result()
    finally:
        sys.setprofile(None)
    assert "/wire/transport/unix_streams.py" in crossed
    assert len(crossed) <= MOST, sorted(crossed.items())
