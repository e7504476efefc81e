"""Every route of the whole application, with requests of strangers, of other users and of nobody.

The routes are those of the application: a new one is covered, and one with the id of something that
belongs to a user has to be named in OWNED.
"""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from gateways import gateway, gateway_key
from live import Live, environment
from qiskit import qasm2
from waiting import until

from simenv.client.client import Client
from simenv.client.submission import compiler
from simenv.gateway import limits
from simenv.gateway.__main__ import all_routes
from simenv.gateway.app import RunningGateway
from simenv.gateway.ibm.processes import JobProcesses
from testbed import http_requests
from testbed.http_requests import Requests, Route, attack, filled

MUTATED = int(os.environ.get("SIMENV_MUTATED_REQUESTS", "2000"))
GROWTH_BYTES = 400 * 2**20
QASM = str(qasm2.dumps(http_requests.bell()))
PULSES = (Path(__file__).parents[3] / "examples/atoms.json").read_text()
IBM = "/experimental/api/v1"
PASQAL = "/pasqal/core-fast/api"
# What belongs to a user, by the beginning of the path.
OWNED = {
    "/api/v1/tasks/": "task", "/api/v1/reservations/": "reservation", "/api/v1/jobs/": "iqm_job",
    f"{IBM}/jobs/": "ibm_job", f"{IBM}/sessions/": "session",
    f"{PASQAL}/v1/batches/": "batch", f"{PASQAL}/v2/batches/": "batch",
    f"{PASQAL}/v1/jobs/": "batch_job", f"{PASQAL}/v2/jobs/": "batch_job",
}  # fmt: skip
# What is everybody's to see, or an admin's to change, or is refused to all.
OF_NOBODY = (
    "/api/v1/devices/", "/api/v1/positions/", "/api/v1/nodes/", "/api/v1/quantum-computers/",
    "/api/v1/calibration-sets/", "/api/v1/jobs/{name}/{kind}", f"{IBM}/backends/", "/ui",
    "/pasqal/results/", f"{PASQAL}/v1/devices/", f"{PASQAL}/v1/workloads",
    f"{PASQAL}/v2/workloads", f"{PASQAL}/v1/cudaq", f"{PASQAL}/v1/batches/{{number}}/rebatch",
)  # fmt: skip
# For programs without a token: logins, the page's files, the probe, descriptions without data,
# links with a secret of their own, and the metrics, from this host.
PUBLIC = (
    "/login", "/health/live", "/health/ready", "/metrics",
    "/", "/ui", "/ui/{path}", "/ui/static/{digest}/{name}",
    "/api/v1/openapi.json", f"{IBM}/versions", "/identity/token",
    "/pasqal/oauth/token", "/pasqal/results/{secret}",
    f"{PASQAL}/v1/devices", f"{PASQAL}/v1/devices/public-specs",
)  # fmt: skip
KINDS = {"kind": "measurements"}
BODIES: dict[str, Any] = {
    "/v1/batches/{number}/tags": ["stolen"], "/v2/batches/{number}/jobs": [{"runs": 1}],
    "/tags": {"tags": ["stolen"]}, "/renew": {"for_s": 5}, "/drain": {"reason": "stolen"},
    "/sessions/{number}": {"accepting_jobs": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment(listen="tcp://127.0.0.1:0") as up:
        yield up


@pytest.fixture(scope="module")
def env(live: Live) -> Iterator[Client]:
    with live.client() as client:
        yield client


@pytest.fixture(scope="module")
def running(live: Live) -> Iterator[RunningGateway]:
    """The gateway, whose job processes do not start: jobs of vendors wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobProcesses, "wake", lambda *_: None)
        patch.setattr(limits, "FAILURES", limits.FAILURES._replace(burst=1e6))
        key = gateway_key(live, "web")
        with gateway(live, key, all_routes, requests_per_s=0, max_processes=2) as result:
            yield result


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Route]:
    found = http_requests.routes(tmp_path_factory.mktemp("routes"))
    return [each for each in found if each.method != "OPTIONS"]


def as_user(running: RunningGateway, secret: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=running.url, headers=headers, timeout=60.0)


@pytest.fixture(scope="module")
def ana(running: RunningGateway, env: Client) -> Iterator[httpx.Client]:
    with as_user(running, env.tokens.add("hedwig").secret) as client:
        yield client


@pytest.fixture(scope="module")
def ben(running: RunningGateway, env: Client) -> Iterator[httpx.Client]:
    with as_user(running, env.tokens.add("ben").secret) as client:
        yield client


@pytest.fixture(scope="module")
def owned(ana: httpx.Client) -> dict[str, str]:
    """Something of each kind of OWNED, of ana."""

    def made(path: str, body: dict[str, Any]) -> str:
        answer = ana.post(path, json=body)
        assert answer.is_success, answer.text
        found = answer.json()
        return str(found.get("data", found)["id"])

    task = made("/api/v1/tasks", {"program": QASM, "shots": 10})
    ana.get(f"/api/v1/tasks/{task}/result", params={"wait": 30}).raise_for_status()
    job = {"program_id": "sampler", "backend": "main", "params": {"pubs": []}, "tags": ["hers"]}
    batch = made(f"{PASQAL}/v1/batches", {"sequence_builder": PULSES, "jobs": [{"runs": 9}]})
    jobs = ana.get(f"{PASQAL}/v2/jobs", params={"batch_id": batch}).json()["data"]
    measured = {"name": "measure", "locus": ["QB1"], "args": {"key": "m"}}
    return {
        "task": task,
        "ibm_job": made(f"{IBM}/jobs", job),
        "session": made(f"{IBM}/sessions", {"mode": "batch", "backend": "main"}),
        "iqm_job": made("/api/v1/jobs/main/circuit", {"circuits": [{"instructions": [measured]}]}),
        "batch": batch,
        "batch_job": str(jobs[0]["id"]),
        "reservation": made("/api/v1/reservations", {"pool": "main", "for_s": 600}),
    }


def owner_of(route: Route) -> str | None:
    """Kind of what the path names; None: of nobody."""
    if "{" not in route.path or route.path.startswith(OF_NOBODY):
        return None
    kinds = [kind for path, kind in OWNED.items() if route.path.startswith(path)]
    assert len(kinds) == 1, f"{route.path}: whose is what it names?"
    return kinds[0]


def path_of(route: Route, value: str) -> str:
    return filled(route.path, lambda name: KINDS.get(name, value))


def body_of(route: Route) -> Any:
    ends = [body for end, body in BODIES.items() if route.path.endswith(end)]
    return ends[0] if ends and route.method != "GET" else None


def state(ana: httpx.Client, owned: dict[str, str]) -> list[Any]:
    """What ana sees of her own."""
    job = ana.get(f"{IBM}/jobs/{owned['ibm_job']}").json()
    session = ana.get(f"{IBM}/sessions/{owned['session']}").json()
    batch = ana.get(f"{PASQAL}/v2/batches/{owned['batch']}").json()["data"]
    return [
        (batch["status"] == "CANCELED", batch["tags"], batch["jobs_count"]),
        ana.get(f"/api/v1/tasks/{owned['task']}").json()["state"],
        (job["status"], job["tags"]),
        (session["accepting_jobs"], session["state"]),
        ana.get(f"/api/v1/jobs/{owned['iqm_job']}").json()["status"],
        ana.get(f"/api/v1/reservations/{owned['reservation']}").json()["expires_ns"],
    ]


def audited(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The line of the audit log, which is written after the answer."""
    until(lambda: bool(caplog.records), 30.0)
    found: dict[str, Any] = json.loads(caplog.records[-1].message)
    return found


def test_nothing_of_a_user_is_there_for_another(
    routes: list[Route], ana: httpx.Client, ben: httpx.Client, owned: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "simenv.gateway.audit")
    before, tried = state(ana, owned), set()
    for route in routes:
        kind = owner_of(route)
        if kind is None:
            continue
        path = path_of(route, owned[kind])
        caplog.clear()
        answer = ben.request(route.method, path, json=body_of(route))
        is_missing = "there is no reservation" in answer.text  # as of a number that is none's
        assert answer.status_code in (403, 404) or is_missing, (route, answer.text)
        if not is_missing:
            entry = audited(caplog)
            assert (entry["user"], entry["path"]) == ("ben", path)
        tried.add(kind)
    assert tried == set(owned)
    assert state(ana, owned) == before


def test_no_listing_shows_what_is_of_another(
    routes: list[Route], ben: httpx.Client, owned: dict[str, str]
) -> None:
    names = {owned[kind] for kind in owned if kind != "reservation"}
    for route in routes:
        if route.method != "GET" or "{" in route.path or route.path in ("/login", "/metrics"):
            continue
        text = ""
        with ben.stream("GET", route.path) as answer:
            for part in answer.iter_text():
                text += part
                if route.is_stream:
                    break
        assert not [name for name in names if f'"{name}"' in text], route
        assert "hedwig" not in text, (route, text)
    assert ben.get("/api/v1/reservations").json() == []


def test_without_a_valid_token_there_is_nothing(
    routes: list[Route], running: RunningGateway, env: Client, owned: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "simenv.gateway.audit")
    revoked, expired = env.tokens.add("hedwig"), env.tokens.add("hedwig", lifetime_s=1.0)
    env.tokens.revoke(revoked.token.number)

    def is_refused(secret: str) -> bool:
        with as_user(running, secret) as client:
            return client.get("/session").status_code == 401

    until(lambda: is_refused(expired.secret), 30.0)
    forged = f"simenv_{'z' * 43}"
    secrets = {"": "", "forged": forged, "revoked": revoked.secret, "expired": expired.secret}
    secrets["monitor"] = env.tokens.add("prometheus", role="monitor").secret
    for name, secret in secrets.items():
        with as_user(running, secret) if secret else httpx.Client(base_url=running.url) as client:
            for route in routes:
                if route.path in PUBLIC:
                    continue
                path = path_of(route, owned.get(owner_of(route) or "", "main"))
                caplog.clear()
                answer = client.request(route.method, path, json=body_of(route))
                status = 403 if name == "monitor" else 401
                assert answer.status_code == status, (name, route, answer.text)
                entry = audited(caplog)
                assert (entry["status"], entry["path"]) == (status, path)


def test_mutated_requests_are_refused_and_the_gateway_lives(
    routes: list[Route], running: RunningGateway, env: Client, owned: dict[str, str]
) -> None:
    url = urlsplit(running.url)
    address = str(url.hostname), int(url.port or 0)
    secrets = [env.tokens.add(name).secret for name in ("cem", "dan")]
    values = [*owned.values(), "main", "lima", "local", "a", "0"]
    process = psutil.Process()
    warm = Requests(0, routes, values, secrets)
    attack(address, warm, 100)  # what is loaded with the first request of its kind
    before_bytes = process.memory_info().rss
    statuses, failures = attack(address, Requests(1, routes, values, secrets), MUTATED)
    assert not failures, (len(failures), failures[0])
    assert {200, 400, 401, 404, 405} <= set(statuses), statuses
    assert process.memory_info().rss - before_bytes < GROWTH_BYTES
    with as_user(running, secrets[0]) as client:
        assert client.get("/session").status_code == 200


def test_compilation_for_a_device_is_ended_after_its_time(
    ben: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "SANDBOX_S", 1e-3)
    body = {"program": QASM, "shots": 10, "device": "lima"}
    for path in ("tasks", "explain"):
        answer = ben.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 413, answer.text
        assert answer.json()["code"] == "limit"
        assert "compiling the circuit" in answer.json()["detail"]


def test_names_of_any_length_are_refused(ana: httpx.Client) -> None:
    for length in (100, 5_000, 20_000, 200_000):
        body = {"program_id": "executor", "backend": "ma" + "[" * length, "params": {}}
        answer = ana.post(f"{IBM}/jobs", json=body)
        assert answer.status_code in (400, 404), answer.text
