"""The recipe of Aer on the density matrix engine gives the distributions of Aer itself."""

import warnings
from typing import Any

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities, run
from qiskit import QuantumCircuit, transpile
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel as AerNoise
from qiskit_ibm_runtime import fake_provider

from noise_models import library
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.options import NoiseOptions
from simulators.circuit.gates import GATES
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import Request

DEVICES = ("lima", "belem", "jakarta", "lagos", "guadalupe", "yorktown", "fractional")
WIDEST = 8
ENGINE = DensityMatrixEngine()
Operation = tuple[str, list[int], list[float]]


def random_circuit(snapshot: CalibrationSnapshot, seed: int) -> tuple[list[int], list[Operation]]:
    """Coupled qubits of a device, and native gates, resets, delays and barriers on them."""
    rng = np.random.default_rng(seed)
    pairs = [gate for gate in snapshot.gates if len(gate.qubits) == 2]
    used = set(pairs[rng.integers(len(pairs))].qubits)
    while len(used) < min(2 + seed % (WIDEST - 1), snapshot.num_qubits):
        near = [gate for gate in pairs if len(used & set(gate.qubits)) == 1]
        used |= set(near[rng.integers(len(near))].qubits)
    qubits = sorted(used)
    inner = [gate for gate in pairs if used.issuperset(gate.qubits)]
    natives = {gate.name for gate in snapshot.all_gates}
    entries: list[Operation] = [("x", [qubit], []) for qubit in qubits if rng.random() < 0.5]
    for kind in rng.random(30).tolist():
        qubit = [int(rng.choice(qubits))]
        if kind < 0.4:
            gate = inner[rng.integers(len(inner))]
            params = rng.uniform(0, np.pi / 2, GATES[gate.name].params).tolist()
            entries.append((gate.name, list(gate.qubits), params))
        elif kind < 0.7:
            entries.append((["sx", "x"][rng.integers(2)], qubit, []))
        elif kind < 0.9:
            name = "rx" if "rx" in natives and kind < 0.8 else "rz"
            entries.append((name, qubit, [float(rng.uniform(-3.0, 3.0))]))
        elif kind < 0.94:
            entries.append(("delay", qubit, [16.0 * int(rng.integers(1, 400))]))
        elif kind < 0.97:
            entries.append(("barrier", qubits, []))
        else:
            entries.append(("reset", qubit, []))
    return qubits, entries


def aer_circuit(size: int, qubits: list[int], operations: list[Operation]) -> QuantumCircuit:
    circuit = QuantumCircuit(size, len(qubits))
    for name, on, params in operations:
        if name == "delay":
            circuit.delay(int(params[0]), on[0], "dt")
        elif name == "barrier":
            circuit.barrier(on)
        else:
            getattr(circuit, name)(*params, *on)
    circuit.measure(qubits, range(len(qubits)))
    return circuit


def without_measurement(circuit: QuantumCircuit, qubits: list[int]) -> QuantumCircuit:
    """The used qubits' operations, with the distribution before readout saved."""
    quantum_circuit = QuantumCircuit(circuit.num_qubits)
    for each in circuit.data:
        on = [circuit.find_bit(qubit).index for qubit in each.qubits]
        if each.operation.name != "measure" and set(on) <= set(qubits):
            quantum_circuit.append(each.operation, on)
    quantum_circuit.save_probabilities(qubits)
    return quantum_circuit


def confused(values: np.ndarray, qubits: list[int], noise: AerNoise) -> np.ndarray:
    """A distribution after the readout errors of an Aer noise model."""
    for k, qubit in enumerate(qubits):
        error = noise._local_readout_errors[(qubit,)].probabilities  # row true, column read
        values = np.einsum("atb,tr->arb", values.reshape(-1, 2, 1 << k), error).reshape(-1)
    return values


def ours(size: int, qubits: list[int], operations: list[Operation], model: Any) -> np.ndarray:
    arrays = Arrays(size, len(qubits))
    for name, on, params in operations:
        arrays.add("delay_dt" if name == "delay" else name, on, params=params)
    for k, qubit in enumerate(qubits):
        arrays.add("measure", [qubit], [k])
    circuit, request = arrays.circuit(), Request(0, 0, ("probabilities",))
    result = probabilities(run(ENGINE, circuit, request, attach_noise(circuit, model)).row(0))
    return np.array([result.get(k, 0.0) for k in range(1 << len(qubits))])


def largest_difference(name: str, seeds: range, *, idle: bool) -> tuple[float, float]:
    """Largest difference of a probability, over random circuits on a device; and the largest
    weight that Aer's distributions lack."""
    snapshot = library.load(name)
    model = build(snapshot, NoiseOptions.parse({"recipe": "aer", "idle": idle}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = fake_provider.FakeProviderForBackendV2().backend(f"fake_{name}")
        noise = AerNoise.from_backend(backend)
    size = snapshot.num_qubits
    entries = [random_circuit(snapshot, seed) for seed in seeds]
    circuits = [aer_circuit(size, *each) for each in entries]
    if idle:
        circuits = transpile(
            circuits, backend, optimization_level=0, scheduling_method="alap",
            initial_layout=list(range(size)), num_processes=1,
        )  # fmt: skip
    saved = [
        without_measurement(circuit, qubits)
        for circuit, (qubits, _) in zip(circuits, entries, strict=True)
    ]
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    result = simulator.run(saved, shots=1).result()
    assert result.success
    largest = lacking = 0.0
    for k, (qubits, operations) in enumerate(entries):
        expected = confused(np.asarray(result.data(k)["probabilities"]), qubits, noise)
        outcome = ours(size, qubits, operations, model)
        assert outcome.sum() == pytest.approx(1.0, abs=1e-12)
        largest = max(largest, float(np.abs(outcome - expected).max()))
        lacking = max(lacking, 1.0 - float(expected.sum()))
    return largest, lacking


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("name", DEVICES)
def test_distributions_equal_those_of_aer(name: str, idle: bool) -> None:
    largest, lacking = largest_difference(name, range(5), idle=idle)
    assert largest < 1e-9 + lacking
    assert lacking < 2e-8


@pytest.mark.slow
@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("name", DEVICES)
def test_distributions_of_many_circuits_equal_those_of_aer(name: str, idle: bool) -> None:
    largest, lacking = largest_difference(name, range(100, 142), idle=idle)
    assert largest < 1e-9 + lacking


def test_difference_is_within_the_weight_that_aer_drops() -> None:
    """Aer leaves out error terms of less than 1e-10; where T2 is near T1 there are many."""
    largest, lacking = largest_difference("casablanca", range(3), idle=False)
    assert 1e-9 < largest < lacking
