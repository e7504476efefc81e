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

from argparse import Namespace
from collections import defaultdict
from typing import Any

import numpy as np
from scipy.stats import unitary_group

from bench.harness import CPU, SEED, THREADS, Option, Report, Times, medians, rounds
from bench.harness.comparison import Peers, Variant, assert_same_circuit
from bench.peers.qsim import QsimUnitaries
from bench.peers.qulacs import QulacsUnitaries
from bench.peers.simenv_engine import UnitaryEnvironment, UnitaryTask

OPTIONS = (
    rounds(7, quick=2),
    Option("--qubits", default="14,18,20", quick="14"),
    Option("--layers", type=int, default=12),
    THREADS,
    CPU,
    SEED,
)


def run(options: Namespace) -> Report:
    if options.cpu:
        options.threads = 1
    title = f"random pairs: {options.layers} layers, {options.threads} threads, seed {options.seed}"
    report = Report("random_unitaries", f"{title}, ms")
    variants = (
        Variant("ours", UnitaryTask if options.cpu else UnitaryEnvironment),
        Variant("qulacs", QulacsUnitaries),
        *(Variant(f"qsim {width}", QsimUnitaries, (width,)) for width in (2, 3)),
    )
    with Peers(variants, options.threads) as peers:
        for num_qubits in map(int, options.qubits.split(",")):
            times: Times = defaultdict(list)
            for turn in range(options.rounds + 1):
                circuit = random_pairs(num_qubits, options.layers, options.seed + turn)
                means: dict[str, Any] = {}
                for peer in peers:
                    if not peer.prepare(num_qubits, [circuit]):
                        continue
                    result = peer.times(1, 300.0, cpu=options.cpu)
                    if turn:  # turn 0 loads kernels
                        times[peer.name] += result
                    else:
                        means[peer.name] = peer.correlations()
                assert_same_circuit(means)
            ms = {name: 1e3 * each for name, each in medians(times).items()}
            text = ", ".join(f"{name} {each:.1f}" for name, each in ms.items())
            print(f"{num_qubits} qubits: {text}")
            ours = ms.pop("ours")
            report.share("of_best", ours, ms.values(), f"{num_qubits} qubits, of the best peer")
    return report


def random_pairs(num_qubits: int, layers: int, seed: int) -> list[tuple[tuple[int, int], Any]]:
    """Return a random matrix on each pair of random pairings."""
    random = np.random.default_rng(seed)
    results = []
    for _ in range(layers):
        order = random.permutation(num_qubits).tolist()
        for a, b in zip(order[0::2], order[1::2], strict=False):
            results.append(((a, b), unitary_group.rvs(4, random_state=random)))
    return results
