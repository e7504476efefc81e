"""Exact distributions equal those of Aer's density matrix with Aer's own noise model.

Circuits are random ones in the native gates of a device, on coupled qubits. Aer gets the noise
model of the device from its backend. With idle noise, the idle times of the schedule are delays in
Aer's circuits, which its noise model relaxes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from arrays import Arrays
from qiskit import QuantumCircuit
from qiskit.quantum_info import Choi, Kraus, SuperOp
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveProbabilities
from qiskit_aer.noise import NoiseModel as AerNoise
from qiskit_ibm_runtime.fake_provider import FakeProviderForBackendV2

from noise_models import library
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.model import NoiseModel, NoiseOptions
from simulators.circuit.analysis.measurements import TERMINAL, measurement_layout
from simulators.circuit.gates import GATES
from simulators.circuit.ir import Circuit, operations
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.schedule import Schedule, schedule
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import Request, RunControl, RunOptions
from simulators.execution.sampling import unpack

DEVICES = ("lima", "jakarta", "casablanca", "guadalupe", "yorktown", "fractional")
CIRCUITS = 17  # of each device, with and without idle noise: 204 in all
MAX_QUBITS = 8
NUM_GATES = 40
LOST = 2e-8  # of the trace, at most: Aer leaves out Kraus operators of small weight all the same
ENGINE = DensityMatrixEngine()


@pytest.fixture(autouse=True)
def all_kraus_operators() -> Iterator[None]:
    """Let Qiskit keep Kraus operators of weights below 1e-8, which it leaves out otherwise: Aer's
    relaxation then loses as much of the trace."""
    before = Kraus.atol
    for kind in (Kraus, Choi, SuperOp):
        kind.atol = 1e-14
    yield
    for kind in (Kraus, Choi, SuperOp):
        kind.atol = before


def backend(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FakeProviderForBackendV2().backend(f"fake_{name}")


def coupled(pairs: list[tuple[int, ...]], count: int, random: np.random.Generator) -> list[int]:
    """Coupled qubits, as many as asked for or as there are."""
    chosen = [int(random.choice([pair[0] for pair in pairs]))]
    while len(chosen) < count:
        near = sorted({q for p in pairs for q in p if set(p) & set(chosen)} - set(chosen))
        if not near:
            break
        chosen.append(int(random.choice(near)))
    return chosen


def random_circuit(device: CalibrationSnapshot, random: np.random.Generator) -> Circuit:
    """Native gates on coupled qubits, all measured at the end."""
    natives = {gate.name for gate in device.native_gates}
    singles = [name for name in ("rz", "sx", "x", "id", "rx") if name in natives]
    pairs = [gate for gate in device.gates if len(gate.qubits) == 2]
    qubits = coupled(
        [gate.qubits for gate in pairs], int(random.integers(2, MAX_QUBITS + 1)), random
    )
    inside = [gate for gate in pairs if set(gate.qubits) <= set(qubits)]
    arrays = Arrays(device.num_qubits, len(qubits))
    for _ in range(NUM_GATES):
        if inside and random.random() < 0.4:
            gate = inside[int(random.integers(len(inside)))]
            params = random.uniform(0, np.pi / 2, GATES[gate.name].params).tolist()
            arrays.add(gate.name, gate.qubits, (), params)
        else:
            name = singles[int(random.integers(len(singles)))]
            params = random.normal(size=GATES[name].params).tolist()
            arrays.add(name, [int(random.choice(qubits))], (), params)
    for clbit, qubit in enumerate(qubits):
        arrays.add("measure", [qubit], [clbit])
    return arrays.circuit()


def scheduled(circuit: Circuit, model: NoiseModel) -> Schedule:
    rows = list(operations(circuit, circuit.params))
    durations = np.array([model.duration_ns(row.name, row.qubits) for row in rows])
    return schedule(circuit, durations, final=measurement_layout(circuit).roles == TERMINAL)


def for_aer(circuit: Circuit, idle: Schedule | None) -> QuantumCircuit:
    """The circuit with its idle times as delays; probabilities of the measured qubits, without
    measurements, since readout errors act on counts alone."""
    quantum_circuit = QuantumCircuit(circuit.num_qubits)
    waits: dict[int, list[tuple[int, float]]] = {}
    if idle is not None:
        for after, qubit, time in zip(
            idle.idle_after.tolist(), idle.idle_qubit.tolist(), idle.idle_ns.tolist(), strict=True
        ):
            waits.setdefault(after, []).append((qubit, time))
    measured = []
    for row in operations(circuit, circuit.params):
        if row.name == "measure":
            measured.append(row.qubits[0])
        else:
            getattr(quantum_circuit, row.name)(*row.params, *row.qubits)
        for qubit, time in waits.get(row.place, ()):
            quantum_circuit.delay(time, qubit, unit="ns")
    quantum_circuit.append(SaveProbabilities(len(measured)), measured)
    return quantum_circuit


def read(probs: np.ndarray, circuit: Circuit, given: AerNoise) -> np.ndarray:
    """What is read with Aer's readout errors."""
    wires = [row.qubits[0] for row in operations(circuit, circuit.params) if row.name == "measure"]
    table = probs.reshape((2,) * len(wires))
    for clbit, qubit in enumerate(wires):
        error = given._local_readout_errors.get((qubit,))
        if error is not None:
            axis = len(wires) - 1 - clbit
            table = np.moveaxis(np.tensordot(error.probabilities.T, table, (1, axis)), 0, axis)
    return table.reshape(-1)


def ours(circuit: Circuit, model: NoiseModel) -> np.ndarray:
    options = RunOptions()
    plan = ENGINE.plan(circuit, attach_noise(circuit, model), options)
    request = Request(0, 0, ("probabilities",))
    result = ENGINE.run(plan, circuit, request, options, RunControl()).row(0)
    probs = np.zeros(1 << circuit.num_clbits)
    probs[unpack(result.probability_outcomes, result.probability_width)] = np.frombuffer(
        result.probabilities
    )
    return probs


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("name", DEVICES)
def test_distribution_with_the_recipe_of_aer_equals_that_of_aer(name: str, idle: bool) -> None:
    device = library.load(name)
    outcome = AerNoise.from_backend(backend(name))
    model = build(device, NoiseOptions.parse({"recipe": "aer", "idle": idle}))
    random = np.random.default_rng([DEVICES.index(name), idle])
    circuits = [random_circuit(device, random) for _ in range(CIRCUITS)]
    entries = [for_aer(each, scheduled(each, model) if idle else None) for each in circuits]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulator = AerSimulator(
            method="density_matrix",
            noise_model=outcome,
            zero_threshold=1e-16,
            max_parallel_threads=2,
        )
        result = simulator.run(entries).result()
    waited = 0
    for number, circuit in enumerate(circuits):
        expected = read(result.data(number)["probabilities"], circuit, outcome)
        lost = max(0.0, 1.0 - expected.sum())
        assert lost < LOST
        assert np.abs(ours(circuit, model) - expected).max() < 1e-9 + lost
        waited += any(item.operation.name == "delay" for item in entries[number].data)
    assert waited > CIRCUITS // 2 if idle else waited == 0
