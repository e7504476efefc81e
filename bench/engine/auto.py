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
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import psutil
from qiskit import QuantumCircuit

from bench.harness import Option, Report, repeated_s, timed
from bench.harness.isolated import IsolatedPeer
from bench.harness.kernels import load_kernels
from bench.peers.simenv_engine import WorkerTask
from bench.wide_families import WIDTHS, generated
from simenv.client.circuits import load
from simenv.model import PoolSpec, TaskOptions, decode_program
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simulators import catalog
from simulators.chain.trial import choice_profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit

SHOTS = 1_000
RUNS = 3
REFUSED_LIMIT_S = 20.0  # limit of each engine on a circuit that `auto` refuses
TYPED = "truncation"  # the reason of a run stopped for loss of accuracy
SHORT_S = 0.2  # longer runs are not repeated
LEAST_LIMIT_S, MOST_S = 2.0, 120.0
FACTOR, SLACK_S = 2.0, 2e-3
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
    """Return the time on the chosen engine relative to the allowed time.

    The result is infinite where another engine runs a circuit that the chosen one does not, and
    None where no engine runs it.
    """
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
    profiler = choice_profile if engine == engine_choice.AUTO else profile
    result = profiler(circuit, terms.outputs)
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
