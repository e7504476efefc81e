"""Start of a program in namespaces of its own, of processes and of mounts (pid_namespaces(7)).

    python -I -S private_namespaces.py FOLDER -- ARGV...

The program and all that it starts see no other process, and end with it. `FOLDER` is mounted
without set-user-id programs and devices; mounts are seen inside alone. Without the privilege the
namespaces are made inside a new user namespace, in which user and group keep their numbers.

Three processes: this one, which ends as the program does; the first process of the namespace, which
reaps; and the program, which finds its number outside in the variable `PID_OUTSIDE`. Each ends with
the one before. The module is run by its path, so that it starts without site packages.
"""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

PID_OUTSIDE = "PID_OUTSIDE"
CHECK_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 1, 3, 4  # linux/prctl.h
_NEW_MOUNTS, _NEW_PIDS, _NEW_USER = 0x2_0000, 0x2000_0000, 0x1000_0000  # linux/sched.h
# linux/mount.h
_NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 2, 4, 8, 32, 4096, 16384, 1 << 18


def command_line(folder: Path, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs `argv` in namespaces of its own."""
    return [sys.executable, "-I", "-S", __file__, str(folder), "--", *argv]


@functools.cache
def unavailable_reason() -> str:
    """Return why this process cannot make such namespaces, "" if it can. Tested once."""
    with tempfile.TemporaryDirectory() as folder:
        argv = command_line(Path(folder), ["true"])
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def pid_outside() -> int:
    """Return the number of this process as those outside of its namespaces see it."""
    return int(os.environ.get(PID_OUTSIDE) or os.getpid())


def main(argv: list[str]) -> None:
    """Run the program, and end as it does. Raises SystemExit with a message if the namespaces are
    refused or the program is missing."""
    folder, separator, *program = argv if len(argv) > 2 else ["", "", ""]
    if separator != "--":
        raise SystemExit("usage: private_namespaces.py FOLDER -- ARGV...")
    _die_with_parent()
    try:
        _unshare()
        _mount("", "/", "", _RECURSIVE | _PRIVATE)
        _mount(folder, folder, "", _BIND)
        _mount("", folder, "", _BIND | _REMOUNT | _NOSUID | _NODEV)
        os.chdir(os.getcwd())  # the mounted one
    except OSError as error:
        raise SystemExit(f"cannot make namespaces: {error.strerror}") from error
    read, write = os.pipe()
    first = os.fork()
    if first == 0:
        _reap(program, write)
    os.close(write)
    os.waitpid(first, 0)
    status = os.read(read, 4)
    # Without an answer the first process was killed, and all others with it.
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "little")) if status else -9
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _reap(program: list[str], answer: int) -> NoReturn:
    """Be the first process of the namespace: start the program, reap all, write its status."""
    _die_with_parent()
    child = os.fork()
    if child == 0:
        _run(program)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            os.write(answer, status.to_bytes(4, "little"))
            os._exit(0)


def _run(program: list[str]) -> NoReturn:
    _die_with_parent()
    try:
        os.environ[PID_OUTSIDE] = os.readlink("/proc/self")  # of the mount that shows all
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
        os.execvp(program[0], program)
    except OSError as error:
        os.write(2, f"cannot start {program[0]} in namespaces: {error.strerror}\n".encode())
        os._exit(1)


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _unshare() -> None:
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()
    if libc.unshare(_NEW_MOUNTS | _NEW_PIDS) != 0:
        if libc.unshare(_NEW_USER | _NEW_MOUNTS | _NEW_PIDS) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Call mount(2). Raises OSError."""
    texts = (source.encode(), target.encode(), kind.encode())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*texts, ctypes.c_ulong(flags), options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def reveal(paths: Iterable[Path]) -> None:
    """Mount, in this mount namespace, an empty folder over each one that other users cannot enter,
    with nothing below it but these paths. Raises OSError."""
    hidden: dict[Path, list[Path]] = {}
    for path in sorted({path.resolve() for path in paths if path.exists()}):
        for level in reversed(path.parents):
            if not level.stat().st_mode & 0o001:
                below = hidden.setdefault(level, [])
                if not any(path.is_relative_to(each) for each in below):
                    below.append(path)
                break
    cwd, mask = os.getcwd(), os.umask(0o022)
    for folder, below in hidden.items():
        opened = [(path, os.open(path, os.O_PATH), path.is_dir()) for path in below]
        _mount("tmpfs", str(folder), "tmpfs", _NOSUID | _NODEV, "mode=0711,size=1m")
        for path, descriptor, is_folder in opened:
            (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
            if not is_folder:
                path.touch()
            _mount(f"/proc/self/fd/{descriptor}", str(path), "", _BIND | _RECURSIVE)
            os.close(descriptor)
    os.umask(mask)
    os.chdir(cwd)


def switch_user(user: int) -> None:
    """Become this user for good, with all threads, in the group of the same number alone; the
    process still ends with its parent, and is traced by no others than before. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    dumpable = libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # Both were reset with the user.
    libc.prctl(_PR_SET_DUMPABLE, dumpable, 0, 0, 0)
    _die_with_parent()


if __name__ == "__main__":
    main(sys.argv[1:])
