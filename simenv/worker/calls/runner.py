"""Run the calls among assigned tasks, and pack the values that they return.

Invariant: an engine that unpickles bytes is called only for tasks of the environment's own user,
whatever the service has admitted.
"""

from __future__ import annotations

from simenv.model import RESULT_FORMAT, ResultData, ResultFile, TaskOptions
from simenv.model.calls import (
    FUNCTIONS,
    MAX_VALUE_BYTES,
    TRANSPILER,
    decode_call,
)
from simenv.model.detection import DETECTORS
from simenv.wire import codec
from simenv.wire.messages.client import AssignChunk, AssignedTask
from simenv.worker.calls.engine import CallEngine, CallFailed, ValueTooLarge
from simenv.worker.result_files import ResultFileWriter
from simulators.control import RunControl


def call_engine(name: str) -> CallEngine | None:
    """Create the engine of calls with that name; None if the name is that of a circuit engine."""
    if name == TRANSPILER:
        from simenv.worker.calls.transpiling import TranspilerEngine  # few workers need qiskit

        return TranspilerEngine()
    if name == FUNCTIONS:
        from simenv.worker.calls.functions import FunctionEngine

        return FunctionEngine()
    if name == DETECTORS:
        from simenv.worker.calls.detecting import DetectorEngine  # and those few, stim

        return DetectorEngine()
    return None


class CallRunner:
    """Runner of calls, one at a time. It creates each engine at its first use."""

    def __init__(self, result_writer: ResultFileWriter | None) -> None:
        self._result_writer = result_writer
        self._engines: dict[str, CallEngine] = {}

    def engine(self, name: str) -> CallEngine | None:
        """Return the engine of calls with that name, warmed up; None for a circuit engine."""
        result = self._engines.get(name) or call_engine(name)
        if result is not None and name not in self._engines:
            result.warm_up()
            self._engines[name] = result
        return result

    def run(
        self, assigned: AssignedTask, terms: TaskOptions, chunk: AssignChunk, control: RunControl
    ) -> tuple[bytes, ResultFile | None]:
        """Return the packed result, and the file of a large one. Raises the errors of the call."""
        engine = self.engine(chunk.engine)
        if engine is None:
            raise CallFailed(f"engine {chunk.engine!r} calls no functions")
        value = engine.call(decode_call(chunk.engine, assigned.program), assigned, control)
        if len(value) > MAX_VALUE_BYTES:
            raise ValueTooLarge(
                f"it returned {len(value)} bytes; the limit is {MAX_VALUE_BYTES}",
                hint="write large data to a file, and return its name",
            )
        file = None
        if self._result_writer is not None:
            file = self._result_writer.put_value(value, assigned, terms, chunk)
        return _packed(assigned, value, file), file


def _packed(assigned: AssignedTask, value: bytes, file: ResultFile | None) -> bytes:
    data = ResultData(
        RESULT_FORMAT,
        (),
        0,
        assigned.shots,
        assigned.seed,
        file=file,
        value=b"" if file is not None else value,
    )
    return codec.encode(data)
