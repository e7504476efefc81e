"""Noise on a device that g++ compiles: counts of the engine `statevector`, shot by shot."""

from pathlib import Path

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from linked_circuits import linked_ghz
from noisy import program
from noisy_runs import device_noise, layers
from patterned import unitary

from noise_models.channel import depolarizing
from simulators.circuit.noise import Readout
from simulators.engine import PauliSum, Request
from simulators.errors import OutOfMemory
from simulators.gpu.engine import GpuEngine
from simulators.statevector.engine import StatevectorEngine
from testbed.host_device import HostDevice

SHOTS = 60


@pytest.mark.parametrize(("n", "ratio"), [(4, 0.5), (13, 1.9), (14, 0.5)])
def test_noisy_counts_equal_statevectors(device: HostDevice, n: int, ratio: float) -> None:
    circuit = layers(n, 2, np.random.default_rng(n)).circuit()
    noise = program(device_noise(circuit, ratio, 0.1), Readout(np.full(n, 0.01), np.full(n, 0.03)))
    request = Request(SHOTS, 2**63 + n, ("counts",), binding=3)
    value, expected = (
        run(engine, circuit, request, noise) for engine in (GpuEngine(device), StatevectorEngine())
    )
    assert value == expected
    assert bool(device.launches) == (n > 12), "small circuits are walked by the processor"


def test_walk_reads_channels_and_samples_inverted_qubits_on_the_device(device: HostDevice) -> None:
    """Relaxation draws its operator from the state, and Paulis are carried to the end."""
    circuit = layers(13, 2, np.random.default_rng(5)).circuit()
    noise = program(device_noise(circuit, 1.9))
    run(GpuEngine(device), circuit, Request(SHOTS, 1), noise)
    assert {"sweep_double", "pauli_sums_double", "apply_pauli_sum_double", "locate_double"} <= {
        *device.launches
    }


def test_single_precision_moves_few_shots_only(device: HostDevice) -> None:
    circuit = layers(13, 2, np.random.default_rng(6)).circuit()
    noise = program(device_noise(circuit, 0.5))
    value, expected = (
        run(engine, circuit, Request(SHOTS, 2, ("memory",)), noise, precision=precision)
        for engine, precision in ((GpuEngine(device), "single"), (StatevectorEngine(), "double"))
    )
    assert value.memory is not None
    one, two = (
        np.frombuffer(each.memory, np.uint8).reshape(SHOTS, -1) for each in (value, expected)
    )  # type: ignore[arg-type]
    assert (one != two).any(axis=1).sum() <= 1


def test_expectation_values_with_noise_are_those_of_statevector(device: HostDevice) -> None:
    arrays = Arrays(13, 0)
    for q in range(13):
        arrays.add("ry", [q], (), [0.3 + q])
        arrays.add("cx", [q, (q + 1) % 13])
    circuit = arrays.circuit()
    noise = program([(0, (0,), depolarizing(0.2, 1)), (5, (2, 3), depolarizing(0.2, 2))])
    sums = (PauliSum(("Z" * 13, "X" + "I" * 11 + "Y"), np.array([1.0, 0.5])),)
    request = Request(SHOTS, 4, ("expectation",), sums)
    value, expected = (
        run(engine, circuit, request, noise) for engine in (GpuEngine(device), StatevectorEngine())
    )
    assert np.allclose(
        np.frombuffer(value.expectations), np.frombuffer(expected.expectations), rtol=0, atol=1e-10
    )


def test_circuits_on_linked_qpus_have_the_counts_of_statevector(device: HostDevice) -> None:
    circuit, noise = linked_ghz(13)
    value, expected = (
        run(engine, circuit, Request(SHOTS, 8), noise)
        for engine in (GpuEngine(device), StatevectorEngine())
    )
    assert value == expected
    assert device.launches


def test_dynamic_circuit_with_noise_splits_branches_on_the_device(device: HostDevice) -> None:
    arrays = Arrays(13, 13)
    for q in range(13):
        arrays.add("ry", [q], (), [0.4 + q]).add("cx", [q, (q + 1) % 13])
    arrays.add("measure", [0], [0]).add("reset", [1]).add("h", [0])
    circuit = arrays.measure(range(13)).circuit()
    noise = program([(3, (1,), depolarizing(0.3, 1)), (25, (0,), depolarizing(0.3, 1))])
    value, expected = (
        run(engine, circuit, Request(SHOTS, 9), noise)
        for engine in (GpuEngine(device), StatevectorEngine())
    )
    assert value == expected


def test_memory_for_few_states_changes_no_count(library: Path) -> None:
    """Beginnings are run again where not all states of a path fit."""
    circuit = layers(13, 2, np.random.default_rng(8)).circuit()
    noise = program(device_noise(circuit, 0.5))
    request = Request(SHOTS, 3)
    plenty = run(GpuEngine(HostDevice(library)), circuit, request, noise)
    small = HostDevice(library, free_bytes=3 * (16 << 13))
    engine = GpuEngine(small)
    assert run(engine, circuit, request, noise) == plenty
    with pytest.raises(OutOfMemory, match="13 qubits"):
        run(GpuEngine(HostDevice(library, free_bytes=16 << 12)), circuit, request, noise)


def test_matrix_that_is_not_fused_stands_among_errors(device: HostDevice) -> None:
    wide = Arrays(13, 13)
    for q in range(13):
        wide.add("ry", [q], (), [0.2 + q])
    wide.unitary(unitary(32, np.random.default_rng(1)), range(5))
    for q in range(13):
        wide.add("cx", [q, (q + 1) % 13])
    circuit = wide.measure(range(13)).circuit()
    noise = program([(k, (k % 13,), depolarizing(0.1, 1)) for k in range(27)])
    value, expected = (
        run(engine, circuit, Request(SHOTS, 9), noise)
        for engine in (GpuEngine(device), StatevectorEngine())
    )
    assert value == expected
