"""One circuit over 1, 2, 4 ranks of one thread each, and a model of more nodes.

Strong scaling: the same circuit over more ranks. Weak scaling: one more qubit with twice the ranks.
The bytes sent must equal those the plan predicts; the counts must not depend on the number of
ranks. The model is described in `network_model`; it is printed and drawn.

    python -m bench run distributed [--bandwidth GB/S] [--latency US] [--plot FILE]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import msgspec

from bench.engine.distributed_rank import Round, Runs, Settings
from bench.engine.network_model import Network, model
from bench.harness.options import Option
from bench.harness.report import Report

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from ranked import environment, mpirun

STRONG = 24  # qubits
WEAK = 22  # qubits of one rank
CIRCUITS = ("qft", "ansatz", "volume")
GOAL_CIRCUITS = ("ansatz", "volume")
RANKS = (1, 2, 4)
AER_MPI_S = {"qft": 4.35, "ansatz": 3.62}  # measured once: 24 qubits on 2 ranks of one thread
ROUNDS = 5
WAIT_S = 900.0
ROOT = Path(__file__).parents[2]
OPTIONS = (
    Option("--bandwidth", type=float, default=12.5, help="of a node, GB/s (model)"),
    Option("--latency", type=float, default=3.0, help="of a message, us (model)"),
    Option("--plot", type=Path, default=Path("scaling_model.png")),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("distributed", "distributed: one circuit over several ranks of one thread")
    amplitude_s = _measure(report)
    network = Network(1e9 * options.bandwidth, 1e-6 * options.latency)
    model(network, amplitude_s, options.plot)
    return report


def started(
    name: str, num_qubits: int, ranks: int, rounds: int = ROUNDS, *, seed: int = 1, layers: int = 0
) -> tuple[Runs, Round]:
    """Run a circuit over this number of ranks; return all rounds and the round of median wall
    time."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs.json"
        argv = [str(mpirun()), "-n", str(ranks), "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
        settings = Settings(name, num_qubits, rounds, seed, layers, str(out))
        argv += [sys.executable, "-m", "bench.engine.distributed_rank"]
        argv += [msgspec.json.encode(settings).decode()]
        entry = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environ = environment(Path(folder), entry)
        subprocess.run(argv, env=environ, cwd=ROOT, check=True, timeout=WAIT_S)
        runs = msgspec.json.decode(out.read_bytes(), type=Runs)
    ordered = sorted(runs.rounds, key=lambda entry: entry.wall_s)
    return runs, ordered[len(ordered) // 2]


def _measure(report: Report) -> float:
    """Measure strong and weak scaling; return the CPU seconds of one pass per amplitude."""
    cores, seed = len(os.sched_getaffinity(0)), time.time_ns() & 0xFFFFFFFF
    print(f"strong scaling, {STRONG} qubits, 1,024 shots; medians of {ROUNDS}; {cores} cores")
    _head()
    walls: dict[tuple[str, int], Round] = {}
    for name in CIRCUITS:
        digests = set()
        for count in RANKS:
            runs, median = started(name, STRONG, count, ROUNDS, seed=seed)
            walls[name, count] = median
            digests |= {run.digest for run in runs.rounds}
            _line(name, STRONG, count, median)
        if len(digests) != 1:
            raise SystemExit(f"{name}: the counts depend on the ranks")
    print(f"\nweak scaling, {WEAK} qubits on one rank")
    _head()
    for name in CIRCUITS:
        for power, count in enumerate(RANKS):
            _, median = started(name, WEAK + power, count, 3, seed=seed)
            _line(name, WEAK + power, count, median)
    print()
    for name in GOAL_CIRCUITS:
        run, pair_run = walls[name, 1], walls[name, 2]
        report.at_most("ranks_wall", pair_run.wall_s / run.wall_s, f"{name}: wall of 2 ranks, of 1")
        share = 100 * pair_run.exchange_s / pair_run.wall_s
        report.at_most("ranks_exchange_percent", share, f"{name}: exchange, % of the wall")
        report.at_most(
            "ranks_cpu", pair_run.cpu_s / run.cpu_s, f"{name}: CPU time of 2 ranks, of 1"
        )
    for name, aer_s in AER_MPI_S.items():
        part = walls[name, 2].wall_s / aer_s
        report.at_most("ranks_aer", part, f"{name}: 2 ranks, of Aer with MPI ({aer_s} s)")
    others = [walls[name, count] for name in CIRCUITS for count in RANKS]
    off = max(abs(run.sent_bytes - run.planned_bytes) for run in others)
    report.at_most("ranks_off_bytes", off, "bytes sent that the plan did not predict, at most")
    item = walls["ansatz", 2]
    return item.cpu_s / (item.passes << STRONG)


def _head() -> None:
    print(
        f"{'circuit':10s}{'qubits':>7s}{'ranks':>6s}{'wall, s':>9s}{'exchange':>10s}{'CPU, s':>8s}"
        f"{'passes':>8s}{'exch.':>7s}{'sent, MB':>10s}{'planned':>10s}"
    )


def _line(name: str, num_qubits: int, count: int, median: Round) -> None:
    share = f"{100 * median.exchange_s / median.wall_s:.0f} %"
    print(
        f"{name:10s}{num_qubits:7d}{count:6d}{median.wall_s:9.3f}{share:>10s}{median.cpu_s:8.3f}"
        f"{median.passes:8d}{median.exchanges:7d}{median.sent_bytes / 1e6:10.0f}"
        f"{median.planned_bytes / 1e6:10.0f}",
        flush=True,
    )
