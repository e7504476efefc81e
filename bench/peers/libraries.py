"""Libraries that run circuits of gates: Aer, qulacs, Lightning, qsim, each a peer of `bench.peers`,
and the ways to run them."""

from __future__ import annotations

import collections
import functools
import importlib.util
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from bench.circuits import measured
from bench.peers.base import SHOTS, Counts, Gate, by_outcome, counted, matrix
from bench.peers.process import Variant

PI_2 = math.pi / 2
# Gates that all libraries have: their names in qulacs, cirq and PennyLane.
NAMES = {
    "h": ("H", "H", "Hadamard"), "x": ("X", "X", "PauliX"), "s": ("S", "S", "S"),
    "t": ("T", "T", "T"), "rx": ("RX", "rx", "RX"), "ry": ("RY", "ry", "RY"),
    "rz": ("RZ", "rz", "RZ"), "cx": ("CNOT", "CNOT", "CNOT"), "cz": ("CZ", "CZ", "CZ"),
    "swap": ("SWAP", "SWAP", "SWAP"),
}  # fmt: skip
QULACS, CIRQ, PENNYLANE = range(3)


def _gates_of(module: Any, library: int) -> dict[str, Any]:
    return {name: getattr(module, names[library]) for name, names in NAMES.items()}


@functools.cache
def simulator(threads: int = 1, **options: Any) -> Any:
    """Return an AerSimulator, of the state vector method by default."""
    from qiskit_aer import AerSimulator

    return AerSimulator(**{"method": "statevector", "max_parallel_threads": threads, **options})


class Aer:
    """Qiskit Aer: its state vector method with its default gate fusion."""

    def __init__(self, threads: int) -> None:
        self._simulator = simulator(threads)

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        return measured(num_qubits, gates)

    def run(self, job: Any) -> Any:
        return self._simulator.run(job, shots=SHOTS).result().get_counts(0)

    def counts(self, result: Any) -> Counts:
        return {int(key, 2): count for key, count in result.items()}


def qulacs_circuit(num_qubits: int, gates: Iterable[Gate]) -> Any:
    """Convert gates to a qulacs circuit; rotations of qulacs turn by the negative angle."""
    from qulacs import QuantumCircuit, gate

    converted = QuantumCircuit(num_qubits)
    gates_of = _gates_of(gate, QULACS) | {"tdg": gate.Tdag, "sx": gate.sqrtX}
    axes = {"rxx": [1, 1], "rzz": [3, 3]}
    for name, qubits, angles in gates:
        if name in gates_of:
            added = gates_of[name](*qubits, *(-angle for angle in angles))
        elif name == "u":
            added = gate.U3(qubits[0], *angles)
        elif name == "r":
            theta, phi = angles
            added = gate.U3(qubits[0], theta, phi - PI_2, PI_2 - phi)
        elif name in ("ecr", "unitary"):
            added = gate.DenseMatrix(list(qubits), angles[0] if angles else matrix(name))
        elif name == "cp":
            added = gate.to_matrix_gate(gate.U1(qubits[1], angles[0]))
            added.add_control_qubit(qubits[0], 1)
        else:
            added = gate.PauliRotation(list(qubits), axes[name], -angles[0])
        converted.add_gate(added)
    return converted


class Qulacs:
    """qulacs in double precision. `block`: 0: no optimiser; 1: the light one; above 1: gates are
    fused to at most this number of qubits. An environment variable sets the number of threads."""

    def __init__(self, _threads: int, block: int = 0) -> None:
        self._block = block

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        from qulacs.circuit import QuantumCircuitOptimizer

        converted = qulacs_circuit(num_qubits, gates)
        if self._block == 1:
            QuantumCircuitOptimizer().optimize_light(converted)
        elif self._block:
            QuantumCircuitOptimizer().optimize(converted, self._block)
        return num_qubits, converted

    def run(self, job: Any) -> Any:
        from qulacs import QuantumState

        num_qubits, circuit = job
        state = QuantumState(num_qubits)
        circuit.update_quantum_state(state)
        return collections.Counter(state.sampling(SHOTS))

    def counts(self, result: Any) -> Counts:
        return result


class QulacsFromGates(Qulacs):
    """The circuit is built while the clock runs, without an optimiser."""

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        return num_qubits, gates

    def run(self, job: Any) -> Any:
        return super().run((job[0], qulacs_circuit(*job)))


