"""Pasqal's API over the shared environment: what no client of theirs sends, and what it refuses."""

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from failing import fails
from gateway_stand_in import GatewayStandIn, gateway_of
from waiting import until

from simenv.client.client import Client
from simenv.config.paths import devices_folder
from simenv.errors import OptionError
from simenv.files import private_folder
from simenv.gateway import request_process
from simenv.gateway.pasqal import endpoints, requests
from simenv.sandbox.function_process import SandboxProcess

pulser = pytest.importorskip("pulser")


@pytest.fixture(scope="module")
def gateway(env: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStandIn]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateway_of(env, folder, endpoints.routes) as served:
        yield served


@pytest.fixture(scope="module")
def api(gateway: GatewayStandIn) -> Iterator[httpx.Client]:
    base = f"{gateway.url}/pasqal/core-fast/api"
    with httpx.Client(base_url=base, timeout=60) as client:
        yield client


def sequence(atoms: int = 2) -> str:
    register = pulser.Register.from_coordinates([(6.0 * k, 0) for k in range(atoms)], prefix="q")
    made = pulser.Sequence(register, pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    rabi = made.declare_variable("rabi")
    made.add(pulser.Pulse.ConstantPulse(100, rabi, 0.0, 0.0), "global")
    return str(made.to_abstract_repr())


def batch(**fields: Any) -> dict[str, Any]:
    jobs = [{"runs": 20, "variables": {"rabi": 6.0}}]
    return {"sequence_builder": sequence(), "jobs": jobs, "project_id": "p"} | fields


def made(api: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = api.post("/v1/batches", json=batch(**fields))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


def done(api: httpx.Client, number: str) -> None:
    until(lambda: api.get(f"/v1/batches/{number}/status").json()["data"]["status"] == "DONE")


def test_a_packed_body_is_unpacked_within_its_bound(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Content-Encoding": "gzip"}
    body = gzip.compress(json.dumps(batch()).encode())
    assert api.post("/v1/batches", content=body, headers=headers).status_code == 200
    bomb = gzip.compress(b" " * (requests.MAX_BODY_BYTES + 1))
    answer = api.post("/v1/batches", content=bomb, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (413, "error")
    assert "fewer jobs" in answer.json()["message"]
    assert api.post("/v1/batches", content=b"x", headers=headers).status_code == 400


def test_a_type_of_device_that_is_not_known_is_refused_by_name(api: httpx.Client) -> None:
    for known in ("EMU_FRESNEL", "MockDevice"):
        assert made(api, device_type=known)["device_type"] == known
    answer = api.post("/v1/batches", json=batch(device_type="EMU_FRE"))
    assert answer.status_code in (400, 422)
    assert "'EMU_FRE'; EMU_FREE" in answer.json()["message"]


def test_a_device_that_cannot_be_read_is_in_nobodys_way(api: httpx.Client, env: Client) -> None:
    path = private_folder(devices_folder()) / "unreadable.json"
    path.write_text("{}")
    try:
        fails(OptionError, "no kind of noise document", env.device, "unreadable")
        assert "unreadable" in env.device_names()
        assert api.get("/v1/devices/specs").status_code == 200
        done(api, made(api)["id"])
    finally:
        path.unlink()


def test_results_come_by_a_link_without_a_token(api: httpx.Client) -> None:
    number = made(api)["id"]
    done(api, number)
    (job,) = api.get("/v2/jobs", params={"batch_id": number}).json()["data"]
    assert (job["status"], job["runs"], job["variables"]) == ("DONE", 20, {"rabi": 6.0})
    assert job["start_timestamp"] <= job["end_timestamp"]
    link = api.get(f"/v1/jobs/{job['id']}/results_link").json()["data"]["results_link"]
    counter = httpx.get(link).json()["counter"]
    assert sum(counter.values()) == 20
    whole = api.get(f"/v2/jobs/{job['id']}").json()["data"]
    assert json.loads(whole["sequence"])["register"][1]["name"] == "q1"
    assert httpx.get(link[:-1]).status_code == 404


def test_jobs_have_own_sequences_and_one_batch_has_pages(api: httpx.Client) -> None:
    own = [{"runs": 5, "sequence": sequence(atoms), "variables": {"rabi": 6.0}} for atoms in (1, 3)]
    number = made(api, sequence_builder=None, jobs=own)["id"]
    done(api, number)
    pages = [
        api.get("/v2/jobs", params={"batch_id": number, "limit": 1, "offset": k}).json()
        for k in (0, 1)
    ]
    assert [page["pagination"]["total"] for page in pages] == [2, 2]
    assert [page["pagination"]["end"] for page in pages] == [1, 2]
    full = api.get(f"/v1/batches/{number}/full_results").json()["data"]
    widths = [len(next(iter(full[page["data"][0]["id"]]["counter"]))) for page in pages]
    assert widths == [1, 3]


def test_results_of_a_batch_in_one_answer_are_bounded_and_complete(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [{"runs": k, "variables": {"rabi": 0.0}} for k in range(1, 4)]
    found = made(api, jobs=jobs)
    done(api, found["id"])
    monkeypatch.setattr(endpoints, "MAX_PAGE", 2)
    full = api.get(f"/v1/batches/{found['id']}/full_results").json()["data"]
    assert [full[job]["counter"] for job in found["job_ids"]] == [{"00": k} for k in (1, 2, 3)]
    monkeypatch.setattr(endpoints, "MAX_RESULT_BYTES", 50)
    answer = api.get(f"/v1/batches/{found['id']}/full_results")
    assert answer.status_code == 413
    assert "results_link" in answer.json()["message"]


def test_many_callers_without_a_token_start_one_process(
    gateway: GatewayStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, started = endpoints.PasqalService(gateway), []

    begin = request_process.request_sandbox

    def counted() -> SandboxProcess:
        started.append(1)
        return begin()

    monkeypatch.setattr(request_process, "request_sandbox", counted)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: service.of_pulser(), range(4)))
    assert (len(started), {tuple(each) for each in found}) == (
        1, {("AnalogDevice", "DigitalAnalogDevice")},
    )  # fmt: skip


def test_an_open_batch_gets_jobs_until_it_is_closed(api: httpx.Client) -> None:
    number = made(api, open=True, tags=["night"])["id"]
    more = [{"runs": 7, "variables": {"rabi": 0.0}}]
    added = api.post(f"/v2/batches/{number}/jobs", json=more).json()["data"]
    assert (added["jobs_count"], added["open"]) == (2, True)
    assert len(added["job_ids"]) == 2
    listed = api.get("/v1/batches", params={"open": "true", "tag": "night"}).json()["data"]
    assert [each["id"] for each in listed] == [number]
    assert api.patch(f"/v2/batches/{number}/complete").json()["data"]["complete"]
    refused = api.post(f"/v2/batches/{number}/jobs", json=more)
    assert refused.status_code == 409
    done(api, number)
    job = added["job_ids"][1]
    link = api.get(f"/v1/jobs/{job}/results_link").json()["data"]["results_link"]
    assert httpx.get(link).json()["counter"] == {"00": 7}


def test_a_repeated_request_with_its_key_runs_nothing_again(api: httpx.Client, env: Client) -> None:
    headers = {"Idempotency-Key": "night 7"}
    jobs = [{"runs": 4, "variables": {"rabi": 0.0}}] * 2
    asked = batch(jobs=jobs, open=True)
    first = api.post("/v1/batches", json=asked, headers=headers).json()["data"]
    packed = gzip.compress(json.dumps(asked, separators=(",", ":")).encode())
    again = api.post("/v1/batches", json=asked, headers=headers).json()["data"]
    assert (again["id"], again["job_ids"]) == (first["id"], first["job_ids"])
    encoded = headers | {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert (
        api.post("/v1/batches", content=packed, headers=encoded).json()["data"]["id"]
        == (first["id"])
    )
    other = api.post("/v1/batches", json=asked | {"tags": ["x"]}, headers=headers)
    assert (other.status_code, "other content" in other.json()["message"]) == (409, True)
    path = f"/v2/batches/{first['id']}/jobs"
    for _ in range(2):
        added = api.post(path, json=jobs[:1], headers=headers).json()["data"]
        assert added["jobs_count"] == 3
    assert api.post(path, json=jobs, headers=headers).status_code == 409
    assert (
        api.post(path, json=jobs, headers={"Idempotency-Key": "8"}).json()["data"]["jobs_count"]
        == 5
    )
    assert api.post("/v1/batches", json=asked, headers={"Idempotency-Key": "~"}).status_code == 400
    assert len(env.jobs.get(first["id"]).tasks) == 5
    assert made(api)["id"] != made(api)["id"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sequence_builder": "{}"}, "refused by pulser"),
        ({"sequence_builder": None}, "without a sequence"),
        ({"sequence_builder": "[" * 200 + "]" * 200}, "no JSON object"),
        ({"jobs": [{"variables": {"rabi": 1.0}}]}, "without runs"),
        ({"jobs": [{"runs": 1}]}, "no values of the variables rabi"),
        ({"jobs": []}, "without jobs"),
        ({"webhook": "https://example.org"}, "webhook"),
        ({"tags": ["x" * 101]}, "tags"),
        ({"backend_configuration": "{}"}, "backend configuration"),
        ({"emulator": "EMU_FREE"}, "emulator"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    api: httpx.Client, fields: dict[str, Any], said: str
) -> None:
    before = api.get("/v1/batches").json()["pagination"]["total"]
    answer = api.post("/v1/batches", json=batch(**fields))
    assert answer.status_code in (400, 413), answer.text
    assert said in answer.json()["message"]
    assert api.get("/v1/batches").json()["pagination"]["total"] == before


def test_a_batch_runs_on_the_environments_device_of_its_name(
    api: httpx.Client, env: Client
) -> None:
    name = "neutral-atoms-analog"
    text = api.get("/v1/devices/specs").json()["data"][name]
    device = pulser.devices.Device.from_abstract_repr(text)
    assert device.name == name

    def on_device(amplitude: float) -> str:
        register = pulser.Register.from_coordinates([(0, 0), (8, 0)], prefix="q")
        made = pulser.Sequence(register, pulser.MockDevice)
        made.declare_channel("global", "rydberg_global")
        made.add(pulser.Pulse.ConstantPulse(100, amplitude, 0.0, 0.0), "global")
        return str(made.to_abstract_repr())

    jobs = [{"runs": 20}]
    batch = made(api, sequence_builder=on_device(6.0), jobs=jobs, device_type=name)
    done(api, batch["id"])
    stored = env.jobs.get(batch["id"]).tasks[0][0]
    assert env.task(stored).result().device == name
    refused = api.post(
        "/v1/batches",
        json={"sequence_builder": on_device(600.0), "jobs": jobs, "device_type": name},
    )
    assert refused.status_code in (400, 422), refused.text
    assert "amplitude" in refused.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/batches/1", 404), ("GET", f"/v2/batches/{'x' * 200}", 404),
        ("GET", "/v2/jobs/1", 404), ("POST", "/v1/workloads", 400),
        ("POST", "/v1/cudaq/job", 400), ("GET", "/v1/batches?limit=x", 400),
        ("GET", "/v2/jobs?min_runs=3", 400), ("GET", "/v1/devices/specs/NONE", 404),
    ],
)  # fmt: skip
def test_errors_have_the_form_of_that_api(
    api: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status
    assert answer.json().keys() >= {"status", "code", "message", "data"}


def test_devices_without_a_token(api: httpx.Client) -> None:
    found = api.get("/v1/devices", params={"device_type": "EMU_FREE"}).json()["data"]
    assert [each["availability"] for each in found] == ["ACTIVE"]
    assert api.get("/v1/devices", params={"device_type": "OTHER"}).json()["data"] == []
    public = api.get("/v1/devices/public-specs").json()["data"]
    for each in public:
        device = pulser.devices.Device.from_abstract_repr(each["specs"])
        assert device.name == each["device_type"]
