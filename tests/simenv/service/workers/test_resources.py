"""What settings and nodes mean together, and which of them contradict one another."""

import os
import time

import pytest
from failing import fails
from service import RecordingLauncher

from launcher.allocation.this_node import this_node
from launcher.base import Allocation, Node
from simenv.config import convert
from simenv.errors import ConfigError
from simenv.scheduler.core import MEMORY_SHARE, ClusterLimits
from simenv.service.workers.resources import allocate, check_time_left, limits_of

GIB = 2**30
HERE = this_node()


def limits(nodes: tuple[Node, ...], end_s: float = 0.0, **told: object) -> ClusterLimits:
    return limits_of(convert(told), Allocation(nodes, "a test", end_s), RecordingLauncher())


def test_nodes_are_this_one_or_those_of_settings_that_agree() -> None:
    (node,) = allocate(convert({}), {}).nodes
    assert node.name == os.uname().nodename
    assert (node.slots, node.memory_bytes) == (HERE.slots, HERE.memory_bytes)
    result = allocate(convert({"hosts": "n1:3,n2:3", "slots": 3}), {})
    assert [(node.name, node.slots) for node in result.nodes] == [("n1", 3), ("n2", 3)]
    result = convert({"hosts": "n1:2,n2:4", "slots": 4})
    fails(ConfigError, "slots = 4, and hosts gives node n1 2", allocate, result, {})
    result = convert({"memory_bytes": GIB, "memory_per_slot": GIB})
    fails(ConfigError, "both bound", allocate, result, {})
    result = convert({"memory_bytes": HERE.memory_bytes + 1})
    fails(ConfigError, f"more than the {HERE.memory_bytes} there are on node", allocate, result, {})
    result = convert({"memory_per_slot": HERE.memory_bytes, "slots": 2})
    fails(ConfigError, f"node {HERE.name} has", allocate, result, {})


def test_unreadable_hostfiles_and_short_allocations_are_refused() -> None:
    error = fails(ConfigError, "", allocate, convert({"hostfile": "/nowhere/hosts"}), {})
    assert "/nowhere/hosts" in error.message
    assert error.hint
    check_time_left(limits((HERE,)))
    check_time_left(limits((HERE,), end_s=time.time() + 100))
    for left_s in (50, -50):
        ending = limits((HERE,), end_s=time.time() + left_s)
        assert fails(ConfigError, "takes the nodes back in", check_time_left, ending).hint


def test_memory_is_a_share_of_that_detected_or_as_configured() -> None:
    result = limits((Node("n1", 2, 10 * GIB), Node("n2", 4, 20 * GIB)))
    shares = [int(MEMORY_SHARE * size * GIB) for size in (10, 20)]
    assert [node.memory_bytes for node in result.nodes] == shares
    assert result.slots == 6
    assert result.memory_bytes == sum(node.memory_bytes for node in result.nodes)
    nodes = (Node("n1", 2, 10 * GIB), Node("n2", 2, 10 * GIB))
    assert [n.memory_bytes for n in limits(nodes, memory_bytes=GIB).nodes] == [GIB, GIB]
    slots = limits((Node("n1", 2, GIB),), memory_per_slot=GIB // 2)
    assert (slots.nodes[0].memory_bytes, slots.memory_per_slot) == (GIB, GIB // 2)


def test_service_may_take_a_quarter_of_this_node_and_at_least_1_gib_or_what_is_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = "launcher.allocation.this_node.memory_bytes"
    for node_bytes, configured, limit in (
        (2 * GIB, 0, GIB), (16 * GIB, 0, 4 * GIB), (16 * GIB, GIB // 2, GIB // 2),
    ):  # fmt: skip
        monkeypatch.setattr(measured, lambda size=node_bytes: size)
        result = limits((Node("n1", 2, 64 * GIB),), max_service_bytes=configured)
        assert result.service_bytes == limit


def test_launcher_features_and_end_of_allocation_are_kept() -> None:
    node = Node("n1", 2, GIB, gpus=3, features=("fast",), group=1, block=2)
    (value,) = limits((node,)).nodes
    assert (value.gpus, value.features, value.group, value.block) == (3, ("fast",), 1, 2)
    before_ns = time.monotonic_ns()
    assert 99e9 < limits((HERE,), end_s=time.time() + 100).end_ns - before_ns < 101e9
    assert limits((HERE,)).end_ns == 0
    result = limits((HERE,))
    assert result.max_ranks == RecordingLauncher.max_ranks
    assert result.launcher == "paper: nothing is started"
