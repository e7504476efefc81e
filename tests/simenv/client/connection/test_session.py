"""The protocol from the client's side, against a peer that plays the service."""

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_peer import Peer, completed, completion, spec, submit, terms
from failing import fails
from msgspec.structs import replace

from simenv import errors, result_files
from simenv.client.connection import channel
from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import Submission
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import MAX_UNANSWERED, InflightWindow, post, send
from simenv.client.tasks.task import Task, as_completed
from simenv.errors import NotFoundError, StoreError, TaskFailedError
from simenv.model import RESULT_FORMAT, ResultData, ResultFile, TaskOptions, TaskState
from simenv.wire import codec
from simenv.wire.messages import client as m, queries
from testbed.cluster_environment import wait_for


def test_result_that_precedes_acceptance_is_delivered(link: ServiceSession, peer: Peer) -> None:
    def backwards(message: m.Submit) -> list[m.ToClient]:
        accepted, ended = peer.submitted(message)
        return [ended, accepted]

    peer.on(m.Submit, backwards)
    assert submit(link)[0].result(5).seed == 0
    assert not link.tasks.pending._early


def test_duplicate_result_is_ignored(link: ServiceSession, peer: Peer) -> None:
    [task] = submit(link)
    first = task.result(5)
    peer.say(completed(completion(1, seed=99)))
    assert submit(link)[0].result(5).task == "t-2"
    assert task.result() is first


def test_duplicate_acceptance_is_ignored(link: ServiceSession, peer: Peer) -> None:
    peer.on(m.Submit, lambda message: [peer.take(message), peer.take(message), peer.end([1])])
    [task] = submit(link)
    assert task.result(5).seed == 0
    assert not link.tasks.pending.unanswered


@pytest.mark.usefixtures("impatient")
def test_submit_is_repeated_after_lost_acceptance(link: ServiceSession, peer: Peer) -> None:
    lost: list[m.Submit] = []

    def forgetful(message: m.Submit) -> list[m.ToClient]:
        if not lost:
            lost.append(message)
            peer.take(message)
            return []
        return peer.submitted(message)

    peer.on(m.Submit, forgetful)
    [task] = submit(link)
    assert (task.result(5).seed, len(peer.accepted)) == (0, 1)


@pytest.mark.usefixtures("impatient")
def test_lost_results_are_requested_1000_at_a_time(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 2_500)
    assert [task.result(5).seed for task in tasks] == list(range(2_500))
    assert max(len(watch.tasks) for watch in idle.of(m.WatchResults)) <= 1_000


