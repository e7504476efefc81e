"""Which nodes are ours: named by somebody, given by the site, or this machine.

The first that says anything is taken: hosts, hostfile, Slurm, PBS, this machine. Apart from the
files named and what this machine has, nothing is read but the given environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from launcher.allocation import hostfile as named
from launcher.allocation import pbs, scontrol, slurm
from launcher.allocation.hostlist import LOOPBACK, same_host
from launcher.allocation.this_node import this_machine
from launcher.base import Allocation, AllocationError, Node

_ALONE = "this machine"


def discover(
    environ: Mapping[str, str],
    *,
    hosts: str = "",
    hostfile: str = "",
    memory_per_slot: int = 0,
    slots: int = 0,
    nodes_per_dvm: int = 0,
    ask: slurm.Ask = scontrol.ask,
    here: Node | None = None,
) -> Allocation:
    """The nodes that are ours. Raises AllocationError.

    `hosts`, `hostfile`: what the user names; a host without a number has this machine's cores if it
    is this machine, else one slot. `memory_per_slot`: in bytes, overrides what is found. `slots`:
    of each node whose number the user does not name. `nodes_per_dvm`: nodes of a block. `here`:
    what this machine has, if not what it shows. Memory that nobody tells is taken to be as large,
    for each slot, as on this machine; `source` says so.
    """
    here = here or this_machine()
    found = _found(environ, hosts, hostfile, ask, here)
    user_said = bool(hosts or hostfile)
    nodes = [
        _with_slots(node, here, 0 if user_said and node.slots else slots) for node in found.nodes
    ]
    _check_distinct(nodes, found.source)
    source = found.source
    if memory_per_slot:
        nodes = [replace(node, memory_bytes=node.slots * memory_per_slot) for node in nodes]
    else:
        if any(not node.memory_bytes for node in nodes):
            source += ", memory assumed to be as here"
        nodes = [_with_memory(node, here) for node in nodes]
    size = nodes_per_dvm or len(nodes)
    return Allocation(
        tuple(replace(node, block=place // size) for place, node in enumerate(nodes)),
        source,
        found.end_s,
    )


def _found(
    environ: Mapping[str, str], hosts: str, hostfile: str, ask: slurm.Ask, here: Node
) -> Allocation:
    if hosts:
        return named.from_words(hosts)
    if hostfile:
        return named.from_file(Path(hostfile))
    if slurm.job_id(environ):
        return slurm.read(environ, ask)
    if environ.get("PBS_NODEFILE"):
        return pbs.read(environ)
    return Allocation((here,), _ALONE)


def _check_distinct(nodes: list[Node], source: str) -> None:
    """A machine under two names would be given out twice. AllocationError."""
    seen: dict[str, list[str]] = {}
    for node in nodes:
        alike = seen.setdefault(node.name.lower().partition(".")[0], [])
        for other in alike:
            if same_host(node.name, other):
                both = node.name if node.name == other else f"{other} and {node.name}"
                raise AllocationError(
                    f"{source}: one machine stands there twice, as {both}",
                    hint="name each host once, with all its slots: node1:4",
                )
        alike.append(node.name)


def _is_here(node: Node, here: Node) -> bool:
    return node.name in LOOPBACK or same_host(node.name, here.name)


def _with_slots(node: Node, here: Node, slots: int) -> Node:
    own = _is_here(node, here)
    count = slots or node.slots or (here.slots if own else 1)
    return replace(node, name=here.name if node.name in LOOPBACK else node.name, slots=count)


def _with_memory(node: Node, here: Node) -> Node:
    """What the site says, bounded by what this machine really has where it is this machine."""
    share = min(here.memory_bytes, here.memory_bytes // here.slots * node.slots)
    memory = node.memory_bytes or share
    return replace(
        node, memory_bytes=min(memory, here.memory_bytes) if _is_here(node, here) else memory
    )
