"""Adjoint gradients, against differences of exact expectation values and the shift rule."""

import math

import engine_runs
import numpy as np
import pytest
from arrays import Arrays
from paulis import applied
from reference import apply, matrix, operations

from simulators.circuit.gates import ANY, GATES, Gate
from simulators.circuit.ir import Circuit, CircuitData
from simulators.engine import BindingResult, PauliSum, Request, RunControl
from simulators.errors import Stopped, Unsupported
from simulators.simulate import simulate
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.gradient import reverse_kernel

BOTH = ("expectation", "gradient")
TURNED = [gate for gate in GATES.values() if gate.params]
STEP = 5e-3


def sums(num_qubits: int, seed: int, count: int = 2, terms: int = 6) -> tuple[PauliSum, ...]:
    rng = np.random.default_rng(seed)
    entries = []
    for _ in range(count):
        rows = rng.choice(list("IXYZ"), (terms, num_qubits))
        entries.append(PauliSum(tuple("".join(row) for row in rows), rng.normal(size=terms)))
    return tuple(entries)


def run(
    circuit: Circuit, observables: tuple[PauliSum, ...], values: np.ndarray,
    outputs: tuple[str, ...] = BOTH, shots: int = 0, control: RunControl | None = None,
    **options: object,
) -> BindingResult:  # fmt: skip
    request = Request(shots, 3, outputs, observables, np.array(values, float).reshape(1, -1))
    engine = StatevectorEngine()
    return engine_runs.run(engine, circuit, request, control=control, **options).row(0)


def exact(circuit: Circuit, observable: PauliSum, values: np.ndarray) -> float:
    params = circuit.params.copy()
    params[circuit.slots[0::2]] = np.array(values)[circuit.slots[1::2]]
    fixed = CircuitData(
        circuit.num_qubits, circuit.num_clbits, circuit.registers, circuit.table.names,
        circuit.table.rows[:, 1:].astype(np.uint16).tobytes(), circuit.ops_data,
        circuit.qubits_data, circuit.clbits_data, params.tobytes(), matrices=circuit.matrices,
    ).circuit()  # fmt: skip
    state = np.zeros(1 << circuit.num_qubits, complex)
    state[0] = 1.0
    for number, op in zip(circuit.ops.tolist(), operations(fixed), strict=True):
        if op.name == "unitary":
            own = np.frombuffer(circuit.matrices[int(circuit.table.matrix[number])], complex)
            state = apply(state, own.reshape(1 << len(op.qubits), -1), op.qubits)
        elif op.name == "global_phase":
            state = state * np.exp(1j * op.params[0])
        else:
            state = apply(state, matrix(op.name, op.params, len(op.qubits)), op.qubits)
    parts = [np.vdot(state, applied(label, state)).real for label in observable.labels]
    return float(observable.coefficients @ parts)


def differences(circuit: Circuit, observable: PauliSum, values: np.ndarray) -> np.ndarray:
    """Five points each: off by about 1e-10."""
    slopes = []
    for k in range(len(values)):
        at = np.zeros(len(values))
        at[k] = STEP
        one = exact(circuit, observable, values + at) - exact(circuit, observable, values - at)
        two = exact(circuit, observable, values + 2 * at) - exact(
            circuit, observable, values - 2 * at
        )
        slopes.append((8 * one - two) / (12 * STEP))
    return np.array(slopes)


def turned(gate: Gate) -> tuple[Circuit, np.ndarray]:
    """The gate with all parameters free, in the middle of others."""
    rng = np.random.default_rng(gate.code)
    count = 3 if gate.qubits == ANY else gate.qubits
    arrays = Arrays(4, 0)
    for qubit in range(4):
        arrays.add("u", [qubit], (), rng.uniform(-3, 3, 3).tolist())
    arrays.add("cx", [0, 3]).add("cx", [1, 2])
    wires = rng.permutation(4)[:count].tolist()
    arrays.add(gate.name, wires, (), [0.0] * gate.params)
    first = len(arrays.params) - gate.params
    arrays.slots = [(first + k, k) for k in range(gate.params)]
    arrays.num_slots = gate.params
    for qubit in range(4):
        arrays.add("u", [qubit], (), rng.uniform(-3, 3, 3).tolist())
    return arrays.circuit(), rng.uniform(-3, 3, gate.params)


