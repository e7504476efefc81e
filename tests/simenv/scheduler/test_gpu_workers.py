"""Workers with a GPU each: which one they get, what happens to it when they end, and refusals."""

from __future__ import annotations

import msgspec
import pytest
from arrays import Arrays
from checked_scheduler import CheckedScheduler, cluster

from launcher.base import Node
from simenv.errors import ConfigError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core.actions import StartWorker
from simenv.scheduler.core.gpus import rank_gpus, with_workers_of_gpus
from simenv.scheduler.core.types import ClusterLimits
from simenv.scheduler.routing.engine_choice import route
from simenv.scheduler.views.infos import pool_infos
from simenv.service.control.admin_commands import check_pools, room_for
from simenv.service.workers.processes import gpu_environ
from simulators.catalog import cards
from simulators.circuit.analysis.profiler import profile

UUIDS = ("GPU-aaaa", "GPU-bbbb")


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_installed", lambda modules: True)


def gpu_cluster(*gpus: int, uuids: tuple[str, ...] = ()) -> ClusterLimits:
    """Nodes of four slots with so many GPUs each; `uuids`: of the first."""
    plain = cluster(*[4] * len(gpus))
    nodes = [
        Node(node.name, node.slots, node.memory_bytes, count, gpu_uuids=uuids if not k else ())
        for k, (node, count) in enumerate(zip(plain.nodes, gpus, strict=True))
    ]
    return msgspec.structs.replace(plain, nodes=tuple(nodes))


def pool(workers: int = 2, **fields: object) -> PoolSpec:
    return PoolSpec("g", "gpu", workers, workers, **fields)  # type: ignore[arg-type]


def starts(machine: CheckedScheduler) -> dict[str, tuple[str, ...]]:
    found = [action for action in machine.actions if isinstance(action, StartWorker)]
    return {action.worker: action.gpus for action in found}


def test_workers_of_other_engines_have_no_gpu() -> None:
    assert [rank_gpus(PoolSpec("p", engine)) for engine in ("any", "statevector", "gpu")] == [
        0, 0, 1,
    ]  # fmt: skip
    machine = CheckedScheduler(limits=gpu_cluster(2), specs=(PoolSpec("main"), pool()))
    assert machine.state.workers["main-0"].gpus == ()


def test_each_worker_gets_a_gpu_of_its_own_by_uuid() -> None:
    machine = CheckedScheduler(limits=gpu_cluster(2, uuids=UUIDS), specs=(pool(),))
    assert starts(machine) == {"g-0": ("GPU-aaaa",), "g-1": ("GPU-bbbb",)}
    assert machine.state.nodes.hosts["n1"].free_gpus == []


def test_gpus_of_other_nodes_are_numbered_within_the_allocation() -> None:
    machine = CheckedScheduler(limits=gpu_cluster(0, 2, 1), specs=(pool(3),))
    workers = machine.state.workers.values()
    assert sorted((w.host.node.name, *w.gpus) for w in workers) == [
        ("n2", "0"), ("n2", "1"), ("n3", "0"),
    ]  # fmt: skip


def test_no_more_workers_start_than_there_are_gpus() -> None:
    machine = CheckedScheduler(limits=gpu_cluster(2), specs=(pool(3),))
    assert len(machine.state.workers) == 2
    (info,) = pool_infos(machine.state)
    assert "GPU" in info.reason


def test_gpu_of_a_lost_worker_goes_to_its_successor() -> None:
    machine = CheckedScheduler(limits=gpu_cluster(2, uuids=UUIDS), specs=(pool(),))
    machine.lose("g-0")
    assert machine.state.nodes.hosts["n1"].free_gpus == ["GPU-aaaa"]
    machine.tick(60.0)
    assert machine.state.workers["g-0"].gpus == ("GPU-aaaa",)


def test_workers_auto_is_one_worker_for_each_gpu_of_the_pools_nodes() -> None:
    nodes = gpu_cluster(2, 1, 0).nodes
    (found,) = with_workers_of_gpus((pool(1, auto_workers=True),), nodes)
    assert (found.min, found.max) == (3, 3)
    (some,) = with_workers_of_gpus((pool(1, auto_workers=True, nodes="n1"),), nodes)
    assert (some.min, some.max) == (2, 2)
    plain = PoolSpec("p", min=5, max=5)
    assert with_workers_of_gpus((plain,), nodes) == (plain,)


def test_workers_auto_of_an_engine_without_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine 'statevector' uses none") as caught:
        with_workers_of_gpus((PoolSpec("p", "statevector", auto_workers=True),), ())
    assert "engine=gpu" in caught.value.hint


def test_pool_of_gpus_on_nodes_without_any_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="a rank needs 1 GPUs; the largest node has 0") as caught:
        check_pools((pool(1),), gpu_cluster(0))
    assert "--gpus-per-node=1" in caught.value.hint
    check_pools((pool(2),), gpu_cluster(2))
    assert room_for(pool(3), gpu_cluster(2), 3) == 2


def test_worker_of_several_ranks_on_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="has one, and one GPU"):
        check_pools((pool(1, ranks=2),), gpu_cluster(2))


def test_worker_is_shown_its_own_gpu_alone() -> None:
    assert dict(gpu_environ(("GPU-bbbb",))) == {
        "CUDA_VISIBLE_DEVICES": "GPU-bbbb",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    assert gpu_environ(()) == ()


def test_states_are_bounded_by_the_gpu_and_not_by_the_memory_of_its_node() -> None:
    """The engine refuses what its GPU cannot hold; the service knows the host's memory alone."""
    arrays = Arrays(33, 33).add("h", [0])
    for q in range(33):
        arrays.add("cx", [q, (q + 1) % 33]).add("t", [q]).add("measure", [q], [q])
    limits = gpu_cluster(1)
    for terms in (TaskOptions(engine="gpu"), TaskOptions(pool="g")):
        found = route(profile(arrays.circuit()), terms, (PoolSpec("main"), pool(1)), limits)
        assert (found.engine, found.pool) == ("gpu", "g")
        assert found.memory_bytes < 2**31
