"""Latency of users during 10,000 requests for certificates that are garbage or forged.

Two processes, as 200 other users, send the credential broker lines that are no requests, requests
for another environment and requests of users without an account, as fast as the broker takes them.
Meanwhile a user with a certificate repeatedly asks the service for an answer, and new clients of
that user get certificates and connect. The figures are 99th percentiles. Only root can be so many.
"""

from __future__ import annotations

import multiprocessing.synchronize
import os
import pwd
import socket
import tempfile
from argparse import Namespace
from contextlib import suppress
from functools import partial
from pathlib import Path

import simenv
from bench.harness import Option, Report
from bench.harness.timing import READY_S, flooded
from simenv.client.connection.broker import find_socket
from simenv.wire.messages import identity
from simenv.wire.messages.identity import CertificateRequest

NUM_ATTACKERS = 2
FIRST_UID, NUM_USERS = 12_345, 200  # so many that the rate of a user stops none of them
NAME = "local"  # of private environments
OPTIONS = (Option("--requests", default=10_000, quick=1_000),)


def run(options: Namespace) -> Report:
    if os.getuid() != 0:
        raise SystemExit("forged_credentials: only root can send requests of other users")
    report = Report("forged_credentials", f"{options.requests} garbage and forged requests")
    user = pwd.getpwuid(os.getuid()).pw_name
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        os.environ["SIMENV_BROKERS"] = folder
        settings = {"use": "local", "users": [user]}
        with simenv.local(workers=1, identity=settings):
            service = f"local:{os.getuid()}/{NAME}"
            with simenv.connect(service=service) as client:
                questions = {"answer": partial(client.cancel, ["t-0"])}
                path = str(find_socket(os.getuid(), NAME))
                args = path, -(-options.requests // NUM_ATTACKERS)
                connect = partial(simenv.connect, service=service)
                flood = flooded(questions, connect, _attack, args, NUM_ATTACKERS)
    rate = options.requests / flood.took_s
    print(f"{options.requests} in {flood.took_s:.1f} s: {rate:.0f} a second")
    report.p99_ms("answer_p99_ms", flood.during["answer"], "answer to a user meanwhile")
    report.p99_ms("connect_p99_ms", flood.connects, "certificate and connection")
    return report


def _attack(path: str, count: int, ready: multiprocessing.synchronize.Barrier) -> None:
    """Send requests, one a connection; wait for the answer to each, or for the end."""
    forged = CertificateRequest(1, NAME, "k" * 40, "n" * 32)
    other = CertificateRequest(1, "other", "k" * 40, "n" * 32)
    lines = [b"x" * 4_000, b'{"format":', identity.line(forged), identity.line(other), b"\0" * 64]
    ready.wait(READY_S)
    for number in range(count):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(READY_S)
            with suppress(OSError):
                os.seteuid(0)
                os.seteuid(FIRST_UID + number % NUM_USERS)  # whom the kernel names
                peer.connect(path)
                peer.sendall(lines[number % len(lines)] + b"\n")
                peer.recv(8_192)
