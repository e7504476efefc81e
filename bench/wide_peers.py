"""Ways to run a wide circuit: this engine's, and the libraries one would use instead.

A way is made with a number of threads. `prepare` turns gates into what the library wants, outside
the clock; `run` simulates, draws the shots and gives counts as the library hands them out, as a
mapping from an outcome's number to how often. Libraries are loaded where they are first used: each
way lives in a process of its own.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import qulacs_circuits
from msgspec.structs import astuple
from wide_circuits import Gate, measured

from simenv.model import TaskState, Terms, decode_program
from simenv.wire.messages import STATES, Assign, Assigned
from simulators.circuit.ir import Circuit

SHOTS = 1_024
Counts = Mapping[int, int]


class Way(Protocol):
    """One way to run circuits."""

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        """What `run` takes."""

    def run(self, job: Any) -> Any:
        """Counts, in the library's own form."""

    def counts(self, found: Any) -> Counts:
        """From that form; outside the clock."""


class Ours:
    """A worker's task: packed Program in, packed counts out; no plan is known beforehand."""

    def __init__(
        self, threads: int, precision: str = "double", engine: str = "statevector"
    ) -> None:
        from simenv.worker.runner import Runner
        from simulators.compiler import warmup

        warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")
        self._runner = Runner()
        self._terms = Terms(precision=precision)
        self._chunk = Assign(threads, 2**34, False, engine, "bench", [], [])
        self._seeds = itertools.count(1)
        self._job = b""

    def prepare(self, num_qubits: int, gates: list[Gate]) -> bytes:
        from simenv.client.circuits import load

        return load(measured(num_qubits, gates)).packed

    def run(self, job: bytes) -> Any:
        self._runner.forget_plans()
        self._job = job
        return self.again(job)

    def again(self, job: bytes) -> Any:
        """The same with the plan that was kept."""
        assigned = Assigned(1, 1, 0, job, SHOTS, next(self._seeds), b"", 0)
        return self._runner.run(assigned, self._terms, self._chunk, 0)

    def counts(self, found: Any) -> Counts:
        from simenv.client.sheet import Sheet

        if STATES[found.state] is not TaskState.DONE:
            raise RuntimeError(repr(found.payload))
        outcomes, numbers = Sheet.read(found.payload, "bench").counts(0)
        values = np.frombuffer(outcomes, f"<u{len(outcomes) * 4 // len(numbers)}")
        return dict(zip(values.tolist(), np.frombuffer(numbers, "<u4").tolist(), strict=True))

    def swept(self) -> tuple[int, int]:
        """Passes of the circuit run last, and the bytes they read and write."""
        from simulators.statevector.planning.planner import Stretch
        from simulators.statevector.planning.report import passes
        from simulators.statevector.program import schedule

        program = decode_program(self._job)
        circuit = Circuit.from_buffers(*astuple(program)[1:])
        stretches = schedule(circuit, keep=False, precision=self._terms.precision).stretches
        found = [
            each
            for stretch in stretches
            if isinstance(stretch, Stretch)
            for each in passes(stretch.sweeps)
        ]
        moved = sum(each.amplitudes for each in found)
        return len(found), 2 * moved * (16 if self._terms.precision == "double" else 8)


class Aer:
    """Its own fusion, at its defaults."""

    def __init__(self, threads: int) -> None:
        from qiskit_aer import AerSimulator

        self._simulator = AerSimulator(method="statevector", max_parallel_threads=threads)

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        return measured(num_qubits, gates)

    def run(self, job: Any) -> Any:
        return self._simulator.run(job, shots=SHOTS).result().get_counts(0)

    def counts(self, found: Any) -> Counts:
        return {int(key, 2): number for key, number in found.items()}


