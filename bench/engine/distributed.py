"""One circuit over 1, 2, 4 ranks of one thread each.

The bytes sent must equal those the plan predicts; the counts must not depend on the number of
ranks. Times are those of the round of median wall time.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace

import msgspec

from bench.engine.distributed_rank import Round, Settings
from bench.harness import Report, rounds
from bench.harness.ranks import over_ranks

QUBITS = 24
CIRCUITS = ("qft", "ansatz", "volume")
GOAL_CIRCUITS = ("ansatz", "volume")
RANKS = (1, 2, 4)
AER_MPI_S = {"qft": 4.35, "ansatz": 3.62}  # measured once: 24 qubits on 2 ranks of one thread
OPTIONS = (rounds(5, quick=1),)


def run(options: Namespace) -> Report:
    report = Report("distributed", "distributed: one circuit over several ranks of one thread")
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"{QUBITS} qubits, 1,024 shots, {len(os.sched_getaffinity(0))} cores")
    walls: dict[tuple[str, int], Round] = {}
    for name in CIRCUITS:
        digests = set()
        for count in RANKS:
            runs, median = started(name, QUBITS, count, options.rounds, seed=seed)
            digests |= {run.digest for run in runs}
            walls[name, count] = median
            print(
                f"{name}, {count} ranks: wall {median.wall_s:.3f} s, exchange"
                f" {median.exchange_s:.3f} s, CPU {median.cpu_s:.3f} s, {median.passes} passes,"
                f" {median.exchanges} exchanges, {median.sent_bytes / 1e6:.0f} MB sent",
                flush=True,
            )
        if len(digests) != 1:
            raise SystemExit(f"{name}: the counts depend on the ranks")
    print()
    for name in GOAL_CIRCUITS:
        one, two = walls[name, 1], walls[name, 2]
        report.at_most("ranks_wall", two.wall_s / one.wall_s, f"{name}: wall of 2 ranks, of 1")
        share = 100 * two.exchange_s / two.wall_s
        report.at_most("ranks_exchange_percent", share, f"{name}: exchange, % of the wall")
        report.at_most("ranks_cpu", two.cpu_s / one.cpu_s, f"{name}: CPU time of 2 ranks, of 1")
    for name, aer_s in AER_MPI_S.items():
        part = walls[name, 2].wall_s / aer_s
        report.at_most("ranks_aer", part, f"{name}: 2 ranks, of Aer with MPI ({aer_s} s)")
    off = max(abs(run.sent_bytes - run.planned_bytes) for run in walls.values())
    report.at_most("ranks_off_bytes", off, "bytes sent that the plan did not predict, at most")
    return report


def started(
    name: str, num_qubits: int, ranks: int, rounds: int, *, seed: int = 1, layers: int = 0
) -> tuple[list[Round], Round]:
    """Run a circuit over this number of ranks; return all rounds and the round of median wall
    time."""
    settings = msgspec.json.encode(Settings(name, num_qubits, rounds, seed, layers)).decode()
    answer = over_ranks(ranks, "bench.engine.distributed_rank", settings)
    runs = sorted(msgspec.json.decode(answer, type=list[Round]), key=lambda each: each.wall_s)
    return runs, runs[len(runs) // 2]
