"""Workers with a GPU each: which one they get, what happens to it when they end, and refusals."""

import msgspec
import pytest
from arrays import Arrays
from checked_scheduler import CheckedScheduler, cluster
from failing import fails

from launcher.base import Gpu, Node
from simenv.config.paths import gpu_environ
from simenv.errors import ConfigError, InfeasibleError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits, Route, StartWorker, rank_gpus
from simenv.scheduler.routing.engine_choice import candidates, choose
from simenv.scheduler.views.cluster_info import pool_infos
from simenv.service.workers.resources import check_pools, with_workers_of_gpus, workers_that_fit
from simulators.catalog import cards
from simulators.chain.trial import choice_profile
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.analysis.profiler import profile

UUIDS = ("GPU-aaaa", "GPU-bbbb")


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_installed", lambda modules: True)


def gpu_cluster(*gpus: int, uuids: tuple[str, ...] = ()) -> ClusterLimits:
    """Nodes of four slots with so many GPUs each; `uuids`: of the first."""
    details = tuple(map(Gpu, uuids))
    plain = cluster(*[4] * len(gpus))
    nodes = [
        Node(node.name, node.slots, node.memory_bytes, count, gpu_details=details if not k else ())
        for k, (node, count) in enumerate(zip(plain.nodes, gpus, strict=True))
    ]
    return msgspec.structs.replace(plain, nodes=tuple(nodes))


def pool(workers: int = 2, **fields: object) -> PoolSpec:
    return PoolSpec("g", "gpu", workers, workers, **fields)  # type: ignore[arg-type]


def starts(machine: CheckedScheduler) -> dict[str, tuple[str, ...]]:
    entries = [action for action in machine.actions if isinstance(action, StartWorker)]
    return {action.worker: action.gpus for action in entries}


def test_gpus_bound_workers_and_go_to_successors() -> None:
    assert [rank_gpus(PoolSpec("p", engine)) for engine in ("any", "statevector", "gpu")] == [
        0, 0, 1,
    ]  # fmt: skip
    machine = CheckedScheduler(limits=gpu_cluster(2), specs=(PoolSpec("main"), pool()))
    assert machine.state.cluster.workers["main-0"].gpus == ()
    machine = CheckedScheduler(limits=gpu_cluster(2), specs=(pool(3),))
    assert len(machine.state.cluster.workers) == 2
    (info,) = pool_infos(machine.state)
    assert "GPU" in info.reason
    machine = CheckedScheduler(limits=gpu_cluster(2, uuids=UUIDS), specs=(pool(),))
    machine.lose("g-0")
    assert machine.state.cluster.nodes.hosts["n1"].free_gpus == ["GPU-aaaa"]
    machine.tick(60.0)
    assert machine.state.cluster.workers["g-0"].gpus == ("GPU-aaaa",)


def test_each_worker_gets_a_gpu_of_its_own_by_uuid_or_number() -> None:
    machine = CheckedScheduler(limits=gpu_cluster(2, uuids=UUIDS), specs=(pool(),))
    assert starts(machine) == {"g-0": ("GPU-aaaa",), "g-1": ("GPU-bbbb",)}
    assert machine.state.cluster.nodes.hosts["n1"].free_gpus == []
    workers = CheckedScheduler(
        limits=gpu_cluster(0, 2, 1), specs=(pool(3),)
    ).state.cluster.workers.values()
    assert sorted((w.host.node.name, *w.gpus) for w in workers) == [
        ("n2", "0"), ("n2", "1"), ("n3", "0"),
    ]  # fmt: skip


