"""Double of the DEFw host, and its client.

`Host` passes calls to a plugin and events from it, in one thread a call and no order. Invariant:
every answer and event is sent through `fakes.send`, by the name that a plugin may replace to take a
lock. `Connection` is the client side: calls, and the queues of its events.
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
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from simenv.qpm_check.fake_defw import fakes, loader
from simenv.qpm_check.target import EventInbox, ReceivedEvent

ENDPOINT = "__endpoint__"  # stands for the client in an argument


class Peer:
    """A client, seen from the plugin's process. A call to a client that does not answer ends after
    `rpc_timeout_s`. If the client leaves meanwhile, revision 2 ends the call at once
    (`fails_pending`), revision 1 does not."""

    def __init__(
        self, connection: socket.socket, number: int, rpc_timeout_s: float, *, fails_pending: bool
    ) -> None:
        self.connection = connection
        self.number = number
        self.uuid = str(uuid.uuid4())
        self.sender = loader.Sender(connection)
        self.alive = True
        self._rpc_timeout_s = rpc_timeout_s
        self._fails_pending = fails_pending
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[loader.Document]] = {}

    def send(self, document: loader.Document) -> None:
        self.sender.send(document)

    def put(self, class_id: Any, evtype: Any, payload: Any) -> Any:
        """Send an event as an ordinary call; return the client's answer or raise its error."""
        number = next(self._ids)
        answer: queue.SimpleQueue[loader.Document] = queue.SimpleQueue()
        self._waiting[number] = answer
        event, impure = loader.purified({"evtype": evtype, "payload": payload})
        document = {
            "kind": "put", "id": number, "class_id": str(class_id), "event": event,
            "impure": impure,
        }  # fmt: skip
        try:
            if not self.alive:
                raise fakes.DEFwCommError("the client has gone")
            fakes.send("req", self, document)
            result = answer.get(timeout=self._rpc_timeout_s)
        except loader.PeerGone as error:
            raise fakes.DEFwCommError(f"sending failed: {error}") from error
        except queue.Empty as error:
            raise fakes.DEFwCommError("response timed out") from error
        finally:
            self._waiting.pop(number, None)
        if result.get("error"):
            raise fakes.received(result["error"])
        return result.get("value")

    def answered(self, document: loader.Document) -> None:
        waiting = self._waiting.get(document.get("id", 0))
        if waiting is not None:
            waiting.put(document)

    def gone(self) -> None:
        self.alive = False
        if not self._fails_pending:
            return
        lost = {"error": {"class": "DEFwCommError", "message": "the client has gone"}}
        for waiting in list(self._waiting.values()):
            waiting.put(lost)


