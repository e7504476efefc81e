"""The wire form of a program changes by a byte.

The files in tests/golden are what this version writes and reads. After a change that is meant, with
another PROGRAM_FORMAT, write them anew:

    .venv/bin/python tests/simenv/client/circuits/test_golden.py --write
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit, Parameter
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import (
    DiagonalGate,
    MCPhaseGate,
    MCXGate,
    UnitaryGate,
    XGate,
    get_standard_gate_name_mapping,
)

from simenv.client.circuits import ChannelNames, PackedCircuit, load
from simenv.model import Program, decode_program

FOLDER = Path(__file__).parents[3] / "golden"
GATES = (
    "h id x y z p r rx ry rz s sdg sx sxdg t tdg u u1 u2 u3 ch cx cy cz dcx ecr swap iswap cp crx "
    "cry crz cs csdg csx cu cu1 cu3 rxx ryy rzz rzx xx_minus_yy xx_plus_yy ccx ccz cswap rccx rcccx"
)
PROGRAMS: dict[str, Callable[[], QuantumCircuit | PackedCircuit]] = {}


def golden(
    make: Callable[[], QuantumCircuit | PackedCircuit],
) -> Callable[[], QuantumCircuit | PackedCircuit]:
    PROGRAMS[make.__name__] = make
    return make


@golden
def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


@golden
def every_gate() -> QuantumCircuit:
    circuit = QuantumCircuit(6, global_phase=0.375)
    standard_gate_name_mapping = get_standard_gate_name_mapping()
    for gate in (standard_gate_name_mapping[name] for name in GATES.split()):
        angles = [0.25 * (k + 1) for k in range(len(gate.params))]
        circuit.append(type(gate)(*angles), range(gate.num_qubits)[::-1])
    circuit.append(MCXGate(5), [5, 0, 4, 1, 3, 2])
    circuit.append(MCPhaseGate(-0.5, 4), [1, 2, 3, 4, 0])
    return circuit


@golden
def free_parameters() -> QuantumCircuit:
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2, global_phase=a)
    circuit.rz(b, 0)
    circuit.rz(2 * a, 1)
    circuit.u(a, 0.5, 2 * a, 0)
    circuit.delay(b, 1, "us")
    return circuit


@golden
def registers() -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(1, "q"), [Clbit()], ClassicalRegister(2, "first"))
    circuit.add_register(ClassicalRegister(3, "second"))
    circuit.add_bits([Clbit()])
    for clbit in circuit.clbits:
        circuit.measure(0, clbit)
        circuit.reset(0)
    return circuit


@golden
def times() -> QuantumCircuit:
    circuit = QuantumCircuit(3)
    for unit in ("s", "ms", "us", "ns", "ps", "dt"):
        circuit.delay(2, 1, unit)
    circuit.barrier(0, 2)
    circuit.barrier()
    return circuit


@golden
def branches() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 3)
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.if_test((0, True)) as otherwise:
        circuit.h(1)
        with circuit.if_test((circuit.cregs[0], 5)):
            circuit.x(1)
    with otherwise:
        circuit.rx(0.5, 1)
        with circuit.if_test((2, False)) as inner:
            circuit.measure(1, 1)
        with inner:
            circuit.z(0)
    return circuit


@golden
def conditions() -> QuantumCircuit:
    c, d, wide = ClassicalRegister(3, "c"), ClassicalRegister(3, "d"), ClassicalRegister(302, "e")
    circuit = QuantumCircuit(QuantumRegister(1, "q"), c, d, wide, [Clbit()])
    uint = types.Uint(5)
    tests: list[Any] = [
        (wide, 2**301),
        expr.logic_or(expr.logic_not(circuit.clbits[-1]), expr.logic_and(c[0], d[2])),
        expr.less(expr.add(c, d), expr.sub(c, expr.mul(d, 2))),
        expr.less_equal(expr.bit_and(c, d), expr.bit_or(c, expr.bit_xor(d, expr.bit_not(c)))),
        expr.greater(expr.shift_left(c, 1), expr.shift_right(d, c)),
        expr.greater_equal(expr.cast(c, uint), expr.div(expr.cast(d, uint), expr.lift(3, uint))),
        expr.not_equal(expr.index(c, 1), expr.cast(d, types.Bool())),
        expr.equal(c, 5),
    ]
    for test in tests:
        with circuit.if_test(test):
            circuit.x(0)
    return circuit


@golden
def definitions() -> QuantumCircuit:
    inner = QuantumCircuit(2, global_phase=0.125)
    inner.rzz(0.5, 1, 0)
    outer = QuantumCircuit(3)
    outer.append(inner.to_gate(), [2, 0])
    outer.h(1)
    circuit = QuantumCircuit(3)
    circuit.append(outer.to_gate(), [1, 2, 0])
    circuit.append(outer.to_gate(), [0, 1, 2])
    return circuit


@golden
def loops() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    with circuit.for_loop(range(5)):
        circuit.h(0)
        circuit.measure(0, 0)
        with circuit.if_test((0, True)):
            circuit.break_loop()
    with circuit.while_loop(expr.logic_not(circuit.clbits[1])):
        circuit.h(1)
        circuit.measure(1, 1)
        with circuit.if_test((0, False)):
            circuit.continue_loop()
        circuit.x(0)
    with circuit.for_loop((2, 3)) as index:
        circuit.rx(index, 0)
    with circuit.for_loop((4, 7)) as index:
        circuit.ry(index, 1)
        circuit.break_loop()
    with circuit.for_loop(range(6, 0, -2), expr.Var.new("k", types.Uint(8))):
        circuit.y(0)
    return circuit


@golden
def switches() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 3)
    with circuit.switch(circuit.cregs[0]) as case:
        with case(1, 2):
            circuit.x(0)
        with case(5):
            circuit.y(0)
        with case(case.DEFAULT):
            circuit.z(0)
    with circuit.switch(circuit.clbits[1]) as case, case(True):
        circuit.h(0)
    return circuit


@golden
def variables() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 3)
    number = circuit.add_var("number", expr.lift(300, types.Uint(9)))
    flag = circuit.add_var("flag", expr.lift(True))
    circuit.store(number, expr.add(number, expr.lift(1, types.Uint(9))))
    circuit.store(expr.index(number, expr.cast(circuit.cregs[0], types.Uint(9))), flag)
    circuit.store(circuit.cregs[0], expr.cast(number, types.Uint(3)))
    circuit.store(expr.index(circuit.cregs[0], 2), flag)
    circuit.store(circuit.clbits[0], flag)
    with circuit.while_loop(flag):
        circuit.store(flag, expr.less(number, 5))
    return circuit


@golden
def matrices() -> QuantumCircuit:
    circuit = QuantumCircuit(3)
    circuit.append(UnitaryGate(np.array([[0, 1j], [1, 0]])), [1])
    circuit.append(UnitaryGate(np.eye(4)[[1, 3, 0, 2]]), [2, 0])
    circuit.append(UnitaryGate(np.array([[0, 1j], [1, 0]])), [0])
    return circuit


@golden
def labels() -> PackedCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.x(0)
    circuit.append(XGate(label="slow"), [0])
    circuit.unitary([[0, 1], [1, 0]], [1], label="flip")
    circuit.unitary([[0, 1], [1, 0]], [1])
    circuit.append(DiagonalGate([1, 1j, 1, -1]), [0, 1])
    circuit.measure(0, 0)
    return load(circuit, ChannelNames(frozenset({"slow", "diagonal"})))


def described(program: Program) -> str:
    """The readable twin of the bytes."""
    table: dict[str, Any] = {}
    for name in program.__struct_fields__:
        value = getattr(program, name)
        table[name] = value.hex() if isinstance(value, bytes) else value
    table["constants"] = [constant.hex() for constant in program.constants]
    table["matrices"] = [matrix.hex() for matrix in program.matrices]
    table["structure"] = program.structure.hex()
    table["digest"] = program.digest.hex()
    return json.dumps(table, indent=1) + "\n"


@pytest.mark.parametrize("name", PROGRAMS)
def test_circuit_is_packed_as_golden_bytes(name: str) -> None:
    loaded = load(PROGRAMS[name]())
    assert described(loaded.program) == (FOLDER / f"{name}.json").read_text()
    assert loaded.packed == (FOLDER / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_golden_bytes_are_decoded_as_golden_program(name: str) -> None:
    program = decode_program((FOLDER / f"{name}.bin").read_bytes())
    assert described(program) == (FOLDER / f"{name}.json").read_text()


def test_golden_files_match_list_of_programs() -> None:
    assert {path.stem for path in FOLDER.iterdir() if path.is_file()} == set(PROGRAMS)


def write() -> None:
    for name, make in PROGRAMS.items():
        loaded = load(make())
        (FOLDER / f"{name}.bin").write_bytes(loaded.packed)
        (FOLDER / f"{name}.json").write_text(described(loaded.program))


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write()
