"""Circuits in native bases of devices: first run and later runs, compared with four libraries.

Qiskit's transpiler made the circuits of 300 to 3,000 gates, at levels 0 to 3, for superconducting
qubits (rz, sx, x with cz or ecr, neighbours in a line) or trapped ions (r or rx, ry, rz with rzz or
rxx); they run with 1,024 shots. Ours is the whole path through a running environment, from a
QuantumCircuit to the dict of counts: the first run of a circuit, compared with first runs of the
libraries, and the median of later runs, compared with theirs. The libraries' circuits are converted
before the clock starts, and optimised where the library has an optimizer; Aer reads the
QuantumCircuit in each run. The fastest variant on each circuit counts. Figures are medians of the
ratios over all circuits of a width; the worst ratio is printed too.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from qiskit import transpile
from qiskit.transpiler import CouplingMap

from bench.circuits import CIRCUITS, Random, built, wide_circuit
from bench.harness import INSTALL_COMMAND, SEED, THREADS, Option, Report, Times, rounds
from bench.harness.comparison import Peers, Variant, assert_same_circuit
from bench.peers.base import Gate
from bench.peers.libraries import LIBRARIES, PRECISIONS
from bench.peers.simenv_engine import Environment

# Name: basis gates; True if two-qubit gates act only on neighbours in a line.
BASES = {
    "heron": (["rz", "sx", "x", "cz"], True),
    "eagle": (["rz", "sx", "x", "ecr"], True),
    "ion": (["r", "rz", "rzz"], False),
    "ion_xx": (["rx", "ry", "rz", "rxx"], False),
}
LEVELS = (0, 1, 2, 3)
KINDS = ("random", "qft", "ansatz", "volume", "tfim", "clifford_t")
_LAYER_GATES = {"h": 0, "t": 0, "rx": 1, "ry": 1, "rz": 1, "u": 3}
_PAIR_GATES = {"cx": 0, "cz": 0, "cp": 1, "rzz": 1}
GATES = 300, 3_000  # least and most
CAP_S = 60.0  # of one run
NARROW, WIDE = 13, 20  # the widest circuits of the first two goals
GOALS = ("narrow_of_best", "wide_of_best", "wider_of_best")
LEFT_OUT = ("qulacs f64", "qulacs f64 fused 4")
VARIANTS = (
    *(Variant(f"path {bits}", Environment, (name,)) for bits, name in PRECISIONS),
    *(each for each in LIBRARIES if not each.threads and each.name not in LEFT_OUT),
)
OPTIONS = (
    Option("--qubits", default="10,12,13,14,16,18,20,22", quick="10,13,16"),
    Option("--circuits", default=8, quick=3),
    rounds(5, quick=3),
    THREADS,
    SEED,
)


class NativeCircuit(NamedTuple):
    """A transpiled circuit: its origin as text, and its gates."""

    title: str
    num_qubits: int
    gates: list[Gate]


def run(options: Namespace) -> Report:
    label = f"{options.threads} threads, seed {options.seed}, ms"
    report = Report("native_basis", f"transpiled circuits: {label}")
    with Peers(VARIANTS, options.threads) as peers:
        for width in map(int, options.qubits.split(",")):
            # Loading that happens once in a process is not timed.
            _measure(peers, native_circuit(width, options.seed - 1), options.rounds)
            ratios: Times = defaultdict(list)
            for number in range(options.circuits):
                circuit = native_circuit(width, options.seed + number)
                times = _measure(peers, circuit, options.rounds)
                for name, ratio in _ratios(circuit, times).items():
                    ratios[name].append(ratio)
            goal = GOALS[0 if width <= NARROW else 1 if width <= WIDE else 2]
            for name, each in ratios.items():
                where = f"{width} qubits {name}, of the best peer (worst {max(each):.2f})"
                report.at_most(goal, statistics.median(each), where)
            for precision, _ in PRECISIONS:
                if not any(precision in name for name in ratios):
                    report.not_measured(goal, f"{width} qubits {precision}", "no peer ran")
        for library in peers.missing:
            report.not_measured(GOALS[0], library, f"type {INSTALL_COMMAND}; it may be the fastest")
    return report


def _measure(peers: Peers, circuit: NativeCircuit, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of each peer's first run of a circuit, and the median of its next runs."""
    entries: dict[str, tuple[float, float]] = {}
    means: dict[str, Any] = {}
    for peer in peers.prepared(circuit.num_qubits, [circuit.gates]):
        first = peer.times(1, CAP_S)
        number = rounds if first and first[0] < 1.0 else 1
        again = peer.times(number, CAP_S * number)
        if first and again:
            means[peer.name] = peer.correlations()
            entries[peer.name] = first[0], statistics.median(again)
    assert_same_circuit(means)
    return entries


def _ratios(circuit: NativeCircuit, times: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return the ratios of our times to the best variant of each precision; print the times."""
    ratios: dict[str, float] = {}
    cells = []
    for precision, _ in PRECISIONS:
        path = f"path {precision}"
        peers = {name: each for name, each in times.items() if precision in name and name != path}
        for column, turn in enumerate(("first", "again")):
            if peers and path in times:
                theirs, best = min((each[column], name) for name, each in peers.items())
                ours = times[path][column]
                ratios[f"{path} {turn}"] = ours / theirs
                cells.append(f"{path} {turn} {1e3 * ours:.2f}, {best} {1e3 * theirs:.2f}")
    print(f"{circuit.title}, {len(circuit.gates)} gates: {', '.join(cells)}", flush=True)
    return ratios


def native_circuit(num_qubits: int, seed: int) -> NativeCircuit:
    """Return a transpiled circuit; the seed determines kind, basis, level and number of gates."""
    random = np.random.default_rng(seed)
    basis = list(BASES)[int(random.integers(len(BASES)))]
    kind = KINDS[int(random.integers(len(KINDS)))]
    level = int(random.choice(LEVELS))
    wanted = int(random.integers(*GATES))
    names, is_line = BASES[basis]
    gates: list[Gate] = []
    while len(gates) < wanted:
        if kind in CIRCUITS:
            source = wide_circuit(kind, num_qubits, int(random.integers(2**31)))
        else:
            source = _random_gates(num_qubits, random)
        result = transpile(
            built(num_qubits, source),
            basis_gates=names,
            coupling_map=CouplingMap.from_line(num_qubits) if is_line else None,
            optimization_level=level,
            seed_transpiler=seed,
        )
        places = {bit: place for place, bit in enumerate(result.qubits)}
        for each in result.data:
            name, turns = each.operation.name, each.operation.params
            if name != "barrier":
                on = tuple(places[bit] for bit in each.qubits)
                gates.append((name, on, tuple(map(float, turns))))
    title = f"{num_qubits} qubits {kind} {basis} {level}"
    return NativeCircuit(title, num_qubits, gates[: GATES[1]])


def _random_gates(num_qubits: int, random: Random) -> list[Gate]:
    """Return layers of random gates on one qubit and on random pairs."""
    results: list[Gate] = []
    for _ in range(6):
        for table, size in ((_LAYER_GATES, 1), (_PAIR_GATES, 2)):
            order = random.permutation(num_qubits).tolist()
            for first in range(0, num_qubits - size + 1, size):
                name = list(table)[int(random.integers(len(table)))]
                angles = random.uniform(-np.pi, np.pi, table[name]).tolist()
                results.append((name, tuple(order[first : first + size]), tuple(angles)))
    return results
