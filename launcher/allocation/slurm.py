"""Nodes of the current Slurm job, from its variables and from `scontrol`.

A node's slots are its CPUs of the job, not its tasks: workers are threads on CPUs, and a job that
asked for one task of eight CPUs can run eight threads. A count-only GRES and memory that Slurm does
not track set no variable; `scontrol` reports them, and it is no error if it is missing. Values that
are not reported are 0.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from launcher.allocation.hostlist import (
    MAX_HOSTS,
    MAX_SLOTS,
    NAME_THE_NODES,
    expand_counts,
    expand_hosts,
    parse_uint,
)
from launcher.allocation.scontrol import JobFacts, NodeFacts, job_facts, node_facts
from launcher.base import Allocation, AllocationError, Node

RunScontrol = Callable[[Sequence[str]], str]
_MIB = 2**20
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)\Z")
_GPUS = re.compile(r"(?:[\w.-]+:)?([0-9]{1,6})\Z")
_UNITS = {"": _MIB, "K": 2**10, "M": _MIB, "G": 2**30, "T": 2**40}
_LISTS = ("SLURM_JOB_NODELIST", "SLURM_NODELIST")


def job_id(environ: Mapping[str, str]) -> str:
    """Return the current job's id; "" outside a job, where SLURM_* variables may be set too."""
    job = environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID") or ""
    lists = [name for name in environ if name.startswith(_LISTS) and environ[name]]
    return job if lists else ""


def read(environ: Mapping[str, str], run_scontrol: RunScontrol) -> Allocation:
    """Read the job's nodes. Raises AllocationError if its variables are invalid."""
    job = job_id(environ)
    groups = _groups(environ)
    job_resources = job_facts(run_scontrol(("scontrol", "show", "job", "-d", job)))
    nodes: dict[str, Node] = {}
    for number, suffix in enumerate(groups):
        for node in _nodes(environ, suffix, number, job_resources):
            other = nodes.get(node.name)
            nodes[node.name] = node if other is None else _merge_nodes(other, node)
    facts = node_facts(run_scontrol(("scontrol", "show", "node", "-o", ",".join(nodes))))
    completed = tuple(_add_facts(node, facts.get(node.name)) for node in nodes.values())
    source = f"Slurm job {job}" + (f" of {len(groups)} groups" if len(groups) > 1 else "")
    return Allocation(completed, source, _end_s(environ, job_resources))


def _groups(environ: Mapping[str, str]) -> list[str]:
    """Return the suffix of each component's variables."""
    size = environ.get("SLURM_HET_SIZE") or environ.get("SLURM_PACK_SIZE") or "0"
    groups = parse_uint(size, MAX_HOSTS)
    if groups is None:
        raise AllocationError(
            f"SLURM_HET_SIZE = {size[:80]!r} is not a number of groups",
            hint=NAME_THE_NODES,
        )
    for prefix in ("_HET_GROUP_", "_PACK_GROUP_"):  # the second until Slurm 20.02
        suffixes = [f"{prefix}{number}" for number in range(groups)]
        if any(name + suffix in environ for name in _LISTS for suffix in suffixes):
            return suffixes
    return [""]


def _nodes(environ: Mapping[str, str], suffix: str, group: int, job: JobFacts) -> list[Node]:
    variable = next((name + suffix for name in _LISTS if environ.get(name + suffix)), "")
    if not variable:
        raise AllocationError(
            f"{_LISTS[0]}{suffix} is missing, though this is Slurm job {job_id(environ)}",
            hint=NAME_THE_NODES,
        )
    names = expand_hosts(environ[variable], variable)
    slots = _slots(environ, suffix, len(names))
    memory = _memory(environ, suffix, slots)
    gpus = _gpus(environ, suffix, len(names))
    partition = environ.get(f"SLURM_JOB_PARTITION{suffix}", "")
    nodes = []
    for name, count, memory_bytes in zip(names, slots, memory, strict=True):
        gres_gpus, features = job.of(name)
        nodes.append(
            Node(
                name,
                count,
                memory_bytes or job.memory_bytes.get(name, 0),
                gres_gpus or gpus,
                tuple(dict.fromkeys(feature for feature in (partition, *features) if feature)),
                group,
            )
        )
    return nodes


