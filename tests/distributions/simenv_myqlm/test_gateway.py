"""Requests against servers that misbehave, and arguments that cannot be used."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from failing import fails
from simenv_myqlm import gateway as gateways
from simenv_myqlm.errors import ConfigError, GatewayError, MissingMyQLMError, NoGatewayError
from simenv_myqlm.gateway import GatewayConnection

TOKEN = "simenv_secret"


class Server(http.server.ThreadingHTTPServer):
    """Gives the answers in their order: status and body; None hangs up. `declared`: the length that
    answers claim to have, in place of theirs; `pieces`: bytes that are sent at a time, 0: all;
    `cuts`: answers after which the connection ends, and whose length alone is `declared`."""

    declared = pieces = cuts = 0
    ended: threading.Event

    answers: list[tuple[int, bytes] | None]
    asked: list[tuple[str, str | None]]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers["Idempotency-Key"]))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(self.server.declared or len(answer[1])))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts, self.server.declared, self.close_connection = 0, 0, True
        pieces = self.server.pieces or len(answer[1]) or 1
        try:
            for first in range(0, len(answer[1]), pieces):
                self.wfile.write(answer[1][first : first + pieces])
                if self.server.pieces:
                    self.server.ended.wait(0.02)
        except OSError:  # the client has enough
            self.close_connection = True

    do_GET = do_POST  # noqa: N815

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.answers, made.asked, made.ended = [], [], threading.Event()
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.ended.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def connection(server: Server) -> Iterator[GatewayConnection]:
    url = f"http://127.0.0.1:{server.server_port}"
    with closing(GatewayConnection(url, TOKEN, retry_s=2.0)) as made:
        yield made


def test_a_submission_is_repeated_with_its_key(
    server: Server, connection: GatewayConnection
) -> None:
    server.answers = [None, (503, b"{}"), (201, b'{"id": "t-1"}')]
    assert connection.request("POST", "/tasks", {}, "k-1") == (201, {"id": "t-1"})
    assert server.asked == 3 * [("/api/v1/tasks", "k-1")]


def test_a_change_without_a_key_is_sent_once(server: Server, connection: GatewayConnection) -> None:
    server.answers = [(503, b'{"detail": "busy", "hint": "later"}')]
    error = fails(GatewayError, "busy", connection.request, "POST", "/tasks", {})
    assert (error.status, error.hint, len(server.asked)) == (503, "later", 1)
    server.answers = [None]
    fails(NoGatewayError, "no answer", connection.request, "POST", "/tasks", {})


def test_a_refusal_is_not_repeated(server: Server, connection: GatewayConnection) -> None:
    server.answers = [(400, b'{"detail": "no such option", "hint": "x", "code": "option"}')]
    error = fails(GatewayError, "no such option", connection.request, "POST", "/tasks", {}, "k")
    assert (error.code, error.status, len(server.asked)) == ("option", 400, 1)


def test_options_that_json_cannot_hold_are_refused(connection: GatewayConnection) -> None:
    for value in (float("nan"), {1, 2}, object()):
        body = {"noise": value}
        fails(ConfigError, "JSON cannot hold", connection.request, "POST", "/tasks", body, "k")


def test_answers_are_bounded_and_must_be_json(
    server: Server, connection: GatewayConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "MAX_ANSWER_BYTES", 1_000)
    server.answers = [(200, b'"' + b"x" * 1_000 + b'"'), (200, b"<html>"), (500, b"<html>"),
                      (302, b"")]  # fmt: skip
    for text in ("above 1000 bytes", "no JSON", "answered 500", "answered 302"):
        fails(GatewayError, text, connection.request, "GET", "/status")


def test_a_nested_answer_is_no_json(server: Server, connection: GatewayConnection) -> None:
    server.answers = [(200, b"[" * 10**5), (400, b"[" * 10**5)]
    for text in ("no JSON", "answered 400"):
        fails(GatewayError, text, connection.request, "GET", "/status")


def test_an_answer_that_ends_early_is_asked_again(
    server: Server, connection: GatewayConnection
) -> None:
    server.answers, server.declared = [(200, b"{}"), (200, b'{"a": 1}')], 100
    server.cuts = 1
    assert connection.request("GET", "/status") == (200, {"a": 1})


def test_an_endless_answer_is_read_to_the_bound(
    server: Server, connection: GatewayConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways, "MAX_ANSWER_BYTES", 1_000)
    server.declared, server.answers = 10**12, [(200, b"x" * 1_001)]
    fails(GatewayError, "above 1000 bytes", connection.request, "GET", "/status")


def test_an_answer_that_comes_in_drops_has_a_time(server: Server) -> None:
    server.answers, server.pieces = [(200, b" " * 2**20)], 1
    url = f"http://127.0.0.1:{server.server_port}"
    with closing(GatewayConnection(url, TOKEN, request_s=0.3, retry_s=0.0)) as slow:
        fails(NoGatewayError, "took more than 0.3 s", slow.request, "POST", "/tasks", {})


def test_nobody_answers(unused_port: int) -> None:
    other = GatewayConnection(f"http://127.0.0.1:{unused_port}", TOKEN, retry_s=0.1)
    error = fails(NoGatewayError, "ConnectionRefusedError", other.request, "GET", "/status")
    assert TOKEN not in f"{error}{error.__cause__}{error.__context__}{other}"


@pytest.fixture
def unused_port() -> int:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as made:
        return int(made.server_port)


@pytest.mark.parametrize(
    ("url", "token", "text"),
    [
        ("", TOKEN, "no address"), ("ftp://a", TOKEN, "cannot be used"),
        ("http://example.org", TOKEN, "not encrypted"), ("http://a:x", TOKEN, "cannot be used"),
        ("https://a/api/v1", TOKEN, "cannot be used"), ("https://u:p@a", TOKEN, "more than host"),
        ("https://a", "", "no token"), ("https://a", "x\r\nHost: b", "characters"),
        ("https://a", "x" * 10_000, "too long"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_used_are_refused(
    url: str, token: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SIMENV_URL", "SIMENV_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    error = fails(ConfigError, text, GatewayConnection, url, token)
    assert "u:p" not in str(error)
    assert error.hint


def test_token_of_a_file_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SIMENV_URL", f"http://localhost:{server.server_port}/")
    assert GatewayConnection(token_file=file)._token == TOKEN
    monkeypatch.setenv("SIMENV_TOKEN", "other")
    assert GatewayConnection()._token == "other"
    fails(ConfigError, "FileNotFoundError", GatewayConnection, token_file=tmp_path / "none")
    fails(ConfigError, "cannot be read", GatewayConnection, "https://a", "x", ca_file=file)


def test_without_myqlm_the_class_says_what_is_missing() -> None:
    import simenv_myqlm

    with pytest.raises(MissingMyQLMError, match="licence"):
        _ = simenv_myqlm.SimenvQPU
