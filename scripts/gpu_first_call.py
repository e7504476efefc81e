"""The first minutes with a GPU: is it right, and how fast? Needs no pytest and no Qiskit.

    PYTHONPATH=. python scripts/gpu_first_call.py [--host]

Prints what was found, the bits of the GPU beside those of g++ on the processor, a copy's bandwidth,
and seconds of sweeps and batches. `--host` is a dry run on the processor, with small sizes. Ends
with 1 where bits differ. Only `python -m bench run gpu` compares times with goals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from gpu_bits import circuit_results, repeated_bits, same, table_bits  # noqa: E402
from gpu_exercise import circuit  # noqa: E402

from simulators.compiler import warmup  # noqa: E402
from simulators.engine import (  # noqa: E402
    Request,
    RunControl,
    RunOptions,
)
from simulators.gpu.devices.detect import find_gpu, refusal  # noqa: E402
from simulators.gpu.devices.device import Device  # noqa: E402
from simulators.gpu.engine import GpuEngine  # noqa: E402
from testbed.host_device import HostDevice  # noqa: E402

PRECISIONS = ("double", "single")


def seconds(device: Device, work: Callable[[], object], repeats: int = 5) -> float:
    """Median, after one run that compiles."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        work()
        wait = getattr(device, "synchronize", None)
        if wait is not None:
            wait()
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[repeats // 2]


def differing(device: Device, tables: int) -> int:
    """Print and count the comparisons in which the device has other bits than the processor."""
    wrong, host = 0, HostDevice()
    for precision in PRECISIONS:
        bad = [
            seed
            for seed in range(tables)
            if table_bits(device, seed, precision) != table_bits(host, seed, precision)
        ]
        print(f"random tables, {precision}: {tables - len(bad)} of {tables} have the host's bits")
        is_same = repeated_bits(device, precision) == repeated_bits(host, precision)
        print(f"sweeps from a graph, {precision}: {'same bits' if is_same else 'DIFFER'}")
        wrong += not is_same
        for n in (5, 12, 13):
            pairs = zip(
                circuit_results(device, n, precision),
                circuit_results(host, n, precision),
                strict=True,
            )
            is_same = all(same(left, right) for left, right in pairs)
            print(f"circuits of {n} qubits, {precision}: {'same bits' if is_same else 'DIFFER'}")
            wrong += not is_same
        wrong += len(bad)
    return wrong


def copy_seconds(device: Device, count: int) -> float:
    """Seconds of a copy of so many complex numbers."""
    source, target = device.empty(count, np.complex128), device.empty(count, np.complex128)
    return seconds(device, lambda: device.copy(source, target))


def speed(device: Device, widths: tuple[int, ...], copied: int, rows: int) -> None:
    """Print a copy's bandwidth, and times of whole runs with 1,000 shots."""
    spent = copy_seconds(device, copied)
    print(f"copy: {32 * copied / spent / 1e12:.3f} TB/s, read and written")
    engine = GpuEngine(device)
    for n in widths:
        input_circuit = circuit(n, measured=True)
        values = np.random.default_rng(n).uniform(-3, 3, (1, input_circuit.num_slots))
        for precision in PRECISIONS:
            options = RunOptions(precision=precision)
            plan, request = (
                engine.plan(input_circuit, None, options),
                Request(1000, 1, bindings=values),
            )

            def work(plan=plan, request=request, input_circuit=input_circuit, options=options):
                return engine.run(plan, input_circuit, request, options, RunControl())

            print(f"{n} qubits, {precision}, 1,000 shots: {1e3 * seconds(device, work):.2f} ms")
    input_circuit = circuit(8, measured=True)
    values = np.random.default_rng(8).uniform(-3, 3, (rows, input_circuit.num_slots))
    plan = engine.plan(input_circuit, None, RunOptions())
    batch = Request(1024, 1, bindings=values)
    spent = seconds(
        device, lambda: engine.run(plan, input_circuit, batch, RunOptions(), RunControl())
    )
    print(f"{rows} bindings of 8 qubits, 1,024 shots: {1e6 * spent / rows:.2f} us each")


def main() -> int:
    warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")
    is_host = "--host" in sys.argv[1:]
    evidence = find_gpu()
    print(evidence)
    device: Device
    if is_host:
        device = HostDevice(order=11)
    else:
        reason = refusal(evidence)
        if reason is not None:
            print("\n".join(reason))
            return 2
        from simulators.gpu.devices.cupy_device import CupyDevice

        device = CupyDevice()
    print(device)
    wrong = differing(device, 4 if is_host else 40)
    speed(device, (13, 14) if is_host else (20, 26, 28, 30), 1 << (16 if is_host else 29),
          8 if is_host else 10_000)  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
