"""Hostile clients, and what they cost the service, the gateway, the broker and other clients."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import pwd
import re
import secrets
import socket
import tempfile
import time
import urllib.request
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil

import simenv
from bench.harness import SEED, Report, Times, benchmark, installed, probed, timed, timed_s
from bench.harness.environments import (
    HttpConnection,
    address_of,
    gateway_status,
    served,
    service_process,
)  # fmt: skip
from bench.service.frontends import PREFIX, encoded_job
from simenv.client.connection.broker import find_socket
from simenv.errors import SimenvError
from simenv.model import PoolSpec, Program
from simenv.wire import munge
from simenv.wire.messages import identity
from simenv.wire.messages.identity import Denial
from testbed import attackers, attacks
from testbed.attackers import (
    FORGED,
    FORGERS,
    HANDSHAKERS,
    READY_S,
    REPLY_BYTES,
    SILENT,
    Place,
)
from testbed.hostile_files import serve
from testbed.http_requests import Request
from testbed.keys import remote_key
from testbed.munged import munged, program
from testbed.small_disk import tmpfs
from testbed.typed_messages import HONEST, POOL, exchange
from testbed.waiting import until

METHODS = multiprocessing.get_context("spawn")
ASK_S, CONNECT_S = 0.002, 0.02  # between two questions of good clients, two new clients
LOOK_S, PAUSE_S = 0.05, 0.005


@contextmanager
def _watched(
    process: psutil.Process, questions: Mapping[str, Callable[[], object]],
    errors: tuple[type[Exception], ...] = (), pause_s: float = PAUSE_S,
) -> Iterator[tuple[Times, list[int]]]:  # fmt: skip
    """Yield the seconds of questions that are asked meanwhile, and a process's memory in bytes."""
    peaks = [process.memory_info().rss]
    look = {"memory": lambda: peaks.append(process.memory_info().rss)}
    with probed(look, LOOK_S), probed(questions, pause_s, errors) as times:
        yield times, peaks


def _run(process: BaseProcess) -> None:
    process.start()
    process.join()


# --- floods of handshakes and of credentials ------------------------------------------------------


def _flooded(
    questions: Mapping[str, Callable[[], object]],
    connect: Callable[[], AbstractContextManager[object]],
    flood: Callable[..., None], args: tuple[object, ...], count: int,
) -> tuple[Times, list[float], float]:  # fmt: skip
    """Ask questions repeatedly, and connect new clients, while `count` processes run `flood` with
    `args` and a barrier, at which it waits before it begins. Return the seconds of answers and of
    connections, and those of the flood."""
    ready = METHODS.Barrier(count + 1)
    attackers = [METHODS.Process(target=flood, args=(*args, ready)) for _ in range(count)]
    connects: list[float] = []
    with probed(questions, ASK_S) as times:
        for attacker in attackers:
            attacker.start()
        ready.wait(READY_S)
        begin = time.perf_counter()
        while any(attacker.is_alive() for attacker in attackers) or not connects:
            start_s = time.perf_counter()
            with connect():
                connects.append(time.perf_counter() - start_s)
            time.sleep(CONNECT_S)
        for attacker in attackers:
            attacker.join()
        took_s = time.perf_counter() - begin
    for name, each in times.items():
        p50, p99, most = np.percentile(each, [50, 99, 100]) * 1e3
        print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {most:.1f} ms")
    return times, connects, took_s


