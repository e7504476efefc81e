"""Files of a worker in the results folder: large results, and checkpoints of long runs.

Invariant: a result file is named after the attempt that wrote it, so that no two attempts write
the same file. A checkpoint is read by the next attempt at the same task.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv import result_files
from simenv._version import __version__
from simenv.errors import StoreError
from simenv.model import Program, ResultFile, TaskOptions, task_name
from simenv.wire.keyfiles import TOKEN
from simenv.wire.messages.client import AssignChunk, AssignedTask
from simulators.engine import EngineResult, RunOptions

MESSAGE_BYTES = 2**20  # results above it go into a file
ARRAY_BYTES = 64 * 2**10  # of a result in a file, only arrays of this size or more are in the file


class ResultFileWriter:
    """Writer of files in the results folder. `sync`: force written files to disk. `mark`: a part of
    the names of unfinished files. `unavailable`: the reason why the folder cannot be used, see
    `unavailable_reason`."""

    def __init__(
        self, folder: Path, sync: bool = True, mark: str = "", unavailable: str = ""
    ) -> None:
        self._folder = folder
        self._sync = sync
        self._mark = mark
        self._unavailable = unavailable

    def put(
        self,
        result: EngineResult,
        program: Program,
        assigned: AssignedTask,
        terms: TaskOptions,
        chunk: AssignChunk,
    ) -> ResultFile | None:
        """Write the large arrays of a result. Returns None if the result fits into a message.
        Raises StoreError."""
        num_bytes = _size(result)
        if result.amplitudes is not None:
            num_bytes += sum(map(len, terms.bit_strings))
        if num_bytes <= MESSAGE_BYTES:
            return None
        self._check_available(num_bytes)
        large = {
            name: array
            for name, array in _arrays(result, assigned.shots, terms).items()
            if array.nbytes >= ARRAY_BYTES
        }
        return self._written(large, _attributes(program, assigned, terms, chunk), assigned)

    def put_value(
        self, value: bytes, assigned: AssignedTask, terms: TaskOptions, chunk: AssignChunk
    ) -> ResultFile | None:
        """Write the value of a call as uint8. Returns None if it fits into a message. Raises
        StoreError."""
        if len(value) <= MESSAGE_BYTES:
            return None
        self._check_available(len(value))
        array = np.frombuffer(value, np.uint8)
        return self._written({"value": array}, _common(assigned, terms, chunk), assigned)

    def _check_available(self, size_bytes: int) -> None:
        if self._unavailable:
            text = f"a result of {size_bytes} bytes needs a file, and {self._unavailable}"
            hint = "set SIMENV_HOME to a folder that all nodes of the allocation share"
            raise StoreError(text, hint=hint)

    def _written(
        self,
        large: dict[str, NDArray[Any]],
        attributes: dict[str, str | int],
        assigned: AssignedTask,
    ) -> ResultFile:
        name = result_files.attempt_file(assigned.task, assigned.attempt)
        path = self._folder / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"the folder of {name} cannot be made: {error.strerror}"
            hint = "see to the disk of the results, then submit again"
            raise StoreError(message, hint=hint) from error
        return result_files.write(
            path, large, attributes, name=name, sync=self._sync, mark=self._mark
        )


def unavailable_reason(folder: Path, token: str) -> str:
    """Return the reason why large results cannot be written: this node does not see the service's
    results folder. "" if it does: the folder contains `token`, which the service puts there."""
    hostname = os.uname().nodename
    try:
        result = (folder / TOKEN).read_text()
    except OSError as error:
        return f"the results folder cannot be seen from {hostname}: {error.strerror}"
    return "" if result == token else f"on {hostname} its path is not the service's results folder"


def _size(result: EngineResult) -> int:
    size = (
        len(result.outcomes)
        + len(result.counts)
        + len(result.probability_outcomes)
        + len(result.probabilities)
        + len(result.expectations)
        + len(result.gradients)
        + len(result.memory)
    )
    if result.statevector is not None:
        size += result.statevector.nbytes
    if result.amplitudes is not None:
        size += result.amplitudes.nbytes
    return size


def _arrays(result: EngineResult, shots: int, terms: TaskOptions) -> dict[str, NDArray[Any]]:
    """Return the arrays of a result by their names in a ResultData."""
    arrays: dict[str, NDArray[Any]] = {
        "outcomes": result_files.outcomes(result.outcomes, result.outcome_width),
        "counts": result_files.array_of(result.counts, "<u4"),
        "probability_outcomes": result_files.outcomes(
            result.probability_outcomes, result.probability_width
        ),
        "probabilities": result_files.array_of(result.probabilities, "<f8"),
        "expectations": result_files.array_of(result.expectations, "<f8"),
        "gradients": result_files.array_of(result.gradients, "<f8"),
    }
    if result.memory:
        raw = np.frombuffer(result.memory, np.uint8)
        arrays["memory"] = raw.reshape(result.count, shots, -1)
    if result.statevector is not None:
        arrays["statevector"] = np.ascontiguousarray(result.statevector).reshape(result.count, -1)
    if result.amplitudes is not None:
        text = np.frombuffer("".join(terms.bit_strings).encode(), np.uint8)
        arrays["bit_strings"] = text.reshape(len(terms.bit_strings), -1)
        arrays["amplitudes"] = result.amplitudes
    return arrays


def _attributes(
    program: Program, assigned: AssignedTask, terms: TaskOptions, chunk: AssignChunk
) -> dict[str, str | int]:
    """Return the attributes of a result of a circuit, for readers without simenv."""
    return {
        **_common(assigned, terms, chunk),
        "registers": msgspec.json.encode(program.shown_registers).decode(),
        "num_qubits": program.num_qubits,
        "shots": assigned.shots,
        "seed": assigned.seed,
        "binding": assigned.binding,
        "count": assigned.count,
        "precision": terms.precision,
    }


def _common(assigned: AssignedTask, terms: TaskOptions, chunk: AssignChunk) -> dict[str, str | int]:
    """Return the attributes that results of circuits and of calls share."""
    return {
        "format": result_files.FORMAT,
        "content": "arrays of a simenv result",
        "version": __version__,
        "task": task_name(assigned.task),
        "name": terms.name,
        "engine": chunk.engine,
        "route": chunk.route,
        "node": os.uname().nodename,
    }


class RunCheckpoints(msgspec.Struct, frozen=True):
    """Folder of the checkpoints of all tasks, and the interval of checkpoints in seconds."""

    folder: Path
    every_s: float

    @classmethod
    def below(cls, results: Path, every_s: float) -> RunCheckpoints:
        """Return checkpoints in a folder below that of the results, which all ranks see."""
        return cls(results / result_files.CHECKPOINTS, every_s)

    def run_options(self, options: RunOptions, num_qubits: int, task: int) -> RunOptions:
        """Return the options of a run, with the checkpoint folder of its task if it may be long."""
        return options if num_qubits < result_files.WIDE_QUBITS else self.of_task(options, task)

    def of_task(self, options: RunOptions, task: int) -> RunOptions:
        """Return the options of a run that may be long, with the checkpoint folder of its task."""
        folder = os.path.join(self.folder, task_name(task))
        return msgspec.structs.replace(
            options, checkpoint_dir=folder, checkpoint_every_s=self.every_s
        )
