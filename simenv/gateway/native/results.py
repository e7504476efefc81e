"""Results as JSON, .npz and HDF5, by the Accept header.

Invariant: JSON holds no more values than a browser can show; larger arrays are sent in the binary
forms, part by part as the client reads them, without a copy of the result.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import Any

from litestar import Response
from litestar.response import Stream

from simenv.client.result import Result
from simenv.client.submission.pulses import PulseResult, pulse_result
from simenv.client.tasks.task import Task
from simenv.errors import LimitExceededError, OptionError
from simenv.gateway.limits import PART_BYTES, HttpExchange
from simenv.gateway.native.schemas import ResultPage

JSON, NPZ, HDF5 = "application/json", "application/x-npz", "application/x-hdf5"
_SUFFIXES = {NPZ: ".npz", HDF5: ".h5"}
_ANY = ("", "*/*", "application/*", "application/problem+json")
MAX_JSON_AMPLITUDES = 2**16
MAX_JSON_BITS = 2**23  # of the memory of all shots
MAX_JSON_OUTCOMES = 2**17  # of counts or probabilities
SMALL_OUTCOMES = 4_096  # results up to here are encoded at once, without a thread
MAX_JSON_BYTES = 32 * 2**20  # about, of one answer and the values of which it is made
_LEAST_BYTES = 4_096  # of a result without arrays
_VALUE_BYTES = {"amplitudes": 200, "bits of memory": 2, "outcomes": 100}  # of one, with its text
_TEXT_BYTES = 60  # of a text of Python, without its characters


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
    arrays = ("probabilities", "statevector", "gradients", "memory", "amplitudes", "value")
    if any(result.has(name) for name in arrays):
        return False
    return not result.has("counts") or len(result.outcome_counts) <= SMALL_OUTCOMES


def json_bytes(result: Result) -> int:
    """Return about the memory that a result takes as JSON, with the values of which it is made.
    Raises LimitExceededError for arrays that are too large for JSON."""
    sizes = {}
    if result.has("statevector"):
        sizes["amplitudes"] = 2**result.num_qubits, MAX_JSON_AMPLITUDES, 0
    if result.has("memory"):
        shots = len(result.memory)
        sizes["bits of memory"] = result.memory.size * 8, MAX_JSON_BITS, shots * _TEXT_BYTES
    outcomes = 0
    for name, array in (("counts", "outcome_counts"), ("probabilities", "probabilities")):
        if result.has(name):
            outcomes = max(outcomes, len(getattr(result, array)))
    sizes["outcomes"] = outcomes, MAX_JSON_OUTCOMES, outcomes * (_TEXT_BYTES + result.num_qubits)
    if (pulses := pulse_result(result)) is not None:
        sizes |= _pulse_sizes(pulses)
    total = _LEAST_BYTES
    for name, (count, limit, more) in sizes.items():
        if count > limit or more > MAX_JSON_BYTES:
            message = f"task {result.task} has {count} {name}; JSON is sent of at most {limit}"
            raise LimitExceededError(message, hint=f"Accept: {NPZ}, or {HDF5}")
        total += _VALUE_BYTES[name] * count + more
    return total


def _pulse_sizes(pulses: PulseResult) -> dict[str, tuple[int, int, int]]:
    """As `sizes` of `json_bytes`."""
    width, times, found = len(pulses.atoms), len(pulses.evaluation_times), {}
    if pulses.has("statevector"):
        found["amplitudes"] = times * 2**width, MAX_JSON_AMPLITUDES, 0
    if pulses.has("memory"):
        shots = times * pulses.shots
        found["bits of memory"] = width * shots, MAX_JSON_BITS, shots * _TEXT_BYTES
    outcomes = times * (pulses.num_outcomes + width + 2)
    if pulses.has("correlation"):
        outcomes += times * width**2
    found["outcomes"] = outcomes, MAX_JSON_OUTCOMES, outcomes * (_TEXT_BYTES + width)
    return found


def to_json(result: Result) -> dict[str, Any]:
    """Return a result as `Result.to_dict`. Raises LimitExceededError for arrays that are too large
    for JSON."""
    json_bytes(result)
    body = result.to_dict()
    if result.has("statevector") and not isinstance(body["statevector"], list):
        # a reference to the service's file
        body["statevector"] = [[a.real, a.imag] for a in result.statevector.tolist()]
    if (pulses := pulse_result(result)) is not None:
        body["pulses"] = pulses.to_dict()
    return body


def encoded(result: Result, media_type: str, exchange: HttpExchange) -> Response[Any]:
    """Return the response with one result. Binary forms are streamed, from the result file if it
    has one. Raises LimitExceededError, QueueFullError, StoreError."""
    if media_type == JSON:
        exchange.hold(json_bytes(result))
        return Response(to_json(result), media_type=JSON)
    suffix = _SUFFIXES[media_type]
    size, blocks = result.parts(suffix)
    headers = {"Content-Disposition": f'attachment; filename="{result.task}{suffix}"'}
    if size is not None:
        headers["Content-Length"] = str(size)
    sent = _Pieces(blocks)
    exchange.resources.callback(sent.close)
    return Stream(sent, media_type=media_type, headers=headers)


class _Pieces:
    """Blocks in pieces: a block of a mapped file is read when the client has room for it.

    Invariant: once closed it holds no file. A thread may be reading a piece then; this thread
    closes the file when it has it, as nothing else may end a generator that runs.
    """

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks  # a generator
        self._pieces = self._read()
        self._lock = threading.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._lock:
                return next(self._pieces)
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._pieces.close()
                self._blocks.close()
            finally:
                self._lock.release()

    def _read(self) -> Generator[bytes, None, None]:
        for block in self._blocks:
            view = memoryview(block)
            for start in range(0, len(view), PART_BYTES):
                yield bytes(view[start : start + PART_BYTES])


def page(task: Task, first: int, limit: int, exchange: HttpExchange) -> dict[str, Any]:
    """Return a ResultPage, as builtins, of a task that has ended. Raises LimitExceededError,
    QueueFullError."""
    results = task.results(0.0)
    chosen = results[first : first + limit]
    size = sum(map(json_bytes, chosen))
    if size > MAX_JSON_BYTES:
        text = f"{len(chosen)} results take {size} bytes; the limit of a page is {MAX_JSON_BYTES}"
        raise LimitExceededError(text, hint="a smaller `limit`")
    exchange.hold(size)
    values = (task.id, len(results), first, [to_json(each) for each in chosen])
    return dict(zip(ResultPage.__struct_fields__, values, strict=True))
