"""Calls as tasks: options, submission, and futures of the returned values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import TaskHandle
from simenv.client.results import notebook
from simenv.client.results.result import Result
from simenv.client.submission.options import (
    CallOptions,
    SubmitOptions,
    check_names,
    checked_options,
)
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.config import application
from simenv.errors import LimitExceededError, VersionMismatchError
from simenv.model import TaskSpec
from simenv.model.calls import CALL_FORMAT, MAX_CALL_BYTES, VALUE
from simenv.model.task_rules import checked_key
from simenv.text import size

Read = Callable[[bytes], Any]  # decodes the returned value from a packed answer
_UNREAD = object()


class _Answer(Protocol):
    @property
    def format(self) -> int: ...


Answer = TypeVar("Answer", bound=_Answer)


class CallTask(Task):
    """A Task whose result is the value that a call returned. `details` has worker, node and
    times."""

    __slots__ = ("_read", "_value")

    def __init__(self, handle: TaskHandle, read: Read) -> None:
        super().__init__(handle)
        self._read = read
        self._value: Any = _UNREAD

    def result(self, timeout: float | None = None, *, timeout_s: float | None = None) -> Any:
        """Wait for the value that the call returned; the same object each time.

        Raises TaskFailedError if the function raised: the message has the worker's traceback; else
        like `Task.result`.
        """
        entry = super().result(timeout, timeout_s=timeout_s)
        if self._value is _UNREAD:
            self._value = self._read(entry.value)
        return self._value

    def results(self, timeout_s: float | None = None) -> list[Any]:
        """The only result, in a list."""
        return [self.result(timeout_s)]

    @property
    def details(self) -> Result:
        """Worker, node, attempts, slots and times of the call. Waits like `result`."""
        return super().result()

    def _repr_html_(self) -> str:
        """HTML for notebooks: the state."""
        infos = [] if self.done() else self.session.try_task_infos(self.handle.number)
        state = self.handle.final_state if self.done() else infos[0].state if infos else "no answer"
        return notebook.task_html(self.id, self.name, state, infos[0] if infos else None)


def send_calls(
    session: ServiceSession,
    engine: str,
    calls: Sequence[bytes],
    read: Read,
    options: CallOptions,
    seed: int = 0,
    shots: int = 0,
) -> list[CallTask]:
    """Submit packed calls, all or none; return their tasks in order. Raises like
    `Client.submit_many`."""
    check_names(options, CallOptions)
    for index, packed in enumerate(calls):
        if len(packed) > MAX_CALL_BYTES:
            raise LimitExceededError(
                f"a call of {size(len(packed))}; the limit is {size(MAX_CALL_BYTES)}",
                hint="give large data by the name of a file that the workers see",
                index=index,
            )
    key = options.get("idempotency_key")
    if key is not None:
        checked_key(key)
    values: SubmitOptions = {**options, "engine": engine}  # type: ignore[typeddict-item]
    terms = msgspec.structs.replace(
        checked_options(values).task, outputs=(VALUE,), app=application()
    )
    order = PreparedSubmit(
        terms, [TaskSpec(packed, shots, seed) for packed in calls], single=len(calls) == 1
    )
    return [CallTask(task.handle, read) for task in send(session, order, key)]


def decode_answer(packed: bytes, kind: type[Answer]) -> Answer:
    """Decode the packed answer of a call. Raises VersionMismatchError."""
    answer = msgspec.msgpack.decode(packed, type=kind)
    if answer.format != CALL_FORMAT:
        raise VersionMismatchError(
            f"an answer of format {answer.format}, this client reads {CALL_FORMAT}",
            hint="client and service should be of one version",
        )
    return answer
