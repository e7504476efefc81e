"""Endpoints of the service for workers and remote clients, and the keys of workers.

Invariants: the endpoint for workers exists only if the allocation has other nodes, is bound to one
address, and accepts keys that are created at each start: one for each start of a worker, which
may only act as that worker, and that of the environment's own user, who reads it from the
connection file on any node. No socket is bound to all interfaces unless the configuration
requests it.

The key pair of a worker is in a file of mode 0600 that the worker reads; its public half is in the
key table of the workers' endpoint. A key is accepted from before its worker is started until that
start has ended.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import secrets
import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from launcher.allocation.this_node import is_this_node
from launcher.base import Node
from simenv import files
from simenv.config import (
    EVERYWHERE,
    EnvironmentPaths,
    Launching,
    OwnerEndpoint,
    is_any_address,
    listen_parts,
)
from simenv.errors import ConfigError, NotAllowedError
from simenv.files import write_atomic
from simenv.scheduler.core import WorkerHeartbeat
from simenv.wire import codec, keyfiles, rights
from simenv.wire.keyfiles import TOKEN, WorkerBootstrap, WorkerKey
from simenv.wire.messages import client as m, queries
from simenv.wire.transport import sockets
from simenv.wire.transport.tcp_listener import ListenerOptions, TcpListener

DESCRIPTORS = 131_072  # more than the connections of clients and of WORKERS
LINES = 20
WINDOW_S = 60.0
REVOKED_NOTICE = codec.encode(m.StopWorker("this start of the worker has ended"))


class WorkerKeys:
    """Keys of the workers on other nodes. Used from the loop's thread."""

    def __init__(self, service: Path, listener: TcpListener | None) -> None:
        """`service`: the path of `worker.json`; the keys are in a folder next to it, from which
        those of an earlier service are removed. `listener`: the workers' listener; None if all
        workers are on the service's node: then there are no keys. Raises ConfigError."""
        self._service = service
        self._listener = listener
        self._public: dict[tuple[str, int], str] = {}
        self.remove_all()
        if listener is not None:
            files.private_folder(keyfiles.worker_keys_folder(service))

    def make(self, worker: str, start: int) -> keyfiles.KeyPair | None:
        """Create and accept the key of a start of a worker, before that start. Returns None if
        workers need no keys."""
        if self._listener is None:
            return None
        pair = keyfiles.new_pair()
        self._public[worker, start] = pair.public
        self._listener.admit_key(pair.public, rights.Identity(worker, rights.Role.WORKER))
        return pair

    def write(self, worker: str, start: int, pair: keyfiles.KeyPair | None) -> None:
        """Write the file of a key; from any thread. Raises ConfigError."""
        if pair is not None:
            path = keyfiles.worker_key_path(self._service, worker, start)
            path.unlink(missing_ok=True)
            keyfiles.create_private(
                path, WorkerKey(keyfiles.KEYS_FORMAT, worker, start, pair.public, pair.secret)
            )

    def remove(self, worker: str, start: int) -> None:
        """Revoke the key of a start of a worker, which has ended or failed."""
        public = self._public.pop((worker, start), None)
        if public is not None and self._listener is not None:
            self._listener.revoke_key(public, REVOKED_NOTICE)
            with suppress(OSError):
                keyfiles.worker_key_path(self._service, worker, start).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove all key files; called when the service starts and ends."""
        shutil.rmtree(keyfiles.worker_keys_folder(self._service), ignore_errors=True)


def check_worker(identity: rights.Identity, message: m.FromWorker) -> None:
    """Check the worker that a message names. Raises NotAllowedError if it is not the worker of the
    key. Messages without a name belong to the worker that has joined through their socket."""
    if not isinstance(message, m.Join | m.Heartbeat | queries.DeviceDescribed):
        return
    if identity.owner not in ("", message.name):
        raise NotAllowedError(
            f"{type(message).__name__} of worker {message.name!r:.80} came with the key of "
            f"{identity.owner!r}",
            hint="each start of a worker has a key of its own",
        )


def reported_state(beat: m.Heartbeat) -> WorkerHeartbeat:
    """Return a heartbeat as the scheduler takes it."""
    return WorkerHeartbeat(
        beat.name, beat.start, beat.task, beat.attempt, beat.rss_bytes,
        beat.progress, beat.waiting, beat.compiling,
        (beat.cpu_ms, beat.node_cpu_ms, beat.node_used_bytes), beat.base_bytes,
        beat.grants,
    )  # fmt: skip


def open_listener(listen: str, path: Path, node: str) -> tuple[TcpListener, keyfiles.ServerFile]:
    """Bind the listener for remote clients, with the keys in `path`, which the first call creates.
    Port 0 takes the port of the last start if it is free, so that the key files of users stay
    valid. Raises ConfigError."""
    host, port = listen_parts(listen)
    settings = keyfiles.server_file(path)
    address = resolved(host)
    raise_descriptor_limit()
    listener = None
    if not port and (last := last_port(port, path)):
        with suppress(ConfigError):
            listener = TcpListener(address, last, settings.keys, _REJECTION_LOG.warning)
    if listener is None:
        listener = TcpListener(address, port, settings.keys, _REJECTION_LOG.warning)
    owner_keys = (
        keyfiles.KeyPair(settings.own_public, settings.own_secret)
        if settings.own_public
        else keyfiles.new_pair()
    )
    now = msgspec.structs.replace(
        settings,
        address=_url(host, address, node, listener.port),
        own_public=owner_keys.public,
        own_secret=owner_keys.secret,
    )
    if now != settings:
        keyfiles.write_private(path, now)
    return listener, now


def standby_address(listen: str, path: Path, node: str) -> str:
    """Return the address at which a standby on this node will listen; "" if it will not, or if its
    port is not known before. `path`: of the server's keys. Raises ConfigError."""
    if not listen:
        return ""
    host, port = listen_parts(listen)
    port = last_port(port, path)
    return _url(host, resolved(host), node, port) if port else ""


