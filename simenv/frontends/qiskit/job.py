"""Jobs of Qiskit's interfaces: progress, results in Qiskit's forms, and errors.

Conversion of results to Qiskit's forms: counts and memory in hexadecimal, and packed registers.
simenv orders clbits by registers, with loose clbits last; Qiskit's hexadecimal outcomes have the
order of `circuit.clbits`. A circuit whose registers share bits is sent with one register, in that
order. A BitArray is big-endian, simenv's memory little-endian.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit.exceptions import CircuitError
from qiskit.exceptions import QiskitError
from qiskit.primitives import BasePrimitiveJob, PrimitiveResult
from qiskit.providers import JobStatus, JobV1
from qiskit.providers.exceptions import JobError, JobTimeoutError
from qiskit.providers.jobstatus import JOB_FINAL_STATES
from qiskit.result import Result as QiskitResult
from qiskit.result.models import ExperimentResult, ExperimentResultData

from simenv._version import __version__
from simenv.client.client import Client
from simenv.client.result import Result
from simenv.client.tasks.progress import GroupRate, TaskProgress
from simenv.client.tasks.task import MAX_LOOKED_AT, Task, deadline_of, left_s
from simenv.errors import OptionError, ProgramError, SimenvError, TimedOutError
from simenv.model import TaskInfo, TaskState
from simenv.model.task import joint_state
from simenv.model.task_rules import checked_timeout

if TYPE_CHECKING:
    from qiskit.providers import BackendV2


_STATUS = {
    TaskState.QUEUED: JobStatus.QUEUED,
    TaskState.RUNNING: JobStatus.RUNNING,
    TaskState.DONE: JobStatus.DONE,
    TaskState.FAILED: JobStatus.ERROR,
    TaskState.CANCELLED: JobStatus.CANCELLED,
    TaskState.EXPIRED: JobStatus.ERROR,
}


class TaskGroup:
    """Tasks of one client with a common state: the base of the jobs of backends and primitives."""

    _client: Client | None = None
    _each: Sequence[Task] = ()  # one for each task of the service
    _open: Sequence[Task] = ()  # those that `progress` has not seen ended

    def _set_tasks(self, client: Client | None, tasks: Sequence[Task]) -> list[str]:
        """Set the tasks; return their ids. `client`: None only for no tasks, whose state is
        DONE."""
        first: dict[int, Task] = {}
        for task in tasks:
            first.setdefault(task.handle.number, task)
        self._client, self._each = client, list(first.values())
        self._open, self._rate = self._each, GroupRate(len(self._each))
        return [task.handle.id for task in self._each]

    def status(self) -> JobStatus:
        """State of all tasks together, see `joint_state`: ERROR if one failed or expired."""
        waiting = [task for task in self._each if not task.done()]
        states = {task.state for task in self._each if task.done()}
        if waiting and self._client is not None:
            entries = {info.id: info.state for info in self._client.tasks(waiting)}
            states |= {entries.get(task.handle.id, TaskState.QUEUED) for task in waiting}
        return _STATUS[joint_state(states)]

    def __repr__(self) -> str:
        ids = [task.handle.id for task in self._each]
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        return f"<{type(self).__name__} {''.join(ids[:1])}{more}>"

    def progress(self) -> TaskProgress:
        """What the job has done of what it has to do, and the forecast of the rest: of its only
        task, or its ended tasks with the parts that running ones have done."""
        if len(self._each) == 1:
            return self._each[0].progress()
        if self._open:
            self._open[0].done()  # handles the messages that have arrived, for all tasks
        self._open = [task for task in self._open if not (task.handle.over and task.done())]
        infos: Sequence[TaskInfo] = ()
        if self._open and self._client is not None:
            infos = self._client.tasks(self._open[:MAX_LOOKED_AT])
        return self._rate.progress(infos, len(self._each) - len(self._open))

    def _wait(self, timeout_s: float | None) -> None:
        """Wait until all tasks have ended, in any state. Raises TimedOutError."""
        deadline = deadline_of(timeout_s)
        for task in self._each:
            task.wait(timeout_s=left_s(deadline))

    def cancel(self) -> bool:
        """Cancel the unfinished tasks; False if all had ended."""
        if self._client is None:
            return False
        outcomes = self._client.cancel(self._each)
        return any(outcome in ("cancelled", "cancelling") for outcome in outcomes)

    def error_message(self) -> str | None:
        """Error of the first task that failed; None if none has."""
        for task in self._each:
            if task.done() and (error := task.exception(0.0)) is not None:
                return str(error)
        return None

    def usage(self) -> dict[str, float]:
        """Seconds of the tasks that are done, each task of the service once: `queued_s`, `run_s`
        and `device_s` (by the device's calibration) are sums, `total_s` is that of the longest
        task."""
        done = [t for t in self._each if t.done() and t.handle.final_state is TaskState.DONE]
        results = [task.results()[0].timing for task in done]
        return {
            "queued_s": sum(timing.queued_s for timing in results),
            "run_s": sum(timing.run_s for timing in results),
            "device_s": sum(timing.device_s for timing in results),
            "total_s": max((timing.total_s for timing in results), default=0.0),
        }


Bits = NDArray[np.uint8]


def experiment(circuit: QuantumCircuit, result: Result) -> ExperimentResult:
    """Entry of a Qiskit Result: counts, memory if requested, header and seed."""
    order = _order(circuit)
    outcomes = result.outcomes
    width = outcomes.dtype.itemsize if outcomes.ndim == 1 else outcomes.shape[1]
    packed = np.ascontiguousarray(outcomes).view(np.uint8).reshape(-1, width)
    counts = result.outcome_counts.tolist()
    data: dict[str, Any] = {"counts": dict(zip(_hexadecimal(packed, order), counts, strict=True))}
    if result.has("memory"):
        data["memory"] = list(_hexadecimal(result.memory, order))
    header = {
        "name": circuit.name,
        "metadata": circuit.metadata or {},
        "global_phase": float(circuit.global_phase),
        "n_qubits": circuit.num_qubits,
        "memory_slots": circuit.num_clbits,
        "creg_sizes": [[register.name, register.size] for register in circuit.cregs],
        "qreg_sizes": [[register.name, register.size] for register in circuit.qregs],
        **{name: getattr(result, name) for name in ("engine", "device", "snapshot")},
        "warnings": list(result.warnings),
        **{name: getattr(result, name) for name in ("remark", "task")},
    }
    return ExperimentResult(
        result.shots,
        True,
        ExperimentResultData(**data),
        seed=result.seed,
        status="DONE",
        header=header,
        time_taken=result.timing.run_s,
    )


def _order(circuit: QuantumCircuit) -> NDArray[np.int64] | None:
    """Index in `circuit.clbits` of each clbit of simenv's order; None if both orders are equal."""
    if share_bits(circuit):
        return None
    places = [circuit.find_bit(bit).index for register in circuit.cregs for bit in register]
    loose = sorted(set(range(circuit.num_clbits)) - set(places))
    order = np.array(places + loose, np.int64)
    return None if np.array_equal(order, np.arange(order.size)) else order


def _hexadecimal(packed: Bits, order: NDArray[np.int64] | None) -> Iterable[str]:
    """Outcomes of packed rows in Qiskit's form: "0x3"."""
    if order is not None:
        bits = np.unpackbits(packed, axis=1, bitorder="little", count=order.size)
        moved = np.zeros_like(bits)
        moved[:, order] = bits
        packed = np.packbits(moved, axis=1, bitorder="little")
    width, data = packed.shape[1], np.ascontiguousarray(packed).tobytes()
    return [
        hex(int.from_bytes(data[at : at + width], "little")) for at in range(0, len(data), width)
    ]


def disjoint(circuit: QuantumCircuit) -> QuantumCircuit:
    """The circuit, or a copy with one register if its registers share bits, which simenv has no
    layout for."""
    return in_one_register(circuit) if share_bits(circuit) else circuit


def in_one_register(circuit: QuantumCircuit) -> QuantumCircuit:
    """Copy of the circuit with all clbits in one register, for registers that share bits. Raises
    ProgramError if a value of such a register is stored."""
    register = ClassicalRegister(name="bits", bits=circuit.clbits)
    result = QuantumCircuit(circuit.qubits, register, global_phase=circuit.global_phase)
    result.metadata = circuit.metadata
    result._layout = circuit.layout  # Qiskit has no public way to copy it
    for variable in circuit.iter_declared_vars():
        result.add_uninitialized_var(variable)
    try:
        for item in circuit.data:
            result.append(item.operation, item.qubits, item.clbits)
    except CircuitError as error:
        text = f"a value of registers that share bits is stored: {error}"
        raise ProgramError(text, hint="write the value with their bits") from error
    return result


def share_bits(circuit: QuantumCircuit) -> bool:
    """Return whether any clbit belongs to several registers."""
    bits = [bit for register in circuit.cregs for bit in register]
    return len(set(bits)) < len(bits)


def scattered_bits(memory: Bits, places: NDArray[np.int64]) -> Bits:
    """Bits of a register with these clbits, packed as in `register_bits`."""
    bits = np.unpackbits(memory, axis=-1, bitorder="little")[..., places]
    packed = np.packbits(bits, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed[..., ::-1])


def register_bits(memory: Bits, first: int, size: int) -> Bits:
    """Bits of a register of `size` from clbit `first`, packed as in a BitArray. `memory`: uint8
    [..., shots, bytes]; returns uint8 [..., shots, ceil(size / 8)]."""
    count = -(-size // 8)
    if first % 8:
        bits = np.unpackbits(memory, axis=-1, bitorder="little")[..., first : first + size]
        part = np.packbits(bits, axis=-1, bitorder="little")
    else:
        part = memory[..., first // 8 : first // 8 + count].copy()
        if size % 8:
            part[..., -1] &= (1 << size % 8) - 1
    return np.ascontiguousarray(part[..., ::-1])


_OPTIONS = re.compile(r"\boptions(?=[=:])")  # of `Client.submit`: `engine_options` of a backend


@contextmanager
def refusals(pub_indices: Sequence[int] = ()) -> Iterator[None]:
    """Convert errors of a submission: ValueError for an option, QiskitError for a circuit that the
    environment does not run. No circuit was accepted. `pub_indices`: the PUB of each submitted
    item; empty: items are circuits."""
    try:
        yield
    except OptionError as error:
        raise ValueError(_text(error, pub_indices)) from error
    except SimenvError as error:
        raise QiskitError(_line(error, pub_indices)) from error


@contextmanager
def failures() -> Iterator[None]:
    """Convert errors of a wait for results: JobTimeoutError, ValueError for an option, and JobError
    for a task without a result."""
    try:
        yield
    except TimedOutError as error:
        raise JobTimeoutError(_line(error)) from error
    except OptionError as error:
        raise ValueError(_text(error)) from error
    except SimenvError as error:
        raise JobError(_line(error)) from error


def _text(error: SimenvError, pub_indices: Sequence[int] = ()) -> str:
    text = _OPTIONS.sub("engine_options", str(error))
    if error.index < 0:
        return text
    return f"circuit {pub_indices[error.index] if pub_indices else error.index}: {text}"


def _line(error: SimenvError, pub_indices: Sequence[int] = ()) -> str:
    """Return the text of an error as one line: errors of Qiskit show a line feed as `\\n`."""
    return "; ".join(line.strip() for line in _text(error, pub_indices).splitlines())


class SimenvJob(TaskGroup, JobV1):  # type: ignore[misc]  # qiskit is untyped
    """Job of tasks that the environment has accepted; they go on when this process ends."""

    _async = True

    def __init__(
        self,
        backend: BackendV2,
        job_id: str,
        circuits: Sequence[QuantumCircuit],
        tasks: Sequence[Sequence[Task]],
        options: Mapping[str, Any],
    ) -> None:
        """Make a job. `tasks`: for each circuit, one task for each set of its values."""
        self._tasks = [task for each in tasks for task in each]
        self._circuits = [
            circuit for circuit, each in zip(circuits, tasks, strict=True) for _ in each
        ]
        self._result: QiskitResult | None = None
        ids = self._set_tasks(backend.client, self._tasks)
        super().__init__(backend, job_id, **options, tasks=ids)

    @property
    def tasks(self) -> list[Task]:
        """Tasks of the environment, one for each entry of the result."""
        return list(self._tasks)

    def submit(self) -> None:
        """Do nothing: a job is accepted when `SimenvBackend.run` returns."""

    def wait_for_final_state(
        self,
        timeout: float | None = None,
        wait: float = 5,
        callback: Callable[[str, JobStatus, SimenvJob], None] | None = None,
    ) -> None:
        """Wait until all tasks have ended. `callback`: called every `wait` seconds until then.
        Raises JobTimeoutError after `timeout` seconds."""
        if callback is not None:
            with failures():
                checked_timeout(timeout)
            super().wait_for_final_state(timeout, wait, callback)
            return
        with failures():
            self._wait(timeout)

    def result(self, timeout: float | None = None) -> QiskitResult:
        """Wait for the end. Raises JobTimeoutError after `timeout` seconds, JobError if a circuit
        failed, was cancelled or expired."""
        if self._result is None:
            with failures():
                self._wait(timeout)
                results = [task.result() for task in self._tasks]
            backend = self.backend()
            self._result = QiskitResult(
                backend_name=backend.name,
                backend_version=backend.backend_version,
                job_id=self.job_id(),
                success=True,
                results=list(map(experiment, self._circuits, results)),
                status="COMPLETED",
                simenv_version=__version__,
                time_taken=self.usage()["run_s"],
            )
        return self._result


class SimenvPrimitiveJob(
    TaskGroup,
    BasePrimitiveJob[PrimitiveResult[Any], JobStatus],  # type: ignore[misc]
):
    """Job of tasks that the environment has accepted; they go on when this process ends."""

    def __init__(
        self,
        job_id: str,
        client: Client,
        tasks: Sequence[Task],
        collect: Callable[[], PrimitiveResult[Any]],
    ) -> None:
        """Make a job. `collect`: makes the result, once all tasks are done."""
        self._tasks = list(tasks)
        self._collect = collect
        self._result: PrimitiveResult[Any] | None = None
        self._usage: dict[str, float] | None = None  # of a job that was pickled
        super().__init__(job_id, tasks=self._set_tasks(client, self._tasks))

    @property
    def tasks(self) -> list[Task]:
        """Tasks of the environment: for each PUB, one for each set of its values."""
        return list(self._tasks)

    def result(self, timeout: float | None = None) -> PrimitiveResult[Any]:
        """Wait for the end. Raises JobTimeoutError after `timeout` seconds, JobError if a PUB
        failed, was cancelled or expired."""
        if self._result is None:
            with failures():
                self._wait(timeout)
                self._result = self._collect()
        return self._result

    def wait_for_final_state(self, timeout: float | None = None) -> None:
        """Wait until all tasks have ended. Raises JobTimeoutError."""
        with failures():
            self._wait(timeout)

    def done(self) -> bool:
        """Return whether the job has a result."""
        return self.status() is JobStatus.DONE

    def running(self) -> bool:
        """Return whether a PUB has started, and not all have ended."""
        return self.status() is JobStatus.RUNNING

    def cancelled(self) -> bool:
        """Return whether the job was cancelled."""
        return self.status() is JobStatus.CANCELLED

    def in_final_state(self) -> bool:
        """Return whether all PUBs have ended, in any state."""
        return self.status() in JOB_FINAL_STATES

    def usage(self) -> dict[str, float]:
        """Seconds: queued_s, run_s, device_s (by the device's calibration), total_s."""
        return super().usage() if self._usage is None else self._usage

    def __getstate__(self) -> dict[str, Any]:
        """Wait for the result, as Qiskit's PrimitiveJob does: it is pickled without the tasks and
        their connection. Raises like `result`."""
        self.result()
        ended: dict[str, Any] = {"_tasks": [], "_client": None, "_each": (), "_collect": None}
        ended |= {"_open": ()}
        return {**self.__dict__, **ended, "_usage": self.usage()}
