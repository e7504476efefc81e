"""Completions pushed: once each, to those they fit; a reader that has gone loses nothing."""

import threading
from typing import Any, cast

import pytest
from failing import fails
from hosts import Endpoint, info
from waiting import until

from simenv.client.qpm import event_delivery
from simenv.client.qpm.circuit_run import CircuitRun
from simenv.client.qpm.provider import QPM
from simenv.qpm.contract import InProgressError
from simenv.qpm.envelopes import EventEnvelope


class Stuck(Endpoint):
    """A client that hangs with an event in its hands, until `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.released = threading.Event(), threading.Event()

    def put(self, event: EventEnvelope) -> None:
        self.entered.set()
        assert self.released.wait(60)
        super().put(event)


def test_hanging_endpoint_delays_no_other_endpoint(qpm: QPM) -> None:
    stuck, endpoint = Stuck(), Endpoint()
    qpm.register_event_notification(stuck, 1, "stuck")
    qpm.register_event_notification(endpoint, 1, "there")
    try:
        cids = [qpm.async_run(info())["cid"] for _ in range(3)]
        assert stuck.entered.wait(60)
        assert {endpoint.get().payload["cid"] for _ in cids} == set(cids)
    finally:
        stuck.released.set()
    assert {stuck.get().payload["cid"] for _ in cids} == set(cids)


def test_hanging_client_of_revision_1_delays_no_other_client(qpm: QPM) -> None:
    stuck, endpoint = Stuck(), Endpoint()
    first, second = qpm.connection(), qpm.connection()
    first.register_event_notification(stuck, 1, "stuck")
    second.register_event_notification(endpoint, 1, "there")
    try:
        first.async_run(info())
        assert stuck.entered.wait(60)
        cids = {second.async_run(info()) for _ in range(3)}
        assert {endpoint.get().payload["cid"] for _ in cids} == cids
    finally:
        stuck.released.set()


def test_suspended_endpoint_gets_events_later(qpm: QPM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_delivery, "PUT_S", 0.05)
    single, stuck = qpm.connection(), Stuck()
    single.register_event_notification(stuck, 1, "stuck")
    try:
        cids = [single.async_run(info()) for _ in range(4)]
        assert stuck.entered.wait(60)
        first = until(lambda: read(single, None))["cid"]
        second = until(lambda: read(single, None))["cid"]
    finally:
        stuck.released.set()
    put = [stuck.get().payload["cid"] for _ in range(3)]
    assert put[0] == first, "it was in the endpoint's hands all the time"
    assert sorted([second, *put]) == sorted(cids)
    until(lambda: not single._registry._runs)
    assert read(single, None) is None
    assert stuck.empty()


def test_events_pending_for_replaced_endpoint_can_be_read(qpm: QPM) -> None:
    single, stuck, fresh = qpm.connection(), Stuck(), Endpoint()
    single.register_event_notification(stuck, 1, "stuck")
    try:
        old = [single.async_run(info()) for _ in range(3)]
        assert stuck.entered.wait(60)
        until(lambda: single._registry.is_idle)
        single.register_event_notification(fresh, 1, "fresh")
        rest = {until(lambda: read(single, None))["cid"] for _ in old[1:]}
        cid = single.async_run(info())
        assert fresh.get().payload["cid"] == cid
    finally:
        stuck.released.set()
    assert {stuck.get().payload["cid"]} | rest == set(old)
    assert fresh.empty()


def test_events_beyond_queue_come_once(qpm: QPM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_delivery, "QUEUE", 2)
    single, stuck = qpm.connection(), Stuck()
    single.register_event_notification(stuck, 1, "stuck")
    try:
        cids = {single.async_run(info()) for _ in range(6)}
        assert stuck.entered.wait(60)
        until(lambda: single._registry.is_idle)
        read_here = until(lambda: read(single, None))["cid"]
    finally:
        stuck.released.set()
    assert {stuck.get().payload["cid"] for _ in range(5)} == cids - {read_here}


def test_endpoint_shared_by_two_clients_gets_events_until_last_one_leaves(qpm: QPM) -> None:
    shared = Endpoint()
    first, second = qpm.connection(), qpm.connection()
    for single in (first, second):
        single.register_event_notification(shared, 1, "shared")
    first.shutdown()
    cids = {second.async_run(info()) for _ in range(3)}
    assert {shared.get().payload["cid"] for _ in cids} == cids
    second.shutdown()
    with qpm._session.channel.lock:
        outlet = qpm._delivery.join(second._notifier, shared)
        qpm._delivery.leave(second._notifier, shared)
        assert not outlet.push(cast(Any, None))  # it is queued then


class Troubled:
    """A source whose first look fails, and in whose second look another client comes."""

    def __init__(self, qpm: QPM) -> None:
        self._qpm = qpm
        self._has_failed = False
        self.came = threading.Event()

    @property
    def is_waiting(self) -> bool:
        if not self._has_failed:
            self._has_failed = True
            raise ValueError("in a look")
        if not self.came.is_set():
            self._qpm._delivery._sources[self._qpm.connection()._notifier] = None
            self.came.set()
        return False

    def ask_again(self, now: float) -> None:
        """Nothing is open."""


def test_reader_survives_errors_and_clients(qpm: QPM, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint()
    qpm.register_event_notification(endpoint, 1, "q")
    troubled = Troubled(qpm)
    with qpm._session.channel.lock:
        qpm._delivery.join(troubled, Endpoint())
    assert troubled.came.wait(60)
    reader = qpm._delivery._thread
    cid = qpm.async_run(info())["cid"]
    assert endpoint.get().payload["cid"] == cid
    assert reader.is_alive()
    assert qpm._delivery._thread is reader
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == ["in a look"]


def test_closed_connection_keeps_no_circuits(qpm: QPM) -> None:
    single, heard = qpm.connection(), Endpoint()
    result = single.async_run(info())
    until(lambda: read_ready(single, result))
    single.register_event_notification(heard, 1, "q")
    running = single.async_run(info())
    single.shutdown()
    assert not single._registry._runs
    assert read(single, result) is read(single, running) is None


def read_ready(single: Any, cid: str) -> bool:
    try:
        single.peek_cq(cid)
    except InProgressError:
        return False
    return True


def test_revision_1_cannot_read_completion_while_it_is_pushed(qpm: QPM) -> None:
    single, seen = qpm.revision1, Endpoint()

    class Curious:
        def put(self, event: EventEnvelope) -> None:
            fails(InProgressError, "", single.read_cq, event.payload["cid"])
            seen.put(event)

    single.register_event_notification(Curious(), 1, "a")
    cid = single.async_run(info())
    assert seen.get().payload["cid"] == cid


def test_failed_build_leaves_other_events(qpm: QPM, monkeypatch: pytest.MonkeyPatch) -> None:
    single, endpoint = qpm.revision1, Endpoint()
    single.register_event_notification(endpoint, 1, "a")
    notices = single._notifier
    make, odd = notices._make, list[str]()

    def made(run: CircuitRun) -> dict[str, Any]:
        if not odd:
            odd.append(run.cid)
            raise OSError("its file is gone")
        return make(run)

    monkeypatch.setattr(notices, "_make", made)
    cids = [single.async_run(info()) for _ in range(3)]
    assert {endpoint.get().payload["cid"] for _ in cids[1:]} == set(cids) - set(odd)
    assert until(lambda: read(single, odd[0]))["cid"] == odd[0], "it can be read instead"


def test_circuit_deleted_during_push_does_not_block_later_completions(qpm: QPM) -> None:
    single, deleted = qpm.revision1, threading.Event()

    class Gone:
        def put(self, event: EventEnvelope) -> None:
            single.delete_circuit(event.payload["cid"])
            deleted.set()
            raise ConnectionError

    single.register_event_notification(Gone(), 1, "a")
    single.async_run(info())
    assert deleted.wait(60)
    until(lambda: not single._notifier._registered)
    cid = single.async_run(info())  # nobody listens any more
    assert until(lambda: read(single, None))["cid"] == cid


def read(single: Any, cid: str | None) -> Any:
    try:
        return single.read_cq(cid)
    except InProgressError:
        return None
