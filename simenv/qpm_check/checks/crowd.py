"""Many circuits, many callers, clients that die, what is kept and for how long; plain data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from simenv.qpm_check.checks.single import EVENT
from simenv.qpm_check.contract.outcomes import Omitted, expect
from simenv.qpm_check.harness import circuits
from simenv.qpm_check.harness.check import BOTH, Need, expect_equal, row
from simenv.qpm_check.harness.clients import CheckedClient, counts_of
from simenv.qpm_check.harness.session import SHOTS, CheckSession

FIFTY = 50
CALLERS = 32
BITS = 6  # of a circuit's number, where circuits may be so wide
KEPT = 1_024  # records a reservation has by default
COMES_S = 60.0
QUIET_S = 0.3


@row(
    "crowd.fifty",
    "50 circuits at once arrive exactly once each, each with its own counts",
    revisions=BOTH,
)
def fifty(bench: CheckSession) -> None:
    wanted = {}
    with ThreadPoolExecutor(8) as pool:
        for value, cid in pool.map(lambda v: (v, _number(bench, v)), range(FIFTY)):
            wanted[cid] = _key(bench, value)
    expect_equal("cids of 50 circuits", len(wanted), FIFTY)
    for cid, key in wanted.items():
        _gave(bench.completion(cid), key)
    for cid in wanted:
        expect(_again(bench, cid) is None, f"{cid} was handed out twice")


@row(
    "crowd.callers", "32 callers at once: each gets the answer to its own question", revisions=BOTH
)
def callers(bench: CheckSession) -> None:
    def ask(value: int) -> None:
        for turn in range(3):
            number = value * 3 + turn
            _gave(bench.run(_circuit(bench, number)), _key(bench, number))

    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in pool.map(ask, range(CALLERS)):
            pass


@row(
    "crowd.clients",
    "several clients share one queue of work and one count of tasks",
)
def clients(bench: CheckSession) -> None:
    other = bench.connect()
    cid = bench.submit(circuits.FIRST_BIT)

    def ready() -> Any:
        answer = other.peek_cq(cid, **bench.under)
        return answer if answer.get("completion_ready", True) else None

    record = bench.until(ready, "what one client submitted, asked for by another")
    _gave(record, "001")


@row(
    "crowd.order", "circuits of one caller are read in the order they were done in", revisions=BOTH
)
def in_order(bench: CheckSession) -> None:
    while bench.poll() is not None:
        pass
    for value in range(12):
        _number(bench, value)
    records = [bench.completion() for _ in range(12)]
    moments = [record["cq_enqueue_time"] for record in records]
    expect(moments == sorted(moments), "completions came out of the order they were queued in")


@row("crowd.dead-waiting", "a client that dies while it waits does not hold up the pool",
     revisions=BOTH, needs=(Need.TRANSPORT,))  # fmt: skip
def dead_waiting(bench: CheckSession) -> None:
    more = bench.under if bench.revision == 2 else {}
    for _ in range(3):
        other = bench.connect()
        info = bench.info(bench.long, num_shots=bench.long_shots)
        thread = threading.Thread(
            target=_ignoring, args=(lambda ask=other, i=info: ask.sync_run(i, **more),), daemon=True
        )
        thread.start()
        time.sleep(QUIET_S)
        other.link.die()
        thread.join(COMES_S)
        expect(not thread.is_alive(), "the dead client's call still waits")
    expect_equal("rc of what came after", bench.run()["rc"], 0)


@row("crowd.dead-listening", "a client that dies with a registration holds nobody up",
     revisions=BOTH, needs=(Need.TRANSPORT,), alone=True)  # fmt: skip
def dead_listening(bench: CheckSession) -> None:
    more = bench.under if bench.revision == 2 else {}
    dead, alive = bench.ear(), bench.ear()
    for ear in (alive, dead):
        ear.register(EVENT, **more)
    cids = [_number(bench, value, alive.q) for value in range(8)]
    for value in range(8):
        _number(bench, value, dead.q)
    dead.q.link.die()
    cids += [_number(bench, value, alive.q) for value in range(8)]
    seen: set[str] = set()
    while not seen >= set(cids):  # in revision 2 it hears of the other's circuits too
        seen.add(alive.taken().payload["cid"])
    expect_equal("rc of what came after", bench.run()["rc"], 0)


@row("transport.send-lock", "no two threads send at once: the plugin's lock holds",
     revisions=BOTH, needs=(Need.TRANSPORT,), alone=True)  # fmt: skip
def send_lock(bench: CheckSession) -> None:
    subject: Any = bench.subject
    more = bench.under if bench.revision == 2 else {}
    ear = bench.ear()
    ear.register(EVENT, **more)
    subject.control.host("pause", 0.002)
    info = bench.info()
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: ear.q.async_run(info, **more), range(40)):
            pass
    for _ in range(40):
        ear.taken()
    met = subject.control.host("collisions")
    expect(met == 0, f"{met} times two threads wrote to one client at once: install a send lock")


@row("transport.errors", "errors arrive by their own class, not as a traceback",
     revisions=BOTH, needs=(Need.TRANSPORT,))  # fmt: skip
def errors(bench: CheckSession) -> None:
    more = bench.under if bench.revision == 2 else {}
    bench.refuses("sync_run", lambda: bench.q.sync_run(bench.info(circuits.UNREADABLE), **more))


@row("transport.error-stack", "an error does not carry the stack of what caused it",
     revisions=BOTH, needs=(Need.TRANSPORT,))  # fmt: skip
def error_stack(bench: CheckSession) -> None:
    more = bench.under if bench.revision == 2 else {}
    strange = {"format": "quil-9", "data": "X 0"}
    wrong: tuple[dict[str, Any], ...] = ({"num_shots": "many"}, {"circuit": strange})
    for info in (bench.info(circuits.UNREADABLE), *(bench.info(**one) for one in wrong)):
        error: Any = bench.answers("sync_run", lambda i=info: bench.q.sync_run(i, **more))  # type: ignore[misc]
        stack = str(getattr(error, "stacktrace", ""))
        words = "it was constructed while another exception was handled, and sends its stack: "
        expect(not stack, words + stack[-200:])


@row("retention.count", "more unread completions than are kept: the oldest are let go, and said so")
def count(bench: CheckSession) -> None:
    number = bench.reserve()
    under = {"reservation_id": number}
    text, over = circuits.number(1, 1), 20
    with ThreadPoolExecutor(4) as pool:
        cids = list(
            pool.map(lambda _: bench.submit(text, num_shots=1, under=under), range(KEPT + over))
        )

    def done() -> bool:
        return all(
            bench.q.task_status(cid, **under)["lifecycle_state"]
            in ("completed", "no-longer-retained")
            for cid in cids[-over:]
        )

    bench.until(done, "the last of them", COMES_S)
    bench.until(lambda: bench.q.is_ready()["active_task_count"] == 0, "all of them", COMES_S)
    gone = kept = 0
    for cid in cids:
        answer = bench.q.peek_cq(cid, **under)
        kept += answer["completion_ready"] is True
        gone += answer["outcome"] == "NO_LONGER_RETAINED"
        if answer["outcome"] == "NO_LONGER_RETAINED":
            expect_equal("retention_reason", answer.get("retention_reason"), "max-records-exceeded")
    if kept == len(cids):
        raise Omitted(f"all of {kept} completions are kept: no limit was met")
    expect_equal("kept and let go", kept + gone, len(cids))


@row("values.plain", "nothing but plain data in any answer or event of all checks", revisions=BOTH)
def plain(bench: CheckSession) -> None:
    bench.completion(bench.submit())
    found = bench.impure
    told = "; ".join(f"{method}: {place}" for method, place in sorted(found.items()))
    expect(not found, told)


def _circuit(bench: CheckSession, value: int) -> str:
    bits = min(BITS, bench.most_qubits)
    return circuits.number(value % 2**bits, bits)


def _key(bench: CheckSession, value: int) -> str:
    bits = min(BITS, bench.most_qubits)
    return circuits.key(value % 2**bits, bits)


def _number(bench: CheckSession, value: int, by: CheckedClient | None = None) -> str:
    return bench.submit(_circuit(bench, value), by=by)


def _gave(record: dict[str, Any], key: str) -> None:
    counts = counts_of(record)
    expect(counts.get(key, 0) >= SHOTS // 2, f"the circuit for {key} gave {counts}")


def _again(bench: CheckSession, cid: str) -> Any:
    answer = bench.answers("read_cq", lambda: bench.q.read_cq(
        cid, **(bench.under if bench.revision == 2 else {})))  # fmt: skip
    return answer if isinstance(answer, dict) and answer.get("completion_ready", True) else None


def _ignoring(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001 - its client has gone: there is nobody to tell
        return
