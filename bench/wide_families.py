"""Families of circuits for the choice of an engine, from a few qubits to a thousand, measured.

Each family is a function of the width and a random generator. Every seed gives different angles;
for some families it also gives a different structure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from qiskit import QuantumCircuit

from bench.circuits import CIRCUITS, measured

Random = np.random.Generator
Family = Callable[[int, Random], QuantumCircuit]

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
        return measured(width, list(CIRCUITS[family](width, random)))
    return _FAMILIES[family](width, random)


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


def _all_measured(circuit: QuantumCircuit) -> QuantumCircuit:
    circuit.measure(range(circuit.num_qubits), range(circuit.num_qubits))
    return circuit


def _brickwork(depth: int, *gates: str) -> Family:
    def family(width: int, random: Random) -> QuantumCircuit:
        circuit = QuantumCircuit(width, width)
        layers(circuit, depth, random, gates)
        return _all_measured(circuit)

    return family


def _separate(width: int, random: Random) -> QuantumCircuit:
    """Return separate blocks of six qubits."""
    circuit = QuantumCircuit(width, width)
    for first in range(0, width - 5, 6):
        block = QuantumCircuit(6)
        layers(block, 6, random)
        circuit.compose(block, range(first, first + 6), inplace=True)
    return _all_measured(circuit)


def _teleported(width: int, random: Random) -> QuantumCircuit:
    """Return a circuit that teleports the state of the first qubit step by step to the last one."""
    circuit = QuantumCircuit(width, width)
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
    return circuit


def _fourier(width: int, random: Random) -> QuantumCircuit:
    """Return the Fourier transform of a random basis state."""
    circuit = QuantumCircuit(width, width)
    for qubit in np.flatnonzero(random.integers(2, size=width)).tolist():
        circuit.x(qubit)
    for high in reversed(range(width)):
        circuit.h(high)
        for low in reversed(range(high)):
            circuit.cp(np.pi / 2.0 ** (high - low), low, high)
    return _all_measured(circuit)


def _toffoli(circuit: QuantumCircuit, first: int, second: int, target: int) -> None:
    """Add a Toffoli gate as six cx, seven T gates and two h."""
    circuit.h(target)
    for control, gate in ((second, "tdg"), (first, "t"), (second, "tdg"), (first, "t")):
        circuit.cx(control, target)
        getattr(circuit, gate)(target)
    circuit.t(second)
    circuit.h(target)
    circuit.cx(first, second)
    circuit.t(first)
    circuit.tdg(second)
    circuit.cx(first, second)


def _adder(width: int, random: Random) -> QuantumCircuit:
    """Return the ripple-carry adder of Cuccaro et al. for a number and a superposition of two."""
    circuit, bits = QuantumCircuit(width, width), (width - 2) // 2
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
    return _all_measured(circuit)


def _swap_test(width: int, random: Random) -> QuantumCircuit:
    """Return the swap test of two product states, with one ancilla."""
    circuit, half = QuantumCircuit(width, width), (width - 1) // 2
    for qubit in range(1, width):
        circuit.ry(random.uniform(0, 3), qubit)
    circuit.h(0)
    for site in range(1, half + 1):
        circuit.cx(site + half, site)
        _toffoli(circuit, 0, site, site + half)
        circuit.cx(site + half, site)
    circuit.h(0)
    return _all_measured(circuit)


def _qaoa(width: int, random: Random) -> QuantumCircuit:
    """Return one layer of QAOA on a random graph of degree three."""
    circuit = QuantumCircuit(width, width)
    circuit.h(range(width))
    for _ in range(3):
        for a, b in random.permutation(width).reshape(-1, 2).tolist():
            circuit.rzz(0.8, a, b)
    circuit.rx(0.6, range(width))
    return _all_measured(circuit)


def _grid(width: int, random: Random) -> QuantumCircuit:
    """Return four layers of cz on a square grid, which cover each edge once."""
    circuit, side = QuantumCircuit(width, width), round(width**0.5)
    at = np.arange(side * side).reshape(side, side)
    edges = [(at[:, :-1], at[:, 1:]), (at[:-1], at[1:])]
    for starts, ends in edges:
        for first in (0, 1):
            axis = 1 if starts.shape[1] < side else 0
            pick = (slice(None), slice(first, None, 2)) if axis else slice(first, None, 2)
            for qubit in range(width):
                circuit.u(*random.uniform(0, 6, 3), qubit)
            for a, b in zip(
                starts[pick].ravel().tolist(), ends[pick].ravel().tolist(), strict=True
            ):
                circuit.cz(a, b)
    for qubit in range(width):
        circuit.u(*random.uniform(0, 6, 3), qubit)
    return _all_measured(circuit)


def _w(width: int, _random: Random) -> QuantumCircuit:
    """Return the preparation of a W state."""
    circuit = QuantumCircuit(width, width)
    circuit.x(0)
    for qubit in range(width - 1):
        circuit.cry(2 * np.arccos((1.0 / (width - qubit)) ** 0.5), qubit, qubit + 1)
        circuit.cx(qubit + 1, qubit)
    return _all_measured(circuit)


def _graph_t(width: int, random: Random) -> QuantumCircuit:
    """Return layers of cz between random pairs, and eight T gates."""
    circuit = QuantumCircuit(width, width)
    for _ in range(6):
        circuit.h(range(width))
        for a, b in random.permutation(width).reshape(-1, 2).tolist():
            circuit.cz(a, b)
    for qubit in random.choice(width, 8, replace=False).tolist():
        circuit.t(qubit)
    circuit.h(range(width))
    return _all_measured(circuit)


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
