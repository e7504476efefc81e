"""Compare the time of a run of CI with its goals: python scripts/ci_time.py TEST_S DRILLS_S

The goals hold for two cores on which Aer takes AER_MS for a circuit of 4 qubits. Aer is timed when
the tests have ended, and the goals grow with it. Prints a line for each goal; a miss fails nothing,
because a machine that others use too has days on which everything takes three times as long.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.circuits import gates
from bench.peers.libraries import Aer

AER_MS = 1.7
GOALS_MIN = {"make test": 12.0, ".ci/run": 25.0}
CIRCUITS, RUNS, GATES = 16, 20, 30  # as in the benchmark `small`


def aer_ms() -> float:
    """Return Aer's median time for a circuit of 4 qubits and 1,024 shots, in milliseconds."""
    peer, times = Aer(1), []
    jobs = [peer.prepare(4, gates(4, GATES, seed)) for seed in range(CIRCUITS)]
    for _ in range(RUNS):
        for job in jobs:
            began = time.perf_counter()
            peer.run(job)
            times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[CIRCUITS:])


def main(test_s: float, drills_s: float) -> None:
    measured_ms = aer_ms()
    scale = max(1.0, measured_ms / AER_MS)
    print(f"Aer's circuit of 4 qubits: {measured_ms:.2f} ms; goals x {scale:.2f}")
    for name, taken_s in (("make test", test_s), (".ci/run", test_s + drills_s)):
        goal_min = GOALS_MIN[name] * scale
        verdict = "met" if taken_s / 60 <= goal_min else "MISSED"
        print(f"{verdict:6} {name}: {taken_s / 60:.1f} minutes (goal <= {goal_min:.1f})")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:3]))
