"""Devices whose calibration changes: replayed snapshots, random walks, outages."""

import asyncio
import concurrent.futures
import itertools
import queue
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import live
import msgspec
import pytest
from emulated import stored
from failing import fails
from live import environment
from qiskit import QuantumCircuit
from small_chip import CHIP, flip
from waiting import until

from noise_models import document, library, snapshot
from noise_models.calibration import T1Jumps
from noise_models.drift import JumpingT1, RandomWalk, moment_s
from noise_models.snapshot import dump
from simenv import config
from simenv.cli.app import run
from simenv.client.client import Client
from simenv.client.connection.task_handle import TaskHandle
from simenv.client.result import Result
from simenv.client.submission.send import FreshTask
from simenv.client.tasks.task import Task, as_completed
from simenv.errors import NotFoundError, OptionError, TaskFailedError
from simenv.model import TaskInfo
from simenv.model.devices import date_name
from simenv.qpm.envelopes import EventEnvelope

DAYS = 365
FACTOR = 86_400.0 * 8  # 8 days a second: a year in 45 s
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
BASE = msgspec.structs.replace(CHIP, name="dated")
YEAR = [
    msgspec.structs.replace(
        BASE,
        calibrated=(FIRST + timedelta(days=day)).isoformat(),
        qubits=(msgspec.structs.replace(BASE.qubits[0], p10=0.01 + 0.001 * day),) * 2,
        rep_delay_ns=4_000.0 + day,
    )
    for day in range(DAYS)
]
DIGESTS = [document.digest(dump(each)).hex() for each in YEAR]
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "year", "device": "dated", "drift": f"replay:factor={FACTOR}", "pace": True},
    {"name": "slow", "device": "dated", "drift": "replay:factor=129600"},
    {
        "name": "walk", "device": "dated",
        "drift": "walk:seed=7:every_s=1:spread=0.2:factor=2:outages=3600+1",
    },
    {"name": "fits", "device": "fits", "drift": "replay:factor=129600", "min": 0, "max": 1},
    {
        "name": "jumps", "device": "dated",
        "drift": "walk:seed=3:every_s=1000000:spread=0:factor=60:t1_jumps=60+60+0.1", "min": 0,
        "max": 1,
    },
    {"name": "bare", "device": "bare", "drift": "replay", "min": 0, "max": 1},
    {"name": "out", "device": "dated", "drift": "walk:every_s=1000:outages=4+2"},
]  # fmt: skip


FITS = YEAR[:3]  # of days


def in_force(device_s: float) -> int:
    """Day of the snapshot in force at a time since the first one."""
    return max(0, bisect_right([86_400.0 * day for day in range(DAYS)], device_s) - 1)


@pytest.fixture(scope="module")
def up() -> Iterator[live.Live]:
    for name in ("dated", "bare", "fits"):
        stored(name, BASE)
    for day, each in enumerate(YEAR):
        stored(f"dated.d/{day}", each)
    for each in FITS:
        stored(f"fits/{date_name(moment_s(each.calibrated))}", each)
    with live.environment(pools=POOLS, slots=2, overcommit=True) as result:
        yield result


def test_replay_of_a_year_binds_each_result_to_the_snapshot_at_its_start(env: Client) -> None:
    env.run(flip(), pool="year", shots=10)  # loads what must be loaded
    tasks, ready_s = [], time.time()
    until = time.monotonic() + 8.0
    while time.monotonic() < until:
        tasks.append(env.submit(flip(), pool="year", shots=50, compile="never"))
        time.sleep(0.02)
    entries = [task.result() for task in tasks]
    updates = [
        (event.message.split()[0], event.time_s)
        for event in env.events(kinds=["calibration-update"])
        if event.subject == "year"
    ]
    days = [DIGESTS.index(each.snapshot or "") for each in entries]
    assert days == sorted(days)
    assert len(set(days)) > 40
    # Each result names one snapshot whose time holds its begin on the device.
    begun_s = _origin_s(entries, days)
    for result, day in zip(entries, days, strict=True):
        assert in_force(FACTOR * (result.timing.begun_s - begun_s)) == day
        assert result.timing.device_s == pytest.approx(
            1e-9 * (50_000 + 50 * (4_000 + day + 40 + 1_000)), rel=1e-12
        )
    # And each change was told within a second.
    assert [digest for digest, _ in updates] == DIGESTS[1 : len(updates) + 1]
    assert len(updates) >= days[-1]
    due_s = [begun_s + day * 86_400.0 / FACTOR for day in range(1, len(updates) + 1)]
    delays_s = [s - due for (_, s), due in zip(updates, due_s, strict=True) if due > ready_s]
    assert len(delays_s) > 40
    assert min(delays_s) > -0.1
    assert max(delays_s) < 1.0


