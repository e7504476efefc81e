"""Results as JSON, .npz and HDF5, by the Accept header.

Invariant: JSON holds no more values than a browser can show; larger arrays are sent in the binary
forms, from a file that has no name any more, part by part.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from litestar import Response
from litestar.response import Stream

from simenv.client.client import Client
from simenv.client.result import Result
from simenv.client.tasks.task import Task
from simenv.errors import LimitExceededError, OptionError
from simenv.gateway.native.schemas import ResultPage

JSON, NPZ, HDF5 = "application/json", "application/x-npz", "application/x-hdf5"
_SUFFIXES = {NPZ: ".npz", HDF5: ".h5"}
_ANY = ("", "*/*", "application/*", "application/problem+json")
MAX_JSON_AMPLITUDES = 2**16
MAX_JSON_BITS = 2**25  # of the memory of all shots
MAX_JSON_OUTCOMES = 2**19  # of counts or probabilities
SMALL_OUTCOMES = 4_096  # results up to here are encoded at once, without a thread
PART_BYTES = 2**18


def form_of(accept: str) -> str:
    """Return the first known type of an Accept header; JSON if it names any type. Raises
    OptionError."""
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip().lower()
        if media_type in (JSON, NPZ, HDF5):
            return media_type
        if media_type in _ANY:
            return JSON
    raise OptionError(f"Accept: {accept[:80]!r}", hint=f"{JSON}, {NPZ} or {HDF5}")


def is_small(result: Result) -> bool:
    """Return whether a result has counts or expectation values alone, and few of them."""
    arrays = ("probabilities", "statevector", "gradients", "memory", "amplitudes")
    if any(result.has(name) for name in arrays):
        return False
    return not result.has("counts") or len(result.outcome_counts) <= SMALL_OUTCOMES


def to_json(result: Result) -> dict[str, Any]:
    """Return a result as `Result.to_dict`. Raises LimitExceededError for arrays that are too large
    for JSON."""
    values = bits = outcomes = 0
    if result.has("statevector"):
        values = 2**result.num_qubits
    if result.has("memory"):
        bits = result.memory.size * 8
    for name, array in (("counts", "outcome_counts"), ("probabilities", "probabilities")):
        if result.has(name):
            outcomes = max(outcomes, len(getattr(result, array)))
    for count, limit, name in (
        (values, MAX_JSON_AMPLITUDES, "amplitudes"),
        (bits, MAX_JSON_BITS, "bits of memory"),
        (outcomes, MAX_JSON_OUTCOMES, "outcomes"),
    ):
        if count > limit:
            message = f"task {result.task} has {count} {name}; JSON is sent of at most {limit}"
            raise LimitExceededError(message, hint=f"Accept: {NPZ}, or {HDF5}")
    body = result.to_dict()
    if values and not isinstance(body["statevector"], list):  # a reference to the service's file
        body["statevector"] = [[a.real, a.imag] for a in result.statevector.tolist()]
    return body


def encoded(_client: Client, result: Result, media_type: str, folder: Path) -> Response[Any]:
    """Return the response with one result. Raises LimitExceededError, StoreError."""
    if media_type == JSON:
        return Response(msgspec.json.encode(to_json(result)), media_type=JSON)
    path = folder / f"{secrets.token_hex(8)}{_SUFFIXES[media_type]}"
    try:
        result.save(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        path.unlink(missing_ok=True)  # the open file alone remains
    headers = {
        "Content-Length": str(os.fstat(descriptor).st_size),
        "Content-Disposition": f'attachment; filename="{result.task}{_SUFFIXES[media_type]}"',
    }
    return Stream(_Parts(descriptor), media_type=media_type, headers=headers)


class _Parts:
    """Iterator over the parts of an open file, which is closed with it: perhaps nobody reads the
    answer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def __iter__(self) -> Iterator[bytes]:
        while part := os.read(self._descriptor, PART_BYTES):
            yield part


def page(task: Task, first: int, limit: int) -> dict[str, Any]:
    """Return a ResultPage, as builtins, of a task that has ended."""
    results = task.results(0.0)
    chosen = results[first : first + limit]
    values = (task.id, len(results), first, [to_json(each) for each in chosen])
    return dict(zip(ResultPage.__struct_fields__, values, strict=True))
