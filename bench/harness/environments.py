"""Environments, their command line and their processes, as benchmarks of a service use them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from simenv import config
from simenv.client import environments
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client, connect
from simenv.client.environments import read
from simenv.client.result import Result
from simenv.wire.keyfiles import UserKeyFile, read_private

SIMENV = Path(sys.executable).with_name("simenv")


def simenv(
    args: Iterable[str],
    environ: Mapping[str, str] | None = None,
    *,
    code: int = 0,
    cwd: Path | None = None,
    program: Iterable[str | Path] = (SIMENV,),
) -> str:
    """Run a command as typed; return its output. Raises SystemExit for another exit status."""
    done = subprocess.run(
        [*program, *args], env=environ, cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode != code:
        raise SystemExit(f"simenv {' '.join(args)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout or done.stderr


@contextmanager
def home(*, cold: bool = False) -> Iterator[Path]:
    """Give this process a new, empty SIMENV_HOME, with the kernels of the previous one. `cold`:
    without them."""
    before = dict(os.environ)
    if not cold:
        os.environ["SIMENV_KERNELS"] = str(config.kernel_folder())
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as name:
        os.environ["SIMENV_HOME"] = name
        try:
            yield Path(name)
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def started(settings: Mapping[str, object]) -> Iterator[Client]:
    """Start an environment with a name in a home of its own; yield a client of it."""
    name = str(settings["name"])
    with home():
        environments.up(settings)
        try:
            with connect(name) as client:
                yield client
        finally:
            environments.down(name, now=True)


@contextmanager
def tmpfs(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a small file system at a new folder. Raises OSError where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "simenv-test"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"no tmpfs can be mounted: {done.stderr.strip() or done.returncode}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remote_key(
    client: Client, name: str, folder: str | Path, role: str = "client"
) -> tuple[Path, UserKeyFile]:
    """Issue a key; return its file and contents."""
    file = Path(folder) / f"{name}.simenv"
    issue_key(client.keys, name, role, file)
    return file, read_private(file, UserKeyFile)


def service_process(client: Client) -> psutil.Process:
    """Return the process of a client's service."""
    return psutil.Process(read(Path(client.service)).pid)


def cpu_s(*processes: psutil.Process) -> float:
    """Return the CPU seconds of some processes together."""
    times = [each.cpu_times() for each in processes]
    return float(sum(each.user + each.system for each in times))


def threads_cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process's present threads, to the microsecond: those of `cpu_s`
    come in ticks of 10 ms, a quarter of what a short round takes."""
    paths = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in paths) / 1e9


def waited_s(result: Result) -> float:
    """Return the seconds from the acceptance of a task to its begin."""
    return float(result.timing.queued_s + result.timing.sent_s)


def wait_until(
    true: Callable[[], object], timeout_s: float, look_s: float = 0.01, what: str = "a condition"
) -> None:
    """Wait for a condition. Raises SystemExit if it does not become true in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(look_s)