def test_replay_of_the_fits_of_days_says_whose_values_acted(env: Client) -> None:
    result = env.run(flip(), pool="fits", shots=10)
    assert result.calibrated in [each.calibrated for each in FITS]
    day = [each.calibrated for each in FITS].index(result.calibrated or "")
    assert result.snapshot == DIGESTS[day]
    for each, digest in zip(FITS, DIGESTS, strict=False):
        info, body = env.recorded_device("fits", digest)
        assert (info.calibration_id, body) == (digest, dump(each))


def test_t1_of_a_walk_jumps_as_seed_and_time_say(env: Client) -> None:
    drift = JumpingT1(RandomWalk(BASE, 3, 1e6, 0.0), 3, T1Jumps(60.0, 60.0, 0.1))
    order, step = [], drift.step(drift.origin_s)
    while drift.begin_s(step) < drift.origin_s + 60.0 * 300.0:  # five minutes of the clock
        order.append(document.digest(dump(drift.snapshot(step))).hex())
        step = drift.after(step)
    assert len(set(order)) == 4, "of two qubits that jump"
    seen: list[str] = []
    deadline = time.monotonic() + 60.0
    while len(set(seen)) < 2 and time.monotonic() < deadline:
        seen.append(env.run(flip(), pool="jumps", shots=10).snapshot or "")
    assert len(set(seen)) >= 2
    assert set(seen) <= set(order)
    events = [e for e in env.events(kinds=["noise-fluctuation"]) if e.subject == "jumps"]
    digests = [event.message.split()[0] for event in events]
    changes = [one for one, two in itertools.pairwise([*order, ""]) if one != two]
    assert digests == changes[1 : 1 + len(digests)]


def test_replay_without_a_series_is_refused_by_the_name_of_the_device(env: Client) -> None:
    with pytest.raises(OptionError, match="device 'bare' has no series to replay"):
        env.run(flip(), pool="bare", shots=10)


def _origin_s(found: list, days: list[int]) -> float:  # type: ignore[type-arg]
    """The wall clock of the begin of the replay; fails where no begin explains all results."""
    day_s = 86_400.0 / FACTOR
    pairs = [(r.timing.begun_s, day) for r, day in zip(found, days, strict=True)]
    low = max(time_s - (day + 1) * day_s for time_s, day in pairs if day < DAYS - 1)
    high = min(time_s - day * day_s for time_s, day in pairs)
    assert low <= high
    return (low + high) / 2.0


def test_walk_changes_the_noise_and_publishes_it_when_asked(env: Client) -> None:
    walk = RandomWalk(BASE, 7, 1.0, 0.2)
    table = {document.digest(dump(walk.snapshot(k))).hex(): k for k in range(400)}
    first = env.run(flip(), pool="walk", shots=50)
    time.sleep(2.5)
    second = env.run(flip(), pool="walk", shots=50)
    steps = [table[each.snapshot or ""] for each in (first, second)]
    assert steps[1] >= steps[0] + 3
    assert env.device("walk").calibration_id == document.digest(dump(BASE)).hex()
    assert env.qpm_with(pool="walk").calibrate_execution_target()["status"] == "calibrating"
    events = [e for e in env.events() if e.subject == "walk" and e.kind == "calibration-update"]
    assert table[events[-1].message.split()[0]] > steps[1] - 1
    begun_s, calibrated_s = env.calibrations("walk")
    assert begun_s < calibrated_s <= time.time()
    assert env.device("walk", begun_s).calibration_id == document.digest(dump(BASE)).hex()
    assert env.device("walk", calibrated_s).calibration_id == env.device("walk").calibration_id
    fluctuations = [e for e in env.events(kinds=["noise-fluctuation"]) if e.subject == "walk"]
    assert [table[e.message.split()[0]] for e in fluctuations] == [*range(1, len(fluctuations) + 1)]


@pytest.mark.parametrize("revision", [1, 2])
def test_device_events_reach_queues_of_hosts_within_a_second(env: Client, revision: int) -> None:
    qpm = env.qpm_with(pool="walk")
    changes, updates, others = Inbox(), Inbox(), Inbox()
    register = (qpm if revision == 2 else qpm.revision1).register_event_notification
    register(changes, "noise-fluctuation", "noise")
    register(updates, "calibration-update", "calibration")
    register(others, "outage", "outages")
    for _ in range(3):
        arrived_s, event = changes.get(timeout=5)
        assert event.evtype == event.payload["event"] == "noise-fluctuation"
        assert event.payload["target_id"] == "walk"
        assert arrived_s - 1e-9 * event.payload["timestamp_ns"] < 1.0
    assert updates.empty()
    qpm.calibrate_execution_target()
    arrived_s, event = updates.get(timeout=5)
    assert arrived_s - 1e-9 * event.payload["timestamp_ns"] < 1.0
    assert event.payload["calibration_set_id"] == env.device("walk").calibration_id
    assert others.empty()
    if revision == 1:
        qpm.revision1.shutdown()


