"""The output `memory` through a real environment: sweeps, files, devices, limits."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter

import simenv
from simenv.errors import LimitExceededError, OptionError, ProgramError


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(workers=2) as client:
        yield client


def teleported(angle: float | Parameter) -> QuantumCircuit:
    """Teleportation; the bits of `mid` decide corrections, so `end` depends on neither."""
    mid, end = ClassicalRegister(2, "mid"), ClassicalRegister(1, "end")
    circuit = QuantumCircuit(QuantumRegister(3, "q"), mid, end)
    circuit.ry(angle, 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure([0, 1], mid)
    with circuit.if_test((mid[1], 1)):
        circuit.x(2)
    with circuit.if_test((mid[0], 1)):
        circuit.z(2)
    circuit.ry(-angle, 2)
    circuit.measure(2, end)
    return circuit


def test_memory_keeps_registers_joined_in_each_shot(env: simenv.Client) -> None:
    result = env.run(teleported(0.7), shots=400, outputs=("counts", "memory"))
    assert result.registers == (("mid", 2), ("end", 1))
    assert result.memory.shape == (400, 1)
    assert result.memory.dtype == np.uint8
    assert Counter(result.memory_strings()) == result.counts
    assert {key[0] for key in result.counts} == {"0"}
    assert len(result.counts) == 4


def test_memory_of_sweep_does_not_depend_on_its_split(env: simenv.Client) -> None:
    circuit = teleported(Parameter("x"))
    values = np.linspace(0.0, 3.0, 1500).reshape(-1, 1)
    options = {"shots": 20, "seed": 5, "outputs": ("memory",)}
    tasks = env.submit_many((circuit, values), **options)
    assert len({task.id.partition(".")[0] for task in tasks}) > 1
    for k in (0, 777, 1499):
        alone = env.run(circuit, parameter_values=values[k], binding_index=k, **options)
        np.testing.assert_array_equal(tasks[k].result().memory, alone.memory)


def test_large_memory_goes_into_a_file_and_can_be_saved(env: simenv.Client, tmp_path: Path) -> None:
    circuit = QuantumCircuit(40, 40)
    circuit.h(0)
    circuit.cx(0, 39)
    circuit.measure(range(40), range(40))
    result = env.run(circuit, shots=300_000, outputs=("memory",), seed=3)
    memory = result.memory  # 1.5 MB: above what a message may carry
    assert memory.shape == (300_000, 5)
    assert set(map(tuple, memory[:1000].tolist())) == {(0, 0, 0, 0, 0), (1, 0, 0, 0, 128)}
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    np.testing.assert_array_equal(again.memory, memory)
    result.save(tmp_path / "found.h5")
    with h5py.File(tmp_path / "found.h5") as file:
        np.testing.assert_array_equal(file["memory"][()], memory)


def test_memory_is_in_json_as_text(env: simenv.Client, tmp_path: Path) -> None:
    result = env.run(teleported(0.1), shots=5, outputs=("memory",))
    result.save(tmp_path / "found.json")
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["memory"] == result.memory_strings()
    assert document["counts"] is None
    with pytest.raises(OptionError, match="has no counts"):
        _ = result.counts


def test_memory_on_an_emulated_device_is_noisy_and_reproducible(env: simenv.Client) -> None:
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.cx(1, 2)
    circuit.measure_all()
    for engine in ("densitymatrix", "statevector"):
        options = {"shots": 2000, "seed": 11, "device": "fez", "engine": engine}
        both = env.run(circuit, outputs=("counts", "memory"), **options)
        alone = env.run(circuit, **options)
        assert both.counts == alone.counts
        assert Counter(both.memory_strings()) == both.counts
        assert len(both.counts) > 2


def test_memory_of_nothing_is_refused_before_submission(env: simenv.Client) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    with pytest.raises(ProgramError, match="memory was asked of a circuit that measures nothing"):
        env.submit(circuit, outputs=("memory",))
    circuit.measure(0, 0)
    with pytest.raises(OptionError, match="there is no memory"):
        env.submit(circuit, outputs=("memory",), shots=None)


def test_too_large_memory_is_refused_with_the_limit(env: simenv.Client) -> None:
    circuit = QuantumCircuit(1, 100)
    circuit.measure(0, 0)
    with pytest.raises(
        LimitExceededError, match=r"30000000 shots of 13 bytes.* 256\.0 MiB"
    ) as caught:
        env.submit(circuit, shots=30_000_000, outputs=("memory",))
    assert "at most 20648881 shots" in caught.value.hint
