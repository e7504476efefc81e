"""The telemetry store: what is merged, kept, removed and read, over years that pass quickly."""

import sqlite3
from collections.abc import Iterator
from math import nan
from pathlib import Path

import pytest
from failing import fails

from simenv.errors import JournalError, NotFoundError
from simenv.service.journal.database import FAILED_DISK, FULL_DISK
from simenv.service.journal.telemetry_store import (
    DAY_S,
    FIGURE_S,
    HOUR_S,
    MAX_SERIES,
    MINUTE_S,
    SAMPLE_S,
    YEAR_S,
    TelemetryStore,
)  # fmt: skip
from simenv.wire.messages.metrics import MAX_POINTS

BEGIN = 1_800_000_000 // DAY_S * DAY_S


def unforced(path: Path, limit: int = 2**24) -> TelemetryStore:
    """A store that does not wait for the disk: years of commits would take minutes."""
    result = TelemetryStore(path, limit)
    result._db.execute("pragma synchronous=off")
    return result


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TelemetryStore]:
    result = unforced(tmp_path / "telemetry.db")
    yield result
    result.close()


def fill(store: TelemetryStore, since: int, until: int, step: int = SAMPLE_S) -> None:
    """Samples whose value is their number of the step in the hour."""
    for at in range(since, until, step):
        store.add(at, {"queue": (float(at % HOUR_S // step), "tasks")})


def test_samples_are_read_as_they_were_stored(store: TelemetryStore) -> None:
    fill(store, BEGIN, BEGIN + 300)
    series = store.read("queue", 0, 0, 0, BEGIN + 300)
    assert series.unit == "tasks"
    assert series.at_s == [float(at) for at in range(BEGIN, BEGIN + 300, SAMPLE_S)]
    assert series.mean == series.least == series.most == [float(k) for k in range(30)]
    part = store.read("queue", BEGIN + 100, BEGIN + 130, 0, BEGIN + 300)
    assert part.mean == [10.0, 11.0, 12.0]


def test_minutes_hold_mean_least_and_largest_sample(store: TelemetryStore) -> None:
    fill(store, BEGIN, BEGIN + 610)
    series = store.read("queue", 0, 0, MINUTE_S, BEGIN + 610)
    assert series.at_s == [float(BEGIN + 60 * k) for k in range(11)]
    assert series.mean[:2] == [2.5, 8.5]
    assert (series.least[1], series.most[1]) == (6.0, 11.0)
    assert series.mean[-1] == 60.0, "the minute that is not complete is there, too"


@pytest.mark.parametrize("step_s", [10, 60, 300, 3600, 7200])
def test_every_sample_counts_once_at_any_step(store: TelemetryStore, step_s: int) -> None:
    fill(store, BEGIN + 50, BEGIN + 2 * HOUR_S + 70)
    now = BEGIN + 2 * HOUR_S + 70
    series = store.read("queue", 0, 0, step_s, now)
    assert series.at_s == sorted(set(series.at_s))
    assert all(at % step_s == 0 for at in series.at_s)
    assert min(series.least) == 0.0
    assert max(series.most) == 359.0
    if step_s == HOUR_S:
        assert series.mean[1] == pytest.approx(179.5)


def test_old_times_are_read_from_coarser_steps(store: TelemetryStore) -> None:
    now = BEGIN + 40 * DAY_S
    for day in range(40):
        fill(store, BEGIN + day * DAY_S, BEGIN + day * DAY_S + HOUR_S + SAMPLE_S, 60)
    fill(store, now - HOUR_S, now)
    whole = store.read("queue", BEGIN, 0, HOUR_S, now)
    assert len(whole.at_s) == 40 + 40 + 1, "an hour, and its last sample, of each day"
    fine = store.read("queue", BEGIN, BEGIN + DAY_S, MINUTE_S, now)
    assert len(fine.at_s) == 2, "40 days ago only hours are kept"
    recent = store.read("queue", now - 20 * DAY_S, now - 19 * DAY_S, MINUTE_S, now)
    assert len(recent.at_s) == 61, "20 days ago minutes are kept"
    samples = store.read("queue", now - 60, 0, SAMPLE_S, now)
    assert len(samples.at_s) == 6


def test_two_years_stay_below_the_limit_of_the_file(tmp_path: Path) -> None:
    limit = 2**20
    store = unforced(tmp_path / "telemetry.db", limit)
    names = [f"pool/p{k}/queue" for k in range(4)]
    figures = 0
    for at in range(BEGIN, BEGIN + 2 * YEAR_S + 30 * DAY_S, 4_800):
        values = {name: (float(at % 977), "tasks") for name in names}
        if at % (10 * DAY_S) == 0:
            figures += 1
            values["device/chip/t1_us"] = float(at), "us"
        store.add(at, values)
    now = BEGIN + 2 * YEAR_S + 30 * DAY_S
    assert (tmp_path / "telemetry.db").stat().st_size <= limit
    assert store.used_bytes <= limit
    oldest = store.read(names[0], 0, 0, DAY_S, now).at_s[0]
    assert now - oldest <= 2 * YEAR_S + 2 * DAY_S
    ages = store.read("device/chip/t1_us", 0, 0, 1, now)
    assert len(ages.at_s) == figures, "figures of devices are kept for ever"
    assert ages.mean[0] == ages.at_s[0]
    store.close()


def test_smaller_limit_removes_oldest_steps_first(tmp_path: Path) -> None:
    store = unforced(tmp_path / "telemetry.db", 200 * 1024)
    for at in range(BEGIN, BEGIN + 60 * DAY_S, 600):
        store.add(at, {"queue": (at / 7, ""), "oldest": (at / 3, "")})
    assert (tmp_path / "telemetry.db").stat().st_size <= 200 * 1024
    now = BEGIN + 60 * DAY_S
    series = store.read("queue", 0, 0, 600, now)
    assert series.at_s[-1] == now - 600
    assert series.at_s[0] > BEGIN + DAY_S
    store.close()


def test_figures_of_devices_are_stored_when_they_change(store: TelemetryStore) -> None:
    name = "device/chip/error_2q"
    for k in range(10):
        store.add(BEGIN + k * FIGURE_S, {name: (0.01 if k < 6 else 0.02, "")})
    store.add(BEGIN + 10 * FIGURE_S, {name: (nan, "")})
    series = store.read(name, 0, 0, 0, BEGIN + DAY_S)
    assert series.mean == [0.01, 0.02]
    assert series.at_s == [BEGIN, BEGIN + 6 * FIGURE_S]
    later = store.read(name, BEGIN + 100, BEGIN + 200, 0, BEGIN + DAY_S)
    assert (later.at_s, later.mean) == ([BEGIN + 100], [0.01]), "the one in force"
    assert store.figures() == {"chip": {"error_2q": 0.02}}


def test_answer_has_bounded_number_of_points(store: TelemetryStore) -> None:
    fill(store, BEGIN, BEGIN + 30 * DAY_S, 600)
    series = store.read("queue", BEGIN, 0, 10, BEGIN + 30 * DAY_S)
    assert 0 < len(series.at_s) <= MAX_POINTS
    assert store.read("queue", BEGIN, BEGIN - 5, 0, BEGIN + 10).at_s == []


def test_unknown_series_names_the_nearest(store: TelemetryStore) -> None:
    fill(store, BEGIN, BEGIN + 10)
    fails(NotFoundError, "no series 'queu'", store.read, "queu", 0, 0, 0, BEGIN)
    assert store.read("", 0, 0, 0, BEGIN).names == ["queue"]


def test_number_of_series_is_bounded(store: TelemetryStore) -> None:
    store.add(BEGIN, {f"s{k}": (1.0, "") for k in range(MAX_SERIES + 5)})
    assert len(store.names()) == MAX_SERIES


def test_store_of_another_format_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    path.write_bytes(b"no database at all, but long enough to be read as a header" * 20)
    fails(JournalError, "cannot be opened", TelemetryStore, path)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version=9")
    db.close()
    fails(JournalError, "it has format 9, this build reads 1", TelemetryStore, path)


@pytest.mark.parametrize(
    ("code", "hint"), [(sqlite3.SQLITE_FULL, FULL_DISK), (sqlite3.SQLITE_IOERR, FAILED_DISK)]
)
def test_store_that_cannot_be_written_names_the_remedy(
    store: TelemetryStore, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    def fail(_: int) -> None:
        error = sqlite3.OperationalError("no")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(store, "_merge", fail)
    error = fails(JournalError, "cannot be written", store.add, BEGIN, {"queue": (1.0, "")})
    assert error.hint == hint


def test_reopened_store_continues(tmp_path: Path) -> None:
    first = TelemetryStore(tmp_path / "telemetry.db")
    fill(first, BEGIN, BEGIN + 100)
    first.close()
    second = TelemetryStore(tmp_path / "telemetry.db")
    fill(second, BEGIN + 100, BEGIN + 200)
    assert len(second.read("queue", 0, 0, 0, BEGIN + 200).at_s) == 20
    second.close()
    reader = TelemetryStore(tmp_path / "telemetry.db", read_only=True)
    assert len(reader.read("queue", 0, 0, 0, BEGIN + 200).at_s) == 20
    reader.close()
