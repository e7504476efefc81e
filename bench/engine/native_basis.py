"""Circuits in native bases of devices: first run and later runs, compared with four libraries.

Qiskit's transpiler made the circuits of 300 to 3,000 gates, at levels 0 to 3, for superconducting
qubits (rz, sx, x with cz or ecr, neighbours in a line) or trapped ions (r or rx, ry, rz with rzz or
rxx); they run with 1,024 shots. Ours is the whole path through a running environment, from a
QuantumCircuit to the dict of counts: the first run of a circuit, compared with first runs of the
libraries, and the median of later runs, compared with theirs. The engine alone is timed too: a
worker's task, its plan made while the clock runs. The libraries' circuits are converted before the
clock starts, and optimised where the library has an optimizer; Aer reads the QuantumCircuit in each
run. The fastest variant on each circuit counts. Figures are medians of the ratios over all circuits
of a width; the worst ratio is printed too. Two more lines, without a goal, compare our first run
with the libraries' later runs, and with the fastest variant when its conversion from a list of
gates is timed too.

    python -m bench run native_basis [--qubits 10,13,16,20,22] [--circuits 8] [--cpu]

`--cpu`: CPU seconds of one thread each, and the engine alone: for busy machines.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections import defaultdict
from typing import Any

from bench.harness import CPU, INSTALL_COMMAND, SEED, THREADS, Option, Report, Times, rounds
from bench.harness.comparison import Peers, Variant, assert_same_circuit
from bench.native_circuits import NativeCircuit, native_circuit
from bench.peers.libraries import LIBRARIES, PRECISIONS
from bench.peers.simenv_engine import Environment, WorkerTask

NARROW, WIDE = 13, 20  # the widest circuits of the first two goals
GOALS = ("narrow_of_best", "wide_of_best", "wider_of_best")
CONVERTED = " converted"  # seconds of a conversion and one run
FIRST_RUN = " first run"  # seconds of a library's first run
REPEATED = (CONVERTED, FIRST_RUN)
LATER = " of later runs"  # our first run, compared with later runs of the libraries
_REMARKS = {CONVERTED: ", its conversion timed", LATER: "'s later runs"}
VARIANTS = (
    *(Variant(f"engine {bits}", WorkerTask, (name,)) for bits, name in PRECISIONS),
    *(Variant(f"path {bits}", Environment, (name,)) for bits, name in PRECISIONS),
    *(
        each
        for each in LIBRARIES
        if not each.threads and each.name not in ("qulacs f64", "qulacs f64 fused 4")
    ),
)
OPTIONS = (
    Option("--qubits", default="10,12,13,14,16,18,20,22", quick="10,13,16"),
    Option("--circuits", type=int, default=8, quick=3),
    Option("--gates", default="300,3000", help="least and most gates"),
    rounds(5, quick=3),
    THREADS,
    Option("--without", default="", help="libraries to leave out: aer,lightning"),
    CPU,
    SEED,
    Option("--cap", type=float, default=60.0, help="seconds of one run"),
)


def run(options: Namespace) -> Report:
    if options.cpu:
        options.threads = 1
    label = f"{options.threads} threads, seed {options.seed}, {'CPU ' if options.cpu else ''}ms"
    report = Report("native_basis", f"transpiled circuits: {label}")
    bounds = tuple(map(int, options.gates.split(",")))
    left_out = options.without.split(",") + (["path"] if options.cpu else [])
    with Peers(VARIANTS, options.threads, left_out) as peers:
        for width in map(int, options.qubits.split(",")):
            # Loading that happens once in a process is not timed.
            _measure(peers, native_circuit(width, options.seed - 1, *bounds), options)
            ratios: Times = defaultdict(list)
            for number in range(options.circuits):
                circuit = native_circuit(width, options.seed + number, *bounds)
                for name, ratio in _ratios(circuit, _measure(peers, circuit, options)).items():
                    ratios[name].append(ratio)
            _report_ratios(report, width, ratios, "engine" if options.cpu else "path")
        for library in peers.missing:
            report.not_measured(GOALS[0], library, f"type {INSTALL_COMMAND}; it may be the fastest")
    return report


def _measure(peers: Peers, circuit: NativeCircuit, options: Namespace) -> dict[str, float]:
    """Return the seconds of each peer on one circuit; of ours by names as "path f64 first"."""
    entries: dict[str, float] = {}
    means: dict[str, Any] = {}
    for peer in peers:
        if not peer.prepare(circuit.num_qubits, [circuit.gates]):
            continue
        first = peer.times(1, options.cap, cpu=options.cpu)
        is_engine = peer.name.startswith("engine")
        method = "run_planned" if is_engine else "run"
        number = options.rounds if first and first[0] < 1.0 else 1
        again = peer.times(number, options.cap * number, method, cpu=options.cpu)
        if not first or not again:
            continue
        means[peer.name] = peer.correlations()
        if is_engine:  # the first call may load kernels; `run` plans in each call
            first = peer.times(number, options.cap * number, cpu=options.cpu)
        once = statistics.median(again)
        if is_engine or peer.name.startswith("path"):
            entries[f"{peer.name} first"] = statistics.median(first)
            entries[f"{peer.name} again"] = once
            continue
        entries[peer.name], entries[peer.name + FIRST_RUN] = once, first[0]
        if peer.name.startswith("qsim"):  # it converts a circuit in its first run
            once = 0.0
        unread = peer.name.startswith("aer")  # what is prepared is the QuantumCircuit
        entries[peer.name + CONVERTED] = once + (0.0 if unread else peer.prepared_s)
    assert_same_circuit(means)
    return entries


def _ratios(circuit: NativeCircuit, times: dict[str, float]) -> dict[str, float]:
    """Return the ratios of our times to the best variant of each precision; print the times."""
    ratios: dict[str, float] = {}
    cells = []
    for precision, _ in PRECISIONS:
        match = {k: v for k, v in times.items() if precision in k}
        table = {k: v for k, v in match.items() if k.endswith(("first", "again"))}
        firsts = [v for k, v in match.items() if k.endswith(FIRST_RUN)]
        converted = [v for k, v in match.items() if k.endswith(CONVERTED)]
        peers = {k: v for k, v in match.items() if k not in table and not k.endswith(REPEATED)}
        cells += [f"{name} {1e3 * seconds:.2f}" for name, seconds in table.items()]
        if not peers:
            continue
        best = min(peers, key=peers.__getitem__)
        cells.append(f"{best} {1e3 * peers[best]:.2f}")
        ratios |= {name: seconds / peers[best] for name, seconds in table.items()}
        path = f"path {precision} first"
        if path in table:
            ratios[path + LATER] = ratios[path]
            ratios[path] = table[path] / min(firsts)
            ratios[path + CONVERTED] = table[path] / min(converted)
    what = f"{circuit.num_qubits} qubits {circuit.kind} {circuit.basis} {circuit.level}"
    print(f"{what}, {len(circuit.gates)} gates: {', '.join(cells)}", flush=True)
    return ratios


def _report_ratios(report: Report, width: int, ratios: Times, judged: str) -> None:
    """Report the medians; `judged`: the part of simenv that has the goals."""
    goal = GOALS[0 if width <= NARROW else 1 if width <= WIDE else 2]
    for name, each in ratios.items():
        what = name.removesuffix(CONVERTED).removesuffix(LATER)
        peer = "the best peer" + _REMARKS.get(name.removeprefix(what), "")
        where = f"{width} qubits {what}, of {peer} (worst {max(each):.2f})"
        if name.startswith(judged) and what == name:
            report.at_most(goal, statistics.median(each), where)
        else:
            print(f"       {where}: {statistics.median(each):.3g}")
    for precision, _ in PRECISIONS:
        if not any(precision in name for name in ratios):
            report.not_measured(goal, f"{width} qubits {precision}", "no peer ran")
