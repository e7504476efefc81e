"""Start of a program that never outlives its parent process.

    python -I -S die_with_parent.py PID [isolated] -- ARGV...

The kernel sends SIGKILL to the program when the parent's thread ends (PR_SET_PDEATHSIG); the
setting survives the exec. The module is run by its path, so that it starts without the
interpreter's site packages.

`isolated`: the program runs in a new network namespace, which has only a loopback interface.
Processes outside, such as those of other users, cannot connect to its ports. Without the privilege
to make a network namespace, it is made inside a new user namespace, in which user and group keep
their numbers (user_namespaces(7)). See `launcher.process.network_namespace`.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

ISOLATED = "isolated"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000  # linux/sched.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


def command_line(parent_pid: int, argv: Sequence[str], *, isolated: bool = False) -> list[str]:
    """Return the command line that runs `argv` bound to the life of `parent_pid`'s main thread."""
    options = [ISOLATED] if isolated else []
    return [sys.executable, "-I", "-S", __file__, str(parent_pid), *options, "--", *argv]


def main(argv: list[str]) -> None:
    """Replace this process by the program. Raises SystemExit with a message if the parent has
    ended, the program is missing, or a requested network namespace is refused."""
    parent, *options = argv[: argv.index("--")] if "--" in argv else [""]
    program = argv[len(options) + 2 :]
    if not parent or not program or options not in ([], [ISOLATED]):
        raise SystemExit("usage: die_with_parent.py PID [isolated] -- ARGV...")
    if options:
        try:
            isolate_network()
        except OSError as error:
            raise SystemExit(f"cannot make a network namespace: {error.strerror}") from error
    bind_to_parent(int(parent))  # after any change of credentials, which clears the signal
    try:
        os.execvp(program[0], program)
    except OSError as error:
        raise SystemExit(f"cannot start {program[0]}: {error.strerror}") from error


def bind_to_parent(parent_pid: int, by: signal.Signals = signal.SIGKILL) -> int:
    """Let this process get the signal `by` when the thread that started it ends. `parent_pid`: an
    argument from the parent process, because a process that outlives it has another one; 0: the
    present parent, only where a launcher is in between. Returns it, for checks by the caller: the
    signal is available on Linux only. Raises SystemExit if the parent has ended already."""
    parent = parent_pid or os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(f"the parent process (pid {parent}) has ended")
    return parent


def isolate_network() -> None:
    """Move this process, which must have one thread, to a new network namespace with a loopback
    interface. Raises OSError if the kernel or the site forbids it."""
    import fcntl
    import socket

    if not sys.platform.startswith("linux"):
        raise OSError(0, "this system has no network namespaces")
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = b"lo".ljust(16, b"\0") + _IFF_UP.to_bytes(2, sys.byteorder) + bytes(22)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


if __name__ == "__main__":
    main(sys.argv[1:])
