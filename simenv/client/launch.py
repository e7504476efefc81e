"""Start and end of service processes of this machine, and their state from outside.

The state is that of a service's process and its log. Invariant: importing this module loads no
transport, so that a service can be started first. A start waits for readiness, an end for that of
the process. Invariant: a pid is signalled only after its command line shows that it is a service of
this user.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from simenv import config, files
from simenv.config import Config, EnvironmentPaths
from simenv.config.paths import (
    GATEWAY,
    SERVICE_NAMES,
    SERVICE_PREFIXES,
    StartupMessage,
    passed_environ,
)
from simenv.errors import DECODE_ERRORS, InsufficientError, SimenvError, StartFailedError, by_code
from simenv.process import find_processes, runs
from simenv.sandbox.progress import ProgressDeadline, cpu_share, load_text

SERVICE = b"simenv.service"  # in the command line of every service


def last_lines(log: Path, count: int = 1) -> list[str]:
    """Return the last non-empty lines of a log, control characters as `?`; [] without a log."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - 16_384))
            text = source.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines[-count:]]


COMMAND_PREFIX, WORKER = b"simenv.", b"simenv.worker"  # in command lines of processes of simenv
PROGRESS_S = 0.5  # interval of progress reports of a start
BUSY_SHARE = 0.2  # of a processor: where less is left, the reports name the load
# Added to start_timeout_s: the service itself gives up first, with a reason. Both are without
# progress, see `simenv.sandbox.progress`.
GRACE_S = 30.0
POLL_S = 0.01
QUOTED_LINES = 5
Progress = Callable[[str, float], object]


@dataclass(frozen=True, slots=True)
class Service:
    """A service process that is ready. `lifeline`: the service ends when this descriptor closes."""

    process: subprocess.Popen[bytes]
    lifeline: int = -1


def start(
    settings: Config,
    paths: EnvironmentPaths,
    *,
    private: bool,
    meanwhile: Callable[[], object] = lambda: None,
    progress: Progress | None = None,
    standby: bool = False,
    temporary: Iterable[Path] = (),
) -> Service:
    """Write the configuration, start the process and wait until the service is ready.

    `private`: the service ends when this process does, and then removes the folders `temporary`,
    because a killed process cannot. `meanwhile`: called during the start. `progress`: called every
    PROGRESS_S with the present stage as text and the seconds since the start. `standby`: it waits
    until it may lead; the configuration stays as the leader wrote it. Raises StartFailedError,
    InsufficientError during another start of the environment, or the service's error. If the
    service refused its settings, those before are back, and folders that were created for it are
    removed; after a failed start they stay, for the logs.
    """
    options = ["--standby"] if standby else [f"--temporary={folder}" for folder in temporary]
    is_new = not paths.home.exists()
    files.private_folder(paths.home)
    with nullcontext() if standby else _sole_start(paths.home):
        built = [paths.home] if is_new and not any(paths.home.iterdir()) else []
        built += [] if paths.state.exists() else [paths.state]
        former = paths.config.read_bytes() if paths.config.exists() else None
        try:
            files.private_folder(paths.state)
            if not standby:
                config.write(settings, paths.config)
            return _start(settings, paths, private, meanwhile, progress, options)
        except StartFailedError:
            raise
        except SimenvError:
            if not standby and former is not None:
                files.write_atomic(paths.config, former)
            elif not standby:
                paths.config.unlink(missing_ok=True)
            for folder in built:
                shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def _sole_start(home: Path) -> Iterator[None]:
    """Keep other starts of an environment away from its configuration, and from its folders, which
    they would remove when its service refuses them. Raises InsufficientError during another one."""
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_taken = not os.path.samestat(os.fstat(descriptor), os.stat(home))
        except (BlockingIOError, FileNotFoundError):
            is_taken = True
        except OSError:  # NFS locks no folders
            is_taken = False
        if is_taken:
            text = f"environment {home.name!r} is started by another process at this moment"
            raise InsufficientError(text, hint="simenv status shows when it is up")
        yield
    finally:
        os.close(descriptor)


def _start(
    settings: Config,
    paths: EnvironmentPaths,
    private: bool,
    meanwhile: Callable[[], object],
    progress: Progress | None,
    options: list[str],
) -> Service:
    ready, args = os.pipe()
    line, lifeline = os.pipe() if private else (-1, -1)
    try:
        passed = [pool.environ for pool in settings.pools]
        passed += [device.environ for device in settings.devices.values()]
        process = _spawn(paths, args, line, passed, options)
    except BaseException:  # also an interrupt: no descriptor stays open
        _close(ready, args, line, lifeline)
        raise
    _close(args, line)
    try:
        meanwhile()
        _await(ready, process, paths, settings.start_timeout_s + GRACE_S, progress)
    except BaseException:  # also an interrupt: no service stays behind
        _close(lifeline)
        if not private:  # without a lifeline it does not end by itself
            process.terminate()
        end(process)
        raise
    finally:
        _close(ready)
    return Service(process, lifeline)


def store_end(paths: EnvironmentPaths) -> bool:
    """Store in the database of a journal, for a service that does not answer, that its environment
    is ended: no standby takes over. Return whether it was not ended before. Raises JournalError,
    StartFailedError."""
    ready, args = os.pipe()
    try:
        process = _spawn(paths, args, -1, (), ["--end"])
        _close(args)
        is_new = _await(ready, process, paths, GRACE_S)
        process.wait()
        return is_new
    finally:
        _close(ready)


