"""A large program is looked at beside the loop, which goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from service import Bench, spec

from simenv.model import Program, Terms
from simenv.service import examining
from simenv.wire import codec
from simenv.wire import messages as m
from simenv.wire.connection import Door
from simenv.wire.engines import Explain, Explained

GATES = 40_000


def large(sound: bool = True) -> bytes:
    """40,000 rotations of two qubits and their measurement: above BESIDE_BYTES."""
    ops = np.concatenate([np.zeros(GATES), np.ones(2)]).astype(np.uint16)
    qubits = np.concatenate([np.arange(GATES) % 2, [0, 1 if sound else 7]]).astype(np.uint16)
    made = Program(
        2,
        2,
        2,
        (("c", 2),),
        ("ry", "measure"),
        np.array([[1, 0, 1], [1, 1, 0]], np.uint16).tobytes(),
        ops.tobytes(),
        qubits.tobytes(),
        np.arange(2, dtype=np.uint16).tobytes(),
        np.full(GATES, 0.1).tobytes(),
    ).packed()
    assert len(made) > examining.BESIDE_BYTES
    return made


class Held:
    """The look at large programs, stopped until the test lets it go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._look = examining.look

    def look(self, packed: bytes, terms: Terms) -> examining.Looked:
        if len(packed) > examining.BESIDE_BYTES:
            self.begun.set()
            assert self.go_on.wait(60)
        return self._look(packed, terms)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held()
    monkeypatch.setattr(examining, "look", made.look)
    yield made
    made.go_on.set()


@pytest.mark.parametrize(
    "question",
    [
        m.Submit(7, "~large", 0, Terms(), [spec(program=large())]),
        Explain(7, Terms(), large(), 100),
    ],
    ids=["submit", "explain"],
)
def test_others_are_served_while_a_large_program_is_looked_at(
    tmp_path: Path, held: Held, question: m.FromClient
) -> None:
    bench = Bench(tmp_path)
    other = bench.doors.connect(Door.CLIENT, b"other")
    bench.peer.send(codec.encode(question))
    while not held.begun.wait(0.001):
        bench.daemon.step(timeout_s=0.0)
    other.send(codec.encode(m.Submit(8, "~small", 0, Terms(), [spec()])))
    other.send(codec.encode(m.Ping(9)))
    for _ in range(20):
        bench.daemon.step(timeout_s=0.0)
    assert {type(answer) for answer in bench.heard(other)} == {m.Accepted, m.Pong}
    assert bench.heard() == []
    held.go_on.set()
    bench.step()
    (answer,) = bench.heard()
    assert isinstance(answer, m.Accepted | Explained)
    assert answer.request == 7


def test_a_large_program_that_is_wrong_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    refused = bench.submit(spec(program=large(sound=False)), spec(program=large(sound=False)))
    assert isinstance(refused, m.Refused)
    assert [one.code for one in refused.refusals] == ["program", "program"]
    (refused,) = bench.say(Explain(1, Terms(), large(sound=False), 10))
    assert isinstance(refused, m.Refused)
    accepted = bench.submit(spec(program=large()), spec(program=large(), seed=2))
    assert isinstance(accepted, m.Accepted)
    assert accepted.count == 2


def test_the_loop_does_not_ask_again_and_again_for_a_program_that_is_examined(
    tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.peer.send(codec.encode(m.Submit(7, "~large", 0, Terms(), [spec(program=large())])))
    while not held.begun.wait(0.001):
        bench.daemon.step(timeout_s=0.0)
    admission = bench.daemon.intake.admission
    assert admission is not None
    asked = []
    go_on = admission.go_on
    monkeypatch.setattr(admission, "go_on", lambda *given: asked.append(1) or go_on(*given))
    steps = 20
    for _ in range(steps):
        bench.daemon.step(timeout_s=0.0)
    assert len(asked) <= 2 * steps
