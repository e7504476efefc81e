"""Put an environment together: folders, lock, journal, machine, doors; and take it apart again."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from launcher.allocation import Node, this_machine
from launcher.base import Launcher
from simenv import __version__
from simenv import config as configs
from simenv.config import Config, ConnectionFile, Places
from simenv.errors import ConfigError, JournalError
from simenv.model import Origin, PoolSpec
from simenv.scheduler.state import State
from simenv.scheduler.values import Limits
from simenv.service import faults
from simenv.service.admission import Admission
from simenv.service.checkpoint import Checkpointer
from simenv.service.completions import Completions
from simenv.service.daemon import Daemon
from simenv.service.intake import Intake
from simenv.service.journal import Journal
from simenv.service.keeping import Keeping
from simenv.service.listen import open_door
from simenv.service.people import People
from simenv.service.pools import WorkerProcesses
from simenv.service.questions import Facts
from simenv.service.reopening import mend
from simenv.service.replay import replay
from simenv.wire.connection import Door, ZmqDoors
from simenv.wire.keyfiles import ServerFile
from simulators import catalog

CONNECTION_FORMAT = 1
MEMORY_SHARE = 0.8  # of what is really ours, for simulators
# File systems that several machines may see; SQLite's WAL needs shared memory, so none of these.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "9p", "afs", "fuse.sshfs"}
)

log = logging.getLogger("simenv.service")


class Environment:
    """A running service's parts, for `__main__`."""

    def __init__(
        self, daemon: Daemon, places: Places, pools: tuple[PoolSpec, ...], sockets: Path, lock: int
    ) -> None:
        self.daemon = daemon
        self.places = places
        self.pools = pools
        self._sockets = sockets
        self._lock = lock

    def leave(self) -> None:
        """Remove what only a running service has."""
        self.places.connection.unlink(missing_ok=True)
        shutil.rmtree(self._sockets, ignore_errors=True)
        os.close(self._lock)


def assemble(
    config: Config, home: Path, environ: Mapping[str, str], launcher: Launcher
) -> Environment:
    """Everything up to the first pass of the loop; SimenvError says what stands in the way."""
    places = Places(home, Path(config.state_dir) if config.state_dir else home)
    for folder in (places.home, places.state, places.logs):
        configs.private_folder(folder)
    check_file_system(places.state)
    faults.install(config.faults)
    check_engines(config.pools)
    lock = take_lock(places.state / "journal.lock")
    node = this_machine()
    limits = limits_of(config, node)
    journal = Journal(places.journal, config.durability)
    state = State(config.pools, limits, journal.epoch, journal.records.next_task())
    intake = Intake(state, journal, Admission(config.pools, limits), limits)
    here = Origin("service", node.name, os.getpid(), __version__)
    damaged = mend(journal)
    completions = Completions(journal, here)
    found = replay(journal, state, intake)
    log.info("replayed: %d queued, %d final, %.2f s", found.queued, found.final, found.seconds)
    with ExitStack() as undo:  # what a start that fails halfway takes back
        sockets = configs.socket_folder(environ)
        undo.callback(shutil.rmtree, sockets, ignore_errors=True)
        far, told = None, None
        if config.listen:
            far, told = open_door(config.listen, places.server_key, node.name)
        doors = ZmqDoors(sockets, far)
        undo.callback(doors.close)
        people = People(places.keys, doors)
        workers = WorkerProcesses(
            launcher,
            config,
            places,
            sockets,
            configs.kernel_cache(environ),
            environ,
            journal.epoch,
        )
        checkpointer = Checkpointer(places.journal)
        keeping = Keeping(journal, state, completions, configs.private_folder(places.results))
        daemon = Daemon(
            config,
            doors,
            journal,
            state,
            intake,
            completions,
            workers,
            checkpointer,
            people,
            keeping,
            places.connection,
            Facts(node.name, widest(limits.memory_bytes), journal.records.ended()),
        )
        checkpointer.start()
        undo.callback(checkpointer.stop)
        keeping.listen(daemon.note, partial(doors.send, Door.CLIENT))
        keeping.start()
        undo.callback(keeping.stop)
        _announce(config, places, sockets, node, journal.epoch, told)
        if told is not None:
            daemon.note("service.listens", config.name, told.address)
        daemon.note("service.started", config.name, f"epoch {journal.epoch}, {found.queued} queued")
        if damaged:
            daemon.note("journal.damaged", config.name, f"{damaged} records; their tasks run again")
        undo.pop_all()
    return Environment(daemon, places, config.pools, sockets, lock)


def widest(memory_bytes: int) -> int:
    """The widest program any engine holds in so much memory in double precision, in qubits."""
    return max(card.max_qubits_in(memory_bytes) for card in catalog.CARDS)


def limits_of(config: Config, node: Node) -> Limits:
    """The environment's fixed figures; nothing may be more than the machine has."""
    if config.memory_bytes > node.memory_bytes:
        raise ConfigError(
            f"memory_bytes = {config.memory_bytes} is more than the {node.memory_bytes} there are"
        )
    return Limits(
        slots=config.slots or node.slots,
        memory_bytes=config.memory_bytes or int(MEMORY_SHARE * node.memory_bytes),
        max_queued_tasks=config.max_queued_tasks,
        max_queued_bytes=config.max_queued_bytes,
        silent_ns=round(config.silent_s * 1e9),
        start_timeout_ns=round(config.start_timeout_s * 1e9),
    )


def check_engines(pools: tuple[PoolSpec, ...]) -> None:
    """Every pool's engine must be one that can run here."""
    for pool in pools:
        if pool.engine == "any":
            continue
        card = catalog.card(pool.engine)
        if card is None:
            known = ", ".join(entry.name for entry in catalog.CARDS if entry.automatic)
            raise ConfigError(
                f"pool {pool.name!r}: engine {pool.engine!r} is not known",
                hint=f"one of: any, {known}",
            )
        if card.missing:
            raise ConfigError(
                f"pool {pool.name!r}: engine {pool.engine!r} is not installed", hint=card.missing
            )


def take_lock(path: Path) -> int:
    """The lock that keeps a second service out, for the life of the descriptor returned."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        os.close(descriptor)
        raise JournalError(
            f"another service uses {path.parent}: {holder or 'unknown'}",
            hint="simenv status, or simenv down first",
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"pid {os.getpid()} on {os.uname().nodename}\n".encode())
    return descriptor


def check_file_system(folder: Path) -> None:
    """Refuse a live journal on a network file system."""
    kind = file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            f"the journal would be on {folder}, a network file system ({kind})",
            hint="set state_dir to a folder on a local disk",
        )


def file_system(folder: Path) -> str:
    """The type of the file system a folder is on, "" if unknown."""
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    for line in lines:
        _, where, found, *_ = line.split()
        mount = Path(where.replace("\\040", " "))
        if (real == mount or mount in real.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), found
    return kind


def _announce(
    config: Config,
    places: Places,
    sockets: Path,
    node: Node,
    epoch: int,
    door: ServerFile | None,
) -> None:
    told = ConnectionFile(
        CONNECTION_FORMAT,
        config.name,
        __version__,
        os.getpid(),
        node.name,
        epoch,
        str(sockets),
        door.address if door is not None else "",
        door.public_key if door is not None else "",
    )
    temporary = places.connection.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(msgspec.json.encode(told))
    temporary.replace(places.connection)