class Inbox(queue.Queue[tuple[float, EventEnvelope]]):
    """The queue of a host, with the times at which events arrived."""

    def put(self, item: EventEnvelope) -> None:  # type: ignore[override]
        super().put((time.time(), item))


def test_stale_compilation_is_flagged_refused_or_redone(env: Client) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)  # is compiled
    circuit.measure(0, 0)
    env.device("slow")
    env.run(circuit, pool="slow", shots=20)  # the calibration of now is known for 10 s
    time.sleep(1.0)
    assert env.run(circuit, pool="slow", shots=20).calibration_stale
    assert not env.run(flip(), pool="slow", shots=20).calibration_stale
    with pytest.raises(TaskFailedError) as failed:
        env.post(circuit, pool="slow", shots=20, compile="fresh").result()
    assert failed.value.reason == "calibration_stale"
    assert not env.run(circuit, pool="slow", shots=20, compile="fresh").calibration_stale


def flipped(env: Client) -> QuantumCircuit:
    """A circuit that is compiled for a calibration of before."""
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    env.device("slow")
    time.sleep(1.0)
    return circuit


def stale(env: Client, **options: Any) -> Task:
    """A task with `compile="fresh"` whose first attempt is for a calibration of before."""
    options |= {"pool": "slow", "shots": 200, "seed": 5, "compile": "fresh"}
    return env.submit(flipped(env), **options)


def attempts(env: Client, name: str) -> list[TaskInfo]:
    """The tasks of this name that have ended, newest first."""
    return [each for each in env.queue(done=True, limit=20)[1] if each.name == name]


def test_stale_task_is_submitted_again_for_whoever_waits_in_whatever_way(env: Client) -> None:
    task = stale(env, name="again")
    result = task.result(timeout_s=30)
    assert not result.calibration_stale
    assert (result.seed, result.timing.total_s > 0.0) == (5, True)
    states = [each.state for each in attempts(env, "again")]
    assert (states[0], states[-1]) == ("DONE", "FAILED")
    assert (task.id, task.state) == (result.task, "DONE")
    (yielded,) = as_completed([stale(env)], timeout_s=30)
    assert not yielded.result(0.0).calibration_stale
    (waited,) = concurrent.futures.wait([stale(env)], timeout=30).done
    assert not waited.result().calibration_stale
    assert stale(env).wait(timeout_s=30) == "DONE"
    assert stale(env).exception(timeout_s=30) is None

    async def awaited() -> Result:
        return await stale(env)

    assert not asyncio.run(awaited()).calibration_stale
    called: queue.Queue[Task] = queue.Queue()
    stale(env).add_done_callback(called.put)
    assert not called.get(timeout=30).result(0.0).calibration_stale


def test_stale_task_is_submitted_again_though_nobody_waits(env: Client) -> None:
    task = stale(env, name="alone")
    until(lambda: "DONE" in [each.state for each in attempts(env, "alone")])
    assert task.done()


def test_attempts_of_a_task_with_a_key_have_keys_of_their_own(env: Client) -> None:
    assert not stale(env, idempotency_key="fresh-key").result(timeout_s=30).calibration_stale


def test_attempt_that_is_refused_is_the_end_of_the_task(env: Client) -> None:
    class Refusing:
        calls = 0

        def __call__(self, _: object) -> TaskHandle:
            self.calls += 1
            raise OptionError("refused")

    again = Refusing()
    task = FreshTask(env.post(flipped(env), pool="slow", shots=20, compile="fresh").handle, again)
    fails(OptionError, "refused", task.result, timeout_s=30)
    assert isinstance(task.exception(), OptionError)
    assert again.calls == 1


def test_device_starts_nothing_in_an_outage(env: Client) -> None:
    events = [e for e in env.events(kinds=["outage"]) if e.subject == "out"]
    while not any(e.message.startswith("begins") for e in events):
        time.sleep(0.05)
        events = [e for e in env.events(kinds=["outage"]) if e.subject == "out"]
    began_s = next(e.time_s for e in events if e.message.startswith("begins"))
    env.run(flip(), pool="out", shots=10)
    assert time.time() >= began_s + 1.9


