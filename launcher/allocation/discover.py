"""Discovery of the allocation: the nodes that the user names, that the site grants, or this node.

The first source that is present is used: hosts, hostfile, Slurm, PBS, this machine. Only the given
environment, the named files and this machine's resources are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from launcher.allocation import hostlist, slurm
from launcher.allocation.hostlist import check_host_name
from launcher.allocation.this_node import this_node
from launcher.base import Allocation, AllocationError, Node

# Nodes of the current PBS job: OpenPBS, PBS Professional and Torque.
#
# The nodefile lists a host once for each of its tasks. If all hosts are listed equally often, the
# variables NCPUS or PBS_NUM_PPN may give the cores of a host too; the larger number is used.


def read(environ: Mapping[str, str]) -> Allocation:
    """Read the job's nodes, with 0 bytes of memory: PBS reports none. Raises AllocationError."""
    path = environ["PBS_NODEFILE"]
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        text = f"PBS_NODEFILE = {path!r} cannot be read: {reason}"
        raise AllocationError(text, hint=hostlist.NAME_THE_NODES) from error
    names = [
        check_host_name(line.strip(), "PBS_NODEFILE", path) for line in text.splitlines() if line
    ]
    if not names:
        hint = hostlist.NAME_THE_NODES
        raise AllocationError(f"PBS_NODEFILE = {path!r} names no host", hint=hint)
    tasks = Counter(names)
    cores = _number(environ, "NCPUS") or _number(environ, "PBS_NUM_PPN")
    if len(set(tasks.values())) > 1:
        cores = 0  # the hosts differ, and the variable describes one of them
    nodes = tuple(Node(name, max(count, cores), 0) for name, count in tasks.items())
    return Allocation(nodes, f"PBS job {environ.get('PBS_JOBID', '')}".rstrip())


def _number(environ: Mapping[str, str], variable: str) -> int:
    text = environ.get(variable) or "0"
    cores = hostlist.parse_uint(text, hostlist.MAX_SLOTS)
    if cores is None:
        hint = hostlist.NAME_THE_NODES
        raise AllocationError(f"{variable} = {text[:80]!r} is not a number of cores", hint=hint)
    return cores


_THIS_MACHINE = "this machine"


def discover(
    environ: Mapping[str, str],
    *,
    hosts: str = "",
    hostfile: str = "",
    memory_per_slot: int = 0,
    slots: int = 0,
    nodes_per_dvm: int = 0,
    run_scontrol: slurm.RunScontrol = slurm.run_scontrol,
    local: Node | None = None,
) -> Allocation:
    """Return the nodes that this environment may use. Raises AllocationError.

    - `hosts`, `hostfile`: nodes that the user names. A host without a number has this machine's
      cores if it is this machine, else one slot.
    - `memory_per_slot`: bytes; overrides the memory that the site reports
    - `slots`: slots of each node for which the user gives no number
    - `nodes_per_dvm`: number of nodes in a block
    - `local`: this machine, by default as it reports itself

    If the memory of a node is unknown, each slot is assumed to have as much as on this machine;
    `source` says so.
    """
    local = local or this_node()
    listed = _from_source(environ, hosts, hostfile, run_scontrol, local)
    named_by_user = bool(hosts or hostfile)
    nodes = [
        _with_slots(node, local, 0 if named_by_user and node.slots else slots)
        for node in listed.nodes
    ]
    _check_distinct(nodes, listed.source)
    source = listed.source
    if memory_per_slot:
        nodes = [replace(node, memory_bytes=node.slots * memory_per_slot) for node in nodes]
    else:
        if any(not node.memory_bytes for node in nodes):
            source += ", memory assumed to be as here"
        nodes = [_with_memory(node, local) for node in nodes]
    size = nodes_per_dvm or len(nodes)
    return Allocation(
        tuple(replace(node, block=index // size) for index, node in enumerate(nodes)),
        source,
        listed.end_s,
    )


def _from_source(
    environ: Mapping[str, str],
    hosts: str,
    hostfile: str,
    run_scontrol: slurm.RunScontrol,
    local: Node,
) -> Allocation:
    if hosts:
        return hostlist.parse_hosts_option(hosts)
    if hostfile:
        return hostlist.read_hostfile(Path(hostfile))
    if slurm.job_id(environ):
        return slurm.read(environ, run_scontrol)
    if environ.get("PBS_NODEFILE"):
        return read(environ)
    return Allocation((local,), _THIS_MACHINE)


def _check_distinct(nodes: list[Node], source: str) -> None:
    """Refuse a machine under two names: its slots would be used twice. Raises AllocationError."""
    seen: dict[str, list[str]] = {}
    for node in nodes:
        similar = seen.setdefault(node.name.lower().partition(".")[0], [])
        for other in similar:
            if hostlist.same_host(node.name, other):
                both = node.name if node.name == other else f"{other} and {node.name}"
                text = f"{source}: one machine is listed twice, as {both}"
                raise AllocationError(text, hint="name each host once, with all its slots: node1:4")
        similar.append(node.name)


def _is_local(node: Node, local: Node) -> bool:
    return node.name in hostlist.LOOPBACK or hostlist.same_host(node.name, local.name)


def _with_slots(node: Node, local: Node, slots: int) -> Node:
    count = slots or node.slots or (local.slots if _is_local(node, local) else 1)
    return replace(
        node, name=local.name if node.name in hostlist.LOOPBACK else node.name, slots=count
    )


def _with_memory(node: Node, local: Node) -> Node:
    """Use the memory that the site reports, on this machine at most what it really has."""
    share = min(local.memory_bytes, local.memory_bytes // local.slots * node.slots)
    memory = node.memory_bytes or share
    if _is_local(node, local):
        memory = min(memory, local.memory_bytes)
    return replace(node, memory_bytes=memory)
