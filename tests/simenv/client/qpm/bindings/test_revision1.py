"""Revision 1: every method of its one class."""

from types import SimpleNamespace

import pytest
from failing import fails
from hosts import BAD, info, until

from simenv.client.qpm import identity
from simenv.client.qpm.completion_queues import CompletionRetention, RetiredCircuit
from simenv.client.qpm.provider import QPM, SingleQPM
from simenv.frontends.qfw import service
from simenv.model import ServiceInfo
from simenv.qpm.contract import ExecutionError, InProgressError


@pytest.fixture
def single(qpm: QPM) -> SingleQPM:
    return qpm.revision1


def read(single: SingleQPM, cid: str) -> dict[str, object]:
    def ready() -> dict[str, object] | None:
        try:
            return single.read_cq(cid)
        except InProgressError:
            return None

    table: dict[str, object] = until(ready)
    return table


def test_circuit_returned_by_sync_run_is_retired(single: SingleQPM) -> None:
    for _ in range(2):
        result = single._registry.find(single.sync_run(info())["cid"])
        assert isinstance(result, RetiredCircuit)
        assert result.reason == "returned-to-caller"


def test_reading_evicted_completion_raises_execution_error(qpm: QPM) -> None:
    single = qpm.connection()
    single._registry.retention = CompletionRetention(count=2)
    cids = [single.async_run(info(BAD)) for _ in range(3)]
    for ask in (single.read_cq, single.peek_cq):
        fails(ExecutionError, r"no longer kept: max-records-exceeded", ask, cids[0])
    assert single.read_cq(cids[1])["cid"] == cids[1]
    with pytest.raises(InProgressError):  # it was read
        single.read_cq(cids[1])


def test_revisions_do_not_share_completions(qpm: QPM, single: SingleQPM) -> None:
    cid = single.async_run(info())
    assert read(single, cid)["rc"] == 0
    assert (qpm.read_cq()["outcome"], qpm.task_status(cid)["outcome"]) == ("IN_PROGRESS", "UNKNOWN")


def test_ready_asks_once_an_interval(single: SingleQPM, monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[int] = []
    status = single._identity.status

    def counted() -> ServiceInfo:
        entries.append(1)
        return status()

    monkeypatch.setattr(single._identity, "status", counted)
    monkeypatch.setattr(identity, "READY_S", 60.0)
    assert all(single.is_ready() for _ in range(100))
    assert len(entries) == 1


def test_idle_session_ends_when_all_was_read(qpm: QPM, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = service.Sessions(SimpleNamespace(wait=lambda _: qpm))  # type: ignore[arg-type]
    session = outcome.open()
    first = session.qpm()
    cid = first.async_run(info())
    until(lambda: first._registry.is_idle or first._registry.look())
    monkeypatch.setattr(service, "IDLE_S", 0.0)
    monkeypatch.setattr(service, "SWEEP_S", 0.0)
    outcome.sweep()
    assert session.qpm() is first, "a record waits to be read"
    assert first.read_cq(cid)["cid"] == cid
    outcome.open()  # another client comes
    assert session.qpm() is not first


def test_idle_session_keeps_open(qpm: QPM, busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "IDLE_S", 0.0)
    session = service.QfwSession(SimpleNamespace(wait=lambda _: qpm))  # type: ignore[arg-type]
    first = session.qpm()
    cid = first.async_run(info())
    session.expire()
    assert session.qpm() is first, "a circuit is queued"
    first._registry.retention = CompletionRetention(age_s=0.0)
    (run,) = first._registry.unfinished()
    first._submitter.cancel(run)
    until(lambda: first._registry.is_idle or first._registry.look())
    session.expire()
    assert session.qpm() is first
    fails(ExecutionError, "no longer kept", first.read_cq, cid)
