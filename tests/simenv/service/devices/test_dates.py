"""Stored calibrations of a device, by the time since which each was in force."""

from pathlib import Path

import msgspec
from failing import fails

from noise_models import library
from noise_models.snapshot import dump
from simenv.errors import NotFoundError
from simenv.model.devices import date_name, dated_s
from simenv.service.devices.registry import DeviceRegistry

TIMES_S = [1_772_344_800.0, 1_772_431_200.123457]


def test_dated_files_are_found_by_the_exact_time_of_their_name(tmp_path: Path) -> None:
    base = library.load("superconducting-lattice")
    (tmp_path / "chip.d").mkdir()
    for number, time_s in enumerate(TIMES_S):
        body = dump(msgspec.structs.replace(base, name="chip", version=str(number)))
        (tmp_path / "chip.d" / f"{date_name(time_s)}.json").write_bytes(body)
    (tmp_path / "chip.d" / "of-a-user-Z.json").write_bytes(body)
    registry = DeviceRegistry(tmp_path)
    try:
        assert registry.dates("chip").result() == TIMES_S
        for number, time_s in enumerate(TIMES_S):
            info = registry.dated("chip", time_s).result().info
            assert (info.name, info.version) == ("chip", str(number))
        lacking = registry.dated("chip", TIMES_S[0] + 1.0).result
        fails(NotFoundError, "no stored calibration", lacking)
        assert registry.dates("../chip").result() == registry.dates("none").result() == []
    finally:
        registry.close()


def test_name_of_a_file_keeps_its_time_to_the_microsecond() -> None:
    assert [dated_s(date_name(time_s)) for time_s in TIMES_S] == TIMES_S
    assert dated_s("20260230T000000.000000Z") == dated_s("") == 0.0
