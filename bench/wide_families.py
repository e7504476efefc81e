"""Random circuits of 20 to 60 qubits from six families, for forecasts and for the choice of
engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import networkx
from qiskit import QuantumCircuit

from bench.circuits import Gate, Random, brickwork, grid, measured, qaoa

MOST_QUBITS = 60


def heavy_hex(rows: int, length: int) -> networkx.Graph:
    """Rows of qubits, connected by a qubit at each fourth place, shifted by two in turn."""
    graph = networkx.Graph()
    for row in range(rows):
        networkx.add_path(graph, [(row, k) for k in range(length)])
        if row:
            for k in range(2 * (row % 2), length, 4):
                networkx.add_path(graph, [(row - 1, k), (row - 0.5, k), (row, k)])
    return networkx.convert_node_labels_to_integers(graph)


def part(graph: networkx.Graph, num_qubits: int) -> list[tuple[int, int]]:
    """Edges of the part that breadth-first search finds, its qubits numbered from 0."""
    order = [0, *(b for _, b in networkx.bfs_edges(graph, 0))][:num_qubits]
    place = {node: k for k, node in enumerate(order)}
    return [(place[a], place[b]) for a, b in graph.edges if a in place and b in place]


def kicked_ising(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Kicks and couplings of all edges of a heavy-hex lattice, one to four times."""
    edges = part(heavy_hex(7, 15), num_qubits)
    kick, coupling = random.uniform(0.2, 1.2), random.choice([-math.pi / 2, 0.4])
    for _ in range(int(random.integers(1, 5))):
        yield from (("rx", (q,), (kick,)) for q in range(num_qubits))
        yield from (("rzz", edge, (float(coupling),)) for edge in edges)


def lattice(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Random gates and cz on a rectangle of five to seven rows, at most."""
    rows = int(random.integers(4, 8))
    return grid(rows, num_qubits // rows, int(random.integers(2, 9)), random)


def regular(num_qubits: int, random: Random) -> Iterator[Gate]:
    """QAOA on a random graph of degree three, one or two layers."""
    even = num_qubits // 2 * 2
    graph = networkx.random_regular_graph(3, even, seed=int(random.integers(2**31)))
    gamma, beta = random.uniform(0.2, 1.2, 2).tolist()
    return qaoa(even, list(graph.edges), int(random.integers(1, 3)), gamma, beta)


def scattered(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Gates on random pairs of all qubits, with rotations between them."""
    yield from (("h", (q,), ()) for q in range(num_qubits))
    for _ in range(int(num_qubits * random.uniform(0.5, 2.0))):
        one, two = (int(q) for q in random.choice(num_qubits, 2, replace=False))
        yield "cz", (one, two), ()
        yield "ry", (one,), (random.uniform(0, 3),)
        yield "rx", (two,), (random.uniform(0, 3),)


def strides(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Rotations, and cx from each qubit q to a q + b, in cycles that a chain connects once."""
    while True:
        stride, shift = int(random.integers(3, num_qubits)), int(random.integers(1, num_qubits))
        if math.gcd(stride, num_qubits) == 1:
            break
    yield from stride_layers(num_qubits, int(random.integers(2, 21)), stride, shift)


def stride_layers(num_qubits: int, layers: int, stride: int, shift: int) -> Iterator[Gate]:
    """Layers of rotations and of cx from each qubit q to stride * q + shift."""
    yield from (("h", (q,), ()) for q in range(num_qubits))
    yield from (("rzz", (q, q + 1), (0.3,)) for q in range(num_qubits - 1))
    for layer in range(layers + 1):
        yield from (("rx", (q,), (0.4,)) for q in range(num_qubits))
        if not layer:
            continue
        for q in range(num_qubits):
            other = (stride * q + shift) % num_qubits
            if other != q:
                yield "cx", (q, other), ()


def chain(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Brickwork of random gates between neighbours."""
    yield from brickwork(num_qubits, int(random.integers(3, 13)), int(random.integers(2**31)))


FAMILIES: dict[str, Callable[[int, Random], Iterator[Gate]]] = {
    "kicked_ising": kicked_ising,
    "lattice": lattice,
    "regular": regular,
    "scattered": scattered,
    "strides": strides,
    "chain": chain,
}


def family_circuit(name: str, random: Random) -> QuantumCircuit:
    """Circuit of a family, all qubits measured."""
    gates = list(FAMILIES[name](int(random.integers(20, MOST_QUBITS + 1)), random))
    return measured(1 + max(q for _, qubits, _ in gates for q in qubits), gates)
