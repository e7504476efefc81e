"""Latency of clients during 10,000 handshakes a minute with unknown keys.

Four processes connect with keys that the service does not know, each over many connections at once;
each handshake runs to its refusal. Meanwhile a good client over TCP and one through the local
socket repeatedly ask for an answer, and new good clients connect. The figures are the longest
answer time, and the time in which a new client connects.
"""

from __future__ import annotations

import multiprocessing.synchronize
import tempfile
import time
from argparse import Namespace
from functools import partial

import zmq

import simenv
from bench.harness import Option, Report
from bench.harness.environments import remote_key
from bench.harness.timing import READY_S, flooded

NUM_ATTACKERS = 4
AT_ONCE = 16
A_MINUTE = 10_000
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
            share = -(-options.handshakes // NUM_ATTACKERS)
            args = user_key.address, user_key.server_key, share
            connect = partial(simenv.connect, service=file)
            flood = flooded(questions, connect, _handshakes, args, NUM_ATTACKERS)
    rate = options.handshakes / flood.took_s
    print(f"{options.handshakes} refused in {flood.took_s:.1f} s: {rate:.0f} a second")
    longest_ms = max(max(times) for times in flood.during.values()) * 1e3
    report.at_most("worst_ms", longest_ms, "longest answer to a good client, ms")
    report.p99_ms("connect_ms", flood.connects, "new client")
    return report


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
    ready.wait(READY_S)
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
