"""Worker processes, and the resources that they may use.

Start, address and end worker processes; the scheduler decides when and why. Invariant: a worker is
identified by its name and start. A message or process end of an earlier start of that name never
affects the present one.

Resources of an environment: the nodes of its allocation, limited by its configuration. `hosts` or
`hostfile` name the nodes, else the site's scheduler does, else this host is the only one. `slots`
applies to each node without a number of its own. `memory_bytes` is the memory for simulators on
each node; `memory_per_slot` is the same for each slot, and the maximum of one rank. A setting that
contradicts another one, or the resources of a node, is refused; so is a pool whose workers do not
fit on the nodes.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from launcher import base, placement
from launcher.allocation import this_node
from launcher.allocation.discover import discover
from launcher.base import AllocationError, Command, LaunchError
from launcher.selection import INSTALL_COMMAND
from simenv.config import Config, EnvironmentPaths
from simenv.config.paths import gpu_environ, passed_environ, worker_environ
from simenv.errors import ConfigError
from simenv.model import PoolSpec
from simenv.model.calls import FUNCTIONS
from simenv.scheduler.core import (
    END_MARGIN_NS,
    MEMORY_SHARE,
    ClusterLimits,
    StartWorker,
    nodes_of,
    rank_gpus,
)
from simenv.scheduler.state.pools import WORKER_BYTES, WORKERS_PER_SLOT, most_resident
from simenv.service.workers import account_users
from simenv.service.workers.endpoints import WorkerKeys
from simenv.service.workers.isolation import WorkerIsolation
from simenv.service.workers.job_nodes import JobNodes, nodes_of_jobs
from simenv.text import size

LOG_TAIL_BYTES = 2_000
LOG_MAX_BYTES = 8 * 2**20
MAX_COMPILERS = 4  # more compiling processes would wait for one another
MACHINE_GRACE_S = 5.0  # for a worker to cancel the job of its machine


class WorkerPeer(msgspec.Struct):
    """Socket addresses of a worker; each is empty until the worker has sent a message through that
    socket."""

    start: int
    work: bytes = b""
    control: bytes = b""
    has_machine: bool = False


class WorkerProcesses:
    """Processes and sockets of workers, by name. Used from the main thread."""

    def __init__(
        self,
        launcher: base.Launcher,
        config: Config,
        paths: EnvironmentPaths,
        results: Path,
        kernels: Path,
        environ: Mapping[str, str],
        keys: WorkerKeys | None = None,
    ) -> None:
        """`results`: the folder of large results, by its path on all nodes. `keys`: of workers on
        other nodes; None: there are no other nodes."""
        self.isolation = None
        if config.isolation == "account":
            numbers = account_users.numbers_of(config.isolation_uids)
            users = account_users.unavailable_reason(numbers) or account_users.AccountUsers(
                numbers, paths.state / account_users.FILE
            )
            self.isolation = WorkerIsolation(results, config.name, users)
        self._launcher = launcher
        self._keys = keys if keys is not None else WorkerKeys(paths.joining, None)
        self._paths = paths
        self._results = results
        self._environ = worker_environ(environ)
        # Variables that the provider of a pool reads, which no other process gets.
        self.passed = {
            pool.name: passed_environ(environ, pool.environ)
            for pool in config.pools
            if pool.environ
        }
        self._import_from = os.pathsep.join(config.import_from)
        self._peers: dict[str, WorkerPeer] = {}
        self._names: dict[bytes, str] = {}  # by work socket
        self._beating: dict[bytes, str] = {}  # by control socket
        self.job_nodes: JobNodes | None = None  # None: all nodes are of the allocation
        self._log_begins: dict[str, int] = {}  # bytes of earlier processes of that name
        self._ending: dict[str, float] = {}  # terminated; monotonic time at which they are killed
        self._argv = (
            *("--lease-s", str(config.worker_lease_s)),
            *("--kernels", str(kernels)),
            *("--checkpoint-s", str(config.checkpoint_s)),
            *(("--sync",) if config.durability != "process" else ()),
        )

    def start(self, action: StartWorker, pool: PoolSpec) -> str:
        """Start a worker of that pool. Returns the error, or ""."""
        log = self._log(action.worker)
        # A machine is no code of users, and needs the network.
        isolation = None if pool.provider else self.isolation
        _rotate(log, LOG_MAX_BYTES if isolation is None else 0)
        self._log_begins[action.worker] = log.stat().st_size if log.exists() else 0
        ranks = sum(share.ranks for share in action.shares) or 1
        results = self._results
        if isolation is not None:
            try:
                results = isolation.make(action.worker, action.start)
            except ConfigError as error:
                return str(error)
        passed = self.passed.get(pool.name, {})
        nodes = [share.node for share in action.shares if passed and share.node]
        if remote := [node for node in nodes if not this_node.is_this_node(node)]:
            # A command line there shows them to every user of the node.
            return f"variables of environ are not sent to {remote[0]}: let nodes name this node"
        node = action.shares[0].node if action.shares else ""
        by_job = self.job_nodes is not None and node in self.job_nodes
        argv = (
            *(sys.executable, "-P", "-m", "simenv.worker"),
            # The agent of a job has the file in its own folder.
            *("--service", "worker.json" if by_job else str(self._paths.joining.resolve())),
            *self._argv,
            *("--results", str(results)),
            *("--name", action.worker),
            *("--start", str(action.start)),
            *("--engine", pool.engine),
            *("--ranks", str(ranks)),
            *(("--gpus", ",".join(action.gpus)) if action.gpus and ranks > 1 else ()),
            *("--log", str(log)),
            *("--parent", "0"),
            *(("--provider", pool.provider) if pool.provider else ()),
            *(("--import-from", self._import_from) if _imports(pool, isolation) else ()),
            *(("--command", pool.command) if pool.command else ()),
            *(("--isolated",) if isolation is not None else ()),
        )
        command = Command(
            action.worker,
            argv,
            (
                *(() if by_job else self._environ),
                *(gpu_environ(action.gpus[0]) if action.gpus and ranks == 1 else ()),
                *passed.items(),
            ),
            log,
            self._paths.home,
            action.start,
            action.shares,
        )
        if isolation is not None:
            is_local = ranks == 1 and self._launcher.name.startswith("local")
            is_local = is_local and (not node or this_node.is_this_node(node))
            command = isolation.confined(command, results, is_local=is_local)
        try:
            pair = self._keys.make(action.worker, action.start, write=not by_job)
            if by_job and self.job_nodes is not None and pair is not None:
                pid = self.job_nodes.start_worker(node, command, pair)
            else:
                pid = self._launcher.start(command)
        except (ConfigError, LaunchError) as error:
            self._keys.remove(action.worker, action.start)
            if isolation is not None:
                isolation.ended(action.worker, action.start)
            return str(error)
        if isolation is not None:
            isolation.started(action.worker, pid)
        self._forget(action.worker)
        self._peers[action.worker] = WorkerPeer(action.start, has_machine=bool(pool.provider))
        return ""

    def joined(self, name: str, start: int, peer: bytes) -> bool:
        """Record the work socket of a worker at its first message. Returns False if there is no
        such start of a worker, or if it has joined through another socket: no peer can take over a
        live worker."""
        worker = self._peers.get(name)
        if worker is None or worker.start != start or worker.work not in (b"", peer):
            return False
        if not worker.work and self._is_of_another(name, peer):
            return False
        worker.work = peer
        self._names[peer] = name
        return True

    def beats(self, name: str, start: int, peer: bytes) -> bool:
        """Record the control socket of a worker at a heartbeat. Returns False if there is no such
        start of a worker, or if it used another socket before."""
        worker = self._peers.get(name)
        if worker is None or worker.start != start or worker.control not in (b"", peer):
            return False
        if not worker.control and self._is_of_another(name, peer):
            return False
        worker.control = peer
        self._beating[peer] = name
        return True

    def _is_of_another(self, name: str, peer: bytes) -> bool:
        """Return whether a socket is that of another worker, which must not join as this one."""
        return any(table.get(peer, name) != name for table in (self._names, self._beating))

    def work_peer(self, name: str) -> bytes:
        worker = self._peers.get(name)
        return worker.work if worker is not None else b""

    def control_peer(self, name: str) -> bytes:
        worker = self._peers.get(name)
        return worker.control if worker is not None else b""

    def name_of(self, peer: bytes) -> str:
        """Return the name of the worker with a work socket; "" if there is none."""
        return self._names.get(peer, "")

    def exited(self) -> list[base.Exit]:
        """Return the ends of workers since the last call, and kill terminated workers that have not
        ended in time."""
        ends = self._launcher.poll_exits()
        if self.job_nodes is not None:
            ends += self.job_nodes.poll_exits()
        if self.isolation is not None:
            self.isolation.kill_orphans(at_once=bool(ends))
        now_s = time.monotonic()
        for name, when_s in list(self._ending.items()):
            if now_s >= when_s:
                del self._ending[name]
                self._launcher.kill(name)
        for end in ends:
            self._ending.pop(end.name, None)
            worker = self._peers.get(end.name)
            if worker is not None and worker.start == end.start:
                self._forget(end.name)
        return ends

    def launcher_events(self) -> list[base.LauncherEvent]:
        """Return the launcher's events since the last call."""
        return self._launcher.poll_events()

    def recheck_node(self, node: str) -> bool:
        """Return whether a lost node can be used again, as `Launcher.recheck_node`."""
        return self._launcher.recheck_node(node)

    def kill(self, name: str) -> None:
        """Kill a worker; one that holds a machine gets MACHINE_GRACE_S to cancel its job first."""
        worker = self._peers.get(name)
        if self.job_nodes is not None and self.job_nodes.signal_worker(name, kill=True):
            return
        if worker is not None and worker.has_machine:
            self._ending.setdefault(name, time.monotonic() + MACHINE_GRACE_S)
            self._launcher.terminate(name)
        else:
            self._launcher.kill(name)

    @property
    def isolation_gaps(self) -> list[str]:
        """What the kernel here cannot do for the isolation of accounts."""
        return [] if self.isolation is None else self.isolation.gaps

    def log_tail(self, name: str) -> str:
        """Return the last lines that the last process of a worker has written to its log."""
        return tail(self._log(name), self._log_begins.get(name, 0))

    def close(self) -> None:
        if self.job_nodes is not None:
            self.job_nodes.close()
        self._launcher.close()
        if self.isolation is not None:
            self.isolation.close()

    def _forget(self, name: str) -> None:
        worker = self._peers.pop(name, None)
        if worker is not None:
            self._names.pop(worker.work, None)
            self._beating.pop(worker.control, None)
            self._keys.remove(name, worker.start)

    def _log(self, name: str) -> Path:
        return self._paths.logs / f"{name}.log"


