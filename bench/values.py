"""Expectation values of Pauli sums and their gradients: beside Aer and Lightning.

20 qubits, complex128. 100 strings of I, X, Y, Z at random after a hardware-efficient ansatz; and
the gradient of an Ising chain's energy by the 100 angles of such an ansatz, by the adjoint method
in both. Each in a process of its own with all threads, in turns, new angles each round; medians.
Ours: `Runner`, packed Program in, packed result out, its plan known as in all but the first of an
optimiser's steps; the libraries' circuits are built before the clock starts.

    python bench/values.py [--rounds 5] [--qubits 20] [--threads 2] [--cpu]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from contestants import Contestant
from report import Report

STRINGS, LAYERS = 100, 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--qubits", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of one thread each")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF)
    told = parser.parse_args()
    if told.cpu:
        told.threads = 1
    what = f"values: {told.qubits} qubits, {told.threads} threads, seed {told.seed}, s"
    report = Report("values", what)
    makers: dict[str, Any] = {"ours": Ours, "aer": AerValues, "lightning": LightningValues}
    ways = [Contestant(name, make, threads=told.threads) for name, make in makers.items()]
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(told.rounds + 1):
        for what in ("values", "gradient"):
            found = {}
            for way in ways:
                if way.problem or not way.prepare(told.qubits, [(what, told.seed + turn)]):
                    print(f"left out: {way.name}: {way.problem}")
                    continue
                if what == "gradient" and way.name == "aer":
                    continue  # it has none
                took = way.times(1, 300.0, cpu=told.cpu)
                if turn:  # the first loads and compiles
                    times.setdefault((what, way.name), []).extend(took)
                values = way.ask("last")
                if values is None:
                    print(f"left out from here: {way.name}: {way.problem}")
                    continue
                found[way.name] = np.array(values)
            for name, values in found.items():
                assert np.abs(values - found.get("ours", values)).max() < 1e-9, (
                    f"{what}: {name} differs"
                )
    for way in ways:
        way.close()
    best = {key: statistics.median(each) for key, each in times.items()}
    print("\n".join(f"{what} {name}: {each:.4f}" for (what, name), each in best.items()))
    ours = best["values", "ours"]
    peer = min(v for (what, name), v in best.items() if what == "values" and name != "ours")
    report.verdict("strings_of_best", ours / peer, f"{STRINGS} strings, of the best")
    if ("gradient", "lightning") in best:
        share = best["gradient", "ours"] / best["gradient", "lightning"]
        report.verdict("gradient_of_lightning", share, "gradient, of Lightning")
    else:
        report.unmeasured("gradient, of Lightning", "Lightning did not run to its end")
    return report.close()


def angles(num_qubits: int, seed: int) -> Any:
    """Of each layer and qubit."""
    return np.random.default_rng(seed).uniform(-3, 3, (LAYERS, num_qubits))


def strings(num_qubits: int, seed: int) -> list[str]:
    """Qubit 0 is the last character."""
    letters = np.random.default_rng(seed).choice(list("IXYZ"), (STRINGS, num_qubits))
    return ["".join(row) for row in letters]


def energy(num_qubits: int) -> tuple[list[str], list[float]]:
    """An Ising chain in a transverse field."""
    labels = ["I" * (num_qubits - 2 - k) + "ZZ" + "I" * k for k in range(num_qubits - 1)]
    labels += ["I" * (num_qubits - 1 - k) + "X" + "I" * k for k in range(num_qubits)]
    return labels, [-1.0] * (num_qubits - 1) + [-0.7] * num_qubits


class Ours:
    """As a worker runs it."""

    def __init__(self, threads: int) -> None:
        from simenv.wire.messages import Assign
        from simenv.worker.runner import Runner
        from simulators.compiler import warmup

        warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")
        self._runner = Runner()
        self._chunk = Assign(threads, 2**34, False, "statevector", "bench", [], [])
        self._found: Any = None

    def prepare(self, num_qubits: int, job: tuple[str, int]) -> Any:
        from qiskit import QuantumCircuit
        from qiskit.circuit import ParameterVector

        from simenv.client.circuits import load
        from simenv.model import Observable, Terms
        from simenv.wire.messages import Assigned

        what, seed = job
        free = ParameterVector("a", LAYERS * num_qubits)
        circuit = QuantumCircuit(num_qubits)
        for layer in range(LAYERS):
            for qubit in range(num_qubits):
                circuit.ry(free[layer * num_qubits + qubit], qubit)
            for qubit in range(num_qubits - 1):
                circuit.cx(qubit, qubit + 1)
        loaded = load(circuit)
        values = loaded.bind(angles(num_qubits, seed).ravel()).tobytes()
        if what == "values":
            one = np.ones(1).tobytes()
            sums = tuple(Observable((label,), one) for label in strings(num_qubits, seed))
            terms = Terms(("expectation",), sums)
        else:
            labels, factors = energy(num_qubits)
            sums = (Observable(tuple(labels), np.array(factors).tobytes()),)
            terms = Terms(("expectation", "gradient"), sums, ranks=1)
        return Assigned(1, 1, 0, loaded.packed, 0, 1, values, 0), terms

    def run(self, job: Any) -> Any:
        assigned, terms = job
        self._found = self._runner.run(assigned, terms, self._chunk, 0)
        return self._found

    def last(self) -> list[float]:
        from simenv.client.sheet import Sheet

        sheet = Sheet.read(self._found.payload, "bench")
        if sheet.has("gradients"):
            return sheet.gradients(0).ravel().tolist()
        return list(sheet.estimates(0)[0::2])


class AerValues:
    """One instruction a string, saved in one run."""

    def __init__(self, threads: int) -> None:
        from qiskit_aer import AerSimulator

        self._simulator = AerSimulator(method="statevector", max_parallel_threads=threads)
        self._found: Any = None

    def prepare(self, num_qubits: int, job: tuple[str, int]) -> Any:
        from qiskit import QuantumCircuit
        from qiskit.quantum_info import Pauli

        circuit = QuantumCircuit(num_qubits)
        for layer in angles(num_qubits, job[1]):
            for qubit, angle in enumerate(layer):
                circuit.ry(angle, qubit)
            for qubit in range(num_qubits - 1):
                circuit.cx(qubit, qubit + 1)
        for k, label in enumerate(strings(num_qubits, job[1])):
            circuit.save_expectation_value(Pauli(label), list(range(num_qubits)), label=f"{k}")
        return circuit

    def run(self, job: Any) -> Any:
        self._found = self._simulator.run(job, shots=1).result().data(0)
        return self._found

    def last(self) -> list[float]:
        return [self._found[f"{k}"] for k in range(STRINGS)]


class LightningValues:
    """Scripts, ready for the device; its adjoint method."""

    def __init__(self, _threads: int) -> None:
        self._found: Any = None

    def prepare(self, num_qubits: int, job: tuple[str, int]) -> Any:
        import pennylane as qml

        what, seed = job
        gates = []
        for layer in angles(num_qubits, seed):
            gates += [qml.RY(angle, wires=num_qubits - 1 - k) for k, angle in enumerate(layer)]
            gates += [
                qml.CNOT(wires=[num_qubits - 1 - k, num_qubits - 2 - k])
                for k in range(num_qubits - 1)
            ]
        device = qml.device("lightning.qubit", wires=num_qubits)
        word = qml.pauli.string_to_pauli_word
        if what == "values":
            means = [qml.expval(word(label)) for label in strings(num_qubits, seed)]
        else:
            labels, factors = energy(num_qubits)
            means = [qml.expval(qml.Hamiltonian(factors, [word(label) for label in labels]))]
        script = qml.tape.QuantumScript(gates, means)
        if what == "gradient":
            script.trainable_params = list(range(LAYERS * num_qubits))
        return what, device, script

    def run(self, job: Any) -> Any:
        from pennylane.devices import ExecutionConfig

        what, device, script = job
        if what == "values":
            self._found = device.execute([script])[0]
        else:
            config = device.setup_execution_config(ExecutionConfig(gradient_method="adjoint"))
            self._found = device.compute_derivatives([script], config)[0]
        return self._found

    def last(self) -> list[float]:
        return np.asarray(self._found, float).ravel().tolist()


if __name__ == "__main__":
    sys.exit(main())