def _slots(environ: Mapping[str, str], suffix: str, nodes: int) -> list[int]:
    cpus = f"SLURM_JOB_CPUS_PER_NODE{suffix}"
    if environ.get(cpus):
        return expand_counts(environ[cpus], cpus, nodes)
    tasks = f"SLURM_TASKS_PER_NODE{suffix}"
    if not environ.get(tasks):
        return [0] * nodes
    each = f"SLURM_CPUS_PER_TASK{suffix}"
    per_task = expand_counts(environ.get(each) or "1", each, 1)[0]
    return [
        min(MAX_SLOTS, count * per_task) for count in expand_counts(environ[tasks], tasks, nodes)
    ]


def _memory(environ: Mapping[str, str], suffix: str, slots: Sequence[int]) -> list[int]:
    per_node = _size(environ, f"SLURM_MEM_PER_NODE{suffix}")
    if per_node:
        return [per_node] * len(slots)
    per_cpu = _size(environ, f"SLURM_MEM_PER_CPU{suffix}")
    return [count * per_cpu for count in slots]


def _size(environ: Mapping[str, str], variable: str) -> int:
    """Parse an amount of memory in bytes; Slurm's unit is MiB. 0: the whole node, or unknown."""
    text = environ.get(variable) or "0"
    match = _SIZE.match(text)
    if not match:
        raise AllocationError(
            f"{variable} = {text[:80]!r} is not an amount of memory", hint="set --memory-per-slot"
        )
    return int(match[1]) * _UNITS[match[2]]


def _gpus(environ: Mapping[str, str], suffix: str, nodes: int) -> int:
    """Return the GPUs of each node, as far as variables give them: "2" or "a100:2"."""
    text = environ.get(f"SLURM_GPUS_PER_NODE{suffix}", "")
    if not text and nodes == 1:
        text = environ.get(f"SLURM_GPUS_ON_NODE{suffix}", "")
    match = _GPUS.match(text)
    return int(match[1]) if match else 0


def _merge_nodes(node: Node, other: Node) -> Node:
    """Merge the parts of a node that two components of a job share."""
    return replace(
        node,
        slots=node.slots + other.slots,
        memory_bytes=node.memory_bytes + other.memory_bytes,
        gpus=node.gpus + other.gpus,
        features=tuple(dict.fromkeys((*node.features, *other.features))),
    )


def _add_facts(node: Node, facts: NodeFacts | None) -> Node:
    if facts is None:
        return node
    memory = node.memory_bytes
    if not memory and facts.cpus:  # the job's share by CPUs: other jobs may use the rest
        memory = facts.memory_bytes * min(node.slots or facts.cpus, facts.cpus) // facts.cpus
    features = tuple(dict.fromkeys((*node.features, *facts.features)))
    return replace(node, memory_bytes=memory, features=features)


def _end_s(environ: Mapping[str, str], job: JobFacts) -> float:
    """Return the end of the job as Unix time; 0: unknown.

    scontrol's time is preferred: the variable is set when the job begins, and the end may change.
    """
    ends = [end_s for text in job.ends if (end_s := _unix_time_s(text))]
    text = environ.get("SLURM_JOB_END_TIME", "")
    return min(ends) if ends else float(parse_uint(text) or 0)


def _unix_time_s(text: str) -> float:
    """Parse a time that scontrol prints to Unix seconds; 0 for "Unknown"."""
    if (seconds := parse_uint(text)) is not None:
        return float(seconds)
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (OverflowError, ValueError):
        return 0.0
