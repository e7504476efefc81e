"""Circuits through the plugin as a host of either revision sends them."""

import sys
from typing import Any

import pytest
from failing import fails
from waiting import until

from simenv.client.client import Client
from simenv.frontends.qfw import PLUGIN
from simenv.qpm_check.fake_defw import fakes
from simenv.qpm_check.fake_defw.host import Proxy
from simenv.qpm_check.plugin import PluginTarget

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


def test_same_seed_gives_same_counts_in_both_revisions(single: Any, bound: Any) -> None:
    result = info(BELL, 2, 1000, seed=7)
    first = single.methods.sync_run(result)["result"]
    assert first == single.methods.sync_run(result)["result"]
    assert first == bound.methods.sync_run(result)["result"]["result"]["counts"]


def test_invalid_calls_raise_execution_error(bound: Any) -> None:
    fails(fakes.DEFwExecutionError, "nonsense", bound.methods.sync_run, info(BELL, 2), nonsense=1)
    fails(fakes.DEFwExecutionError, "info", bound.methods.sync_run, "a text")
    with pytest.raises(fakes.DEFwExecutionError, match="endpoint"):
        bound.methods.register_event_notification("me", EVENT, "a queue")


def test_queue_registered_twice_gets_each_event_once(bound: Any) -> None:
    sink = bound.sink()
    first = bound.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    again = bound.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    assert first["registration_count"] == again["registration_count"]
    cid = bound.methods.async_run(info(BELL, 2))["cid"]
    assert sink.take(PATIENCE_S).payload["cid"] == cid
    assert sink.take(0.1) is None


def test_plugin_without_environment_is_not_ready_and_starts_none(tmp_path: Any) -> None:
    table = {"SIMENV_HOME": str(tmp_path), "SIMENV_QPM_PRIVATE": "no"}
    plugin = PluginTarget("ours", PLUGIN, table)
    with plugin.process(1) as control:
        control.host("hello", 1)
        proxy = Proxy(control, bindings=False)
        assert "not ready" in proxy.call("", "test", (), {})
        fails(fakes.DEFwNotReady, "no environment", proxy.call, "", "is_ready", (), {})
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
