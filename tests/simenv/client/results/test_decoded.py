"""Rows of one packed result: cut where they end, refused where they do not fit."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pytest
from test_result import PROVENANCE

from simenv.client.results.decoded import DecodedResult
from simenv.client.results.result import Result
from simenv.errors import ProtocolError
from simenv.model import RESULT_FORMAT, ResultData

DATA = ResultData(
    RESULT_FORMAT,
    (("c", 2),),
    2,
    shots=8,
    seed=1,
    outcome_width=1,
    outcomes=b"\x00\x01\x02\x03\x02",
    counts=struct.pack("<5I", 8, 1, 3, 4, 8),
    probability_outcomes=b"\x00\x01\x02\x03",
    probability_width=1,
    probabilities=struct.pack("<4d", 1.0, 0.25, 0.75, 1.0),
    statevector=np.arange(12, dtype="<c16").tobytes(),
    expectations=struct.pack("<6d", 0.1, 0.01, 0.2, 0.02, 0.3, 0.03),
    gradients=struct.pack("<6d", 1, 2, 3, 4, 5, 6),
    binding=40,
    count=3,
    rows=struct.pack("<3I", 1, 3, 1),
    probability_rows=struct.pack("<3I", 1, 2, 1),
)


def sheet(**changes: object) -> DecodedResult:
    return DecodedResult(msgspec.structs.replace(DATA, **changes), "t-8k2f")


def test_each_row_of_result_has_its_own_values() -> None:
    result = sheet()
    rows = [Result(result, PROVENANCE, k) for k in range(3)]
    assert [row.counts for row in rows] == [{"00": 8}, {"01": 1, "10": 3, "11": 4}, {"10": 8}]
    assert rows[1].outcomes.tolist() == [1, 2, 3]
    assert rows[1].outcome_counts.tolist() == [1, 3, 4]
    assert rows[1].probabilities == {"01": 0.25, "10": 0.75}
    assert rows[2].statevector.tolist() == [8, 9, 10, 11]
    assert [row.expectation for row in rows] == [0.1, 0.2, 0.3]
    assert rows[2].std_errors == (0.03,)
    assert [row.gradient.tolist() for row in rows] == [[1, 2], [3, 4], [5, 6]]
    assert rows[1].gradients.shape == (1, 2)
    assert [row.binding_index for row in rows] == [40, 41, 42]


def test_expectations_of_sweep_are_one_array() -> None:
    table = sheet().expectations()
    assert table.shape == (3, 1, 2)
    assert table[:, 0, 0].tolist() == [0.1, 0.2, 0.3]


def test_row_without_outcomes_has_empty_counts() -> None:
    rows = struct.pack("<3I", 0, 5, 0)
    assert Result(sheet(rows=rows), PROVENANCE, 0).counts == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"count": 2},
        {"rows": b""},
        {"rows": struct.pack("<3I", 1, 3, 2)},
        {"rows": struct.pack("<2I", 1, 4)},
        {"rows": b"\0" * 11},
        {"probability_rows": struct.pack("<3I", 1, 1, 1)},
        {"expectations": b"\0" * 40},
        {"expectations": b""},
        {"gradients": b"\0" * 40},
        {"gradients": b"\0" * 8},
        {"statevector": b"\0" * 20},
        {"outcomes": b"\0" * 4},
        {"outcome_width": 2},
    ],
)
def test_rows_that_do_not_fit_arrays_are_a_protocol_error(changes: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="t-8k2f"):
        sheet(**changes)
