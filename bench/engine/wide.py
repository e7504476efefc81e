"""Wide circuits on one machine: the statevector engine, Aer, qulacs, Lightning and qsim.

Six kinds of circuits run with 1,024 shots. Ours is a worker's task: packed Program in, packed
counts out, the structure seen for the first time (its plan is made while the clock runs); the
libraries' circuits are converted before the clock starts. Each runs in a process of its own with
all threads. The first round tries all variants of a library (degree of fusion, number of threads);
later rounds use the best one. All circuits of a round have the same new seed; times are medians. A
library that has used up its budget of seconds on a circuit has fewer rounds; a run beyond the cap
is ended. Memory is read and written in the same rounds: no sweep of the state can be faster.

On a busy machine compare CPU seconds of one thread each (--cpu), since the wall time of several
threads depends on other processes.

    python -m bench run wide [--cpu] [--threads 2] [--qubits 16,24] [--circuits qft]
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace
from typing import Any

import numpy as np

from bench.circuits import CIRCUITS, wide_circuit
from bench.harness.comparison import Variant, assert_same_circuit, start_peers
from bench.harness.isolated import IsolatedPeer
from bench.harness.options import Option
from bench.harness.report import Report
from bench.harness.timing import Bandwidth
from bench.peers.aer import Aer
from bench.peers.lightning import Lightning
from bench.peers.qsim import Qsim
from bench.peers.qulacs import Qulacs
from bench.peers.simenv_engine import WorkerTask

SMALL = 10  # qubits: up to this width many calls of many circuits are timed
SMALL_CIRCUITS, SMALL_CALLS = 8, 64
ONCE = 26  # qubits from which only one round is run
AUTO = "ours stabilizer"  # the engine that `auto` chooses for wide Clifford circuits
CLIFFORD = ("ghz",)
SWEPT = ("qft", "ansatz")  # circuits whose sweeps are compared with the memory's speed
Times = dict[str, list[float]]
OPTIONS = (
    Option("--qubits", default="10,16,20,24,26", quick="10,16,20"),
    Option("--circuits", default=",".join(CIRCUITS)),
    Option("--without", default="", help="libraries to leave out: qulacs,lightning"),
    Option("--rounds", type=int, default=5, quick=3),
    Option("--threads", type=int, default=os.cpu_count() or 1),
    Option("--cpu", action="store_true", help="CPU seconds of one thread each"),
    Option("--seed", type=int, default=time.time_ns() & 4294967295),
    Option("--cap", type=float, default=300.0, help="seconds of one run"),
    Option("--budget", type=float, default=60.0, help="seconds a library and circuit"),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    if options.cpu:
        options.threads = 1
    rounds = options.rounds
    clock = "CPU s" if options.cpu else "s"
    what = f"engines: {options.threads} threads, seed {options.seed}, medians of {rounds}, {clock}"
    report = Report("wide", what)
    variants = _variants(options.threads)
    peers, _ = start_peers(variants, options.threads, options.without.split(","))
    memory = IsolatedPeer("memory", Bandwidth, threads=options.threads)
    try:
        for width in map(int, options.qubits.split(",")):
            for name in options.circuits.split(","):
                num_rounds = 1 if width >= ONCE else rounds
                result, speeds = _case(peers, memory, name, width, num_rounds, options)
                best = _print_medians(name, width, result)
                _report_ratios(report, name, width, best)
                if name in SWEPT and width in (24, ONCE):
                    _report_sweeps(report, peers, name, width, best, statistics.median(speeds))
    finally:
        for each in (*peers, memory):
            each.close()
    return report


def _variants(threads: int) -> list[Variant]:
    results = [
        Variant("ours f64", WorkerTask, ("double",)),
        Variant("ours f32", WorkerTask, ("single",)),
        Variant(AUTO, WorkerTask, ("double", "stabilizer")),
        Variant("aer f64", Aer),
        Variant("aer f64 1 thread", Aer, threads=1),
        Variant("qulacs f64", Qulacs, (0,)),
        Variant("qulacs f64 1 thread", Qulacs, (0,), 1),
        Variant("qulacs f64 light", Qulacs, (1,)),
        *(Variant(f"qulacs f64 fused {width}", Qulacs, (width,)) for width in (3, 4)),
        Variant("lightning f64", Lightning, ("double",)),
        Variant("lightning f32", Lightning, ("single",)),
        *(Variant(f"qsim f32 fused {width}", Qsim, (width,)) for width in (2, 3, 4)),
        *(Variant(f"qsim f32 fused {width}, 1 thread", Qsim, (width,), 1) for width in (3, 4)),
    ]
    return [each for each in results if threads > 1 or not each.threads]


def _case(
    peers: list[IsolatedPeer],
    memory: IsolatedPeer,
    name: str,
    width: int,
    rounds: int,
    options: Any,
) -> tuple[Times, list[float]]:
    """Return the seconds of each variant in each round, and the memory's bytes per second."""
    small = width <= SMALL
    times: Times = {}
    speeds: list[float] = []
    chosen = peers
    for turn in range(rounds):
        seeds = [options.seed + 1_000 * turn + k for k in range(SMALL_CIRCUITS if small else 1)]
        circuits = [wide_circuit(name, width, seed) for seed in seeds]
        means: dict[str, Any] = {}
        for peer in chosen:
            spent = sum(times.get(peer.name, ()))
            if peer.problem or (not peer.name.startswith("ours") and spent > options.budget):
                continue
            if peer.name == AUTO and (small or name not in CLIFFORD):
                continue
            if not peer.prepare(width, circuits):
                _print_problem(peer)
                continue
            if not turn:
                peer.times(1, options.cap)  # load and allocate
            result = peer.times(SMALL_CALLS if small else 1, options.cap, cpu=options.cpu)
            if not result:
                _print_problem(peer)
                continue
            times.setdefault(peer.name, []).append(statistics.median(result))
            if peer.name.startswith("ours"):
                outcome = peer.times(
                    SMALL_CALLS if small else 1, options.cap, "run_planned", cpu=options.cpu
                )
                times.setdefault(f"{peer.name} planned", []).append(statistics.median(outcome))
            if not turn:
                means[peer.name] = peer.correlations()
        if not turn:
            assert_same_circuit(means)
            chosen = _fastest(peers, times)
        speeds.append(memory.call("bytes_per_second", options.cpu))
    return times, speeds


