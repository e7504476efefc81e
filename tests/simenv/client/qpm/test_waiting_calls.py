"""Calls that wait for a result get its acceptance with it: one message less to be woken by."""

from __future__ import annotations

import pytest

import simenv
from simenv.client.connection.channel import ServiceChannel
from simenv.client.qpm.provider import QPM
from simenv.qpm.errors import ExecutionError
from simenv.wire.messages import client as m

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
