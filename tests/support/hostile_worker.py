"""A worker that is an attacker: messages of all kinds, of any values, with credentials of its own.

It has what a worker's process has: its sockets, its tasks with their attempts, its folder. It also
knows the names, tasks and files of others. All is drawn from one seed.
"""

import os
import random
import types
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from simenv.model import RESULT_FORMAT, Origin, ResultData, ResultFile
from simenv.result_files import attempt_file
from simenv.wire import codec
from simenv.wire.messages import client as m

EXTREMES = (0, 1, 2, 7, 2**16, 2**31 - 1, 2**31, 2**53, 2**62, 2**63 - 2, 2**63 - 1)
INVALID = (-1, 2**63, 2**64, 1e300, float("nan"), float("inf"), None, "x", b"\xff", [], {}, True)
DEEP = b"\x91" * 100_000 + b"\xc0"


@dataclass
class Targets:
    """What the attacker knows of others, and of itself."""

    worker: str
    start: int
    epoch: int
    others: list[str]  # workers
    foreign: list[tuple[int, int]]  # tasks and attempts
    files: list[str]  # that are not its own, by absolute path
    results: Path  # folder of results
    folder: Path  # its own
    own: list[m.AssignedTask] = field(default_factory=list)  # that it has not answered


def results_message(
    results: list[m.AttemptResult], worker: str, slots: int = 1
) -> m.AttemptResults:
    """Results as a worker sends them, with what else the message has room for."""
    values = {"origin": Origin(worker, "n", 1, "1"), "engine": "statevector", "route": "t"}
    values |= {"slots": slots, "results": results}
    return m.AttemptResults(**{name: values[name] for name in m.AttemptResults.__struct_fields__})


