"""A real service loop over in-memory doors; the test plays clients and workers, step by step."""

import os
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from memory_transport import MemoryConnection, MemoryListener
from scheduler_invariants import check

from launcher.base import Command, Exit, LauncherEvent, LaunchError
from simenv.config import Config, EnvironmentPaths, convert
from simenv.model import (
    RESULT_FORMAT,
    Event,
    Origin,
    Program,
    ResultData,
    ResultFile,
    TaskOptions,
    TaskSpec,
    TaskState,
)
from simenv.result_files import attempt_file
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.scheduler import Scheduler
from simenv.service import fault_injection
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.accounting.groups import GroupMembers
from simenv.service.admission.controller import AdmissionController
from simenv.service.admission.submissions import ALONE_HOLD_S, SubmitQueue
from simenv.service.control.accepted_keys import KeyCommands
from simenv.service.control.results import ResultRequests
from simenv.service.event_loop import EventLoop
from simenv.service.job_thread import JobThread, outcome_of
from simenv.service.journal.checkpoints import WalCheckpointer
from simenv.service.journal.database import PostgresPlace
from simenv.service.journal.writer import Journal
from simenv.service.ownership import ConnectionFileLease
from simenv.service.queries.devices import DeviceRecords, routing_snapshot
from simenv.service.recovery.repair import drop_damaged_records
from simenv.service.recovery.replay import replay
from simenv.service.recovery.scrub import scrub
from simenv.service.results.completions import Completions
from simenv.service.service import JournalMaintenance, RuntimeFacts
from simenv.service.workers.processes import WorkerProcesses
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import CollectGarbage, GarbageCollected
from simenv.wire.transport.sockets import PeerKind
from simulators.catalog import SMALL_QUBITS

A = TypeVar("A")
RESULT = codec.encode(ResultData(RESULT_FORMAT, (("c", 2),), 2, 100, 1))
FAILURE = codec.encode(m.Failure("engine", "it failed"))
NODE = "here"
LIMITS = ClusterLimits(2, 2**30, 1000, 2**24, 10 * 10**9, 60 * 10**9)


def program(num_qubits: int = 2, angle: float = 0.5) -> Program:
    """ry on each qubit, measured; of many qubits each bit depends on others, by a chain of cx."""
    array = np.arange(num_qubits, dtype=np.uint16)
    chain = array.repeat(2)[1:-1] if num_qubits > SMALL_QUBITS else array[:0]
    counts = [num_qubits, chain.size // 2, num_qubits]
    return Program(
        1, num_qubits, num_qubits, (("c", num_qubits),),
        ("ry", "measure", "cx")[: 2 + bool(chain.size)],
        np.array([[1, 0, 1], [1, 1, 0], [2, 0, 0]][: 2 + bool(chain.size)], np.uint16).tobytes(),
        np.repeat(np.array([0, 2, 1], np.uint16), counts).tobytes(),
        np.concatenate([array, chain, array]).tobytes(), array.tobytes(),
        np.full(num_qubits, angle).tobytes(),
    )  # fmt: skip


def result_of(size_bytes: int, file: ResultFile | None = None) -> bytes:
    """A packed result of so many bytes, in the value of a call."""
    data = msgspec.structs.replace(codec.result_data(RESULT), file=file)
    size = size_bytes
    while len(body := codec.encode(msgspec.structs.replace(data, value=bytes(size)))) > size_bytes:
        size -= len(body) - size_bytes
    return body


def filed(root: Path, task: m.AssignedTask, size_bytes: int) -> m.AttemptResult:
    """The result of a task with a file of so many bytes, which is written."""
    name = attempt_file(task.task, task.attempt)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size_bytes))
    payload = result_of(2_000, ResultFile(name, size_bytes, 0, ()))
    crc = zlib.crc32(payload)
    return m.AttemptResult(task.task, task.attempt, 2, payload, crc, name, size_bytes)


