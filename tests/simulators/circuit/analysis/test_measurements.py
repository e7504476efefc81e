"""Analysis of circuits."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from hypothesis import given, settings
from random_circuits import dynamic_circuits, unitary_circuits
from reference import Reference, final_state

from simulators.circuit import gates, ir
from simulators.circuit.analysis import profiler
from simulators.circuit.analysis.measurements import (
    LAST_USE,
    NO_OP_RESET,
    ORDINARY,
    TERMINAL,
    has_mid_circuit_ops,
)
from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.validation import operations
from simulators.circuit.validation.admission import validation_error
from simulators.stabilizer import convert

C0 = (ir.CLBIT, 0, 0)


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
        (lambda a: a.begin((ir.REGISTER, 0, 2), (ir.CAST, 0, 0)).add("end"), LAST_USE),
        (lambda a: a.add("h", [1]).add("measure", [1], [0]).add("x", [1]), LAST_USE),
        (lambda a: a.begin((ir.CLBIT, 1, 0)).add("measure", [1], [0]).add("end"), LAST_USE),
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
    arrays.begin((ir.VALUE, arrays.value(1), 0), name="while").add("end").add("end")
    arrays.begin(C0, name="switch").add("default").add("end").variable(3)
    arrays.begin(C0, (ir.SET_CLBIT, 1, 0), name="store")
    expected = {
        "num_qubits": 5, "num_clbits": 3, "operations": 22, "gates_1q": 3, "gates_2q": 4,
        "gates_many": 1, "measurements": 2, "resets": 1, "mid_circuit": True, "conditions": 2,
        "loops": 2, "switches": 1, "variables": 1, "stores": 1, "unitaries": 2,
    }  # fmt: skip
    result = msgspec.structs.asdict(profiler.profile(arrays.circuit()))
    assert {name: result[name] for name in expected} == expected


LOOPED = (ir.VALUE, 0, 8)


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
    arrays.begin((ir.VALUE, 0, 4), (ir.SET_VARIABLE, number, 4), name="store")
    assert roles(arrays.circuit()) == ([ORDINARY] * 3 + [TERMINAL, ORDINARY], False)


@pytest.mark.parametrize(
    "tokens",
    [
        ((ir.CLBIT, 1, 0), (ir.SET_CLBIT, 0, 0)),
        ((ir.REGISTER, 0, 2), (ir.SET_REGISTER, 0, 2)),
        ((ir.CLBIT, 0, 0), (ir.SET_VARIABLE, 0, 0)),
    ],
)
def test_measurement_before_store_is_not_deferred_to_end(tokens: tuple) -> None:
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0])
    arrays.variable(0)
    value, branching = roles(arrays.begin(*tokens, name="store").circuit())
    assert value == [ORDINARY, LAST_USE, ORDINARY]
    assert branching


WIDE = 16


def random_circuit(rng: np.random.Generator) -> Circuit:
    """Wide, with gates that may go, on some of its qubits."""
    arrays = Arrays(WIDE, 6)
    used = int(rng.integers(2, WIDE + 1))
    for _ in range(int(rng.integers(60))):
        a, b, c = (rng.permutation(max(3, used))[:3]).tolist()
        name = str(rng.choice(["cx", "cz", "h", "rz", "ccx", "swap", "id", "measure", "reset"]))
        if name == "measure":
            arrays.add(name, [a], [int(rng.integers(6))])
        else:
            wires = {"cx": [a, b], "cz": [a, b], "swap": [a, b], "ccx": [a, b, c]}.get(name, [a])
            arrays.add(name, wires, (), [0.5] if name == "rz" else [])
    return arrays.add("measure", [0], [0]).circuit()


def test_numbers_of_one_part_are_those_of_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    reduced = 0
    for _ in range(200):
        circuit = random_circuit(rng)
        value, several = profiler.cone_size(circuit)
        result = profiler.profile(circuit, ("counts",))
        with monkeypatch.context() as patch:
            patch.setattr(profiler, "cone_size", lambda _: (None, True))
            expected = profiler.profile(circuit, ("counts",))
        assert result == expected
        assert several or result.kept == value
        reduced += value is not None
    assert 40 < reduced < 200


def test_a_circuit_that_is_needed_as_it_is_has_no_numbers_of_its_own() -> None:
    arrays = Arrays(WIDE, 1)
    for qubit in range(WIDE - 1):
        arrays.add("h", [qubit]).add("cx", [qubit, qubit + 1])
    arrays.add("h", [WIDE - 1]).add("measure", [WIDE - 1], [0])
    assert profiler.cone_size(arrays.circuit()) == (None, False)


def rank_bits(circuit: Circuit) -> float:
    """log2 of the largest Schmidt rank over all cuts between neighbours."""
    state = final_state(circuit)
    n = circuit.num_qubits
    ranks = [np.linalg.matrix_rank(state.reshape(2 ** (n - k), -1), 1e-9) for k in range(1, n)]
    return float(np.log2(max(ranks, default=1)))


@settings(derandomize=True, deadline=None)
@given(circuit=unitary_circuits(least=1, most=6))
def test_schmidt_rank_of_random_circuit_is_within_bond_bound(circuit: Circuit) -> None:
    assert rank_bits(circuit) <= profiler.traits(circuit).bond_bits


@pytest.mark.parametrize("name", sorted(n for n, g in GATES.items() if g.qubits not in (0, 1)))
def test_schmidt_rank_of_each_gate_is_within_bond_bound(name: str) -> None:
    """Each half of its qubits entangled with partners, so that the state shows the whole rank."""
    gate = GATES[name]
    width = gate.qubits if gate.qubits != ANY else 3
    rng = np.random.default_rng(gate.code)
    for cut in range(1, width):
        arrays = Arrays(2 * width, 0)
        wires = [*range(cut), *range(width + cut, 2 * width)]
        partners = [*range(cut, 2 * cut), *range(2 * cut, width + cut)]
        for a, b in zip(wires, partners, strict=True):
            arrays.add("h", [a]).add("cx", [a, b])
        before = profiler.traits(arrays.circuit()).bond_bits
        arrays.add(name, wires, (), rng.uniform(0.5, 2.5, gate.params).tolist())
        assert rank_bits(arrays.circuit()) <= profiler.traits(arrays.circuit()).bond_bits
        assert before <= width


def test_cx_chain_has_bond_bound_of_one_bit() -> None:
    arrays = Arrays(1000, 0)
    for q in range(999):
        arrays.add("cx", [q, q + 1])
    result = profiler.traits(arrays.circuit())
    assert (result.bond_bits, result.longest, result.clifford) == (1, 1, True)
    arrays.add("swap", [0, 999])
    closed = profiler.traits(arrays.circuit())  # a ring, folded into a line of pairs
    assert (closed.bond_bits, closed.longest) == (2, 2)


def test_gates_that_are_no_clifford_gates_are_counted() -> None:
    arrays = Arrays(4, 4).add("h", [0]).add("cx", [0, 1]).add("barrier", range(4))
    arrays.add("rz", [0], (), [np.pi / 2]).add("mcx", [0, 1]).add("mcphase", [0, 1], (), [np.pi])
    arrays.add("cp", [0, 1], (), [np.pi]).add("measure", [0], [0])
    assert profiler.non_clifford_gates(arrays.circuit()) == 0
    arrays.add("t", [0]).add("rz", [0], (), [0.3]).add("u", [1], (), [0.1, 0.2, 0.3])
    assert profiler.non_clifford_gates(arrays.circuit()) == 3
    arrays.add("cp", [0, 1], (), [np.pi / 2]).add("ccx", [0, 1, 2]).add("mcx", [0, 1, 2])
    arrays.add("mcphase", [0, 1], (), [np.pi / 2]).add("mcphase", [1], (), [np.pi / 2])
    assert profiler.non_clifford_gates(arrays.circuit()) == 7
    arrays.add("rz", [2], (), [0.3])
    arrays.free(len(arrays.circuit().params) - 1)
    assert profiler.non_clifford_gates(arrays.circuit()) == 7
    assert profiler.non_clifford_gates(Arrays(1, 0).circuit()) == 0


def test_bond_bound_of_very_long_circuit_is_unknown() -> None:
    arrays = Arrays(60_000, 0)
    for _ in range(200):
        arrays.add("cx", [0, 59_999])
    assert profiler.traits(arrays.circuit()).bond_bits == -1


@pytest.mark.parametrize("offset", [0.0, 3e-13, -3e-13, 5e-12, -1e-9])
def test_angle_is_clifford_only_within_rounding_of_quarter_turn(offset: float) -> None:
    for turns in (0, 1, 2, 3, -7, 4_001):
        circuit = Arrays(1, 0).add("rz", [0], (), [turns * np.pi / 2 + offset]).circuit()
        near = abs(offset) < min(9e-10, 1e-12 * max(1, abs(turns)))
        assert profiler.traits(circuit).clifford == near
        assert profiler.traits(circuit).by_angles


def test_operations_are_checked_once_for_profile_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    check = operations.check_operations

    def noted(*args: Any) -> int:
        calls.append(args)
        return int(check(*args))

    monkeypatch.setattr(operations, "check_operations", noted)
    sound = Arrays(2, 0).add("cx", [0, 1]).circuit()
    assert validation_error(sound) == ""
    assert profiler.profile(sound).gates_2q == 1
    assert len(calls) == 1
    wrong = Arrays(2, 0).add("cx", [1, 1]).circuit()
    for _ in range(2):
        assert validation_error(wrong) == "operation 0 (cx): the same qubit twice"
    assert len(calls) == 2


@pytest.mark.parametrize("seed", range(40))
def test_profile_of_a_narrow_circuit_that_is_kept_is_its_own(seed: int) -> None:
    random = np.random.default_rng(seed)
    arrays = Arrays(4, 4)
    for name in random.choice(["h", "t", "rz", "cx", "measure", "reset", "id"], 12).tolist():
        first, second, bit = *random.choice(4, 2, replace=False).tolist(), int(random.integers(4))
        wires, bits = ([first, second], ()) if name == "cx" else ([first], ())
        angle = [np.pi / 2 * float(random.choice([1, 1, 1.5]))] if name == "rz" else []
        arrays.add(name, wires, [bit] if name == "measure" else bits, angle)
    result = profiler.profile(arrays.circuit())
    assert profiler.profile(arrays.circuit()) is result  # another circuit, equal numbers
    assert result == profiler._profile(arrays.circuit(), (), ())
    assert result.mid_circuit == roles(arrays.circuit())[1]


def test_free_parameters_leave_clifford_property_undecided() -> None:
    arrays = Arrays(2, 0).add("h", [0]).add("u", [0], (), [0.0, np.pi, 0.0])
    arrays.free(0)
    result = profiler.traits(arrays.circuit())
    assert (result.clifford, result.may_be_clifford, result.by_angles) == (False, True, True)
    arrays.add("u", [0], (), [0.0, 0.3, 0.0])
    result = profiler.traits(arrays.circuit())
    assert (result.clifford, result.may_be_clifford, result.by_angles) == (False, False, True)
    arrays.add("t", [0])
    assert not profiler.traits(arrays.circuit()).by_angles


def test_pairs_of_gates_are_listed_once_with_the_lower_qubit_first() -> None:
    arrays = Arrays(5, 0).add("cx", [3, 1]).add("ccx", [4, 0, 2]).add("cz", [1, 3]).add("h", [2])
    arrays.add("barrier", [0, 1, 2, 3, 4])
    pairs, gates = profiler.gate_pairs(arrays.circuit())
    assert pairs.tolist() == [[0, 2], [0, 4], [1, 3], [2, 4]]
    assert gates.tolist() == [1, 1, 2, 1]
    assert len(profiler.gate_pairs(Arrays(2, 0).add("h", [0]).circuit())[0]) == 0


HALF = math.pi


@pytest.mark.parametrize(
    ("name", "params", "is_clifford"),
    [
        ("r", (HALF, HALF / 4), True),
        ("r", (-HALF, 3 * HALF / 4), True),
        ("r", (2 * HALF, 0.3), True),
        ("r", (HALF, HALF / 8), False),
        ("r", (HALF / 2, HALF / 4), False),
        ("u3", (HALF, -HALF / 4, HALF / 4), True),
        ("u", (0.0, 0.3, -0.3), True),
        ("u", (HALF, 0.3, 0.3), True),
        ("u", (HALF, 0.3, -0.3), False),
        ("xx_plus_yy", (HALF, HALF / 2), True),
        ("xx_plus_yy", (HALF, HALF / 4), False),
        ("xx_minus_yy", (2 * HALF, 0.3), True),
    ],
)
def test_axis_of_a_half_turn_may_lie_between_those_of_paulis(
    name: str, params: tuple[float, ...], is_clifford: bool
) -> None:
    arrays = Arrays(2, 0)
    arrays.add(name, list(range(gates.GATES[name].qubits)), params=list(params))
    circuit = arrays.circuit()
    assert profiler.non_clifford_gates(circuit) == (not is_clifford)
    assert profiler.profile(circuit).clifford == is_clifford
    matrix = gates.unitary(name, params)
    assert (convert.of_matrix(matrix) is not None) == is_clifford
