"""Random two-qubit unitaries on all pairs: the whole path, compared with qulacs and qsim.

A circuit consists of layers of random pairings with a random matrix on each pair; it runs with
1,024 shots in single precision on all threads. Ours is the whole path of a new structure through a
running environment: from a QuantumCircuit to the dict of counts. The libraries begin with the same
matrices: they build their own circuit, run it and return a dict of counts. All take turns, with new
circuits in each round; times are medians. qulacs has double precision only; for qsim the better of
fusing 2 and 3 qubits counts.

    python -m bench run random_unitaries [--rounds 7] [--qubits 14,18,20] [--layers 12] [--cpu]

`--cpu`: CPU seconds of one thread each, and of ours the worker's task alone: for busy machines.
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace
from typing import Any

import numpy as np
from scipy.stats import unitary_group

from bench.harness.comparison import Variant, assert_same_circuit, start_peers
from bench.harness.options import Option
from bench.harness.report import Report
from bench.peers.qsim import QsimUnitaries
from bench.peers.qulacs import QulacsUnitaries
from bench.peers.simenv_engine import UnitaryEnvironment, UnitaryTask

Pair = tuple[tuple[int, int], Any]
OPTIONS = (
    Option("--rounds", type=int, default=7, quick=2),
    Option("--qubits", default="14,18,20", quick="14"),
    Option("--layers", type=int, default=12),
    Option("--threads", type=int, default=os.cpu_count() or 1),
    Option("--cpu", action="store_true"),
    Option("--seed", type=int, default=time.time_ns() & 4294967295),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    if options.cpu:
        options.threads = 1
    title = f"random pairs: {options.layers} layers, {options.threads} threads, seed {options.seed}"
    report = Report("random_unitaries", f"{title}, ms")
    ours = UnitaryTask if options.cpu else UnitaryEnvironment
    variants = (
        Variant("ours", ours),
        Variant("qulacs", QulacsUnitaries),
        *(Variant(f"qsim {width}", QsimUnitaries, (width,)) for width in (2, 3)),
    )
    peers, _ = start_peers(variants, options.threads)
    for num_qubits in map(int, options.qubits.split(",")):
        times: dict[str, list[float]] = {}
        for turn in range(options.rounds + 1):
            circuit = random_pairs(num_qubits, options.layers, options.seed + turn)
            means: dict[str, Any] = {}
            for peer in peers:
                if peer.problem or not peer.prepare(num_qubits, [circuit]):
                    continue
                result = peer.times(1, 300.0, cpu=options.cpu)
                if turn:  # turn 0 loads kernels
                    times.setdefault(peer.name, []).extend(result)
                else:
                    means[peer.name] = np.array(peer.correlations())
            if means:
                assert_same_circuit(means)
        medians = {name: 1e3 * statistics.median(each) for name, each in times.items()}
        text = ", ".join(f"{name} {each:.1f}" for name, each in medians.items())
        print(f"{num_qubits} qubits: {text}")
        peer_ms = [each for name, each in medians.items() if name != "ours"]
        label = f"{num_qubits} qubits, of the best peer"
        if peer_ms:
            report.at_most("of_best", medians["ours"] / min(peer_ms), label)
        else:
            report.not_measured("of_best", label, "no peer ran")
    for peer in peers:
        peer.close()
    return report


def random_pairs(num_qubits: int, layers: int, seed: int) -> list[Pair]:
    """Return a random matrix on each pair of random pairings."""
    random = np.random.default_rng(seed)
    results = []
    for _ in range(layers):
        order = random.permutation(num_qubits).tolist()
        for a, b in zip(order[0::2], order[1::2], strict=False):
            results.append(((a, b), unitary_group.rvs(4, random_state=random)))
    return results
