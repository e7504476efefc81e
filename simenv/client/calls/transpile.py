"""Transpilation by workers: circuits are sent in QPY, a few in each task, and returned compiled."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsIndex

from simenv.client.calls.tasks import CallTask, decode_answer, send_calls
from simenv.client.connection.session import ServiceSession
from simenv.client.submission.options import CallOptions
from simenv.errors import OptionError, ProgramError, TaskFailedError
from simenv.model.calls import (
    AS_SUBMITTED,
    CALL_FORMAT,
    TRANSPILER,
    TranspileAnswer,
    TranspileCall,
)
from simenv.model.devices import DeviceInfo
from simenv.model.task_rules import checked_integer
from simenv.transpiler import qiskit_runtime, qpy
from simenv.wire import codec

# Circuits of one task: a task of this length is prefetched while the worker runs the one before.
CIRCUITS = 2
FIRST_TASKS = 8  # sent in the first message: they run while the other circuits are packed
TASK_BYTES = 4 * 2**20  # bound on the circuits of one task; a single circuit may be larger
MAX_SEED = 2**32 - 1


def transpile(
    session: ServiceSession,
    info: DeviceInfo,
    circuits: Sequence[Any],
    level: SupportsIndex | None,
    seed: SupportsIndex,
    options: CallOptions,
) -> list[Any]:
    """Return QuantumCircuits compiled for the device, in order; see `Environment.transpile`."""
    qiskit_runtime.qiskit()
    from qiskit.qpy import common

    rules = AS_SUBMITTED if level is None else checked_integer("level", level, 0, 3)
    seed = checked_integer("seed", seed, 0, MAX_SEED)
    device = codec.encode(info)
    for number, circuit in enumerate(circuits):
        _check_circuit(circuit, number)
    calls = (
        codec.encode(
            TranspileCall(CALL_FORMAT, device, rules, seed, common.QPY_VERSION, first, chunk)
        )
        for first, chunk in _chunks(map(_pack, circuits, itertools.count()))
    )
    # An idempotency key covers one message, so all tasks must be in it.
    first_count = None if options.get("idempotency_key") is not None else FIRST_TASKS
    tasks: list[CallTask] = []
    try:
        for count in (first_count, None):
            batch = list(itertools.islice(calls, count))
            tasks += send_calls(session, TRANSPILER, batch, _read, options, seed)
        return [circuit for task in tasks for circuit in task.result()]
    except BaseException as error:
        session.cancel([task.handle.number for task in tasks if not task.handle.over])
        if isinstance(error, TaskFailedError) and error.reason == ProgramError.code:
            raise ProgramError(error.message, hint=error.hint) from error
        raise


def _check_circuit(circuit: Any, number: int) -> None:
    if not qiskit_runtime.is_circuit(circuit):
        raise OptionError(
            f"circuit {number} to transpile is of type {type(circuit).__name__}",
            hint="a QuantumCircuit",
        )


def _pack(circuit: Any, number: int) -> bytes:
    try:
        return qpy.write_qpy(circuit)
    except Exception as error:  # QPY raises any type for an operation that it cannot store
        raise ProgramError(
            f"circuit {number} cannot be written as QPY: {error}",
            hint="replace its own operations by their definitions: circuit.decompose()",
        ) from error


def _chunks(files: Iterable[bytes]) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Iterate over the files of each task, with the index of the first."""
    first, chunk, total = 0, list[bytes](), 0
    for file in files:
        if len(chunk) == CIRCUITS or (chunk and total + len(file) > TASK_BYTES):
            yield first, tuple(chunk)
            first, chunk, total = first + len(chunk), [], 0
        chunk.append(file)
        total += len(file)
    if chunk:
        yield first, tuple(chunk)


def _read(packed: bytes) -> list[Any]:
    return [qpy.parse(each) for each in decode_answer(packed, TranspileAnswer).circuits]
