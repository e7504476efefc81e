"""Where an environment listens for other machines: the address chosen, the port kept.

Invariant: nothing is bound to all interfaces unless the configuration says so in a word.
"""

from __future__ import annotations

import ipaddress
import logging
import resource
import socket
from contextlib import suppress
from pathlib import Path

import msgspec

from simenv.config import EVERYWHERE, OwnDoor, is_any_address, listen_parts
from simenv.errors import ConfigError
from simenv.service.complaints import Complaints
from simenv.wire.keyfiles import KeyPair, ServerFile, new_pair, server_file, write_private
from simenv.wire.tcp import TcpDoor

_COMPLAINTS = Complaints(logging.getLogger("simenv.service"))
DESCRIPTORS = 8_192  # more than the guard of the door lets strangers and clients have


def open_door(listen: str, path: Path, node: str) -> tuple[TcpDoor, ServerFile]:
    """Bind, with the keys in `path` (made at the first time); ConfigError says why not.

    Port 0 takes the port of last time where it is still free, so that the files people were given
    stay right.
    """
    host, port = listen_parts(listen)
    told = server_file(path)
    address = resolved(host)
    more_descriptors()
    door = None
    last = told.address.rpartition(":")[2]
    if not port and last.isdecimal():
        with suppress(ConfigError):
            door = TcpDoor(address, int(last), told.keys, _COMPLAINTS.say)
    if door is None:
        door = TcpDoor(address, port, told.keys, _COMPLAINTS.say)
    shown = node if host == EVERYWHERE else address
    shown = f"[{shown}]" if ":" in shown else shown
    own = KeyPair(told.own_public, told.own_secret) if told.own_public else new_pair()
    now = msgspec.structs.replace(
        told,
        address=f"tcp://{shown}:{door.port}",
        own_public=own.public,
        own_secret=own.secret,
    )
    if now != told:
        write_private(path, now)
    return door, now


def own_door(told: ServerFile) -> OwnDoor:
    """How the environment's own user comes in there from another machine: with a pair that stays,
    so that a start anew takes her connections up again."""
    return OwnDoor(told.address, told.public_key, told.own_public, told.own_secret)


def resolved(host: str, told: str = "listen") -> str:
    """The one IP address a host's name, an interface or an address means. `told`: where it comes
    from, for the ConfigError, which is also raised for a name that stands for all interfaces."""
    if host == EVERYWHERE:
        return "0.0.0.0"
    found = _looked_up(host, told)
    if is_any_address(found):
        raise ConfigError(
            f"{told}: {host!r} is {found}, which would open every interface of this machine",
            hint=f"name one; if all are meant: {EVERYWHERE}",
        )
    return found


def _looked_up(host: str, told: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    import psutil  # here, because it takes a start 15 ms

    for entry in psutil.net_if_addrs().get(host, ()):
        if entry.family == socket.AF_INET:
            return str(entry.address)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        names = ", ".join(sorted(psutil.net_if_addrs()))
        raise ConfigError(
            f"{told}: {host!r} is neither an interface nor a host: {error.strerror}",
            hint=f"interfaces here: {names}; or an IP address of this machine",
        ) from error
    return str(found[0][4][0])


def more_descriptors() -> None:
    """Each connection takes one; the soft limit is often meant for interactive programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
