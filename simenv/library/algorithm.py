"""Algorithms with their theoretical results: search, dynamics, and variational circuits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

# Algorithms with their theoretical results, and checks of counts against them.
#
# Invariant: a check judges counts alone, with a stated error rate: an outcome may deviate by five
# standard deviations of its binomial, and outcomes that theory forbids may not occur at all.

SIGMAS = 5.0
IMPOSSIBLE = 1e-12


@dataclass(frozen=True, slots=True)
class ExpectedOutcomes:
    """The probability of every outcome (Qiskit's bit order); outcomes not named cannot occur.
    `width`: number of leftmost bits of a key that are judged (the registers declared last); 0:
    all."""

    probabilities: Mapping[str, float]
    width: int = 0

    @property
    def likely(self) -> frozenset[str]:
        """Outcomes that the algorithm is run for: at least a quarter as likely as the likeliest."""
        least = max(self.probabilities.values()) / 4
        return frozenset(key for key, value in self.probabilities.items() if value >= least)

    def success(self, counts: Mapping[str, int]) -> float:
        """Return the share of shots with a likely outcome."""
        seen, likely = self._judged(counts), self.likely
        return sum(count for key, count in seen.items() if key in likely) / sum(seen.values())

    def fidelity(self, counts: Mapping[str, int]) -> float:
        """Return (sum sqrt(p q))^2, the definition of `qiskit.quantum_info.hellinger_fidelity`."""
        seen = self._judged(counts)
        shots = sum(seen.values())
        overlap = sum(
            (p * seen.get(key, 0) / shots) ** 0.5 for key, p in self.probabilities.items()
        )
        return float(overlap**2)

    def fault(self, counts: Mapping[str, int]) -> str:
        """Return what is wrong with the counts of an ideal run as a short text; "" if nothing."""
        seen = self._judged(counts)
        shots = sum(seen.values())
        for bits, count in seen.items():
            if self.probabilities.get(bits, 0.0) < IMPOSSIBLE:
                return f"{bits} came {count} times and cannot"
        for bits, probability in self.probabilities.items():
            allowed = SIGMAS * math.sqrt(shots * probability * (1 - probability)) + 1
            if abs(seen.get(bits, 0) - shots * probability) > allowed:
                return f"{bits} came {seen.get(bits, 0)} times of {shots * probability:.0f}"
        return ""

    def _judged(self, counts: Mapping[str, int]) -> dict[str, int]:
        seen: dict[str, int] = {}
        for key, count in counts.items():
            bits = key.replace(" ", "")
            bits = bits[: self.width] if self.width else bits
            seen[bits] = seen.get(bits, 0) + count
        return seen


@dataclass(frozen=True, slots=True)
class ExpectedParities:
    """Expectation values of products of Z: (clbits, value) each, in [-1, 1]."""

    values: tuple[tuple[tuple[int, ...], float], ...]

    def fault(self, counts: Mapping[str, int]) -> str:
        """Return what is wrong with the counts of an ideal run as a short text; "" if nothing."""
        shots = sum(counts.values())
        for clbits, expected in self.values:
            measured = parity(counts, clbits)
            allowed = SIGMAS * math.sqrt(max(1 - expected**2, 0.0) / shots) + 2 / shots
            if abs(measured - expected) > allowed:
                where = " ".join(f"Z{bit}" for bit in clbits)
                return f"<{where}> is {measured:.3f}, not {expected:.3f}"
        return ""


def parity(counts: Mapping[str, int], clbits: tuple[int, ...]) -> float:
    """Return the mean of the product of (-1)^bit over `clbits`; clbit 0 is the rightmost
    character."""
    total = 0
    for key, count in counts.items():
        bits = key.replace(" ", "")
        ones = sum(bits[-1 - clbit] == "1" for clbit in clbits)
        total += -count if ones % 2 else count
    return total / sum(counts.values())


Expected = ExpectedOutcomes | ExpectedParities


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A circuit, what theory says of its counts, and where that is published."""

    circuit: QuantumCircuit
    expected: Expected
    reference: str

    @property
    def name(self) -> str:
        """Name of the circuit."""
        return str(self.circuit.name)

    def fault(self, counts: Mapping[str, int]) -> str:
        """Return what is wrong with the counts of an ideal run as a short text; "" if nothing."""
        return self.expected.fault(counts)


def bits(value: int, width: int) -> str:
    """Return `value` as Qiskit writes `width` classical bits: the highest first."""
    return format(value, f"0{width}b")


# Search and optimisation: Grover on exact cover, QAOA on a cubic graph.

SETS = ((0, 3), (1, 2), (0, 1, 4), (2, 3), (3, 4), (1, 4))
Edge = tuple[int, int]


def grover_exact_cover(sets: tuple[tuple[int, ...], ...] = SETS, iterations: int = 6) -> Algorithm:
    """Grover search for the choices of sets that cover every element exactly once.

    The oracle computes "covered once" for each element into an ancilla, marks, and uncomputes. A
    solution is measured with probability sin^2((2k+1) a), where sin^2(a) = solutions / 2^sets.
    """
    elements = 1 + max(max(members) for members in sets)
    chosen, once = QuantumRegister(len(sets), "chosen"), QuantumRegister(elements, "once")
    mark = QuantumRegister(1, "mark")
    result = ClassicalRegister(len(sets), "found")
    width = len(sets) + elements + 1
    circuit = QuantumCircuit(chosen, once, mark, result, name=f"grover-{width}")
    circuit.h(chosen)
    circuit.x(mark)
    circuit.h(mark)
    for _ in range(iterations):
        _covered_once(circuit, sets, chosen, once)
        circuit.mcx([*once], mark[0])
        _covered_once(circuit, sets, chosen, once)
        circuit.h(chosen)
        circuit.x(chosen)
        circuit.h(chosen[-1])
        circuit.mcx([*chosen[:-1]], chosen[-1])
        circuit.h(chosen[-1])
        circuit.x(chosen)
        circuit.h(chosen)
    circuit.measure(chosen, result)
    return Algorithm(
        circuit,
        ExpectedOutcomes(_outcome_probabilities(sets, elements, iterations)),
        "Boyer, Brassard, Hoyer, Tapp, arXiv:quant-ph/9605034",
    )


def grover_search(answer: int = 0b101, num_bits: int = 3) -> Algorithm:
    """Grover search for one of 2^num_bits items, with an oracle that knows it."""
    size = 2**num_bits
    iterations = int(math.pi / 4 * math.sqrt(size))
    circuit = QuantumCircuit(num_bits, num_bits, name=f"grover-{num_bits}")
    circuit.h(range(num_bits))
    for _ in range(iterations):
        _flip_phase(circuit, answer)
        circuit.h(range(num_bits))
        _flip_phase(circuit, 0)
        circuit.h(range(num_bits))
    circuit.measure(range(num_bits), range(num_bits))
    angle = (2 * iterations + 1) * math.asin(1 / math.sqrt(size))
    right, wrong = math.sin(angle) ** 2, math.cos(angle) ** 2 / (size - 1)
    theory = {bits(k, num_bits): right if k == answer else wrong for k in range(size)}
    return Algorithm(circuit, ExpectedOutcomes(theory), "Grover, arXiv:quant-ph/9605043")


def _flip_phase(circuit: QuantumCircuit, item: int) -> None:
    """Flip the sign of one basis state of all qubits."""
    last = circuit.num_qubits - 1
    zeros = [k for k in range(circuit.num_qubits) if not item >> k & 1]
    if zeros:
        circuit.x(zeros)
    circuit.h(last)
    circuit.mcx([*range(last)], last)
    circuit.h(last)
    if zeros:
        circuit.x(zeros)


def _covered_once(
    circuit: QuantumCircuit,
    sets: tuple[tuple[int, ...], ...],
    chosen: QuantumRegister,
    once: QuantumRegister,
) -> None:
    """Flip `once[e]` if exactly one of the chosen sets holds e; its own inverse.

    For up to four sets, "exactly one" is the parity plus, modulo 2, every product of three.
    """
    for element, ancilla in enumerate(once):
        holders = [chosen[k] for k, members in enumerate(sets) if element in members]
        for holder in holders:
            circuit.cx(holder, ancilla)
        for three in combinations(holders, 3):
            circuit.mcx([*three], ancilla)


def _outcome_probabilities(
    sets: tuple[tuple[int, ...], ...], elements: int, iterations: int
) -> dict[str, float]:
    size = 2 ** len(sets)
    answers = [
        choice
        for choice in range(size)
        if sorted(e for k, members in enumerate(sets) if choice >> k & 1 for e in members)
        == list(range(elements))
    ]
    angle = (2 * iterations + 1) * math.asin(math.sqrt(len(answers) / size))
    right = math.sin(angle) ** 2 / len(answers)
    wrong = math.cos(angle) ** 2 / (size - len(answers))
    return {bits(k, len(sets)): right if k in answers else wrong for k in range(size)}


def qaoa_max_cut(num_nodes: int = 12, gamma: float = 0.6155, beta: float = 0.3927) -> Algorithm:
    """One layer of QAOA for the largest cut of a cubic graph: a ring with its diameters. Every
    edge's <ZZ> is known in closed form (`_edge_value`); these angles are the best for cubic graphs
    without triangles."""
    edges = cubic_graph(num_nodes)
    circuit = QuantumCircuit(num_nodes, num_nodes, name=f"qaoa-{num_nodes}")
    circuit.h(range(num_nodes))
    for a, b in edges:
        circuit.rzz(-gamma, a, b)
    circuit.rx(2 * beta, range(num_nodes))
    circuit.measure(range(num_nodes), range(num_nodes))
    return Algorithm(
        circuit,
        ExpectedParities(tuple((e, _edge_value(edges, e, gamma, beta)) for e in edges)),
        "Wang, Hadfield, Jiang, Rieffel, arXiv:1706.02998",
    )


def cubic_graph(num_nodes: int) -> tuple[Edge, ...]:
    """Return a ring of an even number of nodes, with an edge between opposite nodes."""
    ring = [(k, (k + 1) % num_nodes) for k in range(num_nodes)]
    return (*ring, *((k, k + num_nodes // 2) for k in range(num_nodes // 2)))


def _edge_value(edges: tuple[Edge, ...], edge: Edge, gamma: float, beta: float) -> float:
    """Return <Z_a Z_b> after one layer (Wang, Hadfield, Jiang, Rieffel, arXiv:1706.02998)."""
    a, b = edge
    near_a = {x + y - a for x, y in edges if a in (x, y)} - {b}
    near_b = {x + y - b for x, y in edges if b in (x, y)} - {a}
    d, e, triangles = len(near_a), len(near_b), len(near_a & near_b)
    first = math.sin(4 * beta) * math.sin(gamma) * (math.cos(gamma) ** d + math.cos(gamma) ** e)
    second = (
        math.sin(2 * beta) ** 2
        * math.cos(gamma) ** (d + e - 2 * triangles)
        * (1 - math.cos(2 * gamma) ** triangles)
    )
    return -(first - second) / 2


# Dynamics: a chain of spins after a quench, and a quantum walk on a ring.


def ising_trotter(num_spins: int = 12, steps: int = 8, angle: float = 0.35) -> Algorithm:
    """Evolution of a domain wall: exp(-i t (sum XX + sum Z) / 2) in Trotter steps. The check
    compares every <Z> with the exact values of free fermions (`_magnetisation`)."""
    circuit = QuantumCircuit(num_spins, num_spins, name=f"ising-{num_spins}")
    circuit.x(range(num_spins // 2, num_spins))
    for _ in range(steps):
        for first in (0, 1):
            for left in range(first, num_spins - 1, 2):
                circuit.rxx(angle, left, left + 1)
        circuit.rz(angle, range(num_spins))
    circuit.measure(range(num_spins), range(num_spins))
    values = _magnetisation(num_spins, steps, angle)
    return Algorithm(
        circuit,
        ExpectedParities(tuple(((k,), float(z)) for k, z in enumerate(values))),
        "Lieb, Schultz, Mattis, Ann. Phys. 16, 407 (1961)",
    )


def _magnetisation(num_spins: int, steps: int, angle: float) -> NDArray[np.float64]:
    """Return <Z_k> after the same steps, float64 [num_spins], from 2n Majorana operators.
    Jordan-Wigner: c_2k = Z..Z X_k, c_2k+1 = Z..Z Y_k, so Z_k = -i c_2k c_2k+1 and X_k X_k+1 = -i
    c_2k+1 c_2k+2. exp(-angle/2 c_a c_b) rotates the pair (a, b) by `angle`; the covariance G_ab =
    <-i c_a c_b> rotates with it, and <Z_k> = G_2k,2k+1."""
    size = 2 * num_spins
    covariance = np.zeros((size, size))
    for spin in range(num_spins):
        up = 1.0 if spin < num_spins // 2 else -1.0
        covariance[2 * spin, 2 * spin + 1] = up
        covariance[2 * spin + 1, 2 * spin] = -up

    def turn(a: int, b: int) -> NDArray[np.float64]:
        rotation = np.eye(size)
        rotation[a, a] = rotation[b, b] = math.cos(angle)
        rotation[a, b], rotation[b, a] = math.sin(angle), -math.sin(angle)
        return rotation

    step = np.eye(size)
    for left in range(num_spins - 1):  # XX terms commute with one another
        step = turn(2 * left + 1, 2 * left + 2) @ step
    for spin in range(num_spins):
        step = turn(2 * spin, 2 * spin + 1) @ step
    for _ in range(steps):
        covariance = step @ covariance @ step.T
    return np.array([covariance[2 * k, 2 * k + 1] for k in range(num_spins)])


def quantum_walk(log_nodes: int = 5, steps: int = 10) -> Algorithm:
    """Quantum walk with a Hadamard coin on a ring of 2^m nodes; it spreads like t, not like
    sqrt(t)."""
    position, coin = QuantumRegister(log_nodes, "position"), QuantumRegister(1, "coin")
    result = ClassicalRegister(log_nodes, "found")
    circuit = QuantumCircuit(position, coin, result, name=f"quantum-walk-{log_nodes + 1}")
    circuit.x(position[log_nodes - 1])
    circuit.h(coin)
    circuit.s(coin)  # a coin in |0> + i|1> makes the walk even to both sides
    for _ in range(steps):
        circuit.h(coin)
        for bit in reversed(range(log_nodes)):  # coin 1: position + 1
            circuit.mcx([coin[0], *position[:bit]], position[bit])
        circuit.x(coin)
        for bit in range(log_nodes):  # coin 0: position - 1
            circuit.mcx([coin[0], *position[:bit]], position[bit])
        circuit.x(coin)
    circuit.measure(position, result)
    return Algorithm(
        circuit,
        ExpectedOutcomes(
            {bits(k, log_nodes): p for k, p in enumerate(_walk_probabilities(2**log_nodes, steps))}
        ),
        "Aharonov, Ambainis, Kempe, Vazirani, arXiv:quant-ph/0012090",
    )


def _walk_probabilities(nodes: int, steps: int) -> list[float]:
    """Return P(node) of the same walk from two arrays of amplitudes, one for each side of the
    coin."""
    left = np.zeros(nodes, dtype=complex)
    right = np.zeros(nodes, dtype=complex)
    left[nodes // 2], right[nodes // 2] = math.sqrt(0.5), 1j * math.sqrt(0.5)
    for _ in range(steps):
        left, right = (left + right) * math.sqrt(0.5), (left - right) * math.sqrt(0.5)
        left, right = np.roll(left, -1), np.roll(right, 1)
    return [float(p) for p in abs(left) ** 2 + abs(right) ** 2]


# Variational algorithms: a circuit with free parameters, and the energy that it approaches.


@dataclass(frozen=True, slots=True)
class VariationalAlgorithm:
    """A circuit with free parameters, without measurements, whose energy is to be minimised.
    `ground_energy`: the lowest eigenvalue of the Hamiltonian; no parameters give less."""

    circuit: QuantumCircuit
    hamiltonian: SparsePauliOp
    ground_energy: float
    reference: str


def transverse_ising(num_spins: int, field: float = 1.0) -> SparsePauliOp:
    """Return the Ising chain in a transverse field, open: -sum Z_k Z_k+1 - field sum X_k."""
    bonds = [("ZZ", [k, k + 1], -1.0) for k in range(num_spins - 1)]
    fields = [("X", [k], -field) for k in range(num_spins)]
    return SparsePauliOp.from_sparse_list([*bonds, *fields], num_qubits=num_spins)


def ising_ground_state(num_spins: int = 4, field: float = 1.0) -> VariationalAlgorithm:
    """Ground state of `transverse_ising`: |+...+> rotated by the terms of the Hamiltonian, each
    with its own angle. 3 num_spins angles: of the bonds, the fields, the bonds, and the fields of
    the two ends. Free fermions give the energy: minus the sum of the singular values of the matrix
    with `field` on the diagonal and 1 beside it (Pfeuty, Ann. Phys. 57, 79 (1970))."""
    angles = iter(ParameterVector("angle", 3 * num_spins))
    circuit = QuantumCircuit(num_spins, name=f"ising-vqe-{num_spins}")
    circuit.h(range(num_spins))
    for turned in (range(num_spins), (0, num_spins - 1)):
        for k in range(num_spins - 1):
            circuit.rzz(next(angles), k, k + 1)
        for k in turned:
            circuit.rx(next(angles), k)
    modes = np.diag(np.full(num_spins, field)) + np.diag(np.ones(num_spins - 1), 1)
    energy = -float(np.linalg.svd(modes, compute_uv=False).sum())
    reference = "Wecker, Hastings, Troyer, arXiv:1507.08969"
    return VariationalAlgorithm(circuit, transverse_ising(num_spins, field), energy, reference)
