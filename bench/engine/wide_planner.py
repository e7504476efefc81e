"""Forecasts of wide circuits, and the engines that `auto` takes for them.

First 20 wide circuits whose engine is named, then random circuits of 20 to 60 qubits from six
families with engine="auto". Each is explained, submitted to an environment with one worker, and
runs alone; one whose forecast is longer than `--most-s` is not run. Time is that of the run, or the
CPU time of the worker (`--cpu`, for a busy machine; statevector and sweeps take several threads),
relative to its forecast, above 10 ms of both; memory is the growth of the worker's peak above the
worker without a task, relative to the forecast; a state of 19 qubits is run before each circuit, as
a worker keeps the memory of its last state. A task is at most `--most-s` late; later it is
cancelled, and counts as forecast wrongly. Medians and the worst circuits of each engine are printed
with the seeds that make them.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import networkx
import numpy as np
import psutil
from qiskit import QuantumCircuit

import simenv
from bench.circuits import Gate, brickwork, grid, measured, qaoa
from bench.engine.noise_speed import aer_noise
from bench.harness import CPU, SEED, Option, Report, installed
from bench.wide_families import FAMILIES, family_circuit, heavy_hex, part, stride_layers
from simenv.client.client import Client
from simenv.errors import SimenvError

SHOTS = 1_000
_SMALL = measured(19, brickwork(19, 6, 1))
FEW = 10  # of the circuits whose forecast once was wrong
LEAST_S = 10e-3  # times below it are not told apart
OPTIONS = (
    SEED,
    CPU,
    Option("--circuits", default=200, quick=12, help="random circuits of the families"),
    Option("--most-s", default=60.0, quick=5.0, help="longest forecast that is run"),
    Option("--families-only", action="store_true", help="without the 20 named circuits"),
)


class Case(NamedTuple):
    """A circuit, and how it is submitted."""

    name: str
    circuit: QuantumCircuit
    shots: int = SHOTS
    engine: str = "auto"
    noise: Any = None


class Row(NamedTuple):
    """Outcome of one circuit. `times`, `memory`: relative to the forecast."""

    case: Case
    engine: str
    times: float
    memory: float
    failed: str = ""
    is_refused: bool = False
    seconds: float = 0.0  # until a refusal


def run(options: Namespace) -> Report:
    report = Report("wide_planner", "wide circuits: forecasts, and what auto takes, one worker")
    random = np.random.default_rng(options.seed)
    with simenv.local(workers=1) as env:
        worker = Worker(next(iter(env.workers())).pid)
        env.run(measured(2, [("h", (0,), ())]), shots=1)
        if not options.families_only:
            rows = [_row(env, worker, case, options) for case in named(random)]
            done = [row for row in rows if row is not None]
            report.at_most("of_forecast", max(_off(row.times) for row in done), "20 wide circuits")
            report.at_most("of_memory", max(row.memory for row in done), "20 wide circuits")
        rows = [
            _row(env, worker, case, options) for case in families(options.circuits, options.seed)
        ]
    done = [row for row in rows if row is not None]
    _table(done)
    ran = [row for row in done if not row.is_refused]
    refused_s = max((row.seconds for row in done if row.is_refused), default=0.0)
    label = f"{len(ran)} random circuits of {len(rows)}"
    good = sum(row.times <= 4.0 and row.memory <= 1.5 and not row.failed for row in ran)
    report.at_least("share", good / max(1, len(ran)), f"{label}: within 4 times, memory 1.5")
    report.at_most("ended", sum("memory" in row.failed for row in ran), f"{label}: out of memory")
    report.at_most("refused_s", refused_s, "longest time of a refusal, s")
    return report


def named(random: np.random.Generator) -> Iterator[Case]:
    """Yield 20 circuits: those of which forecasts were wrong, and others that no model was made
    from."""
    for name, qubits, *shape in (
        ("Y1", 36, 20, 7, 3), ("strides 30 x 12", 30, 12, 11, 5), ("strides 42 x 6", 42, 6, 5, 2),
    ):  # fmt: skip
        layers = stride_layers(qubits, *shape)
        yield Case(name, measured(qubits, layers), FEW, "contraction")
    for qubits, steps in ((30, 2), (40, 3), (60, 2), (60, 3)):
        circuit = measured(qubits, _ising(qubits, steps))
        yield Case(f"Ising {qubits} x {steps}", circuit, SHOTS, "contraction")
    for rows, columns, depth in ((5, 6, 6), (6, 6, 6), (5, 9, 5)):
        layers = grid(rows, columns, depth, random)
        circuit = measured(rows * columns, layers)
        yield Case(f"lattice {rows} x {columns} x {depth}", circuit, 100, "contraction")
    for qubits, layers in ((40, 1), (60, 1), (30, 2), (40, 2)):
        graph = networkx.random_regular_graph(3, qubits, seed=int(random.integers(2**31)))
        gates = qaoa(qubits, list(graph.edges), layers, 0.6, 0.8)
        yield Case(f"QAOA {qubits} x {layers}", measured(qubits, gates), 100, "contraction")
    for qubits, count in ((40, 70), (48, 60)):
        circuit = measured(qubits, _pairs(qubits, count, random))
        yield Case(f"pairs {qubits}, {count}", circuit, 100, "contraction")
    noise = aer_noise(relax=True, scale=1.0) if installed("qiskit_aer") else None
    for qubits, steps in ((30, 2), (60, 3)):
        circuit = measured(qubits, _ising(qubits, steps))
        yield Case(f"noisy Ising {qubits} x {steps}", circuit, SHOTS, "sweep", noise)
    for qubits, depth in ((40, 8), (60, 6)):
        gates = brickwork(qubits, depth, int(random.integers(2**31)))
        yield Case(f"chain {qubits} x {depth}", measured(qubits, gates), SHOTS, "mps")


def families(count: int, seed: int) -> Iterator[Case]:
    """Yield random circuits of the families in turn, each from a seed of its own."""
    for number in range(count):
        name = list(FAMILIES)[number % len(FAMILIES)]
        circuit = family_circuit(name, np.random.default_rng([seed, number]))
        yield Case(f"{name} {number}", circuit)


def _ising(qubits: int, steps: int) -> list[Gate]:
    edges = part(heavy_hex(7, 15), qubits)
    result: list[Gate] = []
    for _ in range(steps):
        result += [("rx", (q,), (0.6,)) for q in range(qubits)]
        result += [("rzz", edge, (-np.pi / 2,)) for edge in edges]
    return [*result, *(("rx", (q,), (0.6,)) for q in range(qubits))]


def _pairs(qubits: int, count: int, random: np.random.Generator) -> Iterator[Gate]:
    yield from (("h", (q,), ()) for q in range(qubits))
    for _ in range(count):
        one, two = (int(q) for q in random.choice(qubits, 2, replace=False))
        yield "cz", (one, two), ()
        yield "ry", (one,), (random.uniform(0, 3),)
        yield "rx", (two,), (random.uniform(0, 3),)


class Worker:
    """Memory of the worker's process."""

    def __init__(self, pid: int) -> None:
        self._pid, self._folder = pid, Path(f"/proc/{pid}")
        self._idle = self._bytes("VmRSS")
        self._begun_s = self._cpu_s()

    def begin(self) -> None:
        """Forget the peak so far: proc(5)."""
        (self._folder / "clear_refs").write_text("5")
        self._begun_s = self._cpu_s()

    def cpu_s(self) -> float:
        """CPU seconds of all its threads since `begin`."""
        return self._cpu_s() - self._begun_s

    def growth(self) -> int:
        """Bytes of the peak since `begin` above the worker without a task."""
        return max(0, self._bytes("VmHWM") - self._idle)

    def _cpu_s(self) -> float:
        user, system = psutil.Process(self._pid).cpu_times()[:2]
        return float(user + system)

    def _bytes(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def _row(env: Client, worker: Worker, case: Case, options: Namespace) -> Row | None:
    """Explain and run a circuit; None: its forecast is too long."""
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
        env.run(_SMALL, shots=1, engine="statevector")
        worker.begin()
        task = env.submit(case.circuit, seed=options.seed, **asked)
    except SimenvError as error:
        refused_s = time.perf_counter() - began
        print(f"{case.name:22}refused in {refused_s:.2f} s: {error}"[:160])
        return Row(case, "", 0.0, 0.0, is_refused=True, seconds=refused_s)
    failed, run_s = "", 0.0
    try:
        run_s = task.result(timeout=4 * options.most_s).timing.run_s
        if options.cpu:
            run_s = worker.cpu_s()
    except (SimenvError, TimeoutError) as error:
        failed = f"{type(error).__name__}: {error}"
        task.cancel()
    times = max(run_s, LEAST_S) / max(chosen.seconds, LEAST_S) if not failed else float("inf")
    used = worker.growth()
    print(
        f"{case.name:22}{chosen.engine:12}{chosen.seconds:9.3f}{run_s:9.3f} s{times:7.2f}"
        f"{chosen.memory_bytes / 2**20:7.0f}{used / 2**20:7.0f} MiB  {failed[:90]}",
        flush=True,
    )
    return Row(case, chosen.engine, times, used / chosen.memory_bytes, failed)


def _off(times: float) -> float:
    return max(times, 1.0 / times)


def _table(rows: list[Row]) -> None:
    """Print the times and the memory of each engine relative to the forecasts."""
    by_engine: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_engine[row.engine or "refused"].append(row)
    print(f"\n{'engine':14}{'circuits':>9}{'median':>8}{'fastest':>8}{'slowest':>8}{'memory':>8}")
    for engine, own in sorted(by_engine.items()):
        times = [row.times for row in own]
        worst = max(own, key=lambda row: row.times).case.name
        print(
            f"{engine:14}{len(own):9}{np.median(times):8.2f}{min(times):8.2f}{max(times):8.2f}"
            f"{max(row.memory for row in own):8.2f}  {worst}"
        )
