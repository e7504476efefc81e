"""A worker that is not believed: it speaks for itself alone, its figures have bounds, and whatever
it sends, its tasks end or run again by rule."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest
from memory_transport import MemoryConnection
from service import ServiceHarness, completions, spec

from simenv.model import TaskState
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.service.journal import tables
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.accounting import GetUsage, Usage
from simenv.wire.messages.queries import DeviceDescribed
from simenv.wire.transport.sockets import PeerKind

QPU = {"name": "qpu", "engine": "hardware", "provider": "lab:one"}
OPTIONS = {
    "pools": [{"name": "main", "min": 2, "max": 2}, QPU], "import_from": ("/here", "/lib"),
}  # fmt: skip
DEVICE = DeviceInfo("x", DeviceKind.HARDWARE, "lab", "fridge", "1", "", 2, 1000, (), False)
M = 2**63 - 1


def beat(bench: ServiceHarness, name: str, **fields: int) -> m.Heartbeat:
    start = bench.paper.commands[name].start
    return m.Heartbeat(name, bench.journal.epoch, 0, 0, 1, start, **fields)


def control_of(bench: ServiceHarness, name: str) -> MemoryConnection:
    """The control connection of a worker, which has sent a heartbeat."""
    start = bench.paper.commands[name].start
    control = bench.listener.connect(PeerKind.WORKER, f"{name}.{start}!".encode())
    control.send(codec.encode(beat(bench, name)))
    bench.step()
    return control


def say(bench: ServiceHarness, peer: MemoryConnection, message: object) -> None:
    peer.send(message if isinstance(message, bytes) else codec.encode(message))
    bench.step()


def describes(bench: ServiceHarness, name: str) -> DeviceDescribed:
    start = bench.paper.commands[name].start
    return DeviceDescribed(name, bench.journal.epoch, start, DEVICE)


def distrusted(bench: ServiceHarness) -> list[str]:
    return [event.subject for event in bench.events("worker.distrusted")]


@pytest.mark.parametrize(
    "figures",
    [{"run_us": M}, {"device_ns": M}, {"compile_us": -1}, {"file_bytes": M}, {"checksum": M}],
)
def test_task_of_a_refused_answer_is_never_lost(
    bench: ServiceHarness, figures: dict[str, Any]
) -> None:
    """It runs again, alone, and the third time it ends; it is in the list all the time."""
    bench.submit(spec())
    for attempt in range(3):
        name = next(iter(sorted(bench.paper.commands)))
        work = bench.join(name)
        (task,) = bench.assigned()
        say(bench, work, m.Started(task.task, task.attempt))
        bad = m.AttemptResult(task.task, task.attempt, 2, b"r", zlib.crc32(b"r"))
        say(bench, work, m.AttemptResults([msgspec.structs.replace(bad, **figures)]))
        assert len(distrusted(bench)) == attempt + 1
        listed = bench.get(m.Queue, m.GetTasks(1, [task.task])).tasks
        assert len(listed) == 1, "it is in the list"
        bench.loop.scheduler.tick(bench.loop.monitoring.pass_times.wait_ends() + 10**11)
        bench.step()
    (ended,) = completions(bench.heard()) or completions(bench.say(m.WatchResults(9, [1])))
    failure = codec.failure(ended.payload)
    assert (m.STATES[ended.state], failure.reason) == (TaskState.FAILED, "poison")
    assert "a message of it was refused" in failure.message
    assert ended.used is not None
    assert ended.units < 10.0


@pytest.mark.parametrize("body", [b"", b"\xc1" * 50, b"\x91" * 500_000, b"\x96\x02" + b"x" * 99])
def test_worker_that_sends_no_message_is_ended(bench: ServiceHarness, body: bytes) -> None:
    work = bench.join("main-0")
    say(bench, work, body)
    assert distrusted(bench) == ["main-0"]
    assert "main-0" not in bench.state.cluster.workers


@pytest.mark.parametrize("stream", ["work", "control"])
@pytest.mark.parametrize("message", ["beat", "join", "described", "started", "results"])
def test_worker_speaks_for_itself_alone(bench: ServiceHarness, stream: str, message: str) -> None:
    """Neither connection of main-0 can be used to speak for main-1, nor one for the other."""
    work = bench.join("main-0")
    peer = {"work": work, "control": control_of(bench, "main-0")}[stream]
    bench.join("main-1")
    start = bench.paper.commands["main-1"].start
    forged: dict[str, object] = {
        "beat": beat(bench, "main-1"),
        "join": m.Join("test", "main-1", 1, "here", bench.journal.epoch, (), start),
        "described": describes(bench, "qpu-0"),
        "started": m.Started(1, 65_537),
        "results": m.AttemptResults([m.AttemptResult(1, 65_537, 2, b"r", 0)]),
    }
    say(bench, peer, forged[message])
    is_own = stream == "work" and message in ("started", "results")  # of no task that it holds
    assert distrusted(bench) == ([] if is_own else ["main-0"])
    assert "main-1" in bench.state.cluster.workers
    assert bench.loop.devices.infos == ()


def test_simulator_describes_no_machine(bench: ServiceHarness) -> None:
    work = bench.join("main-0")
    say(bench, work, describes(bench, "main-0"))
    assert distrusted(bench) == ["main-0"]


def test_machine_is_described_by_its_own_worker(bench: ServiceHarness) -> None:
    start = bench.paper.commands["qpu-0"].start
    peer = bench.listener.connect(PeerKind.WORKER, f"qpu-0.{start}".encode())
    say(bench, peer, describes(bench, "qpu-0"))
    assert [each.model for each in bench.loop.devices.infos] == ["fridge"]
    intruder = bench.listener.connect(PeerKind.WORKER, b"other")
    changed = msgspec.structs.replace(DEVICE, model="FORGED")
    say(bench, intruder, msgspec.structs.replace(describes(bench, "qpu-0"), device=changed))
    assert [each.model for each in bench.loop.devices.infos] == ["fridge"]


def test_result_names_the_recorded_engine_and_worker(ready: ServiceHarness) -> None:
    ready.submit(spec())
    answers = ready.finish(ready.assigned())
    (completed,) = [each for each in answers if isinstance(each, m.Completed)]
    assert (completed.origin.worker, completed.origin.node) == ("main-0", "here")
    assert completed.engine == "statevector"
    assert completed.results[0].slots >= 1


def test_bad_stored_sum_is_clamped_when_it_is_read(ready: ServiceHarness) -> None:
    ready.submit(spec())
    ready.finish(ready.assigned())
    ready.change("update usage set slot_us = 9e99, units = 8.5e31, wait_us = 9223372036854775807")
    report = ready.get(Usage, GetUsage(1, ("account",)))
    assert report.rows[0].used.slot_us == tables.MAX_SUM
    assert report.rows[0].wait_us <= tables.MAX_SUM
    assert 0.0 < report.rows[0].units <= tables.MAX_UNITS


def test_sums_that_are_added_have_bounds() -> None:
    sums = [float("nan"), 10**30, -(10**30), *([1] * (len(tables.SUMS) - 3)), 8.5e31]
    bounded = tables.bounded_sums(sums)
    assert bounded[:3] == [0, tables.MAX_SUM, -tables.MAX_SUM]
    assert bounded[-1] == tables.MAX_UNITS
