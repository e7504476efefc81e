"""Programs on a device of 50 logical qubits, whose native gates have no angle."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pennylane as qml
import pytest
from logical_devices import ROUND_NS, store_logical
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import RZGate
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector
from qiskit.transpiler.passes import SynthesizeRZRotations
from shell import Shell

from simenv.client.client import Client
from simenv.client.submission import prepare
from simenv.errors import LimitExceededError, ProgramError
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler
from simenv.model.logical_use import SYNTHESIS_ERROR

DEVICE = "logical50"
QUBITS = 50


@pytest.fixture(scope="module", autouse=True)
def device() -> Iterator[None]:
    store_logical(DEVICE, QUBITS)
    return


def rotated(kind: str) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    if kind == "rzz":
        circuit.rx(0.3, 0)
        circuit.rzz(0.7, 0, 1)
    else:
        getattr(circuit, kind)(0.3, 0)
    circuit.h([0, 1])
    return circuit


def swept() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.ry(2 * Parameter("a"), 0)
    circuit.measure_all()
    return circuit


@pytest.mark.parametrize("kind", ["rz", "ry", "rzz"])
def test_rotations_become_sequences_of_native_gates(env: Client, kind: str) -> None:
    circuit = rotated(kind)
    exact = Statevector(circuit).probabilities_dict()
    circuit.measure_all()
    result = env.run(circuit, device=DEVICE, noise="off", shots=None, outputs=("probabilities",))
    for bits, probability in exact.items():
        assert result.probabilities.get(bits, 0.0) == pytest.approx(probability, abs=1e-8)


def test_each_binding_of_a_sweep_is_compiled_with_its_numbers(env: Client) -> None:
    """Also pi / 2, which is a Clifford gate; and one binding alone gives what it does in a
    sweep."""
    angles = np.array([[0.1], [math.pi / 4], [0.4]])
    options = {"device": DEVICE, "noise": "off", "seed": 5, "shots": 500}
    tasks = env.submit_many((swept(), angles), **options)
    counts = [task.result().counts for task in tasks]
    for (angle,), found in zip(angles, counts, strict=True):
        p = math.sin(angle) ** 2
        assert abs(found.get("1", 0) - 500 * p) < 5 * math.sqrt(500 * p * (1 - p))
    alone = env.run(swept(), parameter_values={"a": 0.4}, binding_index=2, **options)
    assert alone.counts == counts[2]
    assert env.explain(swept(), device=DEVICE, parameter_values=angles).sizes.gates_1q > 50


def test_sweeps_are_bounded_and_free_parameters_are_refused_by_name(
    env: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "MAX_COMPILED", 2)
    with pytest.raises(LimitExceededError, match="3 bindings for a device without gates"):
        env.submit_many((swept(), [[0.1], [0.2], [0.3]]), device=DEVICE)
    with pytest.raises(ProgramError, match="has no gate with an angle"):
        env.transpile(swept(), DEVICE)


def wide(entangled: int = QUBITS) -> QuantumCircuit:
    circuit = QuantumCircuit(QUBITS)
    circuit.h(0)
    for qubit in range(1, entangled):
        circuit.cx(qubit - 1, qubit)
    return circuit


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_qiskit_transpiles_for_the_backend(env: Client, level: int) -> None:
    backend = SimenvBackend(DEVICE, env=env)
    circuit = wide()
    circuit.rz(0.3, 4)
    for each in (wide(2), circuit):
        compiled = transpile(each, backend, optimization_level=level)
        assert set(compiled.count_ops()) <= set(backend.target.operation_names)


def test_a_program_of_qiskit_runs_unchanged(env: Client) -> None:
    backend = SimenvBackend(DEVICE, env=env)
    circuit = wide()
    circuit.measure_all()
    counts = backend.run(transpile(circuit, backend), shots=500).result().get_counts()
    assert sum(counts[bits] for bits in ("0" * QUBITS, "1" * QUBITS)) > 450
    sampled = SimenvSampler(backend).run([(swept(), [[0.0], [math.pi / 2]])], shots=100).result()
    zero, one = (sampled[0].data.meas[k].get_counts() for k in range(2))
    assert zero["0"] > 90
    assert one["1"] > 90
    state = wide(2)
    state.ry(0.3, 0)
    observable = SparsePauliOp.from_sparse_list([("ZZ", [0, 1], 1.0)], QUBITS)
    (values,) = SimenvEstimator(backend).run([(state, observable)], precision=0.02).result()
    assert float(values.data.evs) == pytest.approx(math.cos(0.3), abs=0.15)


def test_a_program_of_pennylane_runs_unchanged(env: Client) -> None:
    machine = qml.device("simenv", wires=QUBITS, device=DEVICE, env=env, seed=3)

    @qml.set_shots(2_000)
    @qml.qnode(machine, diff_method="parameter-shift")
    def turned(angle: float) -> object:
        qml.RY(angle, wires=0)
        for wire in range(1, 4):
            qml.CNOT(wires=[wire - 1, wire])
        return qml.expval(qml.PauliZ(3))

    angle = qml.numpy.array(0.8, requires_grad=True)
    assert float(turned(angle)) == pytest.approx(math.cos(0.8), abs=0.15)
    assert float(qml.grad(turned)(angle)) == pytest.approx(-math.sin(0.8), abs=0.15)


def test_one_program_runs_on_a_chip_on_linked_chips_and_on_logical_qubits(
    env: Client,
) -> None:
    import simenv

    link = simenv.Link("a.0", "b.0", fidelity=0.97, rate_hz=1e5)
    linked = simenv.Machine({"a": "fez", "b": "torino"}, [link])
    circuit = QuantumCircuit(4)
    circuit.h(0)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    found = {
        name: env.run(circuit, device=device, shots=400, seed=2)
        for name, device in {"chip": "fez", "linked": linked, "logical": DEVICE}.items()
    }
    right = {name: (each.counts.get("0000", 0) + each.counts.get("1111", 0)) / 400
             for name, each in found.items()}  # fmt: skip
    assert right["logical"] > 0.98
    assert min(right.values()) > 0.5
    assert all(len(bits) == 4 for each in found.values() for bits in each.counts)


def test_explain_states_the_costs_of_logical_qubits(env: Client) -> None:
    """Of H, a T gate and a rotation on one qubit, and CX: the time of the schedule, and the errors
    of the rates that the device was made with."""
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.t(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    use = env.explain(circuit, device=DEVICE).logical
    assert use is not None
    assert (use.t_gates, use.rotations, use.synthesis_error) == (1, 0, 0.0)
    rounds = 5 + 25 + 1  # of H, T and CX at distance 5
    assert use.physical_qubits == 2 * 49
    assert use.seconds == pytest.approx((rounds + 1) * 1e-9 * ROUND_NS)
    # Of each round X, Y and Z at 5e-7 each: flips of X, and of Z, at 1e-6.
    assert use.error == pytest.approx(1e-4 + (rounds + 1) * 1.5e-6 + 2e-6, rel=1e-3)
    circuit = rotated("rzz")  # rx and rzz
    circuit.measure_all()
    turned = env.explain(circuit, device=DEVICE).logical
    assert turned is not None
    assert turned.rotations == 2
    assert turned.t_gates > 200
    assert turned.synthesis_error == 2 * SYNTHESIS_ERROR
    assert env.explain(circuit, device="fez").logical is None


def test_synthesis_of_rotations_keeps_the_stated_error() -> None:
    generator = np.random.default_rng(1)
    for angle in (0.3, *generator.uniform(-7.0, 7.0, 5)):
        circuit = QuantumCircuit(1)
        circuit.rz(angle, 0)
        made = SynthesizeRZRotations(approximation_degree=1.0)(circuit)
        turn = RZGate(angle).to_matrix().conj().T @ Operator(made).data
        phase = np.sqrt(np.linalg.det(turn))
        phase = phase if (turn[0, 0] / phase).real > 0 else -phase
        assert np.linalg.norm(turn / phase - np.eye(2), 2) < SYNTHESIS_ERROR


def test_the_command_line_and_the_ledger_say_that_errors_are_logical(
    shell: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "turned.qasm"
    path.write_text(
        'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[1];\ncreg c[1];\n'
        "ry(0.3) q[0];\nmeasure q -> c;\n"
    )
    said = shell("explain", str(path), "--device", DEVICE, code=0).err
    assert re.search(r"logical qubits: \d+ T gates; synthesis of 1 rotation, with an error", said)
    assert "49 physical qubits without those of magic states" in said
    ledger = shell("explain", str(path), "--device", DEVICE, "--ledger", code=0).out
    assert "the errors that decoding leaves of the rotated surface code of distance 5" in ledger
