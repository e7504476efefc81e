"""Results of workers on their way to the journal.

Invariant: a task ends as DONE only after its result was decoded, its lengths agree, and its file
stands in its place, on the disk where the journal's durability asks for that. What a worker says
beyond that, or wrongly, costs the task that it says it about, and no other: that task ends as
FAILED with the reason. The file of a result is that of its attempt (`attempt_file`), for a task
that this worker holds; no name that a worker sends is used to find a file.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from simenv import foreign_files
from simenv.errors import SimenvError
from simenv.model import TaskState, result_lengths, task_name
from simenv.result_files import attempt_file
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.results.file_worker import FileWorker
from simenv.service.workers.isolation import WorkerIsolation
from simenv.wire import codec
from simenv.wire.messages import client as m

_DONE, _FAILED = m.STATES.index(TaskState.DONE), m.STATES.index(TaskState.FAILED)
_HINT = "submit it again; if that repeats, look at the worker's log: simenv logs WORKER"
Arrive = Callable[[str, list[m.AttemptResult], int], object]
End = Callable[[str, m.AttemptResults, int], None]


class ResultIntake:
    """Intake of results. Used from the loop's thread; files are taken over by a thread of
    `FileWorker`, and their tasks end in a later pass."""

    def __init__(
        self,
        state: SchedulerState,
        isolation: WorkerIsolation | None,
        file_worker: FileWorker,
        root: Path,
        arrive: Arrive,
        end: End,
        *,
        sync: bool,
    ) -> None:
        """`root`: of the result files. `arrive`: gets the name of a worker, its results, and when
        they came; then `end`, once or twice, those whose tasks may end. `sync`: files are forced
        to disk first."""
        self._state = state
        self._isolation = isolation
        self._file_worker = file_worker
        self._root = root
        self._arrive, self._end = arrive, end
        self._sync = sync
        self._taking: Counter[str] = Counter()  # messages whose files are being taken, by worker

    def is_taking(self, worker: str) -> bool:
        """Return whether files of a worker are being taken over: it has sent their results, and
        its tasks have not ended yet."""
        return self._taking[worker] > 0

    def receive(self, name: str, message: m.AttemptResults, arrived_ns: int) -> None:
        """Handle the results of a worker: those without a file at once."""
        self._arrive(name, message.results, arrived_ns)
        is_isolated = self._isolation is not None and self._isolation.has(name)
        worker = self._state.cluster.workers.get(name)
        held = {} if worker is None else worker.held
        changed, filed = list[m.AttemptResult](), list[m.AttemptResult]()
        for result in message.results:
            record = held.get(result.task)
            if record is None or record.fence != result.attempt:
                # Ignored, and in the folder of an isolated worker its file is nobody's.
                late = attempt_file(result.task, result.attempt)
                file = late if result.file and worker is not None and not is_isolated else ""
                changed.append(
                    msgspec.structs.replace(result, file=file) if result.file else result
                )
                continue
            result = _checked(result)
            if result.file and is_isolated:
                filed.append(result)
            else:
                changed.append(self._present(result) if result.file else result)
        if changed or not filed:
            self._end(name, msgspec.structs.replace(message, results=changed), arrived_ns)
        if filed:
            self._take(name, msgspec.structs.replace(message, results=filed), arrived_ns)

    def _take(self, name: str, message: m.AttemptResults, arrived_ns: int) -> None:
        assert self._isolation is not None
        results = message.results

        def taken(outcome: object) -> None:
            self._taking[name] -= 1
            reasons = outcome if isinstance(outcome, list) else [str(outcome)] * len(results)
            ended = [
                _lost(result, reason) if reason else result
                for result, reason in zip(results, reasons, strict=True)
            ]
            self._end(name, msgspec.structs.replace(message, results=ended), arrived_ns)

        job = self._isolation.taking(name, results, sync=self._sync)
        self._taking[name] += 1
        self._file_worker.take(job, taken)

    def _present(self, result: m.AttemptResult) -> m.AttemptResult:
        """Return a result whose worker writes to the folder of all results; FAILED if its file is
        not there."""
        try:
            size = foreign_files.size_of(self._root, result.file)
        except OSError as error:
            return _lost(result, error.strerror or type(error).__name__)
        if size != result.file_bytes:
            return _lost(result, f"it has {size} bytes, not {result.file_bytes}")
        return result


def _checked(result: m.AttemptResult) -> m.AttemptResult:
    """Return a result that can be stored: as it is, or as FAILED with the reason."""
    try:
        if result.state != _DONE:
            codec.failure(result.payload)
            return msgspec.structs.replace(result, file="", file_bytes=0) if result.file else result
        data = codec.result_data(result.payload)
        result_lengths.check(data, task_name(result.task))
        file = data.file
        if file is None and not result.file:
            return result
        own = attempt_file(result.task, result.attempt)
        for name in (result.file, "" if file is None else file.name):
            if name != own:
                text = f"it names {name[:80]!r} as its file; the file of this attempt is {own}"
                return _failed(result, "bad_answer", text)
        if file is None or file.size_bytes != result.file_bytes:
            return _failed(result, "bad_answer", f"it names two sizes of its file {own}")
        result_lengths.check_file(file, task_name(result.task))
    except SimenvError as error:
        return _failed(result, "bad_answer", error.message)
    return result


def _lost(result: m.AttemptResult, reason: str) -> m.AttemptResult:
    """Return the FAILED result of a task whose file cannot be stored."""
    name = attempt_file(result.task, result.attempt)
    return _failed(result, "result_store", f"its file {name} cannot be stored: {reason}")


def _failed(result: m.AttemptResult, reason: str, text: str) -> m.AttemptResult:
    if reason == "bad_answer":
        text = f"its worker sent a result that cannot be stored: {text}"
    payload = codec.encode(m.Failure(reason, text, _HINT))
    return msgspec.structs.replace(
        result, state=_FAILED, payload=payload, checksum=zlib.crc32(payload), file="", file_bytes=0
    )
