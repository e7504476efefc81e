"""One call of the engine for a small circuit, compared with qulacs and Aer.

A call runs 1,024 shots of 30 gates with a new seed; the circuits take turns so that branch
predictors cannot learn one of them. The peers run in the same rounds in their fastest way: their
circuits are built before the clock starts, they use one thread, and Aer gets one circuit or a
hundred at a time. All times are those of one circuit: medians of interleaved rounds. Then sweeps
inside the engine are measured: bindings per second on one core.

    python -m bench run small [--rounds 7]
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

from bench.harness.options import Option

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import n_local

from bench.harness.kernels import load_kernels
from bench.harness.report import Report, installed
from bench.peers import aer as aer_peer, qulacs as qulacs_peer
from bench.small_circuits import Gate, built, gates
from simenv.client.circuits import load
from simenv.model import TaskOptions
from simenv.wire.messages.client import AssignChunk, AssignedTask
from simenv.worker.runner import Runner

SHOTS = 1_024
GATES = 30
WIDTHS = (3, 4, 6, 8, 10, 12)
CIRCUITS = 16  # number of circuits that take turns
CALLS = 400  # calls of our engine and of qulacs in a round
AER_AT_ONCE = "aer, 100 at once"
SWEEPS = ((4, 3, 4_096), (8, 4, 2_048))  # qubits, layers, bindings
Calls = dict[str, Callable[[], object]]
TERMS = TaskOptions()
CHUNK = AssignChunk(1, 2**30, False, "statevector", "bench", [], [])
OPTIONS = (Option("--rounds", type=int, default=7, quick=2),)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    load_kernels()
    runner = Runner()
    runner.engine("statevector")
    report = Report("small", f"engine call: {GATES} gates, {SHOTS} shots, new seeds, us")
    for num_qubits in WIDTHS:
        calls = {"ours": _ours(runner, num_qubits), **_peers(num_qubits)}
        times = {name: statistics.median(result) for name, result in _rounds(calls, options.rounds)}
        item = times["ours"]
        print(f"{num_qubits:2d} qubits: " + ", ".join(f"{k} {v:.1f}" for k, v in times.items()))
        report.at_most(f"us_{num_qubits}", item, f"{num_qubits} qubits")
        for goal, name in (("of_qulacs", "qulacs"), ("of_aer", "Aer")) if num_qubits <= 10 else ():
            peer = [us for key, us in times.items() if key.startswith(name.lower())]
            if peer:
                report.at_most(goal, item / min(peer), f"{num_qubits} qubits of {name}")
            else:
                report.not_measured(
                    goal, f"{num_qubits} qubits of {name}", f"{name} is not installed"
                )
    for num_qubits, layers, rows in SWEEPS:
        sweep = {"": _sweep(runner, num_qubits, layers, rows)}
        ((_, result),) = _rounds(sweep, options.rounds)
        rate = rows / (1e-6 * statistics.median(result))
        report.at_least(f"bindings_{num_qubits}", rate, f"bindings/s, {num_qubits} qubits, 1 core")
    return report


def _rounds(calls: Calls, rounds: int) -> Iterator[tuple[str, list[float]]]:
    """Return the median time of each call in each round, in microseconds."""
    entries: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            times = []
            for _ in range(CALLS if name in ("ours", "qulacs") else 3):
                begin = time.perf_counter_ns()
                call()
                times.append(1e-3 * (time.perf_counter_ns() - begin))
            if name == AER_AT_ONCE:
                times = [us / 100 for us in times]
            entries[name].append(statistics.median(times))
    return iter((name, times[1:]) for name, times in entries.items())  # the first round warms up


def _gate_lists(num_qubits: int) -> list[list[Gate]]:
    return [gates(num_qubits, GATES, seed) for seed in range(CIRCUITS)]


def _ours(runner: Runner, num_qubits: int) -> Callable[[], object]:
    created = [load(built(num_qubits, gates)).packed for gates in _gate_lists(num_qubits)]
    programs, seeds = itertools.cycle(created), itertools.count(1)

    def call() -> object:
        assigned = AssignedTask(1, 1, 0, next(programs), SHOTS, next(seeds), b"", 0)
        return runner.run(assigned, TERMS, CHUNK, 0).payload

    return call


def _peers(num_qubits: int) -> Calls:
    """Return the calls of the peers that are installed."""
    entries: Calls = {}
    created = _gate_lists(num_qubits)
    if installed("qulacs"):
        entries["qulacs"] = _qulacs(num_qubits, created)
    if installed("qiskit_aer"):
        entries |= _aer(num_qubits, created)
    return entries


def _qulacs(num_qubits: int, gate_lists: list[list[Gate]]) -> Callable[[], object]:
    import qulacs

    seeds = itertools.count(1)
    result = itertools.cycle(
        [qulacs_peer.single_angle_circuit(num_qubits, gates) for gates in gate_lists]
    )
    state = qulacs.QuantumState(num_qubits)

    def with_qulacs() -> object:
        state.set_zero_state()
        next(result).update_quantum_state(state)
        return state.sampling(SHOTS, next(seeds))

    return with_qulacs


def _aer(num_qubits: int, gate_lists: list[list[Gate]]) -> Calls:
    seeds = itertools.count(1)
    circuits = [built(num_qubits, gates) for gates in gate_lists]
    turns = itertools.cycle(circuits)
    simulator = aer_peer.simulator()

    def with_aer(batch: list[QuantumCircuit]) -> object:
        return simulator.run(batch, shots=SHOTS, seed_simulator=next(seeds)).result()

    hundred = (circuits * 7)[:100]
    return {"aer": lambda: with_aer([next(turns)]), AER_AT_ONCE: lambda: with_aer(hundred)}


def _sweep(runner: Runner, num_qubits: int, layers: int, rows: int) -> Callable[[], object]:
    """Return a call of one task of `rows` bindings: layers of ry and chains of cx, all angles
    free."""
    circuit = n_local(num_qubits, "ry", "cx", "linear", reps=layers, skip_final_rotation_layer=True)
    circuit.measure_all()
    loaded = load(circuit)
    values = np.random.default_rng(1).uniform(0, 6.28, (rows, loaded.program.num_slots))
    seeds = itertools.count(1)

    def call() -> object:
        assigned = AssignedTask(
            1, 1, 0, loaded.packed, SHOTS, next(seeds), values.tobytes(), 0, count=rows
        )
        return runner.run(assigned, TERMS, CHUNK, 0).payload

    return call
