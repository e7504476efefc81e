"""Attacks of clients with a key: they send whatever the wire lets them and obey no answer.

Each attack is a function of a key file, a time and what was prepared for it, so that the test that
asserts survival and the benchmark that measures the other clients run the same ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import msgspec
import numpy as np
import psutil
import zmq

from simenv.client.client import Client
from simenv.client.submission.prepare import prepare_one
from simenv.errors import ProtocolError
from simenv.model import (
    PROGRAM_FORMAT,
    AdmissionReason,
    Observable,
    Program,
    ReservationRequest,
    TaskOptions,
    TaskSpec,
)
from simenv.model.calls import CALL_FORMAT, TRANSPILER, TranspileCall
from simenv.model.options import VALUE
from simenv.wire import codec
from simenv.wire.keyfiles import UserKeyFile
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import DecisionReply, Reserve
from simenv.wire.messages.explain import Explain
from simenv.wire.messages.history import GetSpec
from simenv.wire.messages.queries import CHUNK_BYTES, FetchResult, StoreNoise
from simenv.wire.transport.connection_limiter import MAX_UNAUTHENTICATED

SEALED_BYTES = 4_096  # below the limit of a message by so much
PREPARED_S = 300.0
ANSWERS_S = 60.0  # to wait for the first refusal
REFUSED_PER_S = 3_000
MANY_TASKS = 1_000_000
MESSAGE_TASKS = 500
TEN_YEARS_NS = 3_650 * 86_400 * 10**9
WIDE_QUBITS = 20  # whose amplitudes take a file of 16 MiB
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
BELL += "measure q -> c;"


class Prey(msgspec.Struct, frozen=True):
    """What the attacker's own tasks left in the service."""

    large_spec: int  # a task whose program has megabytes
    result_task: int  # one whose result is a file
    result_file: str
    tiny_program: bytes  # packed, of two qubits


def prepare(client: Client) -> Prey:
    """Run, as an ordinary client, what an attack asks for again and again."""
    from qiskit import QuantumCircuit

    state = QuantumCircuit(18)
    for qubit in range(18):
        state.ry(0.1 + qubit, qubit)
    large = client.submit(_long(400_000), shots=1)
    stored = client.submit(state, outputs=("statevector",))
    for task in (large, stored):
        task.result(PREPARED_S)
    file = stored.result()._data.file
    assert file is not None
    tiny = prepare_one(BELL, {"shots": 1}).specs[0].program
    return Prey(large.handle.number, stored.handle.number, file.name, tiny)


def _long(gates: int, qubits: int = 1, angle: float = 0.1) -> Program:
    """Return a program of so many rotations of one qubit, 12 bytes each and soon run, a chain of
    CNOTs and rotations that entangles it with the others, and the measurement of all."""
    chain = np.array([0, 1] * (qubits - 1), np.uint16)  # rows of the table below
    ops = np.concatenate((np.zeros(gates, np.uint16), chain, np.full(qubits, 2, np.uint16)))
    places = [0] * gates + [k for pair in range(qubits - 1) for k in (pair, pair, pair + 1)]
    table = np.array([[1, 0, 1], [2, 0, 0], [1, 1, 0]], np.uint16)
    return Program(
        PROGRAM_FORMAT, qubits, qubits, (("c", qubits),), ("ry", "cx", "measure"), table.tobytes(),
        ops.tobytes(), np.array([*places, *range(qubits)], np.uint16).tobytes(),
        np.arange(qubits, dtype=np.uint16).tobytes(), np.full(gates + qubits - 1, angle).tobytes(),
    )  # fmt: skip


