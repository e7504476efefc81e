"""Sockets between the ranks of a worker, created once at the start.

Each rank but the first receives work on a PULL socket of its own, which rank 0 feeds; a pair of
ROUTER and DEALER sockets carries heartbeats. All use TCP with CurveZMQ, on the loopback interface
if all ranks are on one node. Invariant: the key pair is created for these ranks and distributed by
MPI; no file, argument or variable contains it. A peer without the public key cannot connect.
"""

from __future__ import annotations

import os
import socket as sockets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import zmq
from zmq.utils import z85

from simenv.errors import NoServiceError
from simenv.wire.keyfiles import KeyPair
from simenv.wire.transport.worker_endpoint import WorkerBootstrap

if TYPE_CHECKING:
    from mpi4py import MPI

LOOPBACK = "127.0.0.1"
HANDSHAKE_MS = 5_000
_KEY_BYTES = 40  # in base 85
_CARD_BYTES = 512


@dataclass(frozen=True, slots=True)
class RankSockets:
    """Sockets of one rank. `work`: one PUSH socket for each other rank in rank 0, one PULL socket
    in the others."""

    rank: int
    nodes: tuple[str, ...]  # of each rank
    work: tuple[zmq.Socket[bytes], ...]
    watch: zmq.Socket[bytes]
    reports: zmq.Socket[bytes] | None  # of the others: a second DEALER, for the main thread


def connect(comm: MPI.Intracomm, service: WorkerBootstrap) -> RankSockets:
    """Connect the ranks; all of them call this. Raises NoServiceError if they are on several nodes
    without a network address in common with the service."""
    rank = comm.rank
    nodes = _all_gather(comm, os.uname().nodename)
    address = LOOPBACK if len(set(nodes)) == 1 else own_address(service)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    keys = _shared_keys(comm)
    own_socket = _socket(context, zmq.PULL if rank else zmq.ROUTER, keys)
    own_socket.set(zmq.CURVE_SERVER, 1)
    port = own_socket.bind_to_random_port(f"tcp://{address}")
    url_host = f"[{address}]" if ":" in address else address
    addresses = _all_gather(comm, f"tcp://{url_host}:{port}")
    if not rank:
        work = tuple(
            _connected(context, zmq.PUSH, keys, rank_address) for rank_address in addresses[1:]
        )
        return RankSockets(rank, nodes, work, own_socket, None)
    monitor, reports = (
        _connected(context, zmq.DEALER, keys, addresses[0], name)
        for name in (b"%d" % rank, b"%d!" % rank)
    )
    return RankSockets(rank, nodes, (own_socket,), monitor, reports)


def _shared_keys(comm: MPI.Intracomm) -> KeyPair:
    """Return a new key pair, which the first rank creates and broadcasts."""
    both = bytearray(2 * _KEY_BYTES)
    if not comm.rank:
        public, secret = zmq.curve_keypair()
        both[:] = public + secret
    comm.Bcast(both, 0)
    return KeyPair(both[:_KEY_BYTES].decode(), both[_KEY_BYTES:].decode())


def _all_gather(comm: MPI.Intracomm, text: str) -> tuple[str, ...]:
    """Return the texts of all ranks, by rank; each at most _CARD_BYTES when packed."""
    card = msgspec.msgpack.encode(text)
    result = bytearray(_CARD_BYTES * comm.size)
    comm.Allgather(card.ljust(_CARD_BYTES, b"\0"), result)
    cards = [result[at : at + _CARD_BYTES] for at in range(0, len(result), _CARD_BYTES)]
    return tuple(_unpad(bytes(card)) for card in cards)


def _unpad(card: bytes) -> str:
    length = card.rstrip(b"\0")
    return msgspec.msgpack.decode(length, type=str)


def own_address(service: WorkerBootstrap) -> str:
    """Return the address of this machine from which it reaches the service's remote endpoint.
    Raises NoServiceError."""
    host, _, port = service.address.removeprefix("tcp://").rpartition(":")
    if not host:
        raise NoServiceError(
            "the ranks are on several nodes, and the service does not listen for other nodes",
            hint="it was started for one node; start it again inside the allocation",
        )
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, _, _, target = sockets.getaddrinfo(host, int(port), type=sockets.SOCK_DGRAM)[
            0
        ]
        with sockets.socket(family, kind) as probe:
            probe.connect(target)  # sends nothing: the kernel chooses the route
            return str(probe.getsockname()[0])
    except OSError as error:
        raise NoServiceError(
            f"no route from {os.uname().nodename} to {service.address}: {error}"
        ) from error


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, keys: KeyPair) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.set(zmq.CURVE_PUBLICKEY, z85.decode(keys.public))
    socket.set(zmq.CURVE_SECRETKEY, z85.decode(keys.secret))
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.LINGER, 200)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.IPV6, 1)
    return socket


def _connected(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    keys: KeyPair,
    address: str,
    identity: bytes = b"",
) -> zmq.Socket[bytes]:
    socket = _socket(context, kind, keys)
    socket.set(zmq.CURVE_SERVERKEY, z85.decode(keys.public))
    if identity:
        socket.set(zmq.IDENTITY, identity)
    socket.connect(address)
    return socket
