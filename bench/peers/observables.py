"""Expectation values and gradients of an ansatz: simenv's engine, Aer and Lightning.

A job is (task, seed), task "values" or "gradient". `prepare` builds the circuit before the clock
starts; `last` returns the numbers of the last run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.circuits import built
from bench.peers.base import Gate
from bench.peers.libraries import simulator
from bench.peers.simenv_engine import WorkerTask
from simenv.model import Observable, TaskOptions
from simenv.wire.messages.client import AssignedTask

STRINGS, LAYERS = 100, 5


def angles(num_qubits: int, seed: int) -> Any:
    return np.random.default_rng(seed).uniform(-3, 3, (LAYERS, num_qubits))


def strings(num_qubits: int, seed: int) -> list[str]:
    """Return random Pauli strings; qubit 0 is the last character."""
    letters = np.random.default_rng(seed).choice(list("IXYZ"), (STRINGS, num_qubits))
    return ["".join(row) for row in letters]


def energy(num_qubits: int) -> tuple[list[str], list[float]]:
    """Return strings and factors of an Ising chain in a transverse field."""
    labels = ["I" * (num_qubits - 2 - k) + "ZZ" + "I" * k for k in range(num_qubits - 1)]
    labels += ["I" * (num_qubits - 1 - k) + "X" + "I" * k for k in range(num_qubits)]
    return labels, [-1.0] * (num_qubits - 1) + [-0.7] * num_qubits


def ansatz(table: Any) -> list[Gate]:
    gates: list[Gate] = []
    for layer in table:
        gates += [("ry", (qubit,), (angle,)) for qubit, angle in enumerate(layer)]
        gates += [("cx", (qubit, qubit + 1), ()) for qubit in range(len(layer) - 1)]
    return gates


class WorkerObservables(WorkerTask):
    """A worker's task with its plan cached, as in all but the first of an optimiser's steps."""

    _result: Any = None

    def prepare(self, num_qubits: int, job: tuple[str, int]) -> Any:  # type: ignore[override]
        from qiskit.circuit import ParameterVector

        from simenv.client.circuits import load

        task, seed = job
        free = ParameterVector("a", LAYERS * num_qubits)
        table = [free[layer * num_qubits : (layer + 1) * num_qubits] for layer in range(LAYERS)]
        loaded = load(built(num_qubits, ansatz(table)))
        values = loaded.bind(angles(num_qubits, seed).ravel()).tobytes()
        if task == "values":
            unit = np.ones(1).tobytes()
            sums = tuple(Observable((label,), unit) for label in strings(num_qubits, seed))
            terms = TaskOptions(("expectation",), sums)
        else:
            labels, factors = energy(num_qubits)
            sums = (Observable(tuple(labels), np.array(factors).tobytes()),)
            terms = TaskOptions(("expectation", "gradient"), sums, ranks=1)
        return AssignedTask(1, 1, 0, loaded.packed, 0, 1, values, 0), terms

    def run(self, job: Any) -> Any:
        assigned, terms = job
        self._result = self._runner.run(assigned, terms, self._chunk, 0)
        return self._result

    def last(self) -> list[float]:
        from simenv.client.result_data import DecodedResult

        sheet = DecodedResult.read(self._result.payload, "bench")
        if sheet.has("gradients"):
            return sheet.gradients(0).ravel().tolist()
        return list(sheet.estimates(0)[0::2])


class AerObservables:
    """Aer: one save instruction per string, all in one run."""

    def __init__(self, threads: int) -> None:
        self._simulator = simulator(threads)
        self._result: Any = None

    def prepare(self, num_qubits: int, job: tuple[str, int]) -> Any:
        from qiskit.quantum_info import Pauli

        circuit = built(num_qubits, ansatz(angles(num_qubits, job[1])))
        for k, label in enumerate(strings(num_qubits, job[1])):
            circuit.save_expectation_value(Pauli(label), list(range(num_qubits)), label=f"{k}")
        return circuit

    def run(self, job: Any) -> Any:
        self._result = self._simulator.run(job, shots=1).result().data(0)
        return self._result

    def last(self) -> list[float]:
        return [self._result[f"{k}"] for k in range(STRINGS)]


class LightningObservables:
    """Lightning: tapes that are ready for the device, and its adjoint method."""

    def __init__(self, _threads: int) -> None:
        self._result: Any = None

    def prepare(self, num_qubits: int, job: tuple[str, int]) -> Any:
        import pennylane as qml

        task, seed = job
        kinds = {"ry": qml.RY, "cx": qml.CNOT}
        gates = [
            kinds[name](*turns, wires=[num_qubits - 1 - qubit for qubit in qubits])
            for name, qubits, turns in ansatz(angles(num_qubits, seed))
        ]
        device = qml.device("lightning.qubit", wires=num_qubits)
        word = qml.pauli.string_to_pauli_word
        if task == "values":
            means = [qml.expval(word(label)) for label in strings(num_qubits, seed)]
        else:
            labels, factors = energy(num_qubits)
            means = [qml.expval(qml.Hamiltonian(factors, [word(label) for label in labels]))]
        script = qml.tape.QuantumScript(gates, means)
        if task == "gradient":
            script.trainable_params = list(range(LAYERS * num_qubits))
        return task, device, script

    def run(self, job: Any) -> Any:
        from pennylane.devices import ExecutionConfig

        task, device, script = job
        if task == "values":
            self._result = device.execute([script])[0]
        else:
            config = device.setup_execution_config(ExecutionConfig(gradient_method="adjoint"))
            self._result = device.compute_derivatives([script], config)[0]
        return self._result

    def last(self) -> list[float]:
        return np.asarray(self._result, float).ravel().tolist()
