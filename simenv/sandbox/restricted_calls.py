"""System calls that a confined process may make with some arguments only, each with its reason.

All other arguments fail with EACCES. Numbers are by machine, in the order of
`system_calls.MACHINES`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArgumentCondition:
    """The lower 32 bits of an argument, from 0 on, after `mask`: one of `values`, or, `refused`,
    none of them."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFF_FFFF
    refused: bool = False


@dataclass(frozen=True, slots=True)
class RestrictedCall:
    """A call that is allowed if all conditions of one alternative hold. `numbers`: by machine."""

    numbers: tuple[int, int]
    reason: str
    alternatives: tuple[tuple[ArgumentCondition, ...], ...]


_ANY = 0xFFFF_FFFF  # -1
_SIGKILL = 9
_SOL_SOCKET = 1
# Options of prctl: the name, timer slack, seccomp, capabilities that are dropped, the subreaper, no
# new privileges, huge pages, speculation, names of memory, and vectors of arm64. Not who may trace
# the process, nor whether the service can read its figures (PR_SET_DUMPABLE).
_OWN_PROPERTIES = (
    *(2, 3, 15, 16, 21, 22, 23, 24, 27, 29, 30, 36, 37, 38, 39, 40, 41, 42),
    *(50, 51, 52, 53, 54, 55, 56, 63, 64, 65, 66, 0x5356_4D41),
)
# Requests of ioctl; those of GPUs are too many for a list of what is allowed.
_REFUSED_REQUESTS = (
    *(0x5412, 0x541C, 0x541D, 0x5423, 0x540E),  # TIOCSTI, LINUX, CONS, SETD, SCTTY: terminals
    *(0x8901, 0x8902),  # FIOSETOWN, SIOCSPGRP: signals to others
    # FS_IOC_SETFLAGS in both widths, FS_IOC_FSSETXATTR, FS_IOC_SETVERSION: attributes of files
    *(0x4008_6602, 0x4004_6602, 0x401C_5820, 0x4008_7602, 0x4004_7602),
    # FS_IOC_ADD_ENCRYPTION_KEY, FS_IOC_ENABLE_VERITY, FS_IOC_SET_ENCRYPTION_POLICY: for ever
    *(0xC050_6617, 0x4080_6685, 0x800C_6613),
)
_CREATES = 0x40_0040  # O_CREAT, and the bit of O_TMPFILE
_SET_ID = 0o6000  # S_ISUID, S_ISGID


def _opens(numbers: tuple[int, int], flags: int) -> RestrictedCall:
    """Return the restriction of a call whose mode follows the argument `flags`; 0: it
    always creates, and has no flags."""
    without_set_id = (ArgumentCondition(flags + 1, (0,), mask=_SET_ID),)
    opens = (ArgumentCondition(flags, (0,), mask=_CREATES),)
    reason = "files that Landlock allows, and new ones that are no set-user-id programs"
    return RestrictedCall(numbers, reason, (without_set_id, *((opens,) if flags > 0 else ())))


RESTRICTED: dict[str, RestrictedCall] = {
    "openat": _opens((257, 56), 2),
    "open": _opens((2, -1), 1),
    "creat": _opens((85, -1), 0),
    "clone": RestrictedCall(
        (56, 220),
        # Not CLONE_NEW*, nor CLONE_PARENT, a child of the service (linux/sched.h).
        "threads and child processes of this one, in its namespaces",
        ((ArgumentCondition(0, (0,), mask=0x7E02_8000),),),
    ),
    "kill": RestrictedCall(
        (62, 129),
        "as the other signals, but not to all processes of the user at once",
        ((ArgumentCondition(1, (0,)),), (ArgumentCondition(0, (_ANY,), refused=True),)),
    ),
    "prlimit64": RestrictedCall(
        (302, 261),
        "limits of the calling process alone",
        ((ArgumentCondition(0, (0,)),),),
    ),
    "sched_setaffinity": RestrictedCall(
        (203, 122),
        "processors of the calling thread alone",
        ((ArgumentCondition(0, (0,)),),),
    ),
    "setpriority": RestrictedCall(
        (141, 140),
        "priority of the calling thread alone",
        ((ArgumentCondition(0, (0,)), ArgumentCondition(1, (0,))),),
    ),
    "prctl": RestrictedCall(
        (157, 167),
        # The signal at the parent's death can be SIGKILL alone, which nothing outlives.
        "names, properties and stricter rules of the calling thread and process",
        (
            (ArgumentCondition(0, (1,)), ArgumentCondition(1, (_SIGKILL,))),
            (ArgumentCondition(0, _OWN_PROPERTIES),),
        ),
    ),
    "personality": RestrictedCall(
        (135, 92),
        "that of Linux, and the question which one it is",
        ((ArgumentCondition(0, (0, _ANY)),),),
    ),
    "fcntl": RestrictedCall(
        (72, 25),
        # Not F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others; F_SETLEASE, F_NOTIFY: what others
        # do with a file, and their delay; F_SETPIPE_SZ: memory that is not the process's.
        "flags, locks and seals of open files",
        ((ArgumentCondition(1, (8, 10, 15, 1024, 1026, 1031), refused=True),),),
    ),
    "ioctl": RestrictedCall(
        (16, 29),
        "requests to open files and devices that Landlock allows, but for those named here",
        ((ArgumentCondition(1, _REFUSED_REQUESTS, refused=True),),),
    ),
    "socketpair": RestrictedCall(
        (53, 199),
        # A datagram socket of a pair could send to any other Unix socket.
        "connected pairs of Unix sockets that stay connected to one another",
        ((ArgumentCondition(0, (1,)), ArgumentCondition(1, (1, 5), mask=0xF)),),
    ),
    "setsockopt": RestrictedCall(
        (54, 208),
        # Not SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE.
        "options of open sockets, but for more memory, which is not the process's",
        (
            (ArgumentCondition(1, (_SOL_SOCKET,), refused=True),),
            (ArgumentCondition(2, (7, 8, 32, 33), refused=True),),
        ),
    ),
}
# For functions: of a file in memory, and of shared memory without a file, one mapped page keeps all
# others, which no figure of a process has. Programs without the first one take a named file.
MEMFD_CREATE = (319, 279)
PRIVATE_MEMORY: dict[str, RestrictedCall] = {
    "mmap": RestrictedCall(
        (9, 222),
        "memory of this process, and files that it has open",
        # Not MAP_SHARED or MAP_SHARED_VALIDATE together with MAP_ANONYMOUS.
        ((ArgumentCondition(3, (0x21,), mask=0x21, refused=True),),),
    ),
}
# For workers that must be able to connect to the service again: sockets of IPv4 and IPv6 for TCP.
TCP: dict[str, RestrictedCall] = {
    "socket": RestrictedCall(
        (41, 198),
        "TCP, whose ports Landlock limits",
        (
            (
                ArgumentCondition(0, (2, 10)),
                ArgumentCondition(1, (1,), mask=0xF),
                ArgumentCondition(2, (0, 6)),
            ),
        ),
    ),
    "connect": RestrictedCall(
        (42, 203),
        "TCP, whose ports Landlock limits, as there are no other sockets",
        ((),),
    ),
}
