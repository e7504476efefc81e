"""Lengths of the arrays of a result, in its message and in its file.

Invariant: a result that passes agrees in all lengths that can be compared without looking at the
values, and its file is what its attempt may have. The service checks results of workers before it
stores them, clients before they read them.
"""

from __future__ import annotations

from simenv.errors import ProtocolError, VersionMismatchError
from simenv.model.task import RESULT_FORMAT, AmplitudeResultData, ResultFile

ARRAYS = (
    *("outcomes", "counts", "probability_outcomes", "probabilities", "statevector"),
    *("expectations", "gradients", "memory", "value", "amplitudes"),
)  # in the order of `sizes`
_FILED = frozenset({*ARRAYS, "bit_strings"})


def check(data: AmplitudeResultData, task: object) -> list[int] | None:
    """Check all lengths; return the bytes of each of ARRAYS, None for counts of one row alone.
    Raises VersionMismatchError and ProtocolError, naming `task`."""
    if data.format != RESULT_FORMAT:
        raise VersionMismatchError(
            f"result of task {task} has format {data.format}, this client reads {RESULT_FORMAT}"
        )
    if data.count < 1:
        raise ProtocolError(f"result of task {task} has {data.count} rows")
    return None if _is_plain(data) else _compare(data, task)


def check_file(file: ResultFile, task: object) -> None:
    """Check that the arrays of a file follow one another within it, each of them once. Raises
    ProtocolError, naming `task`."""
    end, names = 0, set[str]()
    for array in file.arrays:
        if array.field not in _FILED or array.field in names:
            raise ProtocolError(f"result of task {task} has the array {array.field[:40]!r} twice")
        if not (end <= array.offset and 0 <= array.size_bytes <= file.size_bytes - array.offset):
            raise ProtocolError(f"result of task {task} has {array.field} outside of its file")
        names.add(array.field)
        end = array.offset + array.size_bytes


def _is_plain(data: AmplitudeResultData) -> bool:
    """Return whether the data are counts of one row alone, with lengths that agree. Most small
    results are; the other checks are skipped for them."""
    count_bytes = len(data.counts)
    return (
        data.count == 1
        and data.file is None
        and not count_bytes % 4
        and len(data.outcomes) * 4 == count_bytes * data.outcome_width
        and not (
            data.rows or data.probability_outcomes or data.probabilities or data.probability_rows
            or data.statevector or data.expectations or data.gradients or data.memory or data.value
            or data.amplitudes
        )
    )  # fmt: skip


def _sizes(data: AmplitudeResultData) -> list[int]:
    """Return the bytes of each array, in the message or in its file."""
    inline = [  # written out: a loop over names costs a quarter of reading a small result
        len(data.outcomes), len(data.counts), len(data.probability_outcomes),
        len(data.probabilities), len(data.statevector), len(data.expectations),
        len(data.gradients), len(data.memory), len(data.value), len(data.amplitudes),
    ]  # fmt: skip
    if data.file is None:
        return inline
    filed = {array.field: array.size_bytes for array in data.file.arrays}
    return [filed.get(field) or size for field, size in zip(ARRAYS, inline, strict=True)]


def _compare(data: AmplitudeResultData, task: object) -> list[int]:
    filed: set[str] = set()
    for array in data.file.arrays if data.file is not None else ():
        if array.field in filed or getattr(data, array.field, None):
            raise ProtocolError(f"result of task {task} has the array {array.field} twice")
        filed.add(array.field)
    sizes = _sizes(data)
    outcomes, counts, possible, probabilities, state, estimates, slopes, memory, _, chosen = sizes
    _check_rows(outcomes, data.outcome_width, counts, 4, data.rows, data.count, task)
    width, rows = data.probability_width, data.probability_rows
    _check_rows(possible, width, probabilities, 8, rows, data.count, task)
    if slopes and (not estimates // 2 or slopes % (estimates // 2)):  # float64 for each value
        raise ProtocolError(
            f"result of task {task} has {slopes} bytes of gradients for {estimates} of values"
        )
    sized = (
        *(("statevector", state), ("expectations", estimates), ("gradients", slopes)),
        ("amplitudes", chosen),
    )
    width = -(-sum(size for _, size in data.registers) // 8)
    if memory and memory != data.count * data.shots * width:
        raise ProtocolError(
            f"result of task {task} has {memory} bytes of memory for {data.count} rows of"
            f" {data.shots} shots of {width}"
        )
    for name, size in sized:
        if size % (8 * data.count):
            message = f"result of task {task} has {size} bytes of {name} for {data.count} rows"
            raise ProtocolError(message)
    return sizes


def _check_rows(
    outcome_bytes: int, width: int, value_bytes: int, size: int, rows: bytes, count: int,
    task: object,
) -> None:  # fmt: skip
    """Check the values, of `size` bytes each, of outcomes of `width` bytes in rows."""
    fits = not value_bytes % size and outcome_bytes * size == value_bytes * width
    fits = fits and (len(rows) == 4 * count if rows else not value_bytes or count == 1)
    if not fits:
        raise rows_error(outcome_bytes, width, value_bytes, count, task)


def rows_error(
    outcome_bytes: int, width: int, value_bytes: int, count: int, task: object
) -> ProtocolError:
    """Return the error of values that do not fit the outcomes or the rows."""
    return ProtocolError(
        f"result of task {task} has {value_bytes} bytes of values for {outcome_bytes} bytes of"
        f" outcomes of {width} in {count} rows"
    )
