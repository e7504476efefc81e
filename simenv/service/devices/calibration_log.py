"""Calibrations that clients were told, in the journal: also those of machines and drifting devices,
whose data are stored nowhere else.

Invariant: it has MAX_CALIBRATIONS at most, the newest. Used from the loop's thread.
"""

from __future__ import annotations

import msgspec

from simenv.errors import NotFoundError
from simenv.model.devices import DeviceInfo
from simenv.service.journal.tables import CALIBRATION
from simenv.service.journal.writer import Journal

MAX_CALIBRATIONS = 2_000


class CalibrationLog:
    """See the module."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        query = "select device, calibration, calibrated from calibration order by calibrated"
        rows = journal.records.rows(query)
        self._times_s = {(device, number): time_s for device, number, time_s in rows}

    def record(self, info: DeviceInfo) -> None:
        """Store the present calibration of a device or pool, if it has one."""
        key = info.name, info.calibration_id
        if not info.calibration_id or key in self._times_s:
            return
        self._times_s[key] = info.calibrated_s
        body = msgspec.msgpack.encode(info)
        statements = [CALIBRATION.put(*key, info.calibrated_s, body)]
        if len(self._times_s) > MAX_CALIBRATIONS:
            oldest = min(self._times_s, key=self._times_s.__getitem__)
            del self._times_s[oldest]
            statements.append(CALIBRATION.remove(*oldest))
        self._journal.put(statements, forced=False)

    def ids(self, device: str) -> dict[str, float]:
        """Return the ids of a device's calibrations, with their times in seconds since 1970, the
        oldest first."""
        found = [(time_s, number) for (name, number), time_s in self._times_s.items()
                 if name == device]  # fmt: skip
        return {number: time_s for time_s, number in sorted(found)}

    def read(self, device: str, calibration: str) -> DeviceInfo:
        """Return a device with a calibration. Raises NotFoundError."""
        query = "select body from calibration where device = ? and calibration = ?"
        for (body,) in self._journal.records.rows(query, device, calibration):
            return msgspec.msgpack.decode(body, type=DeviceInfo)
        text = f"device {device[:64]!r} had no calibration {calibration[:64]} that was told"
        raise NotFoundError(text, hint="those of client.known_calibrations(NAME)")
