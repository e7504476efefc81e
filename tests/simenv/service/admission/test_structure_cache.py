"""Programs told by their bytes: those with other angles are let in unread, nothing else is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from service import ServiceHarness, program, spec

from simenv.model import Program, TaskSpec, Workload
from simenv.scheduler.core.types import Route
from simenv.service.admission import background_checks
from simenv.service.admission.rules import AdmittedProgram
from simenv.service.admission.structure_cache import LOOKED_BYTES, PLACES, StructureCache
from simenv.wire.messages import client as m

MARK = b"terms"
KNOWN = AdmittedProgram(
    0, True, 2, 5, 2, Route("statevector", "test", "main", 2, 1, 1.0, 1.0, 1), Workload()
)


def kept(one: Program) -> StructureCache:
    layouts = StructureCache()
    assert layouts.keep(one.packed(), one, MARK, KNOWN)
    return layouts


def test_program_with_other_angles_is_found_before_and_after_another_lookup() -> None:
    layouts = kept(program())
    other = program(3)
    assert layouts.keep(other.packed(), other, MARK, KNOWN)
    for angle in (0.1, 0.2, -3.0):
        assert layouts.find(program(2, angle).packed(), MARK) is KNOWN
        assert layouts.find(program(3, angle).packed(), MARK) is KNOWN


@pytest.mark.parametrize("angle", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("qubits", [2, 100])
def test_program_with_non_finite_angles_is_not_found(angle: float, qubits: int) -> None:
    layouts = kept(program(qubits))
    result = program(qubits)
    angles = np.frombuffer(result.params).copy()
    angles[-1] = angle
    bad = msgspec.structs.replace(result, params=angles.tobytes())
    assert layouts.find(bad.packed(), MARK) is None
    assert layouts.find(result.packed(), MARK) is KNOWN


def test_run_of_same_structure_ends_before_first_different_task() -> None:
    layouts = kept(program())

    def end_with(odd: TaskSpec) -> int:
        tasks = [spec(seed=k, program=program(2, 0.1 * k).packed()) for k in range(6)]
        tasks[4] = odd
        assert layouts.find(tasks[0].program, MARK) is KNOWN
        return layouts.same_structure_run(tasks, 0, 6)

    like = spec(seed=9, program=program(2, 7.0).packed(), binding=3)
    assert end_with(like) == 6
    odd: list[dict[str, object]] = [
        {"shots": 101},
        {"count": 2},
        {"bindings": b"12345678"},
        {"seed": -1},
        {"binding": -1},
        {"program": program(3).packed()},
    ]
    for change in odd:
        assert end_with(msgspec.structs.replace(like, **change)) == 4, change
    twice = msgspec.structs.replace(program(), qubits=bytes(8))
    assert end_with(msgspec.structs.replace(like, program=twice.packed())) == 4
    nan = msgspec.structs.replace(like, program=program(2, math.nan).packed())
    assert end_with(nan) == 1  # each is looked at by itself then


def test_program_with_any_changed_byte_outside_its_angles_is_not_found() -> None:
    result = program()
    layouts = kept(result)
    packed = result.packed()
    assert layouts.find(packed, MARK) is KNOWN
    at = packed.index(result.params)
    for place in (*range(at), *range(at + len(result.params), len(packed))):
        changed = bytearray(packed)
        changed[place] ^= 1
        assert layouts.find(bytes(changed), MARK) is None, place
    assert layouts.find(packed + b"\0", MARK) is None
    assert layouts.find(packed, b"other terms") is None


def test_angles_are_located_correctly_when_their_bytes_also_occur_elsewhere() -> None:
    outcome = msgspec.structs.replace(program(4, 0.0), clbits=bytes(64), qubits=bytes(64))
    layouts = kept(outcome)
    packed = outcome.packed()
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 1
        try:
            read = msgspec.msgpack.decode(bytes(changed), type=Program)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            read = outcome
        same = read != outcome and msgspec.structs.replace(read, params=outcome.params) == outcome
        assert (layouts.find(bytes(changed), MARK) is KNOWN) == same, place


def test_program_without_angles_or_with_other_encoding_is_not_cached() -> None:
    layouts = StructureCache()
    result = program()
    assert not layouts.keep(
        result.packed(), msgspec.structs.replace(result, params=b""), MARK, KNOWN
    )
    short = msgspec.msgpack.encode(msgspec.structs.astuple(result)[:10])  # defaults left out
    assert msgspec.msgpack.decode(short, type=Program) == result
    assert not layouts.keep(short, result, MARK, KNOWN)


def test_oldest_angle_position_is_evicted_when_cache_is_full() -> None:
    layouts = StructureCache()
    entries = [_padded(k) for k in range(PLACES + 1)]
    assert len({len(each.packed()) for each in entries}) == 1
    for each in entries:
        assert layouts.keep(each.packed(), each, MARK, KNOWN)
    assert layouts.find(entries[0].packed(), MARK) is None
    assert all(layouts.find(each.packed(), MARK) is KNOWN for each in entries[1:])


def test_bytes_examined_per_lookup_are_bounded() -> None:
    layouts, entries = StructureCache(), [_padded(k, 2**16) for k in range(PLACES)]
    for each in entries:
        assert layouts.keep(each.packed(), each, MARK, KNOWN)
    size = len(entries[0].packed())
    assert layouts.find(entries[-1].packed(), MARK) is KNOWN
    assert layouts.looked_bytes == size, "the newest place comes first"
    assert layouts.find(_padded(PLACES, 2**16).packed(), MARK) is None
    assert layouts.looked_bytes <= LOOKED_BYTES + 2 * size


def _padded(k: int, more: int = 0) -> Program:
    """Angles begin 8 bytes later for each k; the length stays."""
    qubits, slots = bytes(32 + 8 * k + more), bytes(232 - 8 * k)
    return msgspec.structs.replace(program(), qubits=qubits, slots=slots)


def test_structure_is_examined_once_in_one_message_and_in_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bytes] = []
    value = background_checks.look

    def noted(packed: bytes, *others: Any) -> background_checks.Looked:
        looks.append(packed)
        return value(packed, *others)

    monkeypatch.setattr(background_checks, "look", noted)
    bench = ServiceHarness(tmp_path)
    angles = [spec(seed=k, program=program(2, 0.1 * k).packed()) for k in range(1, 4)]
    assert isinstance(bench.submit(*angles), m.Accepted)
    assert isinstance(bench.submit(spec(program=program(2, 0.7).packed())), m.Accepted)
    assert looks == [angles[0].program]
    arities = np.array([[1, 0, 0], [1, 1, 0]], np.uint16).tobytes()
    plain = msgspec.structs.replace(program(2), names=("h", "measure"), arities=arities, params=b"")
    without_angles = spec(program=plain.packed())
    for _ in range(2):
        assert isinstance(bench.submit(without_angles, without_angles), m.Accepted)
    assert looks == [angles[0].program, without_angles.program]
