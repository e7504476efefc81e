"""One call of the engine for a small circuit, compared with qulacs and Aer.

A call runs 1,024 shots of 30 gates with a new seed; the circuits take turns so that branch
predictors cannot learn one of them. The peers run in the same rounds in their fastest way: their
circuits are built before the clock starts, they use one thread, and Aer gets one circuit or a
hundred at a time. All times are those of one circuit: medians of interleaved rounds. Then sweeps
inside the engine are measured: bindings per second on one core.
"""

from __future__ import annotations

import itertools
import os
import statistics
from argparse import Namespace
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import n_local

from bench.circuits import measured
from bench.harness import Report, Times, installed, medians, repeated_s, rounds
from bench.harness.kernels import load_kernels
from bench.peers import aer as aer_peer, qulacs as qulacs_peer
from bench.peers.simenv_engine import chunk
from bench.small_circuits import gates
from simenv.client.circuits import load
from simenv.model import TaskOptions
from simenv.wire.messages.client import AssignedTask
from simenv.worker.runner import Runner

SHOTS = 1_024
GATES = 30
WIDTHS = (3, 4, 6, 8, 10, 12)
CIRCUITS = 16  # number of circuits that take turns
CALLS = 400  # calls of our engine and of qulacs in a round
AER_AT_ONCE = "aer, 100 at once"
SWEEPS = ((4, 3, 4_096), (8, 4, 2_048))  # qubits, layers, bindings
Calls = dict[str, Callable[[], object]]
TERMS, CHUNK = TaskOptions(), chunk(1)
OPTIONS = (rounds(7, quick=2),)


def run(options: Namespace) -> Report:
    load_kernels()
    runner = Runner()
    runner.engine("statevector")
    report = Report("small", f"engine call: {GATES} gates, {SHOTS} shots, new seeds, us")
    for num_qubits in WIDTHS:
        us = _rounds(_calls(runner, num_qubits), options.rounds)
        print(f"{num_qubits:2d} qubits: " + ", ".join(f"{k} {v:.1f}" for k, v in us.items()))
        report.at_most(f"us_{num_qubits}", us["ours"], f"{num_qubits} qubits")
        for goal, name in (("of_qulacs", "qulacs"), ("of_aer", "Aer")) if num_qubits <= 10 else ():
            peer = [value for key, value in us.items() if key.startswith(name.lower())]
            label, reason = f"{num_qubits} qubits of {name}", f"{name} is not installed"
            report.share(goal, us["ours"], peer, label, reason)
    for num_qubits, layers, rows in SWEEPS:
        us = _rounds({"": _sweep(runner, num_qubits, layers, rows)}, options.rounds)
        label = f"bindings/s, {num_qubits} qubits, 1 core"
        report.at_least(f"bindings_{num_qubits}", rows / (1e-6 * us[""]), label)
    return report


def _rounds(calls: Calls, rounds: int) -> dict[str, float]:
    """Return the median over rounds of each call's median time in a round, in microseconds."""
    times: Times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            number = CALLS if name in ("ours", "qulacs") else 3
            us = 1e6 * statistics.median(repeated_s(call, number))
            if turn:  # the first round warms up
                times[name].append(us / 100 if name == AER_AT_ONCE else us)
    return medians(times)


def _calls(runner: Runner, num_qubits: int) -> Calls:
    """Return the calls of our engine and of the peers that are installed."""
    gate_lists = [gates(num_qubits, GATES, seed) for seed in range(CIRCUITS)]
    circuits = [measured(num_qubits, each) for each in gate_lists]
    calls = {"ours": _task(runner, [load(circuit).packed for circuit in circuits])}
    if installed("qulacs"):
        import qulacs

        converted = [qulacs_peer.circuit(num_qubits, each) for each in gate_lists]
        jobs, seeds = itertools.cycle(converted), itertools.count(1)
        state = qulacs.QuantumState(num_qubits)

        def with_qulacs() -> object:
            state.set_zero_state()
            next(jobs).update_quantum_state(state)
            return state.sampling(SHOTS, next(seeds))

        calls["qulacs"] = with_qulacs
    if installed("qiskit_aer"):
        turns, aer_seeds = itertools.cycle(circuits), itertools.count(1)
        simulator = aer_peer.simulator()

        def with_aer(batch: list[QuantumCircuit]) -> object:
            return simulator.run(batch, shots=SHOTS, seed_simulator=next(aer_seeds)).result()

        hundred = (circuits * 7)[:100]
        calls["aer"] = lambda: with_aer([next(turns)])
        calls[AER_AT_ONCE] = lambda: with_aer(hundred)
    return calls


def _task(
    runner: Runner, programs: list[bytes], values: bytes = b"", rows: int = 1
) -> Callable[[], object]:
    """Return a call of a task, each of one of the programs in turn, with a new seed."""
    turns, seeds = itertools.cycle(programs), itertools.count(1)

    def call() -> object:
        program, seed = next(turns), next(seeds)
        assigned = AssignedTask(1, 1, 0, program, SHOTS, seed, values, 0, count=rows)
        return runner.run(assigned, TERMS, CHUNK, 0).payload

    return call


def _sweep(runner: Runner, num_qubits: int, layers: int, rows: int) -> Callable[[], object]:
    """Return a call of one task of `rows` bindings: layers of ry and chains of cx, all angles
    free."""
    circuit = n_local(num_qubits, "ry", "cx", "linear", reps=layers, skip_final_rotation_layer=True)
    circuit.measure_all()
    loaded = load(circuit)
    values = np.random.default_rng(1).uniform(0, 6.28, (rows, loaded.program.num_slots))
    return _task(runner, [loaded.packed], values.tobytes(), rows)
