"""Circuits of hosts: their tasks and state, and their completion records.

`CircuitRun` is the circuit from its acceptance or refusal to its end. A circuit that has ended is
written as a record of revision 1 or of revision 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import msgspec

from simenv.client.qpm.requests import Request
from simenv.client.result import Result
from simenv.client.result_data import Provenance, Stages
from simenv.client.submission.calls import CallTask
from simenv.client.submission.pulses import PulseResult
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskState
from simenv.model.task import joint_state
from simenv.qpm import envelopes


class RunFacts(msgspec.Struct, frozen=True):
    """Facts that are needed to repeat a circuit's run: place, precision, seed, shots."""

    where: Provenance
    precision: str
    seed: int
    shots: int
    metadata: dict[str, Any] = {}

    def as_dict(self) -> dict[str, Any]:
        """Facts as a host reads them."""
        where, origin = self.where, self.where.origin
        return {
            "available": True,
            **{name: getattr(where, name) for name in ("task", "engine", "route")},
            **{name: getattr(self, name) for name in ("precision", "seed", "shots")},
            **{name: getattr(origin, name) for name in ("node", "worker", "version", "ranks")},
            **{name: getattr(where, name) for name in ("slots", "attempts")},
            **self.metadata,
        }


@dataclass(slots=True, eq=False)
class CircuitRun:
    """Circuit of a host, from its acceptance or refusal to its end. Invariant: `open`, `ended_s`
    and `queued` change under the session's lock."""

    cid: str
    number: int
    shots: int
    created_s: float  # wall clock
    tasks: tuple[Task, ...] = ()  # a task for the counts, one for the amplitudes, or both
    wants_amplitudes: bool = False
    fixed: dict[str, int] | None = None
    size_bytes: int = 0
    refusal: SimenvError | None = None  # the error if the circuit was refused and has no task
    reservation: int = 0  # the reservation under which it runs; 0: none
    warnings: tuple[str, ...] = ()  # about the request
    open: int = field(init=False)  # tasks that have not ended
    ended_s: float = envelopes.NOT_REACHED  # wall clock, when the message of its end arrived
    queued: bool = False  # its completion belongs into the queue of its reservation
    seen: envelopes.StatusEnvelope | None = None  # its last envelope before it ended
    seen_s: float = 0.0  # monotonic: time of that envelope
    _final: TaskState | None = None

    def __post_init__(self) -> None:
        self.open = len(self.tasks)

    @property
    def over(self) -> bool:
        return self.open == 0

    @property
    def reservation_id(self) -> int | None:
        """Reservation in the contract's form: None for none."""
        return self.reservation or None

    @property
    def task_id(self) -> str | None:
        """Task id as `simenv queue` shows it."""
        return self.tasks[0].id if self.tasks else None

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the circuit has ended; False after `timeout_s`. Raises ServiceLostError."""
        end_s = None if timeout_s is None else monotonic() + timeout_s
        for task in self.tasks:
            left_s = None if end_s is None else max(0.0, end_s - monotonic())
            if not task.session.tasks.wait(task.handle, left_s):
                return False
        return True

    def final_state(self) -> TaskState:
        """State of all tasks together, see `joint_state`. The circuit must have ended."""
        if self._final is None:
            states = (task.handle.final_state for task in self.tasks)
            self._final = TaskState.FAILED if self.refusal is not None else joint_state(states)
        return self._final

    def error(self) -> SimenvError | None:
        """Error of the circuit; None if it succeeded."""
        state = self.final_state()
        if state is TaskState.DONE:
            return None
        tasks = (task.handle for task in self.tasks if task.handle.final_state is state)
        return self.refusal or next((handle.error() for handle in tasks), None)

    def times(self, dequeued_s: float = envelopes.NOT_REACHED) -> envelopes.Times:
        """Times of the circuit: creation by this clock; after the end also the stages that service
        and worker measured."""
        created = self.created_s
        consumed = begun = ended = envelopes.NOT_REACHED
        stages = []
        if self.over:
            stages = [entry for task in self.tasks if (entry := _stages(task)) is not None]
        if stages:
            first = stages[0]
            if first.run_s > 0 or self.tasks[0].handle.final_state is TaskState.DONE:
                consumed = created + first.queued_s
                begun = consumed + first.sent_s
            ended = created + max(part.queued_s + part.sent_s + part.run_s for part in stages)
            if first.begun_s:  # a paced device: times of its own clock
                consumed = begun = max(created, first.begun_s)
                ended = max(begun, *(part.begun_s + part.device_s for part in stages))
        queued = max(self.ended_s, ended)
        return envelopes.Times(
            creation_time=created, resources_consumed_time=consumed, launch_time=consumed,
            exec_time=begun, completion_time=ended if stages else queued, cq_enqueue_time=queued,
            cq_dequeue_time=dequeued_s,
        )  # fmt: skip

    def result(self) -> dict[str, Any]:
        """{"counts"} and, if requested, {"statevector"} as plain numbers; empty counts after a
        failure."""
        if self.final_state() is not TaskState.DONE:
            return {"counts": {}}
        entries: dict[str, Any] = {
            "counts": self.tasks[0].result().counts if self.fixed is None else self.fixed
        }
        if self.wants_amplitudes:
            entries["statevector"] = _amplitudes(self.tasks[-1])
        return entries

    def facts(self) -> RunFacts | None:
        """Facts of the run; None if the circuit did not succeed."""
        if self.final_state() is not TaskState.DONE:
            return None
        task = self.tasks[0]
        entry = _data(task)
        where = task.handle.provenance()
        return RunFacts(where, entry.precision, entry.seed, self.shots, self.metadata())

    def metadata(self) -> dict[str, Any]:
        """Emulated device and warnings of the result; {} if there are none."""
        if self.final_state() is TaskState.DONE:
            task = self.tasks[0]
            return device_metadata(_data(task), self.warnings, _pulse_facts(task))
        return envelopes.plain(envelopes.CompletionMetadata(warnings=list(self.warnings)))


# Fields of a result that its metadata have as they are.
_DEVICE_FIELDS = (
    "device", "snapshot", "snapshot_age_s", "noise", "compiled", "gates", "device_time_s",
)  # fmt: skip


def device_metadata(
    result: Result,
    warnings: tuple[str, ...] = (),
    pulses: envelopes.PulseFacts | None = None,
) -> dict[str, Any]:
    """Emulated device and warnings of a result as plain data; {} if there are none. `warnings`:
    additional warnings."""
    return envelopes.plain(
        envelopes.CompletionMetadata(
            **{name: getattr(result, name) for name in _DEVICE_FIELDS},
            initial_layout=_listed(result.initial_layout),
            layout=_listed(result.layout),
            warnings=[*warnings, *result.warnings],
            pulses=pulses,
        )
    )


def refused(
    cid: str, number: int, asked: Request, created_s: float, why: SimenvError, reservation: int = 0
) -> CircuitRun:
    """Make the run of a refused circuit, which has ended."""
    run = CircuitRun(
        cid, number, asked.shots, created_s,
        refusal=why, reservation=reservation, warnings=asked.warnings,
    )  # fmt: skip
    run.ended_s = time()
    return run


def _listed(qubits: tuple[int, ...] | None) -> list[int] | None:
    return None if qubits is None else list(qubits)


def _stages(task: Task) -> Stages | None:
    """Measured stages of a task; None if the service no longer knows it."""
    try:
        return task.handle.provenance().timing
    except SimenvError:
        return None


def _data(task: Task) -> Result:
    """Data of an ended task; of a pulse sequence without the decoded answer."""
    return task.details if isinstance(task, CallTask) else task.result()


def _pulse_facts(task: Task) -> envelopes.PulseFacts | None:
    result: Any = task.result()
    if not isinstance(result, PulseResult):
        return None
    return envelopes.PulseFacts(
        list(result.atoms), result.basis, result.occupations.tolist(), result.error, result.steps,
        result.trajectories, result.simulator,
    )  # fmt: skip


def _amplitudes(task: Task) -> dict[str, Any]:
    """Amplitudes as [[re, im], ...]; qubit 0 is the least significant index bit, and so is the last
    atom of a register."""
    entry = _data(task)
    result: Any = task.result()
    vector = result.statevector.astype("<c16")
    pairs = vector.view("<f8").reshape(-1, 2).tolist()
    return {
        "type": "statevector", "format": "complex128", "num_qubits": len(pairs).bit_length() - 1,
        "num_amplitudes": len(pairs), "data": pairs, "source": "simenv",
        "metadata": {"engine": entry.engine, "precision": entry.precision},
    }  # fmt: skip


class CircuitOutcome(msgspec.Struct, frozen=True):
    """Outcome of a circuit, independent of the revision: state, result, error and metadata."""

    state: TaskState
    result: dict[str, Any]
    error: SimenvError | None
    metadata: dict[str, Any] = {}

    @property
    def message(self) -> str | None:
        """Text of the error."""
        return None if self.error is None else str(self.error)

    @property
    def rc(self) -> int:
        """Code of a record."""
        return envelopes.STATE_MAP[self.state].rc or 0


def outcome_of(run: CircuitRun) -> CircuitOutcome:
    """Return the outcome of an ended circuit. A result that cannot be read makes it FAILED."""
    state, error = run.final_state(), run.error()
    if state is TaskState.DONE:
        try:
            return CircuitOutcome(state, run.result(), None, run.metadata())
        except SimenvError as unreadable:
            state, error = TaskState.FAILED, unreadable
    settings = envelopes.CompletionMetadata(warnings=list(run.warnings))
    return CircuitOutcome(state, {"counts": {}}, error, envelopes.plain(settings))


def revision1_record(
    run: CircuitRun,
    outcome: CircuitOutcome | None = None,
    *,
    dequeued_s: float = envelopes.NOT_REACHED,
) -> dict[str, Any]:
    """Completion record of revision 1: the counts alone unless amplitudes were requested; the error
    text if the circuit failed."""
    outcome = outcome or outcome_of(run)
    result: dict[str, Any] | str = outcome.result
    if outcome.message is not None:
        result = outcome.message
    elif not run.wants_amplitudes:
        result = outcome.result["counts"]
    record = envelopes.Record(
        cid=run.cid, result=result, rc=outcome.rc, metadata=outcome.metadata,
        **msgspec.structs.asdict(run.times(dequeued_s)),
    )  # fmt: skip
    return envelopes.plain(record)


def revision2_record(
    run: CircuitRun,
    outcome: CircuitOutcome | None = None,
    *,
    poll: str | None = None,
    dequeued_s: float = envelopes.NOT_REACHED,
) -> dict[str, Any]:
    """Completion record of revision 2. `poll`: the operation that reads it; None in an event."""
    outcome = outcome or outcome_of(run)
    stand = envelopes.STATE_MAP[outcome.state]
    times = run.times(dequeued_s)
    record = envelopes.CompletionEnvelope(
        cid=run.cid, qtask_id=run.number, reservation_id=run.reservation_id,
        scheduler_task_id=run.task_id, outcome=stand.outcome, result=outcome.result, rc=outcome.rc,
        completion_ready=True, poll_operation=poll,
        reason=stand.reason if run.refusal is None else envelopes.Reason.SUBMISSION_FAILED,
        message=outcome.message, metadata=outcome.metadata,
        qpm_cq_enqueue_time_ns=_ns(times.cq_enqueue_time),
        qpm_cq_dequeue_time_ns=_ns(times.cq_dequeue_time), **msgspec.structs.asdict(times),
    )  # fmt: skip
    return envelopes.plain(record)


def _ns(seconds: float) -> int:
    return -1 if seconds == envelopes.NOT_REACHED else round(seconds * 1e9)
