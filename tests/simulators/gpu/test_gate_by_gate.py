"""Engine `gpu_sweep`: the shots are those of the engine `sweep`."""

from pathlib import Path

import numpy as np
import pytest
from engine_runs import run
from noisy_runs import DYNAMIC, dynamic_noise
from swept import GRAPHS, HEXAGON, LADDER, noise_of, random_circuit

from noise_models.channel import Readout
from simulators.engine import Request, RunControl
from simulators.errors import OutOfMemory, Stopped
from simulators.gpu import gate_by_gate
from simulators.gpu.gate_by_gate import GpuSweepEngine
from simulators.tensornetwork.sweep.engine import SweepEngine
from testbed.host_device import HostDevice

SHOTS = 50
MEMORY = ("memory",)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("graph", GRAPHS)
def test_shots_are_those_of_the_processor(device: HostDevice, graph: str, seed: int) -> None:
    random = np.random.default_rng([seed, len(graph), 7])
    layers = 1 if graph == "all" else int(random.integers(1, 4))
    circuit = random_circuit(GRAPHS[graph], layers, random)
    noise = noise_of(circuit, random)
    request = Request(SHOTS, seed, MEMORY)
    expected = run(SweepEngine(), circuit, request, noise).memory
    assert run(GpuSweepEngine(device), circuit, request, noise).memory == expected
    assert device.launches[-1] == "sample_lines_double"


@pytest.mark.parametrize("name", ["teleportation", "resets"])
def test_measurements_resets_and_conditions_are_those_of_the_processor(
    device: HostDevice, name: str
) -> None:
    circuit = DYNAMIC[name]().circuit()
    width = circuit.num_qubits
    noise = dynamic_noise(circuit, 1.0, Readout(np.full(width, 0.1), np.full(width, 0.2)))
    request = Request(SHOTS, 5, MEMORY)
    expected = run(SweepEngine(), circuit, request, noise).memory
    assert run(GpuSweepEngine(device), circuit, request, noise).memory == expected


@pytest.mark.parametrize("order", [1, 5, 6])
def test_shots_do_not_depend_on_the_order_of_threads(library: Path, order: int) -> None:
    random = np.random.default_rng(8)
    circuit = random_circuit(HEXAGON, 3, random)
    noise = noise_of(circuit, random)
    request = Request(SHOTS, 3, MEMORY)
    expected = run(GpuSweepEngine(HostDevice(library)), circuit, request, noise).memory
    turned = HostDevice(library, order=order)
    assert run(GpuSweepEngine(turned), circuit, request, noise).memory == expected


def test_tensors_in_global_memory_and_few_blocks_give_the_same_shots(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(9)
    circuit = random_circuit(LADDER, 2, random)
    noise = noise_of(circuit, random)
    request = Request(SHOTS, 2, MEMORY)
    expected = run(GpuSweepEngine(device), circuit, request, noise).memory
    monkeypatch.setattr(gate_by_gate, "SHARED_BYTES", 0)
    monkeypatch.setattr(gate_by_gate, "MOST_BLOCKS", 7)
    assert run(GpuSweepEngine(device), circuit, request, noise).memory == expected
    assert device.launches.count("sample_lines_double") == 2


def test_single_precision_runs_its_own_kernel(device: HostDevice) -> None:
    random = np.random.default_rng(10)
    circuit = random_circuit(LADDER, 2, random)
    noise = noise_of(circuit, random)
    request = Request(SHOTS, 2, MEMORY)
    expected = run(SweepEngine(), circuit, request, noise, precision="single").memory
    shots = run(GpuSweepEngine(device), circuit, request, noise, precision="single").memory
    assert device.launches[-1] == "sample_lines_single"
    different = sum(a != b for a, b in zip(shots, expected, strict=True))
    assert different <= 2  # a draw within the rounding of a probability


def test_tensors_that_do_not_fit_are_refused_and_a_stop_comes_between_launches(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(11)
    circuit = random_circuit(LADDER, 3, random)
    request = Request(SHOTS, 2, MEMORY)
    with pytest.raises(OutOfMemory, match="a shot with tensors of 2"):
        run(GpuSweepEngine(HostDevice(library, free_bytes=100)), circuit, request)
    monkeypatch.setattr(gate_by_gate, "LAUNCHED", 1)  # a shot each
    control, device = RunControl(), HostDevice(library)
    launch = device.launch

    def stop_at_third(*arguments: object, **options: object) -> None:
        launch(*arguments, **options)  # type: ignore[arg-type]
        if len(device.launches) == 3:
            control.flag[0] = 1

    monkeypatch.setattr(device, "launch", stop_at_third)
    with pytest.raises(Stopped):
        run(GpuSweepEngine(device), circuit, request, control=control)
    assert len(device.launches) == 3
