"""Parser of `scontrol show job -d` and `scontrol show node -o`, and the call of scontrol.

A line that is missing or has another form leaves its fact unknown; it is no error.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from launcher.allocation.hostlist import expand_hosts, parse_uint
from launcher.base import AllocationError

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
            count = parse_uint(parts.pop()) or 0 if parts and parts[-1].isdigit() else 1
            count = _number(detail) if how == "CNT" else count
            facts.features.setdefault(name, []).extend([kind, *parts])
            if kind == "gpu":
                facts.gpus[name] = facts.gpus.get(name, 0) + count


def _hosts(text: str) -> list[str]:
    try:
        return expand_hosts(text, "scontrol")
    except AllocationError:
        return []


def _features(text: str) -> list[str]:
    """Return the features of an expression: 'a100&(fast|slow)*2' has three."""
    names = re.split(r"[&|,()\[\]*]", text)
    return [] if text == "(null)" else [name for name in names if name and not name.isdigit()]


def _number(text: str) -> int:
    """Parse the leading number of "21695" or "4000M"; 0 if there is none."""
    match = re.match(r"[0-9]+", text)
    return parse_uint(match[0]) or 0 if match else 0
