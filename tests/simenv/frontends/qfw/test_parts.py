"""The parts of the plugin, one by one."""

import sys
import threading
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from failing import fails

from simenv.errors import ConfigError, NoServiceError
from simenv.frontends.qfw import (
    defw,
    defw as host,
    deployment,
    environment as hub_module,
    registration,
    service,
)
from simenv.frontends.qfw.environment import QPMConfig, read_settings
from simenv.qpm import contract
from simenv.qpm_check.fake_defw import fakes

TOLD = {"device_id": "lab", "num_qubits": 30, "max_shots": 9}
RECORD = contract.ServiceRecord("QPM", "an environment", "", "", 2, 2, -1, TOLD)


class Offered:
    """A class as DEFw loads one."""


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A `defw_workers` whose senders are caught writing at once."""
    module = ModuleType("defw_workers")
    inside, most = [0], [0]
    meeting = threading.Barrier(2)

    def send(*_: Any) -> None:
        inside[0] += 1
        most[0] = max(most)
        most[0] = max(most[0], inside[0])
        try:
            meeting.wait(0.1)
        except threading.BrokenBarrierError:
            meeting.reset()
        inside[0] -= 1

    for name in defw.SENDERS:
        setattr(module, name, lambda *given: send(*given))
    module.most = most  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "defw_workers", module)
    return module


def test_send_lock_serializes_senders_and_is_installed_once(workers: Any) -> None:
    assert defw.install()
    once = [getattr(workers, name) for name in defw.SENDERS]
    assert defw.install()
    assert once == [getattr(workers, name) for name in defw.SENDERS]
    threads = [threading.Thread(target=send) for send in once]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert workers.most == [1]


def test_peer_that_does_not_read_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    module, stuck, freed = ModuleType("defw_workers"), threading.Event(), threading.Event()
    sent: list[str] = []

    def send(peer: str, _block: str, text: str) -> None:
        if peer == "stuck":
            stuck.set()
            assert freed.wait(60)
        sent.append(text)

    for name in defw.SENDERS:
        setattr(module, name, send)
    monkeypatch.setitem(sys.modules, "defw_workers", module)
    assert defw.install()
    request, answer = (getattr(module, name) for name in defw.SENDERS)
    first = threading.Thread(target=request, args=("stuck", "b", "first"))
    first.start()
    assert stuck.wait(60)
    behind = threading.Thread(target=answer, args=("stuck", "b", "behind it"))
    behind.start()
    other = threading.Thread(target=answer, args=("other", "b", "beside it"))
    other.start()
    other.join(60)
    assert sent == ["beside it"]
    freed.set()
    for thread in (first, behind):
        thread.join()
    assert sent == ["beside it", "first", "behind it"]


def test_partially_initialized_defw_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    defw = ModuleType("defw")
    defw.__spec__ = ModuleSpec("defw", None)
    monkeypatch.setitem(sys.modules, "defw", defw)
    vars(defw.__spec__)["_initializing"] = True
    assert not host.is_up()
    assert host.loaded("json.tool") is None
    vars(defw.__spec__)["_initializing"] = False
    assert host.is_up()
    assert host.loaded("json.tool") is not None


def test_client_helper_is_importable_without_defw() -> None:
    from simenv.frontends.qfw import client

    assert client.install() is False


def test_errors_have_defw_classes_hint_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "defw_exception", fakes)

    def told(error: Exception) -> BaseException:
        return defw.error_of(error)

    refused = told(contract.ExecutionError("too wide", hint="cut it", reason="too-wide"))
    assert type(refused) is fakes.DEFwExecutionError
    assert str(refused) == "too wide (cut it) [too-wide]"
    assert type(told(contract.InProgressError("later"))) is fakes.DEFwInProgress
    assert type(told(NoServiceError("gone"))) is fakes.DEFwNotReady
    assert type(told(KeyError("x"))) is fakes.DEFwError


def test_errors_and_records_are_unchanged_outside_of_defw() -> None:
    error = contract.InProgressError("later")
    assert defw.error_of(error) is error
    assert host.revision() == 2
    assert host.service_info(RECORD) is RECORD


@pytest.mark.parametrize(
    ("environ", "registers"),
    [
        ({}, True),
        ({"QFW_QPM_REGISTER_WITH_DIRSVC": "no"}, False),
        ({"QFW_QPM_DIRECT_ENDPOINT_FALLBACK": "yes"}, False),
        ({"QFW_QPM_OPERATION_MODE": "long-running"}, False),
        ({"QFW_QPM_OPERATION_MODE": "long-running", "QFW_SITE_DIRSVC_ENDPOINTS": "a:1;b:2"}, True),
        ({"QFW_QPM_OPERATION_MODE": "long-running", "QFW_QPM_REGISTER_WITH_DIRSVC": "1"}, True),
    ],
)
def test_registration_follows_variables(environ: dict[str, str], registers: bool) -> None:
    assert deployment.read(environ).registers is registers


def test_directory_context_has_names_of_deployment() -> None:
    told, deployed = QPMConfig(types=3), deployment.read({"QFW_QPU_DEVICE_ID": "q7"})
    found = registration.context(deployment.completed(RECORD, Offered, told, deployed, 2), "both")
    assert (found["service_id"], found["properties"]["target_id"]) == ("qpm:simenv:q7", "q7")
    assert found["properties"]["num_qubits"] == 30
    assert found["properties"]["hardware"] is True
    assert found["properties"]["simulator"] is True
    assert found["selector"]["resources"] == ["q7", "SIMENV-30q"]
    assert found["capability"] == {"type": 3, "caps": 2, "description": "both"}
    assert {binding["service_class"] for binding in found["api_bindings"]} == {"Offered"}


def test_service_record_has_zero_width_before_environment_is_known() -> None:
    record = deployment.completed(None, Offered, QPMConfig(), deployment.read({}), 2)
    assert (record.properties["num_qubits"], record.properties["max_shots"]) == (0, 0)
    first = deployment.completed(RECORD, Offered, QPMConfig(), deployment.read({}), 1)
    assert first.properties is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIMENV_QPM_PRIVATE", "perhaps"), ("SIMENV_QPM_POOL", "A Pool"), ("SIMENV_QPM_TYPE", "32"),
        ("SIMENV_QPM_RESERVATIONS", "none"), ("SIMENV_QPM_STATEVECTOR_QUBITS", "60"),
    ],
)  # fmt: skip
def test_invalid_variable_is_refused(name: str, value: str) -> None:
    fails(ConfigError, name, read_settings, {name: value})


def test_empty_variables_are_unset() -> None:
    names = ("PRIVATE", "POOL", "TYPE", "RESERVATIONS", "TOKEN_FILE", "STATEVECTOR_QUBITS")
    assert read_settings({f"SIMENV_QPM_{name}": "" for name in names}) == QPMConfig()
    told = read_settings({"SIMENV_QPM_PRIVATE": "no", "SIMENV_QPM_TOKEN_FILE": "/t"})
    assert (told.private, told.token_file) == (False, Path("/t"))
    assert QPMConfig().reservations_required


def test_connecting_is_retried_after_system_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()
    calls: list[int] = []

    class Late(hub_module.EnvironmentConnection):
        def _open(self) -> None:
            calls.append(1)
            if len(calls) < 3:
                raise OSError("too many open files")
            tried.set()

    monkeypatch.setattr(hub_module, "RETRY_S", 0.001)
    monkeypatch.setattr(hub_module, "_load_reader", lambda: None)
    hub = Late(QPMConfig())
    hub.begin()
    assert tried.wait(30)
    hub.close()


def test_ready_file_of_late_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = tmp_path / "ready"
    mine = service.Plugin({"QFW_SERVICE_READY_FILE": str(ready)}, 1)
    waits: list[float] = []

    def wait(timeout_s: float) -> None:
        waits.append(timeout_s)
        if len(waits) < 3:
            raise contract.NotReadyError("no environment yet")

    monkeypatch.setattr(mine.hub, "wait", wait)
    mine._say_ready()
    assert ready.exists()


def test_stays_closed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of revision 1 carry no token, so a plugin that was told to ask for one stays closed."""
    monkeypatch.setattr(defw, "install", lambda: None)
    service.Plugin({"SIMENV_QPM_TOKEN_FILE": "/t"}, 2)
    assert "SIMENV_QPM_TOKEN_FILE" not in caplog.text
    closed = service.Plugin({"SIMENV_QPM_TOKEN_FILE": "/t"}, 1)
    assert "SIMENV_QPM_TOKEN_FILE" in caplog.text
    fails(contract.QPMError, "revision 1 carry no token", closed.begin)
    fails(contract.NotReadyError, "revision 1 carry no token", closed.hub.now)


