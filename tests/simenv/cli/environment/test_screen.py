"""One screen: nodes in all their states, what happened, and nothing twice."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from simenv.cli.environment import status
from simenv.model import Event, NodeInfo, PoolInfo, ServiceInfo

UP_S = 100.0


def node(name: str, state: str = "up", reason: str = "") -> NodeInfo:
    return NodeInfo(name, state, reason, 2, 1, 2**30, 0, 1, 1)


def pool(name: str, reason: str = "", state: str = "up") -> PoolInfo:
    return PoolInfo(name, "any", 1, 2, 1, 0, state, reason)


def info(**changes: Any) -> ServiceInfo:
    plain = ServiceInfo(
        "lab", "0.1.0", 17, "n1", 1, UP_S, "accepted", 5, 1, 10_231, 3, 0, 0, 0, 4, 14.0, 8, 3,
        2**34, 29, 2**27, 0.5, (pool("main"),), (),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def event(kind: str, age_s: float, subject: str = "n2") -> Event:
    return Event(1, time.time() - age_s, kind, subject, "it\x1b[31m was")


def line(word: str, lines: list[str]) -> str:
    (value,) = (each for each in lines if each.startswith(word))
    return value


def test_status_counts_nodes_by_state() -> None:
    entries = (node("n1"), node("n2", "lost", "silent"), node("n3", "drained", "fan"), node("n4"))
    result = line("NODES", status.lines(info(nodes=entries, allocation="Slurm job 17"), []))
    assert result == "NODES    2 up, 1 drained, 1 lost   slots 3/8 used   Slurm job 17"


def test_status_shows_time_left_in_allocation() -> None:
    result = info(end_s=time.time() + 3600.4, max_ranks=8, nodes=(node("n1"),))
    assert status.nodes(result).endswith("workers of up to 8 ranks   ends in 1:00:00")


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        ([("node.lost", 5.0)], ["node.lost"]),
        ([("node.lost", UP_S + 50)], []),  # before this service began
        ([("allocation.found", 99.0), ("launcher.chosen", 99.0), ("dvm.started", 98.0)], []),
        (
            [("dvm.started", 98.0), ("dvm.lost", 9.0), ("dvm.started", 8.0)],
            ["dvm.lost", "dvm.started"],
        ),
        ([("worker.lost", 9.0 - k) for k in range(9)], ["worker.lost"] * 5),
    ],
)
def test_status_shows_recent_events_of_note(
    events: list[tuple[str, float]], kinds: list[str]
) -> None:
    outcome = info()
    result = status.recent_events([event(kind, age_s) for kind, age_s in events], outcome)
    assert [each.kind for each in result] == kinds
    entries = [each for each in status.lines(outcome, result) if each.startswith("EVENT")]
    assert [each.split()[2] for each in entries] == kinds
    assert "\x1b" not in "".join(entries)


def test_each_warning_is_shown_once() -> None:
    pools = (pool("main", "out of memory", "degraded"), pool("big", "no node is free now"))
    result = info(pools=pools, warnings=("pool main is degraded: out of memory",))
    warned = [each.split("     ")[1] for each in status.lines(result, []) if "WARN" in each]
    assert warned == ["pool main is degraded: out of memory", "pool big: no node is free now"]


def test_node_names_are_folded_with_slot_count() -> None:
    assert status.machines(info()) == ""
    assert status.machines(info(nodes=(node("n1"), node("n2")))) == "n[1-2], 8 slots"