@pytest.mark.usefixtures("impatient")
def test_task_unknown_to_service_raises_not_found_error(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.tasks.clear()
    fails(errors.NotFoundError, "t-1", task.result, 5)


@pytest.mark.usefixtures("impatient")
def test_silent_service_raises_service_lost_error(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.silent = True
    error = fails(errors.ServiceLostError, "process 4711 on here has ended", task.result)
    assert error.last_seen_s >= 1.0
    # The wait may be repeated; `Client.run`, which would submit it again, may not.
    assert (error.tasks, error.maybe_accepted, error.retryable) == (("t-1",), True, True)
    assert "task t-1 was accepted and continues" in error.message
    assert "simenv result t-1" in error.hint
    assert "simenv up" in error.hint
    idle.silent = False
    assert task.result(5).seed == 0  # the same task, when the service is heard again


@pytest.mark.usefixtures("impatient")
def test_loss_while_several_are_awaited_names_those_that_wait(
    link: ServiceSession, idle: Peer
) -> None:
    tasks = submit(link, 3)
    handles = [task.handle for task in tasks]
    ended = link.tasks.gather(handles)
    idle.silent = True
    error = fails(errors.ServiceLostError, "accepted", link.tasks.wait_any, handles, ended, None)
    assert error.tasks == ("t-1", "t-2", "t-3")


@pytest.mark.usefixtures("impatient")
def test_withdrawn_submission_is_awaited_until_its_task_is_cancelled(
    link: ServiceSession, idle: Peer
) -> None:
    """As after Ctrl-C in the first seconds of `simenv run`."""
    late: list[m.Submit] = []
    idle.on(m.Submit, lambda message: late.append(message) or [])
    order = PreparedSubmit(TaskOptions(), [spec(0)], single=True)
    request = link.submits.send(None, 0, order.terms, order.specs, Submission())
    link.submits.withdraw([request])
    assert link.submits.await_withdrawn(0.2) == ([], False)
    idle.say(*[idle.take(message) for message in late])
    assert link.submits.await_withdrawn(5.0) == ([1], True)
    idle.until(lambda: [n for each in idle.of(m.Cancel) for n in each.tasks] == [1])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("count", [1, 600])
def test_submission_without_answer_says_so_and_is_cancelled_when_it_is_accepted_late(
    link: ServiceSession, idle: Peer, count: int
) -> None:
    late: list[m.Submit] = []
    idle.on(m.Submit, lambda message: late.append(message) or [])
    idle.on(m.Ping, lambda _: [])
    error = fails(errors.ServiceLostError, "may have been accepted", submit, link, count)
    assert error.maybe_accepted
    assert "history" in error.hint
    sent = {message.offset: message for message in late}
    idle.say(*[idle.take(message) for message in sent.values()])
    link.channel.poll()

    def cancelled() -> list[int]:
        return sorted(number for message in idle.of(m.Cancel) for number in message.tasks)

    idle.until(lambda: cancelled() == list(range(1, count + 1)))
    assert not link.requests._open


@pytest.mark.usefixtures("impatient")
def test_submission_with_a_key_is_not_withdrawn_but_repeated_by_its_caller(
    link: ServiceSession, idle: Peer
) -> None:
    idle.on(m.Submit, lambda message: [idle.take(message)][1:])
    idle.on(m.Ping, lambda _: [])
    error = fails(errors.ServiceLostError, "may have been", submit, link, 2, key="s-17")
    assert error.maybe_accepted
    assert "idempotency_key='s-17'" in error.hint
    idle.on(m.Submit, idle.submitted)
    assert [task.id for task in submit(link, 2, key="s-17")] == ["t-1", "t-2"]
    assert not idle.of(m.Cancel)


def test_message_above_the_limit_ends_a_batch_of_which_nothing_runs(
    link: ServiceSession, idle: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = link.channel.send

    def limited(message: m.FromClient) -> bytes:
        if isinstance(message, m.Submit) and message.offset:
            raise errors.LimitExceededError("a message has 3 bytes, the limit is 2")
        return sent(message)

    monkeypatch.setattr(link.channel, "send", limited)
    error = fails(errors.LimitExceededError, "the limit is 2", submit, link, 600)
    assert not error.maybe_accepted
    assert [message.tasks for message in idle.of(m.Cancel)] == [list(range(1, 501))]


def test_client_learns_standbys_at_its_connection_and_while_it_waits(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.on(m.Hello, lambda _: [m.Welcome(1, "0.1.0", "played", standbys=("tcp://b:1",))])
    link = ServiceSession(peer)
    assert (peer.learnt, link.channel.service.standbys) == (("tcp://b:1",), ("tcp://b:1",))
    peer.on(m.Ping, lambda ping: [m.Pong(ping.request, 1, ("tcp://c:1",))])
    monkeypatch.setattr(channel, "REFRESH_S", 0.0)
    monkeypatch.setattr(channel, "QUIET_S", 60.0)  # it is not pinged for its silence
    assert link.channel.wait(lambda: peer.learnt == ("tcp://c:1",), 30)
    link.close()


@pytest.mark.usefixtures("impatient")
def test_patience_with_a_silent_service_is_chosen(link: ServiceSession, idle: Peer) -> None:
    link.channel.liveness.be_patient(0.2)
    [task] = submit(link)
    idle.silent = True
    assert 0.2 <= fails(errors.ServiceLostError, "", task.result).last_seen_s < 1.0
    link.channel.liveness.be_patient(60.0)
    threading.Timer(1.5, setattr, (idle, "silent", False)).start()
    assert task.result(30).seed == 0  # LOST_S is 1 s


@pytest.mark.usefixtures("impatient")
def test_silent_service_is_pinged(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.on(m.WatchResults, lambda message: [m.UnknownTasks(message.request, [])])
    with pytest.raises(errors.TimedOutError, match=r"t-1 has no result after 1\.5 s"):
        task.result(1.5)  # more than the patience with a silent service, but this one answers
    assert idle.of(m.Ping)


@pytest.mark.usefixtures("impatient")
def test_tasks_are_requested_again_from_moved_service(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 2)
    idle.restart()
    idle.finishes = True
    assert [task.result(5).seed for task in tasks] == [0, 1]
    assert (link.channel.service.epoch, len(idle.accepted)) == (2, 1)


@pytest.mark.usefixtures("impatient")
def test_submit_in_flight_survives_service_restart(link: ServiceSession, peer: Peer) -> None:
    peer.silent = True
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submit, link)
        peer.until(lambda: bool(peer.of(m.Submit)))
        peer.restart()
        peer.silent = False
        assert waiting.result(30)[0].result(5).seed == 0
    assert len(peer.accepted) == 1


@pytest.mark.usefixtures("impatient")
def test_tasks_are_requested_again_after_new_epoch(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.epoch = 7  # the same place, another service
    service = link.channel.service
    idle.on(m.WatchResults, lambda each: idle.watched(each) if service.epoch == 7 else [])
    assert task.result(30).seed == 0


def test_repeated_key_gives_same_task(link: ServiceSession, idle: Peer) -> None:
    [first] = submit(link, key="s-17")
    [again] = submit(link, key="s-17")
    assert again == first
    assert again.handle is first.handle
    assert again.result(5).seed == 0


def test_repeated_key_of_completed_task_gives_its_result(link: ServiceSession) -> None:
    [first] = submit(link, key="s-17")
    first.result(5)
    [again] = submit(link, key="s-17")
    assert (again.result(5).seed, again.id) == (0, first.id)


def test_automatic_keys_differ_between_sessions(link: ServiceSession, peer: Peer) -> None:
    submit(link, 3)
    submit(link, 2)
    other = ServiceSession(peer)
    submit(other)
    other.close()
    first, second, third = peer.of(m.Submit)
    assert (first.key, first.offset, second.offset) == (second.key, 0, 3)
    assert third.key != first.key
    assert first.key.startswith("~")


def test_refused_item_refuses_batch_and_cancels_the_rest(link: ServiceSession, idle: Peer) -> None:

    def picky(message: m.Submit) -> list[m.ToClient]:
        if message.offset:
            bad = m.Refusal("infeasible", "33 qubits do not fit", "28 do", index=7)
            return [m.Refused(message.request, [bad])]
        return idle.submitted(message)

    idle.on(m.Submit, picky)
    caught = fails(errors.BatchRefusedError, "item 507: 33 qubits", submit, link, 1_000, key="s-17")
    assert ([error.index for error in caught.errors], caught.errors[0].hint) == ([507], "28 do")
    assert "s-17" in caught.hint
    [cancel] = idle.of(m.Cancel)
    assert cancel.tasks == list(range(1, 501))


def test_refusal_does_not_cancel_tasks_of_earlier_call(link: ServiceSession, idle: Peer) -> None:
    submit(link, 500, key="s-17")
    full = m.Refusal("queue_full", "2000000 tasks are queued", "wait", retry_after_s=3.0)

    def full_now(message: m.Submit) -> list[m.ToClient]:
        return (
            idle.submitted(message) if not message.offset else [m.Refused(message.request, [full])]
        )

    idle.on(m.Submit, full_now)
    assert fails(errors.QueueFullError, "", submit, link, 1_000, key="s-17").retry_after_s == 3.0
    assert not idle.of(m.Cancel)


def test_no_more_than_eight_messages_are_unanswered(link: ServiceSession, peer: Peer) -> None:
    waiting: list[m.Submit] = []
    most = 0

    def slow(message: m.Submit) -> list[m.ToClient]:
        nonlocal most
        waiting.append(message)
        most = max(most, len(waiting))
        if len(waiting) < 8:
            return []
        answers = [answer for each in waiting for answer in peer.submitted(each)]
        waiting.clear()
        return answers

    peer.on(m.Submit, slow)
    tasks = submit(link, 500 * 16)
    assert ([task.result(5).seed for task in tasks], most) == (list(range(8_000)), 8)


def test_undecodable_message_leaves_session_open(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.say_bytes(b"\xc1 not msgpack")
    fails(errors.ProtocolError, "", task.result, 5)
    idle.say(idle.end([1]))
    assert task.result(5).seed == 0


def test_reply_of_wrong_type_is_a_protocol_error(link: ServiceSession, peer: Peer) -> None:
    peer.on(m.GetStatus, lambda message: [m.Acked(message.request, 3)])
    fails(errors.ProtocolError, "answered Acked, not Status", link.request, m.GetStatus(0))


def test_unsupported_protocol_version_raises_version_mismatch_error(peer: Peer) -> None:
    text = "client 0.1.0 speaks protocol 1, service 9.9 speaks 9"
    peer.on(m.Hello, lambda _: [m.Refused(0, [m.Refusal("version", text)])])
    fails(errors.VersionMismatchError, r"service 9\.9 speaks 9", ServiceSession, peer)


@pytest.mark.usefixtures("impatient")
def test_unanswered_connect_raises_no_service_error(peer: Peer) -> None:
    peer.silent = True
    fails(errors.NoServiceError, "no service answers for 'played'", ServiceSession, peer)


def test_failed_and_cancelled_tasks_raise_their_errors(link: ServiceSession, idle: Peer) -> None:
    failed, cancelled = submit(link, 2)
    idle.say(
        completed(completion(1, state=TaskState.FAILED)),
        completed(completion(2, state=TaskState.CANCELLED)),
    )
    error = fails(errors.TaskFailedError, "t-1 failed: it broke", failed.result, 5)
    assert (error.reason, error.host) == ("engine", "here")
    assert error.hint.splitlines() == [
        "mend it",
        "all that is needed to run it again, and the worker's log: simenv result t-1 --bundle DIR",
    ]
    fails(errors.TaskCancelledError, "t-2 was cancelled: it broke", cancelled.result, 5)
    assert failed.wait() is TaskState.FAILED
    assert isinstance(cancelled.exception(), errors.TaskCancelledError)


def test_concurrent_threads_get_their_own_results(link: ServiceSession) -> None:
    def work(thread: int) -> list[int]:
        seeds = []
        for k in range(50):
            number = 1_000 * thread + k
            [task] = submit(link, first=number)
            seeds.append(task.result(30).seed)
        return seeds

    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(work, range(8)))
    assert entries == [[1_000 * thread + k for k in range(50)] for thread in range(8)]
    assert not link.tasks.pending.tasks


@contextmanager
def waiting_thread(link: ServiceSession, idle: Peer) -> Iterator[None]:
    """Another thread waits for the result of the first task, which comes at the end."""
    [slow] = submit(link)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow.result, 30)
        idle.until(lambda: len(idle.accepted) == 1)
        yield
        assert not waiting.done()
        idle.say(idle.end([1]))
        assert waiting.result(30).task == "t-1"


def test_thread_can_submit_while_another_waits(link: ServiceSession, idle: Peer) -> None:
    with waiting_thread(link, idle):
        idle.finishes = True
        assert submit(link)[0].result(30).task == "t-2"


def test_closing_session_ends_waiting_threads(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 2)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(task.result) for task in tasks]
        link.close()
        for wait in waiting:
            fails(errors.NoServiceError, "closed", wait.result, 30)


@pytest.mark.usefixtures("impatient")
def test_asked_again(link: ServiceSession, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_transport.SEND_QUEUE_MESSAGES", 5)
    peer.finishes = False
    tasks = submit(link, 50)
    peer.say(*[peer.end([number]) for number in range(1, 51)])  # all but five are dropped
    assert [task.result(5).seed for task in tasks] == list(range(50))


ENDING = m.Refusal("shutting_down", "the service is shutting down and accepts nothing new", "later")


def ends(peer: Peer) -> None:
    """Refuse as a service that shuts down, until `restart`."""
    refused = peer.epoch

    def answer(message: m.Submit) -> list[m.ToClient]:
        if peer.epoch != refused:
            return peer.submitted(message)
        return [m.Refused(message.request, [ENDING])]

    peer.on(m.Submit, answer)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("count", [1, 1_000])
def test_submission_refused_by_an_ending_service_waits_for_the_next_one(
    link: ServiceSession, peer: Peer, count: int
) -> None:
    link.channel.liveness.be_patient(30.0)
    ends(peer)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submit, link, count)
        peer.until(lambda: bool(peer.of(m.Submit)) and bool(peer.of(m.Ping)))
        peer.restart()
        assert [task.result(5).seed for task in waiting.result(30)] == list(range(count))
    assert len(peer.accepted) == (2 if count > 1 else 1)
    assert not peer.of(m.Cancel)


@pytest.mark.usefixtures("impatient")
def test_submission_refused_by_a_service_that_does_not_come_back_was_not_accepted(
    link: ServiceSession, peer: Peer
) -> None:
    link.channel.liveness.be_patient(1.5)
    ends(peer)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submit, link)
        peer.until(lambda: bool(peer.of(m.Submit)))
        peer.silent = True
        error = fails(errors.ShuttingDownError, "is shutting down", waiting.result, 30)
    assert (error.maybe_accepted, error.hint) == (False, "later")
    assert len(peer.of(m.Submit)) == 1, "nobody reads it, who may come back and run it"


@pytest.mark.usefixtures("impatient")
def test_posted_task_that_is_cancelled_before_its_acceptance_is_not_sent_again(
    link: ServiceSession, peer: Peer
) -> None:
    link.channel.liveness.be_patient(30.0)
    ends(peer)
    window = InflightWindow()
    task = post(link, PreparedSubmit(terms(), [spec()]), None, window)
    assert "task.cancel()" in fails(errors.TimedOutError, "no answer", task.result, 0.2).hint
    fails(errors.TimedOutError, "no answer", task.wait, progress=True, timeout_s=0.2)
    fails(errors.TimedOutError, "no answer", list, map(as_completed, [[task]], [0.2]))
    assert task.cancel()
    assert task.cancelled()
    peer.restart()
    assert submit(link, first=7)[0].result(30).seed == 7
    assert list(peer.tasks) == [1], "of the second one"
    fails(errors.TaskCancelledError, "before its acceptance", task.result, 5)
    orders = [PreparedSubmit(terms(), [spec(number)]) for number in range(MAX_UNANSWERED + 1)]
    posted = [post(link, order, None, window) for order in orders]  # waits for the oldest ones
    assert (posted[-1].result(30).seed, len(peer.tasks)) == (MAX_UNANSWERED, MAX_UNANSWERED + 2)


def test_message_of_a_call_that_raised_leaves_the_outbox(link: ServiceSession, idle: Peer) -> None:
    """Put there while another thread reads."""
    with waiting_thread(link, idle):
        wait_for("a reader", lambda: link.channel._threads.leader is not None)
        with link.channel.lock:  # the reader does not flush meanwhile
            task = post(link, PreparedSubmit(terms(), [spec()]), None, InflightWindow())
            task.withdraw()
            assert not link.channel._outbox
    assert len(idle.accepted) == 1


@pytest.mark.parametrize("value", [math.nan, "5", True, [1]])
def test_timeout_that_is_none_is_refused(link: ServiceSession, idle: Peer, value: Any) -> None:
    """NaN would wait for ever. A negative time is 0, as in concurrent.futures."""
    [task] = submit(link)
    posted = post(link, PreparedSubmit(terms(), [spec(1)]), None, InflightWindow())
    for each in (task, posted):
        for call in (each.result, each.exception, each.results, partial(each.wait, False)):
            fails(errors.OptionError, "timeout_s", call, value)
        fails(errors.OptionError, "timeout_s", each.wait, progress=True, timeout_s=value)
        fails(errors.OptionError, "timeout_s", as_completed, [each], value)
        for timeout_s in (0, -1, -math.inf):
            fails(errors.TimedOutError, "", each.result, timeout_s)
    fails(errors.OptionError, "timeout_s", link.request, m.GetStatus(0), value)
    assert not idle.of(m.GetStatus)


def test_impatient_client_is_refused_by_an_ending_service_at_once(
    link: ServiceSession, peer: Peer
) -> None:
    ends(peer)
    fails(errors.ShuttingDownError, "is shutting down", submit, link)


ARRAY = np.arange(200_000, dtype="<u4")


def submitted(link: ServiceSession) -> Task:
    [task] = send(link, PreparedSubmit(TaskOptions(), [spec()]), None)
    return task


def flipped(one: m.Completion) -> m.Completion:
    return replace(one, payload=one.payload[:-1] + bytes([one.payload[-1] ^ 1]))


@pytest.mark.parametrize("word", ["again", "waits", "intact"])
def test_corrupt_payload_is_requested_again(link: ServiceSession, idle: Peer, word: str) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, word)])
    changed = replace(completion(1, seed=7), attempts=2)
    idle.on(m.WatchResults, lambda q: [completed(changed), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    idle.say(completed(flipped(completion(1, seed=7))))
    result = task.result(10)
    assert (result.seed, result.attempts, result.counts) == (7, 2, {"00": 1000, "11": 24})
    assert len(idle.of(queries.VerifyResult)) == 1


def test_corrupt_failure_is_requested_again(link: ServiceSession, idle: Peer) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, "again")])
    result = completion(1, state=TaskState.FAILED)
    idle.on(m.WatchResults, lambda q: [completed(result), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    idle.say(completed(flipped(result)))
    fails(TaskFailedError, "it broke", task.result, 10)


def test_corrupt_result_raises_after_one_verification(link: ServiceSession, idle: Peer) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, "intact")])
    broken = flipped(completion(1))
    idle.on(m.WatchResults, lambda q: [completed(broken), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    idle.say(completed(broken))
    assert fails(StoreError, "t-1 is damaged", task.result, 10).hint
    assert len(idle.of(queries.VerifyResult)) == 1


@pytest.mark.parametrize("word", ["removed", "unknown"])
def test_corrupt_result_not_stored_raises(link: ServiceSession, idle: Peer, word: str) -> None:
    idle.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, word)])
    task = submitted(link)
    idle.say(completed(flipped(completion(1))))
    fails(NotFoundError, "no longer kept", task.result, 10)


