"""The engine that `auto` chooses, compared with the best engine in hindsight.

The circuits are generated families of 8 to 1,000 qubits, which differ for every seed. Each circuit
is routed as a service routes it. Then every engine that can run it does so, in a process of its own
with one thread: a worker's task of 1,000 shots whose structure is seen for the first time; its time
is the CPU seconds of the best of three runs. An engine that takes more than three times as long as
the chosen one is stopped. Three figures are judged: the share of circuits on which the chosen
engine, including the choice and its trial, takes at most twice as long as the best one, or 2 ms
more; chosen engines that fail or run out of memory; and circuits that are refused, or stopped for
loss of accuracy, though another engine runs them within 20 s.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import psutil
from qiskit import QuantumCircuit
from qiskit.circuit.library import CCXGate

from bench.circuits import CIRCUITS, Random, built, grid, measured, qaoa
from bench.harness import Option, Report, repeated_s, timed
from bench.harness.isolated import IsolatedPeer
from bench.harness.kernels import load_kernels
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simenv.model import PoolSpec, TaskOptions, decode_program
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simulators import catalog
from simulators.chain.trial import choice_profile
from simulators.circuit.ir import Circuit

SHOTS = 1_000
RUNS = 3
REFUSED_LIMIT_S = 20.0  # limit of each engine on a circuit that `auto` refuses
TYPED = "truncation"  # the reason of a run stopped for loss of accuracy
SHORT_S = 0.2  # longer runs are not repeated
LEAST_LIMIT_S, MOST_S = 2.0, 120.0
FACTOR, SLACK_S = 2.0, 2e-3
Family = Callable[[QuantumCircuit, Random], None]  # it adds the gates

WIDTHS = {
    "ghz": (8, 14, 24, 60, 300, 1_000),
    "tfim": (8, 14, 18, 20, 22, 24, 28, 40, 100),
    "ansatz": (8, 14, 20, 24, 28, 40, 100),
    "qft": (8, 14, 20, 24, 26),
    "fourier": (14, 22, 40, 100),
    "volume": (8, 14, 18, 22),
    "clifford_t": (8, 14, 20, 24, 26),
    "clifford": (8, 14, 24, 100, 400, 1_000),
    "brickwork": (8, 14, 20, 23, 26, 40, 100, 1_000),
    "deep": (20, 26, 50),
    "separate": (24, 60, 200),
    "teleported": (3, 9, 21),
    "adder": (10, 18, 24, 28, 64, 130),
    "swap_test": (11, 19, 25, 41, 115),
    "qaoa": (12, 20, 26, 40, 60),
    "grid": (16, 25, 36, 49),
    "w": (14, 22, 36, 118, 500),
    "graph_t": (30, 60),
}
OPTIONS = (
    Option("--seed", default=1),
    Option("--families", default=",".join(WIDTHS), quick="ghz,tfim,clifford"),
    Option("--most-qubits", default=1_000, quick=24),
)


class Engine(WorkerTask):
    """A worker's task on one engine; its jobs are packed programs."""

    def __init__(self, threads: int, engine: str) -> None:
        super().__init__(threads, engine=engine, shots=SHOTS, all_kernels=True)

    def prepare(self, _num_qubits: int, gates: bytes) -> bytes:  # type: ignore[override]
        """Return the job unchanged."""
        return gates


def run(options: Namespace) -> Report:
    report = Report("auto", f"auto and the best engine in hindsight: {SHOTS:,} shots, one thread")
    engines = _Engines()
    load_kernels(all_kernels=True)
    _candidates(load(generated("tfim", 24, np.random.default_rng(1))).packed)  # load all modules
    outcomes = []
    print(f"{'circuit':24}{'chosen':14}{'s':>10}{'choice s':>10}  {'best other':14}{'s':>10}")
    try:
        for name, circuit in _circuits(options):
            outcomes.append(_relative_time(name, load(circuit).packed, engines))
    finally:
        engines.close()
    evaluated = [outcome for outcome in outcomes if outcome is not None]
    good = sum(outcome <= 1.0 for outcome in evaluated)
    failed = sum(outcome == float("inf") for outcome in evaluated)
    share = good / len(evaluated)
    report.at_least("share", share, f"chosen within 2 x of the best, of {len(evaluated)} circuits")
    report.at_most("failed", failed, "chosen engines that failed or ran out of memory, or refusals")
    return report


