"""States, exact distributions and expectation values against a dense reference."""

from functools import cache

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities
from engines import CARDS, Runner
from failing import fails
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from qiskit.quantum_info import SparsePauliOp, Statevector
from random_circuits import unitary_circuits
from reference import final_state, matrix

from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum
from simulators.errors import Unsupported

QUIET = settings(
    derandomize=True, deadline=None, max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
PRECISIONS = {"double": 1e-13, "single": 2e-6}


def spread(arrays: Arrays) -> Arrays:
    """A state without symmetries."""
    for q in range(arrays.num_qubits):
        arrays.add("u", [q], (), [0.3 + q, 0.7 * q + 0.1, 1.1 - q])
        if q:
            arrays.add("cx", [q - 1, q])
    return arrays


@pytest.mark.parametrize("name", sorted(GATES))
def test_each_gate_matches_its_matrix(state_run: Runner, name: str) -> None:
    gate = GATES[name]
    rng = np.random.default_rng(GATES[name].code)
    for width in (3, 5) if gate.qubits == ANY else (gate.qubits,):
        params = tuple(rng.uniform(-4, 4, gate.params))
        for _ in range(3):
            wires = rng.permutation(6)[:width].tolist()
            arrays = spread(Arrays(6, 0))
            before = final_state(arrays.circuit())
            arrays.add(name, wires, (), params)
            statevector = state_run(arrays.circuit(), outputs=("statevector",)).statevector
            if width:
                expected = Statevector(before).evolve(matrix(name, params, width), wires).data
            else:
                expected = before * np.exp(1j * params[0])
            np.testing.assert_allclose(statevector, expected, atol=state_run.near(1e-13))


@QUIET
@given(circuit=unitary_circuits())
def test_final_state_of_random_circuit_is_reference(state_run: Runner, circuit: Circuit) -> None:
    statevector = state_run(circuit, outputs=("statevector",)).statevector
    np.testing.assert_allclose(statevector, final_state(circuit), atol=state_run.near(1e-12))


@cache
def of_16_qubits() -> tuple[Circuit, np.ndarray]:
    """A circuit and its final state."""
    rng = np.random.default_rng(3)
    names = ["h", "rz", "cx", "cp", "rzz", "swap", "ccx", "u", "rxx", "iswap", "cswap", "ry"]
    arrays = spread(Arrays(16, 0))
    for _ in range(120):
        gate = GATES[str(rng.choice(names))]
        wires = rng.permutation(16)[: gate.qubits].tolist()
        arrays.add(gate.name, wires, (), rng.uniform(-3, 3, gate.params).tolist())
    circuit = arrays.circuit()
    return circuit, final_state(circuit)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_state_of_16_qubits_is_reference(dense_run: Runner, precision: str, threads: int) -> None:
    circuit, expected = of_16_qubits()
    if precision not in dense_run.card.precisions:
        with pytest.raises(Unsupported, match="has none such"):
            dense_run(circuit, outputs=("statevector",), precision=precision)
        return
    result = dense_run(circuit, outputs=("statevector",), precision=precision, threads=threads)
    assert result.statevector is not None
    assert result.statevector.dtype == (np.complex128 if precision == "double" else np.complex64)
    np.testing.assert_allclose(result.statevector, expected, atol=PRECISIONS[precision])


@QUIET
@given(circuit=unitary_circuits())
def test_qubit_probabilities_match_dense_reference(state_run: Runner, circuit: Circuit) -> None:
    result = state_run(circuit, outputs=("probabilities",))
    expected = np.abs(final_state(circuit)) ** 2
    table = probabilities(result)
    odds = [table.get(k, 0.0) for k in range(expected.size)]
    np.testing.assert_allclose(odds, expected, atol=state_run.near(1e-12))
    assert [*table] == sorted(table)
    assert len(result.probabilities) == 8 * len(table)
    assert sum(odds) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("width", [3, 13])
def test_expectation_values_match_dense_reference(state_run: Runner, width: int) -> None:
    rng = np.random.default_rng(5)
    circuit = spread(Arrays(width, 0)).circuit()
    labels = (*("".join(rng.choice(list("IXYZ"), width)) for _ in range(20)), "I" * width)
    observables = (PauliSum(labels, rng.normal(size=21)), PauliSum(labels[:1], np.ones(1)))
    expectations = state_run(
        circuit, outputs=("expectation",), observables=observables
    ).expectations
    state = Statevector(final_state(circuit))
    for (value, error), item in zip(expectations, observables, strict=True):
        operator = SparsePauliOp(list(item.labels), item.coefficients)
        assert value == pytest.approx(
            state.expectation_value(operator).real, abs=state_run.near(1e-12)
        )
        assert error == 0.0


def test_sampled_expectation_value_is_within_five_standard_errors(state_run: Runner) -> None:
    circuit = spread(Arrays(4, 0)).circuit()
    observables = (PauliSum(("ZIXY", "XXII", "IIIZ"), np.array([0.5, -1.0, 2.0])),)
    keywords = {"outputs": ("expectation",), "observables": observables}
    exact = state_run(circuit, **keywords).expectations[0][0]
    value, error = state_run(circuit, shots=20_000, **keywords).expectations[0]
    assert 0.0 < error < 0.03
    assert abs(value - exact) < 5 * error


def test_sampled_term_uses_documented_philox_draws(state_run: Runner) -> None:
    arrays = Arrays(1, 0).add("ry", [0], (), [1.0])
    observables = (PauliSum(("I", "Z"), np.ones(2)), PauliSum(("X",), np.ones(1)))
    keywords = {"outputs": ("expectation",), "observables": observables}
    result = state_run(arrays.circuit(), shots=999, seed=11, binding=4, **keywords)
    means = []
    for term, exact in ((1, np.cos(1.0)), (2, np.sin(1.0))):
        bits = np.random.Philox(key=[11, 4], counter=[0, 2**32 + term, 0, 0])
        up = np.random.Generator(bits).random(999) < (1 + exact) / 2
        means.append(2 * up.mean() - 1)
    assert result.expectations[0][0] == pytest.approx(1 + means[0], abs=state_run.near(1e-12))
    assert result.expectations[1][0] == pytest.approx(means[1], abs=state_run.near(1e-12))


def test_clbit_probabilities_match_dense_reference(state_run: Runner) -> None:
    arrays = spread(Arrays(4, 70, [("a", 67), ("b", 3)]))
    arrays.add("measure", [2], [69]).add("measure", [0], [1]).add("measure", [3], [66])
    result = state_run(arrays.circuit(), outputs=("probabilities",))
    odds = np.abs(final_state(spread(Arrays(4, 0)).circuit())) ** 2
    expected: dict[int, float] = {}
    for index, value in enumerate(odds):
        key = (index >> 2 & 1) << 69 | (index & 1) << 1 | (index >> 3 & 1) << 66
        expected[key] = expected.get(key, 0.0) + value
    assert result.probability_width == 9
    table = probabilities(result)
    assert [*table] == sorted(expected)
    assert table == pytest.approx(expected, abs=1e-13)


CHOSEN = ("amplitudes",)


def scattered(num_qubits: int, seed: int) -> Arrays:
    """Gates of several kinds between random qubits."""
    random, arrays = np.random.default_rng(seed), Arrays(num_qubits, 1)
    for _ in range(4):
        for q in range(num_qubits):
            arrays.add("u", [q], (), random.uniform(-3, 3, 3).tolist())
        for name in ("cx", "swap", "crx", "rzz"):
            wires = random.permutation(num_qubits)[:2].tolist()
            arrays.add(name, wires, (), [0.7] if name in ("crx", "rzz") else [])
    return arrays.add("global_phase", (), (), [0.4])


def random_bits(num_qubits: int, strings: int, seed: int = 1) -> NDArray[np.uint8]:
    places = np.random.default_rng(seed).permutation(1 << num_qubits)[:strings]
    return (places[:, None] >> np.arange(num_qubits) & 1).astype(np.uint8)


def places_of(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    return bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))


