"""Requests that are malformed, large or early are answered in the form of the vendor's API."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from gateway_stand_in import app_of
from litestar.testing import TestClient
from stored_jobs import StoredJobs
from waiting import until

from simenv.config import GatewaySettings
from simenv.errors import JournalError, KeyRefusedError, QueueFullError
from simenv.gateway import limits
from simenv.gateway.context import AccessToken
from simenv.gateway.ibm import endpoints, jobs, service as services
from simenv.gateway.ibm.answers import JobForecast
from simenv.gateway.ibm.backends import Backend
from simenv.gateway.ibm.job_request import JobRequest
from simenv.gateway.ibm.jobs import COMPLETED, RUNNING, Job, SessionRecord
from simenv.gateway.ibm.processes import JobProcesses
from simenv.gateway.ibm.service import ComputeService
from simenv.gateway.iqm import architecture, endpoints as iqm, job_request
from simenv.model import Limits, ProgressInfo, TaskInfo, TaskState
from simenv.model.devices import DeviceInfo, DeviceKind

pytestmark = pytest.mark.filterwarnings("ignore:.*Inferred")  # of Litestar 3
PREFIX = endpoints.PREFIX


class NoEnvironment:
    """A gateway without an environment, for requests that do not reach one."""

    environment, url, settings = "none", "", GatewaySettings()

    def __init__(self, folder: Path, stored: StoredJobs) -> None:
        self.folder, self.stored, self.jobs = folder, stored, stored.of("ana")
        self.on_close: list[Any] = []
        self.reserved: list[tuple[str, int]] = []
        self.released: list[int] = []

    async def call(self, _caller: object, function: Any, *given: Any, **fields: Any) -> Any:
        return await asyncio.to_thread(function, self, *given, **fields)

    async def ask(self, _caller: object, message: Any) -> Any:
        return self.jobs._session.request(message)

    def sandbox(self, _caller: object) -> None:  # small bodies need none
        return None

    async def access_token(self, api_key: str) -> AccessToken:
        if api_key.startswith("known"):
            return AccessToken(api_key, 0, 1)
        if limits.locked_s.get():
            raise QueueFullError("too many guesses", retry_after_s=limits.locked_s.get())
        raise KeyRefusedError("the token is not known")

    def limits(self) -> dict[str, Any]:
        return {"ana": SimpleNamespace(limits=Limits(max_reservation_s=600))}

    def reserve(self, pool: str, *, for_s: int, account: str = "") -> Any:
        self.reserved.append((pool, for_s))
        return SimpleNamespace(id=len(self.reserved))

    def reservation(self, number: int) -> Any:
        return SimpleNamespace(release=lambda: self.released.append(number))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ComputeService]:
    stored = StoredJobs(tmp_path / "j.db")
    yield ComputeService(cast("Any", NoEnvironment(tmp_path, stored)))
    stored.close()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    info = DeviceInfo("main", DeviceKind.IDEAL, "", "", "", "simulator", 5, 1_000, (), True)

    async def backend(_self: object, _caller: object, name: str) -> Backend:
        return Backend(name, info, cast("Any", "pool"), 0)

    monkeypatch.setattr(ComputeService, "backend", backend)
    monkeypatch.setattr(ComputeService, "arrived", lambda *_: None)
    monkeypatch.setattr(JobProcesses, "wake", lambda *_: None)
    monkeypatch.setattr(architecture, "is_offered", lambda _info: True)


@pytest.fixture
def client(service: ComputeService) -> Iterator[TestClient[Any]]:
    routes = [*endpoints.routes(service.gateway, service), *iqm.routes(service)]
    with TestClient(app_of(routes)) as made:
        made.headers["Authorization"] = "Bearer ana"
        yield made


def add(
    service: ComputeService, number: str = "a", program: str = "sampler", **fields: Any
) -> None:
    jobs.add(client_of(service), Job(number, "ana", "", program, "main", **fields), b"{}")


def client_of(service: ComputeService) -> Any:
    return service.gateway


def end(service: ComputeService) -> None:
    client = client_of(service)
    result = {"result": b"result"}
    jobs.end(client, jobs.find(client, "a"), result, status=COMPLETED, ended_s=time())


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"tags": "\xff"}'])
def test_a_body_that_is_no_object_is_refused(
    client: TestClient[Any], service: ComputeService, body: bytes
) -> None:
    add(service)
    record = SessionRecord("s", "ana", "", "main", "batch", time(), 60)
    jobs.put_session(client_of(service), record)
    tags = client.put(f"{PREFIX}/jobs/a/tags", content=body)
    session = client.patch(f"{PREFIX}/sessions/s", content=body)
    for answer in (tags, session):
        assert answer.status_code == 400
        assert "no JSON object" in answer.json()["error"]["message"]


def test_a_digit_that_is_no_number_is_refused(client: TestClient[Any]) -> None:
    answer = client.get(f"{iqm.PREFIX}/jobs/a", params={"timeout_seconds": "\u00b2"})
    assert answer.status_code == 400


def test_tags_of_list_are_bounded(client: TestClient[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ComputeService, "arrived", lambda *_: None)
    for count, status in ((100, 200), (1_001, 400)):
        assert client.get(f"{PREFIX}/jobs", params={"tags": ["x"] * count}).status_code == status


def test_cursor_leads_through_workloads(client: TestClient[Any], service: ComputeService) -> None:
    for number in range(5):
        add(service, str(number))
    seen, cursor = [], {}
    while len(seen) < 5:
        page = client.get(f"{PREFIX}/workloads", params={"limit": 2, **cursor}).json()
        assert page["total_count"] == 5
        seen.append([each["id"] for each in page["workloads"]])
        if "next" not in page:
            break
        cursor = {"next": page["next"]}
    assert seen == [["4", "3"], ["2", "1"], ["0"]]
    page = client.get(f"{PREFIX}/workloads", params={"limit": 2, "previous": page["previous"]})
    assert [each["id"] for each in page.json()["workloads"]] == ["2", "1"]
    assert client.get(f"{PREFIX}/workloads", params={"next": "x"}).status_code == 400


def exchanged(client: TestClient[Any], key: str) -> Any:
    grant = "urn:ibm:params:oauth:grant-type:apikey"
    return client.post("/identity/token", data={"grant_type": grant, "apikey": key})


def test_guessed_keys_of_an_address_are_bounded(client: TestClient[Any]) -> None:
    guesses = int(limits.GUESSES.burst)
    answers = [exchanged(client, f"guess-{number}") for number in range(guesses + 1)]
    assert [each.status_code for each in answers] == [401] * guesses + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert exchanged(client, "known").status_code == 200


def test_a_private_result_can_be_read_again_for_a_while(
    client: TestClient[Any], service: ComputeService, device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(service, private=True)
    end(service)
    path = f"{PREFIX}/jobs/a/results"
    assert client.get(path).content == b"result"
    monkeypatch.setattr(services, "GIVEN_S", 0.0)
    assert client.get(path).content == b"result"
    until(lambda: not client_of(service).jobs.data("a", "result"), 30.0)


def test_a_private_result_goes_with_the_gateway(service: ComputeService, device: None) -> None:
    add(service, private=True)
    end(service)
    (close,) = service.gateway.on_close
    routes = endpoints.routes(service.gateway, service)
    with TestClient(app_of(routes, on_shutdown=[close])) as client:
        client.headers["Authorization"] = "Bearer ana"
        assert client.get(f"{PREFIX}/jobs/a/results").content == b"result"
    assert client_of(service).jobs.data("a", "result") == b""


def test_a_session_that_cannot_be_stored_keeps_no_reservation(
    client: TestClient[Any], service: ComputeService, device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise JournalError("database or disk is full")

    monkeypatch.setattr(jobs, "put_session", full)
    assert client.post(f"{PREFIX}/sessions", json={"backend": "main"}).status_code == 500
    gateway = cast("NoEnvironment", service.gateway)
    assert (gateway.reserved, gateway.released) == ([("main", 600)], [1])


@pytest.mark.parametrize("mode", ["dedicated", "batch"])
@pytest.mark.parametrize("max_ttl", [601, 10**18, 0, -1])
def test_the_time_of_a_session_is_bounded(
    client: TestClient[Any], device: None, mode: str, max_ttl: int
) -> None:
    asked = {"backend": "main", "mode": mode, "max_ttl": max_ttl}
    answer = client.post(f"{PREFIX}/sessions", json=asked)
    assert answer.status_code == 400
    assert "1 to 600 seconds" in answer.json()["error"]["message"]
    assert client.post(f"{PREFIX}/sessions", json=asked | {"max_ttl": 600}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{PREFIX}/jobs", {"program_id": "sampler", "backend": "main", "params": {"pubs": []}}),
        (f"{PREFIX}/sessions", {"backend": "main", "mode": "batch"}),
        (f"{iqm.PREFIX}/jobs/main/circuit", {"circuits": []}),
    ],
)
def test_an_unknown_field_is_refused_by_name(
    client: TestClient[Any], device: None, path: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json=body | {"max_tll": 5})
    assert answer.status_code == 400
    assert "unknown field `max_tll`" in answer.text
    assert client.post(path, json=body).status_code in (200, 201)


def test_fields_that_clients_send_are_known() -> None:
    """Those of qiskit-ibm-runtime 0.51 and QRMI 0.26, and of iqm-client 34."""
    job = dict.fromkeys(("runtime", "log_level", "session_id", "calibration_id", "remote_storage"))
    job |= {"program_id": "sampler", "backend": "main", "params": {}, "tags": ["a"], "cost": 3}
    job |= {"start_session": False, "session_time": None, "private": True}
    session = {"mode": "batch", "backend": "main", "instance": "crn", "max_ttl": 5}
    session |= {"backend_name": "main", "interactive_ttl": None, "active_ttl": None}
    run = dict.fromkeys(("calibration_set_id", "qubit_mapping", "active_reset_cycles"))
    run |= {"circuits": [], "shots": 1, "max_circuit_duration_over_t2": None}
    run |= {"heralding_mode": "none", "dd_mode": "disabled", "dd_strategy": None}
    run |= {"move_gate_validation": "strict", "move_gate_frame_tracking": "full"}
    for kind, fields in (
        (JobRequest, job),
        (services.SessionRequest, session),
        (job_request.Definition, run),
    ):
        msgspec.json.decode(msgspec.json.encode(fields), type=kind)


def test_a_body_of_iqm_is_decoded_in_a_thread(
    client: TestClient[Any], device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, read = [], job_request.read

    def recorded(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return read(*arguments)

    monkeypatch.setattr(job_request, "read", recorded)
    assert client.post(f"{iqm.PREFIX}/jobs/main/circuit", json={"circuits": []}).is_success
    assert threads[0].startswith("asyncio_")


def test_warnings_of_results_are_in_the_log_of_ibm_and_the_messages_of_iqm(
    client: TestClient[Any], service: ComputeService, device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tasks(*_: object) -> list[Any]:
        return []

    async def forecast(*_: object) -> JobForecast:
        return JobForecast()

    monkeypatch.setattr(ComputeService, "tasks", tasks)
    monkeypatch.setattr(ComputeService, "forecast", forecast)
    ended: dict[str, Any] = {
        "status": COMPLETED, "ended_s": time(), "warnings": ("h has no noise",),
    }  # fmt: skip
    add(service, **ended)
    number = "2a1c2b76-9a39-4f0e-8d6c-0c4b6c1c2f11"
    add(service, number, "", **ended)
    assert client.get(f"{PREFIX}/jobs/a/logs").text == "warning: h has no noise\n"
    messages = client.get(f"{iqm.PREFIX}/jobs/{number}").json()["messages"]
    assert messages == [{"source": "simenv", "message": "h has no noise"}]


@pytest.mark.parametrize(
    ("lefts_us", "left_s"), [((2e6, 30e6), 30.0), ((2e6, -1.0), None), ((), None)]
)
def test_expected_end_of_a_running_job_is_that_of_its_last_task(
    client: TestClient[Any], service: ComputeService, device: None, monkeypatch: pytest.MonkeyPatch,
    lefts_us: tuple[float, ...], left_s: float | None,
) -> None:  # fmt: skip
    half = ProgressInfo("passes", 20, 40, 0.5)
    infos = [
        TaskInfo("t-1", "", "main", TaskState.RUNNING, 1, 4.0, 5, 10, "main-0", "", left_us=each,
                 progress=half)
        for each in lefts_us
    ]  # fmt: skip

    async def tasks(*_: object) -> list[TaskInfo]:
        return infos

    monkeypatch.setattr(ComputeService, "tasks", tasks)
    add(service, status=RUNNING)
    begin_s = time()
    end = client.get(f"{PREFIX}/jobs/a/metrics").json()["estimated_completion_time"]
    if left_s is None:
        assert end is None
    else:
        assert 0.0 <= datetime.fromisoformat(end).timestamp() - begin_s - left_s < 10.0
    assert client.get(f"{PREFIX}/jobs/a/logs").text.count("(20 of 40 passes, 50 %") == len(infos)
