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

import os
import statistics
import time
from argparse import Namespace
from typing import Any

import numpy as np

from bench.harness.comparison import Variant, assert_same_circuit, start_peers
from bench.harness.isolated import IsolatedPeer
from bench.harness.options import Option
from bench.harness.report import INSTALL_COMMAND, Report
from bench.native_circuits import NativeCircuit, native_circuit
from bench.peers.aer import Aer
from bench.peers.lightning import Lightning
from bench.peers.qsim import Qsim
from bench.peers.qulacs import Qulacs
from bench.peers.simenv_engine import Environment, WorkerTask

NAMES = (("f64", "double"), ("f32", "single"))
PRECISIONS = ("f64", "f32")
NARROW, WIDE = 13, 20  # the widest circuits of the first two goals
GOALS = ("narrow_of_best", "wide_of_best", "wider_of_best")
CONVERTED = " converted"  # seconds of a conversion and one run
FIRST_RUN = " first run"  # seconds of a library's first run
LATER = " of later runs"  # our first run, compared with later runs of the libraries
_REMARKS = {CONVERTED: ", its conversion timed", LATER: "'s later runs"}
Times = dict[str, float]  # seconds by variant; ours: "path f64 first"
VARIANTS = (
    *(Variant(f"engine {bits}", WorkerTask, (name,)) for bits, name in NAMES),
    *(Variant(f"path {bits}", Environment, (name,)) for bits, name in NAMES),
    Variant("aer f64", Aer),
    Variant("qulacs f64 light", Qulacs, (1,)),
    *(Variant(f"qulacs f64 fused {width}", Qulacs, (width,)) for width in (2, 3)),
    *(Variant(f"lightning {bits}", Lightning, (name,)) for bits, name in NAMES),
    *(Variant(f"qsim f32 fused {width}", Qsim, (width,)) for width in (2, 3, 4)),
)
OPTIONS = (
    Option("--qubits", default="10,12,13,14,16,18,20,22", quick="10,13,16"),
    Option("--circuits", type=int, default=8, quick=3),
    Option("--gates", default="300,3000", help="least and most gates"),
    Option("--rounds", type=int, default=5, quick=3),
    Option("--threads", type=int, default=os.cpu_count() or 1),
    Option("--without", default="", help="libraries to leave out: aer,lightning"),
    Option("--cpu", action="store_true"),
    Option("--seed", type=int, default=time.time_ns() & 4294967295),
    Option("--cap", type=float, default=60.0, help="seconds of one run"),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    if options.cpu:
        options.threads = 1
    label = f"{options.threads} threads, seed {options.seed}, {'CPU ' if options.cpu else ''}ms"
    report = Report("native_basis", f"transpiled circuits: {label}")
    min_gates, max_gates = map(int, options.gates.split(","))
    left_out = options.without.split(",") + (["path"] if options.cpu else [])
    peers, missing = start_peers(VARIANTS, options.threads, left_out)
    try:
        for width in map(int, options.qubits.split(",")):
            # Loading that happens once in a process is not timed.
            _measure(peers, native_circuit(width, options.seed - 1, min_gates, max_gates), options)
            ratios: dict[str, list[float]] = {}
            for number in range(options.circuits):
                circuit = native_circuit(width, options.seed + number, min_gates, max_gates)
                result = _measure(peers, circuit, options)
                for name, ratio in _ratios(circuit, result).items():
                    ratios.setdefault(name, []).append(ratio)
            _report_ratios(report, width, ratios, path=not options.cpu)
        for library in missing:
            report.not_measured(GOALS[0], library, f"type {INSTALL_COMMAND}; it may be the fastest")
    finally:
        for peer in peers:
            peer.close()
    return report


def _measure(peers: list[IsolatedPeer], circuit: NativeCircuit, options: Namespace) -> Times:
    """Return the seconds of each peer on one circuit."""
    entries: Times = {}
    means: dict[str, Any] = {}
    for peer in peers:
        if peer.problem or not peer.prepare(circuit.num_qubits, [circuit.gates]):
            continue
        first = peer.times(1, options.cap, cpu=options.cpu)
        is_engine = peer.name.startswith("engine")
        method = "run_planned" if is_engine else "run"
        rounds = options.rounds if first and first[0] < 1.0 else 1
        again = peer.times(rounds, options.cap * rounds, method, cpu=options.cpu)
        if not first or not again:
            print(f"left out from here: {peer.name}: {peer.problem}")
            continue
        means[peer.name] = np.array(peer.correlations())
        if is_engine:  # the first call may load kernels; `run` plans in each call
            first = peer.times(rounds, options.cap * rounds, cpu=options.cpu)
        if is_engine or peer.name.startswith("path"):
            entries[f"{peer.name} first"] = statistics.median(first)
            entries[f"{peer.name} again"] = statistics.median(again)
        else:
            entries[peer.name] = once = statistics.median(again)
            entries[peer.name + FIRST_RUN] = first[0]
            if peer.name.startswith("qsim"):  # it converts a circuit in its first run
                once = 0.0
            unread = peer.name.startswith("aer")  # what is prepared is the QuantumCircuit
            entries[peer.name + CONVERTED] = once + (0.0 if unread else peer.prepared_s)
    assert_same_circuit(means)
    return entries


def _ratios(circuit: NativeCircuit, times: Times) -> Times:
    """Return the ratios of our times to the best variant of each precision; print the times."""
    ratios: Times = {}
    cells = []
    for precision in PRECISIONS:
        table = {
            k: v for k, v in times.items() if precision in k and k.endswith(("first", "again"))
        }
        others = {k: v for k, v in times.items() if precision in k and k not in table}
        peers = {k: v for k, v in others.items() if not k.endswith((CONVERTED, FIRST_RUN))}
        cells += [f"{name} {1e3 * seconds:.2f}" for name, seconds in table.items()]
        if not peers:
            continue
        best = min(peers, key=lambda name: peers[name])
        cells.append(f"{best} {1e3 * peers[best]:.2f}")
        ratios.update({name: seconds / peers[best] for name, seconds in table.items()})
        path = f"path {precision} first"
        if path in table:
            ratios[path + LATER] = ratios[path]
            ratios[path] = table[path] / min(v for k, v in others.items() if k.endswith(FIRST_RUN))
            converted = min(v for k, v in others.items() if k.endswith(CONVERTED))
            ratios[path + CONVERTED] = table[path] / converted
    what = f"{circuit.num_qubits} qubits {circuit.kind} {circuit.basis} {circuit.level}"
    print(f"{what}, {len(circuit.gates)} gates: {', '.join(cells)}", flush=True)
    return ratios


def _report_ratios(
    report: Report, width: int, ratios: dict[str, list[float]], *, path: bool
) -> None:
    goal = GOALS[0 if width <= NARROW else 1 if width <= WIDE else 2]
    label = "path" if path else "engine"
    for name, each in ratios.items():
        median, worst = statistics.median(each), max(each)
        what = name.removesuffix(CONVERTED).removesuffix(LATER)
        peer = "the best peer" + _REMARKS.get(name.removeprefix(what), "")
        where = f"{width} qubits {what}, of {peer} (worst {worst:.2f})"
        if name.startswith(label) and what == name:
            report.at_most(goal, median, where)
        else:
            print(f"       {where}: {median:.3g}")
    for precision in PRECISIONS:
        if not any(precision in name for name in ratios):
            report.not_measured(goal, f"{width} qubits {precision}", "no peer ran")
