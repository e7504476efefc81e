"""The worker processes: started, addressed and ended here; when and why is the scheduler's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from launcher.base import Command, Exit, Launcher, LaunchError
from simenv.config import Config, Places
from simenv.model import PoolSpec
from simenv.scheduler.values import StartWorker

LOG_TAIL_BYTES = 2_000
LOG_MAX_BYTES = 8 * 2**20
# What a worker may inherit: where things are, and how threads and MPI behave. Nothing else.
INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LANG", "TMPDIR", "VIRTUAL_ENV", "SIMENV_HOME"),
        *("XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"),
    }
)
INHERITED_PREFIXES = ("LC_", "OMP_", "NUMBA_", "SLURM_", "PBS_", "OMPI_", "PMIX_")
# Libraries of engines: their threads sleep while they wait, and BLAS starts none of its own.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


class Peer(msgspec.Struct):
    """How a worker is addressed; empty until it spoke through that socket."""

    pid: int
    work: bytes = b""
    control: bytes = b""


class WorkerProcesses:
    """Names to processes and sockets; used from the main thread."""

    def __init__(
        self,
        launcher: Launcher,
        config: Config,
        places: Places,
        sockets: Path,
        kernels: Path,
        environ: Mapping[str, str],
        epoch: int,
    ) -> None:
        self._launcher = launcher
        self._config = config
        self._places = places
        self._sockets = sockets
        self._kernels = kernels
        self._environ = worker_environ(environ)
        self._epoch = epoch
        self._pools: dict[str, PoolSpec] = {pool.name: pool for pool in config.pools}
        self._peers: dict[str, Peer] = {}

    def start(self, action: StartWorker) -> str:
        """Start a worker; what went wrong, or ""."""
        log = self._log(action.worker)
        if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
            log.replace(log.with_suffix(".log.old"))
        argv = (
            *(sys.executable, "-P", "-m", "simenv.worker"),
            *("--socket", str(self._sockets / "worker.sock")),
            *("--name", action.worker),
            *("--epoch", str(self._epoch)),
            *("--parent", str(os.getpid())),
            *("--engine", self._pools[action.pool].engine),
            *("--lease-s", str(self._config.worker_lease_s)),
            *("--kernels", str(self._kernels)),
            *("--results", str(self._places.results)),
            *(("--sync",) if self._config.durability != "process" else ()),
        )
        command = Command(action.worker, argv, self._environ, log, self._places.home)
        try:
            self._peers[action.worker] = Peer(self._launcher.start(command))
        except LaunchError as error:
            return str(error)
        return ""

    def joined(self, name: str, pid: int, peer: bytes) -> bool:
        """A worker spoke for the first time; False if it is none of ours."""
        known = self._peers.get(name)
        if known is None or known.pid != pid:
            return False
        known.work = peer
        return True

    def beats(self, name: str, peer: bytes) -> None:
        known = self._peers.get(name)
        if known is not None:
            known.control = peer

    def work_peer(self, name: str) -> bytes:
        known = self._peers.get(name)
        return known.work if known is not None else b""

    def control_peer(self, name: str) -> bytes:
        known = self._peers.get(name)
        return known.control if known is not None else b""

    def name_of(self, peer: bytes) -> str:
        """The worker behind a work socket; "" if it is none of ours."""
        name = peer.rsplit(b".", 1)[0].decode("ascii", "replace")
        known = self._peers.get(name)
        return name if known is not None and known.work == peer else ""

    def exited(self) -> list[Exit]:
        ends = self._launcher.exited()
        for end in ends:
            known = self._peers.get(end.name)
            if known is not None and known.pid == end.pid:
                del self._peers[end.name]
        return ends

    def kill(self, name: str) -> None:
        self._launcher.kill(name)

    def log_tail(self, name: str) -> str:
        """The last lines a worker wrote."""
        return tail(self._log(name))

    def close(self) -> None:
        self._launcher.close()

    def _log(self, name: str) -> Path:
        return self._places.logs / f"{name}.log"


def compile_beside(
    launcher: Launcher, kernels: Path, home: Path, environ: Mapping[str, str]
) -> None:
    """Where no kernel is compiled yet: a process that does it while the service starts."""
    argv = (sys.executable, "-P", "-m", "simulators.warm", str(kernels))
    log = home / "kernels.log"
    launcher.start(Command("kernels", argv, worker_environ(environ), log, home))


def worker_environ(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The allow-listed part of an environment, and what keeps libraries quiet."""
    inherited = {
        key: value
        for key, value in environ.items()
        if key in INHERITED or key.startswith(INHERITED_PREFIXES)
    }
    return tuple({**QUIET, **inherited}.items())


def tail(path: Path) -> str:
    """The end of a text file, whole lines."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - LOG_TAIL_BYTES))
            data = file.read()
    except OSError:
        return ""
    if size > LOG_TAIL_BYTES:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace").rstrip()
