"""Delays by parameters on a device: each binding has the noise of its own durations."""

import hashlib
import time

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from noise_models import document, library
from simenv.client.circuits import load
from simenv.model import TaskOptions, TaskState
from simenv.model.task import AmplitudeResultData
from simenv.service.devices.context import DeviceContext
from simenv.service.devices.registry import EmulatedDevice, device_info
from simenv.wire import codec
from simenv.wire.messages.client import STATES, AssignChunk, AssignedTask, NoiseDocument
from simenv.worker.runner import Runner
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit

SHOTS = 4_000
TIMES_US = (1.0, 40.0, 200.0)


def relaxing(time_us: object) -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.delay(time_us, 0, unit="us")
    circuit.measure(0, 0)
    return circuit


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


def ran(
    runner: Runner, circuit: QuantumCircuit, values: np.ndarray, first: int
) -> AmplitudeResultData:
    """Result of all bindings on `lima`, by trajectories."""
    body = document.dump(library.load("lima"))
    digest = hashlib.sha256(body).hexdigest()
    runner.receive_noise(NoiseDocument(digest, body))
    task = AssignedTask(
        1, 1, 0, load(circuit).packed, SHOTS, 5, values.tobytes(), first, count=max(1, len(values))
    )
    chunk = AssignChunk(1, 2**30, False, "statevector", "test", [], [])
    terms = TaskOptions(device="lima", snapshot=digest)
    result = runner.run(task, terms, chunk, time.perf_counter_ns())
    assert STATES[result.state] is TaskState.DONE, codec.failure(result.payload)
    return codec.result_data(result.payload)


def test_a_sweep_of_durations_has_the_counts_of_circuits_bound_by_hand(runner: Runner) -> None:
    swept = ran(runner, relaxing(Parameter("t")), 1e3 * np.array([TIMES_US]).T, 0)
    counts = np.frombuffer(swept.counts, np.uint32)
    ends = np.cumsum(np.frombuffer(swept.rows, np.uint32))
    for row, time_us in enumerate(TIMES_US):
        alone = ran(runner, relaxing(time_us), np.zeros((0, 0)), row)
        begin = 0 if row == 0 else ends[row - 1]
        assert counts[begin : ends[row]].tolist() == np.frombuffer(alone.counts, np.uint32).tolist()


def test_admission_takes_a_delay_whose_bindings_give_its_duration() -> None:
    lima = library.load("lima")
    body = document.dump(lima)
    digest = hashlib.sha256(body).hexdigest()
    terms = TaskOptions(device="lima", snapshot=digest, outputs=("counts",))
    info = device_info("lima", lima, digest)
    context = DeviceContext(info, EmulatedDevice(digest, body, lima, info), terms)
    circuit = Circuit.from_program(load(relaxing(Parameter("t"))).program)
    found = context.examined(circuit, profile(circuit, ("counts",), ()), terms).noise
    assert found is not None
    assert "kraus" in found.kinds
