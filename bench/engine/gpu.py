"""The engine gpu on one GPU: bandwidth of sweeps, seconds of wide circuits, batches of bindings."""

from __future__ import annotations

import itertools
import statistics
from argparse import Namespace
from collections.abc import Callable
from unittest.mock import patch

import msgspec
import numpy as np

from bench.circuits import CIRCUITS, engine_circuit, gates, measured, wide_circuit
from bench.harness import Report, benchmark, repeated_s
from bench.harness.kernels import load_kernels
from bench.peers.on_gpu import Peers, compare
from simulators.circuit.ir import Circuit
from simulators.engine import Request, RunControl, RunOptions
from simulators.gpu import sweeps
from simulators.gpu.backend import DeviceBackend
from simulators.gpu.devices.detect import find_gpu, refusal
from simulators.gpu.devices.device import Device, MemoryLedger
from simulators.gpu.devices.nvrtc import MODULES, load_nvrtc, usage
from simulators.gpu.engine import GpuEngine
from simulators.gpu.sweeps import ProgramStore
from simulators.statevector.plan import ExecutionPlan

ARCHITECTURES = ((8, 0), (9, 0), (10, 0))
LIMITS = (0, sweeps.GRAPH_AMPLITUDES)  # of states whose sweeps are replayed: none, as ever
SHARE_KINDS, WIDTH = ("qft", "ansatz"), 28  # of the shares of bandwidth, and of the peers
BATCH_GATES, SHOTS = 30, 1_024
GOALS = {("qft", 30): "qft_30_s", ("volume", 30): "volume_30_s"}


@benchmark(host=False, rounds=(5, 2))
def gpu(report: Report, options: Namespace) -> None:
    """The engine gpu on one GPU: bandwidth of sweeps, seconds of wide circuits, batches.

    The ceiling is measured first: a copy within the device's memory. Times are of the gates alone,
    from |0...0>: the median of five runs after a first one, without planning. Goals are those of an
    H200; whether another GPU meets them depends on its bandwidth. cuStateVec and qsim's CUDA
    backend run in the same process, if they are installed. `--host` is a dry run by g++ on the
    processor, without verdicts.
    """
    load_kernels()
    host = options.host
    _kernels(report, ARCHITECTURES[1:2] if host else ARCHITECTURES)
    reason = refusal(find_gpu())
    if reason is not None and not host:
        return report.none_measured(f"{reason[0]}; --host is a dry run")
    if host:
        from testbed.host_device import HostDevice as Chosen
    else:
        from simulators.gpu.devices.cupy_device import CupyDevice as Chosen
    bench = _Bench(Chosen(), options.rounds)
    copied = 1 << (16 if host else 29)  # complex numbers: 8 GiB
    copy_rate = bench.copy_rate(copied)
    print(f"{bench.device.name}: a copy reads and writes {copy_rate / 1e12:.3f} TB/s")
    for n, kind, precision in itertools.product(
        (13,) if host else (24, 28, 30), CIRCUITS, ("double", "single")
    ):
        spent, moved = bench.gate_seconds(kind, n, precision)
        share, label = moved / spent / copy_rate, f"{kind:10s} {n} {precision}"
        print(f"{label}: {1e3 * spent:.2f} ms, {share:.2f} of a copy's bandwidth")
        if precision == "double" and not host and (kind, n) in GOALS:
            report.seconds(GOALS[kind, n], spent)
        if precision == "double" and not host and kind in SHARE_KINDS and n == WIDTH:
            report.at_least("bandwidth_share", share, f"{kind} {n}")
    for n in (13,) if host else (16, 20):
        launched, replayed = (1e3 * bench.sweeps_seconds("volume", n, limit) for limit in LIMITS)
        print(f"volume     {n} double: {launched:.3f} ms by launches, {replayed:.3f} from a graph")
    n, rows = (8, 4) if host else (12, 10_000)
    rate = rows / bench.batch_seconds(n, rows)
    print(f"{n} qubits, {BATCH_GATES} gates, {SHOTS} shots: {rate:,.0f} bindings/s")
    if not host:
        report.at_least("bindings_12", rate)
        seconds = lambda kind, n, precision: bench.gate_seconds(kind, n, precision)[0]  # noqa: E731
        compare(report, Peers(bench.device, 1, bench.seconds), WIDTH, seconds, bench.run_seconds)


