"""Latency of users during 10,000 requests for certificates that are garbage or forged.

Two processes, with 32 connections each at once, send the credential broker lines that are no
requests, requests for another environment and requests of users without an account, as 200 users
who have no account of this host. A quarter are valid requests of the users of this host, who have
no account of the environment. A third process, as other users, holds more silent connections open
than the broker keeps, and opens each again that is closed. Then, where munged is installed, they do
the same at its TCP listener, from the address of the good clients: credentials of MUNGE that are
forged, of another site, or used before, valid ones of the users of this host, and silent
connections from this and other addresses. Meanwhile a user with a certificate repeatedly asks the
service for an answer, and new clients of that user get certificates and connect. A request counts
if the broker refused it or, having been sent it, closed the connection. The figures are 99th
percentiles. Only root can be so many.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import pwd
import secrets
import select
import socket
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Any

import msgspec

import simenv
from bench.harness import Option, Report
from bench.harness.environments import wait_until
from bench.harness.timing import READY_S, flooded
from bench.testbed.munged import munged, program
from simenv.client.connection.broker import find_socket
from simenv.wire import munge
from simenv.wire.messages import identity
from simenv.wire.messages.identity import CertificateRequest, Denial

NUM_ATTACKERS, IN_FLIGHT = 2, 32  # connections of each at once
SILENT, REOPEN_S = 400, 0.2  # silent connections; between two looks at which are closed
HOST_USERS_EVERY = 4  # requests, the one of a user of this host
HOSTS = 8  # addresses of which they come
FIRST_UID, NUM_USERS = 12_345, 200  # so many that the rate of a user stops none of them
NAME = "local"  # of private environments
FORGED = CertificateRequest(1, NAME, "k" * 40, "n" * 32)
OTHER = msgspec.structs.replace(FORGED, environment="other")
REPLY_BYTES = 8_192
TRIES = 10  # connections of an attacker for each request that has to count
Place = str | tuple[str, int]  # of the broker: its socket, or host and port
OPTIONS = (Option("--requests", default=10_000, quick=1_000),)


def run(options: Namespace) -> Report:
    if os.getuid() != 0:
        raise SystemExit("forged_credentials: only root can send requests of other users")
    report = Report("forged_credentials", f"{options.requests} garbage and forged requests")
    user = pwd.getpwuid(0).pw_name
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ["SIMENV_BROKERS"] = name
        lines = [b"x" * 4_000, b'{"format":', b"\0" * 64, *map(identity.line, (FORGED, OTHER))]
        with simenv.local(workers=1, identity={"use": "local", "users": [user]}):
            service = f"local:0/{NAME}"
            _flood(report, "", service, str(find_socket(0, NAME)), lines, options.requests)
        if program() is None:
            print("MUNGE: munged is not installed here (Debian package munge): not attacked")
            return report
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        settings = {"use": "munge", "users": [user], "listen": f"tcp://127.0.0.1:{port}"}
        with (
            _site(folder) as foreign,
            simenv.local(workers=1, listen="tcp://lo:0", identity=settings),
        ):
            service, place = f"munge:0@127.0.0.1:{port}/{NAME}", ("127.0.0.1", port)
            lines = _credentials(place, foreign)
            _flood(report, "munge_", service, place, lines, options.requests)
    return report


@contextmanager
def _site(folder: Path) -> Iterator[bytes]:
    """Run the munged of the site; yield a credential of another site."""
    with munged(folder, "other") as other:
        os.environ["SIMENV_MUNGE_SOCKET"] = str(other)
        foreign = munge.encode(identity.line(FORGED), 0)
    with munged(folder) as path:
        os.environ["SIMENV_MUNGE_SOCKET"] = str(path)
        yield foreign


def _credentials(place: tuple[str, int], foreign: bytes) -> list[bytes]:
    """Return credentials that the broker must refuse: the last one was used before."""
    nonce = secrets.token_hex(16)
    request = msgspec.structs.replace(FORGED, nonce=nonce)
    used, unused = (munge.encode(identity.line(request), 0) for _ in range(2))
    with socket.create_connection(place, READY_S) as peer:
        peer.sendall(used + b"\n")
        reply = identity.reply_of(munge.decode(peer.recv(REPLY_BYTES).rstrip(b"\n")).payload)
    assert not isinstance(reply, Denial), reply
    middle = len(unused) // 2
    other = b"A" if unused[middle : middle + 1] != b"A" else b"B"
    flipped = unused[:middle] + other + unused[middle + 1 :]
    return [b"MUNGE:AwQFAAA=:", flipped, foreign, used]


def _flood(
    report: Report,
    prefix: str,
    service: str,
    place: Place,
    lines: Sequence[bytes],
    requests: int,
) -> None:
    """Attack a broker, and report under `prefix`."""
    counts = multiprocessing.get_context("spawn").Array("q", 3)
    with simenv.connect(service=service) as client:
        questions = {"answer": partial(client.cancel, ["t-0"])}
        args = place, lines, -(-requests // NUM_ATTACKERS), counts
        connect = partial(simenv.connect, service=service)
        with _silent_connections(place) as opened:
            flood = flooded(questions, connect, _attack, args, NUM_ATTACKERS)
    refused, closed, failed = counts[:]
    counted = refused + closed
    of = "credentials of MUNGE" if prefix else "requests"
    print(
        f"{counted} {of} in {flood.took_s:.1f} s, {counted / flood.took_s:.0f} a second:"
        f" {refused} refused, {closed} closed; {failed} more did not connect;"
        f" {opened.value} silent connections opened, {SILENT} at once"
    )
    if counted < requests:
        raise SystemExit(f"forged_credentials: only {counted} of {requests} {of} came through")
    report.p99_ms(f"{prefix}answer_p99_ms", flood.during["answer"], f"answer to a user, {of}")
    report.p99_ms(f"{prefix}connect_p99_ms", flood.connects, f"certificate and connection, {of}")


@contextmanager
def _silent_connections(place: Place) -> Iterator[Any]:
    """Hold silent connections open in a process; yield the number of those that were opened."""
    methods = multiprocessing.get_context("spawn")
    opened = methods.Value("q", 0)
    holder = methods.Process(target=_hold, args=(place, opened))
    holder.start()
    try:
        wait_until(lambda: opened.value >= SILENT or not holder.is_alive(), READY_S, what="holder")
        assert holder.is_alive()
        yield opened
    finally:
        holder.terminate()
        holder.join()


def _hold(place: Place, opened: Any) -> None:
    """Open SILENT connections, and each again that the broker closes, until this process ends."""
    peers: dict[int, socket.socket] = {}
    poll = select.poll()
    number = 0
    while True:
        for _ in range(SILENT - len(peers)):
            number += 1
            with suppress(OSError):
                host = f"127.0.0.{1 + number % HOSTS}"
                peer = _connected(place, FIRST_UID + NUM_USERS + number % NUM_USERS, host)
                peers[peer.fileno()] = peer
                poll.register(peer, select.POLLIN)
        opened.value = number
        for descriptor, _ in poll.poll():
            poll.unregister(descriptor)
            peers.pop(descriptor).close()
        time.sleep(REOPEN_S)


def _connected(place: Place, uid: int, host: str = "127.0.0.1") -> socket.socket:
    """Connect as a user, from an address of this host. Raises OSError."""
    os.seteuid(0)
    os.seteuid(uid)  # whom the kernel names
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    peer = socket.socket(family)
    try:
        peer.settimeout(READY_S)
        if family == socket.AF_INET:
            peer.bind((host, 0))
        peer.connect(place)
    except BaseException:
        peer.close()
        raise
    return peer


def _line_of_host_user(place: Place) -> bytes:
    """Return a valid request of the present user."""
    request = msgspec.structs.replace(FORGED, nonce=secrets.token_hex(16))
    body = identity.line(request)
    return body if isinstance(place, str) else munge.encode(body, 0)


def _attack(
    place: Place,
    lines: Sequence[bytes],
    count: int,
    counts: SynchronizedArray[int],
    ready: multiprocessing.synchronize.Barrier,
) -> None:
    """Send requests, one a connection, until `count` were refused or closed by the broker."""
    host_uids = [user.pw_uid for user in pwd.getpwall() if user.pw_uid]
    refused = closed = failed = number = 0
    ready.wait(READY_S)
    while refused + closed < count and number < TRIES * count:
        peers: list[tuple[socket.socket, int]] = []
        for _ in range(IN_FLIGHT):
            number += 1
            is_of_host = number % HOST_USERS_EVERY == 0
            uid = FIRST_UID + number % NUM_USERS
            if is_of_host:
                uid = host_uids[number // HOST_USERS_EVERY % len(host_uids)]
            try:
                peers.append((_connected(place, uid), uid))
                line = _line_of_host_user(place) if is_of_host else lines[number % len(lines)]
                peers[-1][0].sendall(line + b"\n")
            except OSError:  # not connected, or closed before it was sent
                failed += 1
        for peer, uid in peers:
            with peer:
                try:
                    answer = peer.recv(REPLY_BYTES)
                except OSError:  # not sent, or closed before it was read
                    failed += 1
                    continue
            closed += not answer
            refused += bool(answer)
            if answer:
                _check_denied(answer.rstrip(b"\n"), uid)
    with counts.get_lock():
        for k, each in enumerate((refused, closed, failed)):
            counts[k] += each


def _check_denied(answer: bytes, uid: int) -> None:
    if answer.startswith(munge.PREFIX):
        os.seteuid(0)
        os.seteuid(uid)
        answer = munge.decode(answer).payload
    reply = identity.reply_of(answer)
    assert isinstance(reply, Denial), f"a forged request got a certificate: {reply}"
