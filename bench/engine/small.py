"""Small circuits on one thread, without a service: packing, first and later runs, histories."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit.library import n_local

import simenv
from bench import harness
from bench.circuits import ANY, gates, measured, random_gates
from bench.harness.kernels import load_kernels
from bench.peers import libraries as peers
from bench.peers.simenv_engine import WorkerTask, chunk
from simenv.client.circuits import load, native
from simenv.model import TaskOptions
from simenv.wire.messages.client import AssignedTask
from simenv.worker.runner import Runner

SHOTS = 1_024
SMALL_GATES, CIRCUITS, CALLS = 30, 16, 400  # circuits take turns; calls of a round
AER_AT_ONCE = "aer, 100 at once"
SWEEPS = ((4, 3, 4_096), (8, 4, 2_048))  # qubits, layers, bindings


@harness.benchmark(rounds=(7, 2))
def small(report: harness.Report, options: Namespace) -> None:
    """One call of the engine for a small circuit, compared with qulacs and Aer.

    A call runs 1,024 shots of 30 gates with a new seed; the circuits take turns, so that branch
    predictors cannot learn one. The peers run in their fastest way: their circuits are built before
    the clock starts, they use one thread, and Aer gets one circuit or a hundred at a time. Times
    are those of one circuit, medians of the rounds. Then bindings per second on one core.
    """
    load_kernels()
    runner = Runner()
    runner.engine("statevector")
    for n in (3, 4, 6, 8, 10, 12):
        us = harness.medians(harness.in_rounds(dict(_small_calls(runner, n)), options.rounds))
        print(f"{n:2d} qubits: " + ", ".join(f"{name} {each:.1f}" for name, each in us.items()))
        report.at_most(f"us_{n}", us["ours"])
        for goal, name in (("of_qulacs", "qulacs"), ("of_aer", "Aer")) if n <= 10 else ():
            peer = [value for key, value in us.items() if key.startswith(name.lower())]
            report.share(goal, us["ours"], peer, f"{n} qubits", f"{name} is not installed")
    for n, layers, rows in SWEEPS:
        circuit = n_local(n, "ry", "cx", "linear", reps=layers, skip_final_rotation_layer=True)
        circuit.measure_all()
        loaded = load(circuit)
        values = np.random.default_rng(1).uniform(0, 6.28, (rows, loaded.program.num_slots))
        call = _task(runner, [loaded.packed], values.tobytes(), rows)
        us = harness.medians(harness.in_rounds({"": partial(_median_us, call, 3)}, options.rounds))
        report.at_least(f"bindings_{n}", rows / (1e-6 * us[""]))


def _median_us(call: Callable[[], object], calls: int, _: int = 0, each: int = 1) -> float:
    return 1e6 * statistics.median(harness.repeated_s(call, calls)) / each


def _small_calls(runner: Runner, n: int) -> Iterator[tuple[str, Callable[[int], float]]]:
    """Yield the median microseconds of a round of our engine and of the installed peers."""
    gate_lists = [gates(n, SMALL_GATES, seed) for seed in range(CIRCUITS)]
    circuits = [measured(n, each) for each in gate_lists]
    yield (
        "ours",
        partial(_median_us, _task(runner, [load(each).packed for each in circuits]), CALLS),
    )
    seeds = itertools.count(1)
    if harness.installed("qulacs"):
        import qulacs

        jobs = itertools.cycle([peers.qulacs_circuit(n, each) for each in gate_lists])
        state = qulacs.QuantumState(n)

        def with_qulacs() -> object:
            state.set_zero_state()
            next(jobs).update_quantum_state(state)
            return state.sampling(SHOTS, next(seeds))

        yield "qulacs", partial(_median_us, with_qulacs, CALLS)
    if harness.installed("qiskit_aer"):
        turns, simulator = itertools.cycle(circuits), peers.simulator()

        def with_aer(batch: list[QuantumCircuit]) -> object:
            return simulator.run(batch, shots=SHOTS, seed_simulator=next(seeds)).result()

        yield "aer", partial(_median_us, lambda: with_aer([next(turns)]), 3)
        hundred = (circuits * 7)[:100]
        yield AER_AT_ONCE, partial(_median_us, lambda: with_aer(hundred), 3, each=100)


def _task(
    runner: Runner, programs: list[bytes], values: bytes = b"", rows: int = 1
) -> Callable[[], object]:
    """Return a call of a task, each of one of the programs in turn, with a new seed."""
    turns, seeds, terms, where = (
        itertools.cycle(programs),
        itertools.count(1),
        TaskOptions(),
        chunk(1),
    )

    def call() -> object:
        program, seed = next(turns), next(seeds)
        assigned = AssignedTask(1, 1, 0, program, SHOTS, seed, values, 0, count=rows)
        return runner.run(assigned, terms, where, 0).payload

    return call


# --- first runs -----------------------------------------------------------------------------------

KINDS = {"any": ANY, "native": {"rz": 1, "sx": 0, "x": 0, "cx": 0}}
SIZES = ((14, 450, "double"), (14, 450, "single"), (10, 1_250, "double"))
CASES = [(*size, kind) for size in SIZES for kind in KINDS]


@harness.benchmark(circuits=(25, 5), seed=harness.SEED)
def first_run(report: harness.Report, options: Namespace) -> None:
    """First run of a circuit's structure, compared with a run whose plan is cached.

    Random circuits of 14 qubits with 400 to 500 gates, and of 10 qubits with 1,250 gates, of gates
    that a user writes (`any`) or of a native basis, each of a structure of its own: a worker's task
    of 1,024 shots, and the same task again. Then the whole path of the narrower circuits, from a
    new QuantumCircuit to the dict of counts. Medians over the circuits, of which the first loads
    kernels and does not count.
    """
    tasks = {each: WorkerTask(1, each, all_kernels=True) for each in ("double", "single")}
    labels = [f"{n} qubits, {number} gates, {kind}, {bits}" for n, number, bits, kind in CASES]
    for (n, number, bits, kind), label in zip(CASES, labels, strict=True):
        times = []
        for seed in range(options.seed, options.seed + options.circuits):
            packed = load(_random(kind, n, number, seed)).packed
            run = partial(tasks[bits].run_planned, packed)
            times.append([harness.timed_s(partial(run, turn)) for turn in (1, 2)])
        first, again = (1e3 * statistics.median(each) for each in zip(*times[1:], strict=True))
        print(f"{label}: first {first:.2f} ms, again {again:.2f}")
        report.at_most("of_again", first / again, label)
    with simenv.local(workers=1) as client:
        for (n, number, bits, kind), label in list(zip(CASES, labels, strict=True))[-2:]:
            path_s = []
            for seed in range(options.seed + 10_000, options.seed + 10_000 + options.circuits):
                circuit = _random(kind, n, number, seed)
                call = partial(client.run, circuit, shots=SHOTS, precision=bits, seed=0)
                seconds, counts = harness.timed(lambda call=call: call().counts)
                assert sum(counts.values()) == SHOTS
                path_s.append(seconds)
            report.seconds("path_10_ms", path_s[1:], label)


def _random(kind: str, num_qubits: int, number: int, seed: int) -> QuantumCircuit:
    random = np.random.default_rng(seed)
    number += int(random.integers(-number // 10, number // 10))
    return measured(num_qubits, random_gates(num_qubits, number, random, KINDS[kind]))


# --- packing --------------------------------------------------------------------------------------

PACKED = ((4, 30, 400), (8, 100, 150), (20, 10_000, 2))  # qubits, gates, circuits
START = """
import time
from qiskit import QuantumCircuit
from simenv.client.circuits import load, native
load(QuantumCircuit(1))
begin = time.thread_time()
assert native.CHOICE.prepare(), native.CHOICE.build_error
print(time.thread_time() - begin)
"""


@harness.benchmark(rounds=(30, 5))
def packing(report: harness.Report, options: Namespace) -> None:
    """Packing a QuantumCircuit into a task's bytes: the compiled walk and the Python walk.

    Every circuit is new. Figures are CPU seconds of this thread in `load`, both walks in turns. The
    time until the compiled walk is ready is measured in fresh processes.
    """
    walks = {"compiled": native.EncoderSelector(), "walked": native.EncoderSelector()}
    if not walks["compiled"].prepare():
        error = walks["compiled"].build_error
        return report.none_measured(error)
    walks["walked"].build_error = "this one is to walk"

    def pack(name: str, sources: list[QuantumCircuit]) -> list[bytes]:
        native.CHOICE = walks[name]
        return [load(source).packed for source in sources]

    us: dict[tuple[str, int], float] = {}  # an operation
    for qubits, number, count in PACKED:
        circuits = [measured(qubits, gates(qubits, number, seed)) for seed in range(count)]
        assert pack("compiled", circuits) == pack("walked", circuits)
        calls = {name: partial(pack, name, circuits) for name in walks}
        for name, seconds in harness.medians(
            harness.rounds_of(calls, options.rounds, 0, time.thread_time)
        ).items():
            us[name, number] = 1e6 * seconds / count / (number + qubits)
    report.at_most("compiled_34_us", us["compiled", 30])
    report.at_most("compiled_10020_us", us["compiled", 10_000])
    report.at_most("walked_us", max(us["walked", 30], us["walked", 10_000]))
    command = [sys.executable, "-c", START]
    runs = [subprocess.run(command, capture_output=True, check=True) for _ in range(7)]
    report.seconds("ready_ms", [float(run.stdout) for run in runs])


# --- histories ------------------------------------------------------------------------------------


@harness.benchmark(rounds=(5, 2), circuits=(5, 2), seed=harness.SEED)
def dynamic_circuits(report: harness.Report, options: Namespace) -> None:
    """Small dynamic circuits with hundreds of branches.

    Random circuits with loops over rotations, entangling gates, mid-circuit measurements, resets
    and conditional gates, so that nearly every history of outcomes leads to a state of its own;
    1,000 shots as a worker's task, the structure seen for the first time. Medians of the rounds;
    the slowest circuit is judged.
    """
    task = WorkerTask(1, shots=1_000, all_kernels=True)
    task.run(load(_random_history(2, options.seed - 1)).packed)  # load the kernels
    for width in (2, 3, 6):
        times, branches = [], []
        for number in range(options.circuits):
            packed = load(_random_history(width, options.seed + 100 * width + number)).packed
            seconds = harness.repeated_s(partial(task.run, packed), options.rounds)
            times.append(statistics.median(seconds))
            branches.append(task.branches())
        print(f"{width} qubits, branches {branches}: {[f'{1e3 * each:.1f}' for each in times]} ms")
        report.seconds("circuit_ms", max(times), f"{width} qubits, slowest circuit")


def _random_history(num_qubits: int, seed: int) -> QuantumCircuit:
    random = np.random.default_rng(seed)
    bits = ClassicalRegister(num_qubits, "c")
    circuit = QuantumCircuit(QuantumRegister(num_qubits, "q"), bits)

    def pair() -> Any:
        return random.choice(num_qubits, 2, replace=False).tolist()

    def turn(qubit: int) -> None:
        circuit.u(*random.uniform(-3, 3, 3).tolist(), qubit)

    for qubit in range(num_qubits):
        circuit.ry(random.uniform(0.3, 2.8), qubit)
    with circuit.for_loop(range(4)):
        for _ in range(6):
            a, b = pair()
            turn(a)
            circuit.cx(a, b)
        a, b = pair()
        circuit.measure(a, bits[a])
        with circuit.if_test((bits[a], 1)):
            circuit.ry(random.uniform(0.3, 2.8), b)
            circuit.cz(a, b)
        turn(a)
        circuit.measure(b, bits[b])
        if num_qubits > 2:
            turn(b)
            circuit.reset(a)
    for qubit in range(num_qubits):
        circuit.ry(random.uniform(0.3, 2.8), qubit)
        circuit.measure(qubit, bits[qubit])
    return circuit
