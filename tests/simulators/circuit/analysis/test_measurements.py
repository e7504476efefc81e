"""Which measurements can wait for the end; what a profile says of a circuit."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from hypothesis import given, settings
from random_circuits import dynamic_circuits
from reference import Reference

from simulators.circuit import tokens as tk
from simulators.circuit.analysis.measurements import (
    LAST_USE,
    NO_OP_RESET,
    ORDINARY,
    TERMINAL,
    has_mid_circuit_ops,
)
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit

C0 = (tk.CLBIT, 0, 0)


def roles(circuit: Circuit, *, keep: bool = False) -> tuple[list[int], bool]:
    array = np.empty(circuit.ops.size, np.int64)
    branching = has_mid_circuit_ops(circuit, array, keep=keep)
    return array.tolist(), branching


def test_measurements_at_end_are_terminal_and_do_not_branch() -> None:
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0]).add("barrier", [0, 1])
    arrays.add("h", [1]).add("delay", [0], (), [1.0]).add("id", [0]).add("measure", [1], [1])
    assert roles(arrays.circuit()) == (
        [ORDINARY, TERMINAL, ORDINARY, ORDINARY, ORDINARY, ORDINARY, TERMINAL],
        False,
    )


@pytest.mark.parametrize(
    ("add", "role"),
    [
        (lambda a: a.add("x", [0]), ORDINARY),
        (lambda a: a.add("reset", [0]).add("h", [0]), ORDINARY),
        (lambda a: a.add("reset", [0]).add("measure", [0], [1]), ORDINARY),
        (lambda a: a.begin(C0).add("end"), LAST_USE),
        (lambda a: a.begin((tk.REGISTER, 0, 2), (tk.CAST, 0, 0)).add("end"), LAST_USE),
        (lambda a: a.add("h", [1]).add("measure", [1], [0]).add("x", [1]), LAST_USE),
        (lambda a: a.begin((tk.CLBIT, 1, 0)).add("measure", [1], [0]).add("end"), LAST_USE),
    ],
)
def test_measurement_that_affects_later_operations_is_not_terminal(add: object, role: int) -> None:
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0])
    add(arrays)  # type: ignore[operator]
    value, branching = roles(arrays.circuit())
    assert value[1] == role
    assert branching
    if role == LAST_USE:
        assert roles(arrays.circuit(), keep=True)[0][1] == ORDINARY


def test_repeated_or_overwritten_measurement_does_not_branch() -> None:
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0]).add("measure", [0], [1])
    assert roles(arrays.add("measure", [1], [0]).circuit()) == ([ORDINARY] + [TERMINAL] * 3, False)


def test_resets_without_effect_do_not_branch() -> None:
    arrays = Arrays(1, 1).add("reset", [0]).add("h", [0]).add("measure", [0], [0])
    circuit = arrays.add("reset", [0]).circuit()
    assert roles(circuit) == ([NO_OP_RESET, ORDINARY, TERMINAL, NO_OP_RESET], False)
    assert roles(circuit, keep=True) == ([NO_OP_RESET, ORDINARY, ORDINARY, ORDINARY], True)


def test_reset_between_gate_and_measurement_is_not_dropped() -> None:
    arrays = Arrays(1, 1).add("h", [0]).add("reset", [0]).add("measure", [0], [0])
    assert roles(arrays.circuit()) == ([ORDINARY, ORDINARY, TERMINAL], True)


@settings(derandomize=True, deadline=None)
@given(circuit=dynamic_circuits())
def test_roles_equal_reference_definition(circuit: Circuit) -> None:
    value, _ = roles(circuit)
    expected = Reference(circuit, 0, 0, 1).roles
    final = {k for k, role in expected.items() if role == "final"}
    assert {k for k, role in enumerate(value) if role == TERMINAL} == final
    unseen = {k for k, role in expected.items() if role == "unseen"}
    assert {k for k, role in enumerate(value) if role == NO_OP_RESET} == unseen


def test_profile_counts_operations_by_kind() -> None:
    arrays = Arrays(5, 3).add("h", [0]).add("cx", [0, 1]).add("ccx", [0, 1, 2]).add("mcx", [1, 2])
    arrays.add("global_phase", (), (), [0.1]).add("barrier", range(5)).add("reset", [4])
    arrays.add("measure", [0], [0]).begin(C0).add("x", [1]).add("end").add("measure", [1], [1])
    matrix = np.eye(4)[::-1]
    arrays.unitary(matrix, [0, 1]).unitary(matrix, [2, 1]).repeat(4)
    arrays.begin((tk.VALUE, arrays.value(1), 0), name="while").add("end").add("end")
    arrays.begin(C0, name="switch").add("default").add("end").variable(3)
    arrays.begin(C0, (tk.SET_CLBIT, 1, 0), name="store")
    expected = {
        "num_qubits": 5,
        "num_clbits": 3,
        "operations": 22,
        "gates_1q": 3,
        "gates_2q": 4,
        "gates_many": 1,
        "measurements": 2,
        "resets": 1,
        "mid_circuit": True,
        "conditions": 2,
        "loops": 2,
        "switches": 1,
        "variables": 1,
        "stores": 1,
        "unitaries": 2,
    }
    result = msgspec.structs.asdict(profile(arrays.circuit()))
    assert {name: result[name] for name in expected} == expected


LOOPED = (tk.VALUE, 0, 8)


@pytest.mark.parametrize("name", ["while", "for"])
def test_qubit_in_loop_is_used_again_by_next_iteration(name: str) -> None:
    """In a loop the last use of a qubit is followed by its first."""
    arrays = Arrays(2, 2)
    arrays.value(3)
    tokens = (LOOPED,) if name == "for" else (C0,)
    arrays.begin(*tokens, name=name).add("reset", [0]).add("h", [0]).add("measure", [0], [0])
    arrays.add("reset", [1]).add("end").add("reset", [1])
    value, branching = roles(arrays.circuit())
    assert value == [ORDINARY] * 6 + [NO_OP_RESET]
    assert branching


def test_loop_of_gates_does_not_branch() -> None:
    arrays = Arrays(1, 1)
    arrays.repeat(5).add("h", [0]).add("end").add("measure", [0], [0])
    assert roles(arrays.circuit()) == ([ORDINARY] * 3 + [TERMINAL], False)
    number = arrays.variable(4)
    arrays.begin((tk.VALUE, 0, 4), (tk.SET_VARIABLE, number, 4), name="store")
    assert roles(arrays.circuit()) == ([ORDINARY] * 3 + [TERMINAL, ORDINARY], False)


@pytest.mark.parametrize(
    "tokens",
    [
        ((tk.CLBIT, 1, 0), (tk.SET_CLBIT, 0, 0)),
        ((tk.REGISTER, 0, 2), (tk.SET_REGISTER, 0, 2)),
        ((tk.CLBIT, 0, 0), (tk.SET_VARIABLE, 0, 0)),
    ],
)
def test_measurement_before_store_is_not_deferred_to_end(tokens: tuple) -> None:
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0])
    arrays.variable(0)
    value, branching = roles(arrays.begin(*tokens, name="store").circuit())
    assert value == [ORDINARY, LAST_USE, ORDINARY]
    assert branching
