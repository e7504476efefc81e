"""Queries about devices, engines and stored results, and their answers.

The service verifies a result itself when a client reports it as damaged.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import EngineInfo
from simenv.model.devices import DeviceInfo
from simenv.model.program import Text
from simenv.wire.messages.base import (
    MAX_TIME_S,
    AdminRequest,
    ClientRequest,
    Number,
    Reply,
    WallClock,
)


class GetDevices(ClientRequest["Devices"], frozen=True, tag=43):
    """Request descriptions of devices; answered by Devices. `name`: only this emulated device, also
    without a pool of it; "": every pool. `names`: the names that `device=` accepts, and no pools.
    `dates`: only the times of the device's stored calibrations; `at_s`: the calibration of one of
    them, 0: the present one; `calibration_id`: that with this id, and its noise document.
    `known`: of the calibrations that clients were told, the one with this id, or all ids as
    `names`."""

    name: Text = ""
    names: bool = False
    dates: bool = False
    at_s: WallClock = 0.0
    calibration_id: Text = ""
    known: bool = False


class StoreNoise(ClientRequest["NoiseStored"], frozen=True, tag=46):
    """Store a noise document, which tasks then name by its digest."""

    body: bytes


class NoiseStored(Reply, frozen=True, tag=46):
    digest: str  # hex


class Devices(Reply, frozen=True, tag=43):
    """Every pool as a device; a pool of hardware that has not described itself yet has 0 qubits."""

    devices: list[DeviceInfo]
    # Names of devices, with the source of each: see `CalibrationSource`. Or ids of known
    # calibrations, with their times.
    names: list[tuple[str, str]] = msgspec.field(default_factory=list)
    # Since when each stored calibration was in force, in seconds since 1970, the oldest first.
    dates_s: list[float] = msgspec.field(default_factory=list)
    document: bytes = b""  # of the calibration that was asked for by its id


class DeviceDescribed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Description of the machine that a worker holds; sent before Join, and after each change."""

    name: str
    epoch: Number
    start: Number
    device: DeviceInfo


class GetEngines(ClientRequest["Engines"], frozen=True, tag=23):
    """Request all engines."""


class Engines(Reply, frozen=True, tag=23):
    """All engines in the order of preference; `missing` of an engine states how to install it."""

    engines: list[EngineInfo]


CHUNK_BYTES = 2**20  # limit of the answer to one FetchResult


class FetchResult(ClientRequest["ResultChunk"], frozen=True, tag=17):
    """Request a part of the file with a task's large arrays."""

    task: Number
    file: Text
    offset: Number
    size_bytes: Number


class VerifyResult(ClientRequest["VerifyReply"], frozen=True, tag=18):
    """Report a damaged result of a task; answered by VerifyReply after the service has checked
    it."""

    task: Number


Age = Annotated[float, msgspec.Meta(ge=-1.0, le=MAX_TIME_S)]


class CollectGarbage(AdminRequest["GarbageCollected"], frozen=True, tag=19):
    """Remove stored data of tasks that ended more than `older_s` seconds ago, and data beyond the
    limits of size. `older_s` < 0: the age is that of retention, `history.keep_days`. `dry`: only
    report the amount. Answered by GarbageCollected when it is done."""

    older_s: Age = -1.0
    dry: bool = False


class ResultChunk(Reply, frozen=True, tag=17):
    """The requested bytes, CHUNK_BYTES at most; fewer at the end of the file."""

    data: bytes


class VerifyReply(Reply, frozen=True, tag=18):
    """Answer to VerifyResult. `word`: "again" (the task is queued again), "waits" (it has not
    ended), "intact" (the stored result is complete: fetch it again), "removed" (retention removed
    its file) or "unknown"."""

    word: str


class RetainedData(msgspec.Struct, frozen=True):
    """Amount of stored data of ended tasks, or of data that was removed."""

    tasks: int = 0
    files: int = 0
    file_bytes: int = 0
    journal_bytes: int = 0  # of removed rows; of stored data: the journal's file
    unread: int = 0  # completions among them that some cursor has not passed
    oldest_s: float = 0.0  # time of day at which the oldest task ended; 0.0: none


class GarbageCollected(Reply, frozen=True, tag=19):
    freed: RetainedData
    left: RetainedData
