"""A peer that plays the service's part of the protocol over MemoryDoors, well or badly.

It keeps the promises of the real one that the client builds on: a key names its tasks, a Watch is
answered, requests are answered once each; and breaks one of them where a test says so.
"""

import struct
import threading
import zlib
from collections.abc import Callable, Iterable
from types import TracebackType

from memory_transport import MemoryListener

from simenv.client.connection.session import ServiceSession
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.model import RESULT_FORMAT, Origin, ResultData, TaskOptions, TaskSpec, TaskState, Timing
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.zmq_transport import Connection

Handler = Callable[[m.FromClient], Iterable[m.ToClient]]
ORIGIN = Origin("main-0", "here", 4711, "0.1.0")


def spec(number: int = 0) -> TaskSpec:
    """A task told from others by its seed."""
    return TaskSpec(b"program %d" % number, 1024, number)


def result(seed: int) -> bytes:
    """Counts {'00': 1000, '11': 24} under this seed."""
    counts = struct.pack("<2I", 1000, 24)
    data = ResultData(RESULT_FORMAT, (("c", 2),), 2, 1024, seed, 1, b"\x00\x03", counts)
    return codec.encode(data)


def completion(task: int, seed: int = 0, state: TaskState = TaskState.DONE) -> m.Completion:
    payload = result(seed)
    if state is not TaskState.DONE:
        payload = codec.encode(m.Failure("engine", "it broke", hint="mend it", host="here"))
    return m.Completion(
        task, m.STATES.index(state), 1, 1, payload, zlib.crc32(payload), Timing(10, 20, 30)
    )


def completed(*completions: m.Completion, first_seq: int = 1) -> m.Completed:
    return m.Completed(ORIGIN, "statevector", "small", list(completions), first_seq)


class Peer:
    """An Address and the service behind it. `on` replaces the answer to one kind of message."""

    name = "played"

    def __init__(self) -> None:
        self.doors = MemoryListener()
        self.epoch = 1
        self.heard: list[m.FromClient] = []
        self.accepted: dict[tuple[str, int], m.Accepted] = {}
        self.tasks: dict[int, TaskSpec] = {}
        self.finishes = True  # every accepted task ends at once
        self.silent = False
        self._next = 1
        self._handlers: dict[type, Handler] = {}
        self._opened: MemoryListener | None = None
        self._peers: set[bytes] = set()
        self._ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Peer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending = True
        self._thread.join()

    # --- as an Address ------------------------------------------------------------------------

    patience_s = 0.0
    standbys: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()

    def open(self, identity: bytes) -> Connection:
        self._opened = self.doors
        return self.doors.connect(PeerKind.CLIENT, identity)

    def moved(self) -> bool:
        return self._opened is not self.doors

    def learn(self, standbys: tuple[str, ...]) -> None:
        self.learnt = standbys

    def refusal(self) -> SimenvError | None:
        return None

    def remote_endpoint(self) -> tuple[str, str]:
        return "", ""

    def diagnose(self) -> tuple[str, str]:
        return "process 4711 on here has ended", "see service.log; simenv up --restore"

    # --- what a test does with it -------------------------------------------------------------

    def on(self, kind: type, handler: Handler) -> None:
        self._handlers[kind] = handler

    def restart(self) -> None:
        """The service started anew, elsewhere: nothing of its old socket will be answered."""
        self.epoch += 1
        self.doors = MemoryListener()

    def say(self, *messages: m.ToClient) -> None:
        """Unasked, to every client."""
        for message in messages:
            self.say_bytes(codec.encode(message))

    def say_bytes(self, body: bytes) -> None:
        for peer in list(self._peers):
            self.doors.send(PeerKind.CLIENT, peer, body)

    def of(self, kind: type) -> list[m.FromClient]:
        with self._changed:
            return [message for message in self.heard if isinstance(message, kind)]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something was heard."""
        with self._changed:
            assert self._changed.wait_for(condition, 30)

    # --- playing ------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._ending:
            value = self.doors
            if not value.wait(0.02):
                continue
            received = value.receive()
            assert received is not None
            _, peer, body, _ = received
            message: m.FromClient = codec.from_client(body)
            self._peers.add(peer)
            with self._changed:  # whoever has the answer also sees what was heard
                if not self.silent:
                    for answer in self._answer(message):
                        value.send(PeerKind.CLIENT, peer, codec.encode(answer))
                self.heard.append(message)
                self._changed.notify_all()

    def _answer(self, message: m.FromClient) -> Iterable[m.ToClient]:
        handler = self._handlers.get(type(message))
        if handler is not None:
            return handler(message)
        match message:
            case m.Hello():
                return [m.Welcome(self.epoch, "0.1.0", self.name)]
            case m.Ping():
                return [m.Pong(message.request, self.epoch)]
            case m.Submit():
                return self.submitted(message)
            case m.WatchResults():
                return self.watched(message)
            case m.Cancel():
                return [m.Cancelled(message.request, ["cancelled"] * len(message.tasks))]
        raise AssertionError(f"the test says nothing of {message}")

    def submitted(self, message: m.Submit) -> list[m.ToClient]:
        accepted = self.take(message)
        if accepted.repeated or not self.finishes:
            return [accepted]
        return [accepted, self.end(range(accepted.first, accepted.first + accepted.count))]

    def take(self, message: m.Submit) -> m.Accepted:
        """Accept, or know again."""
        outcome = self.accepted.get((message.key, message.offset))
        if outcome is not None:
            return m.Accepted(message.request, outcome.first, outcome.count, repeated=True)
        count = len(message.tasks)
        accepted = m.Accepted(message.request, self._next, count)
        self.accepted[message.key, message.offset] = accepted
        self.tasks.update(zip(range(self._next, self._next + count), message.tasks, strict=True))
        self._next += count
        return accepted

    def end(self, numbers: Iterable[int]) -> m.Completed:
        return completed(*[completion(n, self.tasks[n].seed) for n in numbers])

    def watched(self, message: m.WatchResults) -> list[m.ToClient]:
        entries = [number for number in message.tasks if number in self.tasks]
        unknown = [number for number in message.tasks if number not in self.tasks]
        return [*([self.end(entries)] if entries else []), m.UnknownTasks(message.request, unknown)]


def terms() -> TaskOptions:
    return TaskOptions(name="played")


def submit(
    link: ServiceSession, count: int = 1, key: str | None = None, *, first: int = 0
) -> list[Task]:
    """New tasks, whose seeds are the numbers from `first` on."""
    return send(link, PreparedSubmit(terms(), [spec(first + k) for k in range(count)]), key)
