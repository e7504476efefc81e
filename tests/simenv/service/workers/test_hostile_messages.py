"""A worker that sends whatever it likes: the service goes on, others' tasks and charges are right,
and nothing outside of its folder is read, moved or removed.

`support/hostile_worker.py` is the attacker, with the credentials of a worker of one account; a
worker of another account is honest. Short in each run; `-m slow` sends 100,000 messages.
"""

import os
import shutil
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hostile_worker import HostileWorker, Targets, results_message
from memory_transport import MemoryConnection
from multi_user_harness import MultiUserHarness
from other_user import UID
from service import LIMITS

from simenv.model import RESULT_FORMAT, ResultData, TaskState
from simenv.result_files import attempt_file
from simenv.wire import codec
from simenv.wire.messages import accounting, client as m

OPTIONS: dict[str, Any] = {
    "isolation": "account",
    "pools": [{"name": "main", "min": 2, "max": 2}],
}
pytestmark = pytest.mark.skipif(
    "slots" in m.AttemptResults.__struct_fields__, reason="workers report their own slots and times"
)
MESSAGES_PER_TASK = 20
RUN_US = 1_000
SECRET = b"of somebody else"


class Site:
    """The service, its two workers, and what the attacker must not touch."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.outside = folder / "outside"
        self.outside.mkdir()
        limits = msgspec.structs.replace(LIMITS, isolates_accounts=True)
        self.bench = MultiUserHarness(folder, limits=limits, **OPTIONS)
        self.foreign = [(3, 65_537), (4, 65_537)]
        self.victims = [self.outside / "file"]
        results = folder / "results"
        self.victims += [results / attempt_file(*pair) for pair in self.foreign]
        for victim in self.victims:
            victim.parent.mkdir(exist_ok=True)
            victim.write_bytes(SECRET)
        self.targets = Targets(
            "", 0, self.bench.journal.epoch, ["service", "main-9"], list(self.foreign),
            [*map(str, self.victims), str(folder / "journal.db")], results, folder,
        )  # fmt: skip
        self.hostile = HostileWorker(seed, self.targets)
        self.workers: dict[str, tuple[int, MemoryConnection]] = {}
        self.account: dict[str, str] = {}  # of the tasks that a worker was sent
        self.owner: dict[int, str] = {}
        self.sent = 0
        self.held: list[tuple[str, int, MemoryConnection, m.AssignedTask]] = []

    def submit(self, name: str, count: int) -> None:
        peer = self.bench.ana if name == "ana" else self.bench.ben
        first = self.bench.order(peer, f"~{name}{len(self.owner)}", count)
        assert first
        self.owner |= dict.fromkeys(range(first, first + count), name)

    def step(self) -> None:
        """Let workers join that were started, and take what they are sent."""
        for name, command in list(self.bench.paper.commands.items()):
            if self.workers.get(name, (0, None))[0] != command.start:
                connection = self.bench.join(name)
                self.workers[name] = command.start, connection
        self.bench.step(1)
        for name, (start, connection) in self.workers.items():
            while (body := connection.receive(0.0)) is not None:
                message = codec.to_worker(body)
                if isinstance(message, m.AssignChunk):
                    self.held += [(name, start, connection, each) for each in message.tasks]

    def answer(self, count: int) -> None:
        """Let each worker answer what it holds, the attacker by messages of its own."""
        held, self.held = self.held, []
        for name, start, connection, assigned in held:
            if self.owner[assigned.task] == "ben":
                connection.send(honest(assigned))
                self.bench.step(1)
                continue
            at = self.targets
            at.worker, at.start, at.own = name, start, [assigned]
            at.others = [each for each in self.workers if each != name]
            at.foreign = [*self.foreign, *((each.task, each.attempt) for *_, each in held)]
            count_after_end = 2  # messages through the sockets of a process that was ended
            at.folder = at.results / "workers" / f"{name}.{start}"
            for number in range(min(MESSAGES_PER_TASK, count - self.sent)):
                command = self.bench.paper.commands.get(name)
                if command is None or command.start != start:
                    count_after_end -= 1
                    if count_after_end < 0:
                        break  # it was ended
                self.hostile.plant()
                is_answer = number == MESSAGES_PER_TASK - 1 or number % 5 == 4
                make = self.hostile.answer(assigned) if is_answer else self.hostile.message()
                connection.send(make)
                self.sent += 1
                self.bench.step(1)


def honest(assigned: m.AssignedTask) -> bytes:
    payload = codec.encode(ResultData(RESULT_FORMAT, (), 2, assigned.shots, assigned.seed))
    done = m.STATES.index(TaskState.DONE)
    result = m.AttemptResult(
        assigned.task, assigned.attempt, done, payload, zlib.crc32(payload), run_us=RUN_US
    )
    return codec.encode(results_message([result], "main"))


def numbers_in(value: Any) -> Iterator[float]:
    """All numbers of an answer."""
    if isinstance(value, dict):
        value = list(value.values())
    if hasattr(value, "__struct_fields__"):
        value = [getattr(value, name) for name in value.__struct_fields__]
    if isinstance(value, list | tuple):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, int | float):
        yield value


def attack(folder: Path, messages: int, seed: int) -> None:
    """Send so many messages, then check all that must hold."""
    site = Site(folder, seed)
    begin_s, rounds = time.monotonic(), 0
    while site.sent < messages:
        site.submit("ana", 4)
        site.submit("ben", 2)
        for _ in range(12):
            site.step()
            site.answer(messages)
        rounds += 1
        assert rounds < 100 + messages, "the attacker gets no tasks"
    for _ in range(400):  # until all of the other account has ended
        site.step()
        site.answer(messages)
        tasks = infos(site, "ben")
        if all(each.state is TaskState.DONE for each in tasks):
            break
    elapsed_s = time.monotonic() - begin_s
    assert {each.state for each in tasks} == {TaskState.DONE}
    assert site.bench.loop.monitoring.internal_errors.count == 0
    for victim in site.victims:
        assert victim.read_bytes() == SECRET, victim
        assert victim.stat().st_nlink >= 1
    assert usage(site, site.bench.ben)[0] == len(tasks)
    assert usage(site, site.bench.ana)[1] < elapsed_s * 1e6 * 2 * 1.05
    for question, kind in (
        (accounting.GetUsage(1), accounting.Usage), (accounting.GetShares(2), accounting.Shares),
        (m.GetQueue(3, limit=1_000), m.Queue), (m.GetQueue(4, done=True), m.Queue),
        (m.GetWorkers(5), m.Workers), (m.GetStatus(6), m.Status),
    ):  # fmt: skip
        found = site.bench.get(kind, question)
        assert all(abs(number) < 2**63 for number in numbers_in(found))


def infos(site: Site, name: str) -> list[Any]:
    numbers = [number for number, owner in site.owner.items() if owner == name]
    peer = site.bench.ana if name == "ana" else site.bench.ben
    found: list[Any] = []
    for at in range(0, len(numbers), 500):
        question = m.GetTasks(9, tuple(numbers[at : at + 500]))
        found += site.bench.get(m.Queue, question, peer).tasks
    return found


def usage(site: Site, peer: MemoryConnection) -> tuple[int, int]:
    """Ended tasks and slot microseconds of a user."""
    rows = site.bench.get(accounting.Usage, accounting.GetUsage(3), peer).rows
    return sum(row.tasks for row in rows), sum(row.used.slot_us for row in rows)


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_worker_harms_no_other_account(tmp_path: Path, seed: int) -> None:
    attack(tmp_path, 400, seed)


def test_hostile_worker_harms_no_other_account_without_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the test above is without root already")
    (tmp_path / "first").mkdir()
    attack(tmp_path / "first", 40, 3)  # it loads what another user may not be able to
    own = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(own, UID, UID)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            attack(own, 300, 4)
        except BaseException:  # noqa: BLE001 - the status says so
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        shutil.rmtree(own, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_hostile_worker_harms_nobody_in_100_000_messages(tmp_path: Path) -> None:
    attack(tmp_path, 100_000, 3)