def test_task_that_an_outage_interrupts_is_run_again_after_it() -> None:
    path = stored("brief", CHIP)
    begins = (4, 12, 20)  # the first one at which the environment is ready
    drift = "walk:every_s=1000:outages=" + "/".join(f"{begin}+0.5" for begin in begins)
    pools = [{"name": "brief", "device": "brief", "drift": drift, "pace": True, "min": 1, "max": 1}]
    length_s = 1e-9 * (50_000 + 300_000 * 5_040)
    with live.environment(pools=pools) as up, up.client() as client:
        tasks = [client.submit(flip(), pool="brief", shots=300_000, seed=k) for k in range(16)]
        while not (events := list(client.events(kinds=["task.requeued"]))):
            time.sleep(0.05)
        (event,) = events
        (task,) = [each for each in tasks if each.id == event.subject]
        assert event.message == "attempt 2 (outage of device brief)"
        result = task.result(timeout_s=30)
        client.cancel(tasks)
        assert result.attempts == 2
        # The event may come late on a busy machine; without the outage it would begin at once.
        assert result.timing.begun_s >= event.time_s + 0.3
        assert result.timing.device_s == pytest.approx(length_s)
        before = [t.result().timing for t in tasks[: tasks.index(task)]]
        assert all(each.begun_s + each.device_s <= event.time_s + 0.1 for each in before)
    path.unlink()


def test_noise_model_of_ones_own_is_refused_where_the_device_drifts(env: Client) -> None:
    fails(OptionError, "drifts", env.run, flip(), pool="walk", noise=dump(CHIP))


def test_restart_of_the_service_does_not_begin_the_replay_anew(up: live.Live) -> None:
    with up.client() as client:
        before = DIGESTS.index(client.run(flip(), pool="slow", shots=10).snapshot or "")
        up.crash()
        up.up()
        after = DIGESTS.index(client.run(flip(), pool="slow", shots=10).snapshot or "")
    assert after > before > 0


PATIENCE_S = 60.0


BELL = """OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; sx q[0]; cx q[0], q[1];
measure q -> c;"""


def write(path: Path, t1_us: float, calibrated: str) -> None:
    base = library.load("superconducting-lattice")
    qubits = msgspec.structs.replace(base.qubits[0], t1_us=t1_us), *base.qubits[1:]
    changed = msgspec.structs.replace(base, qubits=qubits, calibrated=calibrated)
    path.write_bytes(snapshot.dump(changed))


def test_next_task_uses_the_new_data_and_a_failure_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.json"
    write(data, 50.0, "2026-01-01T00:00:00Z")
    command = f"{sys.executable} -I -c 'import sys; print(open(sys.argv[1]).read())' {data}"
    pool = {"name": "emu", "min": 1, "max": 1, "device": "nightly"}
    settings = {"nightly": {"refresh": command, "every_h": 12.0}}
    with environment(pools=[pool], devices=settings) as live, live.client() as client:
        folder = config.devices_folder()
        until((folder / "nightly.json").exists, PATIENCE_S)
        until(lambda: client.device("nightly").qubits[0].t1_us == 50.0, PATIENCE_S)
        first = client.run(BELL, pool="emu", shots=10).snapshot
        until(lambda: "device.refreshed" in [each.kind for each in client.events()], PATIENCE_S)

        write(data, 60.0, "2026-01-02T00:00:00Z")
        assert run(["devices", "refresh", "nightly", "--name", live.name]) == 0
        assert "changed nightly: " in capsys.readouterr().out
        second = client.run(BELL, pool="emu", shots=10).snapshot
        assert second != first
        assert client.device("nightly").qubits[0].t1_us == 60.0
        assert first is not None
        old, document = client.recorded_device("emu", first)
        assert (old.calibration_id, old.qubits[0].t1_us) == (first, 50.0)
        assert client.run(BELL, pool="emu", shots=10, noise=document).snapshot == first
        fails(NotFoundError, "no stored calibration", client.recorded_device, "nightly", "0" * 64)

        data.write_text("the lab is closed")
        assert run(["devices", "refresh", "nightly", "--name", live.name]) == 2
        assert "device nightly is kept" in capsys.readouterr().err

        def warned() -> bool:
            return any("device nightly: its calib" in each for each in client.status().warnings)

        until(warned, PATIENCE_S)
        assert client.run(BELL, pool="emu", shots=10).snapshot == second
        live.crash()
        live.up()
        with live.client() as again:
            until(lambda: any("nightly" in each for each in again.status().warnings), PATIENCE_S)
            assert again.run(BELL, pool="emu", shots=10).snapshot == second
    assert len(list((folder / "nightly.d").glob("*.json"))) == 2
