"""First run of a circuit's structure, compared with a run whose plan is cached.

Random circuits of 14 qubits with 400 to 500 gates, and of 10 qubits with 1,250 gates, consist of
gates that a user writes (`any`) or of a native basis (`native`); every circuit has a structure of
its own. Ours is a worker's task: packed Program in, packed counts out, 1,024 shots; the same task
is run again with the cached plan. qulacs runs in the same rounds; its circuit is built before the
clock starts. Then the whole path through a running environment is timed, from a new QuantumCircuit
to the dict of counts, together with the CPU time of packing in the client and of admission in the
service. Everything uses one thread; times are medians over the circuits. A first round, which is
not counted, loads kernels.

    python -m bench run first_run [--circuits 25] [--cpu] [--without path]

`--cpu`: CPU seconds instead of wall time, for the engine's part.
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from bench.harness.options import Option

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("QULACS_NUM_THREADS", "1")

import numpy as np

import simenv
from bench.circuits import measured
from bench.harness.kernels import load_kernels
from bench.harness.report import Report, installed
from bench.harness.timing import clock_of, timed_s
from bench.peers import qulacs as qulacs_peer
from simenv.client.circuits import load
from simenv.model import TaskOptions, TaskState, decode_program
from simenv.wire.messages.client import STATES, AssignChunk, AssignedTask
from simenv.worker.runner import Runner
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error

SHOTS = 1_024
SIZES = ((14, 450, "double"), (14, 450, "single"), (10, 1_250, "double"))
KINDS = ("any", "native")
CHUNK = AssignChunk(1, 2**30, False, "statevector", "bench", [], [])
Gate = tuple[str, list[int], list[float]]
_ANY = {"h": 0, "t": 0, "rx": 1, "ry": 1, "u": 3, "cx": 0, "cz": 0, "cp": 1, "rzz": 1, "swap": 0}
_NATIVE = {"rz": 1, "sx": 0, "x": 0, "cx": 0}
_PAIRS = ("cx", "cz", "cp", "rzz", "swap")
OPTIONS = (
    Option("--circuits", type=int, default=25, quick=5),
    Option("--cpu", action="store_true"),
    Option("--without", default="", help="path: the engine's part alone"),
    Option("--seed", type=int, default=time.time_ns() & 4294967295),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("first_run", f"first sight of a structure, seed {options.seed}, ms")
    clock = clock_of(cpu=options.cpu)
    load_kernels(all_kernels=True)
    runner = Runner()
    runner.engine("statevector").warm_up()
    peer = _prepare_qulacs if installed("qulacs") else None
    for num_qubits, gates, precision in SIZES:
        for kind in KINDS:
            seeds = range(options.seed, options.seed + options.circuits)
            results = [random_gates(kind, num_qubits, gates, seed) for seed in seeds]
            _engine(report, runner, peer, results, kind, (num_qubits, gates, precision), clock)
    if options.without != "path":
        _path(report, options)
    return report


def _engine(
    report: Report,
    runner: Runner,
    peer: Callable[[int, list[Gate]], Callable[[], object]] | None,
    circuits: list[list[Gate]],
    kind: str,
    shape: tuple[int, int, str],
    clock: Callable[[], float],
) -> None:
    num_qubits, gates, precision = shape
    terms = TaskOptions(precision=precision)
    first: list[float] = []
    again: list[float] = []
    entries: list[float] = []
    for gate_list in circuits:
        packed = load(measured(num_qubits, gate_list)).packed

        def run(seed: int, packed: bytes = packed) -> None:
            assigned = AssignedTask(1, 1, 0, packed, SHOTS, seed, b"", 0)
            finished = runner.run(assigned, terms, CHUNK, 0)
            assert STATES[finished.state] is TaskState.DONE, finished.payload

        first.append(timed_s(lambda run=run: run(1), clock))
        again.append(timed_s(lambda run=run: run(2), clock))
        if peer is not None:
            entries.append(timed_s(peer(num_qubits, gate_list), clock))
    cold, warm = (1e3 * statistics.median(each[1:]) for each in (first, again))
    label = f"{num_qubits} qubits, {gates} gates, {kind}, {precision}"
    other = f", qulacs {1e3 * statistics.median(entries[1:]):.2f}" if entries else ""
    print(f"{label}: first {cold:.2f}, again {warm:.2f}{other}")
    report.at_most("of_again", cold / warm, f"{label}, first of again")


def _path(report: Report, options: Namespace) -> None:
    """Time the whole path, from a new QuantumCircuit to the dict of counts."""
    with simenv.local(workers=1) as client:
        for num_qubits, gates, precision in SIZES:
            for kind in KINDS:
                times: list[list[float]] = [[], []]
                own: list[list[float]] = [[], []]
                for number in range(options.circuits):
                    seed = options.seed + 10_000 + number
                    circuit = measured(num_qubits, random_gates(kind, num_qubits, gates, seed))
                    own[0].append(timed_s(lambda c=circuit: load(c), time.thread_time))
                    program = decode_program(load(circuit).packed)
                    own[1].append(timed_s(lambda p=program: _admission_checks(p), time.thread_time))
                    for turn in (0, 1):
                        begin = time.perf_counter()
                        result = client.run(circuit, shots=SHOTS, seed=turn, precision=precision)
                        assert sum(result.counts.values()) == SHOTS
                        times[turn].append(time.perf_counter() - begin)
                cold, warm, packing, admission = (
                    1e3 * statistics.median(each[1:]) for each in (*times, *own)
                )
                label = f"{num_qubits} qubits, {gates} gates, {kind}, {precision}"
                print(
                    f"whole path, {label}: first {cold:.2f}, again {warm:.2f}; of it packing"
                    f" {packing:.2f} and admission {admission:.2f} of the processor's time"
                )
                if num_qubits == 10:
                    report.at_most("path_10_ms", cold, f"whole path, {label}, first")


def _admission_checks(program: Any) -> object:
    """Validate and profile a program, as the service does on admission."""
    circuit = Circuit.from_program(program)
    assert validation_error(circuit) == ""
    return profile(circuit, ("counts",), ())


def random_gates(kind: str, num_qubits: int, gates: int, seed: int) -> list[Gate]:
    """Return gates of that kind on random qubits."""
    random = np.random.default_rng(seed)
    params = _ANY if kind == "any" else _NATIVE
    names = list(params)
    results = []
    for _ in range(gates + int(random.integers(-gates // 10, gates // 10))):
        name = names[int(random.integers(len(names)))]
        qubits = random.choice(num_qubits, 2 if name in _PAIRS else 1, replace=False).tolist()
        results.append((name, qubits, random.uniform(-3, 3, params[name]).tolist()))
    return results


def _prepare_qulacs(num_qubits: int, gates: list[Gate]) -> Callable[[], object]:
    circuit = qulacs_peer.circuit(num_qubits, gates)
    return lambda: qulacs_peer.sample(num_qubits, circuit, SHOTS)
