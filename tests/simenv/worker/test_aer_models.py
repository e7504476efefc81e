"""Each channel of an Aer noise model acts as in Aer, or is named in the warnings of the result."""

import functools
import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest
from engine_runs import probabilities, run
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit.library import CXGate, DiagonalGate, PauliGate, RZZGate, UCGate, XGate
from qiskit_aer import AerSimulator
from qiskit_aer.noise import (
    NoiseModel,
    QuantumError,
    ReadoutError,
    amplitude_damping_error,
    depolarizing_error,
    pauli_error,
)  # fmt: skip
from scipy.stats import unitary_group

from noise_models import document
from noise_models.strict_json import SnapshotError
from simenv.client.circuits import ChannelNames, PackedCircuit, load
from simenv.client.submission.noise import aer_document, channel_names
from simenv.errors import ProgramError
from simenv.model import Program, TaskOptions
from simenv.wire.messages.client import AssignedTask, NoiseDocument
from simenv.worker.noise import Noise
from simulators.circuit.ir import Circuit
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import Request
from simulators.execution.packing import unpack
from simulators.statevector.engine import StatevectorEngine

SHOTS = 4_000
CONFUSION = np.array([[0.95, 0.05], [0.1, 0.9]])  # row true, column read
TURN = np.array([[0.6, 0.8], [-0.8, 0.6]])
SINGLE = ("id", "x", "y", "h", "sx", "s", "t", "rx", "rz", "u", "p", "reset", "delay", "unitary")
PAIRS = ("cx", "cz", "swap", "rzz", "ecr", "cy", "cp")
WIDE = ("ccx",)
# Names that are no gate's own: labels; gates that are expanded here, and run as they are by Aer.
LABELS = ("noisy_x", "excite", "h")  # the last one on an rz: it has the channels of h
LABELLED_PAIR = "slow"
WHOLE = ("diagonal",)
PAULIS = "XY"  # Aer knows a Pauli gate by its string
# Names that no operation has in Aer either.
LOST = ("own", "own_label", "diagonal_label", "pauli")


def append(circuit: QuantumCircuit, name: str, rng: np.random.Generator) -> None:
    """Append the operation of a name on random qubits."""
    first, second, third = rng.permutation(3).tolist()
    angle = float(rng.uniform(0.2, 3.0))
    own = QuantumCircuit(2, name="own")
    own.sx(0)
    own.append(XGate(label="noisy_x"), [1])
    labelled = DiagonalGate([1, 1j, -1, 1])
    labelled.label = "diagonal_label"
    pauli = PauliGate(PAULIS)
    pauli.label = "pauli"
    special: dict[str, Callable[[], object]] = {
        "noisy_x": lambda: circuit.append(XGate(label="noisy_x"), [first]),
        "excite": lambda: circuit.unitary(TURN, [first], label="excite"),
        "labelled h": lambda: circuit.append(XGate(label="h"), [first]),
        "slow": lambda: circuit.append(RZZGate(angle, label="slow"), [first, second]),
        "diagonal": lambda: circuit.append(DiagonalGate([1, 1j]), [first]),
        "diagonal_label": lambda: circuit.append(labelled, [first, second]),
        "pauli": lambda: circuit.append(pauli, [first, second]),
        "open": lambda: circuit.append(CXGate(ctrl_state=0), [first, second]),
        "own": lambda: circuit.append(own.to_gate(label="own_label"), [first, second]),
        "unitary": lambda: circuit.unitary(TURN, [first]),
        "delay": lambda: circuit.delay(100, first, "ns"),
        "u": lambda: circuit.u(angle, 0.3, 0.7, first),
        "ccx": lambda: circuit.ccx(first, second, third),
    }
    if name in special:
        special[name]()
    elif name in ("rx", "rz", "p"):
        getattr(circuit, name)(angle, first)
    elif name in ("rzz", "cp"):
        getattr(circuit, name)(angle, first, second)
    elif name in PAIRS:
        getattr(circuit, name)(first, second)
    else:
        getattr(circuit, name)(first)


OPERATIONS = (
    *(*SINGLE, *PAIRS, *WIDE, "noisy_x", "excite", "labelled h", "slow", *WHOLE),
    *("diagonal_label", "pauli", "open", "own"),
)


def circuit(rng: np.random.Generator) -> QuantumCircuit:
    """Circuit with an operation of every kind, in random order."""
    result = QuantumCircuit(3, 3)
    result.u(0.4, 0.3, 0.2, range(3))
    for name in rng.permutation(OPERATIONS).tolist():
        append(result, name, rng)
    result.measure(range(3), range(3))
    return result


def error(rng: np.random.Generator, size: int):  # type: ignore[no-untyped-def]
    p = float(rng.uniform(0.02, 0.3))
    if size == 3:
        return error(rng, 1).tensor(error(rng, 2))
    kind = int(rng.integers(3))
    if kind == 0:
        return depolarizing_error(p, size)
    if kind == 1:
        return pauli_error([("X" * size, p), ("I" * size, 1.0 - p)])
    single = amplitude_damping_error(p)
    return single if size == 1 else single.tensor(amplitude_damping_error(p / 2))


