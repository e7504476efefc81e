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
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections import defaultdict
from typing import Any

import numpy as np

from bench.circuits import CIRCUITS, wide_circuit
from bench.harness import CPU, SEED, THREADS, Option, Report, Times, rounds
from bench.harness.comparison import Peers, Variant, assert_same_circuit
from bench.harness.isolated import IsolatedPeer
from bench.harness.timing import Bandwidth
from bench.peers.libraries import LIBRARIES
from bench.peers.simenv_engine import WorkerTask

SMALL = 10  # qubits: up to this width many calls of many circuits are timed
SMALL_CIRCUITS, SMALL_CALLS = 8, 64
ONCE = 24  # qubits from which only one round is run
CAP_S, BUDGET_S = 300.0, 30.0  # of one run; of a library and circuit
LONG_S = 5.0  # a library's first run that takes longer is timed: loading is no part that counts
AUTO = "ours stabilizer"  # the engine that `auto` chooses for wide Clifford circuits
CLIFFORD = ("ghz",)
SWEPT = ("qft", "ansatz")  # circuits whose sweeps are compared with the memory's speed
VARIANTS = (
    Variant("ours f64", WorkerTask, ("double",)),
    Variant("ours f32", WorkerTask, ("single",)),
    Variant(AUTO, WorkerTask, ("double", "stabilizer")),
    *(each for each in LIBRARIES if each.name != "qulacs f64 fused 2"),
)
OPTIONS = (
    Option("--qubits", default="10,16,20,24", quick="10,16,20"),
    Option("--circuits", default=",".join(CIRCUITS)),
    Option("--without", default="", help="libraries to leave out: qulacs,lightning"),
    rounds(5, quick=3),
    THREADS,
    CPU,
    SEED,
)


def run(options: Namespace) -> Report:
    if options.cpu:
        options.threads = 1
    threads, clock = options.threads, "CPU s" if options.cpu else "s"
    what = f"{threads} threads, seed {options.seed}, medians of {options.rounds}, {clock}"
    report = Report("wide", f"engines: {what}")
    variants = [each for each in VARIANTS if threads > 1 or not each.threads]
    with (
        Peers(variants, threads, options.without.split(",")) as peers,
        Peers([Variant("memory", Bandwidth)], threads) as memories,
    ):
        (memory,) = memories
        for width in map(int, options.qubits.split(",")):
            for name in options.circuits.split(","):
                times, speeds = _case(peers, memory, name, width, options)
                best = _print_medians(name, width, times)
                _report_ratios(report, name, width, best)
                if name in SWEPT and width == ONCE:
                    _report_sweeps(report, peers, name, width, best, statistics.median(speeds))
    return report


def _case(
    peers: Peers, memory: IsolatedPeer, name: str, width: int, options: Namespace
) -> tuple[Times, list[float]]:
    """Return the seconds of each variant in each round, and the memory's bytes per second."""
    small = width <= SMALL
    calls = SMALL_CALLS if small else 1
    times: Times = defaultdict(list)
    speeds: list[float] = []
    chosen = [each for each in peers if each.name != AUTO or (name in CLIFFORD and not small)]
    for turn in range(1 if width >= ONCE else options.rounds):
        seeds = [options.seed + 1_000 * turn + k for k in range(SMALL_CIRCUITS if small else 1)]
        circuits = [wide_circuit(name, width, seed) for seed in seeds]
        means: dict[str, Any] = {}
        for peer in chosen:
            ours = peer.name.startswith("ours")
            if not ours and sum(times.get(peer.name, ())) > BUDGET_S:
                continue
            if not peer.prepare(width, circuits):
                continue
            first = [] if turn else peer.times(1, CAP_S, cpu=options.cpu)  # load and allocate
            long = not ours and first and first[0] > LONG_S
            result = first if long else peer.times(calls, CAP_S, cpu=options.cpu)
            if not result:
                continue
            times[peer.name].append(statistics.median(result))
            if ours:
                planned = peer.times(calls, CAP_S, "run_planned", cpu=options.cpu)
                times[f"{peer.name} planned"].append(statistics.median(planned))
            if not turn:
                means[peer.name] = peer.correlations()
        if not turn:
            assert_same_circuit(means)
            fastest: dict[str, IsolatedPeer] = {}  # variant of each library and precision
            tried = [peer for peer in peers if peer.name in times]
            for each in sorted(tried, key=lambda peer: times[peer.name]):
                fastest.setdefault(_kind(each.name), each)
            chosen = [peer for peer in chosen if peer in fastest.values()]
        speeds.append(memory.call("bytes_per_second", options.cpu))
    return times, speeds


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
        times = [best[peer]] if peer in best else []
        report.share(goal, ours, times, f"{where}, of {peer}", "nothing of it ran to its end")

    if width <= SMALL:
        compare_with("aer_small", double, "aer f64")
        compare_with("qulacs_small", double, "qulacs f64")
    elif width == 16:
        for precision, ours in (("f64", double), ("f32", single)):
            peers = {k: v for k, v in best.items() if k.endswith(precision) and "ours" not in k}
            compare_with("best_16", ours, min(peers, key=peers.__getitem__, default=precision))
    elif width in (20, 24):
        compare_with(f"aer_{width}", double, "aer f64")
        compare_with(f"qsim_{width}", single, "qsim f32")
        if width == 24:
            compare_with("qsim_qft_double" if name == "qft" else "qsim_double", double, "qsim f32")


def _report_sweeps(
    report: Report, peers: Peers, name: str, width: int, best: dict[str, float], speed: float
) -> None:
    """Report the bytes of our sweeps relative to the bytes that memory moves in the same time."""
    for peer in peers:
        if peer.name.startswith("ours f") and (swept := peer.call("swept")) is not None:
            number, moved = swept
            share = 100 * moved / speed / best[f"{peer.name} planned"]
            what = f"{width} qubits {name} {peer.name}"
            moved_text = f"{number} passes, {moved / 2**30:.2f} GiB"
            print(f"{what}: {moved_text}; memory {speed / 1e9:.1f} GB/s")
            report.at_least("sweep_percent", share, f"{what}, % of memory")
