"""Checks of result records of both revisions: fields, times, counts, bits, amplitudes."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

from simenv.qpm_check.contract.outcomes import expect
from simenv.qpm_check.harness import circuits, shapes
from simenv.qpm_check.harness.check import BOTH, CheckNotApplicable, expect_equal, row
from simenv.qpm_check.harness.clients import counts_of
from simenv.qpm_check.harness.session import SHOTS, CheckSession
from simenv.qpm_check.targets.target import named

STATEVECTOR = 2  # capability bit
CLOCK_S = 1.0  # tolerance of clocks of one machine, read in several processes


@row("record.fields", "a record has the contract's fields", revisions=BOTH)
def fields(session: CheckSession) -> None:
    record = session.run()
    expected = shapes.RECORD if session.revision == 1 else shapes.COMPLETION
    shapes.has("the record", record, expected)
    expect_equal("rc of a success", record["rc"], 0)


@row("record.times", "all seven times are there, as floats", revisions=BOTH)
def seven_times(session: CheckSession) -> None:
    for what, record in (
        ("sync_run", session.run()),
        ("read_cq", session.completion(session.submit())),
    ):
        for name in shapes.TIMES:
            expect(name in record, f"the record of {what} has no {name!r}")
            kind = type(record[name])
            expect(kind in (float, int), f"{name!r} of {what} is a {kind.__name__}, not a float")


@row("record.order", "times come in their order", revisions=BOTH)
def order(session: CheckSession) -> None:
    record = session.completion(session.submit())
    reached = [(name, record[name]) for name in shapes.TIMES if record.get(name, -1) != -1]
    for (before, first), (after, second) in itertools.pairwise(reached):
        expect(first <= second, f"{after} is {first - second:.6f} s before {before}")
    expect(record["exec_time"] != shapes.NOT_REACHED, "exec_time of what ran is -1: it never began")


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
    expect(
        read["cq_dequeue_time"] >= read["cq_enqueue_time"],
        f"read_cq: cq_dequeue_time {read['cq_dequeue_time']} before cq_enqueue_time",
    )


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
        expect(
            abs(size - expected) < 1e-3,
            f"amplitude {index} has size {size:.3f}, not {expected:.3f}",
        )


@row("info.unknown", "unknown keys are ignored", revisions=BOTH)
def unknown_keys(session: CheckSession) -> None:
    counts = session.counts(
        circuits.FIRST_BIT, qfw_backend="x", np=4, hosts={"a": 1}, a_key_of_tomorrow=[None]
    )
    expect_equal("the sum of the counts", sum(counts.values()), SHOTS)


@row(
    "info.width", "num_qubits below the circuit's own, 0 too: the circuit's counts", revisions=BOTH
)
def width(session: CheckSession) -> None:
    for reported in (0, 1):
        counts = _text_keys(session.counts(circuits.FIRST_BIT, num_qubits=reported), "001")
        expect(
            counts.get("001", 0) >= SHOTS // 2, f"with num_qubits={reported}: {counts}, not '001'"
        )


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
        entries: dict[str, Any] = session.q.peek_cq(cid, **session.reservation_kwargs)
    except Exception as error:
        if named(error) != "DEFwInProgress":
            raise
        return None
    return entries if entries.get("completion_ready", True) else None
