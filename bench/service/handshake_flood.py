"""Latency of clients during 10,000 handshakes a minute with unknown keys.

Four processes connect with keys that the service does not know, each over many connections at once;
each handshake runs to its refusal. Meanwhile a good client over TCP and one through the local
socket repeatedly ask for an answer, and new good clients connect. The figures are the longest
answer time, and the time in which a new client connects.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import tempfile
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import zmq

import simenv
from bench.harness import Option, Report, probed
from bench.harness.environments import remote_key
from simenv.wire.keyfiles import UserKeyFile

NUM_ATTACKERS = 4
AT_ONCE = 16
A_MINUTE = 10_000
GIVE_UP_S = 120.0
PAUSE_S = 0.002
OPTIONS = (Option("--handshakes", default=10_000, quick=1_000),)


def run(options: Namespace) -> Report:
    report = Report("handshake_flood", f"{options.handshakes} handshakes with unknown keys")
    with (
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as local_client,
        tempfile.TemporaryDirectory() as folder,
    ):
        file, user_key = remote_key(local_client, "good", folder)
        with simenv.connect(service=file) as tcp_client:
            clients = {"socket": local_client, "tcp": tcp_client}
            questions = {name: partial(each.cancel, ["t-0"]) for name, each in clients.items()}
            with probed(questions, PAUSE_S) as before:
                time.sleep(2.0)  # the same without the flood
            with probed(questions, PAUSE_S) as after:
                connects, took_s = _connect_during_flood(user_key, file, options.handshakes)
    rate = options.handshakes / took_s
    print(f"{options.handshakes} refused in {took_s:.1f} s: {rate:.0f} a second")
    for name in before:
        for when, times in (("quiet", before[name]), ("loud", after[name])):
            p50, p99, most = np.percentile(times, [50, 99, 100]) * 1e3
            print(f"{name:8s}{when:6s} p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {most:.1f} ms")
    longest_ms = max(max(times) for times in after.values()) * 1e3
    report.at_most("worst_ms", longest_ms, "longest answer to a good client, ms")
    report.at_most("connect_ms", float(np.percentile(connects, 99)) * 1e3, "new client, p99, ms")
    return report


def _connect_during_flood(
    user_key: UserKeyFile, file: Path, handshakes: int
) -> tuple[list[float], float]:
    """Connect good clients during the flood; return the seconds of each, and of the whole flood."""
    methods = multiprocessing.get_context("spawn")
    ready = methods.Barrier(NUM_ATTACKERS + 1)
    share = -(-handshakes // NUM_ATTACKERS)
    args = (user_key.address, user_key.server_key, share, ready)
    attackers = [methods.Process(target=_handshakes, args=args) for _ in range(NUM_ATTACKERS)]
    for attacker in attackers:
        attacker.start()
    ready.wait(GIVE_UP_S)
    begin = time.perf_counter()
    connects = []
    while any(attacker.is_alive() for attacker in attackers):
        start_s = time.perf_counter()
        with simenv.connect(service=file):
            connects.append(time.perf_counter() - start_s)
        time.sleep(0.02)
    for attacker in attackers:
        attacker.join()
    return connects, time.perf_counter() - begin


def _handshakes(
    address: str, server_key: str, count: int, ready: multiprocessing.synchronize.Barrier
) -> None:
    """Make `count` handshakes that are refused, over at most AT_ONCE connections at a time."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = zmq.Poller()
    public, secret = zmq.curve_keypair()
    started, per_s = 0, A_MINUTE / 60.0 / NUM_ATTACKERS

    def start() -> None:
        socket = context.socket(zmq.DEALER)
        socket.set(zmq.CURVE_SERVERKEY, server_key.encode())
        socket.set(zmq.CURVE_PUBLICKEY, public)
        socket.set(zmq.CURVE_SECRETKEY, secret)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RECONNECT_IVL, -1)
        monitor = socket.get_monitor_socket(
            int(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED)
        )
        open_sockets[monitor] = socket
        poller.register(monitor, zmq.POLLIN)
        socket.connect(address)

    open_sockets: dict[zmq.Socket[bytes], zmq.Socket[bytes]] = {}
    ready.wait(GIVE_UP_S)
    begin = time.perf_counter()
    while started < count or open_sockets:
        due = int((time.perf_counter() - begin) * per_s) + 1
        while started < min(due, count) and len(open_sockets) < AT_ONCE:
            start()
            started += 1
        for monitor, _ in poller.poll(5):
            socket = open_sockets.pop(monitor)
            poller.unregister(monitor)
            socket.disable_monitor()
            monitor.close()
            socket.close()
    context.term()
