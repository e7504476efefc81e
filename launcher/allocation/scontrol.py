"""What `scontrol show job -d` and `scontrol show node -o` print, and asking for it.

Where a line is missing or reads otherwise than expected, the fact is just not known.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from launcher.allocation.hostlist import hosts, whole_number
from launcher.base import AllocationError

TIMEOUT_S = 3.0
_MIB = 2**20
_WORD = re.compile(r"(?:^|\s)([A-Za-z_/:]+)=(\S*)")
_GRES = re.compile(r"(?:gres[:/])?([A-Za-z][\w.-]*)((?:[:=][\w.-]+)*)(?:\((\w+):([^)]*)\))?")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Of a whole node, whoever uses it."""

    cpus: int
    memory_bytes: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Of all groups of a job. The dictionaries have the nodes' names as keys."""

    ends: list[str] = field(default_factory=list)  # as printed
    memory_bytes: dict[str, int] = field(default_factory=dict)
    gpus: dict[str, int] = field(default_factory=dict)
    features: dict[str, list[str]] = field(default_factory=dict)

    def of(self, node: str) -> tuple[int, list[str]]:
        """GPUs and features."""
        return self.gpus.get(node, 0), self.features.get(node, [])


def ask(argv: Sequence[str]) -> str:
    """What the program prints; "" if it is missing, fails or takes too long."""
    environ = {**os.environ, "SLURM_TIME_FORMAT": "%s"}  # moments that need no time zone
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
    """From `scontrol show job -d ID`."""
    facts = JobFacts()
    nodes: list[str] = []  # of the group that is being read
    for line in text.splitlines():
        words = dict(_WORD.findall(line))
        if "EndTime" in words and "StartTime" in words:
            facts.ends.append(words["EndTime"])
        if line.lstrip().startswith("JobId="):
            nodes = []
        elif line.lstrip().startswith("Nodes="):
            here = _hosts(words["Nodes"])
            nodes += here
            _note_node(facts, here, words)
        elif line.lstrip().startswith("Features="):
            for name in nodes:
                facts.features.setdefault(name, []).extend(_features(words["Features"]))
    return facts


def node_facts(text: str) -> dict[str, NodeFacts]:
    """From `scontrol show node -o LIST`."""
    found = {}
    for line in text.splitlines():
        words = dict(_WORD.findall(line))
        if "NodeName" in words:
            found[words["NodeName"]] = NodeFacts(
                _number(words.get("CPUTot", "")),
                _number(words.get("RealMemory", "")) * _MIB,
                tuple(_features(words.get("ActiveFeatures", ""))),
            )
    return found


def _note_node(facts: JobFacts, names: list[str], words: dict[str, str]) -> None:
    memory = _number(words.get("Mem", "")) * _MIB
    for name in names:
        facts.memory_bytes[name] = facts.memory_bytes.get(name, 0) + memory
        for kind, kinds, how, detail in _GRES.findall(words.get("GRES", "")):
            parts = [part for part in re.split("[:=]", kinds) if part]
            count = whole_number(parts.pop()) or 0 if parts and parts[-1].isdigit() else 1
            count = _number(detail) if how == "CNT" else count
            facts.features.setdefault(name, []).extend([kind, *parts])
            if kind == "gpu":
                facts.gpus[name] = facts.gpus.get(name, 0) + count


def _hosts(text: str) -> list[str]:
    try:
        return hosts(text, "scontrol")
    except AllocationError:
        return []


def _features(text: str) -> list[str]:
    """'a100&(fast|slow)*2' names three."""
    words = re.split(r"[&|,()\[\]*]", text)
    return [] if text == "(null)" else [word for word in words if word and not word.isdigit()]


def _number(text: str) -> int:
    """The leading number, 0 if there is none: "21695", "4000M"."""
    match = re.match(r"[0-9]+", text)
    return whole_number(match[0]) or 0 if match else 0
