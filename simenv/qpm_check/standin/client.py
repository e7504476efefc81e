"""A client's end of the stand-in: calls, and the queues its events go to."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from contextlib import suppress
from typing import Any

from simenv.qpm_check.inbox import Inbox
from simenv.qpm_check.standin import errors
from simenv.qpm_check.standin.host import ENDPOINT
from simenv.qpm_check.standin.wire import Document, PeerGone, Sender, purified, receive
from simenv.qpm_check.target import Pushed

RPC_S = 120.0


class Connection:
    """One client. Thread-safe; both sides of it lock what they send."""

    def __init__(self, path: str) -> None:
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
        self.lost = ""
        self.impure: dict[str, str] = {}
        threading.Thread(target=self._read, name="standin-client", daemon=True).start()

    def call(
        self, kind: str, method: str, given: tuple[Any, ...], named: dict[str, Any], binding: str
    ) -> Any:
        """The answer, or the error by its class."""
        number = next(self._ids)
        answer: queue.SimpleQueue[Document | None] = queue.SimpleQueue()
        self._waiting[number] = answer
        document = {
            "kind": kind, "id": number, "method": method, "binding": binding,
            "args": purified(list(given))[0], "kwargs": purified(named)[0],
        }  # fmt: skip
        try:
            if self.lost:
                raise errors.DEFwCommError(self.lost)
            self._sender.send(document)
            found = answer.get(timeout=RPC_S)
        except (PeerGone, queue.Empty) as error:
            raise errors.DEFwCommError(f"{method}: no answer: {error!r}") from error
        finally:
            self._waiting.pop(number, None)
        if found is None:
            raise errors.DEFwCommError(f"{method}: {self.lost}")
        if found.get("error"):
            raise errors.NAMES[found["error"]["class"]](found["error"]["message"])
        for place in found.get("impure") or ():
            self.impure.setdefault(method, place)
        return found.get("value")

    def host(self, method: str, *given: Any) -> Any:
        """Ask the stand-in itself."""
        return self.call("host", method, given, {}, "")

    def sink(self) -> EventQueue:
        made = EventQueue()
        self._sinks[made.class_id] = made
        return made

    def die(self) -> None:
        """Without a word."""
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
            if document["kind"] == "put":
                self._take(document)
                continue
            found = self._waiting.get(document.get("id", 0))
            if found is not None:
                found.put(document)

    def _take(self, document: Document) -> None:
        answer: Document = {"kind": "answer", "id": document["id"], "value": None}
        sink = self._sinks.get(document["class_id"])
        for place in document.get("impure") or ():
            self.impure.setdefault("put", place)
        if sink is None or not sink.take_in(document["event"]):
            answer["error"] = {"class": "DEFwRemoteError", "message": "the queue has gone"}
        try:
            self._sender.send(answer)
        except PeerGone:
            return


class EventQueue(Inbox):
    """A `target.Sink`."""

    ep = ENDPOINT

    def take_in(self, event: dict[str, Any]) -> bool:
        return self.arrived(Pushed(event["evtype"], event["payload"]))
