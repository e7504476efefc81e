"""The nodes of the Slurm job we are in: its variables, and what only `scontrol` tells.

A node's slots are its CPUs of the job, not its tasks: workers are threads on CPUs, and a job that
asked for one task of eight CPUs has room for eight of them. A count-only GRES and an untracked
memory set no variable, and `scontrol` is asked for them; that it is missing is no error. Nodes come
with 0 for what nobody tells.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from launcher.allocation.hostlist import MAX_HOSTS, MAX_SLOTS, counts, hosts, whole_number
from launcher.allocation.scontrol import JobFacts, NodeFacts, job_facts, node_facts
from launcher.base import Allocation, AllocationError, Node

Ask = Callable[[Sequence[str]], str]
_MIB = 2**20
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)\Z")
_GPUS = re.compile(r"(?:[\w.-]+:)?([0-9]{1,6})\Z")
_UNITS = {"": _MIB, "K": 2**10, "M": _MIB, "G": 2**30, "T": 2**40}
_LISTS = ("SLURM_JOB_NODELIST", "SLURM_NODELIST")


def job_id(environ: Mapping[str, str]) -> str:
    """The job we are in; "" if in none: a login node may have SLURM_* variables too."""
    found = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or ""
    lists = [name for name in environ if name.startswith(_LISTS) and environ[name]]
    return found if lists else ""


def read(environ: Mapping[str, str], ask: Ask) -> Allocation:
    """The job's nodes; AllocationError if its variables make no sense."""
    job = job_id(environ)
    groups = _groups(environ)
    told = job_facts(ask(("scontrol", "show", "job", "-d", job)))
    nodes: dict[str, Node] = {}
    for number, suffix in enumerate(groups):
        for node in _nodes(environ, suffix, number, told):
            there = nodes.get(node.name)
            nodes[node.name] = node if there is None else _joined(there, node)
    facts = node_facts(ask(("scontrol", "show", "node", "-o", ",".join(nodes))))
    found = tuple(_completed(node, facts.get(node.name)) for node in nodes.values())
    source = f"Slurm job {job}" + (f" of {len(groups)} groups" if len(groups) > 1 else "")
    return Allocation(found, source, _end_s(environ, told))


def _groups(environ: Mapping[str, str]) -> list[str]:
    """What the names of the variables of each group end with."""
    size = environ.get("SLURM_HET_SIZE") or environ.get("SLURM_PACK_SIZE") or "0"
    groups = whole_number(size, MAX_HOSTS)
    if groups is None:
        raise AllocationError(
            f"SLURM_HET_SIZE = {size[:80]!r} is not a number of groups",
            hint="name the nodes yourself: --hosts node1:2,node2:2",
        )
    for word in ("_HET_GROUP_", "_PACK_GROUP_"):  # the second until Slurm 20.02
        suffixes = [f"{word}{number}" for number in range(groups)]
        if any(name + suffix in environ for name in _LISTS for suffix in suffixes):
            return suffixes
    return [""]


def _nodes(environ: Mapping[str, str], suffix: str, group: int, told: JobFacts) -> list[Node]:
    variable = next((name + suffix for name in _LISTS if environ.get(name + suffix)), "")
    if not variable:
        raise AllocationError(
            f"{_LISTS[0]}{suffix} is missing, though this is Slurm job {job_id(environ)}",
            hint="name the nodes yourself: --hosts node1:2,node2:2",
        )
    names = hosts(environ[variable], variable)
    slots = _slots(environ, suffix, len(names))
    memory = _memory(environ, suffix, slots)
    gpus = _gpus(environ, suffix, len(names))
    partition = environ.get(f"SLURM_JOB_PARTITION{suffix}", "")
    found = []
    for name, count, memory_bytes in zip(names, slots, memory, strict=True):
        told_gpus, told_features = told.of(name)
        features = (partition, *told_features)
        found.append(
            Node(
                name,
                count,
                memory_bytes or told.memory_bytes.get(name, 0),
                told_gpus or gpus,
                tuple(dict.fromkeys(word for word in features if word)),
                group,
            )
        )
    return found


def _slots(environ: Mapping[str, str], suffix: str, nodes: int) -> list[int]:
    cpus = f"SLURM_JOB_CPUS_PER_NODE{suffix}"
    if environ.get(cpus):
        return counts(environ[cpus], cpus, nodes)
    tasks = f"SLURM_TASKS_PER_NODE{suffix}"
    if not environ.get(tasks):
        return [0] * nodes
    each = f"SLURM_CPUS_PER_TASK{suffix}"
    per_task = counts(environ.get(each) or "1", each, 1)[0]
    return [min(MAX_SLOTS, count * per_task) for count in counts(environ[tasks], tasks, nodes)]


def _memory(environ: Mapping[str, str], suffix: str, slots: Sequence[int]) -> list[int]:
    per_node = _size(environ, f"SLURM_MEM_PER_NODE{suffix}")
    if per_node:
        return [per_node] * len(slots)
    per_cpu = _size(environ, f"SLURM_MEM_PER_CPU{suffix}")
    return [count * per_cpu for count in slots]


def _size(environ: Mapping[str, str], variable: str) -> int:
    """Bytes; Slurm counts in MiB. 0: all the node has, or not said."""
    text = environ.get(variable) or "0"
    match = _SIZE.match(text)
    if not match:
        raise AllocationError(
            f"{variable} = {text[:80]!r} is not an amount of memory", hint="set --memory-per-slot"
        )
    return int(match[1]) * _UNITS[match[2]]


def _gpus(environ: Mapping[str, str], suffix: str, nodes: int) -> int:
    """Of each node, as far as variables tell: "2" or "a100:2"."""
    text = environ.get(f"SLURM_GPUS_PER_NODE{suffix}", "")
    if not text and nodes == 1:
        text = environ.get(f"SLURM_GPUS_ON_NODE{suffix}", "")
    match = _GPUS.match(text)
    return int(match[1]) if match else 0


def _joined(one: Node, other: Node) -> Node:
    """A node that two groups share."""
    return replace(
        one,
        slots=one.slots + other.slots,
        memory_bytes=one.memory_bytes + other.memory_bytes,
        gpus=one.gpus + other.gpus,
        features=tuple(dict.fromkeys((*one.features, *other.features))),
    )


def _completed(node: Node, facts: NodeFacts | None) -> Node:
    if facts is None:
        return node
    memory = node.memory_bytes
    if not memory and facts.cpus:  # our share of it by CPUs: others may have the rest
        memory = facts.memory_bytes * min(node.slots or facts.cpus, facts.cpus) // facts.cpus
    features = tuple(dict.fromkeys((*node.features, *facts.features)))
    return replace(node, memory_bytes=memory, features=features)


def _end_s(environ: Mapping[str, str], told: JobFacts) -> float:
    """What scontrol says: the variable is of the job's begin, and the end may have been moved."""
    ends = [moment for word in told.ends if (moment := _moment_s(word))]
    text = environ.get("SLURM_JOB_END_TIME", "")
    return min(ends) if ends else float(whole_number(text) or 0)


def _moment_s(word: str) -> float:
    """Seconds since 1970 of what scontrol prints; 0 for "Unknown"."""
    if (seconds := whole_number(word)) is not None:
        return float(seconds)
    try:
        return time.mktime(time.strptime(word, "%Y-%m-%dT%H:%M:%S"))
    except (OverflowError, ValueError):
        return 0.0