def last_port(port: int, path: Path) -> int:
    """Return the port, or that of the last start for port 0; 0 before the first one."""
    last = keyfiles.server_file(path).address.rpartition(":")[2]
    return port or (int(last) if last.isdecimal() else 0)


def _url(host: str, address: str, node: str, port: int) -> str:
    url_host = node if host == EVERYWHERE else address
    return f"tcp://[{url_host}]:{port}" if ":" in url_host else f"tcp://{url_host}:{port}"


def owner_endpoint_of(server: keyfiles.ServerFile) -> OwnerEndpoint:
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
        text = f"{setting}: {host!r} is {result}, which would open every interface of this machine"
        raise ConfigError(text, hint=f"name one interface; to open all of them: {EVERYWHERE}")
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
        text = f"{setting}: {host!r} is neither an interface nor a host: {error.strerror}"
        hint = f"interfaces here: {names}; or an IP address of this machine"
        raise ConfigError(text, hint=hint) from error
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
    setting="launcher.port",
    prefix=b"node/",
    # At most two connections a worker, one an agent, and those of the environment's own user.
    max_authenticated=100_000,
    max_per_key=16_384,
    max_unauthenticated=8_192,  # thousands of workers may join at once
    message_bytes=m.MAX_MESSAGE_BYTES,
    queued_messages=2_000,
    turn_bytes=0,
    bounds=None,
    workers=True,
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
        launching: Launching,
        epoch: int,
        server: keyfiles.KeyPair,
    ) -> None:
        """Write the file and bind the listener. `nodes`: also those that come by jobs. `results`:
        a token is written there, by which a worker can check that it sees the same folder.
        `launching`: its interface and port. `server`: the keys of this start of the service. Raises
        ConfigError."""
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
        other_nodes = [node.name for node in nodes if not (node.pool or is_this_node(node.name))]
        settings = WorkerBootstrap(
            keyfiles.KEYS_FORMAT,
            hostname,
            str(sockets),
            token,
            server_key=server.public,
            epoch=epoch,
        )
        if other_nodes or any(node.pool for node in nodes):
            owner_keys = keyfiles.new_pair()
            host = address_for(other_nodes[0] if other_nodes else "", launching.interface)
            raise_descriptor_limit()
            self.listener = TcpListener(
                host, launching.port, server, _REJECTION_LOG.warning, WORKERS
            )
            self.listener.admit({owner_keys.public: rights.LOCAL}, b"")
            url_host = f"[{host}]" if ":" in host else host
            address = f"tcp://{url_host}:{self.listener.port}"
            self.owner_endpoint = OwnerEndpoint(
                address, server.public, owner_keys.public, owner_keys.secret
            )
            settings = msgspec.structs.replace(settings, address=address)
        self.address, self.server_key = settings.address, server.public
        self.for_agents = settings.node, settings.sockets, token
        self._token = token
        keyfiles.write_private(self._path, settings)
        self.worker_keys = WorkerKeys(self._path, self.listener)

    def leave(self) -> None:
        """Remove the file and the workers' keys, unless the file is another service's. The listener
        is closed with the others."""
        with suppress(ConfigError):
            if keyfiles.read_bootstrap(self._path).token == self._token:
                self._path.unlink(missing_ok=True)
                self.worker_keys.remove_all()


def address_for(other: str, interface: str) -> str:
    """Return the address of this machine at which another node can reach it. `interface`: an
    interface, a name or an address from the configuration; "": the address of this node's name or,
    if that is loopback, the source address of the route to the other node. Raises ConfigError."""
    if interface:
        if is_any_address(interface):
            text = f"launcher.interface = {interface!r} would open every interface of this machine"
            raise ConfigError(text, hint="name the one by which the other nodes reach this one")
        return resolved(interface, "launcher.interface")
    hostname = os.uname().nodename
    with suppress(ConfigError):
        named = resolved(hostname, "this node's name")
        if not ipaddress.ip_address(named).is_loopback:
            return named
    if not other:
        text = f"the nodes of jobs cannot reach this machine by its name, {hostname}"
        hint = 'set interface in the table [launcher]: "eth0", or an address of this machine'
        raise ConfigError(text, hint=hint)
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
        text = f"no route to node {other!r} from this machine: {error.strerror}"
        hint = 'set interface in the table [launcher]: "eth0", or an address of this machine'
        raise ConfigError(text, hint=hint) from error


class RateLimitedLog:
    """Warnings about messages of peers: LINES in WINDOW_S; the others are counted."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since_s = -WINDOW_S
        self._count = 0

    def warning(self, message: str, *details: object) -> None:
        """Log a warning, as `Logger.warning`; above LINES in WINDOW_S warnings are only counted."""
        now = time.monotonic()
        if now - self._since_s >= WINDOW_S:
            if self._count > LINES:
                self._log.warning("%d more like that in the minute before", self._count - LINES)
            self._since_s, self._count = now, 0
        self._count += 1
        if self._count <= LINES:
            self._log.warning(message, *details)


_REJECTION_LOG = RateLimitedLog(logging.getLogger("simenv.service"))