def of_aer(asked: QuantumCircuit, noise: NoiseModel, has_readout: bool) -> np.ndarray:
    """Aer's distribution, with the readout error applied to it. Aer has no gates of users: they are
    replaced by their definitions, as its transpiler does."""
    saved = asked.remove_final_measurements(inplace=False).decompose(["own"])
    saved.save_probabilities()
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    result = simulator.run(saved, optimization_level=0, fusion_enable=False).result()
    values = np.asarray(result.data()["probabilities"])
    for k in range(3) if has_readout else ():
        parts = values.reshape(-1, 2, 1 << k)
        values = np.einsum("atb,tr->arb", parts, CONFUSION).reshape(-1)
    return values


class Loaded:
    """A circuit and an Aer noise model, as a worker receives them."""

    def __init__(self, asked: QuantumCircuit | PackedCircuit, model: NoiseModel) -> None:
        sent = aer_document(model)
        body = document.dump(document.load(sent))
        digest = hashlib.sha256(body).hexdigest()
        self.program: Program = load(asked, ChannelNames(channel_names(sent))).program
        self.circuit = Circuit.from_program(self.program)
        self.terms = TaskOptions(snapshot=digest)
        self.noise = Noise()
        self.noise.receive(NoiseDocument(digest, body))

    def attached(self):  # type: ignore[no-untyped-def]
        """The noise program of the circuit."""
        result = self.noise.program(self.program, self.circuit, self.terms)
        assert result is not None
        return result

    def distribution(self) -> np.ndarray:
        """Probabilities by the density matrix."""
        asked = Request(0, 0, ("probabilities",))
        result = run(DensityMatrixEngine(), self.circuit, asked, self.attached())
        found = probabilities(result.row(0))
        return np.array([found.get(k, 0.0) for k in range(1 << self.program.num_clbits)])

    def warnings(self) -> tuple[str, ...]:
        task = AssignedTask(1, 1, 0, self.program.packed(), 100, 1, b"", 0)
        return self.noise.record(self.program, task, self.terms).warnings


@pytest.mark.parametrize("seed", range(40))
def test_channels_act_as_in_aer_or_are_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    singles, pairs = (*SINGLE, *LABELS), (*PAIRS, LABELLED_PAIR, PAULIS)
    given: list[tuple[str, int]] = [
        *((str(name), 1) for name in rng.choice([*dict.fromkeys((*singles, *WHOLE))], 7, False)),
        *((str(name), 2) for name in rng.choice(pairs, 3, replace=False)),
    ]
    if seed % 2:
        given.append(("ccx", 3))
    model = NoiseModel()
    for name, size in given:
        channel = error(rng, size)
        qubits = rng.permutation(3)[:size].tolist()
        if rng.random() < 0.5:
            model.add_quantum_error(channel, [name], qubits)
        else:
            model.add_all_qubit_quantum_error(channel, [name])
    has_readout = bool(rng.random() < 0.5)
    if has_readout:
        model.add_all_qubit_readout_error(ReadoutError(CONFUSION))
    lost = LOST[seed % len(LOST)]
    model.add_all_qubit_quantum_error(error(rng, 1), [lost])

    asked = circuit(rng)
    loaded = Loaded(asked, model)
    difference = loaded.distribution() - of_aer(asked, model, has_readout)
    assert np.abs(difference).max() < 1e-9
    (text,) = loaded.warnings()
    assert text.startswith(f"channels of {lost} do not act")


def wide_circuit() -> QuantumCircuit:
    result = QuantumCircuit(3, 3)
    for qubit, angle in enumerate((0.4, 1.1, 2.3)):
        result.ry(angle, qubit)
    result.ccx(0, 1, 2)
    result.h([0, 2])
    result.measure(range(3), range(3))
    return result


@pytest.mark.parametrize(
    "channel",
    [
        pauli_error([("XXI", 0.2), ("III", 0.8)]),
        pauli_error([("XIZ", 0.2), ("III", 0.7), ("YIZ", 0.1)]),
        pauli_error([("XZY", 1.0)]),
        depolarizing_error(0.3, 1).tensor(depolarizing_error(0.2, 2)),
        pauli_error([("YIZ", 1.0)]).compose(amplitude_damping_error(0.3), [1]),
    ],
)
def test_pauli_strings_on_three_qubits_act_as_in_aer(channel: QuantumError) -> None:
    model, asked = NoiseModel(), wide_circuit()
    model.add_all_qubit_quantum_error(channel, ["ccx"])
    found = Loaded(asked, model).distribution()
    np.testing.assert_allclose(found, of_aer(asked, model, False), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    "channel", [depolarizing_error(0.1, 3), pauli_error([("XXX", 0.1), ("III", 0.9)])]
)
def test_correlated_error_of_three_qubits_is_refused_with_way_out(channel: QuantumError) -> None:
    model = NoiseModel()
    model.add_all_qubit_quantum_error(channel, ["ccx"])
    text = r"errors\[0\]: a correlated error of 3 qubits"
    assert "transpiled to" in fails(SnapshotError, text, document.load, aer_document(model)).hint


