"""The engine that `auto` chooses, compared with the best engine in hindsight.

Circuits of generated families of 8 to 1,000 qubits, others for every seed, and circuits in files.
Each is routed as a service routes it; then every engine that could run it does, in a process of
its own with one thread: a worker's task of 1,000 shots, the structure seen for the first time,
seconds of the best of three runs. An engine may take three times as long as the chosen one, then
it is ended. Judged: the share of the circuits where the chosen engine takes at most twice as long
as the best one, or 2 ms more; and that no chosen engine runs out of memory or fails.

    python -m bench run auto [--seed 1] [--files FOLDER] [--families ghz,tfim]
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
from qiskit import QuantumCircuit

from bench.circuits import CIRCUITS, measured
from bench.harness.isolated import IsolatedPeer
from bench.harness.options import Option
from bench.harness.report import Report
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simenv.model import PoolSpec, TaskOptions, decode_program
from simenv.scheduler.core.types import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simulators import catalog
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit

SHOTS = 1_000
RUNS = 3
SHORT_S = 0.2  # longer runs are made once
LEAST_LIMIT_S, MOST_S = 2.0, 120.0
FACTOR, SLACK_S = 2.0, 2e-3
WIDTHS = {
    "ghz": (8, 14, 24, 60, 300, 1_000),
    "tfim": (8, 14, 20, 24, 40, 100),
    "ansatz": (8, 14, 20, 24, 40, 100),
    "qft": (8, 14, 20, 24),
    "volume": (8, 14, 18, 22),
    "clifford_t": (8, 14, 20, 24),
    "clifford": (8, 14, 24, 100, 400, 1_000),
    "brickwork": (8, 14, 20, 40, 100),
    "separate": (24, 60, 200),
    "teleported": (3, 9, 21),
}
OPTIONS = (
    Option("--seed", type=int, default=1),
    Option("--files", type=Path, help="folder of OpenQASM files"),
    Option("--families", default=",".join(WIDTHS), quick="ghz,tfim,clifford"),
    Option("--most-qubits", type=int, default=1_000, quick=24),
)


class Engine(WorkerTask):
    """A worker's task on one engine; its jobs are packed programs."""

    def __init__(self, threads: int, engine: str) -> None:
        super().__init__(threads, engine=engine, shots=SHOTS, all_kernels=True)

    def prepare(self, _num_qubits: int, gates: bytes) -> bytes:  # type: ignore[override]
        """The job as it is."""
        return gates


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("auto", f"auto and the best engine in hindsight: {SHOTS:,} shots, one thread")
    engines = _Engines()
    judged, good, failed = 0, 0, 0
    print(f"{'circuit':24}{'chosen':14}{'s':>10}  {'best other':14}{'s':>10}")
    try:
        for name, circuit in _circuits(options):
            outcome = _judged(name, load(circuit).packed, engines)
            if outcome is None:
                continue
            judged += 1
            failed += outcome == float("inf")
            good += outcome <= 1.0
    finally:
        engines.close()
    report.at_least("share", good / judged, f"chosen within 2 x of the best, of {judged} circuits")
    report.at_most("failed", failed, "chosen engines that failed or ran out of memory")
    return report


def _judged(name: str, packed: bytes, engines: _Engines) -> float | None:
    """Time on the chosen engine in units of what is allowed; None where none can run it."""
    candidates = _candidates(packed)
    chosen = candidates[0].engine if candidates[0].route is not None else ""
    if not chosen:
        print(f"{name:24}{'(refused)':14}  {candidates[0].text[:60]}", flush=True)
        return None
    ours = engines.seconds(chosen, packed, MOST_S)
    if ours is None:
        print(f"{name:24}{chosen:14}    failed  {engines.problem[:60]}", flush=True)
        return float("inf")
    others: dict[str, float] = {}
    for card in catalog.engine_cards():
        if card.automatic and card.name != chosen and _may_run(card.name, packed):
            limit_s = max(LEAST_LIMIT_S, 3 * ours)
            seconds = engines.seconds(card.name, packed, limit_s)
            if seconds is not None:
                others[card.name] = seconds
    best = min(others, key=others.__getitem__, default="")
    shown = f"{best:14}{others[best]:10.4f}" if best else "(none)"
    allowed = max(FACTOR * others[best], others[best] + SLACK_S) if best else ours
    mark = "" if ours <= allowed else "  <- worse"
    print(f"{name:24}{chosen:14}{ours:10.4f}  {shown}{mark}", flush=True)
    return ours / allowed


def _candidates(packed: bytes, engine: str = "auto") -> list[engine_choice.EngineCandidate]:
    circuit = Circuit.from_program(decode_program(packed))
    limits = ClusterLimits(1, psutil.virtual_memory().available * 3 // 4, 10**6, 2**34, 1, 1)
    terms = TaskOptions(engine=engine)
    result = profile(circuit, terms.outputs)
    return engine_choice.consider(result, terms, (PoolSpec("main"),), limits)


def _may_run(engine: str, packed: bytes) -> bool:
    return _candidates(packed, engine)[0].route is not None


class _Engines:
    """A process for each engine; one that was ended is started again when it is needed."""

    def __init__(self) -> None:
        self._peers: dict[str, IsolatedPeer] = {}
        self.problem = ""

    def seconds(self, name: str, packed: bytes, limit_s: float) -> float | None:
        """Seconds of the best of a few runs; None where it failed, see `problem`."""
        peer = self._peers.get(name)
        if peer is None or peer.problem:
            peer = self._peers[name] = IsolatedPeer(name, Engine, name, threads=1)
        if not peer.prepare(0, [packed]):
            self.problem = peer.problem
            return None
        times = peer.times(1, limit_s)
        if times and times[0] < SHORT_S:
            times += peer.times(RUNS - 1, limit_s)
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
                yield f"{family} {width}", _generated(family, width, random)
    for path in sorted(options.files.glob("*.qasm")) if options.files else ():
        yield path.stem, path


def _generated(family: str, width: int, random: np.random.Generator) -> QuantumCircuit:
    if family in CIRCUITS:
        return measured(width, list(CIRCUITS[family](width, random)))
    circuit = QuantumCircuit(width, width)
    if family == "clifford":
        _layers(circuit, 20, random, ("h", "s", "sdg", "x"))
    elif family == "brickwork":
        _layers(circuit, 8, random, ())
    elif family == "separate":  # blocks of six qubits that never meet
        for first in range(0, width - 5, 6):
            block = QuantumCircuit(6)
            _layers(block, 6, random, ())
            circuit.compose(block, range(first, first + 6), inplace=True)
    else:  # teleported: measured on the way, and corrected
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
        return circuit
    circuit.measure(range(width), range(width))
    return circuit


def _layers(
    circuit: QuantumCircuit, depth: int, random: np.random.Generator, gates: tuple[str, ...]
) -> None:
    """Layers of one-qubit gates, of these or any, and cx on neighbours, even and odd in turns."""
    for layer in range(depth):
        for qubit in range(circuit.num_qubits):
            if gates:
                getattr(circuit, str(random.choice(gates)))(qubit)
            else:
                circuit.u(*random.uniform(0, 6, 3), qubit)
        for qubit in range(layer % 2, circuit.num_qubits - 1, 2):
            circuit.cx(qubit, qubit + 1)
