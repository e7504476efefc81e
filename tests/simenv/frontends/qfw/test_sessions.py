"""Sessions, site configuration and the kit on the plugin."""

import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from failing import fails

import simenv
from simenv.client.client import Client
from simenv.errors import StartFailedError
from simenv.frontends.qfw import PLUGIN, defw, environment as hub_module, service
from simenv.frontends.qfw.environment import QPMConfig
from simenv.qpm.contract import NotReadyError, QPMError
from simenv.qpm_check.check import VerdictState
from simenv.qpm_check.checks import rows
from simenv.qpm_check.plugin import PluginTarget
from simenv.qpm_check.runner import Options, check


class FakeQPM:
    """What a session opens and closes."""

    def __init__(self) -> None:
        self.open: list[FakeQPM] = []

    def wait(self, _: float) -> "FakeQPM":
        return self

    def connection(self) -> "FakeQPM":
        fakeqpm = FakeQPM()
        self.open.append(fakeqpm)
        fakeqpm.shutdown = lambda: self.open.remove(fakeqpm)  # type: ignore[attr-defined]
        return fakeqpm

    def register_event_notification(self, *_: Any) -> None: ...


def test_session_ends_with_object_of_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, environment = service.Plugin({"SIMENV_QPM_PRIVATE": "no"}, 1), FakeQPM()
    monkeypatch.setattr(service, "_plugin", outcome)
    monkeypatch.setattr(outcome.hub, "begin", lambda: None)
    monkeypatch.setattr(outcome.hub, "wait", environment.wait)
    first, second = service.ServiceClassRevision1(), service.ServiceClassRevision1()
    assert first._qpm() is not second._qpm()
    assert len(environment.open) == 2
    fails(NotReadyError, "", service.ServiceClassRevision1(start=False)._own_session)
    del first
    assert len(environment.open) == 1
    second.shutdown()
    assert environment.open == []


def test_session_of_ended_client_process_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SWEEP_S", 0.0)
    monkeypatch.setattr(defw, "event_queue", lambda *_: None)
    monkeypatch.setattr(defw, "peers", lambda: {"here"})
    environment = FakeQPM()
    outcome = service.Sessions(environment)  # type: ignore[arg-type]
    ends = {name: SimpleNamespace(remote_uuid=name) for name in ("here", "gone")}
    open_ones = [outcome.open() for _ in ends]
    for value, endpoint in zip(open_ones, ends.values(), strict=True):
        value.register(service.ClientEventQueue(endpoint, "q"), 1, "q", 0.0)
    for _ in range(service.MISSED):
        assert len(environment.open) == 2
        outcome.sweep()
    assert (len(environment.open), [value.ear is None for value in open_ones]) == (1, [False, True])


def test_requests_to_ended_process_expire_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = {k: SimpleNamespace(remote_uuid=p, deadline=9e9) for k, p in enumerate(["a", "b"])}
    worker = SimpleNamespace(req_db=requests, req_db_lock=threading.Lock())
    workers = ModuleType("defw_workers")
    workers.worker_thread = worker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "defw_workers", workers)
    monkeypatch.setattr(defw, "peers", lambda: {"b"})
    monkeypatch.setattr(defw, "event_queue", lambda *_: None)
    ears = [service.ClientEventQueue(SimpleNamespace(remote_uuid=name), "q") for name in ("a", "b")]
    for _ in range(service.MISSED):
        assert requests[0].deadline == 9e9
        for ear in ears:
            ear.forsake()
    assert [requests[n].deadline for n in (0, 1)] == [0.0, 9e9]


@pytest.mark.parametrize("kind", ["agent", "resmgr", "dirsvc"])
def test_process_of_other_type_opens_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = service.Plugin({"DEFW_AGENT_TYPE": kind, "SIMENV_QPM_PRIVATE": "yes"}, 1)
    before = threading.active_count()
    outcome.initialize(object)
    fails(QPMError, "not a DEFw service", outcome.begin)
    assert threading.active_count() == before
    assert not outcome.hub._begun


@pytest.mark.parametrize(
    "failure",
    [StartFailedError("no Python", hint="set SIMENV_PYTHON"), OSError(28, "set SIMENV_PYTHON")],
    ids=["simenv", "system"],
)
def test_given_up_after_failures(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def start(**_: Any) -> None:
        tried.append(1)
        if len(tried) > hub_module.STARTS:
            hub.close()
        raise failure

    monkeypatch.setattr(simenv, "local", start)
    monkeypatch.setattr(hub_module, "RETRY_S", 0.001)
    hub = hub_module.EnvironmentConnection(QPMConfig(private=True))
    hub._reach()
    assert len(tried) == hub_module.STARTS
    fails(NotReadyError, r"set SIMENV_PYTHON.*start the service anew", hub.now)


QUICK = (
    "load.bare", "load.start-false*", "load.uninitialize", "query.*", "methods.*", "register.again",
    "register.resolve",
)  # fmt: skip
STRANGERS = "reservation.stranger"  # of DEFw's clients nobody knows who they are
TOKENS = "token.refused"  # it asks for none here
OUTAGES = ("restart.pollers", "restart.first-poll")  # the target has no command that stops it


def failed(env: Client, options: Options) -> tuple[dict[str, str], set[str]]:
    """Rows that failed, and why; rows that showed nothing."""
    environ = {"SIMENV_SERVICE": env.service, "SIMENV_QPM_ROLE": "admin"}
    plugin = PluginTarget("ours", PLUGIN, environ)
    verdicts: Any = check(plugin, rows(), options).verdicts
    wrong = {f"{v.id} ({v.revision})": v.why for v in verdicts if v.state is VerdictState.FAILED}
    return wrong, {
        v.id for v in verdicts if v.state not in (VerdictState.FAILED, VerdictState.PASSED)
    }


def test_plugin_passes_load_and_registration_checks(env: Client) -> None:
    assert failed(env, Options(only=QUICK, revisions=(2,), wait_s=60.0)) == ({}, set())


@pytest.mark.slow
def test_plugin_passes_all_conformance_checks(env: Client) -> None:
    assert failed(env, Options(wait_s=60.0)) == ({}, {STRANGERS, TOKENS, *OUTAGES})


def test_token_is_demanded_and_hidden_through_defw(env: Client, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("open sesame\n", encoding="utf-8")
    environ = {"SIMENV_SERVICE": env.service, "SIMENV_QPM_TOKEN_FILE": str(file)}
    plugin = PluginTarget("ours", PLUGIN, environ, "open sesame")
    options = Options(only=("token.*", "execution.sync"), revisions=(2,), wait_s=60.0)
    verdicts = check(plugin, rows(), options).verdicts
    assert {v.id: (v.state, v.why) for v in verdicts} == dict.fromkeys(
        ("token.refused", "token.hidden", "execution.sync"), (VerdictState.PASSED, "")
    )
