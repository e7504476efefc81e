"""Devices that take the time of their machine, and devices that drift.

Pace: thousands of tasks of 1 to 5 ms of device time run on a paced device of two qubits. Their
intervals are compared with one another and with overhead + shots (reset + schedule).

Drift: a year of daily snapshots is replayed, three a second, on a paced device while tasks are
submitted steadily. Each result must name the snapshot in force at its begin. Each change is timed
from its due time to its arrival in Python (`client.events`, queried every 20 ms) and in the event
queue of a QPM.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import simenv
from bench.circuits import measured
from bench.harness import Option, Report, probed
from bench.harness.environments import home
from noise_models import document
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from noise_models.snapshot import dump
from simenv import config
from simenv.client.client import Client
from simenv.client.result import Result

GATE_NS, READOUT_NS, RESET_NS, OVERHEAD_NS = 40.0, 1_000.0, 4_000.0, 50_000.0
QUBIT = QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.01, p10=0.02, readout_ns=READOUT_NS)
CHIP = CalibrationSnapshot(
    name="chip",
    num_qubits=2,
    native_gates=(NativeGate("x", 1), NativeGate("rz", 1, 1)),
    all_to_all=True,
    qubits=(QUBIT, QUBIT),
    gates=(GateCalibration("x", (), 0.001, GATE_NS),),
    rep_delay_ns=RESET_NS,
    overhead_ns=OVERHEAD_NS,
)
FLIP = measured(1, [("x", (0,), ())])
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
DAY_S, DAYS_PER_S = 86_400.0, 3.0
CLOCK_S = 1e-6  # resolution of a wall clock as a double
GROUPS = 50  # groups of tasks with equal shots
PAUSE_S = 0.02  # between two tasks of the replay, and two queries for events
SHOTS = 200  # shots of a task of the replay
LEAD_S = 20.0  # until the second snapshot is in force; the environment starts meanwhile
OPTIONS = (
    Option("--tasks", default=5_000, quick=500, help="on the paced device"),
    Option("--days", default=365, quick=40, help="snapshots that are replayed"),
)

Array = NDArray[np.float64]


def run(options: Namespace) -> Report:
    title = f"{options.tasks:,} tasks on a paced device; replay of {options.days} snapshots"
    report = Report("paced_device", title)
    with home():
        folder = config.devices_folder()
        folder.mkdir(parents=True)
        (folder / "chip.json").write_bytes(dump(CHIP))
        _pace(report, options.tasks)
        _drift(report, _year(folder, options.days))
    return report


def _length_s(shots: Any, reset_ns: Any = RESET_NS) -> Any:
    """Return the seconds of device time of tasks."""
    return 1e-9 * (OVERHEAD_NS + shots * (reset_ns + GATE_NS + READOUT_NS))


def _intervals(results: list[Result]) -> tuple[Array, Array]:
    """Return begins by wall clock, and durations, both in seconds."""
    begun = np.array([result.timing.begun_s for result in results])
    return begun, np.array([result.timing.device_s for result in results])


def _pace(report: Report, tasks: int) -> None:
    pools = [{"name": "lab", "device": "chip", "pace": True, "min": 2, "max": 2}]
    shots = np.random.default_rng(1).integers(190, 980, GROUPS).tolist()
    with simenv.local(pools=pools) as client:
        client.run(FLIP, pool="lab", shots=1)
        groups = [
            client.submit_many([FLIP] * (tasks // GROUPS), pool="lab", shots=n) for n in shots
        ]
        results = [task.result() for group in groups for task in group]
    begun, length = _intervals(results)
    expected = _length_s(np.array([result.shots for result in results]))
    order = np.argsort(begun)
    gaps = begun[order][1:] - (begun + length)[order][:-1]
    span_s = float((begun + length).max() - begun.min())
    print(f"device time {length.sum():.1f} s of {span_s:.1f} s\n")
    overlaps = int((gaps < -CLOCK_S).sum())
    report.at_most("overlaps", overlaps, f"overlaps of {len(results):,} tasks")
    error = float(np.abs(length / expected - 1.0).max())
    report.at_most("time_error", error, "device time less the schedule's, relative, worst")
    report.at_least("busy_share", float(length.sum()) / span_s, "share of time the device runs")


def _year(folder: Path, days: int) -> list[CalibrationSnapshot]:
    """Write and return snapshots of successive days, which differ in readout and reset. The first
    one is dated earlier, so that it is in force until the environment is ready."""
    (folder / "dated.json").write_bytes(dump(msgspec.structs.replace(CHIP, name="dated")))
    (folder / "dated.d").mkdir()
    results = []
    for day in range(days):
        qubit = msgspec.structs.replace(QUBIT, p10=0.01 + 0.001 * day)
        date = FIRST + timedelta(days=day if day else -LEAD_S * DAYS_PER_S)
        snapshot = msgspec.structs.replace(
            CHIP,
            name="dated",
            calibrated=date.isoformat(),
            qubits=(qubit, qubit),
            rep_delay_ns=RESET_NS + day,
        )
        (folder / "dated.d" / f"{day}.json").write_bytes(dump(snapshot))
        results.append(snapshot)
    return results


def _drift(report: Report, year: list[CalibrationSnapshot]) -> None:
    digests = {document.digest(dump(each)).hex(): day for day, each in enumerate(year)}
    drift = f"replay:factor={DAY_S * DAYS_PER_S}"
    pool = {"name": "year", "device": "dated", "drift": drift, "pace": True, "min": 2, "max": 2}
    with simenv.local(pools=[pool]) as client:
        client.run(FLIP, pool="year", shots=1)
        arrivals: list[tuple[str, float]] = []
        with probed({"events": _listener(client, arrivals)}, PAUSE_S):
            qpm, own = _Inbox(), client.qpm_with(pool="year")
            own.register_event_notification(qpm, "calibration-update", "year")
            listened_s = time.time()
            posted = []
            until = time.monotonic() + LEAD_S + len(year) / DAYS_PER_S
            while time.monotonic() < until:
                posted.append(client.post(FLIP, pool="year", shots=SHOTS, compile="never"))
                time.sleep(PAUSE_S)
            results = [task.result() for task in posted]
    days = np.array([digests[result.snapshot or ""] for result in results])
    begun, length = _intervals(results)
    origin_s = _origin_s(begun, days, len(year))
    due = np.clip(np.floor((begun - origin_s) * DAYS_PER_S), 0, len(year) - 1)
    expected = _length_s(SHOTS, RESET_NS + days)
    wrong = int((due != days).sum() + (np.abs(length / expected - 1.0) > 1e-9).sum())
    count = len(set(days.tolist()))
    print(f"{len(results):,} tasks, {count} snapshots seen\n")
    label = "results that name another snapshot than that in force"
    report.at_most("wrong_snapshots", wrong, label)
    report.at_least("seen_share", count / len(year), "share of the snapshots that results name")
    for key, times in (("python", arrivals), ("qpm", qpm)):
        dues = [(origin_s + digests[digest] / DAYS_PER_S, arrived_s) for digest, arrived_s in times]
        late_ms = [1e3 * (arrived_s - due_s) for due_s, arrived_s in dues if due_s > listened_s]
        label = f"{len(late_ms)} events, due time to {key}, p99, ms"
        report.at_most(f"{key}_event_ms", float(np.percentile(late_ms, 99)), label)


def _origin_s(begun: Array, days: Array, count: int) -> float:
    """Return the wall clock at the begin of the first day. Each result is within its day for this
    value; if no value explains all results, one that explains most is returned."""
    inner = (days > 0) & (days < count - 1)
    begins, ends = (begun - days / DAYS_PER_S)[inner], (begun - (days + 1) / DAYS_PER_S)[inner]
    if ends.max() <= begins.min():
        return float(begins.min() + ends.max()) / 2.0
    return float(np.percentile(begins, 1) + np.percentile(ends, 99)) / 2.0


class _Inbox(list[tuple[str, float]]):
    """The event queue of a host: digest and wall clock of each event."""

    def put(self, event: Any) -> None:
        self.append((event.payload["calibration_set_id"], time.time()))


def _listener(client: Client, arrivals: list[tuple[str, float]]) -> Callable[[], None]:
    """Return a call that asks for new events and adds digest and arrival of each."""
    since = 0

    def call() -> None:
        nonlocal since
        for event in client.events(since, kinds=["calibration-update"]):
            arrivals.append((event.message.split()[0], time.time()))
            since = event.seq

    return call
