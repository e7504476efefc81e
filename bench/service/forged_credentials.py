"""Latency of users during 10,000 requests for certificates that are garbage or forged.

Two processes, as 200 other users, send the credential broker lines that are no requests, requests
for another environment and requests of users without an account, as fast as the broker takes them.
Then, where munged is installed, they send its TCP listener as many credentials of MUNGE that are
forged, of another site, or used before. Meanwhile a user with a certificate repeatedly asks the
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
import socket
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Any

import msgspec

import simenv
from bench.harness import Option, Report
from bench.harness.timing import READY_S, flooded
from bench.testbed.munged import munged, program
from simenv.client.connection.broker import find_socket
from simenv.wire import munge
from simenv.wire.messages import identity
from simenv.wire.messages.identity import CertificateRequest, Denial

NUM_ATTACKERS = 2
FIRST_UID, NUM_USERS = 12_345, 200  # so many that the rate of a user stops none of them
NAME = "local"  # of private environments
FORGED = CertificateRequest(1, NAME, "k" * 40, "n" * 32)
OTHER = msgspec.structs.replace(FORGED, environment="other")
REPLY_BYTES = 8_192
TRIES = 10  # connections of an attacker for each request that has to count
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
    flipped = unused[:middle] + unused[middle : middle + 1].swapcase() + unused[middle + 1 :]
    return [b"MUNGE:AwQFAAA=:", flipped, foreign, used]


def _flood(
    report: Report,
    prefix: str,
    service: str,
    place: str | tuple[str, int],
    lines: Sequence[bytes],
    requests: int,
) -> None:
    """Attack a broker at `place`, its socket or host and port, and report under `prefix`."""
    counts = multiprocessing.get_context("spawn").Array("q", 3)
    with simenv.connect(service=service) as client:
        questions = {"answer": partial(client.cancel, ["t-0"])}
        args = place, lines, -(-requests // NUM_ATTACKERS), counts
        connect = partial(simenv.connect, service=service)
        flood = flooded(questions, connect, _attack, args, NUM_ATTACKERS)
    refused, closed, failed = counts
    counted = refused + closed
    of = "credentials of MUNGE" if prefix else "requests"
    print(
        f"{counted} {of} in {flood.took_s:.1f} s, {counted / flood.took_s:.0f} a second:"
        f" {refused} refused, {closed} closed; {failed} more did not connect"
    )
    if counted < requests:
        raise SystemExit(f"forged_credentials: only {counted} of {requests} {of} came through")
    report.p99_ms(f"{prefix}answer_p99_ms", flood.during["answer"], f"answer to a user, {of}")
    report.p99_ms(f"{prefix}connect_p99_ms", flood.connects, f"certificate and connection, {of}")


def _attack(
    place: Any,
    lines: Sequence[bytes],
    count: int,
    counts: SynchronizedArray[int],
    ready: multiprocessing.synchronize.Barrier,
) -> None:
    """Send requests, one a connection, until `count` were refused or closed by the broker."""
    refused = closed = failed = 0
    ready.wait(READY_S)
    while refused + closed < count and refused + closed + failed < TRIES * count:
        number = refused + closed + failed
        os.seteuid(0)
        os.seteuid(FIRST_UID + number % NUM_USERS)  # whom the kernel names
        try:
            with socket.socket(
                socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
            ) as peer:
                peer.settimeout(READY_S)
                peer.connect(place)
                peer.sendall(lines[number % len(lines)] + b"\n")
                answer = peer.recv(REPLY_BYTES)
        except OSError:  # not connected, or closed before the request was read
            failed += 1
            continue
        if answer:
            reply = identity.reply_of(answer.rstrip(b"\n"))
            assert isinstance(reply, Denial), f"a forged request got a certificate: {reply}"
            refused += 1
        else:
            closed += 1
    with counts.get_lock():
        for k, number in enumerate((refused, closed, failed)):
            counts[k] += number
