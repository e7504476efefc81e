"""The choice of an engine: against the best in hindsight, and its forecasts against runs."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import networkx
import numpy as np
import psutil
from qiskit import QuantumCircuit

import simenv
from bench import circuits as shapes
from bench.engine.noise_speed import aer_noise
from bench.harness import SEED, Report, benchmark, installed, repeated_s, timed
from bench.harness.kernels import load_kernels
from bench.harness.timing import memory_bytes
from bench.peers.base import Gate
from bench.peers.process import IsolatedPeer
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.errors import SimenvError
from simenv.model import PoolSpec, TaskOptions, decode_program
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simulators import catalog
from simulators.chain.trial import choice_profile
from simulators.circuit.ir import Circuit

SHOTS, RUNS = 1_000, 3
REFUSED_LIMIT_S = 20.0  # limit of each engine on a circuit that `auto` refuses
TYPED = "truncation"  # the reason of a run stopped for loss of accuracy
SHORT_S = 0.2  # longer runs are not repeated
LEAST_LIMIT_S, MOST_S = 2.0, 120.0
FACTOR, SLACK_S = 2.0, 2e-3
WIDTHS = {
    "ghz": (8, 14, 24, 60, 300, 1_000), "tfim": (8, 14, 18, 20, 22, 24, 28, 40, 100),
    "ansatz": (8, 14, 20, 24, 28, 40, 100), "qft": (8, 14, 20, 24, 26),
    "fourier": (14, 22, 40, 100),
    "volume": (8, 14, 18, 22), "clifford_t": (8, 14, 20, 24, 26),
    "clifford": (8, 14, 24, 100, 400, 1_000), "brickwork": (8, 14, 20, 23, 26, 40, 100, 1_000),
    "deep": (20, 26, 50), "separate": (24, 60, 200), "teleported": (3, 9, 21),
    "adder": (10, 18, 24, 28, 64, 130), "swap_test": (11, 19, 25, 41, 115),
    "qaoa": (12, 20, 26, 40, 60), "grid": (16, 25, 36, 49), "w": (14, 22, 36, 118, 500),
    "graph_t": (30, 60),
}  # fmt: skip


class Engine(WorkerTask):
    """A worker's task on one engine; its jobs are packed programs."""

    def __init__(self, threads: int, engine: str) -> None:
        super().__init__(threads, engine=engine, shots=SHOTS, all_kernels=True)

    def prepare(self, _num_qubits: int, gates: bytes) -> bytes:  # type: ignore[override]
        return gates


@benchmark(seed=1, families=(list(WIDTHS), ["ghz", "tfim", "clifford"]), most_qubits=(1_000, 24))
def auto(report: Report, options: Namespace) -> None:
    """The engine that `auto` chooses, compared with the best engine in hindsight.

    Generated families of 8 to 1,000 qubits. Each circuit is routed as a service routes it. Then
    every engine that can run it does so, in a process of its own with one thread: a worker's task
    of a structure that is seen for the first time, CPU seconds, the best of three runs; one that
    takes three times as long as the chosen one is stopped. The chosen engine, with the choice and
    its trial, may take twice as long as the best one, or 2 ms more. Failed: chosen engines that
    fail, and circuits that are refused, or stopped for loss of accuracy, though another engine runs
    them within 20 s.
    """
    engines = _Engines()
    load_kernels(all_kernels=True)
    _candidates(load(generated("tfim", 24, np.random.default_rng(1))).packed)  # load all modules
    outcomes = []
    try:
        for family in options.families:
            for width in (each for each in WIDTHS[family] if each <= options.most_qubits):
                random = np.random.default_rng((options.seed, width))
                packed = load(generated(family, width, random)).packed
                outcomes.append(_relative_time(f"{family} {width}", packed, engines))
    finally:
        engines.close()
    evaluated = [outcome for outcome in outcomes if outcome is not None]
    if not evaluated:
        return report.none_measured("no family has a circuit of so few qubits that an engine runs")
    share = sum(outcome <= 1.0 for outcome in evaluated) / len(evaluated)
    failed = sum(outcome == float("inf") for outcome in evaluated)
    print(f"{len(evaluated)} circuits")
    report.at_least("share", share)
    report.at_most("failed", failed)
    return None


