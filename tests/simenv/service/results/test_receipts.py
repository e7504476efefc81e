"""Receipts: from stored data alone, the same at any later time, and shown to those who may."""

import time
from pathlib import Path

import msgspec
import pytest
from account_harness import AccountHarness
from multi_user_harness import MultiUserHarness
from service import ServiceHarness, spec

from simenv.model import TaskState, Timing
from simenv.model.accounts import Account, AccountTree, Receipt, ShareRow, WaitReason
from simenv.service.accounting.usage import UsageLedger
from simenv.service.journal import tables
from simenv.wire import codec
from simenv.wire.messages import accounting
from simenv.wire.messages.history import GetHistory, History

OPTIONS = {"durability": "process"}
WAITS = ((int(WaitReason.SHARE), 22_100_000), (int(WaitReason.RANKS), 6_000_000))


def receipts(bench: ServiceHarness, *tasks: int, peer: object = None) -> list[Receipt]:
    question = accounting.GetReceipts(3, list(tasks))
    return bench.get(accounting.Receipts, question, peer).receipts  # type: ignore[arg-type]


def put_standing(bench: ServiceHarness, first: int, account: str) -> None:
    bench.journal.put(
        [tables.STANDING.put(first, account, "normal", 0.25, 1234.5, 3)], forced=False
    )
    bench.step()


def test_receipt_has_what_was_stored_at_acceptance_and_end(ready: ServiceHarness) -> None:
    ready.submit(spec(1), spec(2))
    put_standing(ready, 1, "chem")
    ready.finish(ready.assigned())
    (stored,) = receipts(ready, 2)
    (row,) = ready.get(History, GetHistory(3, 1)).rows
    assert (stored.task, stored.user, stored.account, stored.qos) == ("t-2", "", "chem", "normal")
    assert (stored.share, stored.usage, stored.rank) == (0.25, 1234.5, 3)
    assert (stored.state, stored.pool, stored.engine) == (TaskState.DONE, "main", "statevector")
    assert (stored.used, stored.units) == (row.used, row.units)
    since_sent_us = row.timing.total_us - row.timing.queued_us
    assert 0 < stored.used.slot_us <= since_sent_us * stored.slots, "by the service's clock"
    assert stored.units == pytest.approx(stored.used.slot_us / 1e6, rel=0.01)
    assert (stored.submitted_s, stored.ended_s) == (row.submitted_s, row.ended_s)
    assert (row.account, row.qos) == ("chem", "normal")
    assert stored.waited_us == row.timing.queued_us == sum(us for _, us in stored.waits)
    ready.restart()
    assert receipts(ready, 2) == [stored]


def test_receipt_has_share_usage_and_rank_of_the_submission(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path)
    town.join()
    share = town.state.shares.fair_share
    share.charge("chem/ana", 5_000.0)
    share.charge("bio/carl", 100.0)
    norm, used, rank = share.standing("chem/ana", time.monotonic_ns())
    assert norm == pytest.approx(0.75)  # of physics, whose only account is chem, and of bio
    assert rank > share.standing("bio/ana", time.monotonic_ns())[2] > 0
    answer = town.sent(account="chem")
    share.charge("chem/ana", 1e6)  # later use is none of the receipt's
    town.finish(town.assigned())
    (stored,) = receipts(town, answer.first)
    assert (stored.share, stored.rank) == (pytest.approx(norm), rank)
    assert stored.usage == pytest.approx(used, rel=1e-3) == pytest.approx(5_000.0, rel=1e-3)
    town.begin_again()
    assert receipts(town, answer.first) == [stored]


def test_parts_of_a_wait_add_up_to_it(ready: ServiceHarness) -> None:
    ready.submit(spec(1))
    ready.finish(ready.assigned())
    completed = codec.completed(ready.journal.records.finished.unverified_body(1))
    timing = Timing(31_204_000, 5, 10, waits=WAITS)
    completion = msgspec.structs.replace(completed.results[0], timing=timing)
    body = codec.encode(msgspec.structs.replace(completed, results=[completion]))
    ready.journal.finish(1, [TaskState.DONE], body)
    ready.journal._db.execute("delete from finished")
    ready.step()
    (stored,) = receipts(ready, 1)
    assert dict(stored.waits) == {**dict(WAITS), int(WaitReason.OWN_TASKS): 3_104_000}
    assert sum(us for _, us in stored.waits) == stored.waited_us == 31_204_000


