"""Pools scaled, nodes drained and resumed: by whom, how far, and over a restart."""

import time

import msgspec
import pytest
from failing import fails
from service import LIMITS, ServiceHarness

from launcher.base import Node
from simenv.config import convert
from simenv.errors import ConfigError
from simenv.model import NodeInfo, PoolInfo, PoolSpec
from simenv.model.reservations import CalendarEntry
from simenv.scheduler.core import ClusterLimits
from simenv.service.workers.resources import check_pools, workers_that_fit
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import (
    AddCalendarEntry,
    CalendarEntries,
    DrainNode,
    GetPools,
    Pools,
    ResumeNode,
    Scale,
    SteerTarget,
    TargetReply,
)

GIB = 2**30
NODES = (Node("n1", 2, GIB), Node("n2", 2, GIB))
TWO: ClusterLimits = msgspec.structs.replace(
    LIMITS, slots=4, memory_bytes=2 * GIB, nodes=NODES, max_ranks=4
)
BIG = {"name": "big", "min": 0, "max": 1, "ranks": 2, "memory_bytes": GIB // 2}
POOLS = [{"name": "main", "min": 1, "max": 1}, BIG]
OPTIONS = {"limits": TWO, "pools": POOLS}


def test_scaled_pool_keeps_its_scale_until_configuration_changes(bench: ServiceHarness) -> None:
    assert len(bench.paper.commands) == 1
    bench.get(Pools, Scale(1, "main", 3, 5))
    assert len(bench.paper.commands) == 3
    bench.restart()
    assert len(bench.paper.commands) == 3
    pool = bench.state.cluster.pools["main"].spec
    assert (pool.min, pool.max) == (3, 5)
    bench.config = convert({"pools": [{"name": "main", "min": 2, "max": 2}, POOLS[1]]})
    bench.restart()
    assert len(bench.paper.commands) == 2


def test_drained_node_has_no_workers_until_resumed_after_restart(bench: ServiceHarness) -> None:
    bench.get(Pools, DrainNode(1, "n1", "a disk is failing"))
    bench.restart()
    bench.get(Pools, Scale(2, "main", 4, 4))
    assert {share.node for c in bench.paper.commands.values() for share in c.shares} == {"n2"}
    (value, _) = bench.get(Pools, GetPools(3)).nodes
    assert (value.name, value.slots) == ("n1", 2)
    assert (value.state, value.reason) == ("drained", "a disk is failing")
    status = bench.get(m.Status, m.GetStatus(4))
    assert "node n1 is drained: a disk is failing" in status.info.warnings
    bench.get(Pools, ResumeNode(5, "n1"))
    bench.restart()
    assert [node.state for node in bench.get(Pools, GetPools(6)).nodes] == ["up", "up"]
    kinds = [each.kind for each in bench.events("pool", "node")]
    assert kinds == ["node.drained", "pool.scaled", "node.resumed"]


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        (Scale(1, "nope", 1, 1), "not_found", "no pool 'nope'"),
        (Scale(1, "main", 3, 2), "option", "3 to 2 workers"),
        (Scale(1, "big", 0, 3), "limit", "3 workers of 2 ranks of 512.0 MiB do not fit, 2 do"),
        (DrainNode(1, "n9", "x"), "not_found", "no node or pool 'n9'"),
        (ResumeNode(1, "n9"), "not_found", "no node or pool 'n9'"),
        (Scale(1, "main", -1, 2), "protocol", ""),
        (Scale(1, "main", 0, 10**9), "protocol", ""),
    ],
)
def test_invalid_scaling(bench: ServiceHarness, question: object, code: str, words: str) -> None:
    before = _pools(bench)
    result = bench.refusal(question)
    assert result.code == code
    assert words in result.message
    assert _pools(bench) == before
    bench.restart()
    assert _pools(bench)[0][1:] == before[0][1:]


def _pools(bench: ServiceHarness) -> tuple[list[PoolInfo], list[NodeInfo]]:
    """Without forecasts, which change from moment to moment."""
    result = bench.get(Pools, GetPools(9))
    each = (msgspec.structs.replace(p, wait_us=-1.0, wait_age_us=0.0) for p in result.pools)
    return list(each), result.nodes


