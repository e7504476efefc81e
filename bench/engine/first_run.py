"""First run of a circuit's structure, compared with a run whose plan is cached.

Random circuits of 14 qubits with 400 to 500 gates, and of 10 qubits with 1,250 gates, consist of
gates that a user writes (`any`) or of a native basis (`native`); every circuit has a structure of
its own. Ours is a worker's task: packed Program in, packed counts out, 1,024 shots; the same task
is run again with the cached plan. Then the whole path of the narrower circuits through a running
environment is timed, from a new QuantumCircuit to the dict of counts. Everything uses one thread;
times are medians over the circuits. The first circuit, which is not counted, loads kernels.
"""

from __future__ import annotations

import os
import statistics
from argparse import Namespace
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import simenv
from bench.circuits import measured
from bench.harness import CPU, SEED, Option, Report, clock_of, timed, timed_s
from bench.peers.base import Gate
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load

SHOTS = 1_024
SIZES = ((14, 450, "double"), (14, 450, "single"), (10, 1_250, "double"))
CASES = [(*size, kind) for size in SIZES for kind in ("any", "native")]
_ANY = {"h": 0, "t": 0, "rx": 1, "ry": 1, "u": 3, "cx": 0, "cz": 0, "cp": 1, "rzz": 1, "swap": 0}
_NATIVE = {"rz": 1, "sx": 0, "x": 0, "cx": 0}
_PAIRS = ("cx", "cz", "cp", "rzz", "swap")
OPTIONS = (Option("--circuits", default=25, quick=5), CPU, SEED)


def run(options: Namespace) -> Report:
    report = Report("first_run", f"first sight of a structure, seed {options.seed}, ms")
    clock = clock_of(cpu=options.cpu)
    tasks = {each: WorkerTask(1, each, all_kernels=True) for each in ("double", "single")}
    for num_qubits, gates, precision, kind in CASES:
        run, times = tasks[precision].run_planned, []
        for seed in range(options.seed, options.seed + options.circuits):
            packed = load(measured(num_qubits, random_gates(kind, num_qubits, gates, seed))).packed
            times.append([timed_s(partial(run, packed, turn), clock) for turn in (1, 2)])
        first, again = (1e3 * statistics.median(each) for each in zip(*times[1:], strict=True))
        label = f"{num_qubits} qubits, {gates} gates, {kind}, {precision}"
        print(f"{label}: first {first:.2f}, again {again:.2f}")
        report.at_most("of_again", first / again, f"{label}, first of again")
    with simenv.local(workers=1) as client:
        for num_qubits, gates, precision, kind in CASES[-2:]:
            path_s = []
            for seed in range(options.seed + 10_000, options.seed + 10_000 + options.circuits):
                circuit = measured(num_qubits, random_gates(kind, num_qubits, gates, seed))
                call = partial(client.run, circuit, shots=SHOTS, precision=precision)
                seconds, counts = timed(lambda call=call: call(seed=0).counts)
                assert sum(counts.values()) == SHOTS
                path_s.append(seconds)
            label = f"{num_qubits} qubits, {gates} gates, {kind}, {precision}"
            middle = 1e3 * statistics.median(path_s[1:])
            report.at_most("path_10_ms", middle, f"whole path, {label}, first")
    return report


def random_gates(kind: str, num_qubits: int, gates: int, seed: int) -> list[Gate]:
    """Return gates of that kind on random qubits."""
    random = np.random.default_rng(seed)
    params = _ANY if kind == "any" else _NATIVE
    names = list(params)
    results: list[Gate] = []
    for _ in range(gates + int(random.integers(-gates // 10, gates // 10))):
        name = names[int(random.integers(len(names)))]
        qubits = random.choice(num_qubits, 2 if name in _PAIRS else 1, replace=False).tolist()
        results.append((name, tuple(qubits), tuple(random.uniform(-3, 3, params[name]).tolist())))
    return results
