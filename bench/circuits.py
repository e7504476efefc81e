"""Circuits of the benchmarks; most of them are lists of gates (name, qubits, angles in radians).

Every seed gives different angles; for `volume` and `clifford_t` it also gives a different
structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import UnitaryGate

from bench.peers.base import Gate

Random = np.random.Generator

ANSATZ_LAYERS = 4
CLIFFORD_T_DEPTH = 20  # gates per qubit
TFIM_STEPS, TFIM_DT, TFIM_FIELD = 10, 0.1, 1.0


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


def volume(num_qubits: int, random: Random) -> Iterator[Gate]:
    """Yield as many layers as qubits: a random two-qubit gate on each pair of a random pairing."""
    for _ in range(num_qubits):
        order = random.permutation(num_qubits).tolist()
        for a, b in zip(order[0::2], order[1::2], strict=False):
            for part in range(4):
                if part:
                    yield "cx", (a, b), ()
                yield _random_unitary(a, random)
                yield _random_unitary(b, random)


def ghz(num_qubits: int, _random: Random) -> Iterator[Gate]:
    """Yield the gates of a GHZ state."""
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
    for _ in range(TFIM_STEPS):
        for first in (0, 1):
            for qubit in range(first, num_qubits - 1, 2):
                yield "rzz", (qubit, qubit + 1), (-2 * TFIM_DT * off,)
        for qubit in range(num_qubits):
            yield "rx", (qubit,), (-2 * TFIM_DT * TFIM_FIELD * off,)


CIRCUITS: dict[str, Callable[[int, Random], Iterator[Gate]]] = {
    "qft": qft,
    "ansatz": ansatz,
    "volume": volume,
    "tfim": tfim,
    "clifford_t": clifford_t,
    "ghz": ghz,
}


def wide_circuit(name: str, num_qubits: int, seed: int) -> list[Gate]:
    """Return the circuit of that name and seed."""
    return list(CIRCUITS[name](num_qubits, np.random.default_rng(seed)))


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
    num_qubits: int, edges: Sequence[Sequence[int]], layers: int, gamma: float, beta: float
) -> Iterator[Gate]:
    """Yield layers of rzz(gamma) on the edges of a graph and rx(beta) on all qubits, after h."""
    for qubit in range(num_qubits):
        yield "h", (qubit,), ()
    for _ in range(layers):
        for a, b in edges:
            yield "rzz", (a, b), (gamma,)
        for qubit in range(num_qubits):
            yield "rx", (qubit,), (beta,)


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


def built(num_qubits: int, gates: Iterable[Gate], num_clbits: int = 0) -> QuantumCircuit:
    """Return the gates as a QuantumCircuit without measurements."""
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


def _random_unitary(qubit: int, random: Random) -> Gate:
    """Return a one-qubit gate drawn from the Haar measure."""
    theta = math.acos(1 - 2 * random.random())
    return "u", (qubit,), (theta, *random.uniform(-math.pi, math.pi, 2).tolist())


def four_qubit_circuit(seed: int) -> QuantumCircuit:
    """Return a measured circuit of four qubits and 26 gates; the circuit differs for every seed."""
    rng = np.random.default_rng(seed)
    gates: list[Gate] = []
    for last in (3, 4):
        for qubit in range(4):
            gates += [(name, (qubit,), (rng.uniform(0, 6),)) for name in ("ry", "rz")]
        gates += [("cx", (qubit, (qubit + 1) % 4), ()) for qubit in range(last)]
    gates += [("h", (qubit,), ()) for qubit in range(3)]
    return measured(4, gates)


def brickwork(num_qubits: int, depth: int, seed: int) -> list[Gate]:
    """Return layers of random gates on each qubit, then CZ on every second pair of neighbours."""
    random = np.random.default_rng(seed)
    results: list[Gate] = []
    for layer in range(depth):
        for k in range(num_qubits):
            results.append(("u", (k,), tuple(random.uniform(0, 2 * np.pi, 3).tolist())))
        results += [("cz", (k, k + 1), ()) for k in range(layer % 2, num_qubits - 1, 2)]
    return results


def disjoint_layers(pairs: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Pairs in layers of disjoint ones."""
    layers: list[list[tuple[int, int]]] = []
    for pair in pairs:
        free = (layer for layer in layers if not any({*pair} & {*other} for other in layer))
        layer = next(free, None)
        if layer is None:
            layers.append([pair])
        else:
            layer.append(pair)
    return layers
