"""Engine `transpiler`: compilation of circuits in QPY for the device that the call describes.

A compiled circuit depends on the call and on Qiskit's version alone, never on the worker. QPY from
the owner of a key is first parsed in a separate process: see `simenv.transpiler.qpy_sandbox`.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from simenv.errors import ProgramError
from simenv.model.calls import (
    AS_SUBMITTED,
    CALL_FORMAT,
    MAX_TARGET_ENTRIES,
    TRANSPILER,
    Call,
    TranspileAnswer,
    TranspileCall,
    decode_device,
    target_entries,
)
from simenv.transpiler import qpy
from simenv.transpiler.limits import LEVEL, check_operations
from simenv.transpiler.transpiler import Transpiler
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simulators.control import RunControl

MAX_TRANSPILERS = 16


class TranspilerEngine:
    """Engine that compiles circuits. It caches the transpilers of the last MAX_TRANSPILERS devices,
    because the creation of one takes as long as one circuit."""

    name = TRANSPILER

    def __init__(self) -> None:
        # Qiskit would start a thread for each core of the node in every worker.
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        self._cache: OrderedDict[tuple[bytes, int, int], Transpiler] = OrderedDict()

    def call(self, call: Call, assigned: AssignedTask, control: RunControl) -> bytes:
        """See `CallEngine`. Raises ProgramError, which names a circuit that cannot be read or
        compiled."""
        assert isinstance(call, TranspileCall)
        transpiler = self._transpiler(call)
        control.add_sweeps(len(call.circuits))
        as_submitted = call.level == AS_SUBMITTED
        compile_one = transpiler.transpiled if as_submitted else transpiler.run
        compiled: list[bytes] = []
        for number, packed in enumerate(call.circuits):
            control.check()
            name = f"circuit {call.first + number}"
            circuit = qpy.parse(packed, name, trusted=assigned.trusted)
            check_operations(circuit, name)
            try:
                compiled.append(qpy.write_qpy(compile_one(circuit), call.qpy))
            except ProgramError as error:
                raise ProgramError(f"{name}: {error.message}", hint=error.hint) from error
            control.sweeps_done()
        return codec.encode(TranspileAnswer(CALL_FORMAT, transpiler.name, tuple(compiled)))

    def warm_up(self) -> None:
        """Load Qiskit's transpiler."""

    def _entries(self) -> int:
        """Entries of the tables of all cached transpilers."""
        return sum(target_entries(device) for device, _, _ in self._cache)

    def _transpiler(self, call: TranspileCall) -> Transpiler:
        key = call.device, call.level, call.seed
        result = self._cache.get(key)
        if result is None:
            level = LEVEL if call.level == AS_SUBMITTED else call.level
            result = Transpiler(decode_device(call.device), level, call.seed)
            self._cache[key] = result
            while len(self._cache) > MAX_TRANSPILERS or self._entries() > MAX_TARGET_ENTRIES:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        return result