@pytest.mark.parametrize("width", [0, 30])
def test_device_is_registered_with_known_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = service.Plugin({}, 2)
    mine._kind = Offered
    known = msgspec.structs.replace(RECORD, properties=TOLD | {"num_qubits": width})
    monkeypatch.setattr(mine, "_service_record", lambda: known)
    monkeypatch.setattr(mine.hub, "qpm", object())
    assert (mine._to_register() is not None) == (width > 0)


def test_leaving_service_is_deregistered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = deployment.completed(RECORD, Offered, QPMConfig(), deployment.read({}), 2)
    mine = registration.DirectoryRegistration(lambda: record, tmp_path / "ready")
    gone: list[str] = []

    class Directory:
        def register_service(self, _: Any, context: dict[str, Any]) -> dict[str, Any]:
            mine.leave()
            return {"generation": 1}

        def deregister_service(self, service_id: str, **_: Any) -> None:
            gone.append(service_id)

    for name, found in (("endpoint", None), ("capability_names", "")):
        monkeypatch.setattr(host, name, lambda *_, found=found: found)
    mine._register(Directory())
    assert gone == ["qpm:simenv:lab"]
    assert not mine.done
    assert not (tmp_path / "ready").exists()


def test_slow_connection_to_client_does_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ears = service.ClientEventQueues()

    def queue(endpoint: Any, class_id: str) -> Any:
        if class_id == "slow":
            other = threading.Thread(target=ears.of, args=(endpoint, "other"), daemon=True)
            other.start()
            other.join(30)
            assert not other.is_alive()
        return class_id

    monkeypatch.setattr(host, "event_queue", queue)
    endpoint = Offered()
    assert ears.of(endpoint, "slow") is ears.of(endpoint, "slow")


def test_error_carries_no_stack_of_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noting(fakes.DEFwError):
        """Notes the stack of whoever makes it, as DEFw's own does."""

        def __init__(self, message: str = "") -> None:
            super().__init__(message)
            self.stacktrace = "".join(traceback.format_stack())

        def __str__(self) -> str:
            return f"{super().__str__()} {self.stacktrace}".rstrip()

    noted = ModuleType("defw_exception")
    noted.DEFwError = noted.DEFwExecutionError = Noting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "defw_exception", noted)

    @defw.carried
    def refusing() -> None:
        raise contract.ExecutionError("too wide", hint="cut it")

    error = fails(Noting, "", refusing)
    assert "File" not in str(error)
    assert str(error).startswith("too wide")
