"""Amplitudes of bit strings by contraction: batches, open qubits, slices, partial sums."""

import numpy as np
import pytest
from arrays import Arrays
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import EngineResult
from simulators.errors import OutOfMemory, Unsupported
from simulators.simulate import simulate

pytest.importorskip("cotengra")

from simulators.tensornetwork.contraction import contractor, engine as contraction

Bits = NDArray[np.uint8]


def brickwork(num_qubits: int, layers: int, far: int = 1, seed: int = 2) -> Circuit:
    """Rotations, and CZ of qubits at a distance of 1 and, in the last layer, `far`."""
    random, arrays = np.random.default_rng(seed), Arrays(num_qubits, 0)
    for layer in range(layers + 1):
        for qubit in range(num_qubits):
            arrays.add("u", [qubit], (), random.uniform(-3, 3, 3).tolist())
        step = far if layer == layers else 1
        for qubit in range(layer % 2, num_qubits - step, 2 * step):
            arrays.add("cz", [qubit, qubit + step])
    for qubit in range(num_qubits):
        arrays.add("u", [qubit], (), random.uniform(-3, 3, 3).tolist())
    return arrays.circuit()


def random_bits(num_qubits: int, strings: int) -> Bits:
    return np.random.default_rng(5).integers(0, 2, (strings, num_qubits)).astype(np.uint8)


def differing(num_qubits: int, qubits: list[int]) -> Bits:
    """All values of these qubits; the others have the same random bits in all strings."""
    values = np.arange(1 << len(qubits))
    bits = np.tile(random_bits(num_qubits, 1), (values.size, 1))
    bits[:, qubits] = values[:, None] >> np.arange(len(qubits)) & 1
    return bits


def result_of(
    circuit: Circuit, bits: Bits, engine: str = "contraction", **settings: int
) -> EngineResult:
    return simulate(
        circuit, engine=engine, shots=0, outputs=("amplitudes",), amplitudes=bits,
        settings=tuple(settings.items()),
    )  # fmt: skip


def amplitudes(
    circuit: Circuit, bits: Bits, engine: str = "contraction", **settings: int
) -> NDArray[np.complexfloating]:
    result = result_of(circuit, bits, engine, **settings).amplitudes
    assert result is not None
    return result[0]


def assert_near(result: object, expected: NDArray[np.complexfloating]) -> None:
    """Amplitudes of wide circuits are small: the tolerance is relative to the largest."""
    largest = float(np.abs(expected).max())
    assert largest > 0.0
    np.testing.assert_allclose(result, expected, rtol=0.0, atol=1e-10 * largest)


@pytest.mark.parametrize("num_qubits", [60, 100])
def test_wide_circuit_has_amplitudes_of_a_matrix_product_state(num_qubits: int) -> None:
    circuit = brickwork(num_qubits, 4, far=3)
    for bits in (random_bits(num_qubits, 300), differing(num_qubits, [0, 7, 41, num_qubits - 1])):
        assert_near(amplitudes(circuit, bits), amplitudes(circuit, bits, "mps", bond=1_024))


def test_wide_circuit_has_amplitudes_of_quimb() -> None:
    quimb = pytest.importorskip("quimb.tensor")
    num_qubits, random = 60, np.random.default_rng(3)
    arrays, other = Arrays(num_qubits, 0), quimb.Circuit(num_qubits)
    for layer in range(4):
        for qubit in range(num_qubits):
            angles = random.uniform(-3, 3, 3).tolist()
            arrays.add("u", [qubit], (), angles)
            other.u3(*angles, qubit)
        for qubit in range(layer % 2, num_qubits - 7, 7):
            arrays.add("cz", [qubit, qubit + 7])
            other.cz(qubit, qubit + 7)
    bits = random_bits(num_qubits, 5)
    expected = [other.amplitude("".join(map(str, row))) for row in bits.tolist()]
    assert_near(amplitudes(arrays.circuit(), bits), np.array(expected))


def test_strings_that_differ_little_are_one_contraction(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, bits = brickwork(30, 4), differing(30, [2, 11, 29])
    calls = []
    contract = contractor.Contractor.contract
    monkeypatch.setattr(
        contractor.Contractor,
        "contract",
        lambda self, *args: (calls.append(args[1]), contract(self, *args))[1],
    )
    opened = amplitudes(circuit, bits)
    assert [len(output) for output in calls] == [3]
    monkeypatch.setattr(contraction, "_OPEN_QUBITS", -1)
    assert_near(opened, amplitudes(circuit, bits))
    assert calls[1:] == [(contractor.BATCH,)]


def test_parts_of_a_batch_and_slices_have_same_amplitudes(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, bits = brickwork(24, 8, far=5), random_bits(24, 37)
    whole = amplitudes(circuit, bits)
    sliced = result_of(circuit, bits[:4], width=4)
    assert "slices" in sliced.remark
    assert sliced.amplitudes is not None
    assert_near(sliced.amplitudes[0], whole[:4])
    monkeypatch.setattr(contractor, "_ROWS_AT_ONCE", 8)
    assert_near(amplitudes(circuit, bits), whole)
    monkeypatch.setattr(contractor, "CONTRACTION_BATCH", 0)  # string by string
    assert_near(amplitudes(circuit, bits), whole)


@pytest.mark.parametrize("settings", [{}, {"width": 4}])
@pytest.mark.parametrize("near", [False, True])
def test_shares_of_tasks_add_up(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], near: bool
) -> None:
    monkeypatch.setattr(contractor, "_SPREAD_WIDTH", 2)
    circuit = brickwork(24, 8, far=5)
    bits = differing(24, [1, 5]) if near else random_bits(24, 6)
    shares = [result_of(circuit, bits, shares=3, share=k, **settings) for k in range(3)]
    assert all("partial sum" in each.remark for each in shares)
    assert len({each.remark.partition("slicing")[2] for each in shares}) == 1
    assert_near(sum(each.amplitudes[0] for each in shares), amplitudes(circuit, bits))


def test_qubits_without_gates_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contraction, "DENSE_QUBITS", 0)
    arrays = Arrays(4, 0).add("h", [1]).add("rz", [3], (), [0.5]).add("global_phase", (), (), [0.3])
    bits = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.uint8)
    expected = np.where(np.arange(16) & ~2, 0.0, np.exp(0.05j) / np.sqrt(2.0))
    for strings in (bits, bits[:3], bits[2:3], bits[5:6]):
        places = strings @ (1 << np.arange(4))
        np.testing.assert_allclose(
            amplitudes(arrays.circuit(), strings), expected[places], atol=1e-15
        )
    empty = Arrays(3, 0).circuit()
    np.testing.assert_array_equal(amplitudes(empty, bits[:4, :3]), [1.0, 0.0, 0.0, 0.0])


def test_paths_beyond_the_limits_are_refused() -> None:
    circuit = brickwork(24, 8, far=5)
    with pytest.raises(OutOfMemory, match="raise the options width or slices"):
        amplitudes(circuit, random_bits(24, 3), width=4, slices=1)
    with pytest.raises(Unsupported, match="expectation values and amplitudes"):
        simulate(
            circuit, engine="contraction", outputs=("amplitudes", "probabilities"),
            amplitudes=random_bits(24, 3), settings=(("shares", 2),),
        )  # fmt: skip
