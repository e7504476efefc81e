"""Calls to a plugin and events from it, as DEFw passes them: a thread a call, no order among them.

Invariant: every answer and every event leaves through `fakes.send`, that is through the names a
plugin may put a lock around.
"""

from __future__ import annotations

import itertools
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from simenv.qpm_check.standin import errors, fakes
from simenv.qpm_check.standin.directory import Directory, is_subset
from simenv.qpm_check.standin.loader import OURS, Loaded
from simenv.qpm_check.standin.wire import Document, PeerGone, Sender, purified, receive

ENDPOINT = "__endpoint__"  # stands for the client in an argument
PUT_S = 60.0  # a client that does not answer an event in that time is gone


class Peer:
    """A client, seen from the plugin's process."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.connection = connection
        self.number = number
        self.sender = Sender(connection)
        self.alive = True
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Document]] = {}

    def send(self, document: Document) -> None:
        self.sender.send(document)

    def put(self, class_id: Any, evtype: Any, payload: Any) -> Any:
        """An event: an ordinary call to the client, answered or raised."""
        number = next(self._ids)
        answer: queue.SimpleQueue[Document] = queue.SimpleQueue()
        self._waiting[number] = answer
        event, impure = purified({"evtype": evtype, "payload": payload})
        document = {
            "kind": "put", "id": number, "class_id": str(class_id), "event": event,
            "impure": impure,
        }  # fmt: skip
        try:
            if not self.alive:
                raise errors.DEFwCommError("the client has gone")
            fakes.send("req", self, document)
            found = answer.get(timeout=PUT_S)
        except (PeerGone, queue.Empty) as error:
            raise errors.DEFwCommError(f"the client has gone: {error!r}") from error
        finally:
            self._waiting.pop(number, None)
        if found.get("error"):
            raise errors.NAMES[found["error"]["class"]](found["error"]["message"])
        return found.get("value")

    def answered(self, document: Document) -> None:
        waiting = self._waiting.get(document.get("id", 0))
        if waiting is not None:
            waiting.put(document)

    def gone(self) -> None:
        self.alive = False
        lost = {"error": {"class": "DEFwCommError", "message": "the client has gone"}}
        for waiting in list(self._waiting.values()):
            waiting.put(lost)


class Host:
    """One plugin and its clients."""

    def __init__(self, folder: Path, revision: int) -> None:
        self.revision = revision
        self._plugin = Loaded(folder)
        self._directory = Directory()
        self._making = threading.RLock()
        self._objects: dict[Any, Any] = {}
        self._peers: list[Peer] = []

    def load(self) -> None:
        """All that happens before the first client."""
        fakes.install(self.revision, self._leave)
        self._plugin.load()
        fakes.complete(self.revision, self._directory)
        self._plugin.probe()

    def serve(self, listening: socket.socket) -> None:
        """Until the first client has gone."""
        first, _ = listening.accept()
        _thread("accept", self._accept, listening)
        self._read(Peer(first, 0))

    def _accept(self, listening: socket.socket) -> None:
        for number in itertools.count(1):
            connection, _ = listening.accept()
            peer = Peer(connection, number)
            self._peers.append(peer)
            _thread("read", self._read, peer)

    def _read(self, peer: Peer) -> None:
        while True:
            try:
                document = receive(peer.connection)
            except PeerGone:
                peer.gone()
                return
            if document["kind"] == "answer":
                peer.answered(document)
                continue
            target = self._host_call if document["kind"] == "host" else self._call
            _thread("call", target, peer, document)

    # --- the plugin's own methods -------------------------------------------------------------

    def _call(self, peer: Peer, document: Document) -> None:
        answer: Document = {"kind": "answer", "id": document["id"]}
        try:
            target = self._object((peer.number, document.get("binding")))
            method = getattr(target, document["method"])
            given = [_argument(value, peer) for value in document["args"]]
            named = {key: _argument(value, peer) for key, value in document["kwargs"].items()}
            answer["value"], answer["impure"] = purified(method(*given, **named))
        except BaseException as error:  # noqa: BLE001 - everything travels
            answer["error"] = _told(error)
        self._answer(peer, answer)

    def _object(self, key: Any) -> Any:
        """The one object, or the client's own where instances are per connection."""
        with self._making:
            place = "singleton" if self._plugin.singleton else key
            if place not in self._objects:
                assert self._plugin.kind is not None, "there is no class QPM"
                self._objects[place] = self._plugin.kind()
            return self._objects[place]

    def _answer(self, peer: Peer, answer: Document) -> None:
        try:
            fakes.send("rsp", peer, answer)
        except PeerGone:
            peer.gone()
        except BaseException:  # noqa: BLE001 - what a plugin put around `send` may raise too
            traceback.print_exc(file=sys.stderr)

    # --- what the kit asks the stand-in -------------------------------------------------------

    def _host_call(self, peer: Peer, document: Document) -> None:
        answer: Document = {"kind": "answer", "id": document["id"]}
        try:
            answer["value"] = getattr(self, f"host_{document['method']}")(*document["args"])
        except BaseException as error:  # noqa: BLE001
            answer["error"] = _told(error)
        self._answer(peer, answer)

    def host_facts(self) -> Any:
        return msgspec.to_builtins(self._plugin.facts())

    def host_query(self) -> Any:
        return self._plugin.query()

    def host_hello(self, client: int) -> None:
        """Revision 1: the service-level reserve that comes before a client is connected."""
        if self.revision == 1 and self._plugin.kind is not None:
            kind = self._plugin.kind
            one = self._object(None) if self._plugin.singleton else kind()
            try:
                one.reserve(kind(start=False).query(), fakes.Endpoint(f"client{client}"))
            except Exception as error:
                raise errors.DEFwReserveError(str(error)) from error

    def host_lookup(self, types: int, capabilities: int) -> bool:
        """Would a client that wants these bits find it?"""
        card = self._plugin.query()["card"]
        return is_subset(types, card["types"]) and is_subset(capabilities, card["capabilities"])

    def host_registered(self) -> Any:
        return [purified({**record, "capability": None})[0] for record in self._directory.records()]

    def host_resolve(self, wanted: dict[str, Any]) -> Any:
        found = self._directory.resolve_services(**wanted)
        return [purified({**entry, "capability": None})[0] for entry in found]

    def host_lose_directory(self, away_s: float) -> None:
        """The directory goes, and another one comes; it knows the generations."""
        defw = sys.modules["defw"]
        defw.dirsvc = None  # type: ignore[attr-defined]
        time.sleep(away_s)
        self._directory = Directory(self._directory.generations)
        defw.dirsvc = self._directory  # type: ignore[attr-defined]

    def host_left(self) -> Any:
        """Threads, processes and files of this process now."""
        from simenv.qpm_check.standin.loader import now

        return msgspec.to_builtins(now())

    def host_pause(self, seconds: float) -> None:
        """Wait so long between the two writes of every message."""
        for peer in self._peers:
            peer.sender.pause_s = seconds

    def host_collisions(self) -> int:
        return sum(peer.sender.collisions for peer in self._peers)

    def host_uninitialize(self) -> str:
        return self._plugin.uninitialize()

    def _leave(self) -> None:
        self._plugin.uninitialize()
        os._exit(0)


def _thread(what: str, target: Callable[..., None], *given: Any) -> None:
    """Told from a plugin's own by its name."""
    name = f"{OURS}-{what}"
    threading.Thread(target=target, args=given, name=name, daemon=True).start()


def _argument(value: Any, peer: Peer) -> Any:
    return fakes.Endpoint(f"client{peer.number}", peer) if value == ENDPOINT else value


def _told(error: BaseException) -> dict[str, str]:
    """Errors of DEFw's keep their class; of any other the traceback's text goes."""
    name = errors.own_class(error)
    if name:
        return {"class": name, "message": str(error)}
    return {"class": "DEFwRemoteError", "message": "".join(traceback.format_exception(error))}