@benchmark(handshakes=(10_000, 1_000))
def handshake_flood(report: Report, options: Namespace) -> None:
    """Latency of clients during 10,000 handshakes a minute with unknown keys.

    Four processes connect with keys that the service does not know, each over many connections at
    once; each handshake runs to its refusal. Meanwhile a good client over TCP and one through the
    local socket repeatedly ask for an answer, and new good clients connect.
    """
    with (
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as near,
        tempfile.TemporaryDirectory() as folder,
    ):
        file, user_key = remote_key(near, "good", folder)
        with simenv.connect(service=file) as far:
            questions = {name: partial(each.cancel, ["t-0"])
                         for name, each in (("socket", near), ("tcp", far))}  # fmt: skip
            args = user_key.address, user_key.server_key, -(-options.handshakes // HANDSHAKERS)
            connect = partial(simenv.connect, service=file)
            flood = attackers.handshakes
            times, connects, took_s = _flooded(questions, connect, flood, args, HANDSHAKERS)
    print(f"{options.handshakes / took_s:.0f} refused a second")
    report.seconds("worst_ms", max(max(each) for each in times.values()))
    report.p99_ms("connect_ms", connects)


OTHER = msgspec.structs.replace(FORGED, environment="other")


@benchmark(requests=(10_000, 1_000))
def forged_credentials(report: Report, options: Namespace) -> None:
    """Latency of users during 10,000 requests for certificates that are garbage or forged.

    Two processes, with 32 connections each at once, send the credential broker lines that are no
    requests, requests for another environment, of users without an account, and of 200 users whom
    this host does not have; a quarter are valid ones of users of this host without an account of
    the environment. A third process holds more silent connections open than the broker keeps. Then,
    where munged is installed, the same at its TCP listener: credentials that are forged, of another
    site, or used before. Meanwhile a user with a certificate asks the service for answers, and new
    clients of that user get certificates and connect. A request counts if the broker refused it or
    closed the connection. Only root can be so many.
    """
    if os.getuid() != 0:
        raise SystemExit("forged_credentials: only root can send requests of other users")
    user = pwd.getpwuid(0).pw_name
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ["SIMENV_BROKERS"] = name
        lines = [b"x" * 4_000, b'{"format":', b"\0" * 64, *map(identity.line, (FORGED, OTHER))]
        with simenv.local(workers=1, identity={"use": "local", "users": [user]}):
            place = str(find_socket(0, "local"))
            _forged(report, "", "local:0/local", place, lines, options.requests)
        if program() is None:
            print("MUNGE: munged is not installed here (Debian package munge): not attacked")
            return
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        settings = {"use": "munge", "users": [user], "listen": f"tcp://127.0.0.1:{port}"}
        with munged(folder, "other") as other:
            os.environ["SIMENV_MUNGE_SOCKET"] = str(other)
            foreign = munge.encode(identity.line(FORGED), 0)
        with munged(folder) as path:
            os.environ["SIMENV_MUNGE_SOCKET"] = str(path)
            with simenv.local(workers=1, listen="tcp://lo:0", identity=settings):
                service, at = f"munge:0@127.0.0.1:{port}/local", ("127.0.0.1", port)
                _forged(report, "munge_", service, at, _used(at, foreign), options.requests)


def _used(place: tuple[str, int], foreign: bytes) -> list[bytes]:
    """Return credentials that the broker must refuse: the last one was used before."""
    request = msgspec.structs.replace(FORGED, nonce=secrets.token_hex(16))
    used, unused = (munge.encode(identity.line(request), 0) for _ in range(2))
    with socket.create_connection(place, READY_S) as peer:
        peer.sendall(used + b"\n")
        reply = identity.reply_of(munge.decode(peer.recv(REPLY_BYTES).rstrip(b"\n")).payload)
    assert not isinstance(reply, Denial), reply
    middle = len(unused) // 2
    other = b"A" if unused[middle : middle + 1] != b"A" else b"B"
    flipped = unused[:middle] + other + unused[middle + 1 :]
    return [b"MUNGE:AwQFAAA=:", flipped, foreign, used]


def _forged(
    report: Report, prefix: str, service: str, place: Place, lines: Sequence[bytes], requests: int
) -> None:
    """Attack a broker, and report under `prefix`."""
    counts, opened = METHODS.Array("q", 3), METHODS.Value("q", 0)
    holder = METHODS.Process(target=attackers.hold, args=(place, opened))
    with simenv.connect(service=service) as client:
        questions = {"answer": partial(client.cancel, ["t-0"])}
        args = place, lines, -(-requests // FORGERS), counts
        connect = partial(simenv.connect, service=service)
        holder.start()
        try:
            held = lambda: opened.value >= SILENT or not holder.is_alive()  # noqa: E731
            until(held, READY_S, message="holder")
            assert holder.is_alive()
            times, connects, took_s = _flooded(questions, connect, attackers.forge, args, FORGERS)
        finally:
            holder.terminate()
            holder.join()
    refused, closed, failed = counts[:]
    of = "credentials of MUNGE" if prefix else "requests"
    print(f"{refused + closed} {of} in {took_s:.1f} s: {refused} refused, {closed} closed;"
          f" {failed} more did not connect; {opened.value} silent connections opened")  # fmt: skip
    if refused + closed < requests:
        raise SystemExit(f"forged_credentials: of {requests} {of} too few came through")
    report.p99_ms(f"{prefix}answer_p99_ms", times["answer"])
    report.p99_ms(f"{prefix}connect_p99_ms", connects)


# --- messages to the service ----------------------------------------------------------------------


@benchmark(seconds=(10.0, 3.0), only=attacks.ATTACKS)
def hostile_client(report: Report, options: Namespace) -> None:
    """Effect of a hostile client with a valid key on the service and on other clients.

    Each scenario is one attack with a key of role client over CURVE, in a process of its own
    (`testbed.attacks`). Meanwhile a good client with another key and one on the service's
    machine repeatedly ask for an answer; after a while the attacker's key is revoked.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or attacks.ATTACKS:
            if name in attacks.ON_SMALL_DISK and os.geteuid():
                print(f"\n{name}: left out, only root can mount a small disk")
            else:
                _attacked(report, name, options.seconds, Path(folder))


def _attacked(report: Report, name: str, seconds: float, folder: Path) -> None:
    """Run one scenario against a service of its own."""
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if name in attacks.ON_SMALL_DISK:
            disk = stack.enter_context(tmpfs(folder / f"disk-{name}", 512 * 2**20))
            options = {"state_dir": str(disk), "results": {"keep_free_gib": 0.2}}
        near = stack.enter_context(simenv.local(workers=1, listen="tcp://127.0.0.1:0", **options))
        service = service_process(near)
        good_file, _ = remote_key(near, f"good-{name}", folder)
        hostile_file, user_key = remote_key(near, f"bad-{name}", folder)
        with simenv.connect(service=hostile_file) as hostile_client:
            targets = attacks.prepare(hostile_client)
        results: Queue[Counter[str]] = METHODS.Queue()
        args = (name, user_key, seconds, targets, results)
        process = METHODS.Process(target=attacks.run, args=args)
        far = stack.enter_context(simenv.connect(service=good_file))
        questions = {where: partial(client.cancel, ["t-0"])
                     for where, client in (("here", near), ("far", far))}  # fmt: skip
        with _watched(service, questions, (SimenvError,)) as (times, peaks):
            process.start()
            process.join(seconds * 0.6)
            revoke_s = timed_s(lambda: near.keys.revoke(f"bad-{name}"))
            codes = results.get(timeout=60.0 + attacks.ANSWERS_S + 2 * seconds)
            process.join()
        lives = service.is_running() and bool(near.status())
    print(f"\n{name}: refusals: {dict(codes.most_common())}")
    report.at_least("lives", lives, name)
    report.at_most("peak_gib", max(peaks) / 2**30, name)
    for where, each in times.items():
        report.p99_ms("p99_ms", each, f"{name}, {where}")
    report.seconds("revoke_s", revoke_s, name)


@benchmark(seed=1, messages=(100_000, 10_000))
def typed_fuzz(report: Report, options: Namespace) -> None:
    """Messages of every type with edge values over real connections: survival and answer times.

    Messages of clients, administrators, gateways and workers are generated from the types of the
    protocol (`testbed.typed_messages`), and sent over a local stream and over CURVE with a
    key of each role, eight in flight on each connection. Meanwhile an honest client runs circuits.
    """
    pools = (PoolSpec(name=POOL), PoolSpec(name=HONEST))
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(pools=pools, slots=2, listen="tcp://127.0.0.1:0") as client,
    ):
        before = client.status()
        send = partial(exchange, client, Path(folder), options.messages, options.seed)
        took_s, found = timed(send)
        after, faults = client.status(), client.metrics().service.internal_errors
    print(f"{found.sent} messages in {took_s:.0f} s; answers: {found.answers.most_common(12)}")
    slowest = sorted(found.longest_s.items(), key=lambda item: -item[1])[:5]
    print("slowest: " + ", ".join(f"{kind} {1e3 * each:.0f} ms" for kind, each in slowest))
    same = (after.pid, after.epoch) == (before.pid, before.epoch)
    right = all(set(counts) <= {"00", "11"} for counts in found.bells)
    report.at_least("lives", same and right)
    report.at_most("internal_errors", faults)
    report.seconds("longest_s", slowest[0][1])


MATRIX_QUBITS = 9
JOB_GATES = 640_000  # whose QPY takes 7 MiB in a job, compressed


@benchmark(messages=(200, 30))
def refused_messages(report: Report, options: Namespace) -> None:
    """Memory of the service after large messages of a client that were refused.

    A client with a key sends messages of up to 7 MiB over CURVE and waits for each refusal: one
    series for each path that a message takes (`BODIES` of `testbed.attacks`). Then a user of
    the gateway sends tasks for an unknown device, and jobs as qiskit-ibm-runtime encodes them for a
    missing backend. The figure is the growth of the service's memory in a series, and of the
    gateway's in the last two.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as client,
    ):
        _, user_key = remote_key(client, "mallory", folder)
        for name in attacks.BODIES:
            service = service_process(client)
            growth = attacks.growth_bytes(service, user_key, name, options.messages)
            report.at_most("growth_mib", growth / 2**20, f"{name}, service")
    with served(1) as (client, url, (secret,)):
        gateway = psutil.Process(gateway_status("bench")["pid"])
        processes = {"service": service_process(client), "gateway": gateway}
        paths: dict[str, tuple[str, Callable[[int], bytes]]]
        paths = {"http_task": ("/api/v1/tasks", _task)}
        if installed("qiskit_ibm_runtime"):
            paths["http_job"] = f"{PREFIX}/jobs", _jobs()
        else:
            reason = "qiskit-ibm-runtime is not installed"
            report.not_measured("growth_mib", reason, "http_job, service")
        http = HttpConnection(url, secret)
        for name, (path, body) in paths.items():
            before = {}
            for number in range(attacks.WARM_UP_MESSAGES + options.messages):
                if number == attacks.WARM_UP_MESSAGES:
                    before = {key: each.memory_info().rss for key, each in processes.items()}
                http.request("POST", path, body(number), status=404)
            for key, each in processes.items():
                growth = each.memory_info().rss - before[key]
                report.at_most("growth_mib", growth / 2**20, f"{name}, {key}")


def _task(number: int) -> bytes:
    """Return a task of 5.6 MiB, with a matrix: the gateway refuses as many gates by their time."""
    matrix = np.diag(np.exp(1e-6j * number * np.arange(1 << MATRIX_QUBITS)))
    table = np.array([[MATRIX_QUBITS, 0, 0], [1, 1, 0]], np.uint16)
    places = np.array([*range(MATRIX_QUBITS), 0], np.uint16)
    ops = np.array([0, 1], np.uint16)
    packed = Program(
        2, MATRIX_QUBITS, 1, (("c", 1),), ("unitary", "measure"), table.tobytes(), ops.tobytes(),
        places.tobytes(), bytes(2), b"", matrices=(matrix.tobytes(),),
    ).packed()  # fmt: skip
    text = base64.b64encode(packed).decode()
    return json.dumps({"packed": text, "shots": 1, "device": f"none-{number}"}).encode()


def _jobs() -> Callable[[int], bytes]:
    """Return the function that gives the body of a job, a valid one but for its backend."""
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(1)
    for angle in np.random.default_rng(1).random(JOB_GATES).tolist():
        circuit.ry(angle, 0)
    circuit.measure_all()
    job = json.loads(encoded_job([circuit]))
    return lambda number: json.dumps(job | {"backend": f"none-{number}"}).encode()


# --- requests to the gateway ----------------------------------------------------------------------


@benchmark(requests=(50_000, 1_000), connections=(1_000, 400), seconds=(30.0, 5.0))
def hostile_http(report: Report, options: Namespace) -> None:
    """Hostile HTTP clients: what mutated requests and slow connections cost the gateway and others.

    First a client with two tokens sends mutated requests to every route
    (`testbed.http_requests`); then connections from four addresses send their headers a byte
    a second, and are opened again when the gateway closes them. Meanwhile a good client with a
    connection that is kept open asks for the pools.
    """
    with served(3) as (_, url, tokens):
        gateway = psutil.Process(gateway_status("bench")["pid"])
        address, good = address_of(url), HttpConnection(url, tokens[0])
        answers: Queue[tuple[Counter[int], list[tuple[int, Request]]]] = METHODS.Queue()
        arguments = {attackers.mutated: (address, tokens[1:], options.requests, answers),
                     attackers.slow: (address, options.connections, options.seconds)}  # fmt: skip
        most = 0
        for work, args in arguments.items():
            ask = {"good": partial(good.request, "GET", "/api/v1/pools")}
            with _watched(gateway, ask) as (times, peaks):
                process = METHODS.Process(target=work, args=args)
                process.start()
                if work is attackers.mutated:
                    statuses, failures = answers.get()
                process.join()
            most = max(most, *peaks)
            report.p99_ms("p99_ms", times["good"], work.__name__)
        good.close()
    print(f"statuses: {dict(statuses.most_common())}")
    for status, request in failures[:3]:
        print(status, request.data[:500])
    report.at_most("failed", len(failures))
    report.at_most("peak_gib", most / 2**30)


SETTLE_S = 10.0
LONG = (
    'OPENQASM 3; include "stdgates.inc"; qubit[20] q; bit[20] c; reset q; '
    "for int i in [0:20000] { h q; cx q[0], q[1]; } c = measure q;"
)


class Hostility(NamedTuple):
    """A function, which runs in a process of its own, and its arguments after address and token."""

    work: Callable[..., None]
    arguments: tuple[object, ...]
    reads_results: bool = False  # from their files, as long as its connections are open


@benchmark(connections=(260, 60), mib=(60, 8), qubits=(22, 20), seconds=(8.0, 2.0))
def hostile_answers(report: Report, options: Namespace) -> None:
    """Clients that do not read their answers, or ask for large ones: what they cost the others.

    Each attack runs in a process of its own, with one token or none, while another user asks for
    the pools over a new connection each time: connections that ask for a file of the page again and
    again; that wait for one task; that ask for a stored job; large bodies of JSON of three shapes;
    a large job; downloads of a state vector. Judged are that user's answers, the growth of the
    gateway's memory, and the descriptors that it still has when the clients have left.
    """
    with served(2) as (_, url, tokens):
        gateway = psutil.Process(gateway_status("bench")["pid"])

        def ask() -> None:
            connection = HttpConnection(url, tokens[0])
            connection.request("GET", "/api/v1/pools")
            connection.close()

        growths, left = [], []
        for name, each in _hostilities(url, tokens[1], options).items():
            before, downloads = _descriptors(gateway)[0], [0]
            args = (address_of(url), tokens[1], *each.arguments)
            process = METHODS.Process(target=each.work, args=args)
            look = {"downloads": lambda seen=downloads: seen.append(_descriptors(gateway)[1])}
            with (
                probed(look, LOOK_S),
                _watched(gateway, {"good": ask}, pause_s=0.02) as (times, peaks),
            ):
                _run(process)
            report.p99_ms("p99_ms", times["good"], name)
            growths.append((max(peaks) - peaks[0]) / 2**20)
            print(f"{name}: {growths[-1]:.0f} MiB more, {max(downloads)} downloads at once")
            if each.reads_results and not max(downloads):
                raise SystemExit(f"{name}: no download was under way")
            end_s = time.monotonic() + SETTLE_S  # it sees to the ends of the connections
            while (more := _descriptors(gateway)[0] - before) > 0 and time.monotonic() < end_s:
                time.sleep(LOOK_S)
            left.append(max(0, more))
    report.at_most("memory_mib", max(growths))
    report.at_most("descriptors", max(left))


def _hostilities(url: str, token: str, options: Namespace) -> dict[str, Hostility]:
    """Prepare what is asked for; return the attacks by name."""
    http = HttpConnection(url, token)
    page = http.request("GET", "/ui/").decode()
    file = re.findall(r"/ui/static/[^\"]+", page)[0].rpartition("/")[0] + "/uplot.js"

    def posted(path: str, **body: object) -> str:
        return str(json.loads(http.request("POST", path, json.dumps(body).encode()))["id"])

    gates = "".join(f"ry(0.{k}1) q[{k}];" for k in range(options.qubits))
    text = f'OPENQASM 2.0; include "qelib1.inc"; qreg q[{options.qubits}]; {gates}'
    exact = {"shots": None, "outputs": "statevector", "engine": "statevector"}
    state = posted("/api/v1/tasks", program=text, **exact)
    held, result = (f"/api/v1/tasks/{{}}/result{query}" for query in ("?wait=60", ""))
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/x-npz"}
    asked = urllib.request.Request(url + held.format(state), headers=headers)
    print(f"a download has {len(urllib.request.urlopen(asked).read()) / 2**20:.0f} MiB")
    long = posted("/api/v1/tasks", program=LONG, shots=10**6)
    size, many, seconds = options.mib * 2**20, options.connections, options.seconds
    number = posted(f"{PREFIX}/jobs", **attackers.large_job(size // 2))
    http.close()
    return {
        "unread files": Hostility(attackers.unread, (file, many, seconds, 60)),
        "held answers": Hostility(attackers.unread, (held.format(long), many, seconds)),
        "unread jobs": Hostility(attackers.unread, (f"{PREFIX}/jobs/{number}", 60, seconds)),
        "unread downloads": Hostility(attackers.unread, (result.format(state), 40, seconds), True),
        "large JSON": Hostility(attackers.large, ("/api/v1/tasks", size)),
        "large jobs": Hostility(attackers.large, (f"{PREFIX}/jobs", size)),
    }


def _descriptors(gateway: psutil.Process) -> tuple[int, int]:
    """Return how many sockets and files are open, or result files are mapped, pipes to processes of
    users apart; and how many of these are result files."""
    links = []
    for each in Path(f"/proc/{gateway.pid}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            links.append(os.readlink(each))
    mapped = Path(f"/proc/{gateway.pid}/maps").read_text().count(".h5\n")
    opened = sum(not link.startswith(("pipe:", "anon_inode:")) for link in links)
    return opened + mapped, mapped + sum(link.endswith(".h5") for link in links)


# --- the folder of a worker -----------------------------------------------------------------------


@benchmark(entries=(10_000, 300), seed=SEED)
def hostile_files(report: Report, options: Namespace) -> None:
    """A task that makes everything of its worker's folder while the service works there.

    The service adopts results, moves checkpoints, measures and removes, in one folder after the
    other, until the task has made so many links, folders, pipes, sockets, devices and second names
    of files, which it exchanges meanwhile. As root, the task runs as a user of its own, then as the
    same user; else as the same user alone. Judged are accesses to files outside of the folder, what
    is left behind, and the memory of the service.
    """
    touched = left = 0
    grown: list[float] = []
    for own_user in (True, False) if os.geteuid() == 0 else (False,):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            outcome = serve(Path(folder), options.entries, options.seed, own_user=own_user)
        what = "a user of its own" if own_user else "the same user"
        print(f"{what}: {outcome.entries} entries, {outcome.taken} results and {outcome.kept}")
        print(f"checkpoints taken; touched: {dict(outcome.touched)}, left: {outcome.left[:5]}")
        touched += outcome.touched.total()
        left += len(outcome.left)
        grown.append(outcome.grown_bytes / 2**20)
    report.at_most("touched", touched)
    report.at_most("left", left)
    report.at_most("growth_mib", max(grown))
