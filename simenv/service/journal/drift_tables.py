"""Table of drifting pools: when their drift began, and when their noise was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from simenv.errors import JournalError
from simenv.service.journal.reader import WAY_OUT, Records

SCHEMA = "create table if not exists drift(pool text primary key, body blob) without rowid;"
Statement = tuple[str, tuple[Any, ...]]


class DriftState(msgspec.Struct, frozen=True):
    """What is stored of a drifting pool. Times are wall-clock nanoseconds."""

    drift: str  # as the pool has it; another one begins anew
    begun_ns: int
    calibrated_ns: tuple[int, ...] = ()  # when the noise was published as calibration


_encode = msgspec.msgpack.Encoder().encode
_STATE = msgspec.msgpack.Decoder(DriftState)


def statements(changes: Mapping[str, DriftState]) -> list[Statement]:
    """What stores these states."""
    return [
        ("insert or replace into drift values(?,?)", (pool, _encode(state)))
        for pool, state in changes.items()
    ]


def read(records: Records) -> dict[str, DriftState]:
    """The stored states, by pool. Raises JournalError."""
    try:
        rows = records.rows("select pool, body from drift")
        return {pool: _STATE.decode(body) for pool, body in rows}
    except msgspec.MsgspecError as error:
        raise JournalError(
            f"the drift of a device in the journal cannot be read: {error}", hint=WAY_OUT
        ) from error