def completions(answers: list[m.ToClient]) -> list[m.Completion]:
    return [each for item in answers if isinstance(item, m.Completed) for each in item.results]


def spec(seed: int = 1, **changes: object) -> TaskSpec:
    fields: dict[str, object] = {"program": program().packed(), "shots": 100, "seed": seed}
    fields.update(changes)
    return TaskSpec(**fields)  # type: ignore[arg-type]


class InlineJobs(JobThread):
    """Jobs without a thread: each has run when `run` returns."""

    def run(self, job: Callable[[], A], then: Callable[[A | Exception], None] | None) -> None:
        if then is None:
            job()
        else:
            then(outcome_of(job))


class RecordingLauncher:
    """A launcher that starts nothing: the test reports the start and the end of workers."""

    name, description, max_ranks, exposure = "paper", "nothing is started", 8, ""

    def __init__(self) -> None:
        self.commands: dict[str, Command] = {}
        self.gone: list[Exit] = []
        self.said: list[LauncherEvent] = []
        self.fails = ""  # why nothing can be started
        self.told: list[str] = []  # who was asked to end
        self.stubborn = False  # who is asked to end does not
        self.sought: set[str] = set()  # nodes that count as lost

    def start(self, command: Command) -> int:
        if self.fails:
            raise LaunchError(self.fails)
        self.commands[command.name] = command
        return 0

    def poll_events(self) -> list[LauncherEvent]:
        value, self.said = self.said, []
        return value

    def recheck_node(self, node: str) -> bool:
        return node in self.sought

    def poll_exits(self) -> list[Exit]:
        ends, self.gone = self.gone, []
        return ends

    def kill(self, name: str) -> None:
        self.gone.append(Exit(name, 0, -9, "signal 9 (SIGKILL)", self.commands.pop(name).start))

    def terminate(self, name: str) -> None:
        self.told.append(name)
        if not self.stubborn:
            self.kill(name)

    def running(self) -> list[str]:
        return list(self.commands)

    def close(self) -> None:
        self.commands.clear()


