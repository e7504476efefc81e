"""Nodes of the current Slurm job, from its variables and from `scontrol`.

A node's slots are its CPUs of the job, not its tasks: workers are threads on CPUs, and a job that
asked for one task of eight CPUs can run eight threads. A count-only GRES and memory that Slurm does
not track set no variable; `scontrol` reports them, and it is no error if it is missing. Values that
are not reported are 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from launcher.allocation import hostlist
from launcher.base import Allocation, AllocationError, Node

# Parser of `scontrol show job -d` and `scontrol show node -o`, and the call of scontrol.
#
# A line that is missing or has another form leaves its fact unknown; it is no error.

TIMEOUT_S = 3.0
_MIB = 2**20
_FIELD = re.compile(r"(?:^|\s)([A-Za-z_/:]+)=(\S*)")
_GRES = re.compile(r"(?:gres[:/])?([A-Za-z][\w.-]*)((?:[:=][\w.-]+)*)(?:\((\w+):([^)]*)\))?")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Resources of a whole node, including those of other jobs."""

    cpus: int
    memory_bytes: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Resources of all components of a job. Keys of the dictionaries are node names."""

    ends: list[str] = field(default_factory=list)  # as printed
    memory_bytes: dict[str, int] = field(default_factory=dict)
    gpus: dict[str, int] = field(default_factory=dict)
    features: dict[str, list[str]] = field(default_factory=dict)

    def of(self, node: str) -> tuple[int, list[str]]:
        """Return GPUs and features of a node."""
        return self.gpus.get(node, 0), self.features.get(node, [])


def run_scontrol(argv: Sequence[str]) -> str:
    """Return the program's output; "" if it is missing, fails or exceeds TIMEOUT_S."""
    environ = {**os.environ, "SLURM_TIME_FORMAT": "%s"}  # Unix times, which need no time zone
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environ,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def job_facts(text: str) -> JobFacts:
    """Parse `scontrol show job -d ID`."""
    facts = JobFacts()
    nodes: list[str] = []  # of the component that is being read
    for line in text.splitlines():
        fields = dict(_FIELD.findall(line))
        if "EndTime" in fields and "StartTime" in fields:
            facts.ends.append(fields["EndTime"])
        if line.lstrip().startswith("JobId="):
            nodes = []
        elif line.lstrip().startswith("Nodes="):
            names = _hosts(fields["Nodes"])
            nodes += names
            _add_node_facts(facts, names, fields)
        elif line.lstrip().startswith("Features="):
            for name in nodes:
                facts.features.setdefault(name, []).extend(_features(fields["Features"]))
    return facts


def node_facts(text: str) -> dict[str, NodeFacts]:
    """Parse `scontrol show node -o LIST`."""
    facts = {}
    for line in text.splitlines():
        fields = dict(_FIELD.findall(line))
        if "NodeName" in fields:
            facts[fields["NodeName"]] = NodeFacts(
                _number(fields.get("CPUTot", "")),
                _number(fields.get("RealMemory", "")) * _MIB,
                tuple(_features(fields.get("ActiveFeatures", ""))),
            )
    return facts


def _add_node_facts(facts: JobFacts, names: list[str], fields: dict[str, str]) -> None:
    memory = _number(fields.get("Mem", "")) * _MIB
    for name in names:
        facts.memory_bytes[name] = facts.memory_bytes.get(name, 0) + memory
        for kind, kinds, how, detail in _GRES.findall(fields.get("GRES", "")):
            parts = [part for part in re.split("[:=]", kinds) if part]
            count = hostlist.parse_uint(parts.pop()) or 0 if parts and parts[-1].isdigit() else 1
            count = _number(detail) if how == "CNT" else count
            facts.features.setdefault(name, []).extend([kind, *parts])
            if kind == "gpu":
                facts.gpus[name] = facts.gpus.get(name, 0) + count


def _hosts(text: str) -> list[str]:
    try:
        return hostlist.expand_hosts(text, "scontrol")
    except AllocationError:
        return []


def _features(text: str) -> list[str]:
    """Return the features of an expression: 'a100&(fast|slow)*2' has three."""
    names = re.split(r"[&|,()\[\]*]", text)
    return [] if text == "(null)" else [name for name in names if name and not name.isdigit()]


def _number(text: str) -> int:
    """Parse the leading number of "21695" or "4000M"; 0 if there is none."""
    match = re.match(r"[0-9]+", text)
    return hostlist.parse_uint(match[0]) or 0 if match else 0


RunScontrol = Callable[[Sequence[str]], str]

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
    groups = hostlist.parse_uint(size, hostlist.MAX_HOSTS)
    if groups is None:
        text = f"SLURM_HET_SIZE = {size[:80]!r} is not a number of groups"
        raise AllocationError(text, hint=hostlist.NAME_THE_NODES)
    for prefix in ("_HET_GROUP_", "_PACK_GROUP_"):  # the second until Slurm 20.02
        suffixes = [f"{prefix}{number}" for number in range(groups)]
        if any(name + suffix in environ for name in _LISTS for suffix in suffixes):
            return suffixes
    return [""]


def _nodes(environ: Mapping[str, str], suffix: str, group: int, job: JobFacts) -> list[Node]:
    variable = next((name + suffix for name in _LISTS if environ.get(name + suffix)), "")
    if not variable:
        text = f"{_LISTS[0]}{suffix} is missing, though this is Slurm job {job_id(environ)}"
        raise AllocationError(text, hint=hostlist.NAME_THE_NODES)
    names = hostlist.expand_hosts(environ[variable], variable)
    slots = _slots(environ, suffix, len(names))
    per_node = _size(environ, f"SLURM_MEM_PER_NODE{suffix}")
    per_cpu = 0 if per_node else _size(environ, f"SLURM_MEM_PER_CPU{suffix}")
    memory = [per_node or count * per_cpu for count in slots]
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
        return hostlist.expand_counts(environ[cpus], cpus, nodes)
    tasks = f"SLURM_TASKS_PER_NODE{suffix}"
    if not environ.get(tasks):
        return [0] * nodes
    each = f"SLURM_CPUS_PER_TASK{suffix}"
    per_task = hostlist.expand_counts(environ.get(each) or "1", each, 1)[0]
    return [
        min(hostlist.MAX_SLOTS, count * per_task)
        for count in hostlist.expand_counts(environ[tasks], tasks, nodes)
    ]


def _size(environ: Mapping[str, str], variable: str) -> int:
    """Parse an amount of memory in bytes; Slurm's unit is MiB. 0: the whole node, or unknown."""
    text = environ.get(variable) or "0"
    match = _SIZE.match(text)
    if not match:
        hint = "set memory_per_slot='2GiB', or another amount"
        raise AllocationError(f"{variable} = {text[:80]!r} is not an amount of memory", hint=hint)
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
    """Return the end of the job as Unix time; 0: unknown. scontrol's time is preferred: the
    variable is set when the job begins, and the end may change."""
    ends = [end_s for text in job.ends if (end_s := _unix_time_s(text))]
    text = environ.get("SLURM_JOB_END_TIME", "")
    return min(ends) if ends else float(hostlist.parse_uint(text) or 0)


def _unix_time_s(text: str) -> float:
    """Parse a time that scontrol prints to Unix seconds; 0 for "Unknown"."""
    if (seconds := hostlist.parse_uint(text)) is not None:
        return float(seconds)
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (OverflowError, ValueError):
        return 0.0
