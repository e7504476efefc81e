"""Trials of a chain: what they find out, where they end, and that they depend on nothing else."""

import engine_runs
import msgspec
import numpy as np
import pytest
from arrays import Arrays, measured
from noisy import program

from noise_models.channel import from_paulis
from simenv.errors import InfeasibleError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simulators.catalog import trial_operations
from simulators.chain.right_canonical import gate_blocks
from simulators.chain.trial import TrialLimits, chain_trial, choice_profile
from simulators.circuit.analysis.profile import ChainTrial
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.ir import Circuit
from simulators.engine import EngineResult, Request
from simulators.errors import OutOfMemory, TruncatedState
from simulators.tensornetwork.mps.engine import MpsEngine

WIDE = TrialLimits(6 * 10**9, 256)
EARLY = TrialLimits(6 * 10**9, 256, enough=10**12)
POOLS = (PoolSpec("main"),)
LIMITS = ClusterLimits(4, 16 * 2**30, 10**6, 2**34, 1, 1)


def ising(width: int, steps: int, angle: float = 0.2, *, free: bool = False) -> Circuit:
    """Trotter steps of an Ising chain: its bound grows with the steps, its bonds hardly do."""
    arrays = Arrays(width, width)
    for qubit in range(0, width, 2):
        arrays.add("h", [qubit])
    count = 0
    for _ in range(steps):
        for first in (0, 1):
            for qubit in range(first, width - 1, 2):
                arrays.add("rzz", [qubit, qubit + 1], (), [angle])
                if free:
                    arrays.free(count)
                count += 1
        for qubit in range(width):
            arrays.add("rx", [qubit], (), [angle])
            if free:
                arrays.free(count)
            count += 1
    return measured(arrays)


def knot(width: int, layers: int = 20, last: int = 0) -> Circuit:
    """Gates between random qubits, `last` of the layers only at the end of a quiet circuit."""
    arrays, random = Arrays(width, width), np.random.default_rng(3)
    for _ in range(last):
        for qubit in range(width - 1):
            arrays.add("rzz", [qubit, qubit + 1], (), [0.0])
    for _ in range(layers):
        for qubit in range(width):
            arrays.add("ry", [qubit], (), [1.3])
        for one, two in random.permutation(width).reshape(-1, 2).tolist():
            arrays.add("cx", [one, two])
    return measured(arrays)


def run(circuit: Circuit, **options: object) -> EngineResult:
    return engine_runs.run(MpsEngine(), circuit, Request(16, 1), **options)


def test_trial_of_all_gates_finds_bond_of_engine() -> None:
    circuit = ising(30, 8)
    outcome = chain_trial(circuit, WIDE)
    assert outcome.done
    assert outcome.part == 1.0
    result = run(circuit, settings=(("cutoff", 1e-12),))
    assert f"bond {outcome.bond}" == result.remark
    assert profile(circuit).bond_bits >= 8 > np.log2(outcome.bond)


def test_trial_ends_early_where_the_rest_is_like_what_was_tried() -> None:
    result = chain_trial(ising(30, 12), EARLY)
    assert result.done
    assert 1 / 3 <= result.part < 0.5
    outcome = chain_trial(ising(30, 12), WIDE)
    assert result.bond < outcome.bond <= result.expected_bond
    assert outcome.operations / 2 < result.operations < 2 * outcome.operations


def test_trial_goes_on_where_the_rest_is_denser() -> None:
    few = msgspec.structs.replace(EARLY, operations=8 * 10**8)
    result = chain_trial(knot(26, layers=4, last=30), few)
    assert not result.done
    assert result.part > 0.5


def test_trial_ends_at_its_bond() -> None:
    result = chain_trial(knot(20), TrialLimits(10**11, 16))
    assert not result.done
    assert result.bond > 16
    assert result.part < 0.5


@pytest.mark.parametrize(
    "limits", [TrialLimits(10**8, 256), TrialLimits(10**12, 256, memory_bytes=2**14)]
)
def test_trial_ends_at_operations_or_bytes(limits: TrialLimits) -> None:
    result = chain_trial(knot(20), limits)
    assert not result.done
    assert result.bond <= 256


def test_trial_of_more_gates_than_operations_applies_none() -> None:
    assert chain_trial(ising(30, 8), TrialLimits(1_000, 256)) == ChainTrial(
        1, False, 0.0, 100_000 * ising(30, 8).ops.size
    )


def test_free_parameters_take_values_without_ratio() -> None:
    free = chain_trial(ising(24, 8, free=True), WIDE)
    assert free == chain_trial(ising(24, 8, 0.7, free=True), WIDE)
    assert free.bond > chain_trial(ising(24, 8), WIDE).bond


