"""Latency of users during 10,000 requests for certificates that are garbage or forged.

Two processes, as 200 other users, send the credential broker lines that are no requests, requests
for another environment and requests of users without an account, as fast as the broker takes them.
Meanwhile a user with a certificate repeatedly asks the service for an answer, and new clients of
that user get certificates and connect. The figures are 99th percentiles. Only root can be so many.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import pwd
import socket
import tempfile
import time
from argparse import Namespace
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

import simenv
from bench.harness import Option, Report, probed
from simenv.client.connection.broker import find_socket
from simenv.wire.messages import identity
from simenv.wire.messages.identity import CertificateRequest

NUM_ATTACKERS = 2
FIRST_UID, NUM_USERS = 12_345, 200  # so many that the rate of a user stops none of them
PAUSE_S = 0.002
CONNECT_PAUSE_S = 0.02
GIVE_UP_S = 120.0
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
                with probed(questions, PAUSE_S) as before:
                    time.sleep(2.0)  # the same without the requests
                with probed(questions, PAUSE_S) as after:
                    connects, took_s = _connect_meanwhile(service, options.requests)
    print(f"{options.requests} in {took_s:.1f} s: {options.requests / took_s:.0f} a second")
    for when, times in (("quiet", before["answer"]), ("loud", after["answer"])):
        p50, p99, most = np.percentile(times, [50, 99, 100]) * 1e3
        print(f"{when:6s} p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {most:.1f} ms")
    answer_ms = float(np.percentile(after["answer"], 99)) * 1e3
    report.at_most("answer_p99_ms", answer_ms, "answer to a user meanwhile, p99, ms")
    connect_ms = float(np.percentile(connects, 99)) * 1e3
    report.at_most("connect_p99_ms", connect_ms, "certificate and connection, p99, ms")
    return report


def _connect_meanwhile(service: str, requests: int) -> tuple[list[float], float]:
    """Connect clients during the requests; return the seconds of each, and of all requests."""
    methods = multiprocessing.get_context("spawn")
    ready = methods.Barrier(NUM_ATTACKERS + 1)
    path = str(find_socket(os.getuid(), NAME))
    args = (path, -(-requests // NUM_ATTACKERS), ready)
    attackers = [methods.Process(target=_attack, args=args) for _ in range(NUM_ATTACKERS)]
    for attacker in attackers:
        attacker.start()
    ready.wait(GIVE_UP_S)
    begin = time.perf_counter()
    connects: list[float] = []
    while any(attacker.is_alive() for attacker in attackers) or not connects:
        start_s = time.perf_counter()
        with simenv.connect(service=service):
            connects.append(time.perf_counter() - start_s)
        time.sleep(CONNECT_PAUSE_S)
    for attacker in attackers:
        attacker.join()
    return connects, time.perf_counter() - begin


def _attack(path: str, count: int, ready: multiprocessing.synchronize.Barrier) -> None:
    """Send requests, one a connection; wait for the answer to each, or for the end."""
    forged = CertificateRequest(1, NAME, "k" * 40, "n" * 32)
    other = CertificateRequest(1, "other", "k" * 40, "n" * 32)
    lines = [b"x" * 4_000, b'{"format":', identity.line(forged), identity.line(other), b"\0" * 64]
    ready.wait(GIVE_UP_S)
    for number in range(count):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(GIVE_UP_S)
            with suppress(OSError):
                os.seteuid(0)
                os.seteuid(FIRST_UID + number % NUM_USERS)  # whom the kernel names
                peer.connect(path)
                peer.sendall(lines[number % len(lines)] + b"\n")
                peer.recv(8_192)