def _kernels(report: Report, architectures: tuple[tuple[int, int], ...]) -> None:
    """Report the resources of the kernels, which are compiled without a GPU."""
    keys, nvrtc = ("registers", "stack_bytes", "spilled_bytes"), load_nvrtc()
    if nvrtc is None:
        reason = "NVRTC is not installed: pip install nvidia-cuda-nvrtc"
        return report.none_measured(reason, *keys)
    pairs = itertools.product(architectures, MODULES)
    logs = [nvrtc.compile(module, architecture).log for architecture, module in pairs]
    kernels = [kernel for log in logs for kernel in usage(log)]
    for key in keys:
        report.at_most(key, max(getattr(kernel, key) for kernel in kernels), str(nvrtc))


class _Bench:
    def __init__(self, device: Device, rounds: int) -> None:
        self.device, self._rounds = device, rounds
        self._ledger = MemoryLedger(device.free_bytes, device.name)
        self._programs = ProgramStore(device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the median of some calls after a first one, including all launches."""
        wait = getattr(self.device, "synchronize", lambda: None)
        seconds = repeated_s(lambda: (work(), wait()), self._rounds + 1)
        return statistics.median(seconds[1:])

    def copy_rate(self, count: int) -> float:
        original, target = (self.device.empty(count, np.complex128) for _ in range(2))
        return 32 * count / self.seconds(lambda: self.device.copy(original, target))

    def sweeps_seconds(self, kind: str, n: int, limit: int) -> float:
        """Return the seconds of all gates, from a graph if the state is within the limit."""
        with patch.object(sweeps, "GRAPH_AMPLITUDES", limit):
            return self.gate_seconds(kind, n, "double")[0]

    def gate_seconds(self, kind: str, n: int, precision: str) -> tuple[float, float]:
        """Return the seconds of all gates, and the bytes that sweeps read and write."""
        circuit = engine_circuit(measured(n, wide_circuit(kind, n, 1)))
        options = RunOptions(precision=precision)
        plan = GpuEngine(self.device).plan(circuit, None, options)
        assert isinstance(plan, ExecutionPlan)
        (piece,) = plan.components(circuit, Request(SHOTS, 1))
        (segment,) = piece.programs.of(piece.circuit, keep=False).stretches
        program = self._programs.sweeps(segment, precision).program
        floats = segment.floats(piece.circuit, piece.circuit.params)
        states = DeviceBackend(self.device, self._ledger, self._programs, RunControl())
        state = states.zero_state(piece.circuit.num_qubits, options)

        def work() -> None:
            state.set_zero()
            states.apply(state, segment, floats)

        amplitudes = sum(1 << (each.tile_bits + program.width) for each in program.passes)
        return self.seconds(work), 2.0 * (16 if precision == "double" else 8) * amplitudes

    def run_seconds(self, kind: str, n: int) -> float:
        """Return the seconds of a run with counts in single precision, without planning."""
        circuit = engine_circuit(measured(n, wide_circuit(kind, n, 1)))
        return self._run(circuit, Request(SHOTS, 1), RunOptions(precision="single"))

    def batch_seconds(self, n: int, rows: int) -> float:
        """Return the seconds of many bindings of one circuit, all its angles being free, including
        their counts."""
        circuit = engine_circuit(measured(n, gates(n, BATCH_GATES, 1)))
        places = np.arange(circuit.params.size, dtype=np.int32)
        slots = {"num_slots": places.size, "slots_data": np.repeat(places, 2).tobytes()}
        values = np.random.default_rng(1).uniform(0, 6, (rows, places.size))
        request = Request(SHOTS, 1, bindings=values)
        return self._run(msgspec.structs.replace(circuit, **slots), request, RunOptions())

    def _run(self, circuit: Circuit, request: Request, options: RunOptions) -> float:
        engine = GpuEngine(self.device)
        plan = engine.plan(circuit, None, options)
        return self.seconds(lambda: engine.run(plan, circuit, request, options, RunControl()))