def environment(environ: Mapping[str, str], passed: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables of `environ` that a service inherits. `passed`: what `environ` of its
    pools and devices names."""
    inherited = {
        key: value
        for key, value in environ.items()
        if key in SERVICE_NAMES or key.startswith(SERVICE_PREFIXES)
    }
    for names in passed:
        inherited |= passed_environ(environ, names)
    return inherited


def end(process: subprocess.Popen[bytes], timeout_s: float = 10.0) -> None:
    """Wait for the end of a child process; SIGTERM, then SIGKILL, if it does not end by itself."""
    for stop in (None, process.terminate, process.kill):
        if stop is not None:
            stop()
        try:
            _wait(process, timeout_s if stop is None else 5.0)
        except subprocess.TimeoutExpired:
            continue
        return
    process.wait()


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Wait like `Popen.wait`, without its polling every 50 ms if the system has pidfd_open."""
    if process.poll() is None and hasattr(os, "pidfd_open"):
        with suppress(OSError):
            args = os.pidfd_open(process.pid)
            try:
                watch = select.poll()
                watch.register(args, select.POLLIN)
                timeout_s = 0.0 if not watch.poll(1000 * timeout_s) else timeout_s
            finally:
                os.close(args)
    process.wait(timeout_s)


def force(pid: int, timeout_s: float, start_ticks: str = "") -> None:
    """End a service on this node that does not answer: SIGTERM, then SIGKILL after `timeout_s`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not runs(pid, SERVICE, start_ticks=start_ticks):
            return
        os.kill(pid, number)
        if not wait_for_exit([pid], timeout_s):
            return


def wait_for_exit(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Wait until none of these pids is a process of simenv; return those left after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while remaining := [pid for pid in pids if runs(pid, COMMAND_PREFIX, ending=True)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)  # not our children: nothing to wait on
    return remaining


def workers(home: Path) -> list[int]:
    """Return the pids of the workers on this node that belong to the environment with this home."""
    return find_processes(bytes(home.resolve() / "worker.json"), WORKER)


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to workers and gateways that did not end by themselves."""
    for pid in pids:
        if runs(pid, WORKER) or runs(pid, GATEWAY):
            os.kill(pid, signal.SIGKILL)


def clear(sockets: Path, connection: Path) -> None:
    """Remove connection file, sockets and segments of a service that could not do it itself."""
    connection.unlink(missing_ok=True)
    if sockets.name.startswith("simenv-"):
        for folder in (sockets, config.segment_folder(sockets)):
            shutil.rmtree(folder, ignore_errors=True)  # follows no link


def _spawn(
    paths: EnvironmentPaths, ready_fd: int, line: int, passed: Iterable[str], options: list[str]
) -> subprocess.Popen[bytes]:
    argv = [config.interpreter(), "-P", "-m", "simenv.service", str(paths.config)]
    argv += ["--ready-fd", str(ready_fd), *options]
    if line >= 0:
        argv += ["--lifeline-fd", str(line)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(paths.log, flags, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=paths.home,
            env=environment(os.environ, passed),
            pass_fds=[descriptor for descriptor in (ready_fd, line) if descriptor >= 0],
            start_new_session=True,  # Ctrl-C in the starter's terminal is not meant for it
            umask=0o077,
        )
    except OSError as error:
        raise StartFailedError(f"cannot start {argv[0]}: {error.strerror}") from error
    finally:
        os.close(log)


def _await(
    ready: int,
    process: subprocess.Popen[bytes],
    paths: EnvironmentPaths,
    timeout_s: float,
    progress: Progress | None = None,
) -> bool:
    poll = select.poll()  # select.select takes no descriptor above 1023
    poll.register(ready, select.POLLIN)
    begun, deadline = time.monotonic(), ProgressDeadline(timeout_s, process.pid)
    received, stage = b"", "the service's process"
    while True:
        line, newline, following_bytes = received.partition(b"\n")
        if newline:
            readiness = _readiness(line, process, paths)
            if not readiness.progress:
                break
            received, stage = following_bytes, readiness.progress
            deadline.step()
            continue
        left_s = deadline.look()
        if left_s <= 0.0:
            message = f"the service did not become ready within {timeout_s:g} s without progress"
            way = f"start_timeout_s raises the limit ({stage}; {load_text()})"
            raise StartFailedError(message, hint=f"{way}; {_quote(paths)}")
        if progress is not None:
            shown = f"{stage}; {load_text()}" if cpu_share() < BUSY_SHARE else stage
            progress(shown, time.monotonic() - begun)
        if poll.poll(1e3 * min(left_s, PROGRESS_S)):
            more = os.read(ready, 65_536)
            if not more:
                readiness = _readiness(received, process, paths)
                break
            received += more
    error = readiness.error
    if error is not None:
        raise by_code(error.code)(error.message, hint=error.hint)
    return readiness.ready


def _readiness(
    line: bytes, process: subprocess.Popen[bytes], paths: EnvironmentPaths
) -> StartupMessage:
    """Decode a line of the service. Raises StartFailedError if it is not a StartupMessage."""
    try:
        return msgspec.json.decode(line, type=StartupMessage)
    except DECODE_ERRORS as error:
        code = process.wait(5.0) if not line else None
        cause = f"ended with exit code {code}" if code is not None else f"said {line[:80]!r}"
        hint = _quote(paths)
        raise StartFailedError(f"the service {cause} before it was ready", hint=hint) from error


def _quote(paths: EnvironmentPaths) -> str:
    lines = "\n  ".join(last_lines(paths.log, QUOTED_LINES))
    return f"the end of {paths.log}:\n  {lines}" if lines else f"{paths.log} is empty"


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
