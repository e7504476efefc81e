"""Confinement of this process and of all that it starts, which none of them can undo.

Landlock (landlock(7)) limits the files that are opened or made and the TCP ports; it also keeps a
process from tracing, and since Linux 6.12 from signalling, processes outside. It applies to the
calling thread and to the threads and processes that this thread starts. A seccomp filter
(seccomp(2)), applied to all threads, lets them make the system calls of
`simenv.sandbox.system_calls` alone, and no more sockets, Unix sockets included: Landlock does not
limit modes and owners of files, nor limits and scheduling of other processes of the user.

Nothing here needs a privilege. Linux alone has these calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simenv.sandbox import restricted_calls, system_calls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all machines
_VERSION_FLAG, _PATH_BENEATH, _NET_PORT = 1, 1, 2  # linux/landlock.h
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ALL_FILES = (1 << 15) - 1  # of ABI 3; the calls of devices (ABI 5) stay allowed
_DEVICE_NODES = 1 << 6 | 1 << 11
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPES, _SIGNALS = 3, 2  # abstract Unix sockets and signals, and those alone, since ABI 6
_REFER_ABI = 2  # of Linux 5.19
LEAST_ABI = 4  # of Linux 6.7, the first that knows TCP
SCOPED_ABI = 6  # of Linux 6.12
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
_CAPABILITIES_OF_THIS = struct.pack("=Ii", 0x2008_0522, 0)  # linux/capability.h, version 3
_SWITCH_USER = 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID
_TRACE = 1 << 19 | 1 << 21 | 1 << 38  # CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON
# For programs, libraries, time zones, names of users, and certificates.
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/sys"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/alternatives", "/etc/ssl", "/etc/OpenCL", "/etc/os-release"),
)
# What is mapped from /dev/zero for writing is shared memory of no name: it is read alone.
DEVICES = ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
WRITTEN_DEVICES = ("/dev/null",)
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
        read, written = (*SYSTEM, *DEVICES), (*map(Path, WRITTEN_DEVICES), *gpus)
        return FileRules((*map(Path, read), *self.read), self.listed, (*written, *self.write))


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


def restrict_files(
    rules: FileRules,
    connect_ports: Iterable[int] | None = (),
    *,
    scoped: bool = True,
    may_switch_user: bool = False,
) -> None:
    """Allow this thread only the files of the rules, and TCP connections to these ports; None: any
    TCP. `scoped`: allow no signals to processes outside, and no abstract Unix sockets of theirs,
    where the kernel can forbid them, and give up the capabilities of root, who could read the
    environment of other processes. `may_switch_user`: but those of changing the user, for which
    `private_namespaces.switch_user` gives them up. Raises OSError where there is no Landlock."""
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
            (rules.write, _ALL_FILES & ~_DEVICE_NODES),
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
        left = _SWITCH_USER if may_switch_user else 0  # effective, permitted, inheritable; each low
        sets = struct.pack("=6I", left, left, 0, 0, 0, 0)
        _check(ctypes.CDLL(None, use_errno=True).capset(_CAPABILITIES_OF_THIS, sets))


def restrict_processes() -> None:
    """Let this thread, and all that it starts, not trace processes outside, read their memory,
    environment and descriptors, nor, since Linux 6.12, signal them; root gives up the capabilities
    to do so. Files and network stay. Raises OSError where there is no Landlock, or one that refuses
    to move files to other folders (before Linux 5.19)."""
    abi = landlock_abi()
    if abi < _REFER_ABI:
        raise OSError(errno.EOPNOTSUPP, "Landlock would refuse to move files to other folders")
    is_scoped = abi >= SCOPED_ABI
    # An empty set of rules is refused, and one that handles any right to files denies the right to
    # move and link them to other folders, unless that is handled and allowed.
    handled = 0 if is_scoped else _DEVICE_NODES | _REFER
    attributes = struct.pack("=QQQ", handled, 0, _SIGNALS if is_scoped else 0)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _allow_path(ruleset, Path("/"), handled)
        _no_new_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    libc, sets = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(24)
    _check(libc.capget(_CAPABILITIES_OF_THIS, sets))
    # Effective, permitted, inheritable: the lower halves, then the upper ones.
    masks = [0xFFFF_FFFF & ~(_TRACE >> 32 * half) for half in (0, 1) for _ in range(3)]
    held = struct.unpack("=6I", sets.raw)
    left = [word & mask for word, mask in zip(held, masks, strict=True)]
    _check(libc.capset(_CAPABILITIES_OF_THIS, struct.pack("=6I", *left)))


def forbid_tracing() -> None:
    """Let no process of this user, which is not privileged, trace this one or read its memory,
    environment and descriptors, its own child processes included."""
    if sys.platform.startswith("linux"):
        _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


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

# By machine: its number in linux/audit.h, and that of `seccomp` (asm/unistd.h).
_MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
_OTHER_ABI = 0x4000_0000  # from here on: calls of x86-64's other ABI (x32)
# linux/bpf_common.h
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in seccomp_data; each argument has 8 bytes
_ALLOW, _DENY, _KILL = 0x7FFF_0000, 0x0005_0000 | 13, 0x8000_0000  # 13: EACCES
_ABSENT = 0x0005_0000 | 38  # ENOSYS
_SET_FILTER, _ALL_THREADS = 1, 1
_Rows = list[tuple[int, int, int, int]]  # code, steps to skip if true, if false, value


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(_Instruction)))


def filter_calls(*, allow_tcp: bool = False, allow_shared_memory: bool = True) -> None:
    """Let no thread of this process, and nothing that it starts, make another system call than
    those of `system_calls`, which has no sockets but connected pairs. The others fail with EACCES,
    or with ENOSYS, as if this kernel had no such call. Open sockets stay as they are. `allow_tcp`:
    TCP sockets may be made, whose ports `restrict_files` limits. `allow_shared_memory`: files in
    memory and shared memory without a file may be made, which are not counted once neither a
    descriptor nor the page table of a process has them. Raises OSError."""
    machine = platform.machine()
    seccomp = _MACHINES[machine][1]
    rows = _filter(machine, allow_tcp=allow_tcp, allow_shared_memory=allow_shared_memory)
    instructions = (_Instruction * len(rows))(*(_Instruction(*row) for row in rows))
    program = _Program(len(rows), instructions)
    _no_new_privileges()
    if _call(seccomp, _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) != 0:
        raise OSError(0, "a thread has another filter of system calls")


def _filter(name: str, *, allow_tcp: bool, allow_shared_memory: bool) -> _Rows:
    """Return the instructions. The kernel runs them once for a call whose arguments do not matter,
    and remembers the answer (Linux 5.11)."""
    column = system_calls.MACHINES.index(name)
    rows = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _MACHINES[name][0]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _OTHER_ABI),
        (_RETURN, 0, 0, _DENY),
    ]
    restricted = restricted_calls.RESTRICTED | restricted_calls.TCP
    if not allow_shared_memory:
        rows += [(_EQUAL, 0, 1, restricted_calls.MEMFD_CREATE[column]), (_RETURN, 0, 0, _ABSENT)]
        restricted |= restricted_calls.PRIVATE_MEMORY
    for call, restriction in restricted.items():
        is_allowed = allow_tcp or call not in restricted_calls.TCP
        alternatives = restriction.alternatives if is_allowed else ()
        block = [row for each in alternatives for row in _alternative(each)]
        if restriction.numbers[column] >= 0:
            rows += [(_EQUAL, 0, len(block) + 1, restriction.numbers[column])]
            rows += [*block, (_RETURN, 0, 0, _DENY)]
    for table, answer in ((system_calls.ALLOWED, _ALLOW), (system_calls.REFUSED, _DENY)):
        for numbers in (each for group in table.values() for each in group.values()):
            if numbers[column] >= 0:
                rows += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, answer)]
    return [*rows, (_RETURN, 0, 0, _ABSENT)]


def _alternative(conditions: Iterable[restricted_calls.ArgumentCondition]) -> _Rows:
    """Return instructions that allow the call if all conditions hold; else the next ones run."""
    rows: _Rows = [(_RETURN, 0, 0, _ALLOW)]
    for condition in reversed(tuple(conditions)):
        left = len(condition.values)
        load = [(_LOAD, 0, 0, _ARGUMENTS + 8 * condition.argument), (_AND, 0, 0, condition.mask)]
        compared = []
        for value in condition.values:
            left -= 1
            if condition.refused:
                compared.append((_EQUAL, left + len(rows), 0, value))
            else:
                compared.append((_EQUAL, left, 0 if left else len(rows), value))
        rows = [*load, *compared, *rows]
    return rows
