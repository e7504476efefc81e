"""Messages generated from the types of the protocol, and their exchange with a running service.

A message is msgpack of one class: each field has a value of its type, an edge of that type (NaN,
2^63, escapes, surrogates, deep nesting) or a value of another type; some fields are left out, some
are added. `exchange` sends such messages over connections of every role, several in flight on each,
and measures the time until each answer. Invariant: no message stops the service, changes the
environment as a whole or takes a key of `exchange` away, and of what was submitted little waits.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec import inspect as introspect

import simenv
from noise_models import library, snapshot
from simenv._version import __version__
from simenv.client.client import Client
from simenv.client.connection.address import read
from simenv.client.submission.prepare import prepare_one
from simenv.errors import InternalError, ProtocolError
from simenv.model import Program
from simenv.model.calls import TranspileCall
from simenv.wire import codec
from simenv.wire.messages import accounting, admin, base, client as m, credentials, queries
from simenv.wire.messages.explain import Explain
from simenv.wire.transport.unix_streams import UnixConnection
from simenv.wire.transport.zmq_transport import (
    CLIENT_STREAM,
    WORKER_STREAM,
    Connection,
    CurveConnection,
)
from testbed.attacks import BELL
from testbed.keys import remote_key

POOL = "target"  # of the messages
HONEST = "honest"  # pool, account and key of a client that runs circuits meanwhile
KEYS = ("client", "admin", "gateway")  # roles that are names of their keys, too
SHARES = (3, 3, 3, 1)  # of messages without a key, and with each of KEYS
WINDOW = 8  # messages in flight on one connection
LIST_BYTES = 2**18  # of the items of one list, at most
LOOK_S = 0.001  # for which one connection may keep the others waiting
ANSWER_S = 60.0  # a message without an answer for so long has none
CANCEL_EVERY = 250  # messages between two times at which all tasks are cancelled
BELL_EVERY = 5_000  # messages between two circuits of the honest client
WORKERS_SHARE = 0.1  # of all messages
CLIENT_KINDS = [each for each in base.kinds(base.ClientMessage) if each is not m.Shutdown]
_MANY = [m.Submit, Explain, queries.StoreNoise, admin.Reserve]  # more of them than others
WORKER_KINDS: Sequence[type] = get_args(m.FromWorker)

_pack = msgspec.msgpack.Encoder().encode
_INTS = (0, -1, 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**31) - 1)
_FLOATS = (
    *(float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1e308, -1e308, 2.0**63, -1.0),
    *(1e-9, 1.8e19, 253402300800.0),  # the last is the year 10,000
)
_TEXTS = (
    *("", "\0", "\x1b[2J\x1b]0;t\x07", "a\r\nb", "'; DROP TABLE tasks; --", "../../etc/passwd"),
    *("\u202egnp.exe", "\ud7ff\ue000\ufffe", "e\u0301" * 40, "\U0001f984" * 20, "%s%n{0}$(id)"),
    *("x" * 256, "x" * 16_385, "nan", "-inf", "1e999", "9" * 400, "a" * 70_000, "t-zzzzzzzzzzzzz"),
)
_SURROGATE = msgspec.Raw(b"\xa3\xed\xa0\x80")  # of UTF-16, which no UTF-8 has
_DEEP = msgspec.Raw(b"\x91" * 5_000 + b"\xc0")
_DEEP_MAP = msgspec.Raw(b"\x81\xa1a" * 2_000 + b"\xc0")
_TIMESTAMP = msgspec.Raw(b"\xd6\xff\xff\xff\xff\xff")
_BYTES = (b"", b"\0", b"\xff" * 9, b"\x7f\xf8\0\0\0\0\0\0" * 2, bytes(100_000), b"[" * 3_000, b"{}")
_WRONG: tuple[Any, ...] = (
    *(None, True, 7, -7, 1.5, "text", b"bytes", [], {}, [[]], {"a": {"b": []}}, [None] * 300),
    *(_SURROGATE, _DEEP, _DEEP_MAP, _TIMESTAMP, {1: 2}, {"": float("nan")}),
)
_JSON: tuple[Any, ...] = (None, True, [], {}, 10**400, "\ud800", {"a": [{}]}, [[]] * 99)
_ACCOUNTS, _KEYS = ("physics", "chemistry"), ("somebody", "rotated")
_WORDS = (
    *(POOL, "auto", "statevector", "lima", "counts", "expectation", "single", "credit", "rate"),
    *("fifo", "round_robin", "pause", "resume", "drain", "admin", "client", "certified", "score"),
    *("account", "user", "day", "max_queued_tasks", "max_messages_per_s", "somebody", "UTC"),
    *("Europe/Berlin", "00ff" * 16, "0" * 40, "target-0", "queue", "hybrid", "normal", "~k"),
)
# Valid texts of fields by name; those of other fields are any of _WORDS.
_BY_NAME: dict[str, tuple[str, ...]] = {
    "pool": ("", POOL),
    "device": ("", POOL, POOL, "lima", "fez"),
    "name": ("run", *_ACCOUNTS, *_KEYS),
    "account": ("", *_ACCOUNTS),
    "parent": ("", *_ACCOUNTS),
    "qos": ("", *_ACCOUNTS),
    "owner": ("", *_KEYS),
    "user": ("", *_KEYS),
    "role": ("", "client", "admin", "monitor", "gateway"),
    "engine": ("auto", "auto", "statevector", "mps", "stabilizer", "density_matrix", "transpiler"),
    "precision": ("double", "single"),
    "outputs": ("counts", "probabilities", "statevector", "expectation", "memory", "amplitudes"),
    "verb": ("pause", "resume", "drain"),
    "policy": ("priority", "fifo", "ordered", "round_robin"),
    "snapshot": ("",),
    "compiled_for": ("",),
    "stale": ("", "refuse"),
    "by": ("account", "user", "qos", "pool", "day"),
    "labels": ("XZ", "ZZ", "IX", "00"),
    "names": ("h", "cx", "measure", "rx", "barrier", "delay", "if", "end", "reset", "unitary"),
    "worker": (POOL + "-0",),
    "request_id": ("one", "two"),
    "zone": ("", "UTC", "Europe/Berlin"),
    "figure": ("certified", "score"),
    "mode": ("", "cancel", "wait"),
    "version": (__version__,),
}


class MessageGenerator:
    """Random messages with a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._damage = 0.0  # probability that a value is an edge of its type
        self._default = 0.0  # probability that a field has its default
        self._name = ""  # of the field whose value is made
        self._types: dict[type, introspect.Type] = {}
        self._bell = prepare_one(BELL, {"shots": 1}).specs[0].program
        self._document = snapshot.dump(library.load("lima"))
        self._nested: dict[str, Callable[[], bytes]] = {
            "program": self._program,
            "body": self._body,
        }

    def message(self, kind: type, request: int) -> bytes:
        """Return a packed message of a kind. `request`: its number, which most messages have."""
        rng = self._random
        self._damage = rng.choice((0.0, 0.02, 0.1, 0.3, 0.8))
        self._default = rng.choice((0.3, 0.8, 0.95))
        fields = self._struct(self._type(kind))
        numbered = issubclass(kind, base.ClientRequest) and len(fields) > 1
        if numbered and rng.random() > 0.02:
            fields[1] = request
        return bytes(_pack(fields))

    def _type(self, kind: type) -> Any:
        if kind not in self._types:
            self._types[kind] = introspect.type_info(kind)
        return self._types[kind]

    def _struct(self, kind: introspect.StructType) -> Any:
        rng = self._random
        values: dict[str, Any] = {}
        for field in kind.fields:
            if not field.required and rng.random() < self._default:
                value: Any = field.default
                if value is msgspec.NODEFAULT:
                    value = field.default_factory()
            elif field.name in self._nested and isinstance(field.type, introspect.BytesType):
                value = self._nested[field.name]()
            else:
                self._name = field.name
                value = self._value(field.type)
            values[field.encode_name] = value
        if not kind.array_like:
            if rng.random() < self._damage / 2:
                values["unknown"] = 1
            if values and rng.random() < self._damage / 4:
                del values[rng.choice(list(values))]
            return values
        items = [*([] if kind.tag is None else [kind.tag]), *values.values()]
        if rng.random() < self._damage / 4:
            items += [rng.choice(_WRONG)] * rng.choice((1, 3))
        if rng.random() < self._damage / 4:
            del items[rng.randrange(len(items)) :]
        return items

    def _value(self, kind: introspect.Type) -> Any:
        """Return a value for a type: mostly of it, also an edge of it, or of another one."""
        rng = self._random
        is_edge = rng.random() < self._damage
        if is_edge and rng.random() < 0.15:
            return rng.choice(_WRONG)
        match kind:
            case introspect.UnionType():
                return self._value(rng.choice(kind.types))
            case introspect.NoneType():
                return None
            case introspect.BoolType():
                return rng.random() < 0.5
            case introspect.IntType():
                edges: tuple[int, ...] = (*_INTS, *(kind.ge or 0, (kind.ge or 0) - 1))
                edges += (kind.le, min(kind.le + 1, 2**64 - 1)) if kind.le is not None else ()
                return rng.choice(edges) if is_edge else (kind.ge or 0) + rng.randrange(20)
            case introspect.FloatType():
                return rng.choice(_FLOATS) if is_edge else rng.choice((0.0, 0.5, 1.0, 60.0, 1.8e9))
            case introspect.StrType():
                return self._text(kind, is_edge=is_edge)
            case introspect.BytesType():
                return rng.choice(_BYTES) if is_edge else bytes(8 * rng.randrange(3))
            case introspect.EnumType():
                values = list(kind.cls)
                return 99 if is_edge else rng.choice(values).value
            case introspect.TupleType():
                return [self._value(each) for each in kind.item_types]
            case introspect.ListType() | introspect.VarTupleType():
                count = self._count(kind, is_edge=is_edge)
                items = [self._value(kind.item_type) for _ in range(min(count, 3))]
                most = LIST_BYTES // len(_pack(items))
                return items * max(1, min(count // 3, most)) if count > 3 else items
            case introspect.DictType():
                count = rng.choice((0, 1, 3)) if not is_edge else 30
                pairs = ((self._key(kind.key_type), kind.value_type) for _ in range(count))
                return {key: self._value(each) for key, each in pairs}
            case introspect.StructType():
                return self._struct(kind)
        raise AssertionError(f"no values of {kind}: add them here")

    def _count(self, kind: introspect.ListType | introspect.VarTupleType, *, is_edge: bool) -> int:
        if not is_edge:
            return self._random.choice((0, 1, 1, 2, 3))
        longest = kind.max_length or 1_000
        return min(self._random.choice((30, longest, longest + 3, 20_000)), 20_003)

    def _text(self, kind: introspect.StrType, *, is_edge: bool) -> Any:
        rng = self._random
        if is_edge:
            return rng.choice((*_TEXTS, _SURROGATE, "y" * min((kind.max_length or 9) + 1, 70_000)))
        text = rng.choice(_BY_NAME.get(self._name) or ("", *_WORDS))
        return text.ljust(kind.min_length or 0, "0")[: kind.max_length]

    def _key(self, kind: introspect.Type) -> Any:
        key = self._value(kind)
        return key if isinstance(key, str | int | float) else "key"

    def _program(self) -> bytes:
        """Return the packed program of a Bell state, one made as messages are, or a call."""
        part = self._random.random()
        if part < 0.5:
            return self._bell
        return bytes(_pack(self._struct(self._type(Program if part < 0.9 else TranspileCall))))

    def _body(self) -> bytes:
        """Return a heartbeat that an agent relays, or a noise document with some edges."""
        rng = self._random
        if rng.random() < 0.3:
            return bytes(_pack(self._struct(self._type(m.Heartbeat))))
        document: dict[str, Any] = json.loads(self._document)
        for _ in range(rng.choice((0, 1, 1, 2, 9))):
            value: Any = document
            while isinstance(value, dict | list) and value:
                place = rng.choice([*value] if isinstance(value, dict) else range(len(value)))
                parent, value = value, value[place]
            parent[place] = deepcopy(rng.choice((*_INTS, *_FLOATS, *_TEXTS, *_JSON)))
        return json.dumps(document).encode("utf-8", "surrogatepass")


class Exchange(NamedTuple):
    """Messages that were answered. `answers`: by kind, or code of a refusal; `longest`: of each
    kind of message, the longest time until an answer in seconds; `bells`: counts of the honest
    client's circuits."""

    answers: Counter[str]
    longest_s: dict[str, float]
    bells: list[dict[str, int]]
    sent: int


class _Peer:
    """A connection with its messages that wait for an answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.waiting: dict[int, deque[tuple[str, float, bytes]]] = {}
        self.in_flight = 0

    def send(self, kind: type, body: bytes) -> None:
        request = codec.request_of(body)
        now_s = time.monotonic()
        self.waiting.setdefault(request, deque()).append((kind.__name__, now_s, body))
        self.in_flight += 1
        self.connection.send(body)

    def receive(self, found: Exchange, timeout_s: float = 0.0) -> bool:
        """Take one message of the service; False if there is none."""
        body = self.connection.receive(timeout_s)
        if body is None:
            return False
        answer = codec.to_client(body)
        entries = self.waiting.get(getattr(answer, "request", 0))
        if not entries or isinstance(answer, m.Completed):
            return True  # the results of a task, or a second answer to WatchResults
        kind, sent_s, _ = entries.popleft()
        if not entries:
            del self.waiting[getattr(answer, "request", 0)]
        self.in_flight -= 1
        found.longest_s[kind] = max(found.longest_s.get(kind, 0.0), time.monotonic() - sent_s)
        if not isinstance(answer, m.Refused):
            found.answers[type(answer).__name__] += 1
            return True
        found.answers[answer.refusals[0].code] += 1
        if answer.refusals[0].code == InternalError.code:
            raise AssertionError(f"{kind}: {answer.refusals[0]}")
        return True


def exchange(client: Client, folder: Path, count: int, seed: int) -> Exchange:
    """Send so many messages to an environment with the pools POOL and HONEST, which listens for
    other machines. `client`: of its own user, which cancels what was accepted. Raises
    AssertionError for a message without an answer, or answered as a fault of the service."""
    generator, rng = MessageGenerator(seed), random.Random(seed)
    file = read(Path(client.service))
    found = Exchange(Counter(), {}, [], count)
    client.accounts.set(HONEST, users=(HONEST, *KEYS))  # of the messages, accounts come and go
    honest_file, _ = remote_key(client, HONEST, folder)
    with ExitStack() as stack:
        honest = stack.enter_context(simenv.connect(service=honest_file))
        sockets = Path(file.sockets)
        local = stack.enter_context(closing(UnixConnection(sockets / CLIENT_STREAM, b"typed")))
        worker = stack.enter_context(closing(UnixConnection(sockets / WORKER_STREAM, b"typed")))
        kinds: list[type] = [*CLIENT_KINDS, *_MANY * 3]
        peers = [_Peer(local)]
        for name in _KEYS:
            client.keys.add(name, "client")
        for name in KEYS:
            _, user_key = remote_key(client, name, folder, role=name)
            client.set_limits(name, {"max_messages_per_s": 0, "max_queued_tasks": 100})
            opened = CurveConnection(
                user_key.address, user_key.server_key, user_key.keys, b"typed-" + name.encode()
            )
            peers.append(_Peer(stack.enter_context(closing(opened))))
        for number in range(1, count + 1):
            if rng.random() < WORKERS_SHARE:
                worker.send(generator.message(rng.choice(WORKER_KINDS), number))
                while worker.receive(0.0) is not None:
                    pass
            else:
                peer = rng.choices(peers, SHARES)[0]
                peer.send(*_harmless(generator, rng.choice(kinds), number))
                _receive_until(peers, found, [peer], WINDOW)
            is_last = number == count
            if is_last or number % CANCEL_EVERY == 0:  # what follows reads no answers
                _receive_until(peers, found, peers, 0)
                _, waiting = client.queue(limit=10_000)
                client.cancel([info.id for info in waiting if info.pool == POOL])
            if is_last or number % BELL_EVERY == 0:
                found.bells.append(dict(honest.run(BELL, shots=100, pool=HONEST).counts))
    return found


def _receive_until(
    peers: Sequence[_Peer], found: Exchange, waits: Sequence[_Peer], most: int
) -> None:
    """Take the answers that have come, of all connections, until those of `waits` have no more than
    `most` messages in flight."""
    end_s = time.monotonic() + ANSWER_S
    while True:
        while sum(peer.receive(found) for peer in peers):
            pass
        if sum(peer.in_flight for peer in waits) <= most:
            return
        if time.monotonic() > end_s:
            sent = [each[0] for peer in peers for each in peer.waiting.values()]
            raise AssertionError(f"no answer to {[(kind, body[:200]) for kind, _, body in sent]}")
        max(peers, key=lambda peer: peer.in_flight).receive(found, LOOK_S)


def _harmless(generator: MessageGenerator, kind: type, number: int) -> tuple[type, bytes]:
    """Return a kind and a message that the rules of this module allow."""
    while not _is_harmless(body := generator.message(kind, number)):
        pass
    return kind, body


# Messages to a device; without a name they are to the whole environment.
_DEVICE = (admin.SetProfile, admin.SetPolicy, admin.SteerTarget, admin.SetDispatch, admin.SetOrder)


def _is_harmless(body: bytes) -> bool:
    """Return whether a message may be sent by the rules of this module."""
    try:
        message: Any = codec.from_client(body)
    except ProtocolError:
        return True
    match message:
        case credentials.RevokeKey() | credentials.RotateKey():
            return message.name not in ("", *KEYS)
        case accounting.SetLimits():
            return message.owner not in KEYS
        case admin.AddCalendarEntry():  # a maintenance of all nodes
            return message.entry.ask is not None or bool(message.entry.node)
        case m.Submit():
            return len(message.tasks) <= 50
    return not isinstance(message, _DEVICE) or bool(message.device)
