"""What is said of memory before anything is allocated."""

from __future__ import annotations

import msgspec
import pytest

from simenv.cli.tasks.resource_fit import fitting
from simenv.errors import InfeasibleError, OptionError
from simenv.model import TaskOptions
from simenv.worker.ranks.mpirun import RankInfo
from simulators.circuit.analysis.profile import ChainTrial, Profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.examples import bell

MIB = 2**20
STATE = TaskOptions(engine="statevector")


def wide(num_qubits: int) -> Profile:
    return msgspec.structs.replace(
        profile(bell()), num_qubits=num_qubits, clifford=False, may_be_clifford=False, bond_bits=13
    )


def seats(*nodes: int, memory: int = 1024 * MIB, slots: int = 8) -> list[RankInfo]:
    """So many ranks on each node, all of its cores open to each."""
    return [
        RankInfo(f"node{number}", memory, slots, tuple(range(slots)))
        for number, count in enumerate(nodes)
        for _ in range(count)
    ]


def test_rank_count_is_power_of_two_and_one_for_small_circuits() -> None:
    result = fitting(wide(26), STATE, seats(2, 2))
    assert (result.engine, result.ranks, result.threads) == ("statevector", 4, 4)
    assert result.memory_bytes < 512 * MIB
    assert fitting(wide(26), STATE, seats(2, 2, 2)).ranks == 4
    assert fitting(wide(3), STATE, seats(2, 2)).ranks == 1


@pytest.mark.parametrize("engine", ["statevector", "auto"])
def test_infeasible_error_names_number_of_ranks_that_would_fit(engine: str) -> None:
    thick = msgspec.structs.replace(wide(26), trial=ChainTrial(bond=257, done=False))
    with pytest.raises(InfeasibleError) as caught:
        fitting(thick, TaskOptions(engine=engine), seats(2))
    assert "680.0 MiB in each of its ranks (26 qubits, double" in caught.value.message
    assert "1.3 GiB on node node0; that has 1.0 GiB for 2" in caught.value.message
    assert "4 ranks hold it, 388.0 MiB each: mpirun -n 4" in caught.value.hint


def test_infeasible_hint_says_returned_statevector_must_fit_into_first_rank() -> None:
    terms = TaskOptions(outputs=("statevector",), engine="statevector")
    with pytest.raises(InfeasibleError, match="in each of its ranks") as caught:
        fitting(wide(26), terms, seats(2, 2))
    assert "must fit into the first rank" in caught.value.hint


def test_infeasible_hint_proposes_single_precision_where_it_fits() -> None:
    terms = TaskOptions(outputs=("statevector",), engine="statevector")
    with pytest.raises(InfeasibleError) as caught:
        fitting(wide(25), terms, seats(1, 1, 1, 1, memory=600 * MIB))
    assert caught.value.hint == "it fits with --precision single"


def test_threads_per_rank_follow_core_binding_and_slot_quota() -> None:
    bound = [RankInfo("n", 2**34, 2, (2 * rank, 2 * rank + 1)) for rank in range(4)]
    assert fitting(wide(20), STATE, bound).threads == 2
    quota = [RankInfo("n", 2**34, 2, tuple(range(8))) for _ in range(2)]
    assert fitting(wide(20), STATE, quota).threads == 1


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(OptionError, match="not known"):
        fitting(wide(3), TaskOptions(engine="statevectr"), seats(1))


def test_hint_names_the_engine_that_auto_takes() -> None:
    branching = msgspec.structs.replace(wide(3), mid_circuit=True)
    with pytest.raises(InfeasibleError) as caught:
        fitting(branching, TaskOptions(engine="contraction"), seats(1))
    assert caught.value.hint == "ask for another engine: engine='auto' takes 'statevector'"


def test_hardware_is_refused_with_the_command_that_has_its_pools() -> None:
    with pytest.raises(OptionError, match="pools of an environment") as caught:
        fitting(wide(3), TaskOptions(engine="hardware"), seats(1))
    assert caught.value.hint == "simenv submit --pool NAME"