def test_workers_auto_is_what_gpus_suffice_for() -> None:
    limits = gpu_cluster(2, 1, 0)
    (value,) = with_workers_of_gpus((pool(1, auto_workers=True),), limits)
    assert (value.min, value.max) == (3, 3)
    (some,) = with_workers_of_gpus((pool(1, auto_workers=True, nodes="n1"),), limits)
    assert (some.min, some.max) == (2, 2)
    plain = PoolSpec("p", min=5, max=5)
    assert with_workers_of_gpus((plain,), limits) == (plain,)
    for gpus, ranks, workers in (((4,), 2, 2), ((3, 2), 2, 2), ((1,), 2, 1), ((8,), 3, 2)):
        spec = pool(1, auto_workers=True, ranks=ranks)
        (value,) = with_workers_of_gpus((spec,), gpu_cluster(*gpus))
        assert (value.min, value.max) == (workers, workers), (gpus, ranks)


def test_workers_auto_needs_an_engine_and_nodes_with_gpus() -> None:
    with pytest.raises(ConfigError, match="engine 'statevector' uses none") as caught:
        with_workers_of_gpus((PoolSpec("p", "statevector", auto_workers=True),), gpu_cluster(0))
    assert "engine=gpu" in caught.value.hint
    with pytest.raises(ConfigError, match="1 GPUs; the largest node has 0") as caught:
        check_pools((pool(1),), gpu_cluster(0))
    assert "--gpus-per-node=1" in caught.value.hint
    check_pools((pool(2),), gpu_cluster(2))
    assert workers_that_fit(pool(3), gpu_cluster(2), 3) == 2


