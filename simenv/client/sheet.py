"""One task's packed result, decoded once for all its rows.

Invariant: what a sheet holds fits together (checked when it is read); nothing is copied or turned
into text or arrays before somebody asks for it. Read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from simenv.errors import ProtocolError, VersionMismatch
from simenv.model import RESULT_FORMAT, ResultData
from simenv.wire import codec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Sheet:
    """The rows of one task; row r is binding number `data.binding` + r."""

    __slots__ = ("_ends", "_probability_ends", "data")

    def __init__(self, data: ResultData, task: str) -> None:
        """Raises VersionMismatch and ProtocolError, naming `task`."""
        if data.format != RESULT_FORMAT:
            raise VersionMismatch(
                f"result of task {task} has format {data.format}, this client reads {RESULT_FORMAT}"
            )
        if data.count < 1:
            raise ProtocolError(f"result of task {task} has {data.count} rows")
        self.data = data
        values = (data.outcomes, data.outcome_width, data.counts, 4)
        self._ends = _ends(*values, data.rows, data.count, task)
        values = (data.probability_outcomes, data.probability_width, data.probabilities, 8)
        self._probability_ends = _ends(*values, data.probability_rows, data.count, task)
        for name, size in (
            ("statevector", len(data.statevector)),
            ("expectations", len(data.expectations)),
        ):
            if size % (8 * data.count):
                raise ProtocolError(
                    f"result of task {task} has {size} bytes of {name} for {data.count} rows"
                )

    @classmethod
    def read(cls, payload: bytes, task: str) -> Sheet:
        """From what travelled. Raises ProtocolError and VersionMismatch."""
        return cls(codec.result_data(payload), task)

    def counts(self, row: int) -> tuple[bytes, bytes]:
        """Packed outcomes of a row and uint32 numbers, one each."""
        data = self.data
        if self._ends is None:
            return data.outcomes, data.counts
        first, last, width = self._ends[row], self._ends[row + 1], data.outcome_width
        return data.outcomes[first * width : last * width], data.counts[4 * first : 4 * last]

    def probabilities(self, row: int) -> tuple[bytes, bytes]:
        """Packed outcomes of a row and float64 probabilities, one each."""
        data, ends = self.data, self._probability_ends
        if ends is None:
            return data.probability_outcomes, data.probabilities
        first, last, width = ends[row], ends[row + 1], data.probability_width
        outcomes = data.probability_outcomes[first * width : last * width]
        return outcomes, data.probabilities[8 * first : 8 * last]

    def statevector(self, row: int) -> NDArray[np.complexfloating[Any, Any]]:
        """[2**num_qubits] of a row."""
        import numpy as np

        data = self.data
        size = len(data.statevector) // data.count
        single = size == 8 << data.num_qubits
        kind = np.dtype("<c8" if single else "<c16")
        return np.frombuffer(data.statevector, kind, size // kind.itemsize, row * size)

    def estimates(self, row: int) -> Sequence[float]:
        """Value and standard error of each observable of a row, one after the other."""
        data = self.data
        size = len(data.expectations) // data.count
        return memoryview(data.expectations)[row * size : (row + 1) * size].cast("d").tolist()

    def expectations(self) -> NDArray[np.float64]:
        """float64 [rows, observables, 2]: value and standard error."""
        import numpy as np

        table = np.frombuffer(self.data.expectations, np.dtype("<f8"))
        return table.reshape(self.data.count, -1, 2)


def _ends(
    outcomes: bytes, width: int, values: bytes, size: int, rows: bytes, count: int, task: str
) -> list[int] | None:
    """Where each row's part begins, and the last one's end; None where one row has all."""
    fits = not len(values) % size and len(outcomes) * size == len(values) * width
    ends = None
    if rows and fits:
        fits = len(rows) == 4 * count
        ends = [0, *accumulate(memoryview(rows).cast("I"))] if fits else None
        fits = fits and ends is not None and ends[-1] * size == len(values)
    elif values:
        fits = fits and count == 1
    if not fits:
        raise ProtocolError(
            f"result of task {task} has {len(values)} bytes of values for {len(outcomes)} bytes of"
            f" outcomes of {width} in {count} rows"
        )
    return ends