@pytest.mark.parametrize(("num_qubits", "strings"), [(1, 1), (3, 8), (7, 20), (13, 50)])
@pytest.mark.parametrize(("precision", "near"), [("double", 1e-13), ("single", 2e-6)])
def test_amplitudes_are_those_of_the_final_state(
    chosen_run: Runner, num_qubits: int, strings: int, precision: str, near: float
) -> None:
    arrays = scattered(max(2, num_qubits), num_qubits) if num_qubits > 1 else Arrays(1, 0)
    circuit = (arrays if num_qubits > 1 else arrays.add("h", [0])).circuit()
    bits = random_bits(num_qubits, min(strings, 1 << num_qubits))
    result = chosen_run(circuit, outputs=CHOSEN, amplitudes=bits, precision=precision)
    expected = final_state(circuit)[places_of(bits)]
    kind = np.complex128 if precision == "double" else np.complex64
    assert result.amplitudes is not None
    assert result.amplitudes.dtype == kind
    tolerance = near if num_qubits < 8 else 10 * near
    np.testing.assert_allclose(result.amplitudes, expected, atol=tolerance)


def test_each_binding_has_amplitudes_of_its_own(chosen_run: Runner) -> None:
    arrays = scattered(5, 3)
    arrays.add("rx", [2], (), [0.0])
    arrays.free(0)
    circuit = arrays.circuit()
    values, bits = np.array([[0.2], [1.9], [-3.0]]), random_bits(5, 9)
    rows = chosen_run.all(circuit, outputs=CHOSEN, amplitudes=bits, bindings=values)
    assert len(rows) == 3
    for row, (value,) in zip(rows, values.tolist(), strict=True):
        bound = scattered(5, 3).add("rx", [2], (), [value]).circuit()
        np.testing.assert_allclose(row.amplitudes, final_state(bound)[places_of(bits)], atol=1e-13)


