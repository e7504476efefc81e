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
    one = program(qubits)
    angles = np.frombuffer(one.params).copy()
    angles[-1] = angle
    bad = msgspec.structs.replace(one, params=angles.tobytes())
    assert layouts.find(bad.packed(), MARK) is None
    assert layouts.find(one.packed(), MARK) is KNOWN


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
    one = program()
    layouts = kept(one)
    packed = one.packed()
    assert layouts.find(packed, MARK) is KNOWN
    at = packed.index(one.params)
    for place in (*range(at), *range(at + len(one.params), len(packed))):
        changed = bytearray(packed)
        changed[place] ^= 1
        assert layouts.find(bytes(changed), MARK) is None, place
    assert layouts.find(packed + b"\0", MARK) is None
    assert layouts.find(packed, b"other terms") is None


def test_angles_are_located_correctly_when_their_bytes_also_occur_elsewhere() -> None:
    one = msgspec.structs.replace(program(4, 0.0), clbits=bytes(64), qubits=bytes(64))
    layouts = kept(one)
    packed = one.packed()
    for place in range(len(packed)):
        changed = bytearray(packed)
        changed[place] ^= 1
        try:
            read = msgspec.msgpack.decode(bytes(changed), type=Program)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            read = one
        same = read != one and msgspec.structs.replace(read, params=one.params) == one
        assert (layouts.find(bytes(changed), MARK) is KNOWN) == same, place


def test_program_without_angles_or_with_other_encoding_is_not_cached() -> None:
    layouts = StructureCache()
    one = program()
    assert not layouts.keep(one.packed(), msgspec.structs.replace(one, params=b""), MARK, KNOWN)
    short = msgspec.msgpack.encode(msgspec.structs.astuple(one)[:10])  # defaults left out
    assert msgspec.msgpack.decode(short, type=Program) == one
    assert not layouts.keep(short, one, MARK, KNOWN)


def test_oldest_angle_position_is_evicted_when_cache_is_full() -> None:
    layouts = StructureCache()
    made = [_padded(k) for k in range(PLACES + 1)]
    assert len({len(one.packed()) for one in made}) == 1
    for one in made:
        assert layouts.keep(one.packed(), one, MARK, KNOWN)
    assert layouts.find(made[0].packed(), MARK) is None
    assert all(layouts.find(one.packed(), MARK) is KNOWN for one in made[1:])


def test_bytes_examined_per_lookup_are_bounded() -> None:
    layouts, made = StructureCache(), [_padded(k, 2**16) for k in range(PLACES)]
    for one in made:
        assert layouts.keep(one.packed(), one, MARK, KNOWN)
    size = len(made[0].packed())
    assert layouts.find(made[-1].packed(), MARK) is KNOWN
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
    look = background_checks.look

    def noted(packed: bytes, *others: Any) -> background_checks.Looked:
        looks.append(packed)
        return look(packed, *others)

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
