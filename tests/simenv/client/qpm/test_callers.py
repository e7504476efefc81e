"""Many callers at once, a service that dies under them, a forked child, bounded memory."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from hosts import BELL, Endpoint, completion, info, until
from live import Live, environment, resurrected

import simenv
from simenv.client.qpm.provider import QPM
from simenv.client.qpm.requests.run_request import Request
from simenv.client.qpm.runtime.circuit_run import refused
from simenv.client.qpm.runtime.completion_queues import CircuitRegistry, CompletionRetention
from simenv.errors import ProgramError

CALLERS = 32
REQUEST = Request("", shots=1, seed=None, statevector=False, options={})


def circuit(k: int) -> str:
    """Its counts say which one it is: k in binary."""
    flips = "".join(f"x q[{bit}];\n" for bit in range(10) if k >> bit & 1)
    return (
        f'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[10];\ncreg c[10];\n{flips}measure q -> c;\n'
    )


def test_concurrent_callers_get_their_own_counts(qpm: QPM) -> None:
    together = threading.Barrier(CALLERS)

    def call(k: int) -> None:
        together.wait()
        for number in (k, k + CALLERS):
            answer = qpm.sync_run(info(circuit(number)))
            assert answer["result"]["result"]["counts"] == {f"{number:010b}": 200}

    with ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(call, range(CALLERS)))
    assert qpm.get_service_status()["active_task_count"] == 0


def test_500_circuits_from_8_threads_complete_once_each(qpm: QPM) -> None:
    endpoint = Endpoint()
    qpm.register_event_notification(endpoint, 1, "q")
    with ThreadPoolExecutor(8) as threads:
        accepted = list(threads.map(lambda k: qpm.async_run(info(circuit(k))), range(500)))
    place = {answer["cid"]: k for k, answer in enumerate(accepted)}
    assert len(place) == len({answer["qtask_id"] for answer in accepted}) == 500
    assert {endpoint.get().payload["cid"] for _ in place} == set(place)
    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(lambda _: completion(qpm), range(500)))
    table = {place[record["cid"]]: record["result"]["counts"] for record in records}
    assert table == {k: {f"{k:010b}": 200} for k in range(500)}
    assert endpoint.empty()
    assert qpm.read_cq()["outcome"] == "IN_PROGRESS"


def test_completions_survive_crash_of_service() -> None:
    with environment(durability="process") as live, live.client() as client, resurrected(live):
        cids = [client.qpm.async_run(info(circuit(k)))["cid"] for k in range(200)]
        live.kill_service()
        records = {cid: completion(client.qpm, cid) for cid in cids}
    assert [record["result"]["counts"] for record in records.values()] == [
        {f"{k:010b}": 200} for k in range(200)
    ]


def test_forked_child_can_use_qpm(qpm: QPM, busy: None) -> None:
    cid = qpm.async_run(info())["cid"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on fork with threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert qpm.cancel_task(cid)["outcome"] == "CANCELLED"
            assert completion(qpm, cid)["outcome"] == "CANCELLED"
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert completion(qpm, cid)["outcome"] == "CANCELLED"


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (CompletionRetention(count=3), "max-records-exceeded"),
        (CompletionRetention(size_bytes=30), "max-bytes-exceeded"),
        (CompletionRetention(age_s=-1.0, purge_s=0.0), "retention-age"),
    ],
    ids=["count", "bytes", "age"],
)
def test_unread_completions_are_evicted_by_count_bytes_and_age(
    env: simenv.Client, kept: CompletionRetention, reason: str
) -> None:
    book = CircuitRegistry(env._session, kept)
    for number in range(1, 11):
        run = refused(f"cid-{number}", number, REQUEST, 0.0, ProgramError("no circuit"))
        run.size_bytes = 10
        book.enter(run, queued=True)
    book.look()
    first = book.find("cid-1")
    assert first is not None
    assert getattr(first, "reason", "") == reason
    left = 0 if reason == "retention-age" else 3
    assert sum(book.take(None) is not None for _ in range(10)) == left


def test_evicted_completion_is_reported_as_no_longer_retained(qpm: QPM) -> None:
    qpm._context.registry.retention = CompletionRetention(count=2)
    cids = [qpm.async_run(info("OPENQASM 2.0;\nbad;\n"))["cid"] for _ in range(3)]
    answer = qpm.read_cq(cids[0])
    assert (answer["outcome"], answer["retention_reason"]) == (
        "NO_LONGER_RETAINED", "max-records-exceeded",
    )  # fmt: skip
    assert answer["reason"] == "completion-no-longer-retained"
    status = qpm.task_status(cids[0])
    assert (status["outcome"], status["retention_reason"]) == ("FAILED", "max-records-exceeded")
    assert qpm.read_cq()["cid"] == cids[1]


def test_client_has_one_qpm(env: simenv.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(lambda _: id(env.qpm), range(64)))
    assert names == {id(env.qpm)}


def test_event_sender_thread_ends_with_its_client(live: Live) -> None:
    with live.client() as client:
        client.qpm.register_event_notification(Endpoint(), 1, "q")
        client.qpm.sync_run(info(BELL))
        senders = [t for t in threading.enumerate() if t.name == "simenv-qpm"]
        assert senders
    until(lambda: not any(thread.is_alive() for thread in senders))
