"""Callers of a QPM, near and far, and their waiting calls."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hosts import BELL, Endpoint, completion, info
from live import Live, environment, resurrected
from waiting import until

import simenv
from simenv.client.administration import issue_key
from simenv.client.connection.channel import ServiceChannel
from simenv.client.qpm.circuit_run import refused
from simenv.client.qpm.completion_queues import CircuitRegistry, CompletionRetention
from simenv.client.qpm.provider import QPM
from simenv.client.qpm.requests import Request
from simenv.errors import ProgramError
from simenv.qpm.contract import EXTENSIONS, REVISION2, ExecutionError
from simenv.wire.messages import client as m

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
    qpm._registry.retention = CompletionRetention(count=2)
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


def test_client_key_over_tcp_may_make_every_call_of_contract(tmp_path: Path) -> None:
    file = tmp_path / "host.simenv"
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as env:
        issue_key(env.keys, "host", "client", file)
        with simenv.connect(service=file) as client:
            qpm, endpoint = client.qpm, Endpoint()
            qpm.register_event_notification(endpoint, 1, "q")
            assert qpm.sync_run(info())["outcome"] == "COMPLETED"
            cid = qpm.async_run(info())["cid"]
            assert endpoint.get().payload["cid"] == cid
            assert completion(qpm, cid)["rc"] == 0
            for binding in ("telemetry", "control"):
                for name in (*EXTENSIONS[binding], *REVISION2[binding]):
                    if name != "reconcile_runtime_state":
                        assert getattr(qpm, name)()
            until(lambda: qpm.get_service_status()["state"] == "stopped")
        assert env.submit(info()["qasm"]).result(60).shots == 1024


TEXT = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\nx q[0];\nmeasure q -> c;\n'
INFO = {"qasm": TEXT, "num_qubits": 2, "num_shots": 10}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each Submit: whether its result is awaited."""
    awaited: list[bool] = []
    send = ServiceChannel.send

    def spy(channel: ServiceChannel, message: m.FromClient) -> bytes:
        if isinstance(message, m.Submit):
            awaited.append(message.awaits_result)
        return send(channel, message)

    monkeypatch.setattr(ServiceChannel, "send", spy)
    return awaited


def test_synchronous_calls_await_their_results(
    env: simenv.Client, qpm: QPM, sent: list[bool]
) -> None:
    assert env.run(TEXT, shots=10).counts == {"01": 10}
    assert qpm.sync_run(INFO)["result"]["result"]["counts"] == {"01": 10}
    assert qpm.revision1.sync_run(INFO)["result"] == {"01": 10}
    assert sent == [True, True, True]


def test_asynchronous_calls_return_at_the_acceptance(
    env: simenv.Client, qpm: QPM, sent: list[bool]
) -> None:
    env.submit(TEXT, shots=10).result()
    qpm.delete_circuit(qpm.async_run(INFO)["cid"])
    qpm.revision1.delete_circuit(qpm.revision1.async_run(INFO))
    assert sent == [False, False, False]


def test_two_programs_of_one_request_do_not_wait_for_each_other(qpm: QPM, sent: list[bool]) -> None:
    record = qpm.sync_run({**INFO, "return_statevector": True})["result"]
    assert record["result"]["counts"] == {"01": 10}
    assert sent == [False, False]


def test_refusal_of_a_synchronous_call_is_its_error(qpm: QPM, sent: list[bool]) -> None:
    with pytest.raises(ExecutionError, match="elsewhere"):
        qpm.sync_run({**INFO, "prefer": ["elsewhere"]})
    assert sent == [True]