class ServiceHarness:
    """A service under test, in this process. `restart` stands for a crash and `up --restore`."""

    def __init__(
        self, folder: Path, limits: ClusterLimits = LIMITS,
        place: PostgresPlace | Path | None = None, **options: object,
    ) -> None:  # fmt: skip
        """`place`: of the journal; by default a file."""
        pools = [{"name": "main", "min": 1, "max": 1}]
        if "owner_limits" in options:  # the table [limits], whose name is taken here
            options["limits"] = options.pop("owner_limits")
        self.config: Config = convert({"pools": pools, **options})
        self.folder = folder
        self.limits = limits
        self.spent: dict[str, float] = {}  # billing units of this month, by account
        self.place = place
        self.members: dict[str, set[str]] = {}  # of groups of the operating system
        self._assemble()

    def _assemble(self) -> None:
        config = self.config
        places = EnvironmentPaths(self.folder, self.folder)
        for folder in (places.logs, places.results):
            folder.mkdir(exist_ok=True)
        fault_injection.install(config.faults)
        self.paper = RecordingLauncher()
        self.groups = GroupMembers(self.look_up)
        self.listener = MemoryListener()
        self.key_commands = KeyCommands(places.keys, self.listener)
        self.place = self.place or places.journal
        self.journal = Journal(self.place, config.durability, places.mark)
        self.mended = drop_damaged_records(self.journal)
        self.scrubbed = scrub(self.journal)
        self.scheduler = Scheduler(
            config.pools, self.limits, self.journal.epoch, self.journal.records.next_task()
        )
        self.state = self.scheduler.state
        devices = DeviceRecords(config.pools)
        admission = AdmissionController(
            config.pools, self.state, partial(routing_snapshot, self.state, devices)
        )
        completions = Completions(self.journal, Origin("service", NODE, os.getpid(), "test"))
        self.accounts = AccountRegistry(config, self.scheduler, self.journal, members=self.groups)
        submit_queue = SubmitQueue(
            self.scheduler, self.journal, admission, completions, self.accounts
        )
        self.replayed = replay(self.journal, self.scheduler, submit_queue, completions)
        folders = places, places.results, self.folder
        processes = WorkerProcesses(self.paper, config, *folders, {}, jobs=InlineJobs)
        self.loop = EventLoop(
            config, self.listener, self.journal, self.scheduler, submit_queue, completions,
            processes, JournalMaintenance(WalCheckpointer(places.journal)), self.key_commands,
            ResultRequests(
                *(config, self.journal, self.scheduler, completions, places.results), self.accounts,
            ),
            ConnectionFileLease(places.connection),
            RuntimeFacts(NODE, self.journal.records.finished.counts()), devices,
        )  # fmt: skip
        of_month = self.loop.accounting.usage.month_units
        self.accounts.budgets.spent_units = lambda name: self.spent.get(name, 0.0) + of_month(name)
        self.loop.commands.pools.restore()
        say = partial(self.listener.send, PeerKind.CLIENT)
        self.loop.result_requests.listen(self.loop.executor.record_event, say)
        self.peer = self.listener.connect(PeerKind.CLIENT, b"client")
        self.work: MemoryConnection | None = None
        self.step()

    def look_up(self, names: Iterable[str]) -> dict[str, frozenset[str] | None]:
        """What the operating system says about groups."""
        return {
            name: frozenset(self.members[name]) if name in self.members else None for name in names
        }

    def restart(self) -> None:
        """A crash (nothing is closed), and a new start over the same files."""
        if isinstance(self.place, PostgresPlace):
            self.journal.database.abandon()
        self._assemble()

    def change(self, query: str, *values: object) -> None:
        """Change a row of the journal, which nobody told the service."""
        self.journal._db.execute(query, values)

    def look_up_groups(self) -> None:
        """Let the next lookup be due, and take its answer over."""
        self.groups._next_ns = self.loop._next_tick_ns = 0
        self.step()
        if self.groups._thread is not None:
            self.groups._thread.join(30.0)
        self.loop._next_tick_ns = 0
        self.step()

    def read_only(self, on: bool) -> None:
        """Let each commit fail until it is off."""
        if isinstance(self.place, PostgresPlace):
            mode = "only" if on else "write"
            self.change(f"set session characteristics as transaction read {mode}")
        else:
            self.change(f"pragma query_only={'on' if on else 'off'}")

    def step(self, passes: int = 2) -> None:
        """Run passes, and one at least after what the loop waited for: it may start a worker."""
        while (waits := self._waits()) or passes > 0:
            self.loop._next_tick_ns = 0
            self.loop.run_once(timeout_s=0.0)
            check(self.state)
            passes = max(passes - 1, int(waits))

    def _waits(self) -> bool:
        """Return whether the loop waits for a check, an answer or a forecast."""
        submit_queue, query_queue = self.loop.submit_queue, self.loop.query_queue
        return bool(
            (submit_queue.admission and submit_queue._waiting)
            or query_queue.busy
            or query_queue.parked
            or self.loop.commands.reservations.deferred
            or 0.0 < self.loop._accept_answers.hold_s <= ALONE_HOLD_S  # it ends by itself
        )

    # --- as a client ---------------------------------------------------------------------------

    def say(self, message: object, peer: MemoryConnection | None = None) -> list[m.ToClient]:
        """Send, let the service work, and return what it answered."""
        connection = peer or self.peer
        connection.send(codec.encode(message))
        self.step()
        return self.heard(connection)

    def get(self, kind: type[A], question: object, peer: MemoryConnection | None = None) -> A:
        """The one answer of that kind."""
        (answer,) = (each for each in self.say(question, peer) if isinstance(each, kind))
        return answer

    def refusal(self, question: object, peer: MemoryConnection | None = None) -> m.Refusal:
        return self.get(m.Refused, question, peer).refusals[0]

    def refused(
        self, *specs: TaskSpec, key: str = "~k", terms: TaskOptions | None = None
    ) -> m.Refusal:
        """The first refusal of a Submit."""
        answer = self.submit(*specs, key=key, terms=terms)
        assert isinstance(answer, m.Refused), answer
        return answer.refusals[0]

    def collected(self, older_s: float = -1.0, *, dry: bool = False) -> GarbageCollected:
        """The answer to a request to remove old results, in which a thread has a part."""
        self.peer.send(codec.encode(CollectGarbage(7, older_s, dry)))
        for _ in range(5_000):
            self.loop.run_once(timeout_s=0.002)
            for answer in self.heard():
                if isinstance(answer, GarbageCollected):
                    return answer
                assert not isinstance(answer, m.Refused), answer
        raise AssertionError("no answer")

    def heard(self, peer: MemoryConnection | None = None) -> list[m.ToClient]:
        connection = peer or self.peer
        answers = []
        while (body := connection.receive(0.0)) is not None:
            answers.append(codec.to_client(body))
        return answers

    def submit(
        self,
        *specs: TaskSpec,
        key: str = "~k",
        offset: int = 0,
        terms: TaskOptions | None = None,
        peer: MemoryConnection | None = None,
    ) -> m.Accepted | m.Refused:
        """The answer to a Submit (completions that come with it are left out)."""
        message = m.Submit(5, key, offset, terms or TaskOptions(), list(specs or (spec(),)))
        answers = self.say(message, peer)
        return next(a for a in answers if isinstance(a, m.Accepted | m.Refused))

    def events(self, *kinds: str, peer: MemoryConnection | None = None) -> list[Event]:
        """What a client is shown of the events; only of kinds that begin so."""
        found = self.get(m.Events, m.GetEvents(1), peer).events
        return [each for each in found if each.kind.startswith(kinds or "")]

    # --- as a worker ---------------------------------------------------------------------------

    def join(self, name: str = "main-0", epoch: int | None = None) -> MemoryConnection:
        start = self.paper.commands[name].start
        self.work = self.listener.connect(PeerKind.WORKER, f"{name}.{start}".encode())
        number = self.journal.epoch if epoch is None else epoch
        self.work.send(codec.encode(m.Join("test", name, 1, NODE, number, (), start)))
        self.step()
        return self.work

    def assigned(self) -> list[m.AssignedTask]:
        """Every task sent to the worker since the last call."""
        assert self.work is not None
        tasks: list[m.AssignedTask] = []
        while (body := self.work.receive(0.0)) is not None:
            message = codec.to_worker(body)
            if isinstance(message, m.AssignChunk):
                tasks += message.tasks
        return tasks

    def finish(
        self, tasks: list[m.AssignedTask], state: TaskState = TaskState.DONE, payload: bytes = b"",
        file: str = "",
    ) -> list[m.ToClient]:  # fmt: skip
        """Answer them all; returns what the first client hears."""
        index = m.STATES.index(state)
        payload = payload or (RESULT if state is TaskState.DONE else FAILURE)
        crc = zlib.crc32(payload)
        results = [
            m.AttemptResult(t.task, t.attempt, index, payload, crc, file, len(file), 1, 10)
            for t in tasks
        ]
        return self.send_results(*results)

    def send_results(
        self,
        *results: m.AttemptResult,
        passes: int = 2,
    ) -> list[m.ToClient]:
        """Send results as the worker does; returns what the first client hears."""
        assert self.work is not None
        self.work.send(codec.encode(m.AttemptResults(list(results))))
        self.step(passes)
        return self.heard()

    def finish_in_turn(self) -> None:
        """Let the worker end what it is sent until nothing waits."""
        while tasks := self.assigned():
            self.finish(tasks)