def test_trial_is_made_only_where_it_decides() -> None:
    def wanted(circuit: Circuit) -> int:
        result = profile(circuit)
        return trial_operations(result, result.num_qubits)

    assert wanted(ising(40, 10)) == 6 * 10**9
    assert 0 < wanted(ising(22, 10)) < 10**9  # a third of what all amplitudes take
    assert wanted(ising(14, 10)) == 0
    assert wanted(ising(40, 3)) == 0  # its bound says enough
    clifford = measured(Arrays(40, 40).add("h", [0]).add("cx", [0, 39]))
    assert wanted(clifford) == 0


def test_auto_takes_the_chain_that_a_trial_showed_to_be_thin() -> None:
    for width in (24, 28, 40, 100):
        result = engine_choice.choose(
            choice_profile(ising(width, 10), ("counts",)), TaskOptions(), POOLS, LIMITS
        )
        assert result.engine == "mps"
        assert "in a trial of" in result.reason
        assert result.memory_bytes < 2**27


@pytest.mark.parametrize(("bond", "part"), [(257, 0.2), (200, 0.4)])
def test_auto_refuses_what_a_trial_showed_to_be_thick(bond: int, part: float) -> None:
    tried = ChainTrial(bond=bond, done=False, part=part, operations=10**9)
    grown = msgspec.structs.replace(profile(knot(60)), trial=tried)
    with pytest.raises(InfeasibleError) as caught:
        engine_choice.choose(grown, TaskOptions(), POOLS, LIMITS)
    assert f"bonds up to {bond} in a trial of {part:.0%} of its gates, 2^" in caught.value.hint


def test_auto_tries_what_nobody_knows_the_bonds_of() -> None:
    stopped = ChainTrial(bond=64, done=False, part=0.6, operations=6 * 10**9)
    unknown = msgspec.structs.replace(profile(knot(60)), trial=stopped)
    result = engine_choice.choose(unknown, TaskOptions(), POOLS, LIMITS)
    assert result.engine == "mps"
    assert "bonds up to 64 in a trial of 60% of its gates" in result.reason
    assert "it fails if it has to cut off more than 1e-06" in result.reason
    narrow = msgspec.structs.replace(profile(knot(26)), trial=stopped)
    assert engine_choice.choose(narrow, TaskOptions(), POOLS, LIMITS).engine == "statevector"


def test_route_of_tried_program_is_its_own() -> None:
    tried = choice_profile(ising(40, 10), ("counts",))
    assert engine_choice.depends_on_parameter_values(tried, TaskOptions())
    assert not engine_choice.depends_on_parameter_values(tried, TaskOptions(engine="mps"))


def test_run_that_loses_more_than_its_tolerance_ends() -> None:
    circuit = knot(10, layers=6)
    few = (("bond", 8),)
    assert run(circuit, settings=few).truncation > 1e-3
    with pytest.raises(TruncatedState, match=r"bonds of up to 8; 1\.0e-06 is allowed"):
        run(circuit, settings=(*few, ("tolerance", 1e-6)))
    assert run(circuit, settings=(("tolerance", 1e-6),)).truncation == 0.0


def test_run_that_outgrows_its_memory_ends() -> None:
    circuit = knot(10, layers=6)
    with pytest.raises(OutOfMemory, match="are allowed"):
        run(circuit, memory_bytes=2**16)
    run(circuit, memory_bytes=2**24)


def test_equal_blocks_of_gates_share_one_matrix() -> None:
    circuit = ising(12, 3)
    result = gate_blocks(circuit, circuit.params, tuple(range(12)))
    inner = [block for block in result.layers[3] if 0 < block.first < 10]
    assert len(inner) == 5
    assert len({id(block.matrix) for block in inner}) == 1
    assert result.layers[0][0].matrix is not inner[0].matrix


def test_active_qubits_are_counted_only_with_noise_that_their_engine_takes() -> None:
    circuit = ising(40, 4)
    taken = program([(-1, (0,), from_paulis(np.array([0.9, 0.1, 0.0, 0.0])))])
    pauli = msgspec.structs.replace(taken, kinds=frozenset({"pauli"}))
    kraus = msgspec.structs.replace(taken, kinds=frozenset({"kraus"}))
    assert choice_profile(circuit, ("counts",)).active is not None
    assert choice_profile(circuit, ("counts",), noise=pauli).active is not None
    assert choice_profile(circuit, ("counts",), noise=kraus).active is None
    twirl = (("twirl", 1),)
    assert choice_profile(circuit, ("counts",), settings=twirl, noise=kraus).active is not None
