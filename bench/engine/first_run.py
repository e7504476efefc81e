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
import time
from argparse import Namespace
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("QULACS_NUM_THREADS", "1")

import numpy as np

import simenv
from bench.circuits import measured
from bench.harness import CPU, SEED, Option, Report, Times, clock_of, installed, medians, timed_s
from bench.peers import qulacs as qulacs_peer
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simenv.model import decode_program
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error

SHOTS = 1_024
SIZES = ((14, 450, "double"), (14, 450, "single"), (10, 1_250, "double"))
KINDS = ("any", "native")
CASES = [(*size, kind) for size in SIZES for kind in KINDS]
Gate = tuple[str, list[int], list[float]]
_ANY = {"h": 0, "t": 0, "rx": 1, "ry": 1, "u": 3, "cx": 0, "cz": 0, "cp": 1, "rzz": 1, "swap": 0}
_NATIVE = {"rz": 1, "sx": 0, "x": 0, "cx": 0}
_PAIRS = ("cx", "cz", "cp", "rzz", "swap")
OPTIONS = (
    Option("--circuits", type=int, default=25, quick=5),
    CPU,
    Option("--without", default="", help="path: the engine's part alone"),
    SEED,
)


def run(options: Namespace) -> Report:
    report = Report("first_run", f"first sight of a structure, seed {options.seed}, ms")
    clock = clock_of(cpu=options.cpu)
    tasks = {each: WorkerTask(1, each, all_kernels=True) for each in ("double", "single")}
    for num_qubits, gates, precision, kind in CASES:
        run = tasks[precision].run_planned
        times: Times = {"first": [], "again": [], "qulacs": []}
        for seed in range(options.seed, options.seed + options.circuits):
            gate_list = random_gates(kind, num_qubits, gates, seed)
            packed = load(measured(num_qubits, gate_list)).packed
            times["first"].append(timed_s(partial(run, packed, 1), clock))
            times["again"].append(timed_s(partial(run, packed, 2), clock))
            if installed("qulacs"):
                circuit = qulacs_peer.circuit(num_qubits, gate_list)
                sample = partial(qulacs_peer.sample, num_qubits, circuit, SHOTS)
                times["qulacs"].append(timed_s(sample, clock))
        ms = _medians_ms(times)
        label = f"{num_qubits} qubits, {gates} gates, {kind}, {precision}"
        print(f"{label}: " + ", ".join(f"{name} {each:.2f}" for name, each in ms.items()))
        report.at_most("of_again", ms["first"] / ms["again"], f"{label}, first of again")
    if options.without != "path":
        _path(report, options)
    return report


def _medians_ms(times: Times) -> dict[str, float]:
    """Return the medians in milliseconds without the first circuit, which loads kernels."""
    return {
        name: 1e3 * each
        for name, each in medians({k: v[1:] for k, v in times.items() if v}).items()
    }


def _path(report: Report, options: Namespace) -> None:
    """Time the whole path, from a new QuantumCircuit to the dict of counts."""
    with simenv.local(workers=1) as client:
        for num_qubits, gates, precision, kind in CASES:
            times: Times = {"first": [], "again": [], "packing": [], "admission": []}
            for number in range(options.circuits):
                seed = options.seed + 10_000 + number
                circuit = measured(num_qubits, random_gates(kind, num_qubits, gates, seed))
                packing = timed_s(lambda c=circuit: load(c), time.thread_time)
                program = decode_program(load(circuit).packed)
                admission = timed_s(lambda p=program: _admission_checks(p), time.thread_time)
                times["packing"].append(packing)
                times["admission"].append(admission)
                for turn, name in enumerate(("first", "again")):
                    begin = time.perf_counter()
                    result = client.run(circuit, shots=SHOTS, seed=turn, precision=precision)
                    assert sum(result.counts.values()) == SHOTS
                    times[name].append(time.perf_counter() - begin)
            ms = _medians_ms(times)
            label = f"{num_qubits} qubits, {gates} gates, {kind}, {precision}"
            print(
                f"whole path, {label}: first {ms['first']:.2f}, again {ms['again']:.2f}; of it"
                f" packing {ms['packing']:.2f} and admission {ms['admission']:.2f} of the"
                " processor's time"
            )
            if num_qubits == 10:
                report.at_most("path_10_ms", ms["first"], f"whole path, {label}, first")


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