class Host:
    """One plugin and its clients. `rpc_timeout_s`: limit of a call to a client."""

    def __init__(self, folder: Path, revision: int, rpc_timeout_s: float) -> None:
        self.revision = revision
        self._rpc_timeout_s = rpc_timeout_s
        self._plugin = loader.LoadedPlugin(folder)
        self._directory = fakes.Directory()
        self._making = threading.Lock()
        self._singleton: Any = None
        self._objects: dict[str, Any] = {}  # by the class id of a client's proxy
        self._peers: list[Peer] = []

    def load(self) -> None:
        """Load the plugin before the first client."""
        fakes.install(self.revision, self._leave)
        self._plugin.load()
        fakes.complete(self.revision, self._directory)
        self._plugin.probe()

    def serve(self, listening: socket.socket) -> None:
        """Accept clients until the first one has gone."""
        first, _ = listening.accept()
        _thread("accept", self._accept, listening)
        self._read(self._peer(first, 0))

    def _accept(self, listening: socket.socket) -> None:
        for number in itertools.count(1):
            connection, _ = listening.accept()
            peer = self._peer(connection, number)
            self._peers.append(peer)
            _thread("read", self._read, peer)

    def _peer(self, connection: socket.socket, number: int) -> Peer:
        fails_pending = self.revision == 2
        built = Peer(connection, number, self._rpc_timeout_s, fails_pending=fails_pending)
        fakes.PEERS[built.uuid] = built
        return built

    def _read(self, peer: Peer) -> None:
        while True:
            try:
                document = loader.receive(peer.connection)
            except loader.PeerGone:
                peer.gone()
                return
            if document["kind"] == "answer":
                peer.answered(document)
                continue
            _thread("call", self._answered, peer, document)

    def _answered(self, peer: Peer, document: loader.Document) -> None:
        answer: loader.Document = {"kind": "answer", "id": document["id"]}
        try:
            call = getattr(self, f"_{document['kind']}")
            answer["value"], answer["impure"] = loader.purified(call(peer, document))
        except BaseException as error:  # noqa: BLE001 - every error is sent to the client
            answer["error"] = _error_report(error)
        self._answer(peer, answer)

    def _instantiate(self, peer: Peer, document: loader.Document) -> None:  # noqa: ARG002
        """Make the object behind a new proxy: the single object, or a separate one."""
        self._objects[document["class_id"]] = self._create_plugin(single=self._plugin.singleton)

    def _destroy(self, peer: Peer, document: loader.Document) -> None:  # noqa: ARG002
        """Delete a proxy's object. Objects of a client that leaves without this stay."""
        self._objects.pop(document["class_id"], None)

    def _call(self, peer: Peer, document: loader.Document) -> Any:
        target = self._objects.get(document["class_id"])
        if target is None:
            raise fakes.DEFwNotFound(f"no {document['class_id']} in database")
        values = [_argument(value, peer) for value in document["args"]]
        named = {key: _argument(value, peer) for key, value in document["kwargs"].items()}
        return getattr(target, document["method"])(*values, **named)

    def _create_plugin(self, *, single: bool) -> Any:
        kind = self._plugin.kind
        assert kind is not None, "there is no class QPM"
        if not single:
            return kind()
        with self._making:
            if self._singleton is None:
                self._singleton = kind()
            return self._singleton

    def _answer(self, peer: Peer, answer: loader.Document) -> None:
        try:
            fakes.send("rsp", peer, answer)
        except loader.PeerGone:
            peer.gone()
        except BaseException:  # noqa: BLE001 - a plugin's wrapper of `send` may raise too
            traceback.print_exc(file=sys.stderr)

    def _host(self, peer: Peer, document: loader.Document) -> Any:  # noqa: ARG002
        return getattr(self, f"host_{document['method']}")(*document["args"])

    def host_facts(self) -> Any:
        return msgspec.to_builtins(self._plugin.facts())

    def host_query(self) -> Any:
        return self._plugin.query()

    def host_hello(self, client: int) -> None:
        """Revision 1: make the service-level reserve that precedes the connection of a client."""
        if self.revision == 1 and self._plugin.kind is not None:
            kind = self._plugin.kind
            reserved = self._create_plugin(single=self._plugin.singleton)
            try:
                reserved.reserve(kind(start=False).query(), fakes.Endpoint(f"client{client}"))
            except Exception as error:
                raise fakes.DEFwReserveError(str(error)) from error

    def host_made(self) -> None:
        """Construct the service's object, as for a client."""
        self._create_plugin(single=self._plugin.singleton)

    def host_lookup(self, types: int, capabilities: int) -> bool:
        """Return whether a client that requests these bits would find the service."""
        card = self._plugin.query()["card"]
        wanted = ((types, card["types"]), (capabilities, card["capabilities"]))
        return all(fakes.is_subset(*pair) for pair in wanted)

    def host_registered(self) -> Any:
        records = self._directory.records()
        return [loader.purified({**record, "capability": None})[0] for record in records]

    def host_resolve(self, wanted: dict[str, Any]) -> Any:
        result = self._directory.resolve_services(**wanted)
        return [loader.purified({**entry, "capability": None})[0] for entry in result]

    def host_lose_directory(self, away_s: float) -> None:
        """Replace the directory after `away_s` without one; the new one knows the generations."""
        defw = sys.modules["defw"]
        defw.dirsvc = None  # type: ignore[attr-defined]
        time.sleep(away_s)
        self._directory = fakes.Directory(self._directory.generations)
        defw.dirsvc = self._directory  # type: ignore[attr-defined]

    def host_left(self) -> Any:
        """Present threads, processes and files of this process."""
        return msgspec.to_builtins(loader.now())

    def host_pause(self, seconds: float) -> None:
        """Wait this time between the two writes of every message."""
        for peer in self._peers:
            peer.sender.pause_s = seconds

    def host_collisions(self) -> int:
        return sum(peer.sender.collisions for peer in self._peers)

    def host_uninitialize(self) -> str:
        return self._plugin.uninitialize()

    def _leave(self) -> None:
        self._plugin.uninitialize()
        os._exit(0)


def _thread(what: str, target: Callable[..., None], *args: Any) -> None:
    """Start a thread whose name distinguishes it from the plugin's own."""
    name = f"{loader.OURS}-{what}"
    threading.Thread(target=target, args=args, name=name, daemon=True).start()


def _argument(value: Any, peer: Peer) -> Any:
    return fakes.Endpoint(f"client{peer.number}", peer) if value == ENDPOINT else value


def _error_report(error: BaseException) -> dict[str, str]:
    """Report of an error: DEFw's errors keep their class; of others the traceback's text is
    sent."""
    name = fakes.own_class(error)
    if name:
        stack = str(getattr(error, "stacktrace", ""))
        return {"class": name, "message": str(error), "stacktrace": stack}
    return {"class": "DEFwRemoteError", "message": "".join(traceback.format_exception(error))}


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
        self._sender = loader.Sender(self._socket)
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[loader.Document | None]] = {}
        self._sinks: dict[str, EventQueue] = {}
        self._runs = threading.Event()  # cleared: the process is stopped, and its socket open
        self._runs.set()
        self._held: list[loader.Document] | None = None  # events that are not processed yet
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
        answer: queue.SimpleQueue[loader.Document | None] = queue.SimpleQueue()
        self._waiting[number] = answer
        document = {
            "kind": kind, "id": number, "method": method, "class_id": class_id,
            "args": loader.purified(list(args))[0], "kwargs": loader.purified(named or {})[0],
        }  # fmt: skip
        try:
            if self.lost:
                raise fakes.DEFwCommError(self.lost)
            self._sender.send(document)
            result = answer.get(timeout=self._timeout_s)
        except (loader.PeerGone, queue.Empty) as error:
            message = f"{method or kind}: no answer within {self._timeout_s:g} s"
            raise fakes.DEFwCommError(message) from error
        finally:
            self._waiting.pop(number, None)
        if result is None:
            raise fakes.DEFwCommError(f"{method}: {self.lost}")
        if result.get("error"):
            raise fakes.received(result["error"])
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
                document = loader.receive(self._socket)
            except loader.PeerGone as error:
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

    def _take(self, document: loader.Document) -> None:
        if self._held is not None:
            self._held.append(document)
            return
        answer: loader.Document = {"kind": "answer", "id": document["id"], "value": None}
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
        except loader.PeerGone:
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
    """A `ClientEventSink`. `mute`: take events and never answer, like a process that ends."""

    ep = ENDPOINT
    mute = False

    def take_in(self, event: dict[str, Any]) -> bool:
        return self.arrived(ReceivedEvent(event["evtype"], event["payload"]))
