"""Resources of an environment, and the workers that fit on its nodes.

The nodes are those of its allocation, limited by its configuration. `hosts` or `hostfile` name the
nodes, else the site's scheduler does, else this host is the only one. `slots` applies to each node
without a number of its own. `memory_bytes` is the memory for simulators on each node;
`memory_per_slot` is the same for each slot, and the maximum of one rank. A setting that contradicts
another one, or the resources of a node, is refused; so is a pool whose workers do not fit on the
nodes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from launcher import base, placement
from launcher.allocation import this_node
from launcher.allocation.discover import discover
from launcher.base import AllocationError
from launcher.selection import INSTALL_COMMAND
from simenv.config import Config
from simenv.errors import ConfigError
from simenv.model import PoolSpec
from simenv.scheduler.core import (
    END_MARGIN_NS,
    MEMORY_SHARE,
    ClusterLimits,
    nodes_of,
    rank_gpus,
)
from simenv.scheduler.state.nodes import WORKER_BYTES, WORKERS_PER_SLOT, most_resident
from simenv.service.workers.job_nodes import nodes_of_jobs
from simenv.text import size

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
    each = min(spec.memory_bytes or WORKER_BYTES, WORKER_BYTES)  # as in `nodes.most_resident`
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
