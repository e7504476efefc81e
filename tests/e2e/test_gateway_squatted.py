"""Another process takes the gateway's port while the environment is down: no client that uses what
simenv hands out sends it a token."""

import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from iqm_clients import FOLDER, interpreter
from live import Live, environment
from shell import Shell, shell_of
from waiting import until

from simenv import config
from simenv.client.environments import await_gateway, down
from simenv.gateway import tls

pytestmark = pytest.mark.usefixtures("no_leaks")

IBM = "from qiskit_ibm_runtime import QiskitRuntimeService\nQiskitRuntimeService().backends()"
IQM = """
from os import environ
from iqm.qiskit_iqm import IQMProvider
IQMProvider(environ["IQM_SERVER_URL"], quantum_computer="main").get_backend()
"""
QRMI = """
import qrmi
resource = qrmi.QuantumResource("main", qrmi.ResourceType.IBMQuantumComputeService)
assert resource.is_accessible()
"""
REQUESTS = """
import os, requests
header = {"Authorization": "Bearer " + os.environ["IQM_TOKEN"]}
requests.get(os.environ["IAM_URL"] + "/session", headers=header).raise_for_status()
"""
CLIENTS = {"ibm": IBM, "iqm": IQM, "qrmi": QRMI, "requests": REQUESTS}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment(gateway="127.0.0.1:0") as up:
        await_gateway(up.home)
        yield up


@pytest.fixture(scope="module")
def handed_out(live: Live) -> dict[str, str]:
    """The variables of `simenv gateway env`; the environment is down afterwards."""
    argv = [sys.executable, "-m", "simenv", "--name", live.name, "gateway", "env", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    values: dict[str, str] = json.loads(done.stdout)
    for client in ("requests", "qrmi"):  # control; the others have end-to-end tests of their own
        with started(client, values) as process:
            assert process.wait(60.0) == 0
    down(live.name)
    return values


def started(client: str, values: dict[str, str]) -> subprocess.Popen[bytes]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ}
    python, folder = (interpreter(), FOLDER) if client == "iqm" else (sys.executable, None)
    return subprocess.Popen([python, "-c", CLIENTS[client]], env={**kept, **values}, cwd=folder)


class Squatter(http.server.ThreadingHTTPServer):
    """A server at the address of a gateway, with TLS of its own or none. `seen`: all requests."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", int(url.rpartition(":")[2])), Requests)
        self.context, self.connections, self.seen = context, 0, list[str]()

    def handle_error(self, *_: object) -> None:
        pass  # handshakes that clients refuse


class Requests(http.server.BaseHTTPRequestHandler):
    server: Squatter

    def setup(self) -> None:
        self.server.connections += 1
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()  # the server knows the socket below alone

    def handle_one_request(self) -> None:
        self.server.seen.append(self.request.recv(65_536).decode("latin-1"))


@contextmanager
def squatter(url: str, context: ssl.SSLContext | None) -> Iterator[Squatter]:
    with Squatter(url, context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("client", "has_tls"),
    [("ibm", False), ("iqm", True), ("qrmi", True), ("requests", False), ("requests", True)],
)
def test_squatter_of_the_port_gets_no_token(
    client: str, has_tls: bool, handed_out: dict[str, str], tmp_path: Path
) -> None:
    context = other_authority(tmp_path) if has_tls else None
    with squatter(handed_out["IQM_SERVER_URL"], context) as server:
        with started(client, handed_out) as process:
            # Some clients try again for long.
            until(lambda: process.poll() is not None or server.connections > 1)
            process.kill()
        assert process.returncode != 0
    assert server.connections > 0
    assert not any("HTTP" in line or "uthorization" in line for line in server.seen), server.seen


def other_authority(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls.issue(folder, "other", "127.0.0.1"))
    return context


def test_control_unchecking_client_loses_token(handed_out: dict[str, str], tmp_path: Path) -> None:
    url, secret = handed_out["IQM_SERVER_URL"], handed_out["IQM_TOKEN"]
    header = {"Authorization": f"Bearer {secret}", "Connection": "close"}
    with squatter(url, other_authority(tmp_path)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", server.server_port)) as raw,
            context.wrap_socket(raw) as connection,
        ):
            head = "".join(f"{name}: {value}\r\n" for name, value in header.items())
            connection.sendall(f"GET /session HTTP/1.1\r\n{head}\r\n".encode())
        until(lambda: any(secret in text for text in server.seen))


def test_unix_socket_serves_programs_of_this_user(capfd: pytest.CaptureFixture[str]) -> None:
    with environment(gateway="127.0.0.1:0") as up:
        await_gateway(up.home)
        shell: Shell = shell_of(up.name, capfd)
        status = shell("gateway", "status", "--json").object
        path = Path(status["socket"])
        assert path == config.gateway_socket(up.home)
        assert path.parent.stat().st_mode & 0o077 == 0
        secret = shell("gateway", "tokens", "add", "--json").object["secret"]
        transport = httpx.HTTPTransport(uds=str(path))
        header = {"Authorization": f"Bearer {secret}"}
        with httpx.Client(transport=transport, base_url="http://gateway", headers=header) as http:
            assert http.get("/session").json()["role"] == "client"
        link = shell("web", "--json").object
        assert re.match(r"https://127\.0\.0\.1:\d+/login", link["url"])
        context = ssl.create_default_context(cafile=link["authority"])
        with httpx.Client(verify=context) as browser:
            assert browser.get(link["url"]).status_code == 302
        with socket.create_connection(("127.0.0.1", int(status["url"].rpartition(":")[2]))) as raw:
            raw.sendall(b"GET /session HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not raw.recv(100).startswith(b"HTTP")  # no answer in the clear