def filed(folder: Path, name: str = "t-1.h5") -> ResultFile:
    return result_files.write(folder / name, {"counts": ARRAY}, {}, name=name)


def ended(file: ResultFile) -> m.Completion:
    data = ResultData(RESULT_FORMAT, (("c", 8),), 8, 9, 1, 1, bytes(len(ARRAY)), file=file)
    payload = codec.encode(data)
    got = completion(1)
    return replace(got, payload=payload, checksum=result_files.zlib.crc32(payload))


def serving(peer: Peer, folder: Path, most: int = queries.CHUNK_BYTES) -> None:
    """Chunks from the folder, `most` bytes at once."""

    def chunk(q: queries.FetchResult) -> list[m.ToClient]:
        data = (folder / q.file).read_bytes()[q.offset :][: min(most, q.size_bytes)]
        return [queries.ResultChunk(q.request, data)]

    peer.on(queries.FetchResult, chunk)


def test_array_of_short_chunks_is_whole(link: ServiceSession, peer: Peer, tmp_path: Path) -> None:
    serving(peer, tmp_path, most=100_001)
    peer.finishes = False
    task = submitted(link)
    peer.say(completed(ended(filed(tmp_path))))
    np.testing.assert_array_equal(task.result(10).outcome_counts, ARRAY)
    assert len(peer.of(queries.FetchResult)) == 8