def test_pauli_strings_that_do_not_fit_their_qubits_are_refused() -> None:
    for name, qubits in (("XX", [0, 1, 2]), ("XXX", [0, 1, 1]), ("XQ", [0, 1]), ("", [0])):
        instruction = {"name": "pauli", "params": [name], "qubits": qubits}
        values = {"type": "qerror", "operations": ["ccx"], "probabilities": [1.0]}
        body = json.dumps({"errors": [{**values, "instructions": [[instruction]]}]}).encode()
        fails(SnapshotError, r"errors\[0\].instructions\[0\]\[0\]", document.load, body)


@pytest.mark.parametrize("others", [(), ("h",)])
def test_channels_of_labels_of_a_circuit_loaded_before_are_named(others: tuple[str, ...]) -> None:
    model, asked = NoiseModel(), QuantumCircuit(1, 1)
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["noisy_x", *others])
    asked.h(0)
    asked.append(XGate(label="noisy_x"), [0])
    asked.measure(0, 0)
    assert Loaded(asked, model).warnings() == ()
    loaded = load(asked)
    for each in (loaded, loaded.program):
        task = Loaded(each, model)
        (text,) = task.warnings()
        assert "noisy_x" in text
        assert "not from a circuit that was loaded before" in text


def test_kraus_operations_and_errors_of_measurements_are_refused() -> None:
    asked = QuantumCircuit(1, 1)
    asked.append(amplitude_damping_error(0.1).to_instruction(), [0])
    assert "noise" in fails(ProgramError, "", load, asked).hint
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["measure"])
    text = "a channel at a measurement"
    assert "readout" in fails(SnapshotError, text, document.load, aer_document(model)).hint


def test_channels_of_gates_that_a_compiler_expands_are_named() -> None:
    """As where the command line has --device, --pool or --prefer."""
    model, asked = NoiseModel(), QuantumCircuit(2, 2)
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["diagonal", "h"])
    asked.h(0)
    asked.append(DiagonalGate([1, 1j, -1, 1]), [0, 1])
    asked.measure([0, 1], [0, 1])
    assert Loaded(asked, model).warnings() == ()
    names = channel_names(aer_document(model))
    (text,) = Loaded(load(asked, ChannelNames(names, whole=False)), model).warnings()
    assert text.startswith("channels of diagonal do not act")


def sampled_circuit() -> QuantumCircuit:
    """Circuit with operations that Aer runs whole: an initialization, a multiplexer, a gate with
    three controls; and a gate that has a label."""
    rng = np.random.default_rng(11)
    result = QuantumCircuit(4, 4)
    result.initialize([0.6, 0.0, 0.0, 0.8], [0, 1])
    result.h([2, 3])
    result.append(UCGate([unitary_group.rvs(2, random_state=rng) for _ in range(4)]), [2, 0, 1])
    result.mcx([0, 1, 2], 3)
    result.append(XGate(label="noisy_x"), [1])
    result.x(0)
    result.ry(0.7, range(4))
    result.measure(range(4), range(4))
    return result


@pytest.mark.parametrize("name", ["initialize", "multiplexer", "mcx", "noisy_x"])
def test_trajectories_agree_with_shots_of_aer(name: str) -> None:
    """Each difference of the counts is below five standard deviations; without the channel it is
    above."""
    model, asked = NoiseModel(), sampled_circuit()
    size = {"noisy_x": 1, "mcx": 4}.get(name, 2)
    strong = depolarizing_error(0.5, 1).compose(amplitude_damping_error(0.3))
    channel = functools.reduce(QuantumError.tensor, [strong] * size)
    model.add_all_qubit_quantum_error(channel, [name])
    loaded = Loaded(asked, model)
    assert loaded.warnings() == ()
    simulator = AerSimulator(method="statevector", noise_model=model, seed_simulator=3)
    ran = simulator.run(asked, shots=SHOTS, optimization_level=0, fusion_enable=False).result()
    expected = np.zeros(16)
    for text, count in ran.get_counts().items():
        expected[int(text, 2)] = count
    off = []
    for noise in (loaded.attached(), None):
        row = run(StatevectorEngine(), loaded.circuit, Request(SHOTS, 5), noise).row(0)
        found = np.zeros(16)
        found[unpack(row.outcomes, row.outcome_width)] = np.frombuffer(row.counts, np.uint32)
        off.append(np.abs(found - expected) / np.sqrt(np.maximum(found + expected, 1.0)))
    with_noise, without = off
    assert with_noise.max() < 5.0
    assert without.max() > 5.0
