"""Modules that one submission crosses from the socket to the disk: what a reader must open."""

import sys
from pathlib import Path
from types import FrameType

import pytest
from service import ServiceHarness, program, spec

import simenv
from simenv.model import TaskOptions
from simenv.service.journal.database import SqliteDatabase
from simenv.wire import codec
from simenv.wire.messages import client as m

ROOT = Path(simenv.__file__).parents[1]
PACKAGES = tuple(f"{ROOT}/{name}/" for name in ("simenv", "simulators", "launcher", "noise_models"))
# Of a circuit whose structure is known, with its database, without its assignment.
MOST = 11


def test_a_submission_crosses_few_modules_to_the_journal(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossed: dict[str, list[str]] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code is SqliteDatabase.store.__code__ and event == "return":  # it is on disk
            sys.setprofile(None)
        if event == "call" and code.co_filename.startswith(PACKAGES):
            crossed.setdefault(code.co_filename[len(str(ROOT)) :], []).append(code.co_name)

    receive = ready.listener.receive

    def received() -> object:
        message = receive()
        if message is not None:
            sys.setprofile(note)
        return message

    for key in ("~first", "~second"):  # the first is decoded, the second found by its structure
        ready.submit(spec(), key=key)
    monkeypatch.setattr(ready.listener, "receive", received)
    monkeypatch.setattr(ready.loop, "_assign", lambda _now_ns: None)
    ready.loop._next_tick_ns = sys.maxsize
    task = spec(seed=2, program=program(angle=0.7).packed())
    ready.peer.send(codec.encode(m.Submit(6, "~third", 0, TaskOptions(), [task])))
    try:
        ready.loop.run_once(timeout_s=0.0)
    finally:
        sys.setprofile(None)
    (accepted,) = (each for each in ready.heard() if isinstance(each, m.Accepted))
    assert ready.journal.records.accepted.of(accepted.first) is not None
    assert "store" in crossed["/simenv/service/journal/database.py"]
    # They surround the path, and do nothing on it.
    for name in ("internal_errors.py", "job_thread.py", "workers/processes.py"):
        crossed.pop(f"/simenv/service/{name}", None)
    assert len(crossed) <= MOST, sorted(crossed.items())
