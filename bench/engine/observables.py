"""Expectation values of Pauli sums and their gradients, compared with Aer and Lightning.

All run on 20 qubits in complex128. The values are those of 100 random strings of I, X, Y, Z after a
hardware-efficient ansatz. The gradient is that of an Ising chain's energy with respect to the 100
angles of such an ansatz, by the adjoint method in both libraries. Each library runs in a process of
its own with all threads; they take turns, with new angles in each round; times are medians. Ours is
`Runner`: packed Program in, packed result out, its plan cached as in all but the first of an
optimiser's steps; the libraries' circuits are built before the clock starts.

    python -m bench run observables [--rounds 5] [--qubits 20] [--threads 2] [--cpu]
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace

import numpy as np

from bench.harness.comparison import Variant, start_peers
from bench.harness.options import Option
from bench.harness.report import Report
from bench.peers.observables import (
    STRINGS,
    AerObservables,
    LightningObservables,
    WorkerObservables,
)

OPTIONS = (
    Option("--rounds", type=int, default=5, quick=2),
    Option("--qubits", type=int, default=20, quick=16),
    Option("--threads", type=int, default=os.cpu_count() or 1),
    Option("--cpu", action="store_true", help="CPU seconds of one thread each"),
    Option("--seed", type=int, default=time.time_ns() & 4294967295),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    if options.cpu:
        options.threads = 1
    what = f"values: {options.qubits} qubits, {options.threads} threads, seed {options.seed}, s"
    report = Report("observables", what)
    variants = (
        Variant("ours", WorkerObservables),
        Variant("aer", AerObservables),
        Variant("lightning", LightningObservables),
    )
    peers, _ = start_peers(variants, options.threads)
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(options.rounds + 1):
        for what in ("values", "gradient"):
            entries = {}
            for peer in peers:
                if peer.problem or not peer.prepare(options.qubits, [(what, options.seed + turn)]):
                    print(f"left out: {peer.name}: {peer.problem}")
                    continue
                if what == "gradient" and peer.name == "aer":
                    continue  # Aer has no adjoint gradient
                took = peer.times(1, 300.0, cpu=options.cpu)
                if turn:  # turn 0 loads and compiles
                    times.setdefault((what, peer.name), []).extend(took)
                values = peer.call("last")
                if values is None:
                    print(f"left out from here: {peer.name}: {peer.problem}")
                    continue
                entries[peer.name] = np.array(values)
            for name, values in entries.items():
                assert np.abs(values - entries.get("ours", values)).max() < 1e-9, (
                    f"{what}: {name} differs"
                )
    for peer in peers:
        peer.close()
    best = {key: statistics.median(each) for key, each in times.items()}
    print("\n".join(f"{what} {name}: {each:.4f}" for (what, name), each in best.items()))
    item = best["values", "ours"]
    peer_s = [v for (what, name), v in best.items() if what == "values" and name != "ours"]
    label = f"{STRINGS} strings, of the best"
    if peer_s:
        report.at_most("strings_of_best", item / min(peer_s), label)
    else:
        report.not_measured("strings_of_best", label, "no peer ran to its end")
    if ("gradient", "lightning") in best:
        share = best["gradient", "ours"] / best["gradient", "lightning"]
        report.at_most("gradient_of_lightning", share, "gradient, of Lightning")
    else:
        report.not_measured(
            "gradient_of_lightning", "gradient, of Lightning", "Lightning did not run to its end"
        )
    return report
