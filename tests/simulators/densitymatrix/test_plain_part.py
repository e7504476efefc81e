"""Counts of circuits whose part is found in one pass equal those of the passes one by one."""

import engine_runs
import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel

from noise_models.channel import ReadoutGroup
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.densitymatrix import engine
from simulators.densitymatrix.plain_part import PlainPart, fits, plain_part
from simulators.engine import BindingResult, Request, RunControl
from simulators.errors import Stopped

ENGINE = engine.DensityMatrixEngine()
_PAIR = ReadoutGroup(
    (0, 2), np.array([[0.9, 0.1, 0, 0.05], [0.1, 0.8, 0.1, 0], [0, 0.1, 0.9, 0.05], [0, 0, 0, 0.9]])
)
MODELS: list[dict[str, object]] = [
    {"gate_error": 0.02, "t2_by_t1": 0.5, "idle": False},
    {"gate_error": 0.01, "t2_by_t1": 1.0, "excited": 0.1, "preparation_error": 0.03},
    {"gate_error": 0.03, "t2_by_t1": 1.9, "over_rotation": 0.2, "readout": (0.03, 0.08)},
    {"t2_by_t1": 2.0, "readout": (0.02, 0.05), "groups": (_PAIR,)},
    {"crosstalk_pairs": ((0, 1), (1, 2), (3, 4)), "readout": (0.01, 0.2)},
]


def random_circuit(rng: np.random.Generator, qubits: int) -> Arrays:
    """A connected circuit: some gates follow the last measurement of other qubits, some clbits are
    written twice."""
    result = Arrays(qubits, qubits + 1)
    for _ in range(20):
        kind = int(rng.integers(4))
        if kind == 0:
            result.add("rz", [int(rng.integers(qubits))], (), [float(rng.normal())])
        elif kind == 1:
            result.add("sx", [int(rng.integers(qubits))])
        elif kind == 2:
            result.add("id", [int(rng.integers(qubits))])
        else:
            result.add("cx", rng.permutation(qubits)[:2].tolist())
    for qubit in range(qubits - 1):
        result.add("cx", [qubit, qubit + 1])
    result.add("barrier", list(range(qubits)))
    for qubit in rng.permutation(qubits)[: int(rng.integers(1, qubits + 1))].tolist():
        result.add("measure", [qubit], [int(rng.integers(qubits + 1))])
    return result


def run(circuit: Circuit, model: DeviceModel, *outputs: str, shots: int = 3_000) -> BindingResult:
    noise = attach_noise(circuit, model)
    return engine_runs.run(ENGINE, circuit, Request(shots, 7, outputs), noise).row(0)


@pytest.mark.parametrize("number", range(len(MODELS)))
def test_counts_and_memory_equal_the_passes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    rng = np.random.default_rng(number)
    value = 0
    for _ in range(12):
        qubits = int(rng.integers(3, 6))
        circuit = random_circuit(rng, qubits).circuit()
        model = DeviceModel(5, **MODELS[number])  # type: ignore[arg-type]
        value += plain_part(circuit, attach_noise(circuit, model), ("counts",)) is not None
        result = run(circuit, model, "counts", "memory")
        with monkeypatch.context() as patch:
            patch.setattr(engine, "plain_part", lambda *_: None)
            assert run(circuit, model, "counts", "memory") == result
    assert value >= 6


@pytest.mark.parametrize("shots", [1, 3_000, 70_000])
def test_counts_of_few_qubits_are_those_of_the_kernels_one_by_one(
    monkeypatch: pytest.MonkeyPatch, shots: int
) -> None:
    rng = np.random.default_rng(shots)
    for values in MODELS:
        circuit = random_circuit(rng, 4).circuit()
        model = DeviceModel(5, **values)  # type: ignore[arg-type]
        result = run(circuit, model, "counts", shots=shots)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "fits", lambda *_: False)
            assert run(circuit, model, "counts", shots=shots) == result


def test_a_part_of_many_qubits_or_clbits_is_not_counted_in_one_call() -> None:
    def part(qubits: int, clbits: int) -> PlainPart:
        arrays = Arrays(qubits, clbits).add("h", [0])
        for qubit in range(qubits - 1):
            arrays.add("cx", [qubit, qubit + 1])
        circuit = arrays.measure(range(qubits)).circuit()
        result = plain_part(circuit, attach_noise(circuit, DeviceModel(qubits)), ("counts",))
        assert result is not None
        return result

    assert fits(part(8, 12), ("counts",))
    assert not fits(part(9, 12), ("counts",))
    assert not fits(part(8, 13), ("counts",))
    assert not fits(part(8, 12), ("counts", "memory"))


def test_a_stopped_run_has_no_counts() -> None:
    circuit, control = random_circuit(np.random.default_rng(1), 4).circuit(), RunControl()
    noise = attach_noise(circuit, DeviceModel(4))
    control.stop()
    with pytest.raises(Stopped):
        engine_runs.run(ENGINE, circuit, Request(100, 7), noise, control)


def bell() -> Arrays:
    return Arrays(3, 3).add("h", [0]).add("cx", [0, 1])


@pytest.mark.parametrize(
    "arrays",
    [
        bell().add("measure", [0], [0]).add("x", [0]).add("measure", [0], [1]),
        bell().add("reset", [0]).add("measure", [1], [1]),
        bell().add("h", [2]).add("measure", [0], [0]).add("measure", [2], [2]),
        bell().add("ccx", [0, 1, 2]).add("measure", [2], [2]),
    ],
    ids=["mid-circuit measurement", "reset", "two components", "gate on three qubits"],
)
def test_other_circuits_are_left_to_the_single_passes(arrays: Arrays) -> None:
    circuit = arrays.circuit()
    noise = attach_noise(circuit, DeviceModel(3, gate_error=0.01))
    assert plain_part(circuit, noise, ("counts",)) is None


def test_exact_outputs_are_left_to_the_single_passes() -> None:
    circuit = bell().add("measure", [0], [0]).circuit()
    noise = attach_noise(circuit, DeviceModel(3, gate_error=0.01))
    assert plain_part(circuit, noise, ("counts",)) is not None
    assert plain_part(circuit, noise, ("counts", "probabilities")) is None