def test_unknown_waiting_and_pruned_tasks_have_no_receipt(ready: ServiceHarness) -> None:
    ready.submit(spec(1))
    assert receipts(ready, 0, 1, 99, 2**63 - 1) == []
    put_standing(ready, 1, "chem")
    ready.finish(ready.assigned())
    assert len(receipts(ready, 1)) == 1
    ready.loop.result_requests.start()
    ready.collected(older_s=0.0)
    ready.loop.result_requests.stop()
    assert receipts(ready, 1) == []
    assert list(ready.journal.records.rows("select * from standing")) == []
    usage = ready.get(accounting.Usage, accounting.GetUsage(3))
    assert [row.tasks for row in usage.rows] == [1], "usage outlives the history"


def test_receipts_are_seen_by_entitled_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = MultiUserHarness(tmp_path)
    accounts = {"physics": Account(coordinators=("ben",)), "chem": Account(parent="physics")}
    monkeypatch.setattr(UsageLedger, "tree", AccountTree(accounts))
    bench.join()
    first, second = bench.order(bench.ana, "~a"), bench.order(bench.ana, "~b")
    put_standing(bench, first, "chem")
    put_standing(bench, second, "bio")
    bench.finish_in_turn()
    seen = {
        name: [each.task for each in receipts(bench, first, second, peer=peer)]
        for name, peer in (("ana", bench.ana), ("ben", bench.ben), ("ops", bench.ops))
    }
    assert seen == {"ana": ["t-1", "t-2"], "ben": ["t-1"], "ops": ["t-1", "t-2"]}


def test_too_many_receipts_of_one_request_are_refused(bench: ServiceHarness) -> None:
    question = accounting.GetReceipts(3, [1] * (accounting.MAX_RECEIPTS + 1))
    assert bench.refusal(question).code == "protocol"


def test_shares_are_of_own_accounts_and_have_what_is_left_of_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = MultiUserHarness(tmp_path)
    rows = [
        ShareRow(account, user, 0, 1.0, 0.5, 9.0, 0.9, 0)
        for account, user in (
            ("physics", ""), ("chem", ""), ("chem", "ana"), ("chem", "carl"), ("bio", ""),
        )
    ]  # fmt: skip
    rows.append(ShareRow("physics", "", 1, 1.0, 0.5, 9.0, 0.9, 1))  # the environment's own user
    tree = AccountTree(
        {
            "physics": Account(budget_slot_h=1.0),
            "chem": Account(parent="physics", users=("ana",)),
            "bio": Account(coordinators=("ben",)),
        }
    )  # fmt: skip
    monkeypatch.setattr(bench.state.shares.fair_share, "rows", lambda _: rows)
    monkeypatch.setattr(UsageLedger, "tree", tree)
    bench.loop.accounting.usage.charge("chem", 600.0, time.time())

    def seen(peer: object) -> list[tuple[str, str, float]]:
        answer = bench.get(accounting.Shares, accounting.GetShares(3), peer)  # type: ignore[arg-type]
        return [(row.account, row.user, row.left_units) for row in answer.rows]

    own = [("physics", "", 3_000.0), ("chem", "", -1.0), ("chem", "ana", -1.0)]
    assert seen(bench.ana) == own
    assert seen(bench.ben) == [("bio", "", -1.0)]
    assert seen(bench.ops)[-1] == ("physics", "", -1.0)
    assert len(seen(bench.ops)) == 6
    bench.loop.accounting.usage.charge("chem", 1e6, time.time())
    assert seen(bench.ana)[0] == ("physics", "", 0.0)  # nothing is left