def _relative_time(name: str, packed: bytes, engines: _Engines) -> float | None:
    """Return the time on the chosen engine relative to the allowed one; infinite where another
    engine runs what the chosen one does not, None where no engine runs it."""
    took, candidates = timed(lambda: _candidates(packed), time.process_time)
    if took < SHORT_S:
        again = repeated_s(lambda: _candidates(packed), RUNS - 1, time.process_time)
        took = min(took, *again)
    chosen = "" if candidates[0].route is None else candidates[0].engine
    result = engines.seconds(chosen, packed, MOST_S) if chosen else None
    problem = engines.problem if chosen else ""
    limit_s = REFUSED_LIMIT_S if result is None else max(LEAST_LIMIT_S, 3 * result)
    cards = [each.name for each in catalog.engine_cards() if each.auto is not None]
    others = {each: engines.seconds(each, packed, limit_s) for each in cards
              if each != chosen and _candidates(packed, each)[0].route is not None}  # fmt: skip
    found = ((seconds, each) for each, seconds in others.items() if seconds is not None)
    least_s, best = min(found, default=(float("inf"), ""))
    line = (
        f"{name:24}{chosen or '(refused)':14}choice {took:.4f} s, best other {best} {least_s:.4f}"
    )
    if result is None:
        print(f"{line}{'  <- worse' if best else ''} {problem[:90]}", flush=True)
        return float("inf") if best or (problem and TYPED not in problem) else None
    least = min(result, least_s)
    relative = (result + took) / max(FACTOR * least, least + SLACK_S)
    print(f"{line}, chosen {result:.4f}{'' if relative <= 1.0 else '  <- worse'}", flush=True)
    return relative


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
        times = peer.times(1, limit_s, cpu=True) if peer.prepare(0, [packed]) else []
        if times and times[0] < SHORT_S:
            times += peer.times(RUNS - 1, limit_s, cpu=True)
        self.problem = peer.problem
        return min(times, default=None)

    def close(self) -> None:
        for peer in self._peers.values():
            if not peer.problem:
                peer.close()


# --- families of circuits of any width ------------------------------------------------------------


def generated(family: str, width: int, random: shapes.Random) -> QuantumCircuit:
    if family == "teleported":
        return _teleported(width, random)
    make: Callable[[int, shapes.Random], Any] = GENERATED.get(family) or shapes.CIRCUITS[family]
    return shapes.measured(width, make(width, random)).decompose("ccx")  # to six cx, seven t, two h


def _layers(
    width: int, depth: int, random: shapes.Random, names: tuple[str, ...] = ()
) -> Iterator[Gate]:
    """Yield layers of one-qubit gates, random ones without `names`, and cx on neighbours, even and
    odd pairs in turns."""
    for layer in range(depth):
        for q in range(width):
            if names:
                yield str(random.choice(names)), (q,), ()
            else:
                yield "u", (q,), tuple(random.uniform(0, 6, 3))
        yield from (("cx", (q, q + 1), ()) for q in range(layer % 2, width - 1, 2))


def _separate(width: int, random: shapes.Random) -> Iterator[Gate]:
    for first in range(0, width - 5, 6):
        for name, qubits, angles in _layers(6, 6, random):
            yield name, tuple(first + q for q in qubits), angles


def _fourier(width: int, random: shapes.Random) -> Iterator[Gate]:
    """Yield the Fourier transform of a random basis state."""
    yield from (("x", (q,), ()) for q in np.flatnonzero(random.integers(2, size=width)).tolist())
    for high in reversed(range(width)):
        yield "h", (high,), ()
        for low in reversed(range(high)):
            yield "cp", (low, high), (np.pi / 2.0 ** (high - low),)


