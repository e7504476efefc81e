"""One circuit over 1, 2, 4 ranks of one thread each, and a model of more nodes.

Strong scaling: the same circuit over more ranks. Weak scaling: one more qubit with twice the ranks.
The bytes sent must equal those the plan predicts; the counts must not depend on the number of
ranks.

The model is printed and drawn; nothing in it is measured on a network. The passes and exchanges are
those of the real plan. A pass takes the measured time per amplitude, with each node as fast as one
thread of this machine. An exchange takes the time in which the rank that sends most sends its bytes
at the network's bandwidth, without overlap. Each message and each synchronisation adds one latency.
The model leaves out noise, contention, and ranks that share a node's memory.

    python -m bench run distributed [--bandwidth GB/S] [--latency US] [--plot FILE]
"""

from __future__ import annotations

import math
import os
import time
from argparse import Namespace
from pathlib import Path

import msgspec

from bench.engine.distributed_rank import Round, Settings, circuit_of
from bench.harness import Option, Report, installed
from bench.harness.ranks import over_ranks

STRONG = 24  # qubits
WEAK = 22  # qubits of one rank
CIRCUITS = ("qft", "ansatz", "volume")
GOAL_CIRCUITS = ("ansatz", "volume")
RANKS = (1, 2, 4)
AER_MPI_S = {"qft": 4.35, "ansatz": 3.62}  # measured once: 24 qubits on 2 ranks of one thread
ROUNDS = 5
MODEL_STRONG, MODEL_WEAK = 36, 30  # qubits: of all nodes together (1 TiB), of one node (16 GiB)
MODEL_NODES = tuple(1 << power for power in range(11))
AMPLITUDE_BYTES, MESSAGE_BYTES = 16, 2**20
OPTIONS = (
    Option("--bandwidth", type=float, default=12.5, help="of a node, GB/s (model)"),
    Option("--latency", type=float, default=3.0, help="of a message, us (model)"),
    Option("--plot", type=Path, default=Path("scaling_model.png")),
)


def run(options: Namespace) -> Report:
    report = Report("distributed", "distributed: one circuit over several ranks of one thread")
    amplitude_s = _measure(report)
    network = f"{options.bandwidth:g} GB/s, {options.latency:g} us a message"
    print("\na MODEL, not a measurement: ", end="")
    print(f"{amplitude_s * 1e9:.2f} ns an amplitude and pass, {network}")
    rates = amplitude_s, 1e-9 / options.bandwidth, 1e-6 * options.latency
    curves = {
        (name, kind): [model(name, kind, nodes, *rates) for nodes in MODEL_NODES]
        for name in CIRCUITS
        for kind in ("strong", "weak")
    }
    for (name, kind), curve in curves.items():
        points = list(zip(MODEL_NODES, curve, strict=True))
        cells = ", ".join(f"{nodes}: {point[0]:.3g} s" for nodes, point in points[::5])
        share = 100 * curve[-1][1] / curve[-1][0]
        print(f"  {name:8s}{kind:7s} nodes {cells}; exchange {share:.0f} % at the end")
    if installed("matplotlib"):
        _draw(curves, network, options.plot)
    return report


def started(
    name: str, num_qubits: int, ranks: int, rounds: int = ROUNDS, *, seed: int = 1, layers: int = 0
) -> tuple[list[Round], Round]:
    """Run a circuit over this number of ranks; return all rounds and the round of median wall
    time."""
    settings = msgspec.json.encode(Settings(name, num_qubits, rounds, seed, layers)).decode()
    answer = over_ranks(ranks, "bench.engine.distributed_rank", settings)
    runs = sorted(msgspec.json.decode(answer, type=list[Round]), key=lambda each: each.wall_s)
    return runs, runs[len(runs) // 2]


def _measure(report: Report) -> float:
    """Measure strong and weak scaling; return the CPU seconds of one pass per amplitude."""
    cores, seed = len(os.sched_getaffinity(0)), time.time_ns() & 0xFFFFFFFF
    print(f"strong scaling, {STRONG} qubits, 1,024 shots; medians of {ROUNDS}; {cores} cores")
    _head()
    walls: dict[tuple[str, int], Round] = {}
    for name in CIRCUITS:
        digests = set()
        for count in RANKS:
            runs, walls[name, count] = started(name, STRONG, count, ROUNDS, seed=seed)
            digests |= {run.digest for run in runs}
            _line(name, STRONG, count, walls[name, count])
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


def model(
    name: str, kind: str, nodes: int, amplitude_s: float, byte_s: float, latency_s: float
) -> tuple[float, float]:
    """Return the predicted seconds of a circuit on some nodes, and those of its exchanges."""
    from simulators.catalog.costs import ranks_used
    from simulators.statevector.distributed.qubit_layout import plan_communication
    from simulators.statevector.plan import program_cache

    power = nodes.bit_length() - 1
    num_qubits = MODEL_STRONG if kind == "strong" else MODEL_WEAK + power
    circuit = circuit_of(name, num_qubits, 1)
    (stretch,) = program_cache().of(circuit, keep=False).stretches
    plan = stretch.sweeps
    if ranks_used(num_qubits, nodes) != nodes:
        raise ValueError(f"{num_qubits} qubits do not take {nodes} nodes")
    schedule = plan_communication(plan, range(num_qubits), num_qubits - power, fresh=True)
    sent = schedule.sent * AMPLITUDE_BYTES
    messages = math.ceil(sent / MESSAGE_BYTES) + len(plan.live) * 2 * power
    exchange_s = sent * byte_s
    return schedule.visited * amplitude_s + exchange_s + messages * latency_s, exchange_s


def _draw(
    curves: dict[tuple[str, str], list[tuple[float, float]]], network: str, plot: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, sides = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    titles = {"strong": f"{MODEL_STRONG} qubits", "weak": f"{MODEL_WEAK} qubits a node"}
    for side, (kind, title) in zip(sides, titles.items(), strict=True):
        for name in CIRCUITS:
            seconds, exchange = zip(*curves[name, kind], strict=True)
            (line,) = side.loglog(MODEL_NODES, seconds, "o-", label=name)
            values = [each or math.nan for each in exchange]
            side.loglog(MODEL_NODES, values, ":", color=line.get_color())
        side.set(xlabel="nodes", ylabel="seconds (dotted: exchange)", title=title)
        side.set_xscale("log", base=2)
        side.legend()
    figure.suptitle(f"Model, not measured: {network}")
    figure.savefig(plot, dpi=120)
    pyplot.close(figure)
    print(f"  {plot}")
