"""Where workers meet the service: a door for those of other nodes, and the file that tells of it.

Invariant: the door is there only if the allocation has other nodes, stands on one address, and lets
in keys that are made anew at each start: those of the workers, one for each start of a worker,
which may do nothing but work as that worker, and that of the environment's own user, who reads it
in the connection file on any of the nodes.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from launcher.allocation.this_node import is_this_node
from launcher.base import Node
from simenv.config import OwnDoor, Places, is_any_address
from simenv.errors import ConfigError
from simenv.service.complaints import Complaints
from simenv.service.listen import more_descriptors, resolved
from simenv.service.worker_keys import WorkerKeys
from simenv.wire import joining, keepalive
from simenv.wire.auth import LOCAL
from simenv.wire.joining import TOKEN, ServiceFile
from simenv.wire.keyfiles import KEYS_FORMAT, new_pair, write_private
from simenv.wire.messages import MAX_MESSAGE_BYTES
from simenv.wire.tcp import Habits, TcpDoor

_COMPLAINTS = Complaints(logging.getLogger("simenv.service"))
_DISCARD_PORT = 9  # nothing is sent there: connecting a datagram socket only asks for the route
WORKERS = Habits(
    prefix=b"node/",
    max_known=16_384,  # two connections a worker, and those of the own user, who has one key
    max_of_one_key=16_384,
    message_bytes=MAX_MESSAGE_BYTES,
    queued_messages=2_000,
    turn_bytes=0,
    bounds=None,
    workers=True,
    handover=True,  # who comes again after a cut takes the place of its dead connection
    keepalive=keepalive.WORKERS,
)


class Rendezvous:
    """The file, and the door if there is one. `leave` takes both away."""

    def __init__(
        self,
        places: Places,
        sockets: Path,
        results: Path,
        nodes: Sequence[Node],
        interface: str,
        epoch: int,
    ) -> None:
        """Raises ConfigError. `results`: a token is put there, so that a worker can tell whether it
        sees the same folder."""
        self.door: TcpDoor | None = None
        self.own: OwnDoor | None = None  # for clients of ours on the other nodes
        self._path = places.joining
        token = secrets.token_hex(16)
        _put_token(results / TOKEN, token)
        here = os.uname().nodename
        others = [node.name for node in nodes if not is_this_node(node.name)]
        told = ServiceFile(KEYS_FORMAT, here, str(sockets), token, epoch=epoch)
        if others:
            server, own = new_pair(), new_pair()
            host = address_for(others[0], interface)
            more_descriptors()
            self.door = TcpDoor(host, 0, server, _COMPLAINTS.say, WORKERS)
            self.door.admit({own.public: LOCAL}, b"")
            shown = f"[{host}]" if ":" in host else host
            address = f"tcp://{shown}:{self.door.port}"
            self.own = OwnDoor(address, server.public, own.public, own.secret)
            told = ServiceFile(
                KEYS_FORMAT,
                here,
                str(sockets),
                token,
                address,
                server.public,
                epoch=epoch,
            )
        self.address = told.address
        self._token = token
        write_private(self._path, told)
        self.worker_keys = WorkerKeys(self._path, self.door)

    def leave(self) -> None:
        """Remove the file, unless it is another service's: its keys open nothing any more. The
        door is closed with the others."""
        with suppress(ConfigError):
            if joining.read(self._path).token == self._token:
                self._path.unlink(missing_ok=True)
                self.worker_keys.remove_all()


def address_for(other: str, interface: str) -> str:
    """The one address of ours at which another node reaches us.

    `interface`: as it was told, an interface, a name or an address; "": what this node's name
    means, unless that is loopback: then where the way to the other node begins. ConfigError.
    """
    if interface:
        if is_any_address(interface):
            raise ConfigError(
                f"launcher.interface = {interface!r} would open every interface of this machine",
                hint="name the one by which the other nodes reach this one",
            )
        return resolved(interface, "launcher.interface")
    here = os.uname().nodename
    with suppress(ConfigError):
        named = resolved(here, "this node's name")
        if not ipaddress.ip_address(named).is_loopback:
            return named
    return _routed(other)


def _routed(other: str) -> str:
    """The address from which a datagram to another node would leave."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            other, _DISCARD_PORT, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except socket.gaierror as error:
        raise ConfigError(
            f"the host name {other!r} is not known here: {error.strerror}",
            hint="check the names in --hosts or hosts: each must be one that this machine "
            "resolves, or an IP address",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"no way to node {other!r} was found from here: {error.strerror}",
            hint='set interface in the table [launcher]: "eth0", or an address of this machine',
        ) from error


def _put_token(path: Path, token: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w") as out:
            out.write(token)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