def _fastest(peers: list[IsolatedPeer], times: Times) -> list[IsolatedPeer]:
    """Return the fastest variant so far of each library and precision."""
    best: dict[str, IsolatedPeer] = {}
    for peer in peers:
        if peer.name in times:
            kind = _kind(peer.name)
            if kind not in best or times[peer.name] < times[best[kind].name]:
                best[kind] = peer
    return list(best.values())


def _kind(name: str) -> str:
    """Return library and precision, such as "qsim f32"."""
    return " ".join(name.split()[:2])


def _print_medians(name: str, width: int, times: Times) -> dict[str, float]:
    """Print and return the medians of our variants and of each library's best one."""
    best: dict[str, float] = {}
    cells: dict[str, str] = {}
    for peer, result in sorted(times.items()):
        median = statistics.median(result)
        kind = peer if peer.startswith("ours") else _kind(peer)
        if median <= best.get(kind, np.inf):
            best[kind] = median
            cells[kind] = f"{peer} {1e3 * median:.3g} ({len(result)})"
    print(f"{width} qubits {name}, ms (rounds): {', '.join(cells.values())}", flush=True)
    return best


def _report_ratios(report: Report, name: str, width: int, best: dict[str, float]) -> None:
    """Report all goals of this width."""
    where = f"{width} qubits {name}"
    double, single = best["ours f64"], best["ours f32"]
    if AUTO in best:
        where = f"{where} (by the stabilizer engine, as auto has it)"
        double = single = best[AUTO]

    def compare_with(goal: str, ours: float, peer: str) -> None:
        if peer in best:
            report.at_most(goal, ours / best[peer], f"{where}, of {peer}")
        else:
            report.not_measured(goal, f"{where}, of {peer}", "nothing of it ran to its end")

    if width <= SMALL:
        compare_with("aer_small", double, "aer f64")
        compare_with("qulacs_small", double, "qulacs f64")
    elif width == 16:
        for precision, ours in (("f64", double), ("f32", single)):
            peers = {k: v for k, v in best.items() if k.endswith(precision) and "ours" not in k}
            compare_with(
                "best_16", ours, min(peers, key=lambda each: peers[each], default=precision)
            )
    elif width in (20, 24):
        compare_with(f"aer_{width}", double, "aer f64")
        compare_with(f"qsim_{width}", single, "qsim f32")
        if width == 24:
            compare_with("qsim_qft_double" if name == "qft" else "qsim_double", double, "qsim f32")


def _report_sweeps(
    report: Report, peers: list[IsolatedPeer], name: str, width: int, best: Any, speed: float
) -> None:
    """Report the bytes of our sweeps relative to the bytes that memory moves in the same time."""
    for peer in peers:
        if not peer.name.startswith("ours f") or peer.problem:
            continue
        result = peer.call("swept")
        if result is None:
            _print_problem(peer)
            continue
        number, moved = result
        share = 100 * moved / speed / best[f"{peer.name} planned"]
        label = f"{number} passes, {moved / 2**30:.2f} GiB; memory {speed / 1e9:.1f} GB/s"
        print(f"{width} qubits {name} {peer.name}: {label}")
        report.at_least("sweep_percent", share, f"{width} qubits {name} {peer.name}, % of memory")


def _print_problem(peer: IsolatedPeer) -> None:
    print(f"left out from here: {peer.name}: {peer.problem}")