@contextmanager
def connections(
    person: UserKeyFile, count: int, read_ahead: int = 1_000
) -> Iterator[list[zmq.Socket[bytes]]]:
    """So many, each with its own socket; `read_ahead`: messages the client's library reads before
    it is asked to."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, 2 * count + 16)
    entries = []
    for number in range(count):
        socket = context.socket(zmq.DEALER)
        socket.set(zmq.CURVE_SERVERKEY, person.server_key.encode())
        socket.set(zmq.CURVE_PUBLICKEY, person.public_key.encode())
        socket.set(zmq.CURVE_SECRETKEY, person.secret_key.encode())
        socket.set(zmq.IDENTITY, b"hostile %d" % number)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, read_ahead)
        socket.set(zmq.SNDHWM, 8)
        socket.connect(person.address)
        entries.append(socket)
    try:
        yield entries
    finally:
        context.destroy(linger=0)


def flood(
    sockets: list[zmq.Socket[bytes]],
    bodies: list[bytes],
    seconds: float,
    *,
    reads: bool,
    pause_s: float = 0.0,
) -> Counter[str]:
    """Send these bodies through all of them in turn until the time is up and, where answers are
    read, something was refused; the codes of the refusals."""
    codes: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    place = 0
    while (now := time.monotonic()) < deadline or (
        reads and not codes and now < deadline + ANSWERS_S
    ):
        sent = False
        for socket in sockets:
            try:
                socket.send(bodies[place % len(bodies)], zmq.NOBLOCK)
                sent = True
            except zmq.Again:
                pass
            place += 1
            if reads:
                codes += answers(socket)
        time.sleep(pause_s if sent else 0.002)
    return codes


def answers(socket: zmq.Socket[bytes]) -> Counter[str]:
    """The codes of the refusals that are here already."""
    codes: Counter[str] = Counter()
    while True:
        try:
            body = socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return codes
        try:
            answer = codec.to_client(body)
        except ProtocolError:
            codes["not a message"] += 1
            continue
        if isinstance(answer, m.Refused):
            codes.update(refusal.code for refusal in answer.refusals)
        elif isinstance(answer, DecisionReply) and answer.decision.status != "accepted":
            codes[AdmissionReason(answer.decision.code).name.lower()] += 1


# --- the attacks ---------------------------------------------------------------------------------


def never_reads(person: UserKeyFile, seconds: float, prey: Prey) -> Counter[str]:
    """Asks for megabytes in questions of a few bytes, and reads nothing."""
    fetch = partial(FetchResult, task=prey.result_task, file=prey.result_file)
    entries = [
        codec.encode(fetch(1, offset=0, size_bytes=CHUNK_BYTES)),
        codec.encode(GetSpec(2, prey.large_spec)),
        codec.encode(m.GetCompletions(3)),
        codec.encode(m.WatchResults(4, [prey.large_spec, prey.result_task] * 500)),
    ]
    with connections(person, 16, read_ahead=1) as sockets:
        flood(sockets, entries, seconds, reads=False)
        codes: Counter[str] = Counter()
        end = time.monotonic() + 5.0
        while not codes and time.monotonic() < end:  # what was refused before it was cut off
            for socket in sockets:
                codes += answers(socket)
        return codes


def giant_messages(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """Messages as large as may be, of whatever takes long to read or to look at."""
    limit = m.FAR_MESSAGE_BYTES - SEALED_BYTES
    tiny = TaskSpec(b"", 1, 1)
    tasks = m.Submit(1, "~k", 0, TaskOptions(), [tiny] * (limit // len(codec.encode(tiny)) - 100))
    labels = Observable(("X",) * (limit // 2 - 1_000), b"")
    bodies = [
        codec.encode(tasks),
        codec.encode(m.Submit(2, "~k", 0, TaskOptions(observables=(labels,)), [tiny])),
        codec.encode(m.Submit(3, "~k", 0, TaskOptions(), [TaskSpec(bytes(limit), 1, 1)])),
        codec.encode(m.Submit(4, "k" * limit, 0, TaskOptions(), [tiny])),
        codec.encode(m.WatchResults(5, [2**40] * (limit // 9 - 100))),
        b"\xc1" * limit,
        b"\x91" * limit,
    ]
    with connections(person, 64) as sockets:
        codes = flood(sockets, bodies, seconds, reads=True)
    with connections(person, 4) as sockets:
        too_large = bytes(m.FAR_MESSAGE_BYTES + SEALED_BYTES)
        flood(sockets, [too_large], min(1.0, seconds), reads=False)
    return codes


def half_messages(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """Much in flight on many connections at once, so that what is read ahead of the service is as
    much as it can be."""
    limit = m.FAR_MESSAGE_BYTES - SEALED_BYTES
    body = codec.encode(m.Submit(1, "~k", 0, TaskOptions(), [TaskSpec(bytes(limit - 4_096), 1, 1)]))
    with connections(person, 100) as sockets:
        return flood(sockets, [body], seconds, reads=True)


def many_connections(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """A thousand connections, each of which asks without end. Before, as many as are not cut off
    while they are new, however slow their handshakes: of these, too many for one key are told."""
    hello = codec.encode(m.Hello(m.PROTOCOL, "0.1.0", "~hostile"))
    bodies = [hello, codec.encode(m.Ping(2)), codec.encode(m.GetQueue(3, done=True, limit=10_000))]
    with connections(person, MAX_UNAUTHENTICATED - 100) as sockets:
        codes = flood(sockets, bodies, seconds / 2, reads=True)
    with connections(person, 1_000) as sockets:
        flood(sockets, bodies, seconds / 2, reads=False)
    return codes


def million_tasks(person: UserKeyFile, seconds: float, prey: Prey) -> Counter[str]:
    """A million tasks of one shot each, as fast as they can be sent."""
    tasks = [TaskSpec(prey.tiny_program, 1, seed) for seed in range(MESSAGE_TASKS)]
    codes: Counter[str] = Counter()
    sent, deadline = 0, time.monotonic() + seconds
    with connections(person, 1) as (socket,):
        while sent < MANY_TASKS and (
            (now := time.monotonic()) < deadline or (not codes and now < deadline + ANSWERS_S)
        ):
            body = codec.encode(m.Submit(sent + 1, f"~many{sent}", 0, TaskOptions(), tasks))
            try:
                socket.send(body, zmq.NOBLOCK)
                sent += MESSAGE_TASKS
            except zmq.Again:
                time.sleep(0.002)
            codes += answers(socket)
    return codes


def noise_documents(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """Noise documents that take long to parse, each another one, over 4 connections."""
    bodies = [
        codec.encode(StoreNoise(number + 1, noise_document(kind, 2**20 - 1_000, number)))
        for number in range(8)
        for kind in ("numbers", "lists", "key", "gates")
    ]
    with connections(person, 4) as sockets:
        return flood(sockets, bodies, seconds, reads=True)


def noise_document(kind: str, size_bytes: int, number: int = 0) -> bytes:
    """A document of this size whose contents are numbers, empty lists, one key, or gates."""
    items = {"numbers": f"1.{number}", "lists": "[]", "key": "", "gates": _GATE}
    text = items[kind]
    if not text:
        return b'{"kind":"snapshot","%s":%d}' % (b"a" * (size_bytes - 50), number)
    count = size_bytes // (len(text) + 1) - 10
    field = "gates" if kind == "gates" else "x"
    return f'{{"kind":"snapshot","{field}":[{",".join([text] * count)}]}}'.encode()


_GATE = '{"name":"rz","qubits":[0],"error":0.0,"duration_ns":0.0}'


def refused_submits(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """Small submits that are refused, REFUSED_PER_S of them, over 4 connections."""
    tasks = [TaskSpec(b"\xa1" * 100, 1, 1)]
    bodies = [
        codec.encode(m.Submit(number, f"~r{number}", 0, TaskOptions(), tasks))
        for number in range(1, 1_000)
    ]
    codes: Counter[str] = Counter()
    begin = time.monotonic()
    sent = 0
    with connections(person, 4) as sockets:
        while (now := time.monotonic()) < begin + seconds or (
            not codes and now < begin + seconds + ANSWERS_S
        ):
            due = round((now - begin) * REFUSED_PER_S)
            while sent < due:
                with suppress(zmq.Again):
                    sockets[sent % 4].send(bodies[sent % len(bodies)], zmq.NOBLOCK)
                sent += 1
            for socket in sockets:
                codes += answers(socket)
            time.sleep(0.001)
    return codes


def large_programs(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """Programs of megabytes to explain and to submit, valid and not, over 4 connections."""
    order = prepare_one(_long(200_000), {"shots": 1})
    program = order.specs[0].program
    bodies = [
        codec.encode(Explain(1, TaskOptions(), program, 1)),
        codec.encode(Explain(2, TaskOptions(), bytes(program)[:-1] + b"\xc1", 1)),
        codec.encode(m.Submit(3, "~p", 0, order.terms, order.specs)),
        codec.encode(m.Submit(4, "~q", 0, TaskOptions(), [TaskSpec(b"\xa1" * 2**22, 1, 1)])),
    ]
    with connections(person, 4) as sockets:
        return flood(sockets, bodies, seconds, reads=True)


def ten_years(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """Reservations of ten years, and of all workers for as long as is allowed."""
    asks = [
        ReservationRequest(request_id="long", device="main", ttl_ns=TEN_YEARS_NS),
        ReservationRequest(request_id="wide", device="main", ttl_ns=TEN_YEARS_NS, workers=1),
        ReservationRequest(request_id="all", device="main", ttl_ns=10**9, workers=1),
    ]
    bodies = [codec.encode(Reserve(number, ask)) for number, ask in enumerate(asks, 1)]
    with connections(person, 4) as sockets:
        return flood(sockets, bodies, seconds, reads=True, pause_s=0.001)


def fills_disk(person: UserKeyFile, seconds: float, _: Prey) -> Counter[str]:
    """Results of 16 MiB each, until nothing more is accepted; for a service on a small disk."""
    circuit = "OPENQASM 3.0; include 'stdgates.inc'; ".replace("'", '"')
    circuit += f"qubit[{WIDE_QUBITS}] q; " + " ".join(f"h q[{k}];" for k in range(WIDE_QUBITS))
    order = prepare_one(circuit, {"shots": None, "outputs": ("statevector",)})
    codes: Counter[str] = Counter()
    number, deadline = 0, time.monotonic() + seconds + ANSWERS_S
    with connections(person, 1) as (socket,):
        while not codes and time.monotonic() < deadline:
            number += 1
            body = codec.encode(m.Submit(number, f"~disk{number}", 0, order.terms, order.specs))
            socket.send(body)
            time.sleep(0.05)
            codes += answers(socket)
    return codes


Attack = Callable[[UserKeyFile, float, Prey], Counter[str]]
ON_SMALL_DISK = {"fills_disk"}  # needs a service whose disk it can fill
ATTACKS: dict[str, Attack] = {each.__name__: each for each in (
    never_reads, giant_messages, half_messages, many_connections, million_tasks, noise_documents,
    large_programs, refused_submits, ten_years, fills_disk,
)}  # fmt: skip


def run(name: str, person: UserKeyFile, seconds: float, prey: Prey, results: Any) -> None:
    """Run an attack in a process of its own; put the codes of the refusals into a queue."""
    results.put(ATTACKS[name](person, seconds, prey))


# --- refused messages, one kind for each path of a message ---------------------------------------

BODY_BYTES = 7 * 2**20
WARM_UP_MESSAGES = 4

GARBAGE = b"\xa1" * BODY_BYTES
GATE_BYTES = 12  # of a rotation in a packed program
WIDE = 60  # qubits: too many for a state vector
LABEL_QUBITS = 156
DEVICE_QUBITS, DEVICE_OPERATIONS = 100, 190_000  # of 5 bytes each


def _valid(number: int, qubits: int = 1) -> bytes:
    """Return a valid packed program of BODY_BYTES whose angles are those of this number alone."""
    return _long(BODY_BYTES // GATE_BYTES, qubits, 0.1 + 1e-6 * number).packed()


def _invalid(number: int) -> bytes:
    """Return a program of BODY_BYTES whose last measurement is of a qubit that it does not have."""
    program = _long(BODY_BYTES // GATE_BYTES, WIDE, 0.1 + 1e-6 * number)
    return msgspec.structs.replace(program, num_qubits=WIDE - 1).packed()


@cache
def _operations() -> msgspec.Raw:
    operations = [("x", (number % DEVICE_QUBITS,)) for number in range(DEVICE_OPERATIONS)]
    return msgspec.Raw(msgspec.msgpack.encode(operations))


def _transpile(number: int) -> bytes:
    """Return a valid call of the compiler, for a device of its own of nearly 1 MiB."""
    device = {
        "name": f"own-{number}", "kind": "ideal", "provider": "simenv", "model": "", "version": "",
        "technology": "simulator", "num_qubits": DEVICE_QUBITS, "max_shots": 0, "gates": (),
        "all_to_all": False, "operations": _operations(),
    }  # fmt: skip
    packed = msgspec.msgpack.encode(device)
    circuit = bytes(BODY_BYTES - len(packed) - 1_000)  # the service does not read it
    return codec.encode(TranspileCall(CALL_FORMAT, packed, 1, number, 13, 0, (circuit,)))


@cache
def _snapshot() -> dict[str, Any]:
    from noise_models import library, snapshot

    result: dict[str, Any] = msgspec.json.decode(snapshot.dump(library.load("fez")))
    return result


def _late_noise(number: int) -> bytes:
    """Return the noise document of a device, with one wrong value at its end."""
    return msgspec.json.encode(_snapshot() | {"version": f"v{number}", "dt_ns": -1.0})


def _observables(number: int) -> TaskOptions:
    """Return options for a device with a Pauli sum of BODY_BYTES."""
    text = "Z" * LABEL_QUBITS
    labels = (text,) * (BODY_BYTES // (LABEL_QUBITS + 11))
    weights = np.full(len(labels), float(number)).tobytes()
    return TaskOptions(
        device="fez", outputs=("expectation",), observables=(Observable(labels, weights),)
    )


@cache
def _wide() -> bytes:
    """Return the packed program of one gate on a device of LABEL_QUBITS."""
    return Program(
        *(2, LABEL_QUBITS, 0, (), ("x",), np.array([1, 0, 0], np.uint16).tobytes()),
        *(bytes(2), bytes(2), b"", b""),
    ).packed()


def _submit(number: int, terms: TaskOptions, program: bytes) -> m.Submit:
    return m.Submit(number, f"~r{number}", 0, terms, [TaskSpec(program, 1, number)])


# Refused by their size or as they are decoded.
BODIES: dict[str, Callable[[int], m.FromClient]] = {
    "large_noise": lambda number: StoreNoise(number, noise_document("numbers", BODY_BYTES)),
    "noise": lambda number: StoreNoise(number, noise_document("numbers", 2**20 - 1_000)),
    "submit": lambda number: _submit(number, TaskOptions(), GARBAGE),
    "submit_same_key": lambda number: m.Submit(
        number, "k", 0, TaskOptions(), [TaskSpec(GARBAGE, 1, number)]
    ),
    "explain": lambda number: Explain(number, TaskOptions(), GARBAGE, 1),
    "unknown_device": lambda number: Explain(
        number, TaskOptions(device=f"none-{number}"), GARBAGE, 1
    ),
    "text": lambda number: m.Submit(number, "k" * BODY_BYTES, 0, TaskOptions(), []),
    # Well-formed, and refused after they were decoded, each for a reason of its own.
    "wide_submit": lambda number: _submit(
        number, TaskOptions(engine="statevector"), _valid(number, WIDE)
    ),
    "invalid_explain": lambda number: Explain(number, TaskOptions(), _invalid(number), 1),
    "shots_submit": lambda number: m.Submit(
        number, f"~r{number}", 0, TaskOptions(), [TaskSpec(_valid(number), 2**60, number)]
    ),
    "unknown_device_submit": lambda number: _submit(
        number, TaskOptions(device=f"none-{number}"), _valid(number)
    ),
    "unknown_snapshot": lambda number: _submit(
        number, TaskOptions(device="fez", snapshot=f"{number:064x}"), _valid(number)
    ),
    "noisy_observables": lambda number: m.Submit(
        number, f"~r{number}", 0, _observables(number), [TaskSpec(_wide(), 2**60, number)]
    ),
    "late_noise": lambda number: StoreNoise(number, _late_noise(number)),
    "transpile": lambda number: m.Submit(
        number,
        f"~r{number}",
        0,
        TaskOptions(engine=TRANSPILER, outputs=(VALUE,)),
        [TaskSpec(_transpile(number), 2**60, number)],
    ),
}


def growth_bytes(service: psutil.Process, person: UserKeyFile, name: str, count: int) -> int:
    """Have `count` messages of a kind refused. Return the growth of the service's memory since the
    first WARM_UP_MESSAGES."""
    with connections(person, 1) as (socket,):
        for number in range(WARM_UP_MESSAGES):
            _refused(socket, BODIES[name](number + 1))
        before: int = service.memory_info().rss
        for number in range(count):
            _refused(socket, BODIES[name](number + 10))
        return int(service.memory_info().rss) - before


def _refused(socket: zmq.Socket[bytes], message: m.FromClient) -> None:
    """Send a message and wait for its refusal; a message that came too fast is sent again."""
    body = codec.encode(message)
    while True:
        socket.send(body)
        assert socket.poll(ANSWERS_S * 1000)
        answer = codec.to_client(socket.recv())
        assert isinstance(answer, m.Refused)
        if answer.refusals[0].code != "queue_full":
            return
        time.sleep(answer.refusals[0].retry_after_s)
