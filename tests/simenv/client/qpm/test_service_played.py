"""A service that loses what it sends, forgets what it took, or ends things unheard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from client_peer import Peer
from hosts import BELL, Endpoint, completion, info, until

import simenv
from simenv.client.qpm.answers import status
from simenv.client.qpm.bindings import control
from simenv.client.qpm.bindings.revision1 import SingleQPM
from simenv.client.qpm.provider import QPM
from simenv.client.qpm.runtime import completion_queues
from simenv.model import TaskInfo, TaskState, task_name
from simenv.qpm.errors import InProgressError, NotReadyError
from simenv.wire.messages import client as m


@pytest.fixture
def played(peer: Peer) -> Iterator[QPM]:
    peer.finishes = False  # no result is sent before it is asked for
    with simenv.Client(peer) as client:
        yield client.qpm


@pytest.fixture
def impatient(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (control, status):
        monkeypatch.setattr(module, "HEARING_S", 0.3)
    monkeypatch.setattr(completion_queues, "REPEAT_S", 0.05)


def says(peer: Peer, state: TaskState | None) -> None:
    """The service's answer to how tasks stand; None: it knows none of them."""

    def stand(message: m.FromClient) -> list[m.ToClient]:
        assert isinstance(message, m.GetTasks)
        infos = [
            TaskInfo(task_name(number), "", "main", state, 1, 0.0, 2, 200, "", "")
            for number in message.tasks
            if state is not None
        ]
        return [m.Queue(message.request, len(infos), infos)]

    peer.on(m.GetTasks, stand)


@pytest.mark.usefixtures("impatient")
def test_lost_result_is_requested_again_by_polling(played: QPM, peer: Peer) -> None:
    says(peer, TaskState.RUNNING)
    cid = played.async_run(info(BELL))["cid"]
    assert completion(played, cid)["rc"] == 0


@pytest.mark.usefixtures("impatient")
def test_lost_result_is_requested_again_and_pushed(played: QPM) -> None:
    endpoint = Endpoint()
    played.register_event_notification(endpoint, 1, "q")
    cid = played.async_run(info(BELL))["cid"]
    assert endpoint.get().payload["cid"] == cid


@pytest.mark.usefixtures("impatient")
def test_circuit_unknown_to_service_is_reconciled_as_failed(played: QPM, peer: Peer) -> None:
    says(peer, None)
    peer.on(m.WatchResults, lambda message: [])
    number = played.async_run(info(BELL))["qtask_id"]
    result = played.reconcile_runtime_state(reason="after a loss")
    assert result["provider_handle_faults"] == [number]
    (fault,) = played._audit.faults()
    assert (fault.kind, fault.qtask_id) == ("provider-handle", number)
    answer = played.task_status(qtask_id=number)
    assert (answer["outcome"], answer["reason"]) == ("UNKNOWN", "not-found")
    peer.on(m.WatchResults, lambda message: [m.UnknownTasks(message.request, list(message.tasks))])
    answer = played.task_status(qtask_id=number)
    assert answer["outcome"] == "FAILED"
    assert "does not know task" in answer["error"]


@pytest.mark.usefixtures("impatient")
def test_polling_returns_all_completions_after_service_restart(played: QPM, peer: Peer) -> None:
    single = played.revision1
    names = [single.async_run(info(BELL)) for _ in range(3)]
    values = {played.async_run(info(BELL))["qtask_id"] for _ in range(3)}
    peer.restart()
    assert {until(lambda: polled(single, None))["cid"] for _ in names} == set(names)
    assert {completion(played)["qtask_id"] for _ in values} == values


@pytest.mark.usefixtures("impatient")
def test_polling_silent_service_raises_not_ready_error(played: QPM, peer: Peer) -> None:
    single = played.revision1
    cid = single.async_run(info(BELL))
    assert polled(single, cid) is None
    peer.silent = True

    def refused() -> bool:
        try:
            return bool(polled(single, cid))
        except NotReadyError:
            return True

    until(refused)
    with pytest.raises(NotReadyError):
        played.read_cq()
    peer.silent, peer.finishes = False, True
    peer.restart()

    def back() -> Any:
        try:
            return polled(single, cid)
        except NotReadyError:
            return None

    assert until(back)["rc"] == 0


@pytest.mark.usefixtures("impatient")
def test_completion_that_arrives_during_poll_is_returned_by_it(played: QPM, peer: Peer) -> None:
    says(peer, TaskState.DONE)
    cid = played.async_run(info(BELL))["cid"]
    answer = played.read_cq(cid)
    assert (answer["outcome"], answer["completion_ready"]) == ("COMPLETED", True)


def polled(single: SingleQPM, cid: str | None) -> Any:
    try:
        return single.read_cq(cid)
    except InProgressError:
        return None


@pytest.mark.usefixtures("impatient")
def test_reconciliation_finds_circuit_that_ended_without_notice(played: QPM, peer: Peer) -> None:
    says(peer, TaskState.DONE)
    number = played.async_run(info(BELL))["qtask_id"]
    result = played.reconcile_runtime_state(reason="after a pause")
    assert result["stale_runtime_tasks"] == [number]
    assert played.task_status(qtask_id=number)["lifecycle_state"] == "completed"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("word", "outcome", "reason"),
    [
        ("final", "COMPLETED", "already-completed"),
        ("cancelling", "CANCEL_PENDING", None),
        ("cancelled", "CANCELLED", None),
        ("unknown", "UNKNOWN", "not-found"),
    ],
)
def test_cancel_reply_of_service_is_mapped_to_outcome(
    played: QPM, peer: Peer, word: str, outcome: str, reason: str | None
) -> None:
    if word == "unknown":
        peer.on(m.WatchResults, lambda message: [m.UnknownTasks(message.request, [])])
    peer.on(m.Cancel, lambda message: [m.Cancelled(message.request, [word] * len(message.tasks))])
    cid = played.async_run(info(BELL))["cid"]
    answer = played.cancel_task(cid)
    assert (answer["outcome"], answer.get("reason")) == (outcome, reason)


def test_repeated_polling_queries_service_once_per_interval(
    played: QPM, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "SEEN_S", 60.0)
    says(peer, TaskState.RUNNING)
    cid = played.async_run(info(BELL))["cid"]
    answers = [played.read_cq(cid) for _ in range(100)]
    assert {answer["lifecycle_state"] for answer in answers} == {"submitted"}
    assert len(peer.of(m.GetTasks)) == 1
