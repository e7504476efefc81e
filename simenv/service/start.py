"""Put an environment together: folders, lock, journal, machine, doors; and take it apart again."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from launcher.allocation import Node, this_machine
from launcher.base import Launcher
from simenv import __version__
from simenv import config as configs
from simenv.config import Config, ConnectionFile, Places
from simenv.errors import ConfigError
from simenv.model import Origin, PoolSpec
from simenv.scheduler.state import State
from simenv.scheduler.values import Limits
from simenv.service import faults
from simenv.service.admission import Admission
from simenv.service.checkpoint import Checkpointer
from simenv.service.completions import Completions
from simenv.service.copying import Copier
from simenv.service.daemon import Daemon
from simenv.service.intake import Intake
from simenv.service.journal import Journal
from simenv.service.keeping import Keeping
from simenv.service.listen import open_door
from simenv.service.locking import take_lock
from simenv.service.people import People
from simenv.service.pools import WorkerProcesses
from simenv.service.presence import Presence
from simenv.service.questions import Facts
from simenv.service.reopening import mend
from simenv.service.replay import replay
from simenv.service.resuming import settle
from simenv.store import disks
from simenv.wire.connection import Door, ZmqDoors
from simenv.wire.keyfiles import ServerFile
from simulators import catalog

CONNECTION_FORMAT = 1
MEMORY_SHARE = 0.8  # of what is really ours, for simulators

log = logging.getLogger("simenv.service")


class Environment:
    """A running service's parts, for `__main__`."""

    def __init__(
        self,
        daemon: Daemon,
        places: Places,
        pools: tuple[PoolSpec, ...],
        sockets: Path,
        lock: int,
        presence: Presence,
    ) -> None:
        self.daemon = daemon
        self.places = places
        self.pools = pools
        self._sockets = sockets
        self._lock = lock
        self._presence = presence

    def leave(self) -> None:
        """Remove what only a running service has."""
        self._presence.leave()
        shutil.rmtree(self._sockets, ignore_errors=True)
        os.close(self._lock)


def assemble(
    config: Config, home: Path, environ: Mapping[str, str], launcher: Launcher
) -> Environment:
    """Everything up to the first pass of the loop; SimenvError says what stands in the way."""
    places = Places(home, configs.state_folder(config, home, environ))
    for folder in (places.home, places.state, places.logs):
        configs.private_folder(folder)
    check_file_system(places.state, config.network_state)
    faults.install(config.faults)
    check_engines(config.pools)
    lock = take_lock(places.state / "journal.lock", config.force_lock)
    resumed = settle(places, config.resume)
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
        copier = None if config.lifeline else Copier(places.journal, places.copy)
        presence = Presence(places.connection)
        results = configs.private_folder(places.results)
        keeping = Keeping(config, journal, state, completions, results)
        daemon = Daemon(
            config,
            doors,
            journal,
            state,
            intake,
            completions,
            workers,
            checkpointer,
            copier,
            people,
            keeping,
            presence,
            Facts(node.name, widest(limits.memory_bytes), journal.records.ended(), resumed),
        )
        checkpointer.start()
        undo.callback(checkpointer.stop)
        if copier is not None:
            copier.start()
            undo.callback(copier.stop)
        keeping.listen(daemon.hands.note, partial(doors.send, Door.CLIENT))
        keeping.start()
        undo.callback(keeping.stop)
        presence.announce(_told(config, sockets, node, journal.epoch, told))
        if told is not None:
            daemon.hands.note("service.listens", config.name, told.address)
        daemon.hands.note(
            "service.started", config.name, f"epoch {journal.epoch}, {found.queued} queued"
        )
        if resumed:
            daemon.hands.note("service.resumed", config.name, resumed)
        if damaged:
            daemon.hands.note(
                "journal.damaged", config.name, f"{damaged} records; their tasks run again"
            )
        undo.pop_all()
    return Environment(daemon, places, config.pools, sockets, lock, presence)


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
            known = ", ".join(entry.name for entry in catalog.CARDS if entry.shared)
            raise ConfigError(
                f"pool {pool.name!r}: engine {pool.engine!r} is not known",
                hint=f"one of: any, {known}",
            )
        if card.missing:
            raise ConfigError(
                f"pool {pool.name!r}: engine {pool.engine!r} is not installed", hint=card.missing
            )


def check_file_system(folder: Path, forced: bool) -> None:
    """Refuse a live journal on a network file system."""
    kind = disks.kind_of(folder)
    if disks.is_network(kind) and not forced:
        raise ConfigError(
            f"the journal would be on {folder}, a network file system ({kind})",
            hint="set state_dir to a folder on a local disk, or network_state = true",
        )


def _told(
    config: Config, sockets: Path, node: Node, epoch: int, door: ServerFile | None
) -> ConnectionFile:
    return ConnectionFile(
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
