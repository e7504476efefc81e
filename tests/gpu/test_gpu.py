"""A real GPU: the bits of the host device, counts of the engine `statevector`, memory, refusals."""

import gc

import numpy as np
import pytest
from arrays import Arrays
from gpu_bits import circuit_results, repeated_bits, same, table_bits
from linked_circuits import linked_ghz
from random_circuits import random_static

from simulators import registry
from simulators.engine import Request, RunControl, RunOptions
from simulators.errors import OutOfMemory
from simulators.gpu.devices.device import Device
from simulators.gpu.engine import GpuEngine
from simulators.statevector.engine import StatevectorEngine
from testbed.host_device import HostDevice

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["double", "single"])
def test_random_tables_have_the_bits_of_the_host_device(device: Device, precision: str) -> None:
    for seed in range(40):
        assert table_bits(device, seed, precision) == table_bits(HostDevice(), seed, precision)


@pytest.mark.parametrize("precision", ["double", "single"])
def test_replays_of_a_graph_have_the_bits_of_the_host_device(
    device: Device, precision: str
) -> None:
    assert repeated_bits(device, precision) == repeated_bits(HostDevice(), precision)
    assert device.capture(lambda: None) is not None, "no graph could be captured"


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("n", [5, 12, 13, 14])
def test_circuits_have_the_bits_of_the_host_device(device: Device, n: int, precision: str) -> None:
    pairs = zip(
        circuit_results(device, n, precision),
        circuit_results(HostDevice(), n, precision),
        strict=True,
    )
    assert all(same(one, two) for one, two in pairs)


@pytest.mark.parametrize("n", [6, 12, 16, 20])
def test_counts_are_those_of_the_statevector_engine(device: Device, n: int) -> None:
    circuit = random_static(n, 200, n, n)
    engines = (GpuEngine(device), StatevectorEngine())
    plans = [engine.plan(circuit, None, RunOptions()) for engine in engines]
    for seed in range(100):
        value, expected = (
            engine.run(plan, circuit, Request(1000, seed), RunOptions(), RunControl())
            for engine, plan in zip(engines, plans, strict=True)
        )
        assert value == expected, seed


@pytest.mark.parametrize("n", [4, 14])
def test_circuits_on_linked_qpus_have_the_counts_of_statevector(device: Device, n: int) -> None:
    """A Bell pair with its wait, corrections by its bits, and the noise of both modules."""
    circuit, noise = linked_ghz(n)
    value, expected = (
        engine.run(
            engine.plan(circuit, noise, RunOptions()), circuit, Request(500, 8), RunOptions(),
            RunControl(),
        )
        for engine in (GpuEngine(device), StatevectorEngine())
    )  # fmt: skip
    assert value == expected


def test_state_that_does_not_fit_is_refused_before_it_is_allocated(device: Device) -> None:
    engine = GpuEngine(device)
    n = engine.ledger.largest_width("double") + 1
    circuit = Arrays(n, 0)
    for q in range(n):
        circuit.add("h", [q]).add("cx", [q, (q + 1) % n])
    free = device.free_bytes
    plan = engine.plan(circuit.circuit(), None, RunOptions())
    with pytest.raises(OutOfMemory, match=f"{n} qubits"):
        engine.run(
            plan, circuit.circuit(), Request(0, 1, ("statevector",)), RunOptions(), RunControl()
        )
    assert device.free_bytes == free


def test_memory_of_a_state_is_freed_after_its_run(device: Device) -> None:
    engine = GpuEngine(device)
    circuit = random_static(26, 60, 1, 26)
    plan = engine.plan(circuit, None, RunOptions())
    engine.run(plan, circuit, Request(100, 1), RunOptions(), RunControl())
    gc.collect()
    free = device.free_bytes
    for seed in range(3):
        engine.run(plan, circuit, Request(100, seed), RunOptions(), RunControl())
    gc.collect()
    assert device.free_bytes == free
    assert engine.ledger.reserved_bytes == 0


def test_registry_creates_and_warms_up_the_engine(device: Device) -> None:
    engine = registry.create("gpu")
    engine.warm_up()
    assert engine.name == "gpu"


def test_many_bindings_agree_with_single_ones(device: Device) -> None:
    arrays = Arrays(8, 8)
    for q in range(8):
        arrays.add("ry", [q], (), [0.0])
        arrays.free(q)
        arrays.add("cx", [q, (q + 1) % 8])
    circuit = arrays.measure(range(8)).circuit()
    values = np.random.default_rng(1).uniform(-3, 3, (2000, 8))
    engine = GpuEngine(device)
    plan = engine.plan(circuit, None, RunOptions())
    request = Request(200, 5, bindings=values)
    result = engine.run(plan, circuit, request, RunOptions(), RunControl())
    expected = StatevectorEngine().run(plan, circuit, request, RunOptions(), RunControl())
    assert result == expected