@pytest.mark.parametrize("gate", TURNED, ids=lambda gate: gate.name)
def test_gradient_of_each_gate_matches_finite_differences(gate: Gate) -> None:
    circuit, values = turned(gate)
    observables = sums(4, 1)
    result = run(circuit, observables, values)
    assert result.gradients is not None
    for row, observable in zip(result.gradients, observables, strict=True):
        np.testing.assert_allclose(row, differences(circuit, observable, values), atol=1e-8)


def layered(num_qubits: int, layers: int = 2, shared: int = 7) -> Circuit:
    """Rotations of all axes, some of one slot; gates with and without parameters in between."""
    arrays = Arrays(num_qubits, 0)
    rng = np.random.default_rng(5)
    number = 0
    for _ in range(layers):
        for qubit in range(num_qubits):
            arrays.add(("rx", "ry", "rz")[number % 3], [qubit], (), [0.0])
            arrays.free(number % shared)
            number += 1
        for qubit in range(num_qubits):
            arrays.add("cx", [qubit, (qubit + 3) % num_qubits])
        arrays.add("rzz", [0, num_qubits - 1], (), [0.0])
        arrays.free(number % shared)
        arrays.add("swap", [1, num_qubits - 2]).add("t", [2]).add("ccx", [0, 2, num_qubits - 1])
        matrix = np.linalg.qr(rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4)))[0]
        arrays.unitary(matrix, [num_qubits - 1, 0])
    return arrays.circuit()


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_kernel, "LOW_QUBITS", 1)
    monkeypatch.setattr(reverse_kernel, "TILE_QUBITS", 4)


def outside() -> Circuit:
    """What is free acts on qubits that no gate behind it moves: a tile without them is enough."""
    arrays = Arrays(8, 0)
    for qubit in range(8):
        arrays.add("ry", [qubit], (), [0.3 + 0.2 * qubit])
    for slot, (name, wires) in enumerate(
        [("rz", [7]), ("cp", [6, 5]), ("cry", [4, 1]), ("crz", [7, 2]), ("rzz", [3, 6])]
    ):
        arrays.add(name, wires, (), [0.0])
        arrays.free(slot)
    for qubit in range(4):
        arrays.add("ry", [qubit], (), [0.5])
        arrays.add("h", [qubit])
    return arrays.circuit()


def check(circuit: Circuit, **options: object) -> None:
    num_qubits = circuit.num_qubits
    values = np.random.default_rng(0).uniform(-3, 3, circuit.num_slots)
    observables = sums(num_qubits, 2, count=1)
    result = run(circuit, observables, values, **options)  # type: ignore[arg-type]
    assert result.gradients is not None
    expected = differences(circuit, observables[0], values)
    np.testing.assert_allclose(result.gradients[0], expected, atol=1e-8)


@pytest.mark.usefixtures("tiny_tiles")
@pytest.mark.parametrize("circuit", [layered(8), outside()], ids=["moved", "outside"])
def test_gradient_over_small_tiles_matches_finite_differences(circuit: Circuit) -> None:
    check(circuit)


def test_gradient_of_14_qubits_matches_finite_differences() -> None:
    check(layered(14), threads=2)


def test_gradients_are_identical_for_1_and_2_threads() -> None:
    circuit = layered(15, layers=1)
    values = np.linspace(-1, 1, circuit.num_slots)
    entries = [run(circuit, sums(15, 3), values, threads=threads) for threads in (1, 2)]
    assert entries[0].gradients.tobytes() == entries[1].gradients.tobytes()  # type: ignore[union-attr]


def test_gradients_match_parameter_shift_rule() -> None:
    circuit = Arrays(3, 0).add("ry", [0], (), [0.0])
    circuit.free(0)
    circuit.add("cx", [0, 1]).add("rx", [1], (), [0.0])
    circuit.free(1)
    outcome, values = circuit.circuit(), np.array([0.3, -1.2])
    observables = sums(3, 4, count=3)
    result = run(outcome, observables, values)
    for k in range(2):
        at = np.zeros(2)
        at[k] = math.pi / 2
        up, down = (run(outcome, observables, values + s * at).expectations for s in (1, -1))
        shifted = [(a[0] - b[0]) / 2 for a, b in zip(up, down, strict=True)]
        np.testing.assert_allclose(result.gradients[:, k], shifted, atol=1e-13)  # type: ignore[index]


