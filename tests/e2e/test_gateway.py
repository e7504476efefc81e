"""The gateway that a service starts along: its life, its command line, and hostile clients."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from circuits import bell
from failing import fails
from launched import below
from live import Live, environment, trusted_gateway
from shell import Shell
from waiting import until

import simenv
from simenv.client import environments
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.config import GatewayFile, running_gateway
from simenv.errors import NotAllowedError
from simenv.wire.keyfiles import ServerFile, UserKeyFile, read_private

START_S = 60.0
STATE = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[21]; h q;'  # 32 MiB of amplitudes
SLOW = 300  # connections that never end their requests


def found(up: Live) -> GatewayFile:
    until(lambda: running_gateway(up.home) is not None, START_S, message="no gateway")
    file = running_gateway(up.home)
    assert file is not None
    return file


def session(url: str, secret: str) -> httpx.Response:
    return httpx.get(f"{url}/session", headers={"Authorization": f"Bearer {secret}"})


def connected(url: str, timeout_s: float) -> ssl.SSLSocket:
    """Connect to a gateway, whose certificate is checked."""
    parts = urlsplit(url)
    raw = socket.create_connection((parts.hostname, parts.port), timeout_s)
    return ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname)


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment(gateway="127.0.0.1:0") as up, trusted_gateway(up):
        yield up


@pytest.fixture(scope="module")
def url(up: Live) -> str:
    return found(up).url


def audit(up: Live) -> list[dict[str, object]]:
    lines = (up.home / "logs" / "gateway.log").read_text().splitlines()
    return [
        json.loads(line.partition("simenv.gateway.audit ")[2])
        for line in lines
        if "simenv.gateway.audit " in line
    ]


def test_command_line_makes_a_token_that_the_gateway_accepts(shell: Shell, url: str) -> None:
    status = shell("gateway", "status", "--json").object
    assert status["url"] == url
    assert psutil.pid_exists(status["pid"])
    made = shell("gateway", "tokens", "add", "--user", "ana", "--purpose", "e2e", "--json").object
    answer = session(url, made["secret"]).raise_for_status().json()
    assert (answer["user"], answer["role"]) == ("ana", "client")
    number = made["number"]
    listed = shell("gateway", "tokens", "list", "--json")
    assert made["secret"] not in listed.out
    (row,) = (each for each in listed.objects if each["number"] == number)
    assert row["used_s"] > 0.0
    assert shell("gateway", "tokens", "revoke", number).code == 0
    until(lambda: session(url, made["secret"]).status_code == 401, START_S)
    assert shell("gateway", "tokens", "revoke", number).code == 4
    more = [
        shell("gateway", "tokens", "add", "--user", "ana", "--json").object["number"]
        for _ in range(2)
    ]
    revoked = shell("gateway", "tokens", "revoke", *more)
    assert revoked.out.splitlines() == [f"token {each} is revoked" for each in more]
    long = shell("gateway", "tokens", "revoke", "x" * 100)
    assert (long.code, "no token with the number" in long.err) == (4, True)
    assert "is not allowed" in shell("gateway", "tokens", "add", "--user", "x" * 100).err


def test_web_prints_a_link_that_opens_one_session(shell: Shell, url: str) -> None:
    link = shell("web", "--json").object["url"]
    assert link.startswith(f"{url}/login?token=")
    with httpx.Client() as browser:
        assert browser.get(link).status_code == 302
        assert browser.get(f"{url}/session").json()["role"] == "admin"
    assert httpx.get(link).status_code == 401


def test_env_prints_the_variables_of_clients(shell: Shell, url: str) -> None:
    lines = shell("gateway", "env", "--user", "ana").out.splitlines()
    assert all(line.startswith("export ") for line in lines)
    values = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    assert values["QISKIT_IBM_CHANNEL"] == "ibm_quantum_platform"
    assert "experimental" in values["QISKIT_IBM_URL"]
    assert values["QISKIT_IBM_URL"].startswith(url)
    crn = values["QISKIT_IBM_INSTANCE"]
    assert crn.startswith("crn:v1:")
    assert crn.endswith("::")
    assert len(crn.split(":")) == 10
    assert session(url, values["QISKIT_IBM_TOKEN"]).json()["user"] == "ana"
    named = values["SIMENV_URL"], values["SIMENV_TOKEN"]
    assert named == (values["IQM_SERVER_URL"], values["QISKIT_IBM_TOKEN"])
    names = values["QRMI_JOB_QPU_RESOURCES"].split(",")
    assert "main" in names
    assert len(values["QRMI_JOB_QPU_TYPES"].split(",")) == len(names)
    for name in names:
        assert values[f"{name}_QRMI_IBM_QCS_IAM_APIKEY"] == values["QISKIT_IBM_TOKEN"]


def test_no_process_has_a_secret_on_its_command_line_or_in_its_environment(
    up: Live, env: Client, url: str, tmp_path: Path
) -> None:
    """Of the service, its workers and the gateway, which use keys and a token."""
    issue_key(env.keys, "ben", "client", tmp_path / "ben.simenv")
    server = read_private(up.home / "server-key.json", ServerFile)
    secrets = {
        "service": server.secret_key,
        "owner": server.own_secret,
        "gateway": read_private(up.home / "gateway" / "key.json", UserKeyFile).secret_key,
        "user": read_private(tmp_path / "ben.simenv", UserKeyFile).secret_key,
        "token": env.tokens.add("ana").secret,
    }
    assert all(len(secret) >= 40 for secret in secrets.values())
    assert session(url, secrets["token"]).status_code == 200
    with simenv.connect(service=tmp_path / "ben.simenv") as ben:
        ben.submit(bell(), shots=10).result(START_S)
    shown = {}
    for process in below(up.service().pid):
        with suppress(psutil.Error):  # it ends meanwhile
            shown[process.pid] = [*process.cmdline(), *process.environ().values()]
    modules = {text for texts in shown.values() for text in texts if text.startswith("simenv.")}
    assert modules >= {"simenv.service", "simenv.worker", "simenv.gateway"}
    assert not [
        name
        for name, secret in secrets.items()
        if any(secret in text for texts in shown.values() for text in texts)
    ]


def test_slow_clients_leave_others_served(up: Live, env: Client, url: str) -> None:
    secret = env.tokens.add("ana").secret
    with ExitStack() as opened:
        for _ in range(SLOW):
            slow = opened.enter_context(connected(url, 10.0))
            slow.sendall(b"POST /session HTTP/1.1\r\nHost: here\r\nX-Slow: ")
        begun_s = time.monotonic()
        for _ in range(10):
            assert session(url, secret).status_code == 200
        assert time.monotonic() - begun_s < 10.0


def test_downloads_of_other_users_are_read_from_the_result_file(
    up: Live, env: Client, url: str
) -> None:
    """No copy takes disk or memory while nobody reads; nothing stays of a client that leaves."""
    secret = env.tokens.add("ana").secret
    head = {"Authorization": f"Bearer {secret}", "Accept": "application/x-npz"}
    with httpx.Client(base_url=f"{url}/api/v1", headers=head, timeout=60.0) as ana:
        body = {"program": STATE, "shots": None, "outputs": "statevector"}
        task = ana.post("/tasks", json=body).raise_for_status().json()["id"]
        assert len(ana.get(f"/tasks/{task}/result?wait=60").content) > 2**25
    gateway = f"/proc/{found(up).pid}"

    def mapped() -> int:
        return Path(f"{gateway}/maps").read_text().count(".h5\n")

    until(lambda: mapped() == 0, START_S)
    lines = [f"GET /api/v1/tasks/{task}/result HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in head.items()]
    with ExitStack() as opened:
        for _ in range(4):
            client = opened.enter_context(connected(url, 30.0))
            client.sendall("\r\n".join([*lines, "", ""]).encode())
            assert client.recv(64).startswith(b"HTTP/1.1 200 ")
        assert mapped() > 0
        links = [os.readlink(each) for each in Path(f"{gateway}/fd").iterdir()]
        assert not [link for link in links if link.endswith("(deleted)")]
    until(lambda: mapped() == 0, START_S)


def test_large_body_is_refused_before_it_is_read(up: Live, url: str) -> None:
    with connected(url, 30.0) as client:
        client.sendall(b"POST /logout HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 413 ")
    until(lambda: any(line["status"] == 413 for line in audit(up)), START_S)


def test_refused_login_is_in_the_audit_log(up: Live, url: str) -> None:
    secret = "simenv_" + "z" * 43
    assert session(url, secret).status_code == 401
    line = {"status": 401, "address": "127.0.0.1", "method": "GET", "path": "/session"}
    until(lambda: line in audit(up), START_S)
    assert secret not in (up.home / "logs" / "gateway.log").read_text()


def test_key_of_a_gateway_cannot_submit(up: Live, shell: Shell) -> None:
    made = shell("keys", "add", "outside", "--role", "gateway", "--json").object
    with simenv.connect(service=made["file"]) as client:
        assert "main" in client.pools()
        fails(NotAllowedError, "role gateway", client.submit, bell(), shots=10)
        fails(NotAllowedError, "role gateway", client.queue)
        fails(NotAllowedError, "role gateway", client.tokens.add)


def test_dead_gateway_is_started_again_at_its_address(up: Live, env: Client, url: str) -> None:
    secret = env.tokens.add("ana").secret
    before = found(up)
    psutil.Process(before.pid).send_signal(signal.SIGKILL)
    until(lambda: (now := running_gateway(up.home)) is not None and now.pid != before.pid, START_S)
    assert found(up).url == url
    assert session(url, secret).json()["user"] == "ana"


def test_second_gateway_of_an_environment_is_refused(up: Live, url: str) -> None:
    argv = [sys.executable, "-P", "-m", "simenv.gateway", up.name, "--listen", "127.0.0.1:0"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=START_S)
    assert ended.returncode == 2
    assert "runs already" in ended.stderr


def test_restart_of_the_service_keeps_tokens_and_ends_the_gateway() -> None:
    with environment(gateway="127.0.0.1:0") as up:
        with up.client() as env:
            secret = env.tokens.add("ana").secret
        before = found(up)
        with trusted_gateway(up):
            assert session(before.url, secret).json()["user"] == "ana"
        up.crash()
        up.wait_dead(before.pid)
        up.up()
        after = found(up)
        assert after.url == before.url
        with trusted_gateway(up):
            assert session(after.url, secret).json()["user"] == "ana"
        process = psutil.Process(after.pid)
        environments.down(up.name)
        with socket.create_server(("127.0.0.1", int(after.url.rpartition(":")[2]))):
            up.up()
            assert found(up).url != after.url
            environments.down(up.name)
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert running_gateway(up.home) is None
