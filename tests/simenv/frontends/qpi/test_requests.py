"""Requests of the C library, and their repetition, against a gateway that fails."""

import ctypes
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from brokers import short_folder
from qpi_calls import CallError, Config, Library, Observable
from qpi_programs import built

TOKEN = "t" * 43
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; measure q -> c;'
SWEEP = "OPENQASM 3.0; input float b; input float a; qubit q; bit c; c = measure q;"
NO_SERVICE = {"code": "no_service", "detail": "the service is away", "status": 503}
CONFIG, QUEUE_FULL, KEY_REFUSED, KEY_CONFLICT, NOT_FOUND = 3, 8, 10, 12, 13
SERVICE_LOST, PROTOCOL, RESULT_STORE, TIMEOUT, PENDING = 15, 17, 18, 22, 24


class Asked(NamedTuple):
    method: str
    path: str
    key: str | None
    body: dict[str, Any]


class CutOff(NamedTuple):
    """An answer of which these bytes come, and no more."""

    status: int
    sent: bytes


Answer = tuple[int, object] | CutOff | None  # status and content; None: the connection ends


class StandIn(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A gateway at a Unix socket, with the file by which programs find it. It accepts whatever is
    submitted, unless `answers` has something else for the next requests."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.asked: list[Asked] = []
        self.answers: list[Callable[[Asked], Answer] | Answer] = []
        (folder / "gateway").mkdir(exist_ok=True)
        path = str(folder / "s")
        super().__init__(path, Handler)
        file = {"format": 1, "url": "http://x", "pid": os.getpid(), "socket": path}
        (folder / "gateway" / "gateway.json").write_text(json.dumps(file))

    def handle_error(self, *_: object) -> None:
        """A client has gone."""

    def answer(self, asked: Asked) -> Answer:
        if asked.path == "/api/v1/status":
            return 200, {}
        self.asked.append(asked)
        if self.answers:
            given = self.answers.pop(0)
            return given(asked) if callable(given) else given
        if asked.path.endswith("/cancel"):
            return 200, {"outcome": "cancelled"}
        if asked.method == "POST":
            return 201, {"id": "t-1"}
        return 200, {"task": "t-1", "counts": {"11": 3, "00": 7}, "warnings": []}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def _handle(self) -> None:
        self.close_connection = True
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("wait=")[0].rstrip("?&")
        key = self.headers["Idempotency-Key"]
        found = self.server.answer(Asked(self.command, path, key, json.loads(body) if body else {}))
        if found is None:
            return
        status, content = found
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        is_cut = isinstance(found, CutOff)
        self.send_header("Content-Length", str(len(sent) + is_cut))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = is_cut

    do_GET = do_POST = _handle  # noqa: N815 - names of http.server

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def qpi(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(built(tmp_path_factory.mktemp("qpi")))


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMENV_SERVICE", str(path / "connection.json"))
        patch.setenv("SIMENV_TOKEN", TOKEN)
        yield path


@pytest.fixture
def gateway(folder: Path) -> Iterator[StandIn]:
    made = StandIn(folder)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def session(qpi: Library, gateway: StandIn) -> Iterator[ctypes.c_void_p]:
    config = Config(ctypes.sizeof(Config), None, None, None, 10.0, 0.6)
    made = qpi.made("qpi_init", ctypes.byref(config))
    yield made
    qpi.qpi_finalize(made)


def test_submit_whose_answer_is_lost_is_sent_again_under_its_key(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    gateway.answers = [None, (503, NO_SERVICE), (502, b"<html>"), (201, {"id": "t-9"})]
    job = qpi.run(session, BELL, qpi.options(shots=10))
    first, *_, last = posts = [each for each in gateway.asked if each.method == "POST"]
    assert len(posts) == 4
    assert first == last
    assert first.key is not None
    assert qpi.counts(job) == {"00": 7, "11": 3}
    qpi.qpi_job_free(qpi.run(session, BELL, qpi.options(shots=10)))
    assert gateway.asked[-2].key not in (None, first.key)
    qpi.qpi_job_free(qpi.run(session, BELL, qpi.options(idempotency_key=b"mine")))
    assert gateway.asked[-2].key == "mine"
    qpi.qpi_job_free(job)


def test_submit_without_an_answer_goes_on_in_later_calls(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    ended = threading.Event()

    def hang(_: Asked) -> None:
        ended.wait(60.0)

    gateway.answers = [hang]
    with pytest.raises(CallError) as failed:
        qpi.submit(session, BELL, qpi.options(shots=10), timeout_s=0.3)
    assert failed.value.status == TIMEOUT
    assert qpi.qpi_error_maybe_accepted() == 1
    job = ctypes.c_void_p(failed.value.job)
    assert job.value is not None
    qpi.call("qpi_wait", job, 60.0)
    first, second, *_ = gateway.asked
    assert first == second
    assert qpi.counts(job) == {"00": 7, "11": 3}
    qpi.qpi_job_free(job)
    ended.set()


def refusal(status: int, code: str, **more: object) -> Answer:
    return status, {"code": code, "detail": code, "status": status, **more}


REFUSED = refusal(401, "key_refused")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (refusal(429, "queue_full", retry_after_s=2.5), QUEUE_FULL), (REFUSED, KEY_REFUSED),
        (refusal(500, "error"), 1), ((404, b"<html>"), PROTOCOL),
    ],
)  # fmt: skip
def test_refusal_behind_a_lost_answer_keeps_the_submit_under_way(
    answer: Answer, status: int, qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    gateway.answers = [None, answer, answer]
    with pytest.raises(CallError) as failed:
        qpi.submit(session, BELL, qpi.options(shots=10))
    assert (failed.value.status, qpi.qpi_error_maybe_accepted()) == (status, 1)
    job = ctypes.c_void_p(failed.value.job)
    assert job.value is not None
    qpi.call("qpi_wait", job, 60.0)
    assert len({each.key for each in gateway.asked if each.method == "POST"}) == 1
    assert qpi.counts(job) == {"00": 7, "11": 3}
    qpi.qpi_job_free(job)


def test_refusal_that_may_have_been_accepted_keeps_the_submit_under_way(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    gateway.answers = [refusal(500, "error", maybe_accepted=True)] * 2
    with pytest.raises(CallError) as failed:
        qpi.submit(session, BELL, qpi.options(shots=10))
    assert (failed.value.job is not None, qpi.qpi_error_maybe_accepted()) == (True, 1)
    qpi.qpi_job_free(ctypes.c_void_p(failed.value.job))


def test_refusal_of_the_content_ends_a_submit_behind_a_lost_answer(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    gateway.answers = [None, *[refusal(409, "key_conflict")] * 2]
    with pytest.raises(CallError) as failed:
        qpi.submit(session, BELL, qpi.options(shots=10))
    assert (failed.value.status, failed.value.job) == (KEY_CONFLICT, None)
    assert qpi.qpi_error_maybe_accepted() == 0


def test_acceptance_in_one_thread_overrides_the_refusal_in_another(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    gateway.answers = [None, None]  # libcurl repeats the first, at a connection that was kept
    with pytest.raises(CallError) as failed:
        qpi.submit(session, BELL, qpi.options(shots=10), timeout_s=0.0)
    job = ctypes.c_void_p(failed.value.job)
    asked, refused = threading.Event(), threading.Event()

    def accept(_: Asked) -> Answer:
        asked.set()
        assert refused.wait(60.0)
        return 201, {"id": "t-1"}

    gateway.answers = [accept, refusal(409, "key_conflict")]
    statuses: list[int] = []
    waiting = threading.Thread(target=lambda: statuses.append(qpi.qpi_wait(job, 60.0)))
    waiting.start()
    assert asked.wait(60.0)
    assert qpi.qpi_wait(job, 60.0) == KEY_CONFLICT
    refused.set()
    waiting.join()
    assert statuses == [0]
    assert qpi.counts(job) == {"00": 7, "11": 3}
    qpi.qpi_job_free(job)


def test_result_that_cannot_be_read_now_is_read_later(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    job = qpi.submit(session, BELL, qpi.options(shots=10))
    gateway.answers = [refusal(503, "result_store", retryable=True)]
    with pytest.raises(CallError) as failed:
        qpi.call("qpi_wait", job, 60.0)
    assert failed.value.status == RESULT_STORE
    gateway.answers = [refusal(404, "not_found")]  # of the result, not of the task
    with pytest.raises(CallError) as failed:
        qpi.call("qpi_wait", job, 60.0)
    assert failed.value.status == NOT_FOUND
    qpi.call("qpi_wait", job, 60.0)
    assert qpi.counts(job) == {"00": 7, "11": 3}
    qpi.qpi_job_free(job)
    job = qpi.submit(session, BELL, qpi.options(shots=10))
    gateway.answers = [refusal(404, "not_found")] * 2
    for _ in range(2):  # it has ended
        assert qpi.qpi_wait(job, 60.0) == NOT_FOUND
    assert not gateway.answers
    qpi.qpi_job_free(job)


def test_status_of_a_row_tells_that_the_token_is_refused(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    job = qpi.submit(session, BELL, qpi.options(shots=10))
    gateway.answers = [REFUSED]
    assert qpi.qpi_poll(job) == 0
    assert qpi.qpi_row_status(job, ctypes.c_size_t(0)) == KEY_REFUSED
    time.sleep(0.02)
    gateway.answers = [(202, {})]
    assert qpi.qpi_row_status(job, ctypes.c_size_t(0)) == PENDING
    qpi.call("qpi_wait", job, 60.0)
    asked = len(gateway.asked)
    assert qpi.counts(job) == {"00": 7, "11": 3}
    assert len(gateway.asked) == asked
    qpi.qpi_job_free(job)


def test_cancel_asks_for_all_parts_and_tells_the_first_error(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    parts = [{"id": f"t-{part}", "first": part, "bindings": 1} for part in range(3)]
    gateway.answers = [(201, {"bindings": 3, "tasks": parts})]
    job = qpi.submit(session, SWEEP, qpi.options(shots=4), np.zeros((3, 2)))
    gateway.answers = [refusal(404, "not_found")]
    with pytest.raises(CallError) as failed:
        qpi.call("qpi_cancel", job, ctypes.c_double(60.0))
    assert failed.value.status == NOT_FOUND
    assert [each.path for each in gateway.asked[1:]] == [
        f"/api/v1/tasks/t-{part}/cancel" for part in range(3)
    ]
    qpi.qpi_job_free(job)


def test_pages_end_with_the_deadline_and_are_kept(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    rows = [{"task": "t-1", "counts": {"0": k}, "warnings": []} for k in range(4)]

    def page(asked: Asked) -> Answer:
        first = int(asked.path.partition("first=")[2].partition("&")[0])
        time.sleep(0.1)
        return 200, {"first": first, "results": rows[first : first + 1]}

    tasks = [{"id": "t-1", "first": 0, "bindings": 4}]
    gateway.answers = [(201, {"bindings": 4, "tasks": tasks}), *[page] * 4]
    job = qpi.submit(session, SWEEP, qpi.options(shots=4), np.zeros((4, 2)))
    statuses = [qpi.qpi_wait(job, 0.05) for _ in range(4)]
    assert statuses == [TIMEOUT] * 3 + [0]
    assert [qpi.counts(job, k) for k in range(4)] == [row["counts"] for row in rows]
    qpi.qpi_job_free(job)


def test_child_of_the_process_is_told_to_begin_its_own_session(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    job = qpi.submit(session, BELL, qpi.options(shots=10))
    asked = len(gateway.asked)
    child = os.fork()
    if child == 0:
        status = qpi.qpi_wait(job, 1.0)
        is_told = b"qpi_init in the child" in qpi.qpi_error_hint()
        qpi.qpi_finalize(session)
        os._exit(status if is_told else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert len(gateway.asked) == asked
    qpi.call("qpi_wait", job, 60.0)
    qpi.qpi_job_free(job)


def test_connections_are_closed_in_programs_that_the_process_starts(
    qpi: Library, gateway: StandIn, folder: Path
) -> None:
    made = qpi.made("qpi_init", None)
    connections = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError), socket.fromfd(number, socket.AF_UNIX, socket.SOCK_STREAM) as found:
            if found.getpeername() == str(folder / "s"):
                connections.append(number)
    assert [os.get_inheritable(number) for number in connections] == [False]
    qpi.qpi_finalize(made)


def test_answer_that_is_cut_off_is_asked_for_again(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    for sent in (b'{"id', b'{"id": "t-1", "retry_after_s', b"", b'{"a": "' + b"x" * 100_000):
        gateway.answers = [CutOff(201, sent), CutOff(429, sent), (201, {"id": "t-1"})]
        gateway.answers += [CutOff(200, sent)]
        job = qpi.run(session, BELL, qpi.options(shots=10))
        assert qpi.counts(job) == {"00": 7, "11": 3}
        qpi.qpi_job_free(job)


def test_silence_ends_with_the_patience_and_no_later_than_the_deadline(
    qpi: Library, gateway: StandIn, folder: Path, session: ctypes.c_void_p
) -> None:
    job = qpi.submit(session, BELL, qpi.options(shots=10))
    (folder / "s").unlink()
    gateway.answers = [None]  # the end of the open connection
    for timeout_s, expected in ((0.2, TIMEOUT), (60.0, SERVICE_LOST), (-1.0, SERVICE_LOST)):
        begun = time.monotonic()
        with pytest.raises(CallError) as failed:
            qpi.call("qpi_wait", job, timeout_s)
        assert failed.value.status == expected
        assert time.monotonic() - begun < 10.0
    qpi.qpi_job_free(job)


def test_refusals_that_ask_for_little_time_are_waited_for(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    full = {"code": "queue_full", "detail": "too many requests", "status": 429}
    gateway.answers = [(429, {**full, "retry_after_s": 0.01})] * 3
    qpi.qpi_job_free(qpi.run(session, BELL, qpi.options(shots=10)))
    gateway.answers = [(429, {**full, "retry_after_s": 2.5})] * 2  # with the result, and without
    with pytest.raises(CallError, match="too many requests") as failed:
        qpi.submit(session, BELL, qpi.options(shots=10))
    assert (failed.value.status, failed.value.job) == (QUEUE_FULL, None)
    assert qpi.qpi_error_retry_after_s() == 2.5
    gateway.answers = [(201, {"id": "t-1"}), (429, {**full, "retry_after_s": 1.0})]
    qpi.qpi_job_free(qpi.run(session, BELL, qpi.options(shots=10)))  # a wait waits


def test_body_has_options_values_by_name_and_sums_with_each_label_once(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    labels = (ctypes.c_char_p * 4)(b"Z", b"X", b"Z", b"Y")
    numbers = (ctypes.c_double * 4)(0.1, -1e-300, 0.2, 1 / 3)
    observable = Observable(labels, numbers, 4)
    options = qpi.all_options(
        shots=0, has_seed=1, seed=2**64 - 1, outputs=2, single_precision=1, priority=-3,
        observables=ctypes.addressof(observable), num_observables=1, run_timeout_s=0.5,
    )  # fmt: skip
    values = np.array([[1.0, 0.1], [2.0, -0.2], [3.0, 1e22]])
    gateway.answers = [(201, {"bindings": 3, "tasks": [{"id": "t-1", "first": 0, "bindings": 3}]})]
    job = qpi.submit(session, SWEEP + ' // "ä"\t\\', options, values)
    (asked,) = gateway.asked
    assert asked.path == "/api/v1/sweeps"
    assert asked.body == {
        "program": SWEEP + ' // "ä"\t\\', "shots": None, "seed": 2**64 - 1,
        "outputs": ["probabilities", "expectation"], "precision": "single", "priority": -3,
        "observables": [{"Z": 0.1 + 0.2, "X": -1e-300, "Y": 1 / 3}], "run_timeout_s": 0.5,
        "parameter_values": {"b": [1.0, 2.0, 3.0], "a": [0.1, -0.2, 1e22]},
    }  # fmt: skip
    qpi.qpi_job_free(job)


def test_page_that_is_too_large_is_asked_for_in_smaller_ones(
    qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    rows = [{"task": "t-1", "counts": {"0": k, "1": 4 - k}, "warnings": []} for k in range(4)]
    large = {"code": "limit", "detail": "a smaller `limit`", "status": 413}

    def page(asked: Asked) -> Answer:
        first, limit = (int(part.rpartition("=")[2]) for part in asked.path.split("&"))
        if limit > 2:
            gateway.answers.insert(0, page)
            return 413, large
        if first + limit < len(rows):
            gateway.answers.insert(0, page)
        return 200, {"first": first, "results": rows[first : first + limit]}

    gateway.answers = [
        (201, {"bindings": 4, "tasks": [{"id": "t-1", "first": 0, "bindings": 4}]}),
        page,
    ]
    job = qpi.run(session, SWEEP, qpi.options(shots=4), np.zeros((4, 2)))
    assert [qpi.counts(job, k) for k in range(4)] == [row["counts"] for row in rows]
    qpi.qpi_job_free(job)


@pytest.mark.parametrize(
    "answer",
    [
        (201, b"no JSON"), (201, {}), (201, {"id": "../x"}), (404, b"<html>"),
        (200, {"task": "t-1", "counts": []}),
    ],
)  # fmt: skip
def test_answer_that_is_not_of_the_api_is_refused(
    answer: Answer, qpi: Library, gateway: StandIn, session: ctypes.c_void_p
) -> None:
    gateway.answers = [answer] * 2  # with the result, and without
    with pytest.raises(CallError) as failed:
        qpi.submit(session, BELL, qpi.options(shots=10))
    assert (failed.value.status, failed.value.job) == (PROTOCOL, None)


def test_start_without_a_gateway_names_the_command_that_starts_one(
    qpi: Library, folder: Path
) -> None:
    file = {"format": 1, "url": "http://x", "pid": 2**22 + 1, "socket": str(folder / "s")}
    for content in (None, "{", json.dumps({**file, "format": 2}), json.dumps(file)):
        if content is not None:
            (folder / "gateway").mkdir(exist_ok=True)
            (folder / "gateway" / "gateway.json").write_text(content)
        with pytest.raises(CallError, match=r"^14: no gateway runs for"):
            qpi.made("qpi_init", None)
        assert b"simenv up --gateway" in qpi.qpi_error_hint()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(10.0)
        yield made


def test_url_of_this_machine_is_asked_without_a_proxy(
    qpi: Library, folder: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
    listener.settimeout(0.2)
    for host in (b"127.0.0.1:1", b"localhost:1", b"[::1]:1"):
        config = Config(ctypes.sizeof(Config), None, b"http://" + host, None, 0.1, 0.1)
        with pytest.raises(CallError):
            qpi.made("qpi_init", ctypes.byref(config))
        with pytest.raises(TimeoutError):
            listener.accept()
    config.url = b"http://simenv.invalid:1"  # to which the proxy leads
    with pytest.raises(CallError):
        qpi.made("qpi_init", ctypes.byref(config))
    listener.accept()[0].close()


@pytest.mark.parametrize(
    "url", [b"http://u:p@h", b"http://h/path", b"http://h?q", b"http://", b"http://:80", b"ftp://h"]
)
def test_url_of_more_than_host_and_port_is_refused(url: bytes, qpi: Library, folder: Path) -> None:
    config = Config(ctypes.sizeof(Config), None, url, None, 0.1, 0.1)
    with pytest.raises(CallError, match="the URL is") as failed:
        qpi.made("qpi_init", ctypes.byref(config))
    assert failed.value.status == CONFIG


def test_url_and_token_need_no_home(
    qpi: Library, folder: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "SIMENV_HOME", "SIMENV_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SIMENV_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
    config = Config(ctypes.sizeof(Config), None, None, None, 0.3, 0.3)
    with pytest.raises(CallError):
        qpi.made("qpi_init", ctypes.byref(config))
    listener.accept()[0].close()


def test_token_cannot_add_headers(
    qpi: Library, gateway: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMENV_TOKEN", "a\r\nX: b")
    with pytest.raises(CallError) as failed:
        qpi.made("qpi_init", None)
    assert failed.value.status == CONFIG
    assert not gateway.asked


def test_key_cannot_add_headers(qpi: Library, gateway: StandIn, session: ctypes.c_void_p) -> None:
    for key in (b"a\r\nX: b", b" a", b"a ", b"\xc3\xa4", b"~a", b"", b"a" * 257):
        with pytest.raises(CallError, match=r"^2: idempotency_key"):
            qpi.submit(session, BELL, qpi.options(idempotency_key=key))
    assert not gateway.asked
