"""qsim through cirq: complex64, with gate fusion."""

from __future__ import annotations

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


def converted(num_qubits: int, gates: list[Gate]) -> Any:
    """Convert gates to a cirq circuit, all qubits measured."""
    import cirq

    line = cirq.LineQubit.range(num_qubits)
    gates_of = {name: getattr(cirq, names[CIRQ]) for name, names in NAMES.items()}
    powers = {"cp": cirq.CZPowGate, "rzz": cirq.ZZPowGate, "rxx": cirq.XXPowGate}
    roots = {"tdg": cirq.T**-1, "sx": cirq.X**0.5}
    results = []
    for name, qubits, angles in gates:
        on = [line[qubit] for qubit in qubits]
        if name in gates_of:
            gate = gates_of[name](*angles) if angles else gates_of[name]
            results.append(gate(*on))
        elif name in roots:
            results.append(roots[name](*on))
        elif name == "u":
            theta, phi, lam = angles
            results += [cirq.rz(lam)(*on), cirq.ry(theta)(*on), cirq.rz(phi)(*on)]
        elif name == "r":
            theta, phi = (angle / np.pi for angle in angles)
            results.append(cirq.PhasedXPowGate(exponent=theta, phase_exponent=phi)(*on))
        elif name in ("ecr", "unitary"):
            whole = angles[0] if angles else matrix(name)
            results.append(cirq.MatrixGate(whole)(*reversed(on)))
        else:
            results.append(powers[name](exponent=angles[0] / np.pi)(*on))
    return cirq.Circuit([*results, cirq.measure(*reversed(line), key="m")])


class Qsim:
    """Peer (bench.peers.base) of qsim; gates are fused to at most `fused` qubits. `use_gpu`: run on
    the GPU; requires `has_cuda`. The simulator keeps its own form of the last circuit, so that its
    next run does not convert it again."""

    def __init__(self, threads: int, fused: int, *, use_gpu: bool = False) -> None:
        import qsimcirq

        options = qsimcirq.QSimOptions(
            max_fused_gate_size=fused, cpu_threads=threads, use_gpu=use_gpu
        )
        self._simulator = qsimcirq.QSimSimulator(options, circuit_memoization_size=1)

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        circuit = converted(num_qubits, gates)
        self._simulator.run(circuit, repetitions=1)
        return circuit

    def run(self, job: Any) -> Any:
        return counted(self._simulator.run(job, repetitions=SHOTS).measurements["m"])

    def counts(self, result: Any) -> Counts:
        return by_outcome(result)