def start_compilers(
    launcher: base.Launcher, kernels: Path, home: Path, environ: Mapping[str, str]
) -> int:
    """Start processes that compile kernels besides the service and its workers; return their
    number. Raises LaunchError."""
    argv = (sys.executable, "-P", "-m", "simulators.compiler.warmup", str(kernels))
    count = min(MAX_COMPILERS, max(1, len(os.sched_getaffinity(0)) - 1))
    for number in range(1, count + 1):
        name = f"kernels-{number}"
        log = home / f"{name}.log"
        launcher.start(Command(name, argv, worker_environ(environ), log, home))
    return count


def _imports(pool: PoolSpec, isolation: WorkerIsolation | None) -> bool:
    """Return whether the workers of a pool import modules of the environment's user."""
    return bool(pool.provider) or (pool.engine == FUNCTIONS and isolation is None)


def _rotate(log: Path, max_bytes: int) -> None:
    """Rename logs of more bytes, also those of further ranks. The last lines of an account's log
    must not be in the report on a task of another one."""
    for path in (log, *log.parent.glob(f"{log.stem}.r*.log")):
        if path.exists() and path.stat().st_size > max_bytes:
            path.replace(path.with_suffix(".log.old"))


def tail(path: Path, begin: int = 0) -> str:
    """Return the last whole lines of a text file, from that byte on; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell() - begin
            file.seek(max(begin, begin + size - LOG_TAIL_BYTES))
            data = file.read()
    except OSError:
        return ""
    if size > LOG_TAIL_BYTES:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace").rstrip()


SERVICE_SHARE = 0.25  # of this machine's memory: above it the service takes no tasks
LEAST_SERVICE_BYTES = 2**30


def allocate(config: Config, environ: Mapping[str, str]) -> base.Allocation:
    """Return the nodes of the environment. Raises ConfigError if settings contradict the nodes or
    one another."""
    local_node = this_node.this_node()
    if config.memory_bytes and config.memory_per_slot:
        hint = "give one of them"
        raise ConfigError("memory_bytes and memory_per_slot both bound a node's memory", hint=hint)
    try:
        result = discover(
            environ,
            hosts=config.hosts,
            hostfile=config.hostfile,
            memory_per_slot=config.memory_per_slot,
            slots=config.slots,
            nodes_per_dvm=config.launcher.nodes_per_dvm,
            local=local_node,
        )
    except AllocationError as error:
        raise ConfigError(str(error), hint=error.hint or "see `simenv doctor`") from error
    for node in result.nodes:
        _check(node, config, local_node)
    return replace(result, nodes=tuple(_with_local_gpus(node, local_node) for node in result.nodes))


def _with_local_gpus(node: base.Node, local_node: base.Node) -> base.Node:
    """Return the node with the details of this machine's GPUs, if the node is this machine and the
    site does not grant another number of GPUs."""
    if not this_node.is_this_node(node.name) or node.gpus not in (0, local_node.gpus):
        return node
    return replace(node, gpus=local_node.gpus, gpu_details=local_node.gpu_details)


def _check(node: base.Node, config: Config, local_node: base.Node) -> None:
    if config.slots and node.slots != config.slots:
        source = "hosts" if config.hosts else "hostfile"
        text = f"slots = {config.slots}, and {source} gives node {node.name} {node.slots}"
        raise ConfigError(text, hint="leave slots out, or the number of that host")
    if config.memory_bytes > node.memory_bytes:
        raise ConfigError(
            f"memory_bytes = {config.memory_bytes} is more than the {node.memory_bytes} there are"
            f" on node {node.name}"
        )
    if this_node.is_this_node(node.name) and node.memory_bytes > local_node.memory_bytes:
        raise ConfigError(
            f"memory_per_slot = {size(config.memory_per_slot)} for {node.slots} slots is "
            f"{size(node.memory_bytes)}; node {node.name} has {size(local_node.memory_bytes)}",
            hint="less memory for each slot, or fewer slots",
        )


def limits_of(
    config: Config, allocation: base.Allocation, launcher: base.Launcher
) -> ClusterLimits:
    """Return the fixed limits of the environment."""
    nodes = tuple(_with_simulator_memory(node, config) for node in allocation.nodes)
    of_jobs = nodes_of_jobs(config.pools)
    left_s = allocation.end_s - time.time()
    return ClusterLimits(
        slots=sum(node.slots for node in nodes),
        memory_bytes=sum(node.memory_bytes for node in nodes),
        max_queued_tasks=config.max_queued_tasks,
        max_queued_bytes=config.max_queued_bytes,
        silent_ns=round(config.silent_s * 1e9),
        start_timeout_ns=round(config.start_timeout_s * 1e9),
        nodes=nodes + of_jobs,
        max_ranks=launcher.max_ranks,
        memory_per_slot=config.memory_per_slot,
        end_ns=time.monotonic_ns() + round(left_s * 1e9) if allocation.end_s else 0,
        launcher=f"{launcher.name}: {launcher.description}",
        overcommit=config.overcommit,
        service_bytes=config.max_service_bytes
        or max(LEAST_SERVICE_BYTES, int(SERVICE_SHARE * this_node.memory_bytes())),
        isolates_accounts=config.isolation == "account",
    )


def check_time_left(limits: ClusterLimits) -> None:
    """Check the time until the end of the allocation. Raises ConfigError if no task would begin."""
    left_ns = limits.end_ns - time.monotonic_ns()
    if limits.end_ns and left_ns <= END_MARGIN_NS:
        raise ConfigError(
            f"the site takes the nodes back in {max(0, left_ns) / 1e9:.0f} s, and nothing begins in"
            f" the last {END_MARGIN_NS / 1e9:.0f} s",
            hint="ask the site for more time, or start outside this allocation",
        )


def _with_simulator_memory(node: base.Node, config: Config) -> base.Node:
    """Return the node with the part of its memory that is for simulators."""
    memory = config.memory_bytes
    if not memory:
        memory = node.memory_bytes
        if not config.memory_per_slot:
            memory = int(MEMORY_SHARE * memory)
    return replace(node, memory_bytes=memory)


# --- workers on the nodes -------------------------------------------------------------------------

_TOO_LARGE = "fewer ranks, less memory, or other nodes"
_NO_GPU = "ask the site for GPUs (in Slurm: --gpus-per-node=1), or engine=statevector"


def with_workers_of_gpus(
    pools: tuple[PoolSpec, ...], limits: ClusterLimits
) -> tuple[PoolSpec, ...]:
    """Return the pools, where `workers=auto` is replaced by one worker for each GPU of its nodes,
    or for as many GPUs as a worker has ranks. Raises ConfigError for `workers=auto` of an engine
    without GPUs."""
    results = []
    for spec in pools:
        if spec.auto_workers:
            if not rank_gpus(spec):
                raise ConfigError(
                    f"pool {spec.name!r}: workers=auto is one worker for each GPU, and engine"
                    f" {spec.engine!r} uses none",
                    hint="workers=N, or engine=gpu",
                )
            gpus: Counter[int] = Counter()  # by block of nodes, in which the ranks of a worker are
            for node in _nodes_for(spec, limits):
                gpus[node.block] += node.gpus
            count = max(1, sum(number // spec.ranks for number in gpus.values()))
            spec = msgspec.structs.replace(spec, min=count, max=count)
        results.append(spec)
    return tuple(results)


def check_pools(pools: tuple[PoolSpec, ...], limits: ClusterLimits) -> None:
    """Check that all pools fit on the nodes. Raises ConfigError if one of them never can."""
    for spec in pools:
        if spec.ranks > limits.max_ranks:
            raise ConfigError(
                f"pool {spec.name!r} wants {spec.ranks} ranks a worker; "
                f"{limits.max_ranks} can be had ({limits.launcher})",
                hint=f"{INSTALL_COMMAND} brings an MPI; `simenv doctor` tells more",
            )
        placed = placement.place(_worker_request(spec), _free_resources(limits))
        if isinstance(placed, placement.Infeasible):
            text = f"pool {spec.name!r} could never have a worker: {placed.message}"
            raise ConfigError(text, hint=_NO_GPU if placed.resource == "gpus" else _TOO_LARGE)
        others = [other for other in pools if other is not spec]
        fitting = workers_that_fit(spec, limits, spec.min)
        available = workers_that_fit_besides(spec, others, limits, fitting)
        wanted, suffix = spec.min, " beside those of the other pools" if available < fitting else ""
        checked_spec = spec
        if available >= spec.min:  # workers above the minimum may wait for memory to reserve
            wanted, suffix = spec.max, ""
            checked_spec = msgspec.structs.replace(spec, memory_bytes=0)
            available = workers_that_fit(checked_spec, limits, spec.max)
        if available < wanted:
            raise ConfigError(
                f"pool {spec.name!r}: {wanted} workers{worker_text(spec)} do not fit, "
                f"{available} do{suffix}: "
                f"{capacity_text(checked_spec, limits, available, all_nodes=bool(suffix))}",
                hint=f"{available} workers at most; overcommit=True starts more than fit",
            )


def can_place(spec: PoolSpec, limits: ClusterLimits) -> bool:
    """Return whether one worker of the pool can be placed on empty nodes."""
    placed = placement.place(_worker_request(spec), _free_resources(limits))
    return isinstance(placed, placement.Placement)


def workers_that_fit(spec: PoolSpec, limits: ClusterLimits, wanted: int) -> int:
    """Return the number of workers, at most `wanted`, that fit on otherwise empty nodes. Its bounds
    are the memory that they reserve, if any, and the nodes' limits of resident workers."""
    request = _worker_request(spec)
    if not can_place(spec, limits):
        return 0
    if not (limits.overcommit or spec.provider):
        wanted = min(wanted, max_residents(spec, limits) // spec.ranks)
    if not (spec.memory_bytes or request.gpus):
        return wanted
    free_resources = _free_resources(limits)
    count = 0
    while count < wanted:
        placed = placement.place(request, free_resources)
        if not isinstance(placed, placement.Placement):
            break
        free_resources = list(placement.allocate(request, placed, free_resources))
        count += 1
    return count


def workers_that_fit_besides(
    spec: PoolSpec, others: Sequence[PoolSpec], limits: ClusterLimits, wanted: int
) -> int:
    """Return the number of workers, at most `wanted`, that fit besides the smallest number of
    workers of the pools `others`."""
    if limits.overcommit or spec.provider or spec.jobs is not None:  # jobs are of one pool
        return wanted
    used_slots = sum(
        other.min * other.ranks for other in others if not (other.provider or other.jobs)
    )
    all_nodes = PoolSpec("all", memory_bytes=spec.memory_bytes)
    free_slots = max_residents(all_nodes, limits) - used_slots
    return min(wanted, max(0, free_slots) // spec.ranks)


def max_residents(spec: PoolSpec, limits: ClusterLimits) -> int:
    """Return the number of resident ranks that the nodes of this pool can hold."""
    return sum(most_resident(node, spec.memory_bytes) for node in _nodes_for(spec, limits))


def capacity_text(
    spec: PoolSpec, limits: ClusterLimits, fit: int, *, all_nodes: bool = False
) -> str:
    """Explain why at most `fit` workers can be resident: "2 slots x 32 ranks of workers (64), and
    18.8 GiB of memory for 128.0 MiB a rank (150)". `all_nodes`: count the ranks on all nodes,
    without the memory that they reserve."""
    nodes = list(nodes_of(limits)) if all_nodes else _nodes_for(spec, limits)
    each = min(spec.memory_bytes or WORKER_BYTES, WORKER_BYTES)  # as in `pools.most_resident`
    if not all_nodes and fit < max_residents(spec, limits) // spec.ranks:
        each = spec.memory_bytes or each  # the reserved memory is the limit
    slots, memory = sum(node.slots for node in nodes), sum(node.memory_bytes for node in nodes)
    return (
        f"{slots} slots x {WORKERS_PER_SLOT} ranks of workers ({slots * WORKERS_PER_SLOT}), and "
        f"{size(memory)} of memory for {size(each)} a rank "
        f"({sum(node.memory_bytes // each for node in nodes)})"
    )


def worker_text(spec: PoolSpec) -> str:
    """Return the ranks and the reserved memory of a worker, as text behind "workers"."""
    memory = f" of {size(spec.memory_bytes)}" if spec.memory_bytes else ""
    return f" of {spec.ranks} ranks{memory}" if spec.ranks > 1 else memory


def _worker_request(spec: PoolSpec) -> placement.ResourceRequest:
    return placement.ResourceRequest(
        spec.ranks, memory_bytes=spec.memory_bytes, gpus=rank_gpus(spec), nodes=spec.nodes
    )


def _free_resources(limits: ClusterLimits) -> list[placement.NodeResources]:
    return [placement.NodeResources.of(node) for node in nodes_of(limits)]


def _nodes_for(spec: PoolSpec, limits: ClusterLimits) -> list[base.Node]:
    """Return the nodes where workers of a pool may be."""
    return [
        node
        for node in nodes_of(limits)
        if placement.matches(spec.nodes, placement.NodeResources.of(node))
    ]
