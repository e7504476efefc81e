"""Circuits changed at random on the wire: whatever is admitted, the engine survives.

20,000 of them crash nothing, hang nothing and leave nothing behind.
"""

from contextlib import suppress

import engine_runs
import numpy as np
import psutil
import pytest
from arrays import Arrays

from simulators.circuit import ir
from simulators.circuit.gates import OTHERS
from simulators.circuit.ir import Circuit, CircuitData, bell, feed_forward
from simulators.circuit.validation.admission import validation_error
from simulators.engine import Request
from simulators.errors import EngineError
from simulators.statevector.engine import StatevectorEngine
from tests.simulators.circuit.validation.test_admission import sample

LENGTHS = [1, 2, 8, 12]
NAMES = [*OTHERS, "h", "cx", "rx", "no such"]
GROWTH_BYTES = 48 * 2**20


def looped() -> Arrays:
    """Every kind of block, variable and store, and matrices."""
    arrays = Arrays(3, 5, [("a", 3), ("b", 2)])
    small, flag, wide = arrays.variable(4), arrays.variable(0), arrays.variable(130)
    result = arrays.value(1)
    arrays.add("h", [0]).unitary(np.eye(4)[[0, 2, 1, 3]], [0, 1]).unitary(np.eye(2)[::-1], [2])
    arrays.begin((ir.VALUE, result, 4), (ir.SET_VARIABLE, small, 4), name="store")
    arrays.repeat(3).add("x", [0])
    tokens = (ir.VARIABLE, small, 4), (ir.VALUE, result, 4), (ir.ADD, 0, 4)
    arrays.begin(*tokens, (ir.SET_VARIABLE, small, 4), name="store").add("measure", [0], [0])
    arrays.begin((ir.CLBIT, 0, 0)).add("break").add("else").add("continue").add("end").add("end")
    arrays.begin((ir.VARIABLE, flag, 0), (ir.LOGIC_NOT, 0, 0), name="while")
    arrays.add("h", [1]).add("measure", [1], [1])
    arrays.begin((ir.CLBIT, 1, 0), (ir.SET_VARIABLE, flag, 0), name="store").add("end")
    arrays.begin((ir.REGISTER, 0, 3), name="switch").begin((ir.VALUE, result, 3), name="case")
    arrays.add("x", [2]).begin((ir.VALUE, result, 3), (ir.VALUE, result, 3), name="case").add(
        "y", [2]
    )
    tokens = (ir.REGISTER, 0, 3), (ir.CAST, 0, 130), (ir.VALUE, result, 8), (ir.SHIFT_LEFT, 0, 130)
    arrays.add("default").begin(*tokens, (ir.SET_VARIABLE, wide, 130), name="store").add("end")
    tokens = (ir.VARIABLE, wide, 130), (ir.CAST, 0, 2), (ir.SET_REGISTER, 1, 2)
    arrays.begin(*tokens, name="store")
    arrays.begin((ir.VARIABLE, flag, 0), (ir.SET_CLBIT, 2, 0), name="store")
    return arrays.add("measure", [2], [2])


def fields(circuit: Circuit) -> tuple:
    return (
        circuit.num_qubits, circuit.num_clbits, circuit.registers, circuit.table.names,
        circuit.table.rows[:, 1:].astype(np.uint16).tobytes(), circuit.ops.tobytes(),
        circuit.qubits.tobytes(), circuit.clbits.tobytes(), circuit.params.tobytes(),
        circuit.num_slots, circuit.slots.tobytes(), circuit.conditions.tobytes(),
        circuit.constants, circuit.variables, circuit.matrices,
    )  # fmt: skip


def _bytes(rng: np.random.Generator, value: bytes) -> bytes:
    raw = bytearray(value)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(5)
        at = int(rng.integers(len(raw) + 1))
        length = int(rng.choice(LENGTHS))
        if kind == 0:
            raw[at:at] = rng.bytes(length)
        elif kind == 1:
            del raw[at : at + length]
        elif kind == 2:  # a row twice, or somewhere else
            other = int(rng.integers(len(raw) + 1)) // length * length
            at = at // length * length
            raw[at:at] = raw[other : other + length]
        elif at < len(raw):
            raw[at] = int(rng.integers(256)) if kind == 3 else raw[at] ^ 1
    return bytes(raw)


def mutated(rng: np.random.Generator, value: object) -> object:
    if isinstance(value, bytes):
        return _bytes(rng, value)
    if isinstance(value, int):
        return value + int(rng.choice([-1, 1, 2, -70000, 2**63, 2**70]))
    if not isinstance(value, tuple) or not value:
        return value
    at = int(rng.integers(len(value)))
    changed = value[at]
    if isinstance(changed, str):
        changed = str(rng.choice(NAMES))
    elif isinstance(changed, tuple):  # a register
        changed = changed[0], mutated(rng, changed[1])
    elif rng.integers(2):
        changed = mutated(rng, changed)
    else:
        return value[int(rng.integers(2)) :] + value[: int(rng.integers(2))]
    return (*value[:at], changed, *value[at + 1 :])


def test_unmutated_circuits_pass_validation() -> None:
    assert [validation_error(arrays().circuit()) for arrays in (sample, looped)] == ["", ""]


def run(seed: int, count: int) -> tuple[int, int]:
    """So many mutated circuits: how many were refused, how many ran to their end."""
    rng = np.random.default_rng(seed)
    engine = StatevectorEngine()
    originals = [sample().fields(), looped().fields(), fields(bell()), fields(feed_forward())]
    refused = ran = 0
    for _ in range(count):
        values = list(originals[rng.choice([0, 1, 1, 1, 2, 3])])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(values)))
            values[at] = mutated(rng, values[at])
        circuit = CircuitData(*values).circuit()
        text = validation_error(circuit)
        assert isinstance(text, str)
        refused += bool(text)
        if text or circuit.num_qubits > 14:
            continue
        bindings = np.zeros((1, circuit.num_slots))
        request = Request(5, 1, ("counts",), (), bindings)
        with suppress(EngineError):
            engine_runs.run(engine, circuit, request, max_steps=1000)
            ran += 1
    return refused, ran


def test_mutated_circuits_crash_neither_validation_nor_engine() -> None:
    refused, ran = run(0, 4000)
    assert refused > 1500
    assert ran > 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_mutated_circuits_leave_memory_use_bounded(seed: int) -> None:
    run(100 + seed, 500)
    before = psutil.Process().memory_info().rss
    run(seed, 4000)
    assert psutil.Process().memory_info().rss - before < GROWTH_BYTES
