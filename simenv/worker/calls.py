"""Engines that run no circuits, and the runner of their calls.

Run the calls among assigned tasks, and pack the values that they return. Functions of users are
called in a process of their own (`simenv.worker.functions`).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from simenv.errors import ProgramError
from simenv.model import RESULT_FORMAT, ResultData, ResultFile, TaskOptions, calls
from simenv.model.pulses import EMULATORS, RYDBERG, PulseCall, settled
from simenv.transpiler import qiskit_runtime, qpy
from simenv.transpiler.transpiler import Transpiler
from simenv.wire import codec
from simenv.wire.messages.client import AssignChunk, AssignedTask
from simenv.worker.functions import (
    CallFailed,
    CallValue,
    FunctionEngine,
    FunctionRules,
    too_large,
)
from simenv.worker.result_files import ResultFileWriter, RunCheckpoints
from simulators.engine import RunControl

if TYPE_CHECKING:
    from simenv.worker.analog.device import PulseDevice
    from simenv.worker.noise import Noise


class CallEngine(Protocol):
    """Engine that executes calls of one kind."""

    name: str

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> CallValue:
        """Return the answer to the call of this task. Raises Stopped, EngineError, SimenvError."""

    def warm_up(self) -> None:
        """Load the modules that a first call needs."""


MAX_TRANSPILERS = 16


class TranspilerEngine:
    """Engine that compiles circuits. It caches the transpilers of the last MAX_TRANSPILERS devices,
    because the creation of one takes as long as one circuit. A compiled circuit depends on the call
    and on Qiskit's version alone, never on the worker. QPY from the owner of a key is first parsed
    in a separate process: see `simenv.sandbox.function_process`."""

    name = calls.TRANSPILER

    def __init__(self) -> None:
        # Qiskit would start a thread for each core of the node in every worker.
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        self._cache: OrderedDict[tuple[bytes, int, int, bool], Transpiler] = OrderedDict()

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> CallValue:
        """See `CallEngine`. Raises ProgramError, which names a circuit that cannot be read or
        compiled."""
        del terms
        assert isinstance(call, calls.TranspileCall)
        transpiler = self._transpiler(call)
        control.expect(len(call.circuits), "circuits")
        as_submitted = call.level == calls.AS_SUBMITTED
        compile_one = transpiler.transpiled if as_submitted else transpiler.run
        compiled: list[bytes] = []
        for number, packed in enumerate(call.circuits):
            control.check()
            name = f"circuit {call.first + number}"
            circuit = qpy.parse(packed, name, trusted=assigned.trusted)
            qiskit_runtime.check_operations(circuit, name)
            try:
                compiled.append(qpy.write_qpy(compile_one(circuit), call.qpy))
            except ProgramError as error:
                raise ProgramError(f"{name}: {error.message}", hint=error.hint) from error
            control.advance("circuits")
        answer = calls.TranspileAnswer(calls.CALL_FORMAT, transpiler.name, tuple(compiled))
        return codec.encode(answer), None, 0

    def warm_up(self) -> None:
        """Load Qiskit's transpiler."""

    def _entries(self) -> int:
        """Entries of the tables of all cached transpilers."""
        return sum(calls.target_entries(device) for device, *_ in self._cache)

    def _transpiler(self, call: calls.TranspileCall) -> Transpiler:
        key = call.device, call.level, call.seed, call.fractional_gates
        result = self._cache.get(key)
        if result is None:
            level = qiskit_runtime.BY_COST if call.level == calls.AS_SUBMITTED else call.level
            info = calls.decode_device(call.device)
            kind = Transpiler
            if info.links:
                from simenv.transpiler.linked.distribution import LinkedTranspiler

                kind = LinkedTranspiler
            result = kind(info, level, call.seed, fractional_gates=call.fractional_gates)
            self._cache[key] = result
            while len(self._cache) > MAX_TRANSPILERS or self._entries() > calls.MAX_TARGET_ENTRIES:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        return result


