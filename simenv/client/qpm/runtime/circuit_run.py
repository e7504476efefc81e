"""One circuit a host asked for: the tasks behind it, how it stands, and its completion.

Invariant: what changes (`open`, `ended_s`, `queued`) changes under the session's lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import msgspec

from simenv.client.qpm.requests.run_request import Request
from simenv.client.results.decoded import Provenance, Stages
from simenv.client.results.result import Result
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskState
from simenv.qpm.envelopes import NOT_REACHED, CompletionMetadata, StatusEnvelope, Times, plain


class RunFacts(msgspec.Struct, frozen=True):
    """Where and how a circuit ran: what is needed to repeat it."""

    where: Provenance
    precision: str
    seed: int
    shots: int
    metadata: dict[str, Any] = {}

    def as_dict(self) -> dict[str, Any]:
        """As a host reads it."""
        where = self.where
        return {
            "available": True,
            "task": where.task,
            "engine": where.engine,
            "route": where.route,
            "precision": self.precision,
            "seed": self.seed,
            "shots": self.shots,
            "node": where.origin.node,
            "worker": where.origin.worker,
            "version": where.origin.version,
            "ranks": where.origin.ranks,
            "slots": where.slots,
            "attempts": where.attempts,
            **self.metadata,
        }


@dataclass(slots=True, eq=False)
class CircuitRun:
    """One circuit of a host, from its acceptance or refusal to its end."""

    cid: str
    number: int
    shots: int
    created_s: float  # wall clock
    tasks: tuple[Task, ...] = ()  # one that gives counts, one that gives amplitudes; or either
    wants_amplitudes: bool = False
    fixed: dict[str, int] | None = None
    size_bytes: int = 0
    refusal: SimenvError | None = None  # why there is no task at all
    reservation: int = 0  # under which it runs; 0: none
    warnings: tuple[str, ...] = ()  # about the request
    open: int = field(init=False)  # tasks that have not ended
    ended_s: float = NOT_REACHED  # wall clock, when its end was heard
    queued: bool = False  # its completion belongs into the queue of its reservation
    seen: StatusEnvelope | None = None  # its last envelope before it ended
    seen_s: float = 0.0  # monotonic: when that was true
    _final: TaskState | None = None

    def __post_init__(self) -> None:
        self.open = len(self.tasks)

    @property
    def over(self) -> bool:
        return self.open == 0

    @property
    def reservation_id(self) -> int | None:
        """As hosts write it."""
        return self.reservation or None

    @property
    def task_id(self) -> str | None:
        """Our name of it, as `simenv queue` shows it."""
        return self.tasks[0].id if self.tasks else None

    def wait(self, timeout_s: float | None) -> bool:
        """Until it has ended; False after `timeout_s`. Raises ServiceLostError."""
        end_s = None if timeout_s is None else monotonic() + timeout_s
        for task in self.tasks:
            left_s = None if end_s is None else max(0.0, end_s - monotonic())
            if not task.session.wait_ended(task.handle, left_s):
                return False
        return True

    # --- after the end ------------------------------------------------------------------------

    def final_state(self) -> TaskState:
        """DONE if all of it is; else how the first part that is not ended. Once it is over."""
        if self._final is None:
            self._final = TaskState.FAILED if self.refusal is not None else _worst(self.tasks)
        return self._final

    def error(self) -> SimenvError | None:
        """Why it is no success."""
        if self.final_state() is TaskState.DONE:
            return None
        errors = (task.handle.error() for task in self.tasks)
        return self.refusal or next((error for error in errors if error is not None), None)

    def times(self, dequeued_s: float = NOT_REACHED) -> Times:
        """Creation by this clock; once it is over the stages, as service and worker measured
        them."""
        created = self.created_s
        consumed = begun = ended = NOT_REACHED
        stages = []
        if self.over:
            stages = [entry for task in self.tasks if (entry := _stages(task)) is not None]
        if stages:
            first = stages[0]
            if first.run_s > 0 or self.tasks[0].handle.final_state is TaskState.DONE:
                consumed = created + first.queued_s
                begun = consumed + first.sent_s
            ended = created + max(part.queued_s + part.sent_s + part.run_s for part in stages)
            if first.begun_s:  # a paced device: its clock counts
                consumed = begun = max(created, first.begun_s)
                ended = max(begun, *(part.begun_s + part.device_s for part in stages))
        queued = max(self.ended_s, ended)
        return Times(
            creation_time=created,
            resources_consumed_time=consumed,
            launch_time=consumed,
            exec_time=begun,
            completion_time=ended if stages else queued,
            cq_enqueue_time=queued,
            cq_dequeue_time=dequeued_s,
        )

    def result(self) -> dict[str, Any]:
        """{"counts"} and, if asked for, {"statevector"}: plain numbers; of a failure, no counts."""
        if self.final_state() is not TaskState.DONE:
            return {"counts": {}}
        entries: dict[str, Any] = {
            "counts": self.tasks[0].result().counts if self.fixed is None else self.fixed
        }
        if self.wants_amplitudes:
            entries["statevector"] = _amplitudes(self.tasks[-1])
        return entries

    def facts(self) -> RunFacts | None:
        """None where nothing ran."""
        if self.final_state() is not TaskState.DONE:
            return None
        task = self.tasks[0]
        entry = task.result()
        where = task.handle.provenance()
        return RunFacts(where, entry.precision, entry.seed, self.shots, self.metadata())

    def metadata(self) -> dict[str, Any]:
        """The emulated device it ran on, and warnings; {} where there are neither."""
        if self.final_state() is TaskState.DONE:
            return device_metadata(self.tasks[0].result(), self.warnings)
        return plain(CompletionMetadata(warnings=list(self.warnings)))


def device_metadata(result: Result, warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    """A result's emulated device and warnings, as plain data; {} where there are neither.
    `warnings`: more of them."""
    return plain(
        CompletionMetadata(
            device=result.device,
            snapshot=result.snapshot,
            snapshot_age_s=result.snapshot_age_s,
            noise=result.noise,
            compiled=result.compiled,
            initial_layout=_listed(result.initial_layout),
            layout=_listed(result.layout),
            gates=result.gates,
            warnings=[*warnings, *result.warnings],
            device_time_s=result.device_time_s,
        )
    )


def refused(
    cid: str,
    number: int,
    asked: Request,
    created_s: float,
    why: SimenvError,
    reservation: int = 0,
) -> CircuitRun:
    """A circuit that was turned away: ended before it began."""
    run = CircuitRun(
        cid, number, asked.shots, created_s,
        refusal=why, reservation=reservation, warnings=asked.warnings,
    )  # fmt: skip
    run.ended_s = time()
    return run


def _listed(qubits: tuple[int, ...] | None) -> list[int] | None:
    return None if qubits is None else list(qubits)


def _worst(tasks: tuple[Task, ...]) -> TaskState:
    for task in tasks:
        state = task.handle.final_state
        if state is not TaskState.DONE:
            return state
    return TaskState.DONE


def _stages(task: Task) -> Stages | None:
    """None of a task the service knows no longer."""
    try:
        return task.handle.provenance().timing
    except SimenvError:
        return None


def _amplitudes(task: Task) -> dict[str, Any]:
    """[[re, im], ...], qubit 0 the least significant index bit."""
    entry = task.result()
    vector = entry.statevector.astype("<c16")
    pairs = vector.view("<f8").reshape(-1, 2).tolist()
    return {
        "type": "statevector",
        "format": "complex128",
        "num_qubits": entry.num_qubits,
        "num_amplitudes": len(pairs),
        "data": pairs,
        "source": "simenv",
        "metadata": {"engine": entry.engine, "precision": entry.precision},
    }