def test_requesting_gradient_and_statevector_together_changes_neither() -> None:
    circuit = layered(5)
    values = np.linspace(0, 2, circuit.num_slots)
    result = run(circuit, sums(5, 6), values, ("statevector", *BOTH))
    alone = run(circuit, sums(5, 6), values, ("statevector",))
    assert result.statevector.tobytes() == alone.statevector.tobytes()  # type: ignore[union-attr]
    gradients = run(circuit, sums(5, 6), values).gradients
    np.testing.assert_array_equal(result.gradients, gradients)  # type: ignore[arg-type]


def test_single_precision_gradient_is_close_to_double() -> None:
    circuit = layered(6)
    values = np.linspace(0, 2, circuit.num_slots)
    double, single = (
        run(circuit, sums(6, 6), values, precision=precision).gradients
        for precision in ("double", "single")
    )
    np.testing.assert_allclose(single, double, atol=1e-5)  # type: ignore[arg-type]


def test_each_binding_has_its_own_gradient() -> None:
    circuit = layered(4)
    bindings = np.random.default_rng(2).uniform(-2, 2, (3, circuit.num_slots))
    request = Request(0, 3, BOTH, sums(4, 1), bindings)
    result = engine_runs.run(StatevectorEngine(), circuit, request)
    for row in range(3):
        alone = run(circuit, sums(4, 1), bindings[row]).gradients
        np.testing.assert_array_equal(result.row(row).gradients, alone)  # type: ignore[arg-type]


def test_gradient_of_circuit_with_final_measurement_is_correct() -> None:
    circuit = Arrays(2, 1).add("ry", [0], (), [0.0])
    circuit.free(0)
    circuit.add("cx", [0, 1]).add("measure", [1], [0])
    observable = (PauliSum(("ZI", "IX"), np.ones(2)),)
    result = run(circuit.circuit(), observable, np.array([0.4]))
    np.testing.assert_allclose(result.gradients, [[-math.sin(0.4)]], atol=1e-14)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "shots"), [(("gradient",), 0), (BOTH, 10)], ids=["alone", "sampled"]
)
def test_gradient_of_counts_or_with_shots_is_refused(outputs: tuple[str, ...], shots: int) -> None:
    circuit = layered(3)
    with pytest.raises(Unsupported, match="gradient"):
        run(circuit, sums(3, 1), np.zeros(circuit.num_slots), outputs, shots)


def test_gradient_of_empty_pauli_sum_is_refused() -> None:
    circuit, values = turned(GATES["rx"])
    with pytest.raises(Unsupported, match="no Pauli string"):
        run(circuit, (PauliSum((), np.zeros(0)),), values)


class Watched(RunControl):
    """Remembers how far it was told to have come."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def advance(self, unit: str, done: float = 1, *, before: bool = False) -> None:
        super().advance(unit, done, before=before)
        self.seen.append(self.progress[1:3])


def test_progress_of_gradient_counts_reverse_pass_of_each_observable() -> None:
    circuit, entries = layered(14), []
    values = np.random.default_rng(1).uniform(-3, 3, circuit.num_slots)
    for outputs, count in ((("expectation",), 1), (BOTH, 1), (BOTH, 3)):
        control = Watched()
        run(circuit, sums(14, 1, count), values, outputs, control=control)
        last = control.seen[-1]
        assert last[0] == last[1]
        assert {total for _, total in control.seen} == {last[1]}
        entries.append(last[1])
    value, once, thrice = entries
    assert once - value > len(circuit.matrices)
    assert thrice - value == 3 * (once - value)


def test_gradient_through_mid_circuit_measurement_is_refused() -> None:
    arrays = Arrays(2, 1).add("ry", [0], (), [0.0])
    arrays.free(0)
    arrays.add("measure", [0], [0]).add("h", [0])
    with pytest.raises(Unsupported, match="gradient"):
        run(arrays.circuit(), sums(2, 1), np.zeros(1))


def test_gradient_on_engine_without_gradients_is_refused() -> None:
    circuit = Arrays(2, 0).add("h", [0]).circuit()
    with pytest.raises(Unsupported, match="has no output 'gradient'"):
        simulate(circuit, engine="aer", outputs=BOTH, observables=sums(2, 1), shots=0)


def test_stop_is_honoured_by_gradient_run() -> None:
    circuit = layered(14)
    control = RunControl()
    control.stop()
    with pytest.raises(Stopped):
        run(circuit, sums(14, 1), np.zeros(circuit.num_slots), control=control)