def call_engine(
    name: str,
    *,
    functions: FunctionRules | None = None,
    noise: Noise | None = None,
    checkpoints: RunCheckpoints | None = None,
) -> CallEngine | None:
    """Create the engine of calls with that name; None if the name is that of a circuit engine.
    `functions`, `checkpoints`: as for `Runner`; `noise`: of the tasks' devices."""
    if name == calls.TRANSPILER:
        return TranspilerEngine()
    if name == calls.FUNCTIONS:
        return FunctionEngine(functions)
    if name == calls.DETECTORS:
        from simenv.worker.detecting import DetectorEngine  # and those few, stim

        return DetectorEngine(noise)
    if name == RYDBERG:
        from simenv.worker.analog.engine import PulseEngine  # and those few, SciPy

        return PulseEngine(checkpoints)
    if name in EMULATORS:
        from simenv.worker.analog.emulators import EmulatorEngine  # and those few, PyTorch

        return EmulatorEngine(name)
    return None


class CallRunner:
    """Runner of calls, one at a time. It creates each engine at its first use."""

    def __init__(
        self,
        result_writer: ResultFileWriter | None,
        *,
        functions: FunctionRules | None = None,
        noise: Noise | None = None,
        checkpoints: RunCheckpoints | None = None,
    ) -> None:
        self._result_writer = result_writer
        self._functions = functions
        self._noise = noise
        self._checkpoints = checkpoints
        self._engines: dict[str, CallEngine] = {}

    def engine(self, name: str) -> CallEngine | None:
        """Return the engine of calls with that name, warmed up; None for a circuit engine."""
        result = self._engines.get(name)
        if result is None:
            result = call_engine(
                name, functions=self._functions, noise=self._noise, checkpoints=self._checkpoints
            )
        if result is not None and name not in self._engines:
            result.warm_up()
            self._engines[name] = result
        return result

    def child_bytes(self) -> int:
        """Memory of the process of functions and of all that it has started; 0: there is none."""
        engine = self._engines.get(calls.FUNCTIONS)
        return engine.child_bytes() if isinstance(engine, FunctionEngine) else 0

    def run(
        self, assigned: AssignedTask, terms: TaskOptions, chunk: AssignChunk, control: RunControl
    ) -> tuple[bytes, ResultFile | None, int]:
        """Return the packed result, the file of a large one, and the nanoseconds on an emulated
        device. Raises the errors of the call."""
        engine = self.engine(chunk.engine)
        if engine is None:
            raise CallFailed(f"engine {chunk.engine!r} calls no functions")
        call = calls.decode_call(chunk.engine, assigned.program)
        control.threads = control.threads or max(1, chunk.slots)
        placed = None
        if isinstance(call, PulseCall):
            call, placed = self._on_device(call, assigned, terms, control)
        value, device, device_ns = engine.call(call, assigned, terms, control)
        if placed is not None:
            device, device_ns = placed.record, placed.time_ns
        if len(value) > calls.MAX_VALUE_BYTES:
            raise too_large(len(value))
        file = None
        if self._result_writer is not None:
            file = self._result_writer.put_value(value, assigned, terms, chunk)
        shots, seed = assigned.shots, assigned.seed
        sent = b"" if file is not None else value
        width = call.sizes.atoms if isinstance(call, PulseCall) else 0
        fields = RESULT_FORMAT, (), width, shots, seed
        data = ResultData(*fields, file=file, value=sent, device=device)
        return codec.encode(data), file, device_ns

    def _on_device(
        self, call: PulseCall, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> tuple[PulseCall, PulseDevice | None]:
        """Return a pulse sequence as it runs, on the task's device if it has one, and that
        device."""
        if self._noise is None or not terms.snapshot:
            return settled(call, assigned.shots, on_device=False), None
        from simenv.worker.analog.device import on_device  # and those few, pulser

        return on_device(call, assigned, terms, self._noise, control)
