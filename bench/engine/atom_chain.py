"""A chain of 40 atoms by emu-mps through simenv, compared with emu-mps called directly."""

from __future__ import annotations

import sys
import time
from argparse import Namespace

import numpy as np

import simenv
from bench.engine.rydberg import Peer, chain
from bench.harness import SEED, Report, benchmark, installed

DT, PRECISION, BOND = 10, 1e-5, 256
SHOTS = 2_000
ALLOWED_S = 0.05  # beside the share of the direct run


@benchmark(seed=SEED, atoms=(40, 12), length_ns=(400, 100), rounds=(3, 1))
def atom_chain(report: Report, options: Namespace) -> None:
    """Engine emu-mps on a chain that is swept through resonance, compared with emu-mps itself.

    Both run in turn, in processes that have loaded their packages, with one thread of PyTorch and
    the same step, precision and bond. Times are wall-clock times, from the submission to the
    counts and from the call of the backend to its results; 50 ms are taken off our own. Occupations
    are compared with each other, and 2,000 shots with them, in standard deviations.
    """
    if not (installed("pulser") and installed("emu_mps")):
        return report.none_measured("emu-mps is not installed: pip install 'simenv[emulators]'")
    sequence = chain(options.atoms, options.length_ns)
    asked = {"precision": PRECISION, "bond": BOND, "dt": DT}
    own: list[float] = []
    direct: list[float] = []
    with Peer(sys.executable) as peer, simenv.local(workers=1, slots=1) as client:
        for number in range(options.rounds + 1):
            program = sequence if number else chain(4, 40)  # loads the packages
            begin = time.perf_counter()
            result = client.run(
                program, engine="emu-mps", shots=SHOTS, seed=options.seed, options=asked
            )
            own.append(time.perf_counter() - begin)
            answer = peer.ask("emu-mps", program, shots=SHOTS, seed=options.seed, **asked)
            if "error" in answer:
                return report.none_measured(answer["error"])
            direct.append(answer["seconds"])
    print(f"{result.remark}; simenv {own[1:]} s, direct {direct[1:]} s")
    report.at_most(
        "of_direct", float(np.median(own[1:]) - ALLOWED_S) / float(np.median(direct[1:]))
    )
    expected = np.array(answer["values"])
    report.at_most("occupation_difference", float(np.abs(result.occupations - expected).max()))
    sums = np.zeros(options.atoms)
    for text, count in result.counts.items():
        sums += count * np.array([int(bit) for bit in text])
    deviation = np.sqrt(np.maximum(expected * (1 - expected), 1 / SHOTS) / SHOTS)
    report.at_most("counts_sigma", float((np.abs(sums / SHOTS - expected) / deviation).max()))
