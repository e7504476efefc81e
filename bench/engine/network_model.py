"""What a circuit over many nodes would take: a model, not a measurement.

The passes and exchanges are those of the real plan. A pass takes what it took here for each
amplitude, a node being no faster than one thread of this machine; an exchange takes what the rank
that sends most has to send, at the network's speed, nothing overlapped; each message and each
meeting take their latency. Left out: noise, contention, ranks that share a node's memory.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from bench.engine.distributed_rank import circuit_of
from bench.harness.report import installed
from simulators.catalog.costs import ranks_used
from simulators.statevector.distributed.remap_schedule import CommSchedule, plan_communication
from simulators.statevector.plan import ProgramCache
from simulators.statevector.planning.tables import SweepTable

STRONG = 36  # qubits: 1 TiB
WEAK = 30  # of one node: 16 GiB
MOST = 10  # nodes, as a power of two
CIRCUITS = ("qft", "ansatz", "volume")
BYTES = 16  # of an amplitude
CHUNK_BYTES = 2**20  # of a message
MEETINGS_A_PASS = 1


class Network(msgspec.Struct, frozen=True):
    """One link of each node, both ways at once."""

    bandwidth: float  # bytes a second
    latency_s: float  # of a message


class Guess(msgspec.Struct, frozen=True):
    """Seconds of one circuit on so many nodes."""

    nodes: int
    passes_s: float
    exchange_s: float
    latency_s: float

    @property
    def seconds(self) -> float:
        """All together."""
        return self.passes_s + self.exchange_s + self.latency_s


def model(network: Network, amplitude_s: float, plot: Path) -> None:
    """Both ways of scaling, printed and drawn."""
    print(
        f"\na MODEL, not a measurement: {amplitude_s * 1e9:.2f} ns an amplitude and pass,"
        f" {network.bandwidth / 1e9:g} GB/s, {network.latency_s * 1e6:g} us"
    )
    curves: dict[tuple[str, str], list[Guess]] = {}
    for name in CIRCUITS:
        plan = _plan(name, STRONG)
        curves[name, "strong"] = [
            guess(plan, power, network, amplitude_s) for power in range(MOST + 1)
        ]
        curves[name, "weak"] = [
            guess(_plan(name, WEAK + power), power, network, amplitude_s)
            for power in range(MOST + 1)
        ]
    for (name, kind), guesses in curves.items():
        cells = [f"{point.nodes}: {point.seconds:.3g} s" for point in guesses[:: MOST // 2]]
        share = 100 * guesses[-1].exchange_s / guesses[-1].seconds
        print(f"  {name:8s}{kind:7s} nodes {', '.join(cells)}; exchange {share:.0f} % at the end")
    if installed("matplotlib"):
        _drawn(curves, network, plot)
        print(f"  {plot}")


def guess(plan: SweepTable, power: int, network: Network, amplitude_s: float) -> Guess:
    """A plan on 2**power nodes."""
    nodes = 1 << power
    if ranks_used(plan.num_wires, nodes) != nodes:
        raise ValueError(f"{plan.num_wires} qubits do not take {nodes} nodes")
    result: CommSchedule = plan_communication(
        plan, range(plan.num_wires), plan.num_wires - power, fresh=True
    )
    sent = result.sent * BYTES
    messages = math.ceil(sent / CHUNK_BYTES)
    meetings = MEETINGS_A_PASS * len(plan.live) * 2 * power
    return Guess(
        nodes,
        result.visited * amplitude_s,
        sent / network.bandwidth,
        (messages + meetings) * network.latency_s,
    )


def _plan(name: str, num_qubits: int) -> SweepTable:
    circuit = circuit_of(name, num_qubits, 1)
    (stretch,) = ProgramCache().of(circuit, keep=False).stretches
    return stretch.sweeps


def _drawn(curves: dict[tuple[str, str], list[Guess]], network: Network, plot: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, sides = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    titles = {"strong": f"{STRONG} qubits", "weak": f"{WEAK} qubits a node"}
    for side, (kind, title) in zip(sides, titles.items(), strict=True):
        for name in CIRCUITS:
            guesses = curves[name, kind]
            nodes = [point.nodes for point in guesses]
            (line,) = side.loglog(nodes, [point.seconds for point in guesses], "o-", label=name)
            exchange = [point.exchange_s or math.nan for point in guesses]
            side.loglog(nodes, exchange, ":", color=line.get_color())
        side.set(xlabel="nodes", ylabel="seconds (dotted: exchange)", title=title)
        side.set_xscale("log", base=2)
        side.legend()
    figure.suptitle(
        f"Model, not measured: {network.bandwidth / 1e9:g} GB/s,"
        f" {network.latency_s * 1e6:g} us a message"
    )
    figure.savefig(plot, dpi=120)
    pyplot.close(figure)
