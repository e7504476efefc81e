"""Whose task it is: what a client may see and touch of others', and what survives a restart."""

import errno
from pathlib import Path

import pytest
from failing import fails
from memory_transport import MemoryConnection
from multi_user_harness import MultiUserHarness
from service import spec

from simenv.errors import KeyRefusedError
from simenv.model import TaskOptions
from simenv.wire import codec
from simenv.wire.key_list import added, removed
from simenv.wire.keyfiles import changing, new_pair, read_keys, write_keys
from simenv.wire.messages import client as m
from simenv.wire.messages.credentials import AddKey, KeyInfo, Keys, RevokeKey
from simenv.wire.messages.history import GetHistory, GetSpec, History, Submitted
from simenv.wire.transport.sockets import PeerKind


@pytest.fixture
def town(tmp_path: Path) -> MultiUserHarness:
    return MultiUserHarness(tmp_path)


def ids(answers: list[m.ToClient]) -> list[str]:
    (queue,) = answers
    return [task.id for task in queue.tasks]


def told(town: MultiUserHarness, peer: MemoryConnection, sent: m.FromWorker) -> m.ToWorker | None:
    """What a worker is answered, if anything."""
    peer.send(codec.encode(sent))
    town.step()
    body = peer.receive(0.0)
    return None if body is None else codec.to_worker(body)


def false_results(work: m.AssignedTask) -> m.AttemptResults:
    result = m.AttemptResult(work.task, work.attempt, 2, b"false", 1)
    return m.AttemptResults([result])


def test_tasks_of_other_owners_are_not_shown(town: MultiUserHarness) -> None:
    hers, his, result = town.order(town.ana, count=2), town.order(town.ben), town.order(town.peer)
    assert ids(town.say(m.GetQueue(1), town.ana)) == ["t-1", "t-2"]
    assert ids(town.say(m.GetQueue(1), town.ben)) == ["t-3"]
    assert town.say(m.GetQueue(1), town.ben)[0].total == 1  # type: ignore[union-attr]
    every = [hers, hers + 1, his, result]
    assert len(ids(town.say(m.GetQueue(1), town.peer))) == len(every)
    assert len(ids(town.say(m.GetQueue(1), town.ops))) == len(every)
    assert ids(town.say(m.GetTasks(1, every), town.ana)) == ["t-1", "t-2"]
    assert len(ids(town.say(m.GetTasks(1, every), town.ops))) == len(every)


def test_queue_lists_owner_of_each_task(town: MultiUserHarness) -> None:
    town.order(town.ana)
    queue = town.get(m.Queue, m.GetQueue(1))
    assert [task.owner for task in queue.tasks] == ["ana"]
    town.join()
    town.finish(town.assigned())
    queue = town.get(m.Queue, m.GetQueue(1, done=True))
    assert [task.owner for task in queue.tasks] == ["ana"]


def test_task_of_another_owner_cannot_be_cancelled(town: MultiUserHarness) -> None:
    def cancelled(peer: MemoryConnection, task: int) -> list[str]:
        return town.get(m.Cancelled, m.Cancel(1, [task]), peer).words

    task = town.order(town.ana)
    before = dict(town.state.tasks)
    assert (cancelled(town.ben, task), town.state.tasks) == (["unknown"], before)
    assert cancelled(town.ana, task) == ["cancelled"]
    assert cancelled(town.ben, task) == ["unknown"], "final tells that it is there"
    assert cancelled(town.ops, town.order(town.ana, "~b")) == ["cancelled"], "an admin can"


@pytest.mark.parametrize("ended", [False, True])
def test_result_of_another_owner_cannot_be_watched(town: MultiUserHarness, ended: bool) -> None:
    task = town.order(town.ana)
    town.join()
    work = town.assigned()
    if ended:
        town.finish(work)
    (answer,) = town.say(m.WatchResults(0, [task]), town.ben)
    assert answer == m.UnknownTasks(0, [task])
    if not ended:
        town.finish(work)
        assert town.heard(town.ben) == []
    ends = [a for a in town.say(m.WatchResults(0, [task]), town.ana) if isinstance(a, m.Completed)]
    assert ends[-1].results[0].task == task


def test_completions_of_other_owners_are_not_returned(town: MultiUserHarness) -> None:
    tasks = [town.order(peer, count=2) for peer in (town.ana, town.ben, town.peer)]
    town.join()
    town.finish_in_turn()
    page = town.get(m.CompletionPage, m.GetCompletions(1), town.ben)
    entries = [c.task for group in page.groups for c in group.results]
    assert sorted(entries) == [tasks[1], tasks[1] + 1]
    last = page.groups[-1].first_seq + len(page.groups[-1].results) - 1
    assert page.newest == last
    assert town.get(m.CompletionPage, m.GetCompletions(1, since=last), town.ben).groups == []
    page = town.get(m.CompletionPage, m.GetCompletions(1), town.ops)
    assert sum(len(group.results) for group in page.groups) == 6


