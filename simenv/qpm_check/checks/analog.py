"""Checks of analog programs: pulse sequences on neutral atoms, in both revisions.

A QPM that runs none must refuse the format by its name; then the checks of runs are skipped, with
that answer as the reason.
"""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm_check import circuits
from simenv.qpm_check.check import CheckNotApplicable, both, of_the_newest, row
from simenv.qpm_check.checks.records import EVENT, QUIET_S, listening
from simenv.qpm_check.fields import expect_equal, has
from simenv.qpm_check.session import REFUSED, CheckSession, counts_of
from simenv.qpm_check.target import CheckFailed, CheckSkipped, expect, named, short_repr

EXCITED = "100"
_WORDS = (circuits.PULSER, "pulser")  # of which a refusal of the format has one


@both("analog.counts", "a pulse sequence runs: the first atom is the first character")
def counts(session: CheckSession) -> None:
    record = _run(session)
    expect_equal("rc of a pulse sequence", record["rc"], 0)
    result = counts_of(record)
    total = sum(result.values())
    expect_equal("sum of the counts", total, session.info()["num_shots"])
    part = result.get(EXCITED, 0) / total
    expect(part > 0.95, f"{EXCITED!r} in {part:.0%} of the shots: {short_repr(result)}")


@both("analog.queue", "the completion of a pulse sequence is queued and read once")
def queue(session: CheckSession) -> None:
    _run(session)
    cid = session.submit(circuit=circuits.FIRST_ATOM)
    record = session.completion(cid)
    expect_equal("cid of the record", record["cid"], cid)
    expect(EXCITED in counts_of(record), f"counts are {short_repr(counts_of(record))}")
    expect(record["exec_time"] <= record["completion_time"], "it ended before it began")


@both("analog.pushed", "the completion of a pulse sequence is pushed, once", alone=True)
def pushed(session: CheckSession) -> None:
    _run(session)
    listener = listening(session)
    cid = session.submit(circuit=circuits.FIRST_ATOM, by=listener.q)
    event = listener.taken()
    expect_equal("type and cid of the event", (event.evtype, event.payload["cid"]), (EVENT, cid))
    expect(EXCITED in counts_of(event.payload), f"the event is {short_repr(event.payload)}")
    time.sleep(QUIET_S)
    expect_equal("events in all", listener.seen, 1)


@both("analog.bad", "a text that is no sequence is refused, sync and async")
def bad(session: CheckSession) -> None:
    _run(session)
    info = session.info(circuit=circuits.NO_SEQUENCE)
    session.expect_refusal("sync_run", lambda: session.q.sync_run(info, **session.under))
    record = session.completion(session.submit(circuit=circuits.NO_SEQUENCE))
    expect(record["rc"] != 0, "rc is 0, though nothing could be run")


@row("analog.paradigms", "capability_map: its paradigms are those of the formats")
def paradigms(session: CheckSession) -> None:
    of_the_newest(session, "capability_map")
    table = session.q.capability_map().get("paradigms")
    if table is None:
        raise CheckNotApplicable("capability_map has no paradigms")
    has("paradigms", table, {"gate": dict, "analog": dict, "annealing": dict})
    for name, entry in table.items():
        has(f"paradigm {name}", entry, {"libraries": list, "formats": list})
        is_there = bool(entry["formats"])
        expect_equal(f"libraries of {name}, if any", bool(entry["libraries"]), is_there)
        if not is_there:
            is_stated = bool(entry.get("reason") or entry.get("missing"))
            expect(is_stated, f"{name} has neither libraries nor a reason: {short_repr(entry)}")
    offered = (session.subject.card().properties or {}).get("circuit_formats", [])
    for each in offered:
        expect(any(each in entry["formats"] for entry in table.values()), f"{each} is of no kind")


def _run(session: CheckSession) -> dict[str, Any]:
    """Run the sequence. Raises CheckSkipped if its format is refused by name, CheckFailed if it is
    refused although the service record has it, or otherwise."""
    try:
        return session.run(circuit=circuits.FIRST_ATOM)
    except Exception as error:
        if named(error) != REFUSED or not any(word in str(error) for word in _WORDS):
            raise
        properties = session.subject.card().properties or {}
        if circuits.PULSER in properties.get("circuit_formats", []):
            raise CheckFailed(f"{circuits.PULSER} is offered and refused: {error}") from error
        raise CheckSkipped(f"no pulse sequences: {' '.join(str(error).split())}") from error
