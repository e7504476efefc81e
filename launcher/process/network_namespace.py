"""Network namespaces, which keep other users of a machine from the ports of MPI launchers.

PRTE and the mpirun of every MPI listen on TCP ports of the loopback interface, and PMIx trusts the
user id that a client states there (its component psec/native). A user who can connect can start
programs as the owner of the launcher. If all ranks are on this machine, the launcher runs in its
own network namespace (`simenv.sandbox.die_with_parent`), which nobody else can enter.
"""

import ctypes
import functools
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from launcher.allocation.this_node import is_this_node
from launcher.process import children
from simenv.sandbox import die_with_parent

CHECK_TIMEOUT_S = 10.0
PSEC = "PMIX_MCA_psec"  # the components that authenticate a client
MUNGE_SOCKET = Path("/run/munge/munge.socket.2")  # munged(8)
_MUNGE_COMPONENT = b"mca_psec_munge_component"
# Smaller ids are system accounts (login.defs(5), UID_MIN); NO_USER_IDS stand for no user.
FIRST_USER, NO_USER_IDS = 1000, (65_534, 65_535, 4_294_967_294)


@functools.cache
def unavailable_reason() -> str:
    """Return why this machine allows no network namespace, "" if it does. Tested once per
    process."""
    try:
        argv = die_with_parent.command_line(os.getpid(), ["true"], isolated=True)
        code, output = children.run(argv, os.environ, CHECK_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = output.strip().splitlines()
    return "" if code == 0 else lines[-1] if lines else f"exit {code}"


def can_isolate(hosts: Iterable[str]) -> bool:
    """Return whether all hosts are this machine and it allows network namespaces."""
    return all(map(is_this_node, hosts)) and not unavailable_reason()


def join(pid: int) -> None:
    """Move this process, which must have one thread, to the network namespace of another process.
    Both must belong to the same user. Raises OSError."""
    own, other = Path("/proc/self/ns"), Path(f"/proc/{pid}/ns")
    for kind in ("user", "net"):  # the user namespace gives the right to enter the other one
        if (own / kind).stat().st_ino != (other / kind).stat().st_ino:
            _enter(other / kind)


def with_munge(environ: Mapping[str, str], library: Path) -> dict[str, str]:
    """Return `environ` with munge as PMIx's only authentication, if this libpmix supports it and
    munged runs. A setting of the user takes precedence: PMIX_MCA_psec=native is the default."""
    if PSEC in environ or not MUNGE_SOCKET.is_socket() or not _supports_munge(library):
        return dict(environ)
    return {**environ, PSEC: "munge"}


def exposure(nodes: Sequence[str], environ: Mapping[str, str], library: Path | None) -> str:
    """Return why other users can run programs through the launcher of these nodes, "" if they
    cannot.

    `library`: the launcher's libpmix; None if it is unknown.
    """
    on_this_node = all(map(is_this_node, nodes))
    reason = unavailable_reason() if on_this_node else ""
    if on_this_node and not reason:
        return ""
    settings = dict(environ) if library is None else with_munge(environ, library)
    if settings.get(PSEC) == "munge":
        return ""
    return f"{reason or 'its nodes need one network'}, and PMIx does not authenticate users there"


def _supports_munge(library: Path) -> bool:
    """Return whether the component is built in, as in Debian, or is in a folder next to the
    library."""
    if any(library.parent.glob("pmix*/**/*psec_munge.so")):
        return True
    try:
        return _MUNGE_COMPONENT in library.read_bytes()
    except OSError:
        return False


def other_users() -> tuple[int, ...]:
    """Return the ids of other users, without system accounts, who have processes on this
    machine."""
    users = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            users.add(entry.stat().st_uid)
        except OSError:  # the process has ended
            continue
    own = {os.getuid(), os.geteuid()}
    return tuple(sorted(uid for uid in users - own if uid >= FIRST_USER and uid not in NO_USER_IDS))


def _enter(namespace: Path) -> None:
    if not sys.platform.startswith("linux"):
        raise OSError(0, "this system has no namespaces")
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))
    finally:
        os.close(descriptor)
