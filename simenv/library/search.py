"""Search and optimisation: Grover on exact cover, QAOA on a cubic graph."""

from __future__ import annotations

import math
from itertools import combinations

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from simenv.library.algorithm import Algorithm, ExpectedOutcomes, ExpectedParities, bits

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
    """One layer of QAOA for the largest cut of a cubic graph: a ring with its diameters.

    Every edge's <ZZ> is known in closed form (`_edge_value`); these angles are the best for cubic
    graphs without triangles.
    """
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
