"""Cases of `simenv bench`: each case measures its rounds and reports their median.

The clock runs from the user's circuit objects to the counts that the user receives; only the
circuit objects and the arrays of angles are made before it starts. Goals are for two workers on two
cores of a 2.5 GHz server, with `durability=accepted`; `bench/goals.toml` holds the same ones.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from simenv.cli.bench.circuits import ansatz, layered

if TYPE_CHECKING:
    from simenv.client.client import Client


class Figure(msgspec.Struct, frozen=True):
    """One row of the table. `goal` 0.0: none."""

    name: str
    value: float
    unit: str
    goal: float
    higher_is_better: bool
    met: str  # yes, no, or - without a goal
    rounds: int
    what: str


def figure(
    name: str, rounds: list[float], unit: str, goal: float, what: str, *, less: bool = False
) -> Figure:
    """Return the row of the median of rounds, judged by its goal; `less`: the goal is an upper
    bound."""
    value = statistics.median(rounds)
    good = value <= goal if less else value >= goal
    met = "-" if not goal else "yes" if good else "no"
    return Figure(name, value, unit, goal, not less, met, len(rounds), what)


LATENCY_MS = {"accepted": 0.6, "process": 0.35, "power": 0.0}  # by durability
CIRCUITS = {4: 30_000.0, 8: 15_000.0, 12: 4_000.0}  # a second, by qubits
ALONE = 5_000.0
BINDINGS = {4: 100_000.0, 8: 30_000.0}
LOOP_MS = 1.5
ENGINE_US = {4: 10.0, 8: 15.0, 10: 30.0, 12: 60.0}


SHOTS = 1_024
OPERATIONS = {4: 30, 8: 60, 10: 75, 12: 92}
SWEEPS = {4: (12, 25), 8: (32, 68)}  # parameters, operations
LOOP_BINDINGS = 128


class CaseSize(msgspec.Struct, frozen=True):
    """Amount of work of each case."""

    rounds: int
    sequential: int  # circuits, each awaited before the next
    circuits: dict[int, int]  # by number of qubits, in one call
    alone: int  # sent one by one
    bindings: dict[int, int]
    loops: int
    calls: int  # calls of the engine


QUICK = CaseSize(3, 50, {4: 400, 8: 200, 12: 50}, 150, {4: 4_000, 8: 1_500}, 10, 100)
WHOLE = CaseSize(7, 400, {4: 6_000, 8: 3_000, 12: 800}, 1_500, {4: 40_000, 8: 16_000}, 60, 2_000)


def latency(client: Client, size: CaseSize) -> list[Figure]:
    """Measure the latency of circuits, each awaited before the next is submitted."""
    middle, late = [], []
    for number in range(size.rounds):
        times = []
        for k, circuit in enumerate(layered(4, OPERATIONS[4], size.sequential, number)):
            begin = time.perf_counter()
            counts = client.submit(circuit, shots=SHOTS, seed=k).result().counts
            times.append(1e3 * (time.perf_counter() - begin))
            _check(counts)
        middle.append(statistics.median(times))
        late.append(float(np.percentile(times, 99)))
    durability = client.status().durability
    what = f"4 qubits, submit to counts, durability {durability}"
    goal = LATENCY_MS.get(durability, 0.0)
    return [
        figure("latency p50", middle, "ms", goal, what, less=True),
        figure("latency p99", late, "ms", 0.0, what, less=True),
    ]


def throughput(client: Client, size: CaseSize, num_qubits: int) -> Figure:
    """Measure the rate of new circuits that are submitted in one call."""
    number = size.circuits[num_qubits]
    rates = []
    for k in range(size.rounds):
        circuits = layered(num_qubits, OPERATIONS[num_qubits], number, k)
        begin = time.perf_counter()
        for task in client.submit_many(circuits, shots=SHOTS, seed=k):
            _check(task.result().counts)
        rates.append(number / (time.perf_counter() - begin))
    what = f"{num_qubits} qubits, {OPERATIONS[num_qubits]} operations, new circuits in one call"
    return figure(f"circuits {num_qubits}", rates, "1/s", CIRCUITS[num_qubits], what)


def alone(client: Client, size: CaseSize) -> Figure:
    """Measure the rate of new circuits that are submitted one by one without waiting."""
    rates = []
    for k in range(size.rounds):
        circuits = layered(4, OPERATIONS[4], size.alone, k)
        begin = time.perf_counter()
        tasks = [client.post(circuit, shots=SHOTS, seed=i) for i, circuit in enumerate(circuits)]
        for task in tasks:
            _check(task.result().counts)
        rates.append(size.alone / (time.perf_counter() - begin))
    what = "4 qubits, sent one by one, none waited for"
    return figure("one by one", rates, "1/s", ALONE, what)


def bindings(client: Client, size: CaseSize, num_qubits: int) -> Figure:
    """Measure the rate of one circuit with many sets of angles in one call; results stay packed."""
    parameters, operations = SWEEPS[num_qubits]
    number = size.bindings[num_qubits]
    circuit = ansatz(num_qubits, parameters, operations)
    rates = []
    for k in range(size.rounds):
        values = np.random.default_rng(k).uniform(0, 6, (number, parameters))
        begin = time.perf_counter()
        for task in client.submit_many((circuit, values), shots=SHOTS, seed=k):
            task.result()
        rates.append(number / (time.perf_counter() - begin))
    what = f"{num_qubits} qubits, {parameters} angles, one call"
    return figure(f"bindings {num_qubits}", rates, "1/s", BINDINGS[num_qubits], what)


def loop(client: Client, size: CaseSize) -> Figure:
    """Measure repeated submissions of a set of bindings, each awaited, as an optimiser does."""
    parameters, operations = SWEEPS[4]
    circuit = ansatz(4, parameters, operations)
    medians = []
    for k in range(size.rounds):
        times = []
        for step in range(size.loops):
            values = np.random.default_rng(step).uniform(0, 6, (LOOP_BINDINGS, parameters))
            begin = time.perf_counter()
            for task in client.submit_many((circuit, values), shots=SHOTS, seed=k):
                task.result()
            times.append(1e3 * (time.perf_counter() - begin))
        medians.append(statistics.median(times))
    what = f"{LOOP_BINDINGS} bindings of 4 qubits, waited for"
    return figure("loop p50", medians, "ms", LOOP_MS, what, less=True)


def engine_calls(size: CaseSize) -> list[Figure]:
    """Measure the worker's part alone, in this process: from a program to packed counts."""
    return [
        figure(
            f"engine {num_qubits}",
            _call_us(num_qubits, size),
            "us",
            goal,
            f"{num_qubits} qubits, 30 gates, a program to packed counts, no service",
            less=True,
        )
        for num_qubits, goal in ENGINE_US.items()
    ]


