"""Small dynamic circuits with hundreds of branches: a worker's task compared with Aer's.

Random circuits of 2, 3 and 6 qubits: loops over rotations, entangling gates, measurements in the
middle, resets, and gates under conditions, so that nearly every history of outcomes leads to a
state of its own. 1,000 shots. Ours is a worker's task, packed Program in, packed counts out, the
structure seen for the first time; Aer runs each shot on its own, one thread, its circuit built
before the clock starts. Both run in turns; medians of the rounds. Judged is the slowest circuit.

    python bench/dynamic_branches.py [--rounds 5] [--circuits 5] [--files FOLDER] [--cpu]

`--files`: circuits in files are measured too. `--cpu`: CPU seconds instead of the wall clock's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from report import Report

from simenv.client.circuits import load
from simenv.errors import ProgramError
from simenv.model import ResultData, TaskState, Terms
from simenv.wire.messages import STATES, Assign, Assigned
from simenv.worker.runner import Runner
from simulators.compiler import warmup

SHOTS = 1_000
WIDTHS = (2, 3, 6)
PASSES, GATES = 4, 6
TERMS = Terms()
CHUNK = Assign(1, 2**30, False, "statevector", "bench", [], [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--circuits", type=int, default=5)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF)
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    kernels = Path(sys.prefix) / "var" / "simenv-kernels"
    warmup.prepare(kernels)
    warmup.complete(kernels)
    ours = Ours()
    words = f"dynamic circuits with many branches: {SHOTS} shots, seed {options.seed}, ms"
    report = Report("dynamic_branches", words)
    ours.run(load(made(2, options.seed - 1)).packed)  # loads what a worker has loaded
    aer = _aer()
    for width in WIDTHS:
        times: list[float] = []
        theirs: list[float] = []
        branches: list[int] = []
        for number in range(options.circuits):
            circuit = made(width, options.seed + 100 * width + number)
            packed = load(circuit).packed
            took: tuple[list[float], list[float]] = [], []
            for _ in range(options.rounds):
                took[0].append(_timed(clock, lambda packed=packed: ours.run(packed)))
                if aer is not None:
                    took[1].append(_timed(clock, lambda circuit=circuit: aer(circuit)))
            times.append(statistics.median(took[0]))
            theirs.append(statistics.median(took[1]) if took[1] else float("nan"))
            branches.append(ours.branches())
        print(f"{width} qubits, branches {branches}: {_shown(times)}; Aer {_shown(theirs)}")
        report.verdict("circuit_ms", 1e3 * max(times), f"{width} qubits, slowest circuit")
    for path in sorted(options.files.iterdir()) if options.files else ():
        try:
            packed = load(path).packed
        except ProgramError as error:
            print(f"left out: {path.name}: {error}")
            continue
        found = [
            _timed(clock, lambda packed=packed: ours.run(packed)) for _ in range(options.rounds)
        ]
        words = f"{path.name}, {ours.branches()} branches"
        report.verdict("circuit_ms", 1e3 * statistics.median(found), words)
    return report.close()


class Ours:
    """A worker's task; no plan is kept from one to the next."""

    def __init__(self) -> None:
        self._runner = Runner()
        self._runner.engine("statevector")
        self._seeds = itertools.count(1)
        self._payload = b""

    def run(self, packed: bytes) -> None:
        """One task with a new seed."""
        self._runner.forget_plans()
        assigned = Assigned(1, 1, 0, packed, SHOTS, next(self._seeds), b"", 0)
        finished = self._runner.run(assigned, TERMS, CHUNK, 0)
        if STATES[finished.state] is not TaskState.DONE:
            raise RuntimeError(repr(finished.payload))
        self._payload = finished.payload

    def branches(self) -> int:
        """The most states that the last task held at once."""
        return int(msgspec.msgpack.decode(self._payload, type=ResultData).remark.split()[0])


def made(num_qubits: int, seed: int) -> QuantumCircuit:
    """A random circuit with loops, measurements, resets and conditions."""
    random = np.random.default_rng(seed)
    bits = ClassicalRegister(num_qubits, "c")
    circuit = QuantumCircuit(QuantumRegister(num_qubits, "q"), bits)
    for qubit in range(num_qubits):
        circuit.ry(random.uniform(0.3, 2.8), qubit)
    with circuit.for_loop(range(PASSES)):
        for _ in range(GATES):
            one, two = random.choice(num_qubits, 2, replace=False).tolist()
            circuit.u(*random.uniform(-3, 3, 3).tolist(), one)
            circuit.cx(one, two)
        one, two = random.choice(num_qubits, 2, replace=False).tolist()
        circuit.measure(one, bits[one])
        with circuit.if_test((bits[one], 1)):
            circuit.ry(random.uniform(0.3, 2.8), two)
            circuit.cz(one, two)
        circuit.u(*random.uniform(-3, 3, 3).tolist(), one)
        circuit.measure(two, bits[two])
        if num_qubits > 2:
            circuit.u(*random.uniform(-3, 3, 3).tolist(), two)
            circuit.reset(one)
    for qubit in range(num_qubits):
        circuit.ry(random.uniform(0.3, 2.8), qubit)
        circuit.measure(qubit, bits[qubit])
    return circuit


def _aer() -> Callable[[QuantumCircuit], object] | None:
    try:
        from qiskit_aer import AerSimulator
    except ImportError:
        print("left out: Aer: pip install qiskit-aer")
        return None
    simulator = AerSimulator(method="statevector", max_parallel_threads=1)
    return lambda circuit: simulator.run(circuit, shots=SHOTS).result().get_counts(0)


def _timed(clock: Callable[[], float], call: Callable[[], object]) -> float:
    begin = clock()
    call()
    return clock() - begin


def _shown(seconds: list[float]) -> str:
    return "/".join(f"{1e3 * each:.1f}" for each in seconds)


if __name__ == "__main__":
    sys.exit(main())
