"""Two cz or cx on a pair that become one gate: hidden values as with rzz, and exact counts."""

from collections.abc import Sequence

import numpy as np
import pytest
from arrays import Arrays
from noisy import Located, after_gates, program
from reference import Operation
from swept import chi_square

from noise_models.channel import Channel, depolarizing, from_paulis, relaxation
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.lines.lowering import lines_of
from simulators.trajectories.locations import locate

EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)]


def kicked_ising(kind: str, angle: float, layers: int = 2) -> Circuit:
    """Layers of rx and of rzz on a hexagon, each rzz as such, by two cx, or by two cz."""
    arrays = Arrays(6, 6)
    for layer in range(layers):
        for qubit in range(6):
            arrays.add("rx", [qubit], (), [0.6 + 0.1 * layer])
        for a, b in EDGES:
            if kind == "rzz":
                arrays.add("rzz", [a, b], (), [angle])
            elif kind == "cx":
                arrays.add("cx", [a, b]).add("rz", [b], (), [angle]).add("cx", [a, b])
            else:
                arrays.add("h", [b]).add("cz", [a, b]).add("rz", [a], (), [0.0])
                arrays.add("rx", [b], (), [angle]).add("cz", [b, a]).add("h", [b])
    for qubit in range(6):
        arrays.add("rx", [qubit], (), [0.6])
    return arrays.measure(range(6)).circuit()


def pauli_noise(circuit: Circuit) -> NoiseProgram:
    """Pauli errors after each gate, on two qubits also with a neighbour that the gate lacks."""
    pair, one = depolarizing(0.04, 2), from_paulis(np.array([0.94, 0.01, 0.02, 0.03]))
    beside = from_paulis(0.95 * (np.arange(16) == 0) + 0.05 * np.arange(16) / 120)

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if len(row.qubits) == 2:
            return [(row.qubits, pair), ((row.qubits[0], (row.qubits[0] - 1) % 6), beside)]
        return [] if row.name == "measure" else [(row.qubits, one)]

    return program(after_gates(circuit, rule))


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("kind", ["cx", "cz"])
@pytest.mark.parametrize("angle", [-np.pi / 2, 0.7])
def test_hidden_values_are_those_of_rzz(kind: str, angle: float, noisy: bool) -> None:
    """With Pauli errors between the gates only where these are Clifford gates."""
    circuit, plain = kicked_ising(kind, angle), kicked_ising("rzz", angle)
    expected = lines_of(plain, plain.params)
    if noisy:
        located = locate(circuit, pauli_noise(circuit), local=True, separate=True)
        assert located is not None
        lines = lines_of(located.circuit, circuit.params, located.table)
    else:
        lines = lines_of(circuit, circuit.params)
    assert len(lines.pairs) == len(EDGES) * 2
    assert lines.first == expected.first


@pytest.mark.parametrize("kind", ["cx", "cz"])
@pytest.mark.parametrize("angle", [-np.pi / 2, 0.7])
def test_pauli_errors_between_the_gates_are_exact(kind: str, angle: float) -> None:
    circuit = kicked_ising(kind, angle)
    assert chi_square(circuit, pauli_noise(circuit), 3) > 0.001


@pytest.mark.parametrize("seed", range(6))
def test_random_pairs_of_gates_with_errors_of_all_kinds(seed: int) -> None:
    """Gates between them that are Clifford gates or not, on both qubits, relaxation of some."""
    random = np.random.default_rng([seed, 11])
    arrays = Arrays(5, 5)
    for qubit in range(5):
        arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
    for _ in range(5):
        low = int(random.integers(4))
        a, b = (low, low + 1)[:: 1 - 2 * int(random.integers(2))]
        first, last = (("cx", "cz")[int(random.integers(2))] for _ in range(2))
        arrays.add("h", [b]).add(first, [a, b])
        for _ in range(int(random.integers(1, 4))):
            arrays.add(("sx", "h", "s", "x", "t")[int(random.integers(5))], [b])
        if random.random() < 0.5:
            arrays.add("rx", [b], (), [float(random.uniform(0, 6))])
        if random.random() < 0.5:
            arrays.add(("rz", "sdg")[k := int(random.integers(2))], [a], (), [0.4][k:])
        arrays.add(last, [a, b]).add("sx", [b])
    circuit = arrays.measure(range(5)).circuit()
    relaxed, pair, one = relaxation(300, 4, 5, 0.1), depolarizing(0.05, 2), depolarizing(0.03, 1)
    located: list[Located] = after_gates(
        circuit,
        lambda row: (
            [(row.qubits, pair if len(row.qubits) == 2 else one)]
            + [((row.qubits[0],), relaxed)] * int(random.random() < 0.1)
        ),
    )
    assert chi_square(circuit, program(located), seed, 20_000) > 0.0005