def _call_us(num_qubits: int, size: CaseSize) -> list[float]:
    from simenv import config
    from simenv.client.circuits import load
    from simenv.model import TaskOptions
    from simenv.wire.messages.client import AssignChunk, AssignedTask
    from simenv.worker.runner import Runner
    from simulators.compiler import warmup

    warmup.compile_group(config.kernel_folder())
    runner, terms = Runner(), TaskOptions(engine="statevector")
    chunk = AssignChunk(1, 2**30, False, "statevector", "", [terms], [])
    medians = []
    for k in range(size.rounds):
        tasks = [
            AssignedTask(1, 1, 0, load(circuit).packed, SHOTS, seed, b"", 0)
            for seed, circuit in enumerate(layered(num_qubits, 30, size.calls, k))
        ]
        times = []
        for task in tasks:
            begin = time.perf_counter_ns()
            runner.run(task, terms, chunk, begin)
            times.append((time.perf_counter_ns() - begin) / 1e3)
        medians.append(statistics.median(times))
    return medians


def warm_up(client: Client) -> None:
    """Run circuits before the clock starts, so that kernels and plans are ready."""
    for num_qubits in CIRCUITS:
        for task in client.submit_many(
            layered(num_qubits, OPERATIONS[num_qubits], 200, 0), shots=1
        ):
            task.result()


def cases(size: CaseSize) -> list[Callable[[Client], list[Figure]]]:
    """Return all cases that need an environment, in the order of the table."""
    results: list[Callable[[Client], list[Figure]]] = [lambda client: latency(client, size)]
    for width in CIRCUITS:
        results.append(lambda client, width=width: [throughput(client, size, width)])  # type: ignore[misc]
    results.append(lambda client: [alone(client, size)])
    for width in BINDINGS:
        results.append(lambda client, width=width: [bindings(client, size, width)])  # type: ignore[misc]
    results.append(lambda client: [loop(client, size)])
    return results


def _check(counts: dict[str, int]) -> None:
    if sum(counts.values()) != SHOTS:
        raise AssertionError(f"a circuit of {SHOTS} shots has {sum(counts.values())} counts")
