"""Start of a service: its parts from the configuration, and its first kernels.

Load admission and its kernels in a thread while workers start. Invariant: the folder of kernels is
chosen before any thread starts. The event loop runs meanwhile; submits wait for admission.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from launcher.base import Allocation, Launcher, LaunchError
from launcher.selection import select_launcher
from simenv import config as configs, files
from simenv._version import __version__
from simenv.config import (
    Config,
    ConnectionFile,
    EnvironmentPaths,
    OwnerEndpoint,
    paths,
)
from simenv.errors import ConfigError, NotFoundError
from simenv.model import Origin, PoolSpec
from simenv.process import start_ticks
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.scheduler import Scheduler
from simenv.service import fault_injection
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.admission.submissions import SubmitQueue
from simenv.service.control.accepted_keys import KeyCommands
from simenv.service.control.results import ResultRequests
from simenv.service.devices import drifting, registry, resolve
from simenv.service.devices.refresh import DeviceRefreshes
from simenv.service.event_loop import EventLoop
from simenv.service.gateway_process import start_gateway
from simenv.service.hooks import EventHooks
from simenv.service.identities import LOOPBACK, BrokerProcess, Identities
from simenv.service.journal import checkpoints, copying, database as databases, writer
from simenv.service.journal.choice import choose_journal
from simenv.service.ownership import ConnectionFileLease, take_lock
from simenv.service.queries.devices import DeviceRecords
from simenv.service.recovery.repair import drop_damaged_records
from simenv.service.recovery.replay import replay
from simenv.service.recovery.scrub import scrub
from simenv.service.results.completions import Completions
from simenv.service.service import JournalMaintenance, RuntimeFacts
from simenv.service.telemetry.recorder import TelemetryRecorder
from simenv.service.workers import processes, resources
from simenv.service.workers.endpoints import (
    WorkerEndpoint,
    last_port,
    open_listener,
    owner_endpoint_of,
    resolved,
)
from simenv.service.workers.isolation import check_isolation
from simenv.service.workers.job_nodes import JobNodes, site_jobs_of
from simenv.wire.keyfiles import (
    ServerFile,
    new_pair,
)
from simenv.wire.transport.sockets import PeerKind, open_socket
from simenv.wire.transport.zmq_transport import ZmqListener
from simulators import catalog
from simulators.compiler import folder as compiled, warmup

if TYPE_CHECKING:
    from simenv.scheduler.routing.engine_support import RoutingSnapshot
    from simenv.scheduler.state.scheduler_state import SchedulerState
    from simenv.service.admission.controller import AdmissionController


log = logging.getLogger("simenv.service")


class Warmup:
    """Thread that loads admission and its kernels. `cold`: kernels are not compiled yet. The
    kernels for wide circuits are loaded last. Where they are not compiled yet, the first wide
    circuits are checked outside the loop, see `RunningChecks`."""

    def __init__(self, kernels: Path) -> None:
        self.cold = False
        self._kernels = kernels
        self._error: BaseException | None = None
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loading", daemon=True)
        self._thread.start()

    def over(self) -> bool:
        """Return whether admission is loaded. Raises the error of the thread."""
        if not self._loaded.is_set():
            return False
        if self._error is not None:
            raise self._error
        return True

    def kernels(self) -> tuple[int, int]:
        """Return the numbers of stored kernels and of all, once they are known; else zeros."""
        return warmup.progress_of(self._kernels) if self.cold else (0, 0)

    def _run(self) -> None:
        try:
            warmup.prepare(self._kernels)
            self.cold = not warmup.is_compiled(self._kernels)
            warmup.compile_groups(self._kernels, "admission")
            from simenv.service.queries import engines, explain  # noqa: F401 - load admission
        except BaseException as error:  # noqa: BLE001 - the loop's thread raises it
            self._error = error
        self._loaded.set()
        if self._error is None:
            try:
                warmup.load_stored("light_cone")
            except Exception as error:  # noqa: BLE001 - the first wide circuit tries again
                log.warning("kernels for wide circuits are not loaded: %s", error)


def admission(
    config: Config,
    state: SchedulerState,
    snapshot: Callable[[], RoutingSnapshot],
    devices: resolve.EmulatedDevices | None,
) -> AdmissionController:
    """Create the admission controller, after all is loaded. `state`, `snapshot` (take_snapshot),
    `devices`: as for `AdmissionController`."""
    from simenv.service.admission.controller import AdmissionController

    return AdmissionController(config.pools, state, snapshot, devices)


def load_noise_checks() -> None:
    """Load the compiled kernels that the first circuit for a device needs, and let helpers compile
    those of its worker."""
    warmup.want("noise")
    warmup.load_stored("attachment")
    from simenv.service.devices import context  # noqa: F401 - loads the checks


CONNECTION_FORMAT = 1
NEW_JOURNAL = "it is new: that of the last start is gone"
START_S = 22.0  # for a standby to begin to serve; clients wait so long after the leader's lease
SHOWN_NODES = 16


class RunningService:
    """A running service, for `__main__`. `on_leave` removes the files of the running service."""

    def __init__(self, loop: EventLoop, paths: EnvironmentPaths, on_leave: ExitStack) -> None:
        self.loop = loop
        self.paths = paths
        self._leaving = on_leave

    def leave(self) -> None:
        """Remove the files that only a running service has."""
        self._leaving.close()


def build_service(
    config: Config, home: Path, environ: Mapping[str, str], *, standby: bool = False
) -> RunningService:
    """Build everything that precedes the first pass of the loop. `standby`: only if the environment
    was not ended. Raises SimenvError."""
    paths = EnvironmentPaths(home, configs.state_folder(config, home, environ))
    for folder in (paths.home, paths.state, paths.logs):
        files.private_folder(folder)
    kernels = configs.kernel_folder(environ)
    compiled.choose(kernels)
    fault_injection.install(config.faults)
    check_settings(config, paths)
    # `on_failure`: for a start that fails halfway.
    with ExitStack() as on_leave, ExitStack() as on_failure:
        place, resumed = databases.place_of(config, paths.journal, standby=standby), ""
        if isinstance(place, Path):  # else the leadership of the database is the lock
            lock = take_lock(paths.state / "journal.lock", config.force_lock)
            on_leave.callback(os.close, lock)
            resumed = choose_journal(paths, config.resume)
        sockets = configs.socket_folder(environ)
        segments = configs.segment_folder(sockets)
        for folder in (sockets, segments):
            on_leave.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = _cluster(config, environ, sockets, on_failure)
        allocation, limits = cluster.allocation, cluster.limits
        config = _checked_pools(config, limits)
        # Nobody restores a private environment, whose folder has a name of its own.
        copies = paths.mark_copies if paths.home.name == config.name else None
        journal = writer.Journal(place, config.durability, paths.mark, copies)
        on_failure.callback(journal.abandon)
        if config.resume and not isinstance(place, Path):
            resumed = check_resumed(journal)
        if journal.is_new and journal.epoch > 1:
            resumed = NEW_JOURNAL
        damaged = drop_damaged_records(journal)
        scrubbed = scrub(journal, paths.copy)
        devices = DeviceRecords(config.pools)
        next_task = journal.records.next_task()
        scheduler = Scheduler(config.pools, limits, journal.epoch, next_task, devices.figures)
        folder = configs.devices_folder(environ)
        devices.emulated = _emulated_devices(config, folder, journal, scheduler, on_leave)
        node = os.uname().nodename
        completions = Completions(journal, Origin("service", node, os.getpid(), __version__))
        accounts = AccountRegistry(config, scheduler, journal)
        submit_queue = SubmitQueue(scheduler, journal, None, completions, accounts)
        replayed = replay(journal, scheduler, submit_queue, completions)
        log.info("replayed: %d queued, %d final, %.2f s", *msgspec.structs.astuple(replayed))
        shared = len(limits.nodes) > 1 or not isinstance(place, Path)
        results = files.private_folder(paths.home / "results" if shared else paths.results)
        endpoints = _endpoints(config, paths, sockets, results, limits, journal, on_leave)
        listener = endpoints.listener
        on_failure.callback(listener.close)
        lease = ConnectionFileLease(paths.connection, listener.keep_sockets)
        keys = endpoints.workers.worker_keys
        environ_of_workers = _with_segments(environ, segments, allocation)
        workers = processes.WorkerProcesses(
            cluster.launcher, config, paths, results, kernels, environ_of_workers, keys
        )
        refreshes = DeviceRefreshes(config.devices, folder, environ)
        on_leave.callback(refreshes.close)
        passed = {*chain(*workers.passed.values(), *refreshes.passed.values())}
        for variable in passed:
            os.environ.pop(variable, None)
        site = site_jobs_of(config.pools, paths.jobs, journal.epoch, environ, passed)
        if site is not None:
            on_leave.callback(site.close)
            workers.job_nodes = JobNodes(
                config, scheduler, listener, endpoints.workers, site, paths.logs
            )
        is_distributed = limits.max_ranks > 1 or len(limits.nodes) > 1
        exposure = cluster.launcher.exposure if is_distributed else ""
        ended, end_s = journal.records.finished.counts(), allocation.end_s
        has_keys = "keys" in config.identity.use
        marked = "" if journal.mark is None else journal.mark.error
        notes = (resumed, marked, *(text for _, text in scrubbed.messages()))
        resumed = "; ".join(filter(None, notes))
        facts = RuntimeFacts(
            node, ended, resumed, limits.launcher, allocation.source, end_s, exposure
        )
        loop = EventLoop(
            *(config, listener, journal, scheduler, submit_queue, completions, workers),
            _maintenance(config, paths),
            KeyCommands(paths.keys, listener, endpoints.own_key, enabled=has_keys),
            ResultRequests(config, journal, scheduler, completions, results, accounts),
            *(lease, facts, devices),
        )
        loop.monitoring.telemetry = TelemetryRecorder(paths.telemetry)
        on_failure.callback(loop.monitoring.telemetry.close)
        loop.devices.refreshes = refreshes if config.devices else None
        if config.hooks.on:
            loop.executor.hooks = EventHooks(config.name, config.hooks, environ)
            on_leave.callback(loop.executor.hooks.close)
        loop.commands.pools.restore()
        _serve_users(loop, endpoints)
        _start_threads(loop, on_failure)
        lease.announce(endpoints.connection_file(config, node, journal.epoch, sockets))
        on_leave.callback(lease.leave)
        server = endpoints.server
        start_gateway(loop, paths, server, journal.epoch, on_leave)
        for kind, message in (
            ("service.started", f"epoch {journal.epoch}, {replayed.queued} queued"),
            ("allocation.found", allocation_text(allocation)),
            ("launcher.chosen", limits.launcher),
            ("service.listens", server.address if server is not None else ""),
            ("service.meets", endpoints.workers.address),
            ("service.resumed", resumed),
            ("journal.damaged", f"{damaged} records; their tasks run again" if damaged else ""),
            ("journal.damaged", marked),
            *scrubbed.messages(),
            *(("isolation.partial", gap) for gap in workers.isolation_gaps),
        ):
            if message:
                loop.executor.record_event(kind, config.name, message)
        on_failure.pop_all()
        return RunningService(loop, paths, on_leave.pop_all())


def check_settings(config: Config, paths: EnvironmentPaths) -> None:
    """Check what can be checked before anything is opened. Raises ConfigError."""
    check_file_system(paths.state, config.network_state)
    check_engines(config.pools)
    check_isolation(config)


def check_node(config: Config, paths: EnvironmentPaths, environ: Mapping[str, str]) -> None:
    """Check that a service can start on this node: settings, launcher, and places for its
    workers. Raises SimenvError."""
    check_settings(config, paths)
    sockets = configs.socket_folder(environ)
    with ExitStack() as on_leave:
        on_leave.callback(shutil.rmtree, sockets, ignore_errors=True)
        _checked_pools(config, _cluster(config, environ, sockets, on_leave).limits)


def check_ports(config: Config, paths: EnvironmentPaths) -> None:
    """Check that a service can listen on this node at all addresses of the configuration. Raises
    ConfigError."""
    settings = {"listen": config.listen, "identity.listen": config.identity.listen}
    for key in ("listen", "metrics"):
        address = getattr(config.gateway, key)
        settings[f"gateway.{key}"] = f"tcp://{address}" if address else ""
    for setting, address in settings.items():
        if address:
            host, port = configs.listen_parts(address, setting)
            port = last_port(port, paths.server_key) if setting == "listen" else port
            open_socket(resolved(host, setting), port, setting=setting).close()


def _checked_pools(config: Config, limits: ClusterLimits) -> Config:
    pools = resources.with_workers_of_gpus(config.pools, limits)
    resources.check_pools(pools, limits)
    return msgspec.structs.replace(config, pools=pools)


def check_resumed(journal: writer.Journal) -> str:
    """Return a description of the journal that a start continues. Raises NotFoundError if it is
    new."""
    if journal.is_new:
        text = f"no journal to resume: {journal.place} is new"
        raise NotFoundError(text, hint="simenv up starts it")
    return f"from {journal.place}"


def _maintenance(config: Config, paths: EnvironmentPaths) -> JournalMaintenance:
    """Return the threads that maintain a journal of SQLite; a server does it by itself."""
    if config.journal:
        return JournalMaintenance()
    checkpointer = checkpoints.WalCheckpointer(
        paths.journal, extends=config.durability != "process"
    )
    backup = None if config.lifeline else copying.JournalBackup(paths.journal, paths.copy)
    return JournalMaintenance(checkpointer, backup)


class Cluster(msgspec.Struct, frozen=True):
    """Nodes of the environment, the launcher that starts processes on them, and their limits."""

    allocation: Allocation
    launcher: Launcher
    limits: ClusterLimits


def _cluster(
    config: Config, environ: Mapping[str, str], sockets: Path, on_failure: ExitStack
) -> Cluster:
    # A private environment uses this machine only, also within a job of many nodes.
    allocation = resources.allocate(config, {} if config.lifeline else environ)
    launcher = launcher_for(config, allocation, environ, sockets)
    on_failure.callback(launcher.close)
    limits = resources.limits_of(config, allocation, launcher)
    resources.check_time_left(limits)
    return Cluster(allocation, launcher, limits)


def _emulated_devices(
    config: Config, folder: Path, journal: writer.Journal, scheduler: Scheduler, on_leave: ExitStack
) -> resolve.EmulatedDevices:
    """Create the emulated devices, and begin to read those of pools. `folder`: of device files."""
    device_registry = registry.DeviceRegistry(folder, load_noise_checks)
    documents = resolve.NoiseDocuments(journal, partial(resolve.named_documents, scheduler.state))
    devices = resolve.EmulatedDevices(config.pools, device_registry, documents)
    on_leave.callback(device_registry.close)
    devices.drifting = drifting.DriftingDevices(
        config.pools, device_registry, folder, journal, scheduler.state
    )
    devices.problems()  # begins to read
    return devices


class Endpoints(msgspec.Struct, frozen=True):
    """Sockets of the service, and what clients must know to use them."""

    listener: ZmqListener
    workers: WorkerEndpoint
    public_key: str  # of this start of the service
    server: ServerFile | None  # None: no clients of other machines
    owner: OwnerEndpoint | None  # of the environment's own user on other machines
    own_key: str  # public key of that user for remote clients' listener; "": there is none
    broker: BrokerProcess | None = None  # None: no users without key files
    moved: str = ""  # why clients of other machines find the service at another port than before

    def connection_file(
        self, config: Config, node: str, epoch: int, sockets: Path
    ) -> ConnectionFile:
        """Return the contents of the connection file."""
        server = self.server
        address, key = ("", "") if server is None else (server.address, server.public_key)
        head = (CONNECTION_FORMAT, config.name, __version__, os.getpid(), node, epoch)
        takeover_s = config.leader_lease_s + START_S if config.journal else 0.0
        ways = str(sockets), self.public_key, address, key
        return ConnectionFile(*head, *ways, self.owner, start_ticks(), takeover_s)


def _endpoints(
    config: Config,
    paths: EnvironmentPaths,
    sockets: Path,
    results: Path,
    limits: ClusterLimits,
    journal: writer.Journal,
    on_leave: ExitStack,
) -> Endpoints:
    """Open all sockets of the service; their file for workers is removed by `on_leave`."""
    keys, launching = new_pair(), config.launcher
    workers = WorkerEndpoint(paths, sockets, results, limits.nodes, launching, journal.epoch, keys)
    on_leave.callback(workers.leave)
    broker: BrokerProcess | None = None
    remote, server, owner, own_key, moved = None, None, workers.owner_endpoint, "", ""
    has_users = config.identity.has_users
    if config.listen or has_users or config.gateway.listen or config.gateway.metrics:
        listen = config.listen or LOOPBACK
        last = last_port(configs.listen_parts(listen)[1], paths.server_key)
        remote, server = open_listener(listen, paths.server_key, os.uname().nodename)
        if last and remote.port != last:
            moved = f"port {last} of the last start is taken: {server.address} replaces it"
        owner = owner_endpoint_of(server)
        own_key = owner.public
    if has_users and remote is not None:
        broker = BrokerProcess(config)
        on_leave.callback(broker.close)
        remote.watch(broker.fileno(), broker.receive)
    listener = ZmqListener(sockets, keys, remote, workers.listener)
    return Endpoints(listener, workers, keys.public, server, owner, own_key, broker, moved)


def _serve_users(loop: EventLoop, endpoints: Endpoints) -> None:
    """Let users enter by tokens, and users of the site without key files, if the configuration says
    so."""
    loop.tokens.server = endpoints.server
    if endpoints.moved:
        log.warning("%s", endpoints.moved)
        loop.executor.record_event("service.moved", loop.config.name, endpoints.moved)
    if endpoints.broker is not None and endpoints.server is not None:
        end = loop.administration.end_reservations
        loop.identities = Identities(loop, endpoints.broker, endpoints.server, end)
        endpoints.broker.child.start()


def _start_threads(loop: EventLoop, on_failure: ExitStack) -> None:
    for part in (loop.maintenance.checkpointer, loop.maintenance.backup):
        if part is not None:
            part.start()
            on_failure.callback(part.stop)
    loop.result_requests.listen(
        loop.executor.record_event, partial(loop.listener.send, PeerKind.CLIENT)
    )
    loop.result_requests.start()
    on_failure.callback(loop.result_requests.stop)


def launcher_for(
    config: Config, allocation: Allocation, environ: Mapping[str, str], sockets: Path
) -> Launcher:
    """Return the launcher that the configuration names, or the best one that works. Raises
    ConfigError if it does not work. The launcher's own files are in a folder next to the
    sockets."""
    folder = files.private_folder(sockets / "launcher")
    agent = configs.launch_agent(config, environ)
    cache_path = configs.home_root(environ) / "launchers.json"
    with suppress(OSError):  # without the cache, every start has to test the launchers again
        cache_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = dict(paths.worker_environ(environ))
    use = config.launcher.use
    try:
        return select_launcher(
            use, allocation, environ, cache_path, folder, agent, worker_environ=seen
        )
    except LaunchError as error:
        raise ConfigError(
            str(error), hint="`simenv doctor` shows what works here; launcher='auto' takes that"
        ) from error


def _with_segments(
    environ: Mapping[str, str], folder: Path, allocation: Allocation
) -> Mapping[str, str]:
    """Create the folder and add the settings by which Open MPI's ranks on this node use it."""
    if len(allocation.nodes) > 1:
        return environ
    try:
        folder.mkdir(mode=0o700)
    except OSError:  # no /dev/shm: ranks use their session's folder
        return environ
    names = (f"OMPI_MCA_btl_{btl}_backing_directory" for btl in ("sm", "vader"))
    return dict.fromkeys(names, str(folder)) | dict(environ)