class HostileWorker:
    """Maker of messages and files."""

    def __init__(self, seed: int, targets: Targets) -> None:
        self.random = random.Random(seed)
        self.at = targets
        self._kinds: dict[type, Callable[[], Any]] = {
            each: self._maker(each) for each in get_args(m.FromWorker)
        }

    def message(self) -> bytes:
        """One message: well formed with hostile values, of wrong types, or damaged bytes."""
        draw = self.random.random()
        kind = self.random.choice([m.AttemptResults, m.AttemptResults, *self._kinds])
        body = codec.encode(self._kinds[kind]())
        if draw < 0.7:
            return body
        if draw < 0.85:
            return self._with_wrong_types(body)
        return self._damaged(body)

    def answer(self, assigned: m.AssignedTask) -> bytes:
        """Results that name an own task, and are believable but for some of it."""
        pick, own = self.random.choice, (assigned.task, assigned.attempt)
        task, attempt = own if self.random.random() < 0.8 else pick([own, *self.at.foreign])
        payload = pick([self._payload, self._payload_of_file])()
        checksum = zlib.crc32(payload) if self.random.random() < 0.9 else self._number()
        file = pick(["", "", attempt_file(task, attempt), self._file()])
        state = self.random.randrange(2, len(m.STATES))
        named: dict[str, Any] = {
            "task": task,
            "attempt": attempt,
            "state": state,
            "payload": payload,
        }
        named |= {"checksum": checksum, "file": file}
        for each in m.AttemptResult.__struct_fields__:
            if each not in named:
                named[each] = min(pick([0, 1, 1_000, self._number()]), 2**63 - 1)
        results = [m.AttemptResult(**named)] * pick([1, 1, 1, 2, 50])
        return codec.encode(results_message(results, self.at.worker, self._number()))

    def plant(self) -> None:
        """Make, swap or remove something in the folder, where the service may look."""
        pick, at = self.random.choice, self.at
        names = ["tmp/x", "0/x", "checkpoints/x", self._file()]
        names += [attempt_file(each.task, each.attempt) for each in at.own]
        path = at.folder / pick(names).lstrip("/")
        target = pick([*at.files, str(at.results), "/", "/dev/zero", "/proc/self/environ", "."])
        with suppress(OSError, ValueError):
            if ".." in path.parts:
                return
            kind = self.random.randrange(8)
            if kind == 0 and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
                path.parent.symlink_to(Path(pick(at.files)).parent)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.resolve().is_relative_to(at.folder.resolve()):
                return  # a confined process cannot write there
            if kind == 1:
                path.mkdir(parents=True)
                (path / "big").write_bytes(b"x" * 1_000)
            elif kind == 2:
                os.mkfifo(path)
            elif kind == 3:
                os.link(pick(at.files), path)
            elif kind == 4:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
                os.write(file, self.random.randbytes(self.random.randrange(2_000)))
                os.close(file)
            elif kind == 5:
                path.unlink()
            else:
                path.unlink(missing_ok=True)
                path.symlink_to(target)

    def _payload(self) -> bytes:
        pick = self.random.choice
        honest = codec.encode(ResultData(RESULT_FORMAT, (), 0, 0, 0))
        return bytes(
            pick([honest, b"", b"\xc1" * 50, DEEP, honest[:-1], self.random.randbytes(40)])
        )

    def _payload_of_file(self) -> bytes:
        number = self.random.choice([0, 1, 4_096, 2**40, 2**63 - 1])
        file = ResultFile(self._file(), number, self.random.choice([0, 2**32 - 1]), ())
        return codec.encode(ResultData(RESULT_FORMAT, (), 0, 0, 0, file=file))

    def _file(self) -> str:
        at = self.at
        task, attempt = self.random.choice([*at.foreign, (1, 1)])
        outside = [f"../../../../../..{path}" for path in at.files]
        own = os.path.relpath(at.folder, at.results)
        named = [attempt_file(task, attempt), "..", ".", "", "\0", "a" * 5_000, "token"]
        return str(self.random.choice([*at.files, *outside, *named, f"{own}/tmp/x", "workers"]))

    def _number(self) -> int:
        at, pick = self.at, self.random.choice
        known = [at.start, at.epoch, *(n for pair in at.foreign for n in pair)]
        known += [n for each in at.own for n in (each.task, each.attempt)]
        return int(pick([*EXTREMES, *known, *known, self.random.getrandbits(63)]))

    def _text(self) -> str:
        at = self.at
        texts = [at.worker, at.worker, *at.others, "", "\x1b[2J", "\0", "ü" * 9, "x" * 10_000]
        return str(self.random.choice([*texts, "../../x", self._file()]))

    def _maker(self, kind: Any) -> Callable[[], Any]:
        """Return a function that makes values of a type."""
        pick = self.random.choice
        if kind is Any or kind is type(None):
            return lambda: None
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            hints = get_type_hints(kind)
            makers = {
                each.name: self._maker(hints[each.name]) for each in msgspec.structs.fields(kind)
            }
            return lambda: kind(**{name: make() for name, make in makers.items()})
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._maker(args[0])
        if origin is Literal:
            return lambda: pick(args)
        if origin in (Union, types.UnionType):
            makers_of = [self._maker(each) for each in args]
            return lambda: pick(makers_of)()
        if origin in (list, tuple):
            if origin is tuple and args[-1:] != (...,):
                parts = [self._maker(each) for each in args]
                return lambda: tuple(make() for make in parts)
            one, make = self._maker(args[0]), origin
            return lambda: make(one() for _ in range(pick([0, 1, 1, 2, 5])))
        if origin is dict:
            key, value = map(self._maker, args)
            return lambda: {key(): value() for _ in range(pick([0, 1, 2]))}
        if isinstance(kind, type) and issubclass(kind, str):
            members = list(kind) if hasattr(kind, "__members__") else []
            return lambda: pick(members) if members else self._text()
        simple: dict[Any, Callable[[], Any]] = {
            int: self._number,
            bool: lambda: pick([True, False]),
            float: lambda: pick([0.0, 1.0, 1e300, 5e-324, float("nan"), float("inf"), -1.0]),
            bytes: self._payload,
        }
        return simple.get(kind, lambda: None)

    def _with_wrong_types(self, body: bytes) -> bytes:
        """Replace one value anywhere in a message."""
        try:
            decoded = msgspec.msgpack.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return body
        place = decoded
        while isinstance(place, list) and place:
            at = self.random.randrange(len(place))
            if not isinstance(place[at], list) or not place[at] or self.random.random() < 0.3:
                place[at] = self.random.choice([*INVALID, *EXTREMES])
                break
            place = place[at]
        try:
            return msgspec.msgpack.encode(decoded)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return body

    def _damaged(self, body: bytes) -> bytes:
        data = bytearray(body[:20_000] or b"\x90")
        for _ in range(self.random.randrange(1, 6)):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        return bytes(data[: self.random.randrange(len(data) + 1)])
