"""Checks of the events of revision 2: each is sent once to every matching registration."""

from __future__ import annotations

import time

from simenv.qpm_check.checks.single import EVENT, QUIET_S
from simenv.qpm_check.contract.outcomes import CheckSkipped, expect
from simenv.qpm_check.harness import circuits, shapes
from simenv.qpm_check.harness.check import expect_equal, row
from simenv.qpm_check.harness.session import CheckSession

MANY = 8


@row("events.register", "register_event_notification: accepted, and how many there are")
def register(session: CheckSession) -> None:
    counts = []
    for _ in range(2):
        listener = session.listener()
        result = shapes.has(
            "register_event_notification", listener.register(EVENT, **session.reservation_kwargs),
            {"status": str, "class_id": str, "registration_count": int},
        )  # fmt: skip
        expect_equal("status", result["status"], "accepted")
        expect_equal("class_id", result["class_id"], listener.sink.class_id)
        counts.append(result["registration_count"])
    expect_equal("registration_count after one more", counts[1], counts[0] + 1)


@row("events.pushed", "a completion is pushed and queued; the event carries the record")
def pushed(session: CheckSession) -> None:
    listener = session.listener()
    listener.register(EVENT, **session.reservation_kwargs)
    cid = session.submit()
    event = listener.taken()
    expect_equal("event type", event.evtype, EVENT)
    record = shapes.has("the payload", event.payload, shapes.COMPLETION)
    expect_equal("cid of the payload", record["cid"], cid)
    queued = session.completion(cid)
    expect_equal("counts of what was queued", queued["result"], record["result"])


@row("events.once", "each completion once to each registration")
def once(session: CheckSession) -> None:
    listeners = [session.listener(), session.listener()]
    for listener in listeners:
        listener.register(EVENT, **session.reservation_kwargs)
    cids = sorted(session.submit() for _ in range(MANY))
    for listener in listeners:
        seen = sorted(listener.taken().payload["cid"] for _ in range(MANY))
        expect_equal("cids that were pushed", seen, cids)
    time.sleep(QUIET_S)
    for listener in listeners:
        expect_equal("events in all", listener.seen, MANY)


@row("events.failed", "what failed or was cancelled has an event too")
def of_failures(session: CheckSession) -> None:
    listener = session.listener()
    listener.register(EVENT, **session.reservation_kwargs)
    bad = session.submit(circuits.UNREADABLE)
    seen = {listener.taken().payload["cid"]}
    waits = session.waiting()
    session.q.cancel_task(waits, **session.reservation_kwargs)
    deadline = time.monotonic() + session.wait_s
    while waits not in seen and time.monotonic() < deadline:
        event = listener.sink.take(1.0)
        if event is not None:
            seen.add(event.payload["cid"])
    expect(bad in seen, "a failed task had no event")
    expect(waits in seen, "a cancelled task had no event")


@row("events.filters", "filters: a value, or one of several; what does not fit is not pushed")
def filters(session: CheckSession) -> None:
    first = session.status(session.submit())["qtask_id"]
    single, several, none = session.listener(), session.listener(), session.listener()
    ahead = [first + step for step in (1, 2, 3)]
    single.register(EVENT, filters={"qtask_id": ahead[1]}, **session.reservation_kwargs)
    several.register(
        EVENT, filters={"qtask_id": [ahead[0], ahead[2]]}, **session.reservation_kwargs
    )
    none.register(EVENT, filters={"cid": "no-such-circuit"}, **session.reservation_kwargs)
    qtask_ids = [
        session.q.async_run(session.info(), **session.reservation_kwargs)["qtask_id"] for _ in ahead
    ]
    if qtask_ids != ahead:
        raise CheckSkipped(f"qtask ids cannot be foreseen here: {first}, then {qtask_ids}")
    expect_equal("pushed to the one", single.taken().payload["qtask_id"], ahead[1])
    seen = sorted(several.taken().payload["qtask_id"] for _ in range(2))
    expect_equal("pushed to the several", seen, [ahead[0], ahead[2]])
    time.sleep(QUIET_S)
    expect_equal("events of all", (single.seen, several.seen, none.seen), (1, 2, 0))


@row("events.type", "another event type gets nothing")
def other_type(session: CheckSession) -> None:
    right, other = session.listener(), session.listener()
    other.register(977, **session.reservation_kwargs)
    right.register(EVENT, **session.reservation_kwargs)
    session.submit()
    right.taken()
    time.sleep(QUIET_S)
    expect_equal("events of the other type", other.seen, 0)


@row("events.reservation", "a registration under a reservation hears of its tasks only")
def by_reservation(session: CheckSession) -> None:
    mine, other = session.reserve(), session.reserve()
    listener = session.listener()
    listener.register(EVENT, reservation_id=mine)
    elsewhere = session.submit(under={"reservation_id": other})
    own_cid = session.submit(under={"reservation_id": mine})
    session.completion(elsewhere, reservation_id=other)
    expect_equal("cid of the event", listener.taken().payload["cid"], own_cid)
    time.sleep(QUIET_S)
    expect_equal("events in all", listener.seen, 1)


@row("events.put-fails", "a put that raises ends that registration only")
def put_fails(session: CheckSession) -> None:
    broken, sound = session.listener(), session.listener()
    for listener in (broken, sound):
        listener.register(EVENT, **session.reservation_kwargs)
    broken.sink.fail()
    session.submit()
    sound.taken()
    session.until(lambda: broken.seen, "a put to the broken one")
    for _ in range(3):
        session.completion(session.submit())
        sound.taken()
    time.sleep(QUIET_S)
    expect_equal("puts to the broken one", broken.seen, 1)
