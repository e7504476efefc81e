"""Amplitudes of chosen bit strings against a dense reference, by every engine that has them."""

import numpy as np
import pytest
from arrays import Arrays
from engines import CARDS, Runner
from numpy.typing import NDArray
from reference import final_state

from simulators.circuit.ir import Circuit
from simulators.errors import Unsupported

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
        expected = final_state(bound)[places_of(bits)]
        np.testing.assert_allclose(row.amplitudes, expected, atol=1e-13)


def test_amplitudes_come_with_other_outputs(chosen_run: Runner) -> None:
    circuit, bits = scattered(6, 9).circuit(), random_bits(6, 12)
    outputs = ("statevector", "amplitudes", "probabilities")
    result = chosen_run(circuit, outputs=outputs, amplitudes=bits)
    assert result.statevector is not None
    expected = result.statevector[places_of(bits)]
    np.testing.assert_allclose(result.amplitudes, expected, rtol=0.0, atol=1e-15)
    assert result.probabilities


def refused(runner: Runner, circuit: Circuit, bits: object) -> str:
    with pytest.raises(Unsupported) as error:
        runner(circuit, outputs=CHOSEN, amplitudes=bits)
    return str(error.value)


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
