"""Expectation values of Pauli sums and their gradients, compared with Aer and Lightning.

All run on 20 qubits in complex128. The values are those of 100 random strings of I, X, Y, Z after a
hardware-efficient ansatz. The gradient is that of an Ising chain's energy with respect to the 100
angles of such an ansatz, by the adjoint method in both libraries. Each library runs in a process of
its own with all threads; they take turns, with new angles in each round; times are medians. Ours is
`Runner`: packed Program in, packed result out, its plan cached as in all but the first of an
optimiser's steps; the libraries' circuits are built before the clock starts.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict

import numpy as np

from bench.harness import CPU, SEED, THREADS, Option, Report, medians, rounds
from bench.harness.comparison import Peers, Variant
from bench.peers.observables import STRINGS, AerObservables, LightningObservables, WorkerObservables

OPTIONS = (rounds(5, quick=2), Option("--qubits", default=20, quick=16), THREADS, CPU, SEED)
VARIANTS = (
    Variant("ours", WorkerObservables),
    Variant("aer", AerObservables),
    Variant("lightning", LightningObservables),
)


def run(options: Namespace) -> Report:
    if options.cpu:
        options.threads = 1
    what = f"values: {options.qubits} qubits, {options.threads} threads, seed {options.seed}, s"
    report = Report("observables", what)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    with Peers(VARIANTS, options.threads) as peers:
        for turn in range(options.rounds + 1):
            for what in ("values", "gradient"):
                entries = {}
                for peer in peers.prepared(options.qubits, [(what, options.seed + turn)]):
                    if what == "gradient" and peer.name == "aer":
                        continue  # Aer has no adjoint gradient
                    took = peer.times(1, 300.0, cpu=options.cpu)
                    if turn:  # turn 0 loads and compiles
                        times[what, peer.name] += took
                    if (values := peer.call("last")) is not None:
                        entries[peer.name] = np.array(values)
                for name, values in entries.items():
                    off = np.abs(values - entries.get("ours", values)).max()
                    assert off < 1e-9, f"{what}: {name} differs"
    best = medians(times)
    print("\n".join(f"{what} {name}: {each:.4f}" for (what, name), each in best.items()))
    for what, goal, label, reason in (
        ("values", "strings_of_best", f"{STRINGS} strings, of the best", "no peer ran to its end"),
        ("gradient", "gradient_of_lightning", "gradient, of Lightning", "Lightning did not run"),
    ):
        peer_s = [best[what, peer] for peer in ("aer", "lightning") if (what, peer) in best]
        report.share(goal, best[what, "ours"], peer_s, label, reason)
    return report
