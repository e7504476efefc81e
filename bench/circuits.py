"""Circuits of the benchmarks; most of them are lists of gates (name, qubits, angles in radians).

Every seed gives different angles; for `volume`, `clifford_t` and FAMILIES also another structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import networkx
import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import UnitaryGate

from bench.peers.base import Gate

Random = np.random.Generator
Pairs = list[tuple[int, int]]
PI_2 = math.pi / 2
ANSATZ_LAYERS = 4
CLIFFORD_T_DEPTH = 20  # gates per qubit
TFIM_STEPS, TFIM_DT, TFIM_FIELD = 10, 0.1, 1.0
MOST_QUBITS = 60  # of FAMILIES


# --- from gates to circuits -----------------------------------------------------------------------


def built(num_qubits: int, gates: Iterable[Gate], num_clbits: int = 0) -> QuantumCircuit:
    circuit = QuantumCircuit(num_qubits, num_clbits)
    for name, qubits, angles in gates:
        if name == "unitary":
            circuit.append(UnitaryGate(angles[0], check_input=False), qubits)
        else:
            getattr(circuit, name)(*angles, *qubits)
    return circuit


def measured(num_qubits: int, gates: Iterable[Gate]) -> QuantumCircuit:
    """Return the gates as a QuantumCircuit, all qubits measured."""
    circuit = built(num_qubits, gates, num_qubits)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def engine_circuit(source: QuantumCircuit) -> Any:
    """Return a circuit as engines take it, a `simulators.circuit.ir.Circuit`."""
    from simenv.client.circuits import load
    from simenv.model import decode_program
    from simulators.circuit.ir import Circuit

    return Circuit.from_program(decode_program(load(source).packed))


# --- kinds for any number of qubits ---------------------------------------------------------------


def qft(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Yield the Fourier transform of a random product state, including its swaps."""
    for qubit in range(num_qubits):
        yield _random_unitary(qubit, random)
    for high in reversed(range(num_qubits)):
        yield "h", (high,), ()
        for low in reversed(range(high)):
            yield "cp", (low, high), (math.pi / 2 ** (high - low),)
    for qubit in range(num_qubits // 2):
        yield "swap", (qubit, num_qubits - 1 - qubit), ()


def volume(num_qubits: int, random: Random, layers: int = 0) -> Iterator[Gate]:
    """Yield layers, as many as qubits: a random two-qubit gate on each pair of a random pairing."""
    for _ in range(layers or num_qubits):
        order = random.permutation(num_qubits).tolist()
        for a, b in zip(order[0::2], order[1::2], strict=False):
            for part in range(4):
                if part:
                    yield "cx", (a, b), ()
                yield _random_unitary(a, random)
                yield _random_unitary(b, random)


def _random_unitary(qubit: int, random: Random) -> Gate:
    """Return a one-qubit gate drawn from the Haar measure."""
    theta = math.acos(1 - 2 * random.random())
    return "u", (qubit,), (theta, *random.uniform(-math.pi, math.pi, 2).tolist())


def ghz(num_qubits: int, _random: Random) -> Iterator[Gate]:
    yield "h", (0,), ()
    for qubit in range(num_qubits - 1):
        yield "cx", (qubit, qubit + 1), ()


def ansatz(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Yield layers of ry with a ladder of cx between them."""
    for layer in range(ANSATZ_LAYERS + 1):
        if layer:
            for qubit in range(num_qubits - 1):
                yield "cx", (qubit, qubit + 1), ()
        for qubit in range(num_qubits):
            yield "ry", (qubit,), (random.uniform(-math.pi, math.pi),)


def clifford_t(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Yield a layer of h, then random gates: two cx to one h, one t or tdg, and one s or x."""
    for qubit in range(num_qubits):
        yield "h", (qubit,), ()
    for _ in range((CLIFFORD_T_DEPTH - 1) * num_qubits):
        kind, qubit = int(random.integers(10)), int(random.integers(num_qubits))
        if kind < 4:
            other = (qubit + 1 + int(random.integers(num_qubits - 1))) % num_qubits
            yield "cx", (qubit, other), ()
        else:
            yield ("h", "h", "t", "tdg", "s", "x")[kind - 4], (qubit,), ()


def tfim(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Yield first-order Trotter steps of an Ising chain in a transverse field, angles perturbed."""
    off = 1.0 + 0.01 * random.uniform(-1, 1)
    for qubit in range(0, num_qubits, 2):
        yield "h", (qubit,), ()
    yield from trotter(num_qubits, TFIM_STEPS, -2 * TFIM_DT * off, -2 * TFIM_DT * TFIM_FIELD * off)


def trotter(num_qubits: int, steps: int, coupling: float, field: float) -> Iterator[Gate]:
    """Yield rzz on even and odd neighbours, then rx on all qubits, that often."""
    for _ in range(steps):
        for first in (0, 1):
            for qubit in range(first, num_qubits - 1, 2):
                yield "rzz", (qubit, qubit + 1), (coupling,)
        for qubit in range(num_qubits):
            yield "rx", (qubit,), (field,)


CIRCUITS: dict[str, Callable[[int, Random], Iterator[Gate]]] = {
    "qft": qft, "ansatz": ansatz, "volume": volume, "tfim": tfim, "clifford_t": clifford_t,
    "ghz": ghz,
}  # fmt: skip


def wide_circuit(name: str, num_qubits: int, seed: int) -> list[Gate]:
    return list(CIRCUITS[name](num_qubits, np.random.default_rng(seed)))


# --- small circuits -------------------------------------------------------------------------------


def gates(num_qubits: int, operations: int, seed: int) -> list[Gate]:
    """Return `operations` gates: layers of ry, rz and a ring of cx."""
    rng = np.random.default_rng(seed)
    results: list[Gate] = []
    while len(results) < operations:
        for qubit in range(num_qubits):
            results += [(name, (qubit,), (rng.uniform(0, 6),)) for name in ("ry", "rz")]
        results += [("cx", (q, (q + 1) % num_qubits), ()) for q in range(num_qubits)]
    return results[:operations]


ANY = {"h": 0, "t": 0, "rx": 1, "ry": 1, "u": 3, "cx": 0, "cz": 0, "cp": 1, "rzz": 1, "swap": 0}
ON_PAIRS = ("cx", "cz", "cp", "rzz", "swap")


def random_gates(
    num_qubits: int, number: int, random: Random, angles: Mapping[str, int] = ANY
) -> list[Gate]:
    """Return so many random gates on random qubits. `angles`: their number by gate."""
    results: list[Gate] = []
    for name in random.choice(list(angles), number).tolist():
        qubits = random.choice(num_qubits, 2 if name in ON_PAIRS else 1, replace=False).tolist()
        results.append((name, tuple(qubits), tuple(random.uniform(-3, 3, angles[name]).tolist())))
    return results


def scattered_gates(num_qubits: int, operations: int, seed: int) -> list[Gate]:
    """Return `operations` gates on random qubits: ry, rz and cx as often as in `gates`."""
    angles = {"ry": 1, "rz": 1, "cx": 0}
    return random_gates(num_qubits, operations, np.random.default_rng(seed), angles)


def layered(
    num_qubits: int, operations: int, number: int, seed: int,
    gates_of: Callable[[int, int, int], list[Gate]] = gates,
) -> list[QuantumCircuit]:  # fmt: skip
    """Return `number` measured circuits of `gates_of`, each of another seed: those of `gates`
    differ in their angles."""
    seeds = range(seed * 10**6, seed * 10**6 + number)
    return [measured(num_qubits, gates_of(num_qubits, operations, each)) for each in seeds]


def four_qubit_circuit(seed: int) -> QuantumCircuit:
    """Return a measured circuit of four qubits and 26 gates; its angles differ for every seed."""
    return measured(4, gates(4, 26, seed))


def ansatz_circuit(num_qubits: int, parameters: int, operations: int) -> QuantumCircuit:
    """Return a measured circuit with `parameters` rotations, each with its own angle, and cx and h
    between them."""
    angles = list(ParameterVector("a", parameters))
    circuit = QuantumCircuit(num_qubits, num_qubits)
    fixed = operations - parameters
    for k in range(max(parameters, fixed)):
        if k < parameters:
            (circuit.ry if k % 2 else circuit.rz)(angles[k], k % num_qubits)
        if k < fixed:
            circuit.cx(k % num_qubits, (k + 1) % num_qubits) if k % 3 else circuit.h(k % num_qubits)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def clifford_text(
    num_qubits: int, depth: int, seed: Any, ones: Sequence[str], twos: Sequence[str]
) -> str:
    """Return OpenQASM 2 of layers with a random one of the gates `ones` on each qubit, then one of
    `twos` on each pair of a random pairing; all qubits are measured."""
    rng = np.random.default_rng(seed)
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";']
    lines += [f"qreg q[{num_qubits}];", f"creg c[{num_qubits}];"]
    for _ in range(depth):
        names = rng.choice(ones, num_qubits).tolist()
        lines += [f"{name} q[{qubit}];" for qubit, name in enumerate(names)]
        pairs = rng.permutation(num_qubits).reshape(-1, 2).tolist()
        names = rng.choice(twos, len(pairs)).tolist()
        lines += [f"{name} q[{a}],q[{b}];" for name, (a, b) in zip(names, pairs, strict=True)]
    return "\n".join([*lines, "measure q -> c;", ""])


# --- graphs ---------------------------------------------------------------------------------------


def device_pairs(device: str, *, working: bool = False) -> Pairs:
    """Return the coupled pairs of a device of the library, each once, sorted. `working`: only those
    with a gate that works, which a service takes as they are."""
    from noise_models import library

    snapshot = library.load(device)
    pairs = snapshot.coupled if working else snapshot.coupling
    return sorted({(min(pair), max(pair)) for pair in pairs})


def disjoint_layers(pairs: Pairs) -> list[Pairs]:
    """Return pairs in layers of disjoint ones."""
    layers: list[Pairs] = []
    for pair in pairs:
        free = (layer for layer in layers if not any({*pair} & {*other} for other in layer))
        layer = next(free, None)
        if layer is None:
            layers.append(layer := [])
        layer.append(pair)
    return layers


def heavy_hex(rows: int, length: int) -> networkx.Graph:
    """Return rows of qubits, connected by a qubit at each fourth place, shifted by two in turn."""
    graph = networkx.Graph()
    for row in range(rows):
        networkx.add_path(graph, [(row, k) for k in range(length)])
        for k in range(2 * (row % 2), length, 4) if row else ():
            networkx.add_path(graph, [(row - 1, k), (row - 0.5, k), (row, k)])
    return networkx.convert_node_labels_to_integers(graph)


def part(graph: networkx.Graph, num_qubits: int) -> Pairs:
    """Return edges of the part that breadth-first search finds, its qubits numbered from 0."""
    order = [0, *(b for _, b in networkx.bfs_edges(graph, 0))][:num_qubits]
    place = {node: k for k, node in enumerate(order)}
    return [(place[a], place[b]) for a, b in graph.edges if a in place and b in place]


def kicked(
    num_qubits: int, pairs: Pairs, steps: int, kick: float, coupling: float = -PI_2
) -> Iterator[Gate]:
    """Yield steps of the kicked Ising model: rx on all qubits, rzz on all pairs."""
    for _ in range(steps):
        yield from (("rx", (q,), (kick,)) for q in range(num_qubits))
        yield from (("rzz", pair, (coupling,)) for pair in pairs)


def kicked_native(qubits: Sequence[int], pairs: Pairs, steps: int, kick: float) -> Iterator[Gate]:
    """Yield `kicked` in rz, sx and cz: rzz(-pi/2) is cz and rz(pi/2), up to a phase."""
    for _ in range(steps):
        for qubit in qubits:
            for turn in (PI_2, kick + math.pi):
                yield from (("rz", (qubit,), (turn,)), ("sx", (qubit,), ()))
            yield "rz", (qubit,), (PI_2,)
        for pair in pairs:
            yield "cz", pair, ()
            yield from (("rz", (qubit,), (PI_2,)) for qubit in pair)


def brickwork(num_qubits: int, depth: int, seed: int) -> list[Gate]:
    """Return layers of random gates on each qubit, then CZ on every second pair of neighbours."""
    random = np.random.default_rng(seed)
    results: list[Gate] = []
    for layer in range(depth):
        for k in range(num_qubits):
            results.append(("u", (k,), tuple(random.uniform(0, 2 * np.pi, 3).tolist())))
        results += [("cz", (k, k + 1), ()) for k in range(layer % 2, num_qubits - 1, 2)]
    return results


def grid(rows: int, columns: int, depth: int, random: Random) -> Iterator[Gate]:
    """Yield layers of random gates on each qubit, then CZ on every second pair of neighbours along
    rows or columns in turn; random gates last. Four layers have each pair once."""
    places = np.arange(rows * columns).reshape(rows, columns)
    for layer in range(depth + 1):
        for qubit in range(places.size):
            yield "u", (qubit,), tuple(random.uniform(0, 2 * np.pi, 3).tolist())
        lines = (places, places.T)[layer % 2][:, layer // 2 % 2 :]
        for a, b in zip(lines[:, :-1:2].flat, lines[:, 1::2].flat, strict=True):
            if layer < depth:
                yield "cz", (int(a), int(b)), ()


def qaoa(
    num_qubits: int, edges: Iterable[Sequence[int]], layers: int, gamma: float, beta: float
) -> Iterator[Gate]:
    """Yield layers of rzz(gamma) on the edges of a graph and rx(beta) on all qubits, after h."""
    edges = list(edges)
    yield from (("h", (q,), ()) for q in range(num_qubits))
    for _ in range(layers):
        yield from (("rzz", (a, b), (gamma,)) for a, b in edges)
        yield from (("rx", (q,), (beta,)) for q in range(num_qubits))


def pairs_of_random_qubits(num_qubits: int, count: int, random: Random) -> Iterator[Gate]:
    """Yield h on all qubits, then cz on random pairs, each with a rotation of both."""
    yield from (("h", (q,), ()) for q in range(num_qubits))
    for _ in range(count):
        one, two = (int(q) for q in random.choice(num_qubits, 2, replace=False))
        yield "cz", (one, two), ()
        yield "ry", (one,), (random.uniform(0, 3),)
        yield "rx", (two,), (random.uniform(0, 3),)


def stride_layers(num_qubits: int, layers: int, stride: int, shift: int) -> Iterator[Gate]:
    """Yield layers of rotations and of cx from each qubit q to stride * q + shift."""
    yield from (("h", (q,), ()) for q in range(num_qubits))
    yield from (("rzz", (q, q + 1), (0.3,)) for q in range(num_qubits - 1))
    for layer in range(layers + 1):
        yield from (("rx", (q,), (0.4,)) for q in range(num_qubits))
        others = ((q, (stride * q + shift) % num_qubits) for q in range(num_qubits if layer else 0))
        yield from (("cx", pair, ()) for pair in others if pair[0] != pair[1])


# --- random circuits of 20 to 60 qubits, for forecasts and for the choice of engines --------------


def _kicked_ising(num_qubits: int, random: Random) -> Iterator[Gate]:
    kick, coupling = random.uniform(0.2, 1.2), float(random.choice([-PI_2, 0.4]))
    edges, steps = part(heavy_hex(7, 15), num_qubits), int(random.integers(1, 5))
    return kicked(num_qubits, edges, steps, kick, coupling)


def _lattice(num_qubits: int, random: Random) -> Iterator[Gate]:
    rows = int(random.integers(4, 8))
    return grid(rows, num_qubits // rows, int(random.integers(2, 9)), random)


def _regular(num_qubits: int, random: Random) -> Iterator[Gate]:
    even = num_qubits // 2 * 2
    graph = networkx.random_regular_graph(3, even, seed=int(random.integers(2**31)))
    gamma, beta = random.uniform(0.2, 1.2, 2).tolist()
    return qaoa(even, graph.edges, int(random.integers(1, 3)), gamma, beta)


def _scattered(num_qubits: int, random: Random) -> Iterator[Gate]:
    return pairs_of_random_qubits(num_qubits, int(num_qubits * random.uniform(0.5, 2.0)), random)


def _strides(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Yield cycles that a chain connects once."""
    while True:
        stride, shift = int(random.integers(3, num_qubits)), int(random.integers(1, num_qubits))
        if math.gcd(stride, num_qubits) == 1:
            return stride_layers(num_qubits, int(random.integers(2, 21)), stride, shift)


def _chain(num_qubits: int, random: Random) -> Iterator[Gate]:
    depth, seed = int(random.integers(3, 13)), int(random.integers(2**31))
    return iter(brickwork(num_qubits, depth, seed))


FAMILIES: dict[str, Callable[[int, Random], Iterator[Gate]]] = {
    "kicked_ising": _kicked_ising, "lattice": _lattice, "regular": _regular,
    "scattered": _scattered, "strides": _strides, "chain": _chain,
}  # fmt: skip


def family_circuit(name: str, random: Random) -> QuantumCircuit:
    found = list(FAMILIES[name](int(random.integers(20, MOST_QUBITS + 1)), random))
    return measured(1 + max(q for _, qubits, _ in found for q in qubits), found)
