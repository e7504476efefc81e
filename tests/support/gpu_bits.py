"""Results of two devices, bit by bit: random sweep tables, circuits, batches and reductions."""

import numpy as np
from gpu_exercise import circuit
from random_sweeps import Table, random_state

from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.gpu.devices.device import COMPLEX, Device, MemoryLedger
from simulators.gpu.engine import GpuEngine
from simulators.gpu.programs import encode_sweeps
from simulators.gpu.sweeps import DeviceState, apply_program, upload_program


def table_bits(device: Device, seed: int, precision: str) -> bytes:
    """Amplitudes after a random sweep table, as bytes."""
    table = Table(12, 8 + seed % 5, seed)
    table.fill(3, 12, fresh=False)
    plan, floats = table.plan()
    state = DeviceState(device, MemoryLedger(2**30, device.name), 12, precision)
    state.buffer = device.upload(random_state(12, seed).astype(COMPLEX[precision]))
    apply_program(state, upload_program(device, encode_sweeps(plan, precision)), floats, _nothing)
    return bytes(device.download(state.settle()).tobytes())


def repeated_bits(device: Device, precision: str) -> list[bytes]:
    """Amplitudes after each of four runs of one program over one state, with other numbers each
    time: the first by launches, the others from a graph."""
    table = Table(11, 9, 4)
    table.fill(3, 10, fresh=False)
    plan, floats = table.plan()
    state = DeviceState(device, MemoryLedger(2**30, device.name), 11, precision)
    uploaded = upload_program(device, encode_sweeps(plan, precision))
    device.write(random_state(11, 4).astype(COMPLEX[precision]), state.buffer)
    result = []
    for run in range(4):
        apply_program(state, uploaded, floats * (1 + run / 8), _nothing)
        result.append(bytes(device.download(state.settle()).tobytes()))
    return result


def circuit_results(device: Device, n: int, precision: str) -> tuple[EngineResult, ...]:
    """Counts of a sweep, and all exact outputs, of a circuit with every kind of gate."""
    engine, options = GpuEngine(device), RunOptions(precision=precision)
    sums = (PauliSum(("XYZ" + "I" * (n - 4) + "Y", "Z" * n), np.array([0.3, 1.0])),)
    exact = ("expectation", "gradient", "statevector", "probabilities")
    entries = []
    for outputs, shots, rows in ((("counts",), 1000, 4), (exact, 0, 1)):
        result = circuit(n, measured=shots > 0)
        values = np.random.default_rng(n).uniform(-3, 3, (rows, result.num_slots))
        request = Request(shots, 7, outputs, sums, values)
        plan = engine.plan(result, None, options)
        entries.append(engine.run(plan, result, request, options, RunControl()))
    return tuple(entries)


def same(one: EngineResult, two: EngineResult) -> bool:
    """Whether two results have the same bits."""
    names = ("counts", "outcomes", "probabilities", "expectations", "gradients")
    if any(getattr(one, name) != getattr(two, name) for name in names):
        return False
    if one.statevector is None or two.statevector is None:
        return one.statevector is two.statevector
    return one.statevector.tobytes() == two.statevector.tobytes()


def _nothing() -> None:
    pass
