"""Callers of a gateway over a real service: what a token, a JWT or a cookie opens, and for whom."""

import base64
import datetime
import importlib
import ipaddress
import json
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from circuits import bell
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from failing import fails
from gateways import gateway, gateway_key
from joserfc import jwt
from joserfc.jwk import OctKey
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from live import Live, environment
from waiting import until

from simenv.client.client import Client
from simenv.config import GatewaySettings
from simenv.errors import ConfigError, NoServiceError, NotAllowedError
from simenv.gateway import clients, limits, security
from simenv.gateway.__main__ import given_certificate
from simenv.gateway.app import RunningGateway
from simenv.gateway.context import Caller
from simenv.wire.keyfiles import UserKeyFile, new_pair, read_private, write_private

metric_routes = importlib.import_module("simenv.gateway.metrics.routes")


def routes(running: RunningGateway) -> list[Any]:
    @get("/tasks/{number:str}")
    async def task(caller: NamedDependency[Caller], number: FromPath[str]) -> dict[str, str]:
        found = await running.call(caller, Client.task, number)
        return {"id": found.id}

    @get("/tasks")
    async def tasks(caller: NamedDependency[Caller]) -> list[str]:
        queue = await running.call(caller, Client.queue, True)
        return [each.id for each in queue[1]]

    @post("/change")
    async def change(caller: NamedDependency[Caller]) -> dict[str, str]:
        return {"user": caller.user}

    @post("/identity/token", status_code=200)
    async def identity(data: JSONBody[dict[str, str]]) -> dict[str, str]:
        return {"access_token": (await running.access_token(data["apikey"])).text}

    return [task, tasks, change, identity]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment(listen="tcp://127.0.0.1:0") as up:
        yield up


@pytest.fixture(scope="module")
def key(live: Live) -> Path:
    return gateway_key(live, "web")


@pytest.fixture
def running(live: Live, key: Path) -> Iterator[RunningGateway]:
    with gateway(live, key, routes) as result:
        yield result


@pytest.fixture(scope="module")
def env(live: Live) -> Iterator[Client]:
    with live.client() as client:
        yield client


@pytest.fixture
def tokens(env: Client) -> dict[str, str]:
    return {name: env.tokens.add(name).secret for name in ("ana", "ben")}


@pytest.fixture(scope="module", autouse=True)
def no_tokens_left(env: Client) -> Iterator[None]:
    yield
    while listed := env.tokens.listed():  # those of sessions end with others
        env.tokens.revoke(listed[0].number)


def as_user(running: RunningGateway, secret: str, scheme: str = "Bearer") -> httpx.Client:
    return httpx.Client(base_url=running.url, headers={"Authorization": f"{scheme} {secret}"})


def test_gateway_believes_no_server_with_another_key_than_its_service(
    live: Live, key: Path, tmp_path: Path
) -> None:
    file, other = read_private(key, UserKeyFile), tmp_path / "other.simenv"
    write_private(other, msgspec.structs.replace(file, server_key=new_pair().public))
    with pytest.raises(NoServiceError, match="handshake"), gateway(live, other):
        pass


def test_token_and_api_key_name_their_user(running: RunningGateway, tokens: dict[str, str]) -> None:
    for scheme in ("Bearer", "bearer", "apikey", "ApiKey"):
        with as_user(running, tokens["ana"], scheme) as ana:
            answer = ana.get("/session").raise_for_status().json()
            assert (answer["user"], answer["role"]) == ("ana", "client")
            assert answer["environment"] == running.environment