def allocation_text(allocation: Allocation) -> str:
    """Return a description of the allocation for users: its source, slots and nodes."""
    names = [f"{node.name}:{node.slots}" for node in allocation.nodes]
    shown = ", ".join(names[:SHOWN_NODES]) + (", ..." if len(names) > SHOWN_NODES else "")
    return f"{allocation.source}: {allocation.slots} slots on {shown}"


def check_engines(pools: tuple[PoolSpec, ...]) -> None:
    """Check that the engine of each pool is known, installed and suits it. Raises ConfigError."""
    for pool in pools:
        if pool.engine == "any":
            continue
        card = catalog.card(pool.engine)
        if card is None:
            engine_names = ", ".join(
                entry.name for entry in catalog.engine_cards() if entry.in_default_pool
            )
            hint = f"one of: any, {engine_names}"
            raise ConfigError(f"pool {pool.name!r}: engine {pool.engine!r} is not known", hint=hint)
        if card.install_hint:
            text = f"pool {pool.name!r}: engine {pool.engine!r} is not installed"
            raise ConfigError(text, hint=card.install_hint)
        if card.calls and (pool.ranks > 1 or pool.device):
            has = f"{pool.ranks} ranks" if pool.ranks > 1 else f"device {pool.device}"
            text = f"pool {pool.name!r} has {has}, and its engine {pool.engine!r} runs no circuits"
            raise ConfigError(text, hint="leave ranks and device out")


def check_file_system(folder: Path, forced: bool) -> None:
    """Check the file system of the live journal. Raises ConfigError for a network file system."""
    kind = paths.kind_of(folder)
    if paths.is_network(kind) and not forced:
        text = f"the journal would be on {folder}, a network file system ({kind})"
        hint = "set state_dir to a folder on a local disk, or network_state = true"
        raise ConfigError(text, hint=hint)
