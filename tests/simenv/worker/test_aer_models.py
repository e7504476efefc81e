"""Each channel of an Aer noise model acts as in Aer, or is named in the warnings of the result."""

import hashlib

import numpy as np
import pytest
from engine_runs import probabilities, run
from qiskit import QuantumCircuit
from qiskit.circuit.library import DiagonalGate, XGate
from qiskit_aer import AerSimulator
from qiskit_aer.noise import (
    NoiseModel,
    ReadoutError,
    amplitude_damping_error,
    depolarizing_error,
    pauli_error,
)

from noise_models import document
from simenv.client.circuits import load
from simenv.model import TaskOptions
from simenv.wire.messages.client import AssignedTask, NoiseDocument
from simenv.worker.noise import Noise
from simulators.circuit.ir import Circuit
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import Request

CONFUSION = np.array([[0.95, 0.05], [0.1, 0.9]])  # row true, column read
FLIP = np.array([[0, 1], [1, 0]])
SINGLE = ("id", "x", "h", "sx", "s", "t", "rx", "rz", "u", "p", "reset", "delay", "unitary")
PAIRS = ("cx", "cz", "swap", "rzz", "ecr", "cy")
NAMED = ("noisy_x", "excite", "diagonal")  # two labels, and a gate that is replaced by others


def circuit(rng: np.random.Generator) -> QuantumCircuit:
    """Circuit with an operation of every kind, in random order."""
    result = QuantumCircuit(3, 3)
    result.h(range(3))
    kinds = [*SINGLE, *PAIRS, *NAMED]
    for name in rng.permutation(kinds).tolist():
        first, second = rng.permutation(3)[:2].tolist()
        angle = float(rng.uniform(0.2, 3.0))
        if name == "noisy_x":
            result.append(XGate(label=name), [first])
        elif name == "excite":
            result.unitary(FLIP, [first], label=name)
        elif name == "diagonal":
            result.append(DiagonalGate([1, 1j]), [first])
        elif name == "unitary":
            result.unitary(FLIP, [first])
        elif name == "delay":
            result.delay(100, first, "ns")
        elif name in ("rx", "rz", "p"):
            getattr(result, name)(angle, first)
        elif name == "u":
            result.u(angle, 0.3, 0.7, first)
        elif name == "rzz":
            result.rzz(angle, first, second)
        elif name in PAIRS:
            getattr(result, name)(first, second)
        else:
            getattr(result, name)(first)
    result.measure(range(3), range(3))
    return result


def error(rng: np.random.Generator, size: int):  # type: ignore[no-untyped-def]
    p = float(rng.uniform(0.02, 0.3))
    kind = int(rng.integers(3))
    if kind == 0:
        return depolarizing_error(p, size)
    if kind == 1:
        return pauli_error([("X" * size, p), ("I" * size, 1.0 - p)])
    single = amplitude_damping_error(p)
    return single if size == 1 else single.tensor(amplitude_damping_error(p / 2))


def of_aer(asked: QuantumCircuit, noise: NoiseModel, has_readout: bool) -> np.ndarray:
    """Aer's distribution, with the readout error applied to it."""
    saved = asked.remove_final_measurements(inplace=False)
    saved.save_probabilities()
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    result = simulator.run(saved, optimization_level=0, fusion_enable=False).result()
    values = np.asarray(result.data()["probabilities"])
    for k in range(3) if has_readout else ():
        parts = values.reshape(-1, 2, 1 << k)
        values = np.einsum("atb,tr->arb", parts, CONFUSION).reshape(-1)
    return values


@pytest.mark.parametrize("seed", range(40))
def test_channels_act_as_in_aer_or_are_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Aer lets the label of a gate replace its name: without x and unitary the two agree on labels.
    singles = [name for name in SINGLE if name not in ("x", "unitary", "rz")]
    given: list[tuple[str, int]] = [
        *((str(name), 1) for name in rng.choice(singles, 4, replace=False)),
        *((str(name), 2) for name in rng.choice(PAIRS, 2, replace=False)),
    ]
    model, acting = NoiseModel(), NoiseModel()
    for name, size in given:
        channel = error(rng, size)
        qubits = rng.permutation(3)[:size].tolist()
        for each in (model, acting):
            if rng.bit_generator.state["state"]["state"] & 1:
                each.add_quantum_error(channel, [name], qubits)
            else:
                each.add_all_qubit_quantum_error(channel, [name])
    has_readout = bool(rng.random() < 0.5)
    if has_readout:
        readout = ReadoutError(CONFUSION)
        model.add_all_qubit_readout_error(readout)
    lost = NAMED[seed % 3]
    model.add_all_qubit_quantum_error(error(rng, 1), [lost])

    asked = circuit(rng)
    body = document.dump(document.from_values(model.to_dict(serializable=True)))
    digest = hashlib.sha256(body).hexdigest()
    noise, program = Noise(), load(asked).program
    noise.receive(NoiseDocument(digest, body))
    terms = TaskOptions(snapshot=digest)
    own = Circuit.from_program(program)
    attached = noise.program(program, own, terms)
    assert attached is not None
    found = probabilities(
        run(DensityMatrixEngine(), own, Request(0, 0, ("probabilities",)), attached).row(0)
    )

    values = np.array([found.get(k, 0.0) for k in range(8)])
    assert np.abs(values - of_aer(asked, acting, has_readout)).max() < 1e-9
    task = AssignedTask(1, 1, 0, program.packed(), 100, 1, b"", 0)
    (text,) = noise.record(program, task, terms).warnings
    assert text.startswith(f"channels of {lost} do not act")