def test_ranks_have_gpus_of_their_own_alone() -> None:
    check_pools((pool(1, ranks=2),), gpu_cluster(2))
    check_pools((pool(1, ranks=2),), gpu_cluster(1, 1))
    with pytest.raises(ConfigError, match="2 ranks of 1 slot, 1 GPU each; its nodes hold 1"):
        check_pools((pool(1, ranks=2),), gpu_cluster(1))
    with pytest.raises(ConfigError, match="2 workers of 2 ranks do not fit, 1 do"):
        check_pools((pool(2, ranks=2),), gpu_cluster(3))
    machine = CheckedScheduler(limits=gpu_cluster(2, 1, uuids=UUIDS), specs=(pool(1, ranks=3),))
    assert starts(machine) == {"g-0": ("GPU-aaaa", "GPU-bbbb", "0")}
    hosts = machine.state.cluster.nodes.hosts
    assert [hosts[name].free_gpus for name in ("n1", "n2")] == [[], []]
    machine.lose("g-0")
    assert [hosts[name].free_gpus for name in ("n1", "n2")] == [list(UUIDS), ["0"]]
    machine.tick(60.0)
    assert machine.state.cluster.workers["g-0"].gpus == ("GPU-aaaa", "GPU-bbbb", "0")
    assert dict(gpu_environ("GPU-bbbb")) == {
        "CUDA_VISIBLE_DEVICES": "GPU-bbbb",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


H200 = Gpu("GPU-aaaa", "NVIDIA H200", 143771 * 2**20, (9, 0), 4.9e12)
A100 = Gpu("GPU-bbbb", "NVIDIA A100", 40960 * 2**20, (8, 0), 1.6e12)


def with_gpus(*gpus: Gpu) -> ClusterLimits:
    """One node with these."""
    plain = cluster(4)
    node = plain.nodes[0]
    new = Node(node.name, node.slots, 8 * node.memory_bytes, len(gpus), gpu_details=gpus)
    return msgspec.structs.replace(plain, nodes=(new,))


def wide(n: int, *, chain: bool = False) -> Profile:
    """A circuit of n qubits that are all entangled."""
    arrays = Arrays(n, n)
    for q in range(n):
        arrays.add("h", [q]).add("t", [q])
    for layer in range(1 if chain else n):
        for q in range(0 if chain else n):
            arrays.add("rx", [q], (), [0.3])
        for q in range(n - 1 if chain else n):
            arrays.add("cx", [q, (q + 1 + layer % 3) % n] if not chain else [q, q + 1])
    for q in range(n):
        arrays.add("measure", [q], [q])
    return profile(arrays.circuit())


def chosen(n: int, limits: ClusterLimits, **terms: object) -> Route:
    pools = (PoolSpec("main"), pool(1))
    return choose(wide(n), TaskOptions(**terms), pools, limits)  # type: ignore[arg-type]


def test_states_are_bounded_by_the_gpu_and_not_by_the_memory_of_its_node() -> None:
    """Where its memory is not known, the engine alone can refuse what its GPU does not hold."""
    for limits in (gpu_cluster(1), with_gpus(H200)):
        for terms in ({"engine": "gpu"}, {"pool": "g"}):
            result = chosen(33, limits, **terms)
            assert (result.engine, result.pool) == ("gpu", "g")
            assert result.memory_bytes < 2**31
    assert chosen(49, gpu_cluster(1), engine="gpu").engine == "gpu"


def test_state_that_no_gpu_of_the_pool_holds_is_refused_with_what_fits() -> None:
    with pytest.raises(InfeasibleError, match=r"34 qubits in double.*need 256\.0 GiB") as caught:
        chosen(34, with_gpus(H200), engine="gpu")
    assert "NVIDIA H200, has 138.9 GiB for states" in str(caught.value)
    assert "33 qubits, 34 in single precision: this one fits" in caught.value.hint
    single = chosen(34, with_gpus(H200), engine="gpu", precision="single")
    assert single.reason == "asked for gpu; 128.0 GiB of 138.9 GiB on NVIDIA H200"
    with pytest.raises(InfeasibleError, match="35 qubits in single") as caught:
        chosen(35, with_gpus(H200), engine="gpu", precision="single")
    assert "engine='statevector'" in caught.value.hint


def test_larger_state_fits_the_gpus_of_several_ranks() -> None:
    """Two hold one qubit more, in each precision, and a worker of three uses two."""
    limits = with_gpus(H200, H200, H200)
    for ranks in (2, 3):
        pools = (PoolSpec("main"), pool(1, ranks=ranks))
        result = choose(wide(34), TaskOptions(engine="gpu"), pools, limits)
        assert (result.pool, result.ranks, result.max_slots) == ("g", ranks, 1)
        assert "128.0 GiB of 138.9 GiB on NVIDIA H200" in result.reason
        terms = TaskOptions(engine="gpu", precision="single")
        assert choose(wide(35), terms, pools, limits).ranks == ranks
        with pytest.raises(InfeasibleError, match=r"256\.0 GiB on each of 2 GPUs") as caught:
            choose(wide(35), TaskOptions(engine="gpu"), pools, limits)
        assert "the widest that fits has 34 qubits, 35 in single" in caught.value.hint
        assert "ranks=4" not in caught.value.hint, "there are three GPUs"
    (info,) = pool_infos(CheckedScheduler(limits=limits, specs=(pool(1, ranks=2),)).state)
    assert info.max_qubits == 34


def test_refusal_names_a_pool_of_two_gpus_only_where_there_could_be_one() -> None:
    two = "or a pool with ranks=2 on two GPUs: NAME:engine=gpu,ranks=2"
    terms = {"engine": "gpu", "precision": "single"}
    cases = (
        (with_gpus(H200, H200), 35, True),
        (with_gpus(H200), 35, False),
        (msgspec.structs.replace(with_gpus(H200, H200), max_ranks=1), 35, False),
        (with_gpus(H200, H200), 36, False),
    )
    for limits, n, is_named in cases:
        error = fails(InfeasibleError, f"{n} qubits in single", chosen, n, limits, **terms)
        assert (two in error.hint) == is_named, (n, error.hint)
    with pytest.raises(InfeasibleError, match="2 ranks were asked for") as caught:
        chosen(20, with_gpus(H200, H200), engine="gpu", ranks=2)
    assert caught.value.hint == two.removeprefix("or ").replace("a pool", "start a pool")
    with pytest.raises(InfeasibleError, match="2 ranks were asked for") as caught:
        chosen(20, with_gpus(H200), engine="gpu", ranks=2)
    assert "ranks=2" not in caught.value.hint


def test_gradient_over_ranks_is_refused_at_submission() -> None:
    terms = TaskOptions(engine="gpu", outputs=("gradient",))
    pools, limits = (pool(1, ranks=2),), with_gpus(H200, H200)
    fails(InfeasibleError, "no gradients over ranks", choose, wide(20), terms, pools, limits)
    assert choose(wide(12), terms, pools, limits).engine == "gpu", "narrow: on the first GPU"


def test_smallest_gpu_and_two_states_of_gradients_are_the_limit() -> None:
    fails(InfeasibleError, r"A100, has 38\.5 GiB", chosen, 32, with_gpus(H200, A100), engine="gpu")
    assert chosen(31, with_gpus(H200, A100), engine="gpu").engine == "gpu"
    (info,) = pool_infos(CheckedScheduler(limits=with_gpus(H200, A100), specs=(pool(1),)).state)
    assert info.max_qubits == 31
    terms = TaskOptions(engine="gpu", outputs=("gradient",))
    for n, fits in ((32, True), (33, False)):
        assert bool(candidates(wide(n), terms, (pool(1),), with_gpus(H200))[0].route) == fits


def test_auto_takes_the_gpu_for_wide_circuits_and_the_processor_for_narrow_ones() -> None:
    limits = with_gpus(H200)
    assert chosen(26, limits).engine == "gpu"
    assert chosen(26, limits).reason.startswith("auto: 26 qubits, all amplitudes on one GPU")
    assert chosen(18, limits).engine == "statevector"
    table = {
        each.engine: each
        for each in candidates(wide(18), TaskOptions(), (PoolSpec("main"), pool(1)), limits)
    }
    assert table["gpu"].route is not None
    alone = candidates(wide(26), TaskOptions(), (PoolSpec("main"),), limits)
    assert "gpu" not in {each.engine for each in alone}, "auto looks at GPUs where a pool has them"
    assert (
        choose(wide(40, chain=True), TaskOptions(), (PoolSpec("main"), pool(1)), limits).engine
        == "mps"
    )


def test_pool_of_gpus_runs_sweeps_over_graphs_too() -> None:
    arrays = Arrays(60, 60)
    for layer in range(3):
        for q in range(60):
            arrays.add("rx", [q], (), [0.3 + layer])
        for q in range(59):
            arrays.add("rzz", [q, q + 1], (), [0.7])
    swept, pools = choice_profile(arrays.measure(range(60)).circuit(), ("counts",)), (pool(1),)
    for limits in (with_gpus(H200), gpu_cluster(1)):
        result = choose(swept, TaskOptions(engine="gpu_sweep"), pools, limits)
        assert (result.pool, result.memory_bytes < 2**30) == ("g", True)
        assert choose(swept, TaskOptions(pool="g"), pools, limits).engine == "gpu_sweep"
    both = (PoolSpec("main"), *pools)
    names = [each.engine for each in candidates(swept, TaskOptions(), both, with_gpus(H200))]
    assert names.index("gpu_sweep") == names.index("sweep") - 1
    assert "gpu_sweep" not in {
        each.engine for each in candidates(swept, TaskOptions(), both[:1], with_gpus(H200))
    }
    fails(
        InfeasibleError, "2 ranks were asked for", choose, swept,
        TaskOptions(engine="gpu_sweep", ranks=2), pools, with_gpus(H200, H200),
    )  # fmt: skip


def test_forecast_of_a_sweep_is_by_the_bandwidth_of_the_gpu() -> None:
    fast, slow = (chosen(30, with_gpus(gpu), engine="gpu") for gpu in (H200, A100))
    assert slow.evolve_us / fast.evolve_us == pytest.approx(4.9 / 1.6, rel=0.1)
