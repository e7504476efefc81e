"""Resources of an environment: the nodes of its allocation, limited by its configuration.

`hosts` or `hostfile` name the nodes, else the site's scheduler does, else this host is the only
one. `slots` applies to each node without a number of its own. `memory_bytes` is the memory for
simulators on each node; `memory_per_slot` is the same for each slot, and the maximum of one rank.
A setting that contradicts another one, or the resources of a node, is refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from launcher.allocation.discover import discover
from launcher.allocation.this_node import is_this_node, this_node
from launcher.allocation.this_node import memory_bytes as this_machine_bytes
from launcher.base import Allocation, AllocationError, Launcher, Node
from simenv.config import Config
from simenv.errors import ConfigError
from simenv.scheduler.core.types import END_MARGIN_NS, ClusterLimits
from simenv.scheduler.routing.engine_choice import size

MEMORY_SHARE = 0.8  # of a node's available memory, for simulators
SERVICE_SHARE = 0.25  # of this machine's memory: above it the service takes no tasks
LEAST_SERVICE_BYTES = 2**30


def allocate(config: Config, environ: Mapping[str, str]) -> Allocation:
    """Return the nodes of the environment. Raises ConfigError if settings contradict the nodes or
    one another."""
    local_node = this_node()
    if config.memory_bytes and config.memory_per_slot:
        raise ConfigError(
            "memory_bytes and memory_per_slot both bound a node's memory", hint="give one of them"
        )
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


def _with_local_gpus(node: Node, local_node: Node) -> Node:
    """Return the node with the details of this machine's GPUs, if the node is this machine and the
    site does not grant another number of GPUs."""
    if not is_this_node(node.name) or node.gpus not in (0, local_node.gpus):
        return node
    return replace(node, gpus=local_node.gpus, gpu_details=local_node.gpu_details)


def _check(node: Node, config: Config, local_node: Node) -> None:
    if config.slots and node.slots != config.slots:
        source = "hosts" if config.hosts else "hostfile"
        raise ConfigError(
            f"slots = {config.slots}, and {source} gives node {node.name} {node.slots}",
            hint="leave slots out, or the number of that host",
        )
    if config.memory_bytes > node.memory_bytes:
        raise ConfigError(
            f"memory_bytes = {config.memory_bytes} is more than the {node.memory_bytes} there are"
            f" on node {node.name}"
        )
    if is_this_node(node.name) and node.memory_bytes > local_node.memory_bytes:
        raise ConfigError(
            f"memory_per_slot = {size(config.memory_per_slot)} for {node.slots} slots is "
            f"{size(node.memory_bytes)}; node {node.name} has {size(local_node.memory_bytes)}",
            hint="less memory for each slot, or fewer slots",
        )


def limits_of(config: Config, allocation: Allocation, launcher: Launcher) -> ClusterLimits:
    """Return the fixed limits of the environment."""
    nodes = tuple(_with_simulator_memory(node, config) for node in allocation.nodes)
    left_s = allocation.end_s - time.time()
    return ClusterLimits(
        slots=sum(node.slots for node in nodes),
        memory_bytes=sum(node.memory_bytes for node in nodes),
        max_queued_tasks=config.max_queued_tasks,
        max_queued_bytes=config.max_queued_bytes,
        silent_ns=round(config.silent_s * 1e9),
        start_timeout_ns=round(config.start_timeout_s * 1e9),
        nodes=nodes,
        max_ranks=launcher.max_ranks,
        memory_per_slot=config.memory_per_slot,
        end_ns=time.monotonic_ns() + round(left_s * 1e9) if allocation.end_s else 0,
        launcher=f"{launcher.name}: {launcher.description}",
        overcommit=config.overcommit,
        service_bytes=config.max_service_bytes
        or max(LEAST_SERVICE_BYTES, int(SERVICE_SHARE * this_machine_bytes())),
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


def _with_simulator_memory(node: Node, config: Config) -> Node:
    """Return the node with the part of its memory that is for simulators."""
    memory = config.memory_bytes
    if not memory:
        memory = node.memory_bytes
        if not config.memory_per_slot:
            memory = int(MEMORY_SHARE * memory)
    return replace(node, memory_bytes=memory)
