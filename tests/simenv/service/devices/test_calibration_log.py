"""Calibrations that clients were told are found again, also after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simenv.errors import NotFoundError
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.service.devices import calibration_log
from simenv.service.devices.calibration_log import CalibrationLog
from simenv.service.journal.writer import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "j.db", "process")
    yield opened
    opened.close()


def info(number: str, calibrated_s: float, name: str = "emu") -> DeviceInfo:
    fields = (DeviceKind.EMULATED, "", "", "", "", 1, 1, (), False)
    return DeviceInfo(name, *fields, calibration_id=number, calibrated_s=calibrated_s, dt_ns=1.0)


def test_calibrations_are_found_by_id_after_a_restart(journal: Journal) -> None:
    log = CalibrationLog(journal)
    for each in (info("two", 200.0), info("one", 100.0), info("", 300.0), info("x", 1.0, "main")):
        log.record(each)
        log.record(each)
    journal.commit()
    for each in (log, CalibrationLog(journal)):
        assert list(each.ids("emu").items()) == [("one", 100.0), ("two", 200.0)]
        assert each.read("emu", "one") == info("one", 100.0)
        with pytest.raises(NotFoundError):
            each.read("main", "one")


def test_the_oldest_calibration_goes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_log, "MAX_CALIBRATIONS", 2)
    log = CalibrationLog(journal)
    for number, calibrated_s in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        log.record(info(number, calibrated_s))
    journal.commit()
    assert list(CalibrationLog(journal).ids("emu")) == ["b", "c"]
    with pytest.raises(NotFoundError):
        log.read("emu", "a")