def test_amplitudes_come_with_other_outputs(chosen_run: Runner) -> None:
    circuit, bits = scattered(6, 9).circuit(), random_bits(6, 12)
    outputs = ("statevector", "amplitudes", "probabilities")
    result = chosen_run(circuit, outputs=outputs, amplitudes=bits)
    assert result.statevector is not None
    expected = result.statevector[places_of(bits)]
    np.testing.assert_allclose(result.amplitudes, expected, rtol=0.0, atol=1e-15)
    assert result.probabilities


def refused(runner: Runner, circuit: Circuit, bits: object) -> str:
    return str(fails(Unsupported, "", runner, circuit, outputs=CHOSEN, amplitudes=bits))


def test_mixed_states_and_other_widths_are_refused(chosen_run: Runner) -> None:
    measured = scattered(3, 1).add("measure", [0], [0]).circuit()
    assert "amplitudes were asked for, and the circuit" in refused(
        chosen_run, measured, random_bits(3, 2)
    )
    assert "amplitudes of 4 qubits" in refused(
        chosen_run, scattered(3, 1).circuit(), random_bits(4, 2)
    )
    assert "amplitudes of 0 qubits" in refused(chosen_run, scattered(3, 1).circuit(), None)


@pytest.mark.parametrize("name", ["stabilizer", "densitymatrix", "aer"])
def test_other_engines_refuse_amplitudes_by_name(name: str, runner_of: object) -> None:
    assert "amplitudes" not in CARDS[name].outputs
    runner = runner_of(name)  # type: ignore[operator]
    circuit = Arrays(2, 0).add("h", [0]).circuit()
    assert "no output 'amplitudes'" in refused(runner, circuit, random_bits(2, 2))