def test_cursors_of_same_name_are_separate_for_each_owner(town: MultiUserHarness) -> None:
    town.order(town.ana, count=3)
    town.join()
    town.finish_in_turn()
    town.say(m.Ack(1, "mine", 2), town.ana)
    assert town.say(m.GetCursor(1, "mine"), town.ana) == [m.Acked(1, 2)]
    assert town.say(m.GetCursor(1, "mine"), town.ben) == [m.Acked(1, 0)]
    assert m.Acked(1, 0) in town.say(m.GetCursor(1, "mine"))


def test_submission_keys_are_separate_for_each_owner(town: MultiUserHarness) -> None:
    hers = town.order(town.ana, "run-1")
    his = town.order(town.ben, "run-1", seed=2)
    assert 0 < hers != his > 0
    assert town.order(town.ana, "run-1") == hers
    town.restart()
    town.arrive()
    assert (town.order(town.ana, "run-1"), town.order(town.ben, "run-1", seed=2)) == (hers, his)


def test_owners_of_tasks_survive_restart(town: MultiUserHarness) -> None:
    task = town.order(town.ana)
    town.restart()
    town.arrive()
    assert ids(town.say(m.GetQueue(1), town.ana)) == ["t-1"]
    assert ids(town.say(m.GetQueue(1), town.ben)) == []
    town.join()
    town.finish(town.assigned())
    assert town.say(m.WatchResults(0, [task]), town.ben) == [m.UnknownTasks(0, [task])]
    assert [type(a) for a in town.say(m.WatchResults(0, [task]), town.ana)] == [
        m.Completed,
        m.UnknownTasks,
    ]


def test_completions_of_two_owners_are_separate_after_restart(town: MultiUserHarness) -> None:
    hers, his = town.order(town.ana), town.order(town.ben)
    town.restart()  # nobody is connected: all go into one message of the worker
    town.join()
    town.finish_in_turn()
    town.arrive()
    assert town.say(m.WatchResults(0, [hers]), town.ben)[-1] == m.UnknownTasks(0, [hers])
    assert isinstance(town.say(m.WatchResults(0, [his]), town.ben)[0], m.Completed)
    page = town.get(m.CompletionPage, m.GetCompletions(1), town.ben)
    assert [c.task for group in page.groups for c in group.results] == [his]


def test_worker_list_hides_running_task_of_another_owner(town: MultiUserHarness) -> None:
    town.order(town.ana)
    work = town.join()
    (assigned,) = town.assigned()
    work.send(codec.encode(m.Started(assigned.task, assigned.attempt)))
    town.step()
    for peer, named in ((town.ana, "t-1"), (town.ben, ""), (town.ops, "t-1")):
        answer = town.get(m.Workers, m.GetWorkers(1), peer)
        assert [worker.task for worker in answer.workers] == [named]


def test_events_about_tasks_of_other_owners_are_not_shown(town: MultiUserHarness) -> None:
    town.order(town.ana)
    town.loop.executor.record_event("task.requeued", "t-1", "its worker was lost")
    town.step()
    for peer, value in ((town.ana, True), (town.ben, False), (town.ops, True)):
        assert ("t-1" in [each.subject for each in town.events(peer=peer)]) is value
        assert town.events("worker.started", peer=peer)


def test_history_of_other_owners_is_not_shown(town: MultiUserHarness) -> None:
    hers = town.order(town.ana)
    his = town.order(town.ben)
    ids, last, complete = [], 0, False
    while not complete:  # a page may be one row where time is short
        page = town.get(History, GetHistory(1, after=last), town.ben)
        ids += [row.id for row in page.rows]
        last, complete = page.last, page.complete
    assert ids == ["t-2"]
    assert not isinstance(town.say(GetSpec(1, hers), town.ben)[0], Submitted)
    assert isinstance(town.say(GetSpec(1, his), town.ben)[0], Submitted)


def test_no_key_gives_access_as_a_worker(town: MultiUserHarness) -> None:
    hand = new_pair().public
    for role in ("worker", "", "root"):
        answer = town.refusal(AddKey(1, "hand", role, hand))
        assert (answer.code, "client or admin" in answer.hint) == ("option", True)
        fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"hand", hand)
    # An attacker who wrote the file once may have put it there.
    path = town.folder / "keys.json"
    write_keys(path, [*read_keys(path), KeyInfo("hand", "worker", hand, 1.0)])
    town.restart()
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.WORKER, b"hand", hand)


def test_second_connection_cannot_take_over_joined_worker(town: MultiUserHarness) -> None:
    """Whoever names a live worker and its start comes too late: results of it count from the
    socket it joined with alone."""
    town.order(town.ana)
    town.join()
    thief = town.listener.connect(PeerKind.WORKER, b"thief")
    worker = town.state.cluster.workers["main-0"]
    join = m.Join("0.1.0", "main-0", 1, "here", town.state.epoch, (), worker.start)
    assert isinstance(told(town, thief, join), m.StopWorker)
    (work,) = town.assigned()
    assert town.loop.workers.work_peer("main-0") != b"thief"
    assert told(town, thief, false_results(work)) is None
    assert work.task in town.state.tasks
    beat = m.Heartbeat("main-0", town.state.epoch, 0, 0, 0, worker.start)
    control = town.listener.connect(PeerKind.WORKER, b"control")
    assert isinstance(told(town, control, beat), m.LeaseRenewed)
    assert isinstance(told(town, thief, beat), m.StopWorker)


