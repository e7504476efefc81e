"""simenv's engine as a worker runs it: packed Program in, packed counts out."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np

from bench.circuits import measured
from bench.harness.kernels import load_kernels
from bench.peers.base import SHOTS, Counts, Gate
from simenv.model import ResultData, TaskOptions, TaskState, decode_program
from simenv.wire.messages.client import STATES, AssignChunk, AssignedTask
from simenv.worker.runner import Runner
from simulators.circuit.ir import Circuit


def chunk(threads: int, engine: str = "statevector") -> AssignChunk:
    """Return what a service tells a worker about its tasks."""
    return AssignChunk(threads, 2**34, False, engine, "bench", [], [])


class WorkerTask:
    """A worker's task. `run` plans it anew; `run_planned` uses the plan of the last run. `prepare`
    makes packed Programs from gates; `shots` is the number of shots of every task."""

    def __init__(
        self,
        threads: int,
        precision: str = "double",
        engine: str = "statevector",
        shots: int = SHOTS,
        options: tuple[tuple[str, int | float], ...] = (),
        *,
        all_kernels: bool = False,
    ) -> None:
        load_kernels(all_kernels=all_kernels)
        self._runner = Runner()
        self._runner.engine(engine)
        self._terms = TaskOptions(precision=precision, options=options)
        self._chunk = chunk(threads, engine)
        self._shots = shots
        self._seeds = itertools.count(1)
        self._job = self._payload = b""

    def prepare(self, num_qubits: int, gates: list[Gate]) -> bytes:
        from simenv.client.circuits import load

        return load(measured(num_qubits, gates)).packed

    def run(self, job: bytes) -> Any:
        self._runner.forget_plans()
        return self.run_planned(job)

    def run_planned(self, job: bytes, seed: int = 0) -> Any:
        """Run a job with this seed; 0: the next one."""
        self._job = job
        assigned = AssignedTask(1, 1, 0, job, self._shots, seed or next(self._seeds), b"", 0)
        result = self._runner.run(assigned, self._terms, self._chunk, 0)
        if STATES[result.state] is not TaskState.DONE:
            raise RuntimeError(repr(result.payload))
        self._payload = result.payload
        return result

    def counts(self, result: Any) -> Counts:
        from simenv.client.result_data import DecodedResult

        outcomes, counts = DecodedResult.read(result.payload, "bench").counts(0)
        values = np.frombuffer(outcomes, f"<u{len(outcomes) * 4 // len(counts)}")
        return dict(zip(values.tolist(), np.frombuffer(counts, "<u4").tolist(), strict=True))

    def branches(self) -> int:
        """Return the largest number of states that the last task held at once."""
        remark = msgspec.msgpack.decode(self._payload, type=ResultData).remark
        return int(remark.split()[0])

    def swept(self) -> tuple[int, int]:
        """Return the number of sweeps of the last circuit, and the bytes they read and write."""
        from simulators.statevector.planning.planner import SegmentPlan, describe_sweeps
        from simulators.statevector.program import build_program

        circuit = Circuit.from_program(decode_program(self._job))
        stretches = build_program(circuit, keep=False, precision=self._terms.precision).stretches
        sweeps = [
            each
            for stretch in stretches
            if isinstance(stretch, SegmentPlan)
            for each in describe_sweeps(stretch.sweeps)
        ]
        moved = sum(each.amplitudes for each in sweeps)
        return len(sweeps), 2 * moved * (16 if self._terms.precision == "double" else 8)


class Environment:
    """A running environment of one worker: the whole path, from a QuantumCircuit to counts. The
    QuantumCircuit is built before the clock starts. `awake`: a bell state is run after it: the
    conversion of a circuit wakes the process of a library, but not the service and the worker."""

    def __init__(self, _threads: int, precision: str = "double", awake: bool = True) -> None:
        import simenv

        self._env = simenv.local(workers=1)
        self._bell = measured(2, [("h", (0,), ()), ("cx", (0, 1), ())])
        self._precision, self._awake = precision, awake

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        result = measured(num_qubits, gates)
        if self._awake:
            self.run(self._bell)
        return result

    def run(self, circuit: Any) -> Any:
        return self._env.run(circuit, shots=SHOTS, precision=self._precision).counts

    def counts(self, result: Any) -> Counts:
        return {int(key, 2): value for key, value in result.items()}
