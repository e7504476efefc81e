"""Events of revision 2: pushed and queued, to every registration that fits, once."""

from __future__ import annotations

import time

from simenv.qpm_check.checks.single import EVENT, QUIET_S
from simenv.qpm_check.contract.outcomes import Omitted, expect
from simenv.qpm_check.harness import circuits, shapes
from simenv.qpm_check.harness.check import expect_equal, row
from simenv.qpm_check.harness.session import CheckSession

MANY = 8


@row("events.register", "register_event_notification: accepted, and how many there are")
def register(bench: CheckSession) -> None:
    counts = []
    for _ in range(2):
        ear = bench.ear()
        found = shapes.has(
            "register_event_notification", ear.register(EVENT, **bench.under),
            {"status": str, "class_id": str, "registration_count": int},
        )  # fmt: skip
        expect_equal("status", found["status"], "accepted")
        expect_equal("class_id", found["class_id"], ear.sink.class_id)
        counts.append(found["registration_count"])
    expect_equal("registration_count after one more", counts[1], counts[0] + 1)


@row("events.pushed", "a completion is pushed and queued; the event carries the record")
def pushed(bench: CheckSession) -> None:
    ear = bench.ear()
    ear.register(EVENT, **bench.under)
    cid = bench.submit()
    event = ear.taken()
    expect_equal("event type", event.evtype, EVENT)
    record = shapes.has("the payload", event.payload, shapes.COMPLETION)
    expect_equal("cid of the payload", record["cid"], cid)
    queued = bench.completion(cid)
    expect_equal("counts of what was queued", queued["result"], record["result"])


@row("events.once", "each completion once to each registration")
def once(bench: CheckSession) -> None:
    ears = [bench.ear(), bench.ear()]
    for ear in ears:
        ear.register(EVENT, **bench.under)
    cids = sorted(bench.submit() for _ in range(MANY))
    for ear in ears:
        seen = sorted(ear.taken().payload["cid"] for _ in range(MANY))
        expect_equal("cids that were pushed", seen, cids)
    time.sleep(QUIET_S)
    for ear in ears:
        expect_equal("events in all", ear.seen, MANY)


@row("events.failed", "what failed or was cancelled has an event too")
def of_failures(bench: CheckSession) -> None:
    ear = bench.ear()
    ear.register(EVENT, **bench.under)
    bad = bench.submit(circuits.UNREADABLE)
    seen = {ear.taken().payload["cid"]}
    waits = bench.waiting()
    bench.q.cancel_task(waits, **bench.under)
    deadline = time.monotonic() + bench.wait_s
    while waits not in seen and time.monotonic() < deadline:
        event = ear.sink.take(1.0)
        if event is not None:
            seen.add(event.payload["cid"])
    expect(bad in seen, "a failed task had no event")
    expect(waits in seen, "a cancelled task had no event")


@row("events.filters", "filters: a value, or one of several; what does not fit is not pushed")
def filters(bench: CheckSession) -> None:
    first = bench.status(bench.submit())["qtask_id"]
    one, several, none = bench.ear(), bench.ear(), bench.ear()
    ahead = [first + step for step in (1, 2, 3)]
    one.register(EVENT, filters={"qtask_id": ahead[1]}, **bench.under)
    several.register(EVENT, filters={"qtask_id": [ahead[0], ahead[2]]}, **bench.under)
    none.register(EVENT, filters={"cid": "no-such-circuit"}, **bench.under)
    numbers = [bench.q.async_run(bench.info(), **bench.under)["qtask_id"] for _ in ahead]
    if numbers != ahead:
        raise Omitted(f"qtask ids cannot be foreseen here: {first}, then {numbers}")
    expect_equal("pushed to the one", one.taken().payload["qtask_id"], ahead[1])
    seen = sorted(several.taken().payload["qtask_id"] for _ in range(2))
    expect_equal("pushed to the several", seen, [ahead[0], ahead[2]])
    time.sleep(QUIET_S)
    expect_equal("events of all", (one.seen, several.seen, none.seen), (1, 2, 0))


@row("events.type", "another event type gets nothing")
def other_type(bench: CheckSession) -> None:
    right, other = bench.ear(), bench.ear()
    other.register(977, **bench.under)
    right.register(EVENT, **bench.under)
    bench.submit()
    right.taken()
    time.sleep(QUIET_S)
    expect_equal("events of the other type", other.seen, 0)


@row("events.reservation", "a registration under a reservation hears of its tasks only")
def by_reservation(bench: CheckSession) -> None:
    mine, other = bench.reserve(), bench.reserve()
    ear = bench.ear()
    ear.register(EVENT, reservation_id=mine)
    elsewhere = bench.submit(under={"reservation_id": other})
    here = bench.submit(under={"reservation_id": mine})
    bench.completion(elsewhere, reservation_id=other)
    expect_equal("cid of the event", ear.taken().payload["cid"], here)
    time.sleep(QUIET_S)
    expect_equal("events in all", ear.seen, 1)


@row("events.put-fails", "a put that raises ends that registration only")
def put_fails(bench: CheckSession) -> None:
    broken, sound = bench.ear(), bench.ear()
    for ear in (broken, sound):
        ear.register(EVENT, **bench.under)
    broken.sink.fail()
    bench.submit()
    sound.taken()
    bench.until(lambda: broken.seen, "a put to the broken one")
    for _ in range(3):
        bench.completion(bench.submit())
        sound.taken()
    time.sleep(QUIET_S)
    expect_equal("puts to the broken one", broken.seen, 1)