@pytest.mark.parametrize(
    "header",
    ["", "Bearer",  "Basic YW5hOg==", "Bearer x", "Bearer simenv_" + "x" * 43,
     "Bearer " + "é" * 50, "Bearer " + "x" * 5_000, "Bearer a.b.c", "apikey a.b.c"],
)  # fmt: skip
def test_request_without_valid_credential_is_refused(running: RunningGateway, header: str) -> None:
    headers = [(b"authorization", header.encode())] if header else []
    answer = httpx.get(f"{running.url}/session", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (401, "key_refused")
    assert problem["hint"]


def test_user_never_sees_the_tasks_of_another(
    running: RunningGateway, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "simenv.gateway.audit")
    with as_user(running, tokens["ana"]) as ana, as_user(running, tokens["ben"]) as ben:
        ana.get("/session").raise_for_status()
        ben.get("/session").raise_for_status()
        number = next(each for each in tokens)  # the pool has the entry of ana
        submitted = running.client(_caller(running, number)).submit(bell(), shots=5, seed=1)
        submitted.result(60.0)
        assert ana.get(f"/tasks/{submitted.id}").json() == {"id": submitted.id}
        assert submitted.id in ana.get("/tasks").json()
        assert ben.get("/tasks").json() == []
        refused = ben.get(f"/tasks/{submitted.id}")
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    until(lambda: bool(caplog.records))  # the line is written after the answer
    lines = [json.loads(record.message) for record in caplog.records]
    assert [(each["status"], each["user"], each["path"]) for each in lines] == [
        (404, "ben", f"/tasks/{submitted.id}")
    ]


def _caller(running: RunningGateway, user: str) -> Caller:
    return next(each.caller for each in running.pool._entries.values() if each.caller.user == user)


def test_revoked_token_is_refused(
    running: RunningGateway, env: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = env.tokens.add("ana")
    with as_user(running, made.secret) as ana:
        ana.get("/tasks").raise_for_status()
        env.tokens.revoke(made.token.number)
        # A request that the service sees is refused at once, any other when its token is checked.
        refused = ana.get("/tasks")
        assert (refused.status_code, refused.json()["code"]) == (401, "key_refused")
        monkeypatch.setattr(clients, "CHECK_S", 0.0)
        assert ana.get("/session").status_code == 401
    assert running.pool._entries == {}


def test_expired_token_is_refused(
    running: RunningGateway, env: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CHECK_S", 0.0)
    made = env.tokens.add("ana", lifetime_s=1.5)
    with as_user(running, made.secret) as ana:
        assert ana.get("/session").status_code == 200
        until(lambda: ana.get("/session").status_code == 401, 30.0)


def test_token_of_a_reservation_is_refused_after_its_end(
    running: RunningGateway, env: Client, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "CHECK_S", 0.0)
    with as_user(running, tokens["ana"]) as ana:
        ana.get("/session").raise_for_status()
    mine = running.client(_caller(running, "ana")).reserve("main")
    made = env.tokens.add("ana", reservation=mine.id)
    with as_user(running, made.secret) as job:
        job.get("/session").raise_for_status()
        callers = [each.caller for each in running.pool._entries.values()]
        (caller,) = [each for each in callers if each.token == made.token.number]
        assert caller.reservation_of("main") == mine.id
        fails(NotAllowedError, "for work under reservation", caller.reservation_of, "other")
        mine.release()
        until(lambda: job.get("/session").status_code == 401, 30.0)


def test_access_token_stands_for_api_key(running: RunningGateway, tokens: dict[str, str]) -> None:
    answer = httpx.post(f"{running.url}/identity/token", json={"apikey": tokens["ana"]})
    text = answer.raise_for_status().json()["access_token"]
    parts = [base64.urlsafe_b64decode(each + "=" * (-len(each) % 4)) for each in text.split(".")]
    claims = json.loads(parts[1])
    assert claims["exp"] - claims["iat"] == security.JWT_S
    assert tokens["ana"] not in str(parts)
    with as_user(running, text) as ana:
        assert ana.get("/session").json()["user"] == "ana"
    assert httpx.post(f"{running.url}/identity/token", json={"apikey": "x" * 50}).status_code == 401


def test_forged_access_tokens_are_refused(running: RunningGateway, tokens: dict[str, str]) -> None:
    made = running._signer.access_token(tokens["ana"]).text
    head, body, signature = made.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    other = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(b"k" * 32))
    expired = jwt.encode({"alg": "HS256"}, claims | {"exp": 1}, running._signer._signing)
    ben = running._signer.access_token(tokens["ben"]).text.split(".")[1]
    for text in (
        f"{none}.{body}.", f"{head}.{body}.", f"{head}.{body}.{signature[:-2]}AA", other, expired,
        f"{head}.{ben}.{signature}",
    ):  # fmt: skip
        with as_user(running, text) as anybody:
            assert anybody.get("/session").status_code == 401, text
    with as_user(running, made) as ana:
        assert ana.get("/session").status_code == 200


def test_access_tokens_outlive_gateway(live: Live, key: Path, tokens: dict[str, str]) -> None:
    with gateway(live, key) as first:
        text = first._signer.access_token(tokens["ana"]).text
    with gateway(live, key) as second, as_user(second, text) as ana:
        assert ana.get("/session").json()["user"] == "ana"
    assert (live.home / "web" / "secret").stat().st_mode & 0o077 == 0


def test_one_time_link_opens_one_session_of_a_browser(running: RunningGateway, env: Client) -> None:
    link = env.tokens.add("ana", lifetime_s=60.0, once=True).secret
    with httpx.Client(base_url=running.url) as browser:
        answer = browser.get("/login", params={"token": link})
        assert (answer.status_code, answer.headers["location"]) == (302, "/ui/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert link not in cookie
        assert browser.get("/session").json()["user"] == "ana"
        assert browser.get("/login", params={"token": link}).status_code == 401
        own = {"Origin": running.url}
        for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            refused = browser.post("/change", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
        assert browser.post("/change", headers=own).json() == {"user": "ana"}
        session = dict(browser.cookies)
        assert browser.post("/logout", headers=own).status_code == 204
        assert not browser.cookies
    with httpx.Client(base_url=running.url, cookies=session) as thief:
        assert thief.get("/session").status_code == 401


def test_a_bearer_token_is_no_link_and_a_link_no_bearer_token(
    running: RunningGateway, env: Client, tokens: dict[str, str]
) -> None:
    """Else whoever has a token for an hour would make himself others, for ever."""
    count = len(env.tokens.listed())
    with httpx.Client(base_url=running.url) as browser:
        refused = browser.get("/login", params={"token": tokens["ana"]})
        assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
    assert len(env.tokens.listed()) == count
    link = env.tokens.add("ana", lifetime_s=60.0, once=True).secret
    with as_user(running, link) as ana:
        assert ana.get("/session").status_code == 401


def test_typed_token_opens_session_that_ends_with_it(running: RunningGateway, env: Client) -> None:
    made, own = env.tokens.add("ana", lifetime_s=600.0), {"Origin": running.url}
    count = len(env.tokens.listed())
    with httpx.Client(base_url=running.url) as browser:
        answer = browser.post("/login", json={"token": made.secret}, headers=own)
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert made.secret not in cookie
        assert len(env.tokens.listed()) == count + 1
        [session] = [each for each in env.tokens.listed() if each.parent == made.token.number]
        assert session.expires_s <= made.token.expires_s
        assert browser.get("/session").json()["user"] == "ana"
        assert browser.post("/change", headers=own).json() == {"user": "ana"}
        assert browser.post("/change").status_code == 403
        env.tokens.revoke(made.token.number)
        until(lambda: browser.get("/session").status_code == 401)


def signed_in(browser: httpx.Client, secret: str) -> dict[str, str]:
    """Sign a browser in by a token that its user types; return its cookies."""
    own = {"Origin": str(browser.base_url).rstrip("/")}
    assert browser.post("/login", json={"token": secret}, headers=own).status_code == 204
    return dict(browser.cookies)


def test_sign_out_ends_the_session_of_a_typed_token_and_not_the_token(
    live: Live, key: Path, tokens: dict[str, str]
) -> None:
    with gateway(live, key) as first:
        own = {"Origin": first.url}
        with httpx.Client(base_url=first.url) as browser, httpx.Client(base_url=first.url) as other:
            copied, _ = signed_in(browser, tokens["ana"]), signed_in(other, tokens["ana"])
            with_token = {**own, "Authorization": f"Bearer {tokens['ana']}"}
            assert browser.post("/logout", headers=with_token).status_code == 403
            assert browser.post("/logout", headers=own).status_code == 204
            assert not browser.cookies
            assert other.get("/session").status_code == 200  # that of another browser
        with httpx.Client(base_url=first.url, cookies=copied) as thief:
            assert thief.get("/session").status_code == 401
        with as_user(first, tokens["ana"]) as script:
            assert script.get("/session").status_code == 200
    with gateway(live, key) as second, httpx.Client(base_url=second.url, cookies=copied) as thief:
        assert thief.get("/session").status_code == 401


def test_sessions_of_a_user_end_with_the_key(running: RunningGateway, env: Client) -> None:
    env.keys.add("gus", "client")
    typed, link = env.tokens.add("gus").secret, env.tokens.add("gus", once=True).secret
    with (
        httpx.Client(base_url=running.url) as by_token,
        httpx.Client(base_url=running.url) as by_link,
    ):
        signed_in(by_token, typed)
        by_link.get("/login", params={"token": link})
        for browser in (by_token, by_link):
            assert browser.get("/session").json()["user"] == "gus"
        env.keys.revoke("gus")
        until(lambda: by_token.get("/session").status_code == 401)
        until(lambda: by_link.get("/session").status_code == 401)


def test_a_browser_is_not_signed_in_by_another_site_or_by_a_token_for_metrics(
    running: RunningGateway, env: Client, tokens: dict[str, str]
) -> None:
    own = {"Origin": running.url}
    with httpx.Client(base_url=running.url) as browser:
        for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            refused = browser.post("/login", json={"token": tokens["ana"]}, headers=headers)
            assert refused.status_code == 403
        monitor = env.tokens.add(role="monitor").secret
        link = env.tokens.add("ana", lifetime_s=60.0, once=True).secret
        for secret, status in ((monitor, 403), (link, 401), ("z" * 50, 401), ("", 401)):
            refused = browser.post("/login", json={"token": secret}, headers=own)
            assert refused.status_code == status
        for body in (b"", b"[]", b'{"token": 1}', b'{"token": "x", "more": 1}', b"\xff" * 100):
            refused = browser.post("/login", content=body, headers=own)
            assert (refused.status_code, refused.json()["code"]) == (400, "option"), body
        huge = browser.post("/login", content=b" " * 2**20, headers={**own, "Cookie": "anything=1"})
        assert huge.status_code == 413
        assert not browser.cookies
        assert browser.get("/login").headers["location"] == "/ui/"


def test_requests_above_the_rate_are_answered_429(
    live: Live, key: Path, tokens: dict[str, str]
) -> None:
    with gateway(live, key, requests_per_s=0.1) as slow, as_user(slow, tokens["ana"]) as ana:
        answer = ana.get("/session").raise_for_status()
        answer = ana.get("/session")
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert answer.json()["code"] == "queue_full"
        with as_user(slow, tokens["ben"]) as ben:
            assert ben.get("/session").status_code == 200


def test_failed_logins_of_an_address_are_bounded(
    running: RunningGateway, tokens: dict[str, str]
) -> None:
    with as_user(running, tokens["ana"]) as ana:
        ana.get("/session").raise_for_status()
        statuses: list[int] = []
        while 429 not in statuses and len(statuses) < 10 * limits.FAILURES.burst:  # some time
            with as_user(running, f"simenv_{len(statuses):043}") as guesser:
                statuses.append(guesser.get("/session").status_code)
        assert statuses.count(401) == len(statuses) - 1 >= limits.FAILURES.burst
        with as_user(running, "simenv_" + "y" * 43) as guesser:
            refused = guesser.get("/session")
            assert refused.status_code == 429
            assert guesser.get("/login", params={"token": "z" * 50}).status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
        assert ana.get("/session").status_code == 200  # who is known is served


def test_clients_of_a_gateway_are_bounded(
    running: RunningGateway, env: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_CLIENTS", 2)
    secrets = [env.tokens.add(name).secret for name in ("ana", "ben", "eva")]
    for secret in secrets:
        with as_user(running, secret) as user:
            user.get("/session").raise_for_status()
    users = [each.caller.user for each in running.pool._entries.values()]
    assert users == ["ben", "eva"]
    with as_user(running, secrets[0]) as ana:
        assert ana.get("/tasks").status_code == 200


def test_client_that_nobody_uses_is_closed(
    live: Live, key: Path, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "IDLE_CHECK_S", 0.05)
    monkeypatch.setattr(clients, "MAX_IDLE_S", 0.1)
    with gateway(live, key, routes) as running, as_user(running, tokens["ana"]) as ana:
        ana.get("/session").raise_for_status()
        until(lambda: not running.pool._entries, 30.0)
        assert ana.get("/session").status_code == 200


def test_headers_of_security_are_on_every_answer(running: RunningGateway) -> None:
    for path in ("/session", "/nothing", "/health/live"):
        headers = httpx.get(f"{running.url}{path}").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
        assert "server" not in headers


def test_forwarded_headers_count_from_named_proxies_alone(
    live: Live, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "simenv.gateway.audit")
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    for proxies, seen in (((), "127.0.0.1"), (("127.0.0.1",), "203.0.113.9")):
        caplog.clear()
        with gateway(live, key, proxies=proxies) as running:
            answer = httpx.get(f"{running.url}/session", headers=forwarded)
        assert json.loads(caplog.records[-1].message)["address"] == seen
        assert ("strict-transport-security" in answer.headers) == bool(proxies)


def self_signed(folder: Path) -> tuple[str, str]:
    """Write a certificate for 127.0.0.1 and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "web.pem", folder / "web.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption())
    )  # fmt: skip
    return str(paths[0]), str(paths[1])


def test_gateway_ends_tls_by_itself(live: Live, key: Path, env: Client, tmp_path: Path) -> None:
    certificate, secret_key = self_signed(tmp_path)
    link = env.tokens.add("ana", lifetime_s=60.0, once=True).secret
    tls = {"tls": True, "tls_certificate": certificate, "tls_key": secret_key}
    with gateway(live, key, **tls) as running:
        url = running.url
        context = ssl.create_default_context(cafile=certificate)
        with httpx.Client(base_url=url, verify=context) as browser:
            answer = browser.get("/login", params={"token": link})
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-")
            assert "Secure" in cookie
            assert "strict-transport-security" in answer.headers
            assert browser.get("/session").json()["user"] == "ana"


def test_missing_file_of_tls_is_named(tmp_path: Path) -> None:
    files = {"tls_certificate": str(tmp_path / "no.pem"), "tls_key": str(tmp_path / "no.key")}
    fails(ConfigError, r"cannot use .*no\.pem", given_certificate, GatewaySettings(**files))
    fails(ConfigError, "no.pem", Live().up, gateway={"listen": "127.0.0.1:0", **files})


def test_health_probes_need_no_token_and_say_whether_the_service_answers(
    live: Live, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_routes, "ANSWER_S", 0.2)
    monkeypatch.setattr(metric_routes, "READY_S", 0.0)
    with gateway(live, key, metric_routes.routes) as running:
        for probe in ("live", "ready"):
            answer = httpx.get(f"{running.url}/health/{probe}")
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        service = live.service()
        service.suspend()
        try:
            answer = httpx.get(f"{running.url}/health/ready")
            assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
            assert httpx.get(f"{running.url}/health/live").status_code == 200
        finally:
            service.resume()
        until(lambda: httpx.get(f"{running.url}/health/ready").status_code == 200, 60.0)


def test_probes_ask_service_once(live: Live, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_routes, "READY_S", 3_600.0)
    asked: list[int] = []
    monkeypatch.setattr(metric_routes, "_unready_reason", lambda _: asked.append(1) or "")
    with gateway(live, key, metric_routes.routes) as running:
        for _ in range(20):
            assert httpx.get(f"{running.url}/health/ready").status_code == 200
    assert len(asked) == 1