def test_array_is_fetched_once_when_read(link: ServiceSession, peer: Peer, tmp_path: Path) -> None:
    serving(peer, tmp_path)
    peer.finishes = False
    task = submitted(link)
    peer.say(completed(ended(filed(tmp_path))))
    result = task.result(10)
    assert result.has("counts")
    assert not peer.of(queries.FetchResult)
    assert result.outcome_counts is not None
    assert result.outcome_counts is not None
    assert len(peer.of(queries.FetchResult)) == 1


@pytest.mark.parametrize("how", ["flip", "short", "refused"])
def test_bad_file_is_rewritten(link: ServiceSession, peer: Peer, tmp_path: Path, how: str) -> None:
    serving(peer, tmp_path)
    peer.finishes = False
    first, second = filed(tmp_path), filed(tmp_path, "t-1.second.h5")
    content = bytearray((tmp_path / first.name).read_bytes())
    content[first.arrays[0].offset + 5_000] ^= 16
    (tmp_path / first.name).write_bytes(content[:300_000] if how == "short" else content)
    if how == "refused":
        refusal = m.Refusal("result_store", "it is not there")

        def chunk(q: queries.FetchResult) -> list[m.ToClient]:
            if q.file == first.name:
                return [m.Refused(q.request, [refusal])]
            data = (tmp_path / q.file).read_bytes()[q.offset :][: q.size_bytes]
            return [queries.ResultChunk(q.request, data)]

        peer.on(queries.FetchResult, chunk)
    peer.on(queries.VerifyResult, lambda q: [queries.VerifyReply(q.request, "again")])
    peer.on(m.WatchResults, lambda q: [completed(ended(second)), m.UnknownTasks(q.request, [])])
    task = submitted(link)
    peer.say(completed(ended(first)))
    np.testing.assert_array_equal(task.result(10).outcome_counts, ARRAY)
    assert len(peer.of(queries.VerifyResult)) == 1
