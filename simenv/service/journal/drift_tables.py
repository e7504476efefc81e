"""Table of drifting pools: the begin of their drift, and the times of published calibrations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from simenv.service.journal.reader import Records

SCHEMA = "create table if not exists drift(pool text primary key, body blob) without rowid;"
Statement = tuple[str, tuple[Any, ...]]


class DriftState(msgspec.Struct, frozen=True):
    """Stored state of a drifting pool. Times are wall-clock nanoseconds."""

    drift: str  # option `drift` of the pool; the state of another one is not used
    begun_ns: int
    calibrated_ns: tuple[int, ...] = ()  # times at which the noise was published as calibration


_encode = msgspec.msgpack.Encoder().encode
_STATE = msgspec.msgpack.Decoder(DriftState)


def statements(changes: Mapping[str, DriftState]) -> list[Statement]:
    """Return the statements that store these states."""
    return [
        ("insert or replace into drift values(?,?)", (pool, _encode(state)))
        for pool, state in changes.items()
    ]


def read(records: Records) -> dict[str, DriftState]:
    """Read the stored states, by pool. Raises JournalError."""
    query = "select pool, body from drift"
    return dict(records.decoded(query, _STATE, "the drift of a device"))