def _relative_time(name: str, packed: bytes, engines: _Engines) -> float | None:
    """Return the time on the chosen engine relative to the allowed time. The result is infinite
    where another engine runs a circuit that the chosen one does not, and None where no engine runs
    it."""
    took, candidates = timed(lambda: _candidates(packed), time.process_time)
    if took < SHORT_S:
        again = repeated_s(lambda: _candidates(packed), RUNS - 1, time.process_time)
        took = min(took, *again)
    chosen = "" if candidates[0].route is None else candidates[0].engine
    result = engines.seconds(chosen, packed, MOST_S) if chosen else None
    problem = engines.problem if chosen else ""
    limit_s = REFUSED_LIMIT_S if result is None else max(LEAST_LIMIT_S, 3 * result)
    others = {
        card.name: engines.seconds(card.name, packed, limit_s)
        for card in catalog.engine_cards()
        if card.auto is not None
        and card.name != chosen
        and _candidates(packed, card.name)[0].route is not None
    }
    least_s, best = min(((s, name) for name, s in others.items() if s is not None), default=(0, ""))
    text = f"{best:14}{least_s:10.4f}" if best else "(none)"
    if result is None:
        mark = "  <- worse" if best else ""
        line = f"{name:24}{chosen or '(refused)':14}{'-':>10}{took:10.4f}  {text}{mark}"
        print(f"{line} {problem[:90]}")
        return float("inf") if best or (problem and TYPED not in problem) else None
    least = min(result, least_s) if best else result
    allowed = max(FACTOR * least, least + SLACK_S)
    mark = "" if result + took <= allowed else "  <- worse"
    print(f"{name:24}{chosen:14}{result:10.4f}{took:10.4f}  {text}{mark}", flush=True)
    return (result + took) / allowed


