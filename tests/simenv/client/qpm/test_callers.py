"""Callers of a QPM, near and far, and their waiting calls."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from failing import fails
from forks import forked
from hosts import BELL, Endpoint, completion, info
from live import Live
from waiting import until

import simenv
from simenv.client.administration.keys import issue_key
from simenv.client.connection.channel import ServiceChannel
from simenv.client.qpm.circuit_run import refused
from simenv.client.qpm.completion_queues import CircuitRegistry, CompletionRetention
from simenv.client.qpm.provider import QPM
from simenv.client.qpm.requests import Request
from simenv.errors import ProgramError
from simenv.qpm.contract import ExecutionError
from simenv.qpm.methods import EXTENSIONS, REVISION2
from simenv.wire.messages import client as m

REQUEST = Request("", shots=1, seed=None, statevector=False, options={})


def test_forked_child_can_use_qpm(qpm: QPM, busy: None) -> None:
    cid = qpm.async_run(info())["cid"]

    def work() -> None:
        assert qpm.cancel_task(cid)["outcome"] == "CANCELLED"
        assert completion(qpm, cid)["outcome"] == "CANCELLED"

    assert forked(work) == 0
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
def test_evicted_by_size_age(env: simenv.Client, kept: CompletionRetention, reason: str) -> None:
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
            assert (endpoint.get().payload["cid"], completion(qpm, cid)["rc"]) == (cid, 0)
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


def test_synchronous_calls_alone_wait(env: simenv.Client, qpm: QPM, sent: list[bool]) -> None:
    assert env.run(TEXT, shots=10).counts == {"01": 10}
    assert qpm.sync_run(INFO)["result"]["result"]["counts"] == {"01": 10}
    assert qpm.revision1.sync_run(INFO)["result"] == {"01": 10}
    env.submit(TEXT, shots=10).result()
    qpm.delete_circuit(qpm.async_run(INFO)["cid"])
    qpm.revision1.delete_circuit(qpm.revision1.async_run(INFO))
    assert sent == [True] * 3 + [False] * 3


def test_two_programs_of_one_request_do_not_wait_for_each_other(qpm: QPM, sent: list[bool]) -> None:
    record = qpm.sync_run({**INFO, "return_statevector": True})["result"]
    assert (record["result"]["counts"], sent) == ({"01": 10}, [False, False])


def test_refusal_of_a_synchronous_call_is_its_error(qpm: QPM, sent: list[bool]) -> None:
    fails(ExecutionError, "elsewhere", qpm.sync_run, {**INFO, "prefer": ["elsewhere"]})
    assert sent == [True]