class Qulacs:
    """`block`: 0 as it is; 1 the light optimiser; above, gates fused to so many qubits."""

    def __init__(self, _threads: int, block: int = 0) -> None:
        self._block = block

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        from qulacs.circuit import QuantumCircuitOptimizer

        circuit = qulacs_circuits.converted(num_qubits, gates)
        if self._block == 1:
            QuantumCircuitOptimizer().optimize_light(circuit)
        elif self._block:
            QuantumCircuitOptimizer().optimize(circuit, self._block)
        return num_qubits, circuit

    def run(self, job: Any) -> Any:
        return qulacs_circuits.sampled(*job, SHOTS)

    def counts(self, found: Any) -> Counts:
        return found


class Lightning:
    """One script, ready for the device."""

    def __init__(self, _threads: int, precision: str = "double") -> None:
        self._kind = np.complex128 if precision == "double" else np.complex64

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        import pennylane as qml

        kinds = {
            "h": qml.Hadamard, "x": qml.PauliX, "s": qml.S, "t": qml.T, "rx": qml.RX, "ry": qml.RY,
            "u": qml.U3, "cx": qml.CNOT, "swap": qml.SWAP, "cp": qml.ControlledPhaseShift,
            "rzz": qml.IsingZZ,
        }  # fmt: skip
        made = []
        for name, qubits, angles in gates:
            wires = [num_qubits - 1 - qubit for qubit in qubits]
            if name == "tdg":
                made.append(qml.adjoint(qml.T(wires[0])))
            else:
                made.append(kinds[name](*angles, wires=wires))
        device = qml.device("lightning.qubit", wires=num_qubits, c_dtype=self._kind)
        sample = qml.sample(wires=range(num_qubits))
        script = qml.tape.QuantumScript(made, [sample], shots=SHOTS)
        (script,), _ = device.preprocess_transforms()([script])
        return device, script

    def run(self, job: Any) -> Any:
        device, script = job
        bits = np.asarray(device.execute([script])[0]).astype(np.int64)
        weights = 1 << np.arange(bits.shape[1] - 1, -1, -1)
        return np.unique(bits @ weights, return_counts=True)

    def counts(self, found: Any) -> Counts:
        return dict(zip(*(part.tolist() for part in found), strict=True))


class Qsim:
    """complex64, gates fused to at most so many qubits."""

    def __init__(self, threads: int, fused: int) -> None:
        import qsimcirq

        options = qsimcirq.QSimOptions(max_fused_gate_size=fused, cpu_threads=threads)
        # Of the last circuit it keeps its own form, else it would make that in each run.
        self._simulator = qsimcirq.QSimSimulator(options, circuit_memoization_size=1)

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        import cirq

        line = cirq.LineQubit.range(num_qubits)
        plain = {
            "h": cirq.H, "x": cirq.X, "s": cirq.S, "t": cirq.T, "tdg": cirq.T**-1,
            "cx": cirq.CNOT, "swap": cirq.SWAP,
        }  # fmt: skip
        turned = {"rx": cirq.rx, "ry": cirq.ry}
        made = []
        for name, qubits, angles in gates:
            on = [line[qubit] for qubit in qubits]
            if name in plain:
                made.append(plain[name](*on))
            elif name in turned:
                made.append(turned[name](*angles)(*on))
            elif name == "u":
                theta, phi, lam = angles
                made += [cirq.rz(lam)(*on), cirq.ry(theta)(*on), cirq.rz(phi)(*on)]
            else:
                kind = cirq.CZPowGate if name == "cp" else cirq.ZZPowGate
                made.append(kind(exponent=angles[0] / np.pi)(*on))
        circuit = cirq.Circuit([*made, cirq.measure(*reversed(line), key="m")])
        self._simulator.run(circuit, repetitions=1)
        return circuit

    def run(self, job: Any) -> Any:
        bits = self._simulator.run(job, repetitions=SHOTS).measurements["m"].astype(np.int64)
        return np.unique(bits @ (1 << np.arange(bits.shape[1] - 1, -1, -1)), return_counts=True)

    def counts(self, found: Any) -> Counts:
        return dict(zip(*(part.tolist() for part in found), strict=True))