def _candidates(packed: bytes, engine: str = "auto") -> list[engine_choice.EngineCandidate]:
    circuit = Circuit.from_program(decode_program(packed))
    limits = ClusterLimits(1, psutil.virtual_memory().available * 3 // 4, 10**6, 2**34, 1, 1)
    terms = TaskOptions(engine=engine)
    result = choice_profile(circuit, terms.outputs, engine=engine)
    return engine_choice.candidates(result, terms, (PoolSpec("main"),), limits)


class _Engines:
    """One process for each engine; an ended process is started again when it is needed."""

    def __init__(self) -> None:
        self._peers: dict[str, IsolatedPeer] = {}
        self.problem = ""

    def seconds(self, name: str, packed: bytes, limit_s: float) -> float | None:
        """Return the CPU seconds of the best of a few runs; None where it failed, see `problem`."""
        peer = self._peers.get(name)
        if peer is None or peer.problem:
            peer = self._peers[name] = IsolatedPeer(name, Engine, name, threads=1, quiet=True)
        if not peer.prepare(0, [packed]):
            self.problem = peer.problem
            return None
        times = peer.times(1, limit_s, cpu=True)
        if times and times[0] < SHORT_S:
            times += peer.times(RUNS - 1, limit_s, cpu=True)
        self.problem = peer.problem
        return min(times, default=None)

    def close(self) -> None:
        for peer in self._peers.values():
            if not peer.problem:
                peer.close()


def _circuits(options: Namespace) -> Iterator[tuple[str, QuantumCircuit]]:
    for family in options.families.split(","):
        for width in WIDTHS[family]:
            if width <= options.most_qubits:
                random = np.random.default_rng((options.seed, width))
                yield f"{family} {width}", generated(family, width, random)


def generated(family: str, width: int, random: Random) -> QuantumCircuit:
    """Return the circuit of that family and width."""
    if family in CIRCUITS:
        return measured(width, CIRCUITS[family](width, random))
    circuit = QuantumCircuit(width, width)
    _FAMILIES[family](circuit, random)
    if family != "teleported":
        circuit.measure(range(width), range(width))
    return circuit


def layers(
    circuit: QuantumCircuit, depth: int, random: Random, gates: tuple[str, ...] = ()
) -> None:
    """Add layers of one-qubit gates and cx on neighbours, even and odd pairs in turns. `gates`:
    names of the one-qubit gates; empty: random u gates."""
    for layer in range(depth):
        for qubit in range(circuit.num_qubits):
            if gates:
                getattr(circuit, str(random.choice(gates)))(qubit)
            else:
                circuit.u(*random.uniform(0, 6, 3), qubit)
        for qubit in range(layer % 2, circuit.num_qubits - 1, 2):
            circuit.cx(qubit, qubit + 1)


def _brickwork(depth: int, *gates: str) -> Family:
    return lambda circuit, random: layers(circuit, depth, random, gates)


def _separate(circuit: QuantumCircuit, random: Random) -> None:
    """Add separate blocks of six qubits."""
    for first in range(0, circuit.num_qubits - 5, 6):
        block = QuantumCircuit(6)
        layers(block, 6, random)
        circuit.compose(block, range(first, first + 6), inplace=True)


def _teleported(circuit: QuantumCircuit, random: Random) -> None:
    """Add a circuit that teleports the state of the first qubit step by step to the last one."""
    width = circuit.num_qubits
    circuit.ry(random.uniform(0, 3), 0)
    for qubit in range(0, width - 2, 2):
        circuit.h(qubit + 1)
        circuit.cx(qubit + 1, qubit + 2)
        circuit.cx(qubit, qubit + 1)
        circuit.h(qubit)
        circuit.measure([qubit, qubit + 1], [qubit, qubit + 1])
        with circuit.if_test((circuit.clbits[qubit + 1], 1)):
            circuit.x(qubit + 2)
        with circuit.if_test((circuit.clbits[qubit], 1)):
            circuit.z(qubit + 2)
    circuit.measure(width - 1, width - 1)


def _fourier(circuit: QuantumCircuit, random: Random) -> None:
    """Add the Fourier transform of a random basis state."""
    width = circuit.num_qubits
    for qubit in np.flatnonzero(random.integers(2, size=width)).tolist():
        circuit.x(qubit)
    for high in reversed(range(width)):
        circuit.h(high)
        for low in reversed(range(high)):
            circuit.cp(np.pi / 2.0 ** (high - low), low, high)


def _toffoli(circuit: QuantumCircuit, first: int, second: int, target: int) -> None:
    """Add a Toffoli gate as six cx, seven T gates and two h."""
    circuit.compose(CCXGate().definition, [first, second, target], inplace=True)


def _adder(circuit: QuantumCircuit, random: Random) -> None:
    """Add the ripple-carry adder of Cuccaro et al. for a number and a superposition of two."""
    width = circuit.num_qubits
    bits = (width - 2) // 2
    places = [(2 * k + 1, 2 * k + 2) for k in range(bits)]  # b and a of each bit; 0 is the carry
    for a, b in places:
        for qubit in (a, b):
            if random.integers(2):
                circuit.x(qubit)
    circuit.h(places[0][1])
    carries = [0, *(b for _, b in places)]
    for k, (a, b) in enumerate(places):
        circuit.cx(b, a)
        circuit.cx(b, carries[k])
        _toffoli(circuit, carries[k], a, b)
    circuit.cx(places[-1][1], width - 1)
    for k, (a, b) in reversed(list(enumerate(places))):
        _toffoli(circuit, carries[k], a, b)
        circuit.cx(b, carries[k])
        circuit.cx(carries[k], a)


def _swap_test(circuit: QuantumCircuit, random: Random) -> None:
    """Add the swap test of two product states, with one ancilla."""
    width = circuit.num_qubits
    half = (width - 1) // 2
    for qubit in range(1, width):
        circuit.ry(random.uniform(0, 3), qubit)
    circuit.h(0)
    for site in range(1, half + 1):
        circuit.cx(site + half, site)
        _toffoli(circuit, 0, site, site + half)
        circuit.cx(site + half, site)
    circuit.h(0)


def _qaoa(circuit: QuantumCircuit, random: Random) -> None:
    """Add one layer of QAOA on a random graph of degree three."""
    width = circuit.num_qubits
    pairs = [random.permutation(width).reshape(-1, 2) for _ in range(3)]
    gates = qaoa(width, np.concatenate(pairs).tolist(), 1, 0.8, 0.6)
    circuit.compose(built(width, gates), inplace=True)


def _grid(circuit: QuantumCircuit, random: Random) -> None:
    """Add four layers of cz on a square grid, which cover each edge once."""
    side = round(circuit.num_qubits**0.5)
    circuit.compose(built(side * side, grid(side, side, 4, random)), inplace=True)


def _w(circuit: QuantumCircuit, _random: Random) -> None:
    """Add the preparation of a W state."""
    width = circuit.num_qubits
    circuit.x(0)
    for qubit in range(width - 1):
        circuit.cry(2 * np.arccos((1.0 / (width - qubit)) ** 0.5), qubit, qubit + 1)
        circuit.cx(qubit + 1, qubit)


def _graph_t(circuit: QuantumCircuit, random: Random) -> None:
    """Add layers of cz between random pairs, and eight T gates."""
    width = circuit.num_qubits
    for _ in range(6):
        circuit.h(range(width))
        for a, b in random.permutation(width).reshape(-1, 2).tolist():
            circuit.cz(a, b)
    for qubit in random.choice(width, 8, replace=False).tolist():
        circuit.t(qubit)
    circuit.h(range(width))


_FAMILIES: dict[str, Family] = {
    "fourier": _fourier,
    "clifford": _brickwork(20, "h", "s", "sdg", "x"),
    "brickwork": _brickwork(8),
    "deep": _brickwork(12),
    "separate": _separate,
    "teleported": _teleported,
    "adder": _adder,
    "swap_test": _swap_test,
    "qaoa": _qaoa,
    "grid": _grid,
    "w": _w,
    "graph_t": _graph_t,
}
