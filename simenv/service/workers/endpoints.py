"""Sockets for workers on other nodes and for remote clients, and the files that name them.

Invariant: the endpoint for workers exists only if the allocation has other nodes, is bound to one
address, and accepts keys that are created at each start: one for each start of a worker, which may
only act as that worker, and that of the environment's own user, who reads it from the connection
file on any node. No socket is bound to all interfaces unless the configuration requests it.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from launcher.allocation.this_node import is_this_node
from launcher.base import Node
from simenv.config import EVERYWHERE, EnvironmentPaths, OwnerEndpoint, is_any_address, listen_parts
from simenv.errors import ConfigError
from simenv.files import write_atomic
from simenv.service.support.log_limit import RateLimitedLog
from simenv.service.workers.worker_keys import WorkerKeys
from simenv.wire.auth import LOCAL
from simenv.wire.keyfiles import (
    KEYS_FORMAT,
    KeyPair,
    ServerFile,
    new_pair,
    server_file,
    write_private,
)
from simenv.wire.messages.client import MAX_MESSAGE_BYTES
from simenv.wire.transport import sockets, worker_endpoint
from simenv.wire.transport.tcp_listener import ListenerOptions, TcpListener
from simenv.wire.transport.worker_endpoint import TOKEN, WorkerBootstrap

_REJECTION_LOG = RateLimitedLog(logging.getLogger("simenv.service"))
DESCRIPTORS = 8_192  # more than `ConnectionLimiter` allows to clients


def open_listener(listen: str, path: Path, node: str) -> tuple[TcpListener, ServerFile]:
    """Bind the listener for remote clients, with the keys in `path`, which the first call creates.

    Port 0 takes the port of the last start if it is free, so that the key files of users stay
    valid. Raises ConfigError.
    """
    host, port = listen_parts(listen)
    settings = server_file(path)
    address = resolved(host)
    raise_descriptor_limit()
    listener = None
    last = settings.address.rpartition(":")[2]
    if not port and last.isdecimal():
        with suppress(ConfigError):
            listener = TcpListener(address, int(last), settings.keys, _REJECTION_LOG.warning)
    if listener is None:
        listener = TcpListener(address, port, settings.keys, _REJECTION_LOG.warning)
    url_host = node if host == EVERYWHERE else address
    url_host = f"[{url_host}]" if ":" in url_host else url_host
    owner_keys = (
        KeyPair(settings.own_public, settings.own_secret) if settings.own_public else new_pair()
    )
    now = msgspec.structs.replace(
        settings,
        address=f"tcp://{url_host}:{listener.port}",
        own_public=owner_keys.public,
        own_secret=owner_keys.secret,
    )
    if now != settings:
        write_private(path, now)
    return listener, now


def owner_endpoint_of(server: ServerFile) -> OwnerEndpoint:
    """Return the address and keys of the environment's own user for other machines. The key pair
    survives restarts, so that connections can resume."""
    return OwnerEndpoint(server.address, server.public_key, server.own_public, server.own_secret)


def resolved(host: str, setting: str = "listen") -> str:
    """Return the IP address of a host name, an interface or an address. Raises ConfigError, which
    names `setting`, also for a name that means all interfaces."""
    if host == EVERYWHERE:
        return "0.0.0.0"
    result = _lookup(host, setting)
    if is_any_address(result):
        raise ConfigError(
            f"{setting}: {host!r} is {result}, which would open every interface of this machine",
            hint=f"name one interface; to open all of them: {EVERYWHERE}",
        )
    return result


def _lookup(host: str, setting: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    import psutil  # here, because it takes a start 15 ms

    for entry in psutil.net_if_addrs().get(host, ()):
        if entry.family == socket.AF_INET:
            return str(entry.address)
    try:
        result = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        names = ", ".join(sorted(psutil.net_if_addrs()))
        raise ConfigError(
            f"{setting}: {host!r} is neither an interface nor a host: {error.strerror}",
            hint=f"interfaces here: {names}; or an IP address of this machine",
        ) from error
    return str(result[0][4][0])


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors, of which each connection needs one; the default is often
    meant for interactive programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


_DISCARD_PORT = 9  # unused: the connect of a datagram socket sends nothing, it finds the route
WORKERS = ListenerOptions(
    prefix=b"node/",
    max_authenticated=16_384,  # two connections a worker, and those of the environment's own user
    max_per_key=16_384,
    message_bytes=MAX_MESSAGE_BYTES,
    queued_messages=2_000,
    turn_bytes=0,
    bounds=None,
    workers=True,
    handover=True,  # a reconnected worker replaces its dead connection
    keepalive=sockets.WORKER_KEEPALIVE,
)


class WorkerEndpoint:
    """The file `worker.json`, and the listener for workers on other nodes, if there are any."""

    def __init__(
        self,
        paths: EnvironmentPaths,
        sockets: Path,
        results: Path,
        nodes: Sequence[Node],
        interface: str,
        epoch: int,
        server: KeyPair,
    ) -> None:
        """Write the file and bind the listener. `results`: a token is written there, by which a
        worker can check that it sees the same folder. `server`: the keys of this start of the
        service. Raises ConfigError."""
        self.listener: TcpListener | None = None
        # For clients of the own user on the other nodes.
        self.owner_endpoint: OwnerEndpoint | None = None
        self._path = paths.joining
        token = secrets.token_hex(16)
        try:
            write_atomic(results / TOKEN, token.encode())
        except OSError as error:
            raise ConfigError(f"cannot write {results / TOKEN}: {error.strerror}") from error
        hostname = os.uname().nodename
        other_nodes = [node.name for node in nodes if not is_this_node(node.name)]
        settings = WorkerBootstrap(
            KEYS_FORMAT, hostname, str(sockets), token, server_key=server.public, epoch=epoch
        )
        if other_nodes:
            owner_keys = new_pair()
            host = address_for(other_nodes[0], interface)
            raise_descriptor_limit()
            self.listener = TcpListener(host, 0, server, _REJECTION_LOG.warning, WORKERS)
            self.listener.admit({owner_keys.public: LOCAL}, b"")
            url_host = f"[{host}]" if ":" in host else host
            address = f"tcp://{url_host}:{self.listener.port}"
            self.owner_endpoint = OwnerEndpoint(
                address, server.public, owner_keys.public, owner_keys.secret
            )
            settings = msgspec.structs.replace(settings, address=address)
        self.address = settings.address
        self._token = token
        write_private(self._path, settings)
        self.worker_keys = WorkerKeys(self._path, self.listener)

    def leave(self) -> None:
        """Remove the file and the workers' keys, unless the file is another service's. The listener
        is closed with the others."""
        with suppress(ConfigError):
            if worker_endpoint.read(self._path).token == self._token:
                self._path.unlink(missing_ok=True)
                self.worker_keys.remove_all()


def address_for(other: str, interface: str) -> str:
    """Return the address of this machine at which another node can reach it.

    `interface`: an interface, a name or an address from the configuration; "": the address of this
    node's name or, if that is loopback, the source address of the route to the other node. Raises
    ConfigError.
    """
    if interface:
        if is_any_address(interface):
            raise ConfigError(
                f"launcher.interface = {interface!r} would open every interface of this machine",
                hint="name the one by which the other nodes reach this one",
            )
        return resolved(interface, "launcher.interface")
    hostname = os.uname().nodename
    with suppress(ConfigError):
        named = resolved(hostname, "this node's name")
        if not ipaddress.ip_address(named).is_loopback:
            return named
    return _route_address(other)


def _route_address(other: str) -> str:
    """Return the source address of the route to another node. Raises ConfigError."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(
            other, _DISCARD_PORT, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except socket.gaierror as error:
        raise ConfigError(
            f"the host name {other!r} is not known here: {error.strerror}",
            hint="check the names in --hosts or hosts: each must be one that this machine "
            "resolves, or an IP address",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"no route to node {other!r} from this machine: {error.strerror}",
            hint='set interface in the table [launcher]: "eth0", or an address of this machine',
        ) from error
