"""Client side of the DEFw double: calls, and the queues of its events."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import uuid
from contextlib import suppress
from typing import Any

from simenv.qpm_check.contract.event_inbox import EventInbox, ReceivedEvent
from simenv.qpm_check.fake_defw import errors
from simenv.qpm_check.fake_defw.host import ENDPOINT
from simenv.qpm_check.fake_defw.wire import Document, PeerGone, Sender, purified, receive

RPC_S = 120.0


class Connection:
    """Connection of one client. Thread-safe; both sides lock their sends. `timeout_s`: limit of
    calls."""

    def __init__(self, path: str, timeout_s: float = RPC_S) -> None:
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._sender = Sender(self._socket)
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Document | None]] = {}
        self._sinks: dict[str, EventQueue] = {}
        self._runs = threading.Event()  # cleared: the process is stopped, and its socket open
        self._runs.set()
        self._held: list[Document] | None = None  # events that are not processed yet
        self.lost = ""
        self.impure: dict[str, str] = {}
        threading.Thread(target=self._read, name="standin-client", daemon=True).start()

    def call(
        self,
        kind: str,
        method: str,
        args: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
        *,
        class_id: str = "",
    ) -> Any:
        """Return the answer, or raise its error by class; DEFwCommError if none arrives in time."""
        number = next(self._ids)
        answer: queue.SimpleQueue[Document | None] = queue.SimpleQueue()
        self._waiting[number] = answer
        document = {
            "kind": kind, "id": number, "method": method, "class_id": class_id,
            "args": purified(list(args))[0], "kwargs": purified(named or {})[0],
        }  # fmt: skip
        try:
            if self.lost:
                raise errors.DEFwCommError(self.lost)
            self._sender.send(document)
            result = answer.get(timeout=self._timeout_s)
        except (PeerGone, queue.Empty) as error:
            message = f"{method or kind}: no answer within {self._timeout_s:g} s"
            raise errors.DEFwCommError(message) from error
        finally:
            self._waiting.pop(number, None)
        if result is None:
            raise errors.DEFwCommError(f"{method}: {self.lost}")
        if result.get("error"):
            raise errors.received(result["error"])
        for place in result.get("impure") or ():
            self.impure.setdefault(method, place)
        return result.get("value")

    def host(self, method: str, *args: Any) -> Any:
        """Call a method of the DEFw double itself."""
        return self.call("host", method, args)

    def sink(self) -> EventQueue:
        built = EventQueue()
        self._sinks[built.class_id] = built
        return built

    def hold_events(self) -> None:
        """Answer no event until `resume`; answers to calls are still read."""
        self._held = []

    def stop(self) -> None:
        """Stop reading and answering, like a process that got SIGSTOP."""
        self._runs.clear()

    def resume(self) -> None:
        """Continue; the events that arrived meanwhile are processed first."""
        held, self._held = self._held or [], None
        for document in held:
            self._take(document)
        self._runs.set()

    def die(self) -> None:
        """Close the connection without a message."""
        self._runs.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                document = receive(self._socket)
            except PeerGone as error:
                self.lost = f"the connection is lost: {error}"
                for waiting in list(self._waiting.values()):
                    waiting.put(None)
                self._socket.close()
                return
            self._runs.wait()
            if document["kind"] == "put":
                self._take(document)
                continue
            result = self._waiting.get(document.get("id", 0))
            if result is not None:
                result.put(document)

    def _take(self, document: Document) -> None:
        if self._held is not None:
            self._held.append(document)
            return
        answer: Document = {"kind": "answer", "id": document["id"], "value": None}
        sink = self._sinks.get(document["class_id"])
        for place in document.get("impure") or ():
            self.impure.setdefault("put", place)
        taken = sink is not None and sink.take_in(document["event"])
        if sink is not None and sink.mute:
            return
        if not taken:
            answer["error"] = {"class": "DEFwRemoteError", "message": "the queue has gone"}
        try:
            self._sender.send(answer)
        except PeerGone:
            return


class Proxy:
    """Proxies of one service in a client: one in revision 1, one for each binding in revision 2.
    The host constructs (or finds) the service's object when a proxy is made."""

    def __init__(self, connection: Connection, *, bindings: bool) -> None:
        self.connection = connection
        self._bindings = bindings
        self._lock = threading.Lock()
        self._class_ids: dict[str, str] = {}

    def call(self, binding: str, method: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        class_id = self._class_id(binding if self._bindings else "")
        return self.connection.call("call", method, args, named, class_id=class_id)

    def destroy(self) -> None:
        """Destroy the proxies, as when they are no longer referenced."""
        with self._lock:
            class_ids, self._class_ids = self._class_ids, {}
        for class_id in class_ids.values():
            self.connection.call("destroy", "", class_id=class_id)

    def _class_id(self, binding: str) -> str:
        with self._lock:
            if binding not in self._class_ids:
                class_id = str(uuid.uuid4())
                self.connection.call("instantiate", "", class_id=class_id)
                self._class_ids[binding] = class_id
            return self._class_ids[binding]


class EventQueue(EventInbox):
    """A `target.Sink`. `mute`: take events and never answer them, like a process that ends."""

    ep = ENDPOINT
    mute = False

    def take_in(self, event: dict[str, Any]) -> bool:
        return self.arrived(ReceivedEvent(event["evtype"], event["payload"]))