class Lightning:
    """PennyLane Lightning (lightning.qubit): one tape that is ready for the device."""

    def __init__(self, _threads: int, precision: str = "double") -> None:
        self._dtype = np.complex128 if precision == "double" else np.complex64

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        import pennylane as qml

        operations = _gates_of(qml, PENNYLANE) | {
            "u": qml.U3, "cp": qml.ControlledPhaseShift, "rzz": qml.IsingZZ, "rxx": qml.IsingXX,
            "sx": qml.SX, "ecr": qml.ECR, "tdg": lambda wires: qml.adjoint(qml.T(wires)),
            "r": lambda theta, phi, wires: qml.U3(theta, phi - PI_2, PI_2 - phi, wires=wires),
        }  # fmt: skip
        converted = [
            operations[name](*angles, wires=[num_qubits - 1 - qubit for qubit in qubits])
            for name, qubits, angles in gates
        ]
        device = qml.device("lightning.qubit", wires=num_qubits, c_dtype=self._dtype)
        sample = qml.sample(wires=range(num_qubits))
        script = qml.tape.QuantumScript(converted, [sample], shots=SHOTS)
        (script,), _ = device.preprocess_transforms()([script])
        return device, script

    def run(self, job: Any) -> Any:
        device, script = job
        return counted(np.asarray(device.execute([script])[0]))

    def counts(self, result: Any) -> Counts:
        return by_outcome(result)


def qsim_has_cuda() -> bool:
    """Return whether qsim is installed with its CUDA backend, which no wheel on PyPI has."""
    if importlib.util.find_spec("qsimcirq") is None:
        return False
    import qsimcirq

    return getattr(qsimcirq, "qsim_gpu", None) is not None


class Qsim:
    """qsim through cirq: complex64, gates fused to at most `fused` qubits. `use_gpu`: requires
    `qsim_has_cuda`. The simulator keeps its own form of the last circuit, so that its next run does
    not convert it again."""

    def __init__(self, threads: int, fused: int, *, use_gpu: bool = False) -> None:
        import qsimcirq

        how = {"max_fused_gate_size": fused, "cpu_threads": threads, "use_gpu": use_gpu}
        options = qsimcirq.QSimOptions(**how)
        self._simulator = qsimcirq.QSimSimulator(options, circuit_memoization_size=1)

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        import cirq

        line = cirq.LineQubit.range(num_qubits)
        gates_of = _gates_of(cirq, CIRQ) | {"tdg": cirq.T**-1, "sx": cirq.X**0.5}
        powers = {"cp": cirq.CZPowGate, "rzz": cirq.ZZPowGate, "rxx": cirq.XXPowGate}
        results = []
        for name, qubits, angles in gates:
            on = [line[qubit] for qubit in qubits]
            if name in gates_of:
                gate = gates_of[name](*angles) if angles else gates_of[name]
            elif name == "u":
                theta, phi, lam = angles
                results += [cirq.rz(lam)(*on), cirq.ry(theta)(*on)]
                gate = cirq.rz(phi)
            elif name == "r":
                theta, phi = (angle / np.pi for angle in angles)
                gate = cirq.PhasedXPowGate(exponent=theta, phase_exponent=phi)
            elif name in ("ecr", "unitary"):
                gate, on = cirq.MatrixGate(angles[0] if angles else matrix(name)), on[::-1]
            else:
                gate = powers[name](exponent=angles[0] / np.pi)
            results.append(gate(*on))
        circuit = cirq.Circuit([*results, cirq.measure(*reversed(line), key="m")])
        self._simulator.run(circuit, repetitions=1)
        return circuit

    def run(self, job: Any) -> Any:
        return counted(self._simulator.run(job, repetitions=SHOTS).measurements["m"])

    def counts(self, result: Any) -> Counts:
        return by_outcome(result)


PRECISIONS = (("f64", "double"), ("f32", "single"))
LIBRARIES = (
    Variant("aer f64", Aer),
    Variant("aer f64 1 thread", Aer, threads=1),
    Variant("qulacs f64", Qulacs, (0,)),
    Variant("qulacs f64 1 thread", Qulacs, (0,), 1),
    Variant("qulacs f64 light", Qulacs, (1,)),
    *(Variant(f"qulacs f64 fused {width}", Qulacs, (width,)) for width in (2, 3, 4)),
    *(Variant(f"lightning {bits}", Lightning, (name,)) for bits, name in PRECISIONS),
    *(Variant(f"qsim f32 fused {width}", Qsim, (width,)) for width in (2, 3, 4)),
    *(Variant(f"qsim f32 fused {width}, 1 thread", Qsim, (width,), 1) for width in (3, 4)),
)
