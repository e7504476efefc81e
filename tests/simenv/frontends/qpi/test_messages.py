"""Messages of a hostile service: the C library reads mutations of them without a fault."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from qpi_programs import environ, run, sanitized

from simenv.model import Origin, ResultData, Timing
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.model.result import RESULT_FORMAT, ResultFile, StoredArray
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import Devices, ResultChunk, VerifyReply

TURNS = 4_000
ORIGIN = Origin("main-0", "vm", 7, "0.1.0")
TASKS = 4  # that the session of fuzz.c has submitted, of two rows each


def result(**arrays: object) -> bytes:
    registers = (("a", 2), ("b", 1))
    data = ResultData(RESULT_FORMAT, registers, 3, 100, 1, count=2, **arrays)  # type: ignore[arg-type]
    return codec.encode(data)


def array(*values: float, kind: str = "<f8") -> bytes:
    return np.array(values, kind).tobytes()


COUNTED = result(
    outcome_width=1,
    outcomes=bytes([0, 3, 7]),
    counts=array(40, 60, 100, kind="<u4"),
    rows=array(2, 1, kind="<u4"),
)
EXACT = result(
    probability_width=1,
    probability_outcomes=bytes([0, 7, 0]),
    probabilities=array(0.5, 0.5, 1.0),
    probability_rows=array(2, 1, kind="<u4"),
    expectations=array(0.5, 0.0, -0.5, 0.0),
)
STATES = result(statevector=array(*[0.25] * 32))
FILED = result(
    file=ResultFile("a.bin", 512, 1, (StoredArray("statevector", "<c16", (2, 8), 64, 256, 5),))
)
FAILED = codec.encode(m.Failure("engine", "no", "way out"))


def completion(task: int, state: int, payload: bytes) -> m.Completion:
    return m.Completion(task, state, 1, 1, payload, zlib.crc32(payload), Timing(1, 2, 3))


def completed(*parts: m.Completion) -> m.Completed:
    return m.Completed(ORIGIN, "statevector", "", list(parts))


DEVICE = DeviceInfo(
    "main", DeviceKind.IDEAL, "simenv", "statevector", "1", "simulator", 30, 1000, (), True
)
ACCEPTED = [
    m.Welcome(5, "0.1.0", "default"),
    completed(completion(20, 2, COUNTED), completion(99, 2, COUNTED)),  # before its acceptance
    m.Accepted(1, 20, TASKS),
    completed(completion(21, 2, EXACT), completion(22, 2, STATES)),
    ResultChunk(2, b"abc"),
    VerifyReply(3, "again"),
    m.UnknownTasks(0, [21, 77], [77]),
    m.Pong(0, 6),
    m.Welcome(6, "0.1.0", "default"),
    completed(completion(23, 2, FILED)),
    Devices(2, [DEVICE]),
    m.Cancelled(4, ["final"]),
]
REFUSED = [
    m.Welcome(5, "0.1.0", "default"),
    m.Accepted(1, 20, TASKS, repeated=True),
    completed(completion(20, 3, FAILED), completion(21, 4, FAILED), completion(22, 5, FAILED)),
    m.Refused(2, [m.Refusal("option", "wrong", "right")]),
    m.Refused(1, [m.Refusal("queue_full", "full", "later", 0, 2.5)]),
    m.Refused(0, [m.Refusal("version", "of another build")]),
]


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sanitized("fuzz", tmp_path_factory.mktemp("fuzz"))


def read(fuzz: Path, messages: list[object], turns: int) -> tuple[int, int]:
    """Rows that ended, and rows with a result, of all turns."""
    corpus = fuzz.with_name("corpus")
    bodies = [codec.encode(message) for message in messages]  # type: ignore[arg-type]
    corpus.write_bytes(b"".join(len(body).to_bytes(4, "little") + body for body in bodies))
    ended, results = run([str(fuzz), str(corpus), str(turns)], env=environ()).split()
    return int(ended), int(results)


def test_mutated_results_and_answers_are_read_without_a_fault(fuzz: Path) -> None:
    ended, results = read(fuzz, ACCEPTED, TURNS)
    assert TURNS < results <= 2 * ended  # read twice where the session ends first
    assert ended < 2 * TASKS * TURNS  # some were refused


def test_mutated_failures_and_refusals_are_read_without_a_fault(fuzz: Path) -> None:
    ended, _ = read(fuzz, REFUSED, TURNS)
    assert ended > TURNS
