"""Owners of connections: the local user at the other end, or the remote address.

A loopback connection or a Unix socket belongs to a user of this host, whom the kernel names: users
of one host do not share one bound. Invariant: a lookup never waits, and takes the same time
however many sockets the host has, unless the kernel lacks sock_diag(7).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import struct
from contextlib import suppress
from functools import lru_cache
from typing import Any

MAX_ADDRESSES = 1_000  # whose network is known without parsing them again
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_SOCK_DIAG_PROTOCOL, _BY_FAMILY, _REQUEST = 4, 20, 1
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_QUERY = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKET = struct.Struct("!HH16s16s12s")  # ports and addresses of both ends; interface, cookie
_ANY_SOCKET = bytes(4) + b"\xff" * 8
_UID_AT = _HEADER.size + 4 + _SOCKET.size + 12  # in the answer
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_ANSWER_BYTES = 8_192

Owner = tuple[str, str]  # kind (uid, address or user) and name


def owner_of(transport: asyncio.BaseTransport) -> Owner:
    """Return whom a connection counts for before its token is known."""
    connection: Any = transport.get_extra_info("socket")
    if connection is not None and connection.family == socket.AF_UNIX:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return "uid", str(_CREDENTIALS.unpack(packed)[1])
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not peer or not own:
        return "address", ""
    ends = [(ipaddress.ip_address(str(each[0]).partition("%")[0]), each[1]) for each in (peer, own)]
    if _plain(ends[0])[0].is_loopback:
        uid = uid_of(*ends)
        if uid is not None:
            return "uid", str(uid)
    return "address", network_of(peer[0])


@lru_cache(MAX_ADDRESSES)
def network_of(address: str) -> str:
    """Return what counts as one address: a host of IPv4, a network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network(f"{address.partition('%')[0]}/64", strict=False))


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
End = tuple[Address, int]  # address and port


def uid_of(peer: End, own: End) -> int | None:
    """Return the user of the TCP socket of this host whose own end is `peer`; None: not known."""
    peer, own = _plain(peer), _plain(own)
    with suppress(OSError, struct.error):
        return _asked(peer, own)
    with suppress(OSError, ValueError, IndexError):
        return _listed(peer, own)
    return None


def _plain(end: End) -> End:
    return getattr(end[0], "ipv4_mapped", None) or end[0], end[1]


def _asked(peer: End, own: End) -> int:
    """Return the user by sock_diag(7). Raises OSError."""
    family = socket.AF_INET if peer[0].version == 4 else socket.AF_INET6
    places = [each[0].packed.ljust(16, b"\0") for each in (peer, own)]
    body = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 2**32 - 1)
    body += _SOCKET.pack(peer[1], own[1], *places, _ANY_SOCKET)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG_PROTOCOL) as kernel:
        kernel.setblocking(False)  # the kernel answers within `send`
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body)
        answer = kernel.recv(_ANSWER_BYTES)
    if _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    (uid,) = struct.unpack_from("=I", answer, _UID_AT)
    return int(uid)


def _listed(peer: End, own: End) -> int | None:
    """Return the user by /proc/net/tcp. Raises OSError."""
    name = "tcp" if peer[0].version == 4 else "tcp6"
    ends = [f"{_hexadecimal(address)}:{port:04X}" for address, port in (peer, own)]
    with open(f"/proc/net/{name}", encoding="ascii") as table:
        for line in table:
            words = line.split()
            if words[1:3] == ends:
                return int(words[7])
    return None


def _hexadecimal(address: Address) -> str:
    """Return an address as /proc/net/tcp writes it: words of 32 bits in the order of this host."""
    words = struct.unpack(f"!{len(address.packed) // 4}I", address.packed)
    return "".join(f"{socket.htonl(word):08X}" for word in words)