def _adder(width: int, random: shapes.Random) -> Iterator[Gate]:
    """Yield the ripple-carry adder of Cuccaro et al. for a number and a superposition of two."""
    places = [(2 * k + 1, 2 * k + 2) for k in range((width - 2) // 2)]  # b, a; 0 is the carry
    yield from (("x", (q,), ()) for pair in places for q in pair if random.integers(2))
    yield "h", (places[0][1],), ()
    carries = [0, *(b for _, b in places)]
    for k, (a, b) in enumerate(places):
        yield "cx", (b, a), ()
        yield "cx", (b, carries[k]), ()
        yield "ccx", (carries[k], a, b), ()
    yield "cx", (places[-1][1], width - 1), ()
    for k, (a, b) in reversed(list(enumerate(places))):
        yield "ccx", (carries[k], a, b), ()
        yield "cx", (b, carries[k]), ()
        yield "cx", (carries[k], a), ()


def _swap_test(width: int, random: shapes.Random) -> Iterator[Gate]:
    half = (width - 1) // 2
    yield from (("ry", (q,), (random.uniform(0, 3),)) for q in range(1, width))
    yield "h", (0,), ()
    for site in range(1, half + 1):
        yield "cx", (site + half, site), ()
        yield "ccx", (0, site, site + half), ()
        yield "cx", (site + half, site), ()
    yield "h", (0,), ()


def _qaoa(width: int, random: shapes.Random) -> Iterator[Gate]:
    """Yield one layer of QAOA on a random graph of degree three."""
    pairs = [random.permutation(width).reshape(-1, 2) for _ in range(3)]
    return shapes.qaoa(width, np.concatenate(pairs).tolist(), 1, 0.8, 0.6)


def _w(width: int, _random: shapes.Random) -> Iterator[Gate]:
    yield "x", (0,), ()
    for q in range(width - 1):
        yield "cry", (q, q + 1), (2 * np.arccos((1.0 / (width - q)) ** 0.5),)
        yield "cx", (q + 1, q), ()


def _graph_t(width: int, random: shapes.Random) -> Iterator[Gate]:
    """Yield layers of cz between random pairs, and eight T gates."""
    hadamards: list[Gate] = [("h", (q,), ()) for q in range(width)]
    for _ in range(6):
        yield from hadamards
        pairs = random.permutation(width).reshape(-1, 2).tolist()
        yield from (("cz", tuple(pair), ()) for pair in pairs)
    yield from (("t", (q,), ()) for q in random.choice(width, 8, replace=False).tolist())
    yield from hadamards


def _teleported(width: int, random: shapes.Random) -> QuantumCircuit:
    """Return a circuit that teleports the first qubit's state step by step to the last one."""
    circuit = QuantumCircuit(width, width)
    circuit.ry(random.uniform(0, 3), 0)
    for q in range(0, width - 2, 2):
        circuit.compose(shapes.built(3, [("h", (1,), ()), ("cx", (1, 2), ()), ("cx", (0, 1), ()),
                                  ("h", (0,), ())]), range(q, q + 3), inplace=True)  # fmt: skip
        circuit.measure([q, q + 1], [q, q + 1])
        with circuit.if_test((circuit.clbits[q + 1], 1)):
            circuit.x(q + 2)
        with circuit.if_test((circuit.clbits[q], 1)):
            circuit.z(q + 2)
    circuit.measure(width - 1, width - 1)
    return circuit


GENERATED: dict[str, Callable[[int, shapes.Random], Iterator[Gate]]] = {
    "fourier": _fourier, "separate": _separate, "adder": _adder, "swap_test": _swap_test,
    "qaoa": _qaoa, "w": _w, "graph_t": _graph_t,
    "clifford": lambda width, random: _layers(width, 20, random, ("h", "s", "sdg", "x")),
    "brickwork": lambda width, random: _layers(width, 8, random),
    "deep": lambda width, random: _layers(width, 12, random),
    "grid": lambda width, random: shapes.grid(round(width**0.5), round(width**0.5), 4, random),
}  # fmt: skip


# --- forecasts ------------------------------------------------------------------------------------

FEW = 10  # shots of the circuits whose forecast once was wrong
LEAST_S = 10e-3  # times below it are not told apart


class Case(NamedTuple):
    name: str
    circuit: QuantumCircuit
    shots: int = SHOTS
    engine: str = "auto"
    noise: Any = None


class Row(NamedTuple):
    """Outcome of one circuit. `times`, `memory`: relative to the forecast."""

    case: Case
    engine: str
    times: float = 0.0
    memory: float = 0.0
    failed: str = ""
    is_refused: bool = False
    seconds: float = 0.0  # until a refusal


@benchmark(seed=SEED, circuits=(200, 12), most_s=(60.0, 5.0))
def wide_planner(report: Report, options: Namespace) -> None:
    """Forecasts of wide circuits, and the engines that `auto` takes for them.

    First 20 wide circuits whose engine is named, then random circuits of 20 to 60 qubits from six
    families with engine="auto". Each is explained, submitted to an environment with one worker, and
    runs alone, unless its forecast is longer than `--most-s`. Time is that of the run,
    relative to its forecast, above 10 ms of both; memory is the growth of the worker's peak,
    relative to the forecast. A task that is later than four times `--most-s` counts as forecast
    wrongly.
    """
    random = np.random.default_rng(options.seed)
    with simenv.local(workers=1) as env:
        worker = next(iter(env.workers())).pid
        idle = memory_bytes(worker, "VmRSS")
        env.run(shapes.measured(2, [("h", (0,), ())]), shots=1)
        found = [_row(env, worker, idle, case, options) for case in _named(random)]
        done = [row for row in found if row is not None]
        report.at_most("of_forecast", max(max(row.times, 1.0 / row.times) for row in done))
        report.at_most("of_memory", max(row.memory for row in done))
        rows = []
        for number in range(options.circuits):
            name = list(shapes.FAMILIES)[number % len(shapes.FAMILIES)]
            circuit = shapes.family_circuit(name, np.random.default_rng([options.seed, number]))
            rows.append(_row(env, worker, idle, Case(f"{name} {number}", circuit), options))
    done = [row for row in rows if row is not None]
    by_engine: defaultdict[str, list[Row]] = defaultdict(list)
    for row in done:
        by_engine[row.engine or "refused"].append(row)
    for engine, own in sorted(by_engine.items()):
        times, worst = [row.times for row in own], max(own, key=lambda row: row.times).case.name
        print(
            f"{engine}: {len(own)}, median {np.median(times):.2f} of the forecast, most"
            f" {max(times):.2f} ({worst}), memory {max(row.memory for row in own):.2f}"
        )
    ran = [row for row in done if not row.is_refused]
    refused_s = max((row.seconds for row in done if row.is_refused), default=0.0)
    print(f"{len(ran)} random circuits of {len(rows)}")
    good = sum(row.times <= 4.0 and row.memory <= 1.5 and not row.failed for row in ran)
    report.at_least("share", good / max(1, len(ran)))
    report.at_most("ended", sum("memory" in row.failed for row in ran))
    report.seconds("refused_s", refused_s)


def _named(random: shapes.Random) -> Iterator[Case]:
    """Yield 20 circuits: those of which forecasts were wrong, and others that no model was made
    from."""
    for name, n, *shape in (
        ("Y1", 36, 20, 7, 3), ("strides 30 x 12", 30, 12, 11, 5), ("strides 42 x 6", 42, 6, 5, 2),
    ):  # fmt: skip
        yield Case(name, shapes.measured(n, shapes.stride_layers(n, *shape)), FEW, "contraction")
    for n, steps in ((30, 2), (40, 3), (60, 2), (60, 3)):
        yield Case(f"Ising {n} x {steps}", _ising(n, steps), SHOTS, "contraction")
    for rows, columns, depth in ((5, 6, 6), (6, 6, 6), (5, 9, 5)):
        circuit = shapes.measured(rows * columns, shapes.grid(rows, columns, depth, random))
        yield Case(f"lattice {rows} x {columns} x {depth}", circuit, 100, "contraction")
    for n, layers in ((40, 1), (60, 1), (30, 2), (40, 2)):
        graph = networkx.random_regular_graph(3, n, seed=int(random.integers(2**31)))
        circuit = shapes.measured(n, shapes.qaoa(n, graph.edges, layers, 0.6, 0.8))
        yield Case(f"QAOA {n} x {layers}", circuit, 100, "contraction")
    for n, count in ((40, 70), (48, 60)):
        circuit = shapes.measured(n, shapes.pairs_of_random_qubits(n, count, random))
        yield Case(f"pairs {n}, {count}", circuit, 100, "contraction")
    noise = aer_noise(relax=True, scale=1.0) if installed("qiskit_aer") else None
    for n, steps in ((30, 2), (60, 3)):
        yield Case(f"noisy Ising {n} x {steps}", _ising(n, steps), SHOTS, "sweep", noise)
    for n, depth in ((40, 8), (60, 6)):
        gates = shapes.brickwork(n, depth, int(random.integers(2**31)))
        yield Case(f"chain {n} x {depth}", shapes.measured(n, gates), SHOTS, "mps")


def _ising(n: int, steps: int) -> QuantumCircuit:
    pairs = shapes.part(shapes.heavy_hex(7, 15), n)
    return shapes.measured(n, [*shapes.kicked(n, pairs, steps, 0.6), *shapes.kicked(n, [], 1, 0.6)])


def _row(env: Client, worker: int, idle: int, case: Case, options: Namespace) -> Row | None:
    """Explain and run a circuit; None: its forecast is too long. `worker`: its process; `idle`: the
    bytes that it has without a task."""
    began = time.perf_counter()
    asked: dict[str, Any] = {"shots": case.shots, "engine": case.engine}
    if case.noise is not None:
        asked["noise"] = case.noise
    try:
        engines = env.explain(case.circuit, **asked).engines
        chosen = next((each for each in engines if each.chosen), engines[0])
        if chosen.chosen and chosen.seconds > options.most_s:
            print(f"{case.name:22}{chosen.engine:12} forecast {chosen.seconds:8.1f} s, not run")
            return None
        # A worker keeps the memory of its last state, so that is a small one.
        env.run(shapes.measured(19, shapes.brickwork(19, 6, 1)), shots=1, engine="statevector")
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # forgets the peak so far: proc(5)
        task = env.submit(case.circuit, seed=options.seed, **asked)
    except SimenvError as error:
        refused_s = time.perf_counter() - began
        print(f"{case.name:22}refused in {refused_s:.2f} s: {error}"[:160])
        return Row(case, "", is_refused=True, seconds=refused_s)
    failed, run_s = "", 0.0
    try:
        run_s = task.result(timeout=4 * options.most_s).timing.run_s
    except (SimenvError, TimeoutError) as error:
        failed = f"{type(error).__name__}: {error}"
        task.cancel()
    times = float("inf") if failed else max(run_s, LEAST_S) / max(chosen.seconds, LEAST_S)
    used = max(0, memory_bytes(worker, "VmHWM") - idle)
    mib = f"{chosen.memory_bytes / 2**20:7.0f}{used / 2**20:7.0f} MiB"
    told = f"{case.name:22}{chosen.engine:12}{chosen.seconds:9.3f}{run_s:9.3f} s{times:7.2f}"
    print(f"{told}{mib}  {failed[:90]}", flush=True)
    return Row(case, chosen.engine, times, used / chosen.memory_bytes, failed)
