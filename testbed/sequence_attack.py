"""Attack with pulse sequences: hostile texts through a client's reader, and calls past it.

A text is read in a process with bounds, as the gateway reads that of its users. What it refuses is
sent to the service all the same, in a call with sizes that lie. Both come from a key, so that the
worker samples them in a process of its own.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import NamedTuple

import msgspec
import psutil

from simenv.client.client import Client
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.pulses import pack_pulses
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError, TaskFailedError
from simenv.model import TaskOptions, TaskSpec, calls, pulses
from simenv.model.options import VALUE
from simenv.sandbox.function_process import SandboxProcess
from simenv.wire import codec

VALUES = {"rabi": [2.0, 3.0], "duration": 60}
SHOTS = 10
A_ROUND = 40  # documents that are read and sent before their ends are awaited
RUN_S = 5.0  # of a task: one in some dozens is changed to run for hours
PATIENCE_S = 300.0
LOOK_S = 0.1
MOST_CHARS = 1_000  # of a message
# Errors that nothing foresaw: an exception's class, with its file and line in a worker.
UNFORESEEN = re.compile(r"\(\w+\.py:\d+, in |cannot be (read|sampled|placed): \w+$|Traceback")


class Attack(NamedTuple):
    """Ends of all documents. `unforeseen`: kind of document and text of errors that nothing
    foresaw; `longest_s`: to read a document, by kind."""

    ends: Counter[str]
    unforeseen: list[tuple[str, str]]
    longest_s: dict[str, float]


def packed(text: bytes) -> bytes:
    """Read a sequence as a client does: a text in, a PulseCall out."""
    program = text.decode("utf-8", "surrogatepass")
    values = VALUES if '"rabi"' in program else None
    return pack_pulses(program, {"shots": SHOTS, "parameter_values": values, "noise": "off"})


def attacked(client: Client, documents: Sequence[tuple[str, str]], seed: int) -> Attack:
    """Send all documents with this client, which has a key."""
    reader = SandboxProcess(__name__, "packed", "pulse sequence", ("reading", "read"), 20.0)
    found = Attack(Counter(), [], {})
    rng = random.Random(seed)
    sent: list[tuple[str, Task]] = []
    try:
        for number, (kind, text) in enumerate(documents, 1):
            begin = time.monotonic()
            call = _read(reader, text, found, kind)
            took_s = time.monotonic() - begin
            found.longest_s[kind] = max(found.longest_s.get(kind, 0.0), took_s)
            if call is None or rng.random() < 0.2:
                call = _forged(rng, text, call)
            if (task := _submitted(client, call, found, kind)) is not None:
                sent.append((kind, task))
            if number % A_ROUND == 0 or number == len(documents):
                for place, task in sent:
                    found.ends[f"service: {_ended(task, found, place)}"] += 1
                sent.clear()
    finally:
        reader.close()
    return found


def _read(reader: SandboxProcess, text: str, found: Attack, kind: str) -> pulses.PulseCall | None:
    try:
        answer = reader.convert(text.encode("utf-8", "surrogatepass"))
    except SimenvError as error:
        _note(found, kind, error)
        found.ends[f"client: {type(error).__name__}"] += 1
        return None
    found.ends["client: accepted"] += 1
    return msgspec.msgpack.decode(answer, type=pulses.PulseCall)


def _forged(rng: random.Random, text: str, call: pulses.PulseCall | None) -> pulses.PulseCall:
    """Return a call past the client, whose sizes and options lie."""
    sizes = pulses.PulseSizes(
        rng.choice((1, 3, 3, 20, 28)), rng.choice((1, 2, 64)), rng.choice((4, 100, 200_000))
    )
    if call is None:
        given = (("rabi", (2.0, 3.0)), ("duration", (60.0,))) if '"rabi"' in text else ()
        call = pulses.PulseCall(calls.CALL_FORMAT, text, sizes, ("counts",), given)
    match rng.randrange(6):
        case 0:
            return msgspec.structs.replace(call, sizes=sizes)
        case 1:
            return msgspec.structs.replace(call, noise=text, trajectories=10)
        case 2:
            return msgspec.structs.replace(call, modulation=True)
        case 3:
            huge = tuple((name, tuple(1e300 for _ in many)) for name, many in call.variables)
            return msgspec.structs.replace(call, variables=huge)
        case 4:
            wide = pulses.PulseSizes(rng.choice((0, -1, 10**6, 2**62)), 1, 100)
            return msgspec.structs.replace(call, sizes=wide)
        case _:
            return call


def _submitted(client: Client, call: pulses.PulseCall, found: Attack, kind: str) -> Task | None:
    terms = TaskOptions(outputs=(VALUE,), engine=pulses.RYDBERG, run_timeout_s=RUN_S)
    try:
        spec = TaskSpec(codec.encode(call), SHOTS, 1)
        return send(client.session, PreparedSubmit(terms, [spec], single=True), None)[0]
    except SimenvError as error:
        _note(found, kind, error)
        found.ends[f"service: {type(error).__name__}"] += 1
        return None


def _ended(task: Task, found: Attack, kind: str) -> str:
    try:
        task.result(PATIENCE_S)
    except TaskFailedError as error:
        _note(found, kind, error)
        return f"failed, {error.reason}"
    except SimenvError as error:
        _note(found, kind, error)
        return type(error).__name__
    return "ran"


def _note(found: Attack, kind: str, error: SimenvError) -> None:
    """Note an error that nothing foresaw, that is long, or that a terminal would obey."""
    text = error.message
    if UNFORESEEN.search(text) or not text.isprintable() or len(text) > MOST_CHARS:
        found.unforeseen.append((kind, text[:MOST_CHARS]))


@contextmanager
def peaks(processes: dict[str, psutil.Process]) -> Iterator[dict[str, int]]:
    """Yield the peaks of memory in bytes of processes, and of the children of each."""
    found = dict.fromkeys([*processes, *(f"{name}, children" for name in processes)], 0)
    over = Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            for name, process in processes.items():
                with suppress(psutil.Error):
                    found[name] = max(found[name], process.memory_info().rss)
                    for child in process.children(recursive=True):
                        size = child.memory_info().rss
                        found[f"{name}, children"] = max(found[f"{name}, children"], size)

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
