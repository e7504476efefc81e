"""Confinement of this process and of all that it starts, which none of them can undo.

Landlock (landlock(7)) limits the files that are opened or made and the TCP ports; it also keeps a
process from tracing, and since Linux 6.12 from signalling, processes outside. It applies to the
calling thread and to the threads and processes that this thread starts. A seccomp filter
(seccomp(2)), applied to all threads, lets them make no more sockets, Unix sockets included, and
none of the calls of `REFUSED`: Landlock does not limit modes and owners of files, nor limits and
scheduling of other processes of the user.

Nothing here needs a privilege. Linux alone has these calls.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import stat
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all machines
_VERSION_FLAG, _PATH_BENEATH, _NET_PORT = 1, 1, 2  # linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ALL_FILES = (1 << 15) - 1  # of ABI 3; the calls of devices (ABI 5) stay allowed
_NO_NODES = ~(1 << 6 | 1 << 11)  # devices cannot be made
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPES = 3  # abstract Unix sockets and signals, since ABI 6
LEAST_ABI = 4  # of Linux 6.7, the first that knows TCP
SCOPED_ABI = 6  # of Linux 6.12
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CAPABILITIES_OF_THIS = struct.pack("=Ii", 0x2008_0522, 0)  # linux/capability.h, version 3
# For programs, libraries, time zones, names of users, and certificates.
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/sys"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/alternatives", "/etc/ssl", "/etc/OpenCL", "/etc/os-release"),
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPU_DEVICES = ("nvidia*", "kfd", "dri/render*")  # nodes of GPUs, in /dev


@dataclass(frozen=True, slots=True)
class FileRules:
    """Files that a confined process may use, with all that is below a folder. Missing ones are
    skipped."""

    read: tuple[Path, ...] = ()  # read and execute
    listed: tuple[Path, ...] = ()  # folders whose names may be read, and no content
    write: tuple[Path, ...] = ()  # read, write, make and remove

    @property
    def with_system(self) -> FileRules:
        """These files and those that any program needs, with the devices of GPUs."""
        gpus = [path for pattern in _GPU_DEVICES for path in Path("/dev").glob(pattern)]
        devices = (*map(Path, DEVICES), *gpus)
        return FileRules((*map(Path, SYSTEM), *self.read), self.listed, (*devices, *self.write))


def landlock_abi() -> int:
    """Return the version of Landlock of this kernel; 0: it has none, or it is disabled."""
    if not sys.platform.startswith("linux"):
        return 0
    with suppress(OSError):
        return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return 0


def unavailable_reason() -> str:
    """Return why processes cannot be confined on this machine; "": they can."""
    abi, machine = landlock_abi(), platform.machine()
    if not abi:
        return "this kernel has no Landlock, or it is disabled (lsm= of its command line)"
    if abi < LEAST_ABI:
        return f"Landlock of this kernel (version {abi}) knows no TCP: Linux 6.7 does"
    if machine not in _MACHINES:
        known = ", ".join(_MACHINES)
        return f"there is no filter of system calls for {machine}, only for {known}"
    return ""


def forbid_core_dumps() -> None:
    """Let no process from here on leave a core dump. A limit of 1 byte is too small for any file
    and, unlike 0, also keeps the kernel from piping it to a program (core(5))."""
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def restrict_files(
    rules: FileRules, connect_ports: Iterable[int] | None = (), *, scoped: bool = True
) -> None:
    """Allow this thread only the files of the rules, and TCP connections to these ports; None: any
    TCP. `scoped`: allow no signals to processes outside, and no abstract Unix sockets of theirs,
    where the kernel can forbid them, and give up the capabilities of root, who could read the
    environment of other processes. Raises OSError where there is no Landlock."""
    abi = landlock_abi()
    network = _BIND_TCP | _CONNECT_TCP if connect_ports is not None and abi >= LEAST_ABI else 0
    handled = _ALL_FILES if abi >= 3 else _ALL_FILES & ~_TRUNCATE
    handled = handled if abi >= 2 else handled & ~_REFER
    scopes = _SCOPES if scoped and abi >= SCOPED_ABI else 0
    attributes = struct.pack("=QQQ", handled, network, scopes)  # an earlier kernel wants zeros
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for paths, allowed in (
            (rules.read, _READ),
            (rules.listed, _READ_DIR),
            (rules.write, _ALL_FILES & _NO_NODES),
        ):
            for path in paths:
                _allow_path(ruleset, path, allowed & handled)
        for port in (connect_ports or ()) if network else ():
            _call(_ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        _no_new_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    if scoped:
        _check(ctypes.CDLL(None, use_errno=True).capset(_CAPABILITIES_OF_THIS, bytes(24)))


def _allow_path(ruleset: int, path: Path, allowed: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # there is no such file
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= _OF_A_FILE
        if allowed:
            rule = struct.pack("=Qi", allowed, descriptor)
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _no_new_privileges() -> None:
    """Give up the privileges of set-user-id programs, as both mechanisms require."""
    _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _check(result: int) -> int:
    """Return the result of a call of the C library. Raises OSError if that is below 0."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(number: int, *arguments: object) -> int:
    """Make a system call. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _check(int(libc.syscall(ctypes.c_long(number), *words)))


# --- the filter of system calls -------------------------------------------------------------------

# By machine: its number in linux/audit.h, its column in REFUSED, and the numbers of `seccomp`,
# `socket`, `clone`, `prlimit64` and `sched_setaffinity` (asm/unistd.h).
_MACHINES = {
    "x86_64": (0xC000003E, 0, 317, 41, 56, (302, 203)),
    "aarch64": (0xC00000B7, 1, 277, 198, 220, (261, 122)),
}
# System calls that are refused, by reason: numbers on x86-64 and aarch64 (asm/unistd.h); -1: that
# machine has no such call.
REFUSED: dict[str, dict[str, tuple[int, int]]] = {
    "owners, modes, times and attributes of files, which Landlock does not limit": {
        "chmod": (90, -1),
        "fchmod": (91, 52),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "chown": (92, -1),
        "fchown": (93, 55),
        "lchown": (94, -1),
        "fchownat": (260, 54),
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "fsetxattr": (190, 7),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "fremovexattr": (199, 16),
        "utime": (132, -1),
        "utimes": (235, -1),
        "utimensat": (280, 88),
        "futimesat": (261, -1),
        "mknod": (133, -1),
        "mknodat": (259, 33),
    },
    "scheduling of other processes of the user": {
        "sched_setparam": (142, 118),
        "sched_setscheduler": (144, 119),
        "sched_setattr": (314, 274),
        "setpriority": (141, 140),
        "ioprio_set": (251, 30),
        "migrate_pages": (256, 238),
        "move_pages": (279, 239),
    },
    "memory, descriptors and signals of other processes": {
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "process_mrelease": (448, 448),
        "kcmp": (312, 272),
        "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438),
        "pidfd_send_signal": (424, 424),
    },
    "observation of files and of the machine": {
        "inotify_init": (253, -1),
        "inotify_init1": (294, 26),
        "inotify_add_watch": (254, 27),
        "fanotify_init": (300, 262),
        "perf_event_open": (298, 241),
    },
    "namespaces and mounts": {
        "unshare": (272, 97),
        "setns": (308, 268),
        "mount": (165, 40),
        "umount2": (166, 39),
        "move_mount": (429, 429),
        "open_tree": (428, 428),
        "fsopen": (430, 430),
        "fspick": (433, 433),
        "mount_setattr": (442, 442),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
    },
    "files by handle, past the folders": {
        "name_to_handle_at": (303, 264),
        "open_by_handle_at": (304, 265),
    },
    "parts of the kernel with a large attack surface": {
        "bpf": (321, 280),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
    },
    "objects that outlive their processes": {
        "shmget": (29, 194),
        "shmat": (30, 196),
        "semget": (64, 190),
        "msgget": (68, 186),
        "mq_open": (240, 180),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
    },
}
_CLONE3 = 435  # its flags are in memory, which a filter cannot read; the C library then uses clone
_UNKNOWN = 463  # from here on: calls that are later than this table (setxattrat is the first)
_NAMESPACES = 0x7E02_0000  # CLONE_NEW* of linux/sched.h
_OTHER_ABI = 0x4000_0000  # from here on: calls of x86-64's other ABI (x32)
# linux/bpf_common.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _MACHINE, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in seccomp_data
_ALLOW, _DENY, _KILL = 0x7FFF_0000, 0x0005_0000 | 13, 0x8000_0000  # 13: EACCES
_ABSENT = 0x0005_0000 | 38  # ENOSYS
_SET_FILTER, _ALL_THREADS = 1, 1
_FAMILIES, _STREAM, _TYPE_BITS = (2, 10), 1, 0xF  # AF_INET, AF_INET6; SOCK_STREAM


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(_Instruction)))


def forbid_sockets(*, allow_tcp: bool = False) -> None:
    """Let no thread of this process, and nothing that it starts, make a socket, or a call of
    `REFUSED`, or one that changes the limits or processors of another thread, or makes a namespace;
    they fail with EACCES, `clone3` and calls later than the table with ENOSYS. Pairs of connected
    sockets and open sockets stay as they are. `allow_tcp`: TCP sockets may be made, whose ports
    `restrict_files` limits. Raises OSError."""
    seccomp = _MACHINES[platform.machine()][2]
    rows = _filter(platform.machine(), allow_tcp=allow_tcp)
    instructions = (_Instruction * len(rows))(*(_Instruction(*row) for row in rows))
    program = _Program(len(rows), instructions)
    _no_new_privileges()
    if _call(seccomp, _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) != 0:
        raise OSError(0, "a thread has another filter of system calls")


def _filter(name: str, *, allow_tcp: bool) -> list[tuple[int, int, int, int]]:
    """Return the instructions: (code, steps to skip if true, if false, value)."""
    machine, column, _, socket, clone, of_this_thread = _MACHINES[name]
    numbers = [each[column] for group in REFUSED.values() for each in group.values()]
    denied = tuple(number for number in numbers if number >= 0)
    rows = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _OTHER_ABI),
        (_RETURN, 0, 0, _DENY),
        (_AT_LEAST, 1, 0, _UNKNOWN),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ABSENT),
        (_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, _FIRST),
        (_ANY_BIT, 0, 1, _NAMESPACES),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for number in of_this_thread:  # 0: the calling thread
        rows += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _FIRST),
            (_EQUAL, 1, 0, 0),
            (_RETURN, 0, 0, _DENY),
            (_RETURN, 0, 0, _ALLOW),
        ]
    for number in denied if allow_tcp else (*denied, socket):
        rows += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _DENY)]
    if allow_tcp:
        rows += [
            (_EQUAL, 0, 7, socket),
            (_LOAD, 0, 0, _FIRST),
            (_EQUAL, 1, 0, _FAMILIES[0]),
            (_EQUAL, 0, 3, _FAMILIES[1]),
            (_LOAD, 0, 0, _SECOND),
            (_AND, 0, 0, _TYPE_BITS),
            (_EQUAL, 1, 0, _STREAM),
            (_RETURN, 0, 0, _DENY),
        ]
    return [*rows, (_RETURN, 0, 0, _ALLOW)]
