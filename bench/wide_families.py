"""Families of circuits for the choice of an engine, from a few qubits to a thousand, measured.

Each family is a function of the width and a random generator. Every seed gives different angles;
for some families it also gives a different structure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import CCXGate

from bench.circuits import CIRCUITS, Random, built, grid, measured, qaoa

Family = Callable[[QuantumCircuit, Random], None]  # it adds the gates

WIDTHS = {
    "ghz": (8, 14, 24, 60, 300, 1_000),
    "tfim": (8, 14, 18, 20, 22, 24, 28, 40, 100),
    "ansatz": (8, 14, 20, 24, 28, 40, 100),
    "qft": (8, 14, 20, 24, 26),
    "fourier": (14, 22, 40, 100),
    "volume": (8, 14, 18, 22),
    "clifford_t": (8, 14, 20, 24, 26),
    "clifford": (8, 14, 24, 100, 400, 1_000),
    "brickwork": (8, 14, 20, 23, 26, 40, 100, 1_000),
    "deep": (20, 26, 50),
    "separate": (24, 60, 200),
    "teleported": (3, 9, 21),
    "adder": (10, 18, 24, 28, 64, 130),
    "swap_test": (11, 19, 25, 41, 115),
    "qaoa": (12, 20, 26, 40, 60),
    "grid": (16, 25, 36, 49),
    "w": (14, 22, 36, 118, 500),
    "graph_t": (30, 60),
}


def generated(family: str, width: int, random: Random) -> QuantumCircuit:
    """Return the circuit of that family and width."""
    if family in CIRCUITS:
        return measured(width, CIRCUITS[family](width, random))
    circuit = QuantumCircuit(width, width)
    _FAMILIES[family](circuit, random)
    if family != "teleported":
        circuit.measure(range(width), range(width))
    return circuit


def layers(
    circuit: QuantumCircuit, depth: int, random: Random, gates: tuple[str, ...] = ()
) -> None:
    """Add layers of one-qubit gates and cx on neighbours, even and odd pairs in turns.

    `gates`: names of the one-qubit gates; empty: random u gates.
    """
    for layer in range(depth):
        for qubit in range(circuit.num_qubits):
            if gates:
                getattr(circuit, str(random.choice(gates)))(qubit)
            else:
                circuit.u(*random.uniform(0, 6, 3), qubit)
        for qubit in range(layer % 2, circuit.num_qubits - 1, 2):
            circuit.cx(qubit, qubit + 1)


def _brickwork(depth: int, *gates: str) -> Family:
    return lambda circuit, random: layers(circuit, depth, random, gates)


def _separate(circuit: QuantumCircuit, random: Random) -> None:
    """Add separate blocks of six qubits."""
    for first in range(0, circuit.num_qubits - 5, 6):
        block = QuantumCircuit(6)
        layers(block, 6, random)
        circuit.compose(block, range(first, first + 6), inplace=True)


def _teleported(circuit: QuantumCircuit, random: Random) -> None:
    """Add a circuit that teleports the state of the first qubit step by step to the last one."""
    width = circuit.num_qubits
    circuit.ry(random.uniform(0, 3), 0)
    for qubit in range(0, width - 2, 2):
        circuit.h(qubit + 1)
        circuit.cx(qubit + 1, qubit + 2)
        circuit.cx(qubit, qubit + 1)
        circuit.h(qubit)
        circuit.measure([qubit, qubit + 1], [qubit, qubit + 1])
        with circuit.if_test((circuit.clbits[qubit + 1], 1)):
            circuit.x(qubit + 2)
        with circuit.if_test((circuit.clbits[qubit], 1)):
            circuit.z(qubit + 2)
    circuit.measure(width - 1, width - 1)


def _fourier(circuit: QuantumCircuit, random: Random) -> None:
    """Add the Fourier transform of a random basis state."""
    width = circuit.num_qubits
    for qubit in np.flatnonzero(random.integers(2, size=width)).tolist():
        circuit.x(qubit)
    for high in reversed(range(width)):
        circuit.h(high)
        for low in reversed(range(high)):
            circuit.cp(np.pi / 2.0 ** (high - low), low, high)


def _toffoli(circuit: QuantumCircuit, first: int, second: int, target: int) -> None:
    """Add a Toffoli gate as six cx, seven T gates and two h."""
    circuit.compose(CCXGate().definition, [first, second, target], inplace=True)


def _adder(circuit: QuantumCircuit, random: Random) -> None:
    """Add the ripple-carry adder of Cuccaro et al. for a number and a superposition of two."""
    width = circuit.num_qubits
    bits = (width - 2) // 2
    places = [(2 * k + 1, 2 * k + 2) for k in range(bits)]  # b and a of each bit; 0 is the carry
    for a, b in places:
        for qubit in (a, b):
            if random.integers(2):
                circuit.x(qubit)
    circuit.h(places[0][1])
    carries = [0, *(b for _, b in places)]
    for k, (a, b) in enumerate(places):
        circuit.cx(b, a)
        circuit.cx(b, carries[k])
        _toffoli(circuit, carries[k], a, b)
    circuit.cx(places[-1][1], width - 1)
    for k, (a, b) in reversed(list(enumerate(places))):
        _toffoli(circuit, carries[k], a, b)
        circuit.cx(b, carries[k])
        circuit.cx(carries[k], a)


def _swap_test(circuit: QuantumCircuit, random: Random) -> None:
    """Add the swap test of two product states, with one ancilla."""
    width = circuit.num_qubits
    half = (width - 1) // 2
    for qubit in range(1, width):
        circuit.ry(random.uniform(0, 3), qubit)
    circuit.h(0)
    for site in range(1, half + 1):
        circuit.cx(site + half, site)
        _toffoli(circuit, 0, site, site + half)
        circuit.cx(site + half, site)
    circuit.h(0)


def _qaoa(circuit: QuantumCircuit, random: Random) -> None:
    """Add one layer of QAOA on a random graph of degree three."""
    width = circuit.num_qubits
    pairs = [random.permutation(width).reshape(-1, 2) for _ in range(3)]
    gates = qaoa(width, np.concatenate(pairs).tolist(), 1, 0.8, 0.6)
    circuit.compose(built(width, gates), inplace=True)


def _grid(circuit: QuantumCircuit, random: Random) -> None:
    """Add four layers of cz on a square grid, which cover each edge once."""
    side = round(circuit.num_qubits**0.5)
    circuit.compose(built(side * side, grid(side, side, 4, random)), inplace=True)


def _w(circuit: QuantumCircuit, _random: Random) -> None:
    """Add the preparation of a W state."""
    width = circuit.num_qubits
    circuit.x(0)
    for qubit in range(width - 1):
        circuit.cry(2 * np.arccos((1.0 / (width - qubit)) ** 0.5), qubit, qubit + 1)
        circuit.cx(qubit + 1, qubit)


def _graph_t(circuit: QuantumCircuit, random: Random) -> None:
    """Add layers of cz between random pairs, and eight T gates."""
    width = circuit.num_qubits
    for _ in range(6):
        circuit.h(range(width))
        for a, b in random.permutation(width).reshape(-1, 2).tolist():
            circuit.cz(a, b)
    for qubit in random.choice(width, 8, replace=False).tolist():
        circuit.t(qubit)
    circuit.h(range(width))


_FAMILIES: dict[str, Family] = {
    "fourier": _fourier,
    "clifford": _brickwork(20, "h", "s", "sdg", "x"),
    "brickwork": _brickwork(8),
    "deep": _brickwork(12),
    "separate": _separate,
    "teleported": _teleported,
    "adder": _adder,
    "swap_test": _swap_test,
    "qaoa": _qaoa,
    "grid": _grid,
    "w": _w,
    "graph_t": _graph_t,
}
