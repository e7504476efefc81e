"""Random two-qubit unitaries on all pairs: the whole path, compared with three libraries.

A circuit consists of 12 layers of random pairings with a random matrix on each pair; it runs with
1,024 shots on all threads. Ours is the whole path of a new structure through a running environment:
from a QuantumCircuit to the dict of counts. The libraries' circuits are converted before the clock
starts, and optimised where the library has an optimizer; Aer reads the QuantumCircuit in each run.
All take turns, with new circuits in each round; times are medians. Our double precision is compared
with the best variant in double precision, our single precision with the best of all.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from typing import Any

import numpy as np
from scipy.stats import unitary_group

from bench.harness import SEED, THREADS, Option, Report, Times, medians, rounds
from bench.harness.comparison import Peers, Variant, assert_same_circuit
from bench.peers.base import Gate
from bench.peers.libraries import LIBRARIES, PRECISIONS
from bench.peers.simenv_engine import Environment

LAYERS = 12
PATHS = tuple(Variant(f"path {bits}", Environment, (name,)) for bits, name in PRECISIONS)
NO_MATRICES = "lightning"  # its peer has no gate for a matrix
VARIANTS = (*PATHS, *(each for each in LIBRARIES if not each.name.startswith(NO_MATRICES)))
OPTIONS = (rounds(7, quick=2), Option("--qubits", default="14,16,18,20", quick="14"), THREADS, SEED)


def run(options: Namespace) -> Report:
    title = f"random pairs: {LAYERS} layers, {options.threads} threads, seed {options.seed}, ms"
    report = Report("random_unitaries", title)
    with Peers(VARIANTS, options.threads) as peers:
        for num_qubits in map(int, options.qubits.split(",")):
            times: Times = defaultdict(list)
            means: dict[str, Any] = {}
            for turn in range(options.rounds + 1):
                circuit = random_pairs(num_qubits, [options.seed, num_qubits, turn])
                for peer in peers.prepared(num_qubits, [circuit]):
                    result = peer.times(1, 300.0)
                    if turn:  # turn 0 loads kernels
                        times[peer.name] += result
                    else:
                        means[peer.name] = peer.correlations()
            assert_same_circuit(means)
            ms = {name: 1e3 * each for name, each in medians(times).items()}
            print(f"{num_qubits} qubits: {', '.join(f'{k} {v:.1f}' for k, v in ms.items())}")
            double, single = (ms.pop(path.name) for path in PATHS)
            theirs = [each for name, each in ms.items() if "f64" in name]
            label = f"{num_qubits} qubits, of the best peer"
            report.share("of_best", double, theirs, f"{label}, double precision")
            report.share("of_best", single, ms.values(), f"{label}, single precision")
    return report


def random_pairs(num_qubits: int, seed: list[int]) -> list[Gate]:
    """Return a random matrix on each pair of random pairings."""
    random = np.random.default_rng(seed)
    results: list[Gate] = []
    for _ in range(LAYERS):
        order = random.permutation(num_qubits).tolist()
        for pair in zip(order[0::2], order[1::2], strict=False):
            results.append(("unitary", pair, (unitary_group.rvs(4, random_state=random),)))
    return results
