"""Checks of result records, and of revision 1.

Result records of both revisions: fields, times, counts, bits, amplitudes. Revision 1: records,
InProgressError, events instead of the completion queue.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

from simenv.qpm_check import check, circuits, fields
from simenv.qpm_check.check import BOTH, CheckNotApplicable, TargetProperty, row
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import SHOTS, CheckSession, EventListener, counts_of
from simenv.qpm_check.target import expect, named, short_repr

STATEVECTOR = 2  # capability bit
CLOCK_S = 1.0  # tolerance of clocks of one machine, read in several processes


@row("record.fields", "a record has the contract's fields", revisions=BOTH)
def of_record(session: CheckSession) -> None:
    record = session.run()
    expected = fields.RECORD if session.revision == 1 else fields.COMPLETION
    fields.has("the record", record, expected)
    expect_equal("rc of a success", record["rc"], 0)


@row("record.times", "all seven times are there, as floats", revisions=BOTH)
def seven_times(session: CheckSession) -> None:
    for what, record in (
        ("sync_run", session.run()),
        ("read_cq", session.completion(session.submit())),
    ):
        for name in fields.TIMES:
            expect(name in record, f"the record of {what} has no {name!r}")
            kind = type(record[name])
            expect(kind in (float, int), f"{name!r} of {what} is a {kind.__name__}, not a float")


@row("record.order", "times come in their order", revisions=BOTH)
def order(session: CheckSession) -> None:
    record = session.completion(session.submit())
    reached = [(name, record[name]) for name in fields.TIMES if record.get(name, -1) != -1]
    for (before, first), (after, second) in itertools.pairwise(reached):
        expect(first <= second, f"{after} is {first - second:.6f} s before {before}")
    expect(record["exec_time"] != fields.NOT_REACHED, "exec_time of what ran is -1: it never began")


@row("record.clock", "times are seconds since the epoch, of this call", revisions=BOTH)
def clock(session: CheckSession) -> None:
    before = time.time()
    record = session.run()
    after = time.time()
    for name in ("creation_time", "exec_time", "completion_time"):
        moment = record[name]
        expect(
            before - CLOCK_S <= moment <= after + CLOCK_S,
            f"{name} is {moment:.3f}, but the call lasted from {before:.3f} to {after:.3f}",
        )


@row("record.dequeued", "cq_dequeue_time: set by read_cq, -1 otherwise", revisions=BOTH)
def dequeued(session: CheckSession) -> None:
    cid = session.submit()
    peeked = session.until(lambda: _peek(session, cid), "peek_cq")
    expect_equal("cq_dequeue_time of peek_cq", float(peeked["cq_dequeue_time"]), -1.0)
    read = session.completion(cid)
    at = read["cq_dequeue_time"]
    expect(at >= read["cq_enqueue_time"], f"read_cq: cq_dequeue_time {at} before cq_enqueue_time")


@row("counts.plain", "counts are {str: int}, Python's own", revisions=BOTH)
def plain(session: CheckSession) -> None:
    for name, count in session.counts(circuits.BELL).items():
        expect(type(name) is str, f"a key of the counts is of type {type(name).__name__}")
        expect(type(count) is int, f"counts[{name!r}] is of type {type(count).__name__}")
    expect("sync_run" not in session.impure, f"sync_run: {session.impure.get('sync_run')}")


@row("counts.sum", "counts sum to the shots", revisions=BOTH)
def total(session: CheckSession) -> None:
    for shots in (1, 7, 1_000):
        counts = session.counts(circuits.BELL, num_shots=shots)
        expect_equal(f"the sum of the counts of {shots} shots", sum(counts.values()), shots)
    queued = counts_of(session.completion(session.submit(num_shots=333)))
    expect_equal("the sum of the counts of 333 queued shots", sum(queued.values()), 333)


@row("counts.bits", "clbit 0 stands rightmost", revisions=BOTH)
def bits(session: CheckSession) -> None:
    expect_bits(session, circuits.FIRST_BIT, "001", "x on qubit 0")
    expect_bits(session, circuits.CROSSED, "100", "qubit 0 measured into bit 2")


@row("counts.registers", "registers: last declared first, a space between", revisions=BOTH)
def registers(session: CheckSession) -> None:
    expect_bits(session, circuits.REGISTERS, "10 001", "registers a[3] and b[2]")


@row("counts.right", "a Bell pair gives 00 and 11, near half each", revisions=BOTH)
def right(session: CheckSession) -> None:
    shots = 4_000
    counts = _text_keys(session.counts(circuits.BELL, num_shots=shots), "00")
    odd = shots - counts.get("00", 0) - counts.get("11", 0)
    expect(odd <= shots // 5, f"{odd} of {shots} shots are neither 00 nor 11")
    spread = abs(counts.get("00", 0) - counts.get("11", 0))
    expect(spread <= shots // 4, f"00 and 11 differ by {spread} of {shots} shots")


@row("circuits.gates", "every gate of a host's text is run", revisions=BOTH)
def gates(session: CheckSession) -> None:
    counts = session.counts(circuits.EVERY_GATE)
    expect_equal("the sum of the counts", sum(counts.values()), SHOTS)


@row("circuits.defined", "gates that the text itself defines are run", revisions=BOTH)
def defined(session: CheckSession) -> None:
    expect_bits(session, circuits.DEFINED, "01", "a gate the text defines")


@row("statevector.shape", "a state vector comes as its table says", revisions=BOTH)
def vector_shape(session: CheckSession) -> None:
    vector = _vector(session)
    expect_equal("type", vector.get("type"), "statevector")
    expect_equal("format", vector.get("format"), "complex128")
    expect_equal("num_qubits", vector.get("num_qubits"), 3)
    expect_equal("num_amplitudes", vector.get("num_amplitudes"), 8)
    data = vector.get("data")
    expect(isinstance(data, list) and len(data) == 8, "data is no list of 8 amplitudes")
    for pair in data or ():
        is_pair = isinstance(pair, list) and len(pair) == 2
        expect(is_pair and all(type(part) in (float, int) for part in pair),
               f"an amplitude is {pair!r}, not [re, im]")  # fmt: skip


@row("statevector.order", "qubit 0 is the least bit of an amplitude's index", revisions=BOTH)
def vector_order(session: CheckSession) -> None:
    for index, (real, imaginary) in enumerate(_vector(session)["data"]):
        size = math.hypot(real, imaginary)
        expected = math.sqrt(0.5) if index in (1, 5) else 0.0
        message = f"amplitude {index} has size {size:.3f}, not {expected:.3f}"
        expect(abs(size - expected) < 1e-3, message)


@row("info.unknown", "unknown keys are ignored", revisions=BOTH)
def unknown_keys(session: CheckSession) -> None:
    counts = session.counts(
        circuits.FIRST_BIT, qfw_backend="x", np=4, hosts={"a": 1}, a_key_of_tomorrow=[None]
    )
    expect_equal("the sum of the counts", sum(counts.values()), SHOTS)


@check.both("info.width", "num_qubits below the circuit's own, 0 too: the circuit's counts")
def width(session: CheckSession) -> None:
    for reported in (0, 1):
        counts = _text_keys(session.counts(circuits.FIRST_BIT, num_qubits=reported), "001")
        message = f"with num_qubits={reported}: {counts}, not '001'"
        expect(counts.get("001", 0) >= SHOTS // 2, message)


@row("info.kept", "the caller's own info is left as it was", revisions=BOTH)
def kept(session: CheckSession) -> None:
    info = session.info()
    before = dict(info)
    session.accept(info)
    expect_equal("info after async_run", info, before)


def expect_bits(session: CheckSession, qasm: str, key: str, what: str) -> None:
    """Expect `key` in at least 60 % of the shots of `qasm`: a machine has errors."""
    counts = _text_keys(session.counts(qasm), key)
    share = counts.get(key, 0) / SHOTS
    expect(share >= 0.6, f"{what}: {key!r} in {share:.0%} of the shots, not in all: {counts}")


def _text_keys(counts: dict[str, int], like: str) -> dict[str, int]:
    """Convert hex keys to bits, spaced like `like`; hosts accept either form."""
    entries = {}
    for name, count in counts.items():
        if name.startswith("0x"):
            digits = iter(format(int(name, 16), f"0{len(like.replace(' ', ''))}b"))
            name = "".join(" " if sign == " " else next(digits) for sign in like)
        entries[name] = count
    return entries


def _vector(session: CheckSession) -> dict[str, Any]:
    if not session.subject.card().capabilities & STATEVECTOR:
        raise CheckNotApplicable("it does not say that it has state vectors")
    record = session.run(circuits.AMPLITUDES, return_statevector=True)
    result = record["result"].get("statevector")
    expect(isinstance(result, dict), "result has no 'statevector'")
    vector: dict[str, Any] = result
    return vector


def _peek(session: CheckSession, cid: str) -> dict[str, Any] | None:
    try:
        entries: dict[str, Any] = session.q.peek_cq(cid, **session.under)
    except Exception as error:
        if named(error) != "DEFwInProgress":
            raise
        return None
    return entries if entries.get("completion_ready", True) else None


R1 = (1,)
_single = check.row_with(revisions=R1)
EVENT = 1  # EVENT_TYPE_CIRC_RESULT
QUIET_S = 0.3
ASKED, READY_S = 100, 0.0005  # hosts poll in a loop: calls, and limit of the fastest of them


@_single("single.ready", "is_ready: True")
def ready(session: CheckSession) -> None:
    answer = session.q.is_ready()
    expect(answer is True, f"is_ready answered {short_repr(answer)}")


@_single("single.ready-cost", "is_ready costs hardly more than test")
def ready_cost(session: CheckSession) -> None:
    def best_s(call: Callable[[], Any]) -> float:
        best = float("inf")
        for _ in range(ASKED):
            begun = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - begun)
        return best

    session.q.is_ready()
    more_s = best_s(session.q.is_ready) - best_s(session.q.test)
    expect(more_s < READY_S, f"is_ready takes {1e3 * more_s:.2f} ms longer than test")


@_single("single.test", "test: a text")
def test(session: CheckSession) -> None:
    answer = session.q.test()
    expect(isinstance(answer, str), f"test answered {short_repr(answer)}")


@_single("single.release", "release: None, as often as it is called; circuits go on")
def release(session: CheckSession) -> None:
    ways: tuple[tuple[Any, ...], ...] = ((), (None,), ([],))
    for values in ways:
        answer = session.q.release(*values)
        expect(answer is None, f"release{values} answered {short_repr(answer)}")
    expect_equal("rc after release", session.run()["rc"], 0)


@_single("single.async", "async_run: a cid, a text, at once")
def cid(session: CheckSession) -> None:
    answer = session.q.async_run(session.info())
    expect(type(answer) is str and answer, f"async_run answered {short_repr(answer)}, not a cid")
    other = session.submit()
    expect(answer != other, "two circuits have one cid")
    expect_equal("cid of the record", session.completion(answer)["cid"], answer)


@_single("single.at-once", "async_run answers before a long circuit is done")
def at_once(session: CheckSession) -> None:
    number = session.long.submit()
    expect(session.poll(number) is None, "async_run waited until the circuit was done")


@_single("single.in-progress", "what is not finished raises DEFwInProgress")
def in_progress(session: CheckSession) -> None:
    number = session.long.submit()
    session.expect_refusal("read_cq", lambda: session.q.read_cq(number), "DEFwInProgress")
    session.expect_refusal("peek_cq", lambda: session.q.peek_cq(number), "DEFwInProgress")


@_single("single.empty", "an empty queue raises DEFwInProgress")
def empty(session: CheckSession) -> None:
    while session.poll() is not None:
        pass
    session.expect_refusal("read_cq()", lambda: session.q.read_cq(), "DEFwInProgress")


@_single("single.read", "read_cq takes the record off the queue")
def read(session: CheckSession) -> None:
    number = session.submit()
    session.completion(number)
    session.expect_refusal("a second read_cq", lambda: session.q.read_cq(number), "DEFwInProgress")


@_single("single.peek", "peek_cq leaves it")
def peek(session: CheckSession) -> None:
    number = session.submit()
    session.until(lambda: _peek_once(session, number), "peek_cq")
    expect(_peek_once(session, number) is not None, "a second peek_cq has nothing")
    session.completion(number)


@_single("single.by-cid", "read_cq gives the circuit asked for, else the oldest")
def by_cid(session: CheckSession) -> None:
    while session.poll() is not None:
        pass
    first, second, third = (session.submit() for _ in range(3))
    expect_equal("cid of the one asked for", session.completion(third)["cid"], third)
    both = [session.completion(), session.completion()]
    expect_equal("the others", sorted(record["cid"] for record in both), sorted((first, second)))
    expect(both[0]["cq_enqueue_time"] <= both[1]["cq_enqueue_time"], "not the oldest first")


@_single("single.delete", "delete_circuit: None, also of an unknown one")
def delete(session: CheckSession) -> None:
    number = session.long.submit()
    for what in (number, "no-such-circuit"):
        answer = session.q.delete_circuit(what)
        expect(answer is None, f"delete_circuit answered {short_repr(answer)}, not None")
    expect(session.poll(number) is None, "a deleted circuit has a record")


@_single("single.bad-sync", "an unreadable circuit: sync_run raises DEFwExecutionError")
def bad_sync(session: CheckSession) -> None:
    info = session.info(circuits.UNREADABLE)
    session.expect_refusal("sync_run", lambda: session.q.sync_run(info))


@_single("single.bad-async", "an unreadable circuit: a record with rc not 0")
def bad_async(session: CheckSession) -> None:
    for text in (circuits.UNREADABLE, circuits.NO_QASM):
        record = session.completion(session.submit(text))
        expect(type(record["rc"]) is int and record["rc"] != 0, f"rc is {short_repr(record['rc'])}")
        reported = record["result"]
        expect(isinstance(reported, str), f"result is {short_repr(reported)}: no text")


@_single("single.pushed", "after a registration: pushed instead of queued, once", alone=True)
def pushed(session: CheckSession) -> None:
    listener = session.listener()
    answer = listener.register(EVENT)
    expect(answer is None, f"register_event_notification answered {short_repr(answer)}")
    cids = {session.submit(by=listener.q) for _ in range(8)}
    seen = [listener.taken() for _ in cids]
    expect_equal("event types", {event.evtype for event in seen}, {EVENT})
    records = [event.payload for event in seen]
    expect_equal("cids that were pushed", sorted(r["cid"] for r in records), sorted(cids))
    for record in records:
        counts_of(record)
    time.sleep(QUIET_S)
    expect_equal("events in all", listener.seen, len(cids))
    expect(session.poll(by=listener.q) is None, "a record was pushed and queued")


@_single("single.push-fails", "a put that raises: the record is kept, others go on", alone=True)
def push_fails(session: CheckSession) -> None:
    listener = session.listener()
    listener.register(EVENT)
    listener.sink.fail()
    number = session.submit(by=listener.q)
    session.until(lambda: listener.seen, "a put")
    expect_equal("cid of the record kept", session.completion(number, by=listener.q)["cid"], number)
    expect_equal("rc of what came after", session.run()["rc"], 0)


@_single("single.push-last", "a client's last registration is its only one", alone=True)
def push_last(session: CheckSession) -> None:
    first = session.listener()
    last = session.listener(first.q)
    for listener in (first, last):
        listener.register(EVENT)
    session.submit(by=last.q)
    last.taken()
    time.sleep(QUIET_S)
    expect_equal("events of the first", first.seen, 0)


@_single("single.shutdown", "shutdown by one client does not stop the pool for others", alone=True)
def shutdown(session: CheckSession) -> None:
    other = session.connect()
    number = session.long.submit()
    answer = other.shutdown()
    expect(answer is None, f"shutdown answered {short_repr(answer)}")
    expect_equal("rc of what was under way", session.completion(number)["rc"], 0)
    expect_equal("rc of what came after", session.run()["rc"], 0)


@row("single.reserve", "reserve takes whatever a host gives, and answers None", revisions=R1,
     needs=(TargetProperty.TRANSPORT,))  # fmt: skip
def reserve(session: CheckSession) -> None:
    for values in (("svc", "ep"), ("svc", "ep", "more")):
        answer = session.q.reserve(*values)
        expect(answer is None, f"reserve answered {short_repr(answer)}")


def listening(session: CheckSession) -> EventListener:
    """Listener that is registered for completions."""
    listener = session.listener()
    listener.register(EVENT, **session.under)
    return listener


def _peek_once(session: CheckSession, number: str) -> Any:
    answer = session.answers("peek_cq", lambda: session.q.peek_cq(number))
    return None if isinstance(answer, Exception) else answer
