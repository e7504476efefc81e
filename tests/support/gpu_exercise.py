"""Every kernel of the engine `gpu`, compared with references: `python gpu_exercise.py LIBRARY`.

Run in a process of its own, with a library that sanitizers watch: one of these ends it, and a wrong
result ends it with 1.
"""

import sys
from pathlib import Path
from unittest.mock import patch

import engine_runs
import numpy as np
from arrays import Arrays
from noisy_runs import DYNAMIC, dynamic_noise
from plain_sweeps import run as plainly
from random_sweeps import TOLERANCE, Table, random_state
from swept import GRAPHS, noise_of, random_circuit

from simulators.circuit.ir import Circuit
from simulators.compiler import warmup
from simulators.engine import EngineResult, PauliSum, Request
from simulators.gpu import gate_by_gate, reductions
from simulators.gpu.devices.device import COMPLEX, MemoryLedger
from simulators.gpu.engine import GpuEngine
from simulators.gpu.gate_by_gate import GpuSweepEngine
from simulators.gpu.programs import encode_sweeps
from simulators.gpu.sweeps import DeviceState, apply_program, upload_program
from simulators.statevector.engine import StatevectorEngine
from simulators.tensornetwork.sweep.engine import SweepEngine
from testbed.host_device import BACKWARD, FORWARD, HostDevice

ORDERS = (FORWARD, BACKWARD, 5)


def tables(device: HostDevice) -> bool:
    """Whether random sweep tables agree with the reference."""
    for seed in range(4):
        for precision in ("double", "single"):
            table = Table(10, 8 + seed % 3, seed)
            table.fill(2, 12, fresh=False)
            plan, floats = table.plan()
            begin = random_state(10, seed)
            state = DeviceState(device, MemoryLedger(2**20, "host"), 10, precision)
            state.buffer[:] = begin.astype(COMPLEX[precision])
            program = upload_program(device, encode_sweeps(plan, precision))
            apply_program(state, program, floats, lambda: None)
            gap = np.abs(state.buffer - plainly(plan, floats, begin)).max()
            if not gap < TOLERANCE[COMPLEX[precision].name]:
                return False
    return True


def circuit(n: int, *, measured: bool) -> Circuit:
    """Rotations with free parameters, entangling gates and a matrix that is not fused."""
    arrays = Arrays(n, n if measured else 0)
    for q in range(n):
        arrays.add("h", [q]).add("ry", [q], (), [0.0])
        arrays.free(q)
    for q in range(n - 1):
        arrays.add("cx", [q, q + 1]).add("rzz", [q, q + 1], (), [0.0])
        arrays.free(n + q)
    arrays.add("sx", [n - 1]).add("h", [0])
    if not measured:
        arrays.unitary(np.linalg.qr(np.random.default_rng(n).normal(size=(16, 16)))[0], range(4))
    return arrays.measure(range(n if measured else 0)).circuit()


def agree(found: EngineResult, expected: EngineResult) -> bool:
    """Whether all numbers are those of the processor's engine, and all counts the same."""
    near = {"rtol": 0.0, "atol": 1e-11}
    pairs = [
        (np.frombuffer(getattr(found, name)), np.frombuffer(getattr(expected, name)))
        for name in ("probabilities", "expectations", "gradients")
    ]
    if found.statevector is not None and expected.statevector is not None:
        pairs.append((found.statevector, expected.statevector))
    return found.counts == expected.counts and all(np.allclose(*pair, **near) for pair in pairs)


def circuits(device: HostDevice) -> bool:
    """Whether each output agrees with the engine `statevector`."""
    outputs = ("expectation", "gradient", "statevector", "probabilities")
    for n in (5, 13):
        labels = ("XYZ" + "I" * (n - 4) + "Y", "Z" * n, "Y" + "Z" * (n - 1))
        sums = (PauliSum(labels, np.array([0.3, 1.0, -0.6])),)
        for request, measured in (
            (Request(500, 3), True),
            (Request(0, 3, outputs, sums), False),
            (Request(0, 3, ("expectation",), sums), False),
        ):
            result = circuit(n, measured=measured)
            rows = 1 if "gradient" in request.outputs else 2
            values = np.random.default_rng(n).uniform(-3, 3, (rows, result.num_slots))
            outcome = Request(request.shots, 3, request.outputs, request.observables, values)
            engines = GpuEngine(device), StatevectorEngine()
            entries = [engine_runs.run(engine, result, outcome) for engine in engines]
            if not agree(*entries):
                return False
    return True


def exchanges(device: HostDevice) -> bool:
    """Whether amplitudes with given bits are packed in order, and put back in their places."""
    n, mask, value, step = 10, 0b1000100, 0b100, 64
    chosen = [k for k in range(1 << n) if k & mask == value]
    for precision in ("double", "single"):
        state = DeviceState(device, MemoryLedger(2**20, "host"), n, precision)
        begin = random_state(n, 3).astype(COMPLEX[precision])
        state.buffer[:] = begin
        for first in range(0, len(chosen), step):
            packed = device.empty(step, COMPLEX[precision])
            where = (np.uint64(first), np.uint64(step), np.uint64(mask), np.uint64(value))
            state.launch("pack", step, state.buffer, packed, *where)
            if not np.array_equal(packed, begin[chosen[first : first + step]]):
                return False
            state.launch("unpack", step, device.upload(2 * packed), state.buffer, *where)
        begin[chosen] *= 2
        if not np.array_equal(state.buffer, begin):
            return False
    return True


def shots(device: HostDevice) -> bool:
    """Whether the sweeps of noisy circuits give the shots of the processor's."""
    cases = []
    for graph, layers in (("hexagon", 3), ("ladder", 2)):
        random = np.random.default_rng(layers)
        swept = random_circuit(GRAPHS[graph], layers, random)
        cases.append((swept, noise_of(swept, random)))
    for name in ("teleportation", "resets"):
        swept = DYNAMIC[name]().circuit()
        cases.append((swept, dynamic_noise(swept, 1.0)))
    request = Request(24, 4, ("memory",))
    for swept, noise in cases:
        expected = engine_runs.run(SweepEngine(), swept, request, noise)
        for shared in (gate_by_gate.SHARED_BYTES, 0):
            with (
                patch.object(gate_by_gate, "SHARED_BYTES", shared),
                patch.object(gate_by_gate, "MOST_BLOCKS", 2),
            ):
                result = engine_runs.run(GpuSweepEngine(device), swept, request, noise)
            if result.memory != expected.memory:
                return False
    return True


def is_right(library: Path) -> bool:
    """Whether all results are right for each order of threads."""
    reductions._GROUPS = 2  # a block of threads has several tiles
    devices = [HostDevice(library, order=order) for order in ORDERS]
    checks = (tables, circuits, exchanges, shots)
    return all(check(device) for device in devices for check in checks)


def main() -> int:
    warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")
    return 0 if is_right(Path(sys.argv[1])) else 1


if __name__ == "__main__":
    sys.exit(main())
