"""qsim through cirq: complex64, with gate fusion."""

from __future__ import annotations

import collections
import importlib.util
from typing import Any

import numpy as np

from bench.peers.base import CIRQ, NAMES, SHOTS, Counts, Gate, by_outcome, counted, matrix


def has_cuda() -> bool:
    """Return whether qsim is installed with its CUDA backend, which no wheel on PyPI has."""
    if importlib.util.find_spec("qsimcirq") is None:
        return False
    import qsimcirq

    return getattr(qsimcirq, "qsim_gpu", None) is not None


class Qsim:
    """Peer (bench.peers.base) of qsim; gates are fused to at most `fused` qubits. `use_gpu`: run
    on the GPU; requires `has_cuda`."""

    def __init__(self, threads: int, fused: int, *, use_gpu: bool = False) -> None:
        import qsimcirq

        options = qsimcirq.QSimOptions(
            max_fused_gate_size=fused, cpu_threads=threads, use_gpu=use_gpu
        )
        # The simulator caches its own form of the last circuit, so runs do not convert it again.
        self._simulator = qsimcirq.QSimSimulator(options, circuit_memoization_size=1)

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        import cirq

        line = cirq.LineQubit.range(num_qubits)
        gates_of = {name: getattr(cirq, names[CIRQ]) for name, names in NAMES.items()}
        powers = {"cp": cirq.CZPowGate, "rzz": cirq.ZZPowGate, "rxx": cirq.XXPowGate}
        roots = {"tdg": cirq.T**-1, "sx": cirq.X**0.5}
        converted = []
        for name, qubits, angles in gates:
            on = [line[qubit] for qubit in qubits]
            if name in gates_of:
                gate = gates_of[name](*angles) if angles else gates_of[name]
                converted.append(gate(*on))
            elif name in roots:
                converted.append(roots[name](*on))
            elif name == "u":
                theta, phi, lam = angles
                converted += [cirq.rz(lam)(*on), cirq.ry(theta)(*on), cirq.rz(phi)(*on)]
            elif name == "r":
                theta, phi = (angle / np.pi for angle in angles)
                converted.append(cirq.PhasedXPowGate(exponent=theta, phase_exponent=phi)(*on))
            elif name == "ecr":
                converted.append(cirq.MatrixGate(matrix("ecr"))(*reversed(on)))
            else:
                converted.append(powers[name](exponent=angles[0] / np.pi)(*on))
        circuit = cirq.Circuit([*converted, cirq.measure(*reversed(line), key="m")])
        self._simulator.run(circuit, repetitions=1)
        return circuit

    def run(self, job: Any) -> Any:
        return counted(self._simulator.run(job, repetitions=SHOTS).measurements["m"])

    def counts(self, result: Any) -> Counts:
        return by_outcome(result)


class QsimUnitaries:
    """Circuits of two-qubit matrices, built while the clock runs."""

    def __init__(self, threads: int, fused: int) -> None:
        import cirq
        import qsimcirq

        self._cirq = cirq
        options = qsimcirq.QSimOptions(max_fused_gate_size=fused, cpu_threads=threads)
        self._simulator = qsimcirq.QSimSimulator(options)

    def prepare(self, num_qubits: int, pairs: list[Any]) -> Any:
        return num_qubits, pairs

    def run(self, job: Any) -> Counts:
        cirq = self._cirq
        num_qubits, pairs = job
        line = cirq.LineQubit.range(num_qubits)
        gates = [cirq.MatrixGate(m)(line[high], line[low]) for (low, high), m in pairs]
        circuit = cirq.Circuit([*gates, cirq.measure(*reversed(line), key="m")])
        bits = self._simulator.run(circuit, repetitions=SHOTS).measurements["m"].astype(np.int64)
        return collections.Counter((bits @ (1 << np.arange(num_qubits - 1, -1, -1))).tolist())

    def counts(self, result: Counts) -> Counts:
        return result
