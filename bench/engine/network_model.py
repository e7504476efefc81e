"""Model of one circuit over many nodes; nothing in it is measured on a network.

The passes and exchanges are those of the real plan. A pass takes the measured time per amplitude,
with each node as fast as one thread of this machine. An exchange takes the time in which the rank
that sends most sends its bytes at the network's bandwidth, without overlap. Each message and each
synchronisation adds one latency. The model leaves out noise, contention, and ranks that share a
node's memory.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from bench.engine.distributed_rank import circuit_of
from bench.harness.report import installed
from simulators.catalog.costs import ranks_used
from simulators.statevector.distributed.qubit_layout import CommSchedule, plan_communication
from simulators.statevector.plan import program_cache
from simulators.statevector.planning.tables import SweepTable

STRONG = 36  # qubits: 1 TiB
WEAK = 30  # qubits of one node: 16 GiB
MOST = 10  # log2 of the largest number of nodes
CIRCUITS = ("qft", "ansatz", "volume")
BYTES = 16  # bytes of an amplitude
CHUNK_BYTES = 2**20  # bytes of a message
SYNCHRONIZATIONS_PER_PASS = 1


class Network(msgspec.Struct, frozen=True):
    """Link of each node, full duplex."""

    bandwidth: float  # bytes per second
    latency_s: float  # seconds of a message


class Guess(msgspec.Struct, frozen=True):
    """Predicted seconds of one circuit on a number of nodes."""

    nodes: int
    passes_s: float
    exchange_s: float
    latency_s: float

    @property
    def seconds(self) -> float:
        """Total of passes, exchanges and latency in seconds."""
        return self.passes_s + self.exchange_s + self.latency_s


def model(network: Network, amplitude_s: float, plot: Path) -> None:
    """Print and draw the model of strong and weak scaling."""
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
        _draw(curves, network, plot)
        print(f"  {plot}")


def guess(plan: SweepTable, power: int, network: Network, amplitude_s: float) -> Guess:
    """Return the prediction for a plan on 2**power nodes.

    Raises ValueError if the plan has too few qubits for this number of nodes.
    """
    nodes = 1 << power
    if ranks_used(plan.num_wires, nodes) != nodes:
        raise ValueError(f"{plan.num_wires} qubits do not take {nodes} nodes")
    result: CommSchedule = plan_communication(
        plan, range(plan.num_wires), plan.num_wires - power, fresh=True
    )
    sent = result.sent * BYTES
    messages = math.ceil(sent / CHUNK_BYTES)
    synchronizations = SYNCHRONIZATIONS_PER_PASS * len(plan.live) * 2 * power
    return Guess(
        nodes,
        result.visited * amplitude_s,
        sent / network.bandwidth,
        (messages + synchronizations) * network.latency_s,
    )


def _plan(name: str, num_qubits: int) -> SweepTable:
    circuit = circuit_of(name, num_qubits, 1)
    (stretch,) = program_cache().of(circuit, keep=False).stretches
    return stretch.sweeps


def _draw(curves: dict[tuple[str, str], list[Guess]], network: Network, plot: Path) -> None:
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
