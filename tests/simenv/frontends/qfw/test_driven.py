"""Circuits through the plugin as a host of either revision sends them."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from waiting import until

from simenv.client.client import Client
from simenv.frontends.qfw import PLUGIN
from simenv.qpm_check.fake_defw import errors
from simenv.qpm_check.fake_defw.client import Proxy
from simenv.qpm_check.targets.plugin import PluginTarget

PATIENCE_S = 60.0
EVENT = 1
BELL = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\n'
    "h q[0];\ncx q[0],q[1];\nmeasure q -> c;\n"
)
GHZ = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[4];\ncreg c[4];\n'
    "h q[0];\ncx q[0],q[1];\ncx q[1],q[2];\ncx q[2],q[3];\nmeasure q -> c;\n"
)
BAD = "OPENQASM 2.0;\nqreg q[1];\nnothing q[0];\n"
MANY, THREADS = 500, 8


def info(text: str, qubits: int, shots: int = 100, **more: Any) -> dict[str, Any]:
    return {"qasm": text, "num_qubits": qubits, "num_shots": shots, "compiler": "staq", **more}


@pytest.mark.parametrize(("text", "qubits"), [(BELL, 2), (GHZ, 4)], ids=["bell", "ghz"])
def test_entangled_qubits_agree_in_both_revisions(
    single: Any, bound: Any, text: str, qubits: int
) -> None:
    ends = {"0" * qubits, "1" * qubits}
    of_first = single.methods.sync_run(info(text, qubits))["result"]
    of_second = bound.methods.sync_run(info(text, qubits))["result"]["result"]["counts"]
    for counts in (of_first, of_second):
        assert set(counts) == ends
        assert sum(counts.values()) == 100


def test_same_seed_gives_same_counts_in_both_revisions(single: Any, bound: Any) -> None:
    result = info(BELL, 2, 1000, seed=7)
    first = single.methods.sync_run(result)["result"]
    assert first == single.methods.sync_run(result)["result"]
    assert first == bound.methods.sync_run(result)["result"]["result"]["counts"]


def test_polling_ends_as_each_revision_specifies(single: Any, bound: Any) -> None:
    cid = single.methods.async_run(info(BELL, 2))

    def polled() -> Any:
        try:
            return single.methods.read_cq(cid)
        except errors.DEFwInProgress:
            return None

    assert sum(until(polled)["result"].values()) == 100
    with pytest.raises(errors.DEFwInProgress):
        single.methods.read_cq(cid)
    accepted = bound.methods.async_run(info(BELL, 2))
    assert accepted["outcome"] == "ACCEPTED"

    def read() -> Any:
        answer = bound.methods.read_cq(accepted["cid"])
        return answer if answer["completion_ready"] else None

    assert sum(until(read)["result"]["counts"].values()) == 100


def test_bad_circuit_is_an_error_without_traceback(single: Any, bound: Any) -> None:
    for link in (single, bound):
        with pytest.raises(errors.DEFwExecutionError, match="nothing") as caught:
            link.methods.sync_run(info(BAD, 1))
        assert "Traceback" not in str(caught.value)
    cid = single.methods.async_run(info(BAD, 1))
    record = single.methods.read_cq(cid)
    assert record["rc"] != 0
    assert isinstance(record["result"], str)
    assert bound.methods.async_run(info(BAD, 1))["outcome"] == "FAILED"


def test_invalid_calls_raise_execution_error(bound: Any) -> None:
    with pytest.raises(errors.DEFwExecutionError, match="nonsense"):
        bound.methods.sync_run(info(BELL, 2), nonsense=1)
    with pytest.raises(errors.DEFwExecutionError, match="info"):
        bound.methods.sync_run("a text")
    with pytest.raises(errors.DEFwExecutionError, match="endpoint"):
        bound.methods.register_event_notification("me", EVENT, "a queue")


@pytest.mark.parametrize("revision", [1, 2])
def test_each_of_many_circuits_is_pushed_once(
    revision: int, single: Any, bound: Any, hosts: Any
) -> None:
    link = single if revision == 1 else bound
    sink = link.sink()
    link.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    lines: list[str] = []

    def some() -> None:
        for _ in range(MANY // THREADS + 1):
            result = link.methods.async_run(info(BELL, 2, 10))
            lines.append(result if revision == 1 else result["cid"])

    threads = [threading.Thread(target=some) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(set(lines)) >= MANY
    entries = [sink.take(PATIENCE_S).payload["cid"] for _ in lines]
    assert sorted(entries) == sorted(lines)
    if revision == 2:  # queued as well
        assert all(bound.methods.read_cq(cid)["completion_ready"] for cid in lines)
    else:
        with pytest.raises(errors.DEFwInProgress):
            single.methods.read_cq()
    assert sink.take(0.1) is None


def test_dead_client_does_not_stop_events_of_others(hosts: Any, bound: Any) -> None:
    subject = hosts.subject(2, SIMENV_QPM_RESERVATIONS="optional")
    dead, sink = subject.connect(), bound.sink()
    result = dead.sink()
    dead.methods.register_event_notification(result.ep, EVENT, result.class_id)
    bound.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    dead.methods.async_run(info(GHZ, 4))
    dead.die()
    cids = {bound.methods.async_run(info(BELL, 2))["cid"] for _ in range(5)}
    names: set[str] = set()
    while not cids <= names:
        names.add(sink.take(PATIENCE_S).payload["cid"])


def test_queue_registered_twice_gets_each_event_once(bound: Any) -> None:
    sink = bound.sink()
    first = bound.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    again = bound.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    assert first["registration_count"] == again["registration_count"]
    cid = bound.methods.async_run(info(BELL, 2))["cid"]
    assert sink.take(PATIENCE_S).payload["cid"] == cid
    assert sink.take(0.1) is None


def test_client_of_revision_1_that_leaves_does_not_stop_others(single: Any, hosts: Any) -> None:
    other = hosts.subject(1).connect()
    assert other.methods.release() is None
    assert other.methods.shutdown() is None
    other.die()
    assert single.methods.is_ready() is True
    assert single.methods.sync_run(info(BELL, 2))["rc"] == 0


def test_two_clients_of_revision_1_get_only_their_own_events(hosts: Any) -> None:
    subject = hosts.subject(1)
    links = [subject.connect() for _ in range(2)]
    sinks = [link.sink() for link in links]
    for link, sink in zip(links, sinks, strict=True):
        link.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    entries = [[link.methods.async_run(info(BELL, 2)) for _ in range(10)] for link in links]
    for cids, sink in zip(entries, sinks, strict=True):
        assert sorted(sink.take(PATIENCE_S).payload["cid"] for _ in cids) == sorted(cids)
    for link, cids in zip(links, reversed(entries), strict=True):
        with pytest.raises(errors.DEFwInProgress):
            link.methods.read_cq(cids[0])


def test_messages_of_plugin_are_not_interleaved(single: Any, hosts: Any) -> None:
    subject = hosts.subject(1)
    before = subject.control.host("collisions")
    subject.control.host("pause", 0.002)
    try:
        sink = single.sink()
        single.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
        for _ in range(40):
            single.methods.async_run(info(BELL, 2, 1))
        for _ in range(40):
            assert sink.take(PATIENCE_S) is not None
    finally:
        subject.control.host("pause", 0.0)
    assert subject.control.host("collisions") == before


def test_plugin_without_environment_is_not_ready_and_starts_none(tmp_path: Any) -> None:
    table = {"SIMENV_HOME": str(tmp_path), "SIMENV_QPM_PRIVATE": "no"}
    plugin = PluginTarget("ours", PLUGIN, table)
    with plugin.process(1) as control:
        control.host("hello", 1)
        proxy = Proxy(control, bindings=False)
        assert "not ready" in proxy.call("", "test", (), {})
        with pytest.raises(errors.DEFwNotReady, match="no environment"):
            proxy.call("", "is_ready", (), {})
        assert control.host("left")["children"] == []


def test_private_environment_is_started_and_ends_with_plugin(tmp_path: Any) -> None:
    table = {
        "SIMENV_HOME": str(tmp_path), "SIMENV_QPM_PRIVATE": "yes", "SIMENV_PYTHON": sys.executable,
    }  # fmt: skip
    with PluginTarget("ours", PLUGIN, table).open(1) as subject:
        assert subject.connect().methods.sync_run(info(BELL, 2))["rc"] == 0
        (service,) = subject.control.host("left")["children"]
    until(lambda: not _runs(service))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"simenv" in file.read()
    except OSError:
        return False


def test_circuits_through_plugin_are_counted_by_environment(env: Client, single: Any) -> None:
    before = env.status().done
    single.methods.sync_run(info(BELL, 2))
    assert env.status().done > before
