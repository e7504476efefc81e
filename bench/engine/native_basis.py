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
from typing import Any

from bench.harness import INSTALL_COMMAND, SEED, THREADS, Option, Report, Times, rounds
from bench.harness.comparison import Peers, Variant, assert_same_circuit
from bench.native_circuits import NativeCircuit, native_circuit
from bench.peers.libraries import LIBRARIES, PRECISIONS
from bench.peers.simenv_engine import Environment

GATES = 300, 3_000
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


def run(options: Namespace) -> Report:
    label = f"{options.threads} threads, seed {options.seed}, ms"
    report = Report("native_basis", f"transpiled circuits: {label}")
    with Peers(VARIANTS, options.threads) as peers:
        for width in map(int, options.qubits.split(",")):
            # Loading that happens once in a process is not timed.
            _measure(peers, native_circuit(width, options.seed - 1, *GATES), options.rounds)
            ratios: Times = defaultdict(list)
            for number in range(options.circuits):
                circuit = native_circuit(width, options.seed + number, *GATES)
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
    what = f"{circuit.num_qubits} qubits {circuit.kind} {circuit.basis} {circuit.level}"
    print(f"{what}, {len(circuit.gates)} gates: {', '.join(cells)}", flush=True)
    return ratios