def test_pools_are_bounded_by_slots_and_memory_of_workers() -> None:
    two = (PoolSpec("a", min=9, max=9), PoolSpec("b", min=9, max=9))
    each = GIB // 8
    for pools, value in (
        ((PoolSpec("p", ranks=8),), "8 ranks"),
        ((PoolSpec("p", memory_bytes=3 * GIB),), "never have a worker"),
        ((PoolSpec("p", nodes="gpu*"),), "gpu"),
        ((PoolSpec("p", min=5, max=5, memory_bytes=GIB // 2),), "5 workers"),
        (
            (PoolSpec("p", min=9, max=9, ranks=2, memory_bytes=each),),
            r"9 workers of 2 ranks .* 8 do",
        ),
        ((PoolSpec("p", min=17, max=17),), r"17 workers do not fit, 16 do: 4 slots x 32"),
        ((PoolSpec("p", min=0, max=17),), r"17 workers do not fit, 16 do: 4 slots x 32"),
        (two, "9 workers do not fit, 7 do beside those"),
    ):
        fails(ConfigError, value, check_pools, pools, TWO)
    more = msgspec.structs.replace(TWO, max_ranks=8)
    fails(ConfigError, "never have a worker", check_pools, (PoolSpec("p", ranks=5),), more)
    check_pools((PoolSpec("p", min=4, max=4, memory_bytes=GIB // 2),), TWO)
    check_pools((PoolSpec("p", min=8, max=8, ranks=2, memory_bytes=each),), TWO)
    check_pools(two, msgspec.structs.replace(TWO, overcommit=True))
    assert workers_that_fit(PoolSpec("p", ranks=2), TWO, 100) == 8
    # A pool that reserves memory fits beside one with a worker for each slot.
    node = Node("n1", 16, 64 * GIB)
    roomy = msgspec.structs.replace(TWO, slots=16, memory_bytes=node.memory_bytes, nodes=(node,))
    big = PoolSpec("big", min=1, max=3, memory_bytes=16 * GIB)
    check_pools((PoolSpec("main", min=16, max=16), big), roomy)


def test_resident_workers_are_bounded_by_slots_and_by_memory() -> None:
    """Four slots take 4 x 32 workers, and 2 GiB hold 16 idle ones of 128 MiB."""
    assert workers_that_fit(PoolSpec("p"), TWO, 100) == 16
    assert workers_that_fit(PoolSpec("p", nodes="n9"), TWO, 100) == 0
    assert workers_that_fit(PoolSpec("p", nodes="n1"), TWO, 100) == 8
    assert workers_that_fit(PoolSpec("p", memory_bytes=GIB // 2), TWO, 100) == 4
    roomy = tuple(Node(name, 2, 64 * GIB) for name in ("n1", "n2"))
    assert workers_that_fit(PoolSpec("p"), msgspec.structs.replace(TWO, nodes=roomy), 999) == 128
    tiny = tuple(Node(name, 2, 2**20) for name in ("n1", "n2"))
    assert workers_that_fit(PoolSpec("p"), msgspec.structs.replace(TWO, nodes=tiny), 999) == 4
    assert workers_that_fit(PoolSpec("p"), msgspec.structs.replace(TWO, overcommit=True), 99) == 99


def test_scale_above_capacity_is_refused_with_slots_and_memory(bench: ServiceHarness) -> None:
    result = bench.refusal(Scale(1, "main", 999, 999))
    assert result.code == "limit"
    for each in ("999 workers", "16 do", "4 slots x 32", "2.0 GiB", "128.0 MiB"):
        assert each in result.message
    assert "16 at most" in result.hint
    assert "force=True" in result.hint
    assert len(bench.paper.commands) == 1
    bench.refusal(Scale(2, "main", 0, 999))


def test_scale_is_refused_when_minimums_of_pools_do_not_fit(bench: ServiceHarness) -> None:
    bench.get(Pools, Scale(1, "main", 15, 15))
    result = bench.refusal(Scale(2, "big", 1, 1))
    assert "1 workers of 2 ranks of 512.0 MiB do not fit, 0 do beside those" in result.message
    bench.get(Pools, Scale(3, "big", 0, 1))


def test_forced_scale_starts_more_workers_than_fit_after_restart(bench: ServiceHarness) -> None:
    bench.get(Pools, Scale(1, "main", 20, 20, force=True))
    _all_join(bench)
    assert len(bench.state.cluster.pools["main"].workers) == 20
    bench.restart()
    _all_join(bench)
    assert len(bench.state.cluster.pools["main"].workers) == 20
    bench.get(Pools, Scale(1, "main", 2, 2))
    assert not bench.state.cluster.pools["main"].overcommit


def _all_join(bench: ServiceHarness) -> None:
    """Tick until no more workers are started."""
    now_ns = time.monotonic_ns()
    join = bench.scheduler.worker_joined
    while [
        w for w in [*bench.state.cluster.workers.values()] if join(w.name, w.start, "n1", 1, now_ns)
    ]:
        bench.loop.executor.execute(bench.scheduler.tick(now_ns))


def test_refusal_of_scale_names_memory_limit_that_applied(bench: ServiceHarness) -> None:
    assert bench.state.cluster.pools["big"].spec.memory_bytes == 2**29
    result = bench.refusal(Scale(1, "big", 0, 3))
    assert "2.0 GiB of memory for 512.0 MiB a rank (4)" in result.message
    bench.get(Pools, Scale(2, "main", 15, 15))
    result = bench.refusal(Scale(3, "big", 1, 1))  # its ranks do not fit, its memory would
    assert "4 slots x 32 ranks of workers (128)" in result.message
    assert "2.0 GiB of memory for 128.0 MiB a rank (16)" in result.message
    pool_spec = PoolSpec("p", min=0, max=17, memory_bytes=2**29)
    fails(ConfigError, r"128.0 MiB a rank \(16\)", check_pools, (pool_spec,), TWO)


def test_node_drained_before_its_maintenance_is_used_again_in_it(bench: ServiceHarness) -> None:
    """Also after a restart."""
    for number, node in enumerate(("n1", "n2")):
        bench.get(Pools, DrainNode(1 + number, node, "a disk is failing"))
    begin_s = time.time() - 1.0
    bench.get(CalendarEntries, AddCalendarEntry(3, CalendarEntry(begin_s, 600.0)))
    bench.step()
    assert list(bench.state.calendar.under_way) == [1]
    for number, node in enumerate(("n1", "n2")):
        bench.get(Pools, ResumeNode(4 + number, node))
    bench.step()
    assert bench.state.calendar.windows == ()
    bench.restart()
    bench.step()
    assert [node.state for node in bench.get(Pools, GetPools(6)).nodes] == ["up", "up"]
    assert bench.state.calendar.windows == ()


def test_drained_pool_whose_device_drains_accepts_no_tasks(bench: ServiceHarness) -> None:
    steer = SteerTarget(1, "main", "drain", "of the QPM", "graceful", 600.0)
    bench.get(TargetReply, steer)
    started_ns = bench.state.devices.controls.of("main").started_ns
    pool = bench.get(Pools, DrainNode(2, "main", "cold head")).pools[0]
    assert (pool.state, pool.reason) == ("draining", "cold head")
    control = bench.state.devices.controls.of("main")
    assert (control.timeout_s, control.started_ns) == (600.0, started_ns)
    assert "drain" in bench.refused().message
    bench.get(Pools, ResumeNode(3, "main"))
    assert bench.state.devices.controls.closed_state("main") == ""


@pytest.mark.parametrize(("verb", "state"), [("pause", "paused"), ("drain", "draining")])
def test_closed_pool_says_so_beside_its_fault(bench: ServiceHarness, verb: str, state: str) -> None:
    pool = bench.state.cluster.pools["main"]
    pool.starts.record_failure("no GPU", time.monotonic_ns())
    bench.get(TargetReply, SteerTarget(1, "main", verb, "cold head"))
    info = bench.get(Pools, GetPools(2)).pools[0]
    assert (info.state, info.reason) == ("degraded", "no GPU")
    assert (info.closed, info.closed_reason) == (state, "cold head")
    text = f"pool main is degraded: no GPU; {state}: cold head"
    assert text in bench.get(m.Status, m.GetStatus(3)).info.warnings
    pool.starts.reason = ""
    info = bench.get(Pools, GetPools(4)).pools[0]
    assert (info.state, info.closed, info.reasons) == (state, state, "cold head")