def test_worker_messages_of_client_are_refused(town: MultiUserHarness) -> None:
    town.order(town.ana)
    town.join()
    (work,) = town.assigned()
    answers = town.say(false_results(work), town.ben)
    assert all(isinstance(answer, m.Refused) for answer in answers)
    assert work.task in town.state.tasks


def test_revoked_key_is_refused_on_open_and_new_connections(town: MultiUserHarness) -> None:
    task = town.order(town.ana)
    town.say(RevokeKey(1, "ana"))
    (farewell,) = town.heard(town.ana)
    assert (farewell.request, farewell.refusals[0].code) == (0, "key_refused")
    assert town.say(m.GetStatus(1), town.ana) == []
    assert town.say(m.Submit(5, "~late", 0, TaskOptions(), [spec()]), town.ana) == []
    assert list(town.state.tasks) == [task]
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"again", town.key["ana"])
    assert task in town.state.tasks, "tasks stay"
    town.restart()
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"again", town.key["ana"])


def test_events_about_damaged_records_are_shown_only_to_task_owner(town: MultiUserHarness) -> None:
    hers = town.order(town.ana, count=2)
    town.join()
    town.finish(town.assigned())
    town.change("update finished set crc = crc + 1")
    assert town.say(m.WatchResults(1, [hers]), town.ana)
    assert sorted(task.task for task in town.assigned()) == [hers, hers + 1]
    ana, ben = (
        " ".join(f"{each.subject} {each.message}" for each in town.events(peer=peer))
        for peer in (town.ana, town.ben)
    )
    assert "t-1 the record of its end was damaged" in ana
    assert "t-1" not in ben
    assert "t-2" not in ben


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (AddKey(1, "ana", "client", new_pair().public), "key_conflict"),
        (AddKey(1, "Robert'); drop", "client", new_pair().public), "config"),
        (AddKey(1, "../eve", "client", new_pair().public), "config"),
        (AddKey(1, "", "client", new_pair().public), "config"),
        (AddKey(1, "eve", "king", new_pair().public), "option"),
        (RevokeKey(1, "nobody"), "not_found"),
    ],
)
def test_bad_key_changes_refused(town: MultiUserHarness, message: m.FromClient, code: str) -> None:
    before = read_keys(town.folder / "keys.json")
    assert town.refusal(message).code == code
    assert read_keys(town.folder / "keys.json") == before


def test_key_that_is_not_stored(town: MultiUserHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("simenv.files.write_atomic", fail)
    key = new_pair().public
    town.refusal(AddKey(1, "eve", "client", key))
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"eve", key)


def test_key_changes_of_service_and_of_another_process_are_merged(town: MultiUserHarness) -> None:
    """A command of the CLI that took the service for stopped has written the list meanwhile."""
    path = town.folder / "keys.json"
    other = KeyInfo("zoe", "client", new_pair().public, 1.0)
    write_keys(path, removed(added(read_keys(path), other), "ben"))
    answer = town.get(Keys, AddKey(1, "eve", "client", new_pair().public))
    assert [key.name for key in read_keys(path)] == ["ana", "ops", "zoe", "eve"]
    assert [key.name for key in answer.keys] == ["ana", "ops", "zoe", "eve"]
    town.listener.connect(PeerKind.CLIENT, b"zoe", other.public_key)
    fails(KeyRefusedError, "", town.listener.connect, PeerKind.CLIENT, b"again", town.key["ben"])
    last = KeyInfo("max", "client", new_pair().public, 1.0)
    write_keys(path, added(read_keys(path), last))
    assert isinstance(town.say(RevokeKey(2, "eve"))[0], Keys)
    assert isinstance(town.say(RevokeKey(3, "max"))[0], Keys)
    assert [key.name for key in read_keys(path)] == ["ana", "ops", "zoe"]


def test_keys_file_locked_by_another_process_is_not_changed(town: MultiUserHarness) -> None:
    """The service waits a moment and refuses in words; a revoked key is shut out all the same."""
    path = town.folder / "keys.json"
    before = read_keys(path)
    with changing(path):
        (refused,) = town.say(AddKey(1, "eve", "client", new_pair().public))
        (revoked,) = town.say(RevokeKey(2, "ana"))
        connect = town.listener.connect
        fails(KeyRefusedError, "", connect, PeerKind.CLIENT, b"again", town.key["ana"])
    for answer in (refused, revoked):
        assert "another process has held" in answer.refusals[0].message
    assert read_keys(path) == before
    assert isinstance(town.say(RevokeKey(3, "ana"))[0], Keys)
    assert [key.name for key in read_keys(path)] == ["ben", "ops"]
