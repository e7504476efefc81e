"""Processes of attackers, whom the benchmarks of hostile clients start: floods, forgers, readers of
nothing. They import little, since each begins with its imports."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import secrets
import select
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import zmq

from simenv.wire import munge
from simenv.wire.messages import identity
from simenv.wire.messages.identity import CertificateRequest, Denial

READY_S = 120.0  # in which the processes of a flood begin
HANDSHAKERS, AT_ONCE, A_MINUTE = 4, 16, 10_000  # processes; connections of each; handshakes of all
FORGERS, IN_FLIGHT = 2, 32  # processes; connections of each at once
SILENT, REOPEN_S = 400, 0.2  # silent connections; between two looks at which are closed
HOST_USERS_EVERY = 4  # requests, the one of a user of this host
FIRST_UID, NUM_USERS = 12_345, 200  # so many that the rate of a user stops none of them
FORGED = CertificateRequest(1, "local", "k" * 40, "n" * 32)
REPLY_BYTES = 8_192
TRIES = 10  # connections of an attacker for each request that has to count
Address = tuple[str, int]
Place = str | Address  # of the broker: its socket, or host and port


def handshakes(address: str, server_key: str, count: int, ready: Any) -> None:
    """Make `count` handshakes that are refused, over at most AT_ONCE connections at a time."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = zmq.Poller()
    public, secret = zmq.curve_keypair()
    peers: dict[zmq.Socket[bytes], zmq.Socket[bytes]] = {}  # by monitor
    ready.wait(READY_S)
    started, begin = 0, time.perf_counter()
    while started < count or peers:
        due = int((time.perf_counter() - begin) * A_MINUTE / 60.0 / HANDSHAKERS) + 1
        while started < min(due, count) and len(peers) < AT_ONCE:
            started += 1
            peer = context.socket(zmq.DEALER)
            for option, value in ((zmq.CURVE_SERVERKEY, server_key.encode()), (zmq.LINGER, 0),
                                  (zmq.CURVE_PUBLICKEY, public), (zmq.CURVE_SECRETKEY, secret),
                                  (zmq.RECONNECT_IVL, -1)):  # fmt: skip
                peer.set(option, value)
            events = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED)
            monitor = peer.get_monitor_socket(events)
            peers[monitor] = peer
            poller.register(monitor, zmq.POLLIN)
            peer.connect(address)
        for monitor, _ in poller.poll(5):
            peer = peers.pop(monitor)
            poller.unregister(monitor)
            peer.disable_monitor()
            monitor.close()
            peer.close()
    context.term()


def hold(place: Place, opened: Any) -> None:
    """Open SILENT connections, and each again that the broker closes, until this process ends."""
    peers: dict[int, socket.socket] = {}
    poll, number = select.poll(), 0
    while True:
        for _ in range(SILENT - len(peers)):
            number += 1
            with suppress(OSError):
                uid = FIRST_UID + NUM_USERS + number % NUM_USERS
                peer = _connected(place, uid, f"127.0.0.{1 + number % 8}")
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
    peer = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
    try:
        peer.settimeout(READY_S)
        if not isinstance(place, str):
            peer.bind((host, 0))
        peer.connect(place)
    except BaseException:
        peer.close()
        raise
    return peer


def forge(place: Place, lines: Sequence[bytes], count: int, counts: Any, ready: Any) -> None:
    """Send requests, one a connection, until `count` were refused or closed by the broker."""
    host_uids = [user.pw_uid for user in pwd.getpwall() if user.pw_uid]
    refused = closed = failed = number = 0
    ready.wait(READY_S)
    while refused + closed < count and number < TRIES * count:
        peers: list[tuple[socket.socket, int]] = []
        for _ in range(IN_FLIGHT):
            number += 1
            uid, line = FIRST_UID + number % NUM_USERS, lines[number % len(lines)]
            is_of_host = number % HOST_USERS_EVERY == 0
            if is_of_host:
                uid = host_uids[number // HOST_USERS_EVERY % len(host_uids)]
            try:
                peers.append((_connected(place, uid), uid))
                if is_of_host:
                    nonce = secrets.token_hex(16)
                    line = identity.line(msgspec.structs.replace(FORGED, nonce=nonce))
                    line = line if isinstance(place, str) else munge.encode(line, 0)
                peers[-1][0].sendall(line + b"\n")
            except OSError:  # not connected, or closed before it was sent
                failed += 1
        for peer, uid in peers:
            with peer:
                try:
                    answer = peer.recv(REPLY_BYTES).rstrip(b"\n")
                except OSError:  # not sent, or closed before it was read
                    failed += 1
                    continue
            closed += not answer
            refused += bool(answer)
            if answer.startswith(munge.PREFIX):
                os.seteuid(0)
                os.seteuid(uid)
                answer = munge.decode(answer).payload
            reply = identity.reply_of(answer) if answer else None
            assert isinstance(reply, Denial | None), f"a forged request got a certificate: {reply}"
    with counts.get_lock():
        for k, each in enumerate((refused, closed, failed)):
            counts[k] += each


def mutated(address: Address, tokens: list[str], count: int, answers: Any) -> None:
    from testbed.http_requests import Requests, attack, routes

    with tempfile.TemporaryDirectory() as folder:
        targets = routes(Path(folder))
    values = ["main", "lima", "local", "t-1", "0"]
    answers.put(attack(address, Requests(1, targets, values, tokens), count))


def slow(address: Address, connections: int, seconds: float) -> None:
    async def one(number: int) -> None:
        while True:
            with suppress(OSError):
                source = f"127.0.0.{2 + number % 4}", 0
                _, writer = await asyncio.open_connection(*address, local_addr=source)
                writer.write(b"POST /session HTTP/1.1\r\nHost: here\r\nX-Slow: ")
                while not writer.is_closing():
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(1.0)
            await asyncio.sleep(1.0)

    async def every() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*map(one, range(connections)))

    asyncio.run(every())


def large_job(size: int) -> dict[str, object]:
    pubs = [["OPENQASM 3;" + " " * size]]
    return {"program_id": "sampler", "backend": "main", "params": {"pubs": pubs}}


def unread(
    address: Address, token: str, path: str, count: int, seconds: float, times: int = 1
) -> None:
    """Open connections that send a request some times and read nothing."""
    accept = "application/x-npz" if path.endswith("result") else "*/*"
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n"
    head += f"Authorization: Bearer {token}\r\n" if times == 1 else ""
    with ExitStack() as opened:
        for _ in range(count):
            connection = opened.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            with suppress(OSError):
                connection.connect(address)
                connection.sendall(f"{head}\r\n".encode() * times)
        time.sleep(seconds)


def large(address: Address, token: str, path: str, size: int) -> None:
    """Send large bodies, one after the other."""
    floats = "[" + ",".join(["0.1"] * 1_000) + "]"
    values = ["[" + ",".join([floats] * (size // 4_010)) + "]",
              "[" + ",".join(["[]"] * (size // 3)) + "]",
              "{" + ",".join(f'"{k:x}":0' for k in range(size // 12)) + "}"]  # fmt: skip
    bodies = [f'{{"program":"OPENQASM 3;","parameter_values":{each}}}' for each in values]
    if path.endswith("/jobs"):
        bodies = [json.dumps(large_job(size - 1_000))] * 3
    for body in bodies:
        with socket.create_connection(address) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            with suppress(OSError):
                connection.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())
            answer = b""
            with suppress(OSError):
                while part := connection.recv(65_536):
                    answer += part
            print(answer[:300].decode(errors="replace").replace("\r\n", " | "))
