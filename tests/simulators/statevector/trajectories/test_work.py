"""Work of trajectories: near what their number of distinct patterns costs, divided evenly."""

import heapq
import itertools
import math

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from noisy import after_gates, program
from noisy_runs import device_noise, layers

from noise_models.channel import depolarizing, relaxation
from simulators.catalog import SMALL_QUBITS
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import RunControl, RunOptions, ThreadPool
from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
from simulators.statevector.trajectories.walks import LargeWalks, TrajectorySampler, rank_cuts
from simulators.trajectories.locations import NoisyCircuit, locate
from simulators.trajectories.noise_table import SortedPatterns
from simulators.trajectories.pattern_order import sort_places
from simulators.trajectories.pattern_sampling import ErrorTable, draw_patterns

KEY = (3, 0)


def _depolarizing(circuit: Circuit, one: float, two: float) -> NoiseProgram:
    single, pair = depolarizing(one, 1), depolarizing(two, 2)
    return program(
        after_gates(
            circuit,
            lambda row: (
                []
                if row.name == "measure"
                else [(row.qubits, pair if len(row.qubits) == 2 else single)]
            ),
        )
    )


def _ansatz(num_qubits: int, count: int) -> Circuit:
    """Layers of ry gates and chains of cx, then all qubits measured."""
    random = np.random.default_rng(0)
    arrays = Arrays(num_qubits, num_qubits)
    for _ in range(count):
        for q in range(num_qubits):
            arrays.add("ry", [q], (), [float(random.uniform(0, 6))])
        for q in range(num_qubits - 1):
            arrays.add("cx", [q, q + 1])
    return arrays.measure(range(num_qubits)).circuit()


def _located(circuit: Circuit, noise: NoiseProgram) -> NoisyCircuit:
    result = locate(circuit, noise)
    assert result is not None
    return result


def _rows(sampler: TrajectorySampler, errors: ErrorTable, shots: int) -> SortedPatterns:
    patterns = draw_patterns(errors, 0, shots, KEY, sampler.places)
    return sort_places(patterns, sampler.places.size)


def _classes(sampler: TrajectorySampler, located: NoisyCircuit, shots: int) -> SortedPatterns:
    """One pattern of each class, as wide circuits are run."""
    places = sampler.places
    patterns = draw_patterns(located.errors, 0, shots, KEY, np.arange(places.size))
    carried = carry(patterns, located.table, FrameRules.of(located.circuit), places)
    return sort_places(carried.patterns, places.size)


def expected_circuits(errors: ErrorTable, shots: int) -> float:
    """W = 1 + N1 / 2 + N2 / 3 + N3 / 4, N_k: distinct patterns of k errors; of each pattern of one
    or two errors the probability is known, of more all are taken as distinct."""
    rates = errors.probabilities / (1.0 - errors.probabilities)
    shares: list[float] = []
    for at, rate in zip(errors.begins.tolist(), rates.tolist(), strict=True):
        end = at + int(np.argmax(errors.edges[at:] == 1.0)) + 1
        shares += (rate * np.diff(errors.edges[at:end], prepend=0.0)).tolist()
    probs = np.array(shares)
    weight = float(-np.log1p(-errors.probabilities).sum())
    none = math.exp(-weight)
    ones = -np.expm1(-shots * none * probs).sum()
    twos = -np.expm1(-shots * none * np.outer(probs, probs)).sum() / 2
    more = shots * (1.0 - none * (1.0 + weight + weight**2 / 2))
    return float(1.0 + ones / 2 + twos / 3 + more / 4)


@pytest.mark.parametrize(("num_qubits", "shots"), [(6, 20_000), (15, 1_000)])
def test_work_is_that_of_cost_model_and_few_states_are_held(num_qubits: int, shots: int) -> None:
    circuit = _ansatz(num_qubits, 5)
    located = _located(circuit, _depolarizing(circuit, 3e-4, 3e-3))
    sampler = TrajectorySampler(located.circuit, located.table, RunOptions(precision="single"))
    small = num_qubits <= SMALL_QUBITS
    rows = _rows(sampler, located.errors, shots) if small else _classes(sampler, located, shots)
    control = RunControl()
    with ThreadPool(1, control) as thread_pool:
        walks = sampler.open(thread_pool, control)
        walks.bind(located.circuit.params, KEY)
        walks.indices(rows, 0)
    circuits = walks.operations / located.circuit.ops.size
    assert circuits <= 1.1 * expected_circuits(located.errors, shots)
    assert walks.states <= rows.deepest + 1
    if small:
        assert walks.operations == walks.least


@pytest.mark.parametrize("small", [True, False])
def test_ranges_of_rows_repeat_little_and_balance_eight_threads(small: bool) -> None:
    circuit = layers(5 if small else 9, 6, np.random.default_rng(1)).circuit()
    located = _located(circuit, _depolarizing(circuit, 6e-3, 6e-2))
    control = RunControl()
    sampler = TrajectorySampler(located.circuit, located.table, RunOptions(threads=8), small=small)
    rows = _rows(sampler, located.errors, 20_000 if small else 3_000)
    with ThreadPool(8, control) as thread_pool:
        walks = sampler.open(thread_pool, control)
        walks.bind(located.circuit.params, KEY)
        walks.indices(rows, 0)
    with ThreadPool(1, control) as thread_pool:
        alone = sampler.open(thread_pool, control)
        alone.bind(located.circuit.params, KEY)
        alone.indices(rows, 0)
    assert walks.operations <= 1.02 * alone.operations
    assert len(walks.range_operations) > 8
    threads = [0] * 8  # each takes the next range as soon as it is free
    for operations in walks.range_operations:
        heapq.heapreplace(threads, threads[0] + operations)
    assert max(threads) <= 1.1 * sum(threads) / 8


@pytest.mark.parametrize("small", [True, False])
def test_shares_of_eight_ranks_repeat_little_and_are_balanced(small: bool) -> None:
    circuit = layers(5 if small else 9, 6, np.random.default_rng(1)).circuit()
    located = _located(circuit, _depolarizing(circuit, 6e-3, 6e-2))
    control = RunControl()
    sampler = TrajectorySampler(located.circuit, located.table, RunOptions(), small=small)
    rows = _rows(sampler, located.errors, 20_000 if small else 3_000)
    cuts = rank_cuts(rows, sampler.shared_before, 8)
    operations, array = [], np.zeros(rows.begins.size, np.int64)
    with ThreadPool(1, control) as thread_pool:
        result = sampler.open(thread_pool, control)
        result.bind(located.circuit.params, KEY)
        expected = result.indices(rows, 0)
        for begin, end in itertools.pairwise(cuts.tolist()):
            walks = sampler.open(thread_pool, control)
            walks.bind(located.circuit.params, KEY)
            share = msgspec.structs.replace(rows, order=rows.order[begin:end].copy())
            array += walks.indices(share, 0)
            operations.append(walks.operations)
    assert np.array_equal(array, expected)
    assert sum(operations) <= 1.02 * result.operations
    assert max(operations) <= 1.1 * sum(operations) / 8


def test_few_patterns_stay_in_one_rank_and_one_range() -> None:
    """Where ranges would repeat more than they divide."""
    circuit = layers(9, 4, np.random.default_rng(1)).circuit()
    located = _located(circuit, _depolarizing(circuit, 1e-4, 1e-3))
    options = RunOptions(threads=8)
    sampler = TrajectorySampler(located.circuit, located.table, options, small=False)
    rows = _rows(sampler, located.errors, 50)
    control = RunControl()
    with ThreadPool(8, control) as thread_pool:
        walks = sampler.open(thread_pool, control)
        assert isinstance(walks, LargeWalks)
        walks.bind(located.circuit.params, KEY)
        walks.indices(rows, 0)
    assert len(walks.range_operations) == 1
    assert rank_cuts(rows, sampler.shared_before, 4).tolist() == [0, 50, 50, 50, 50]


@pytest.mark.parametrize("small", [True, False])
def test_norm_based_form_shares_more_under_strong_damping(small: bool) -> None:
    circuit = layers(6 if small else 9, 6, np.random.default_rng(1)).circuit()
    damping = depolarizing(3e-3, 1).then(relaxation(1_000, 10, 19))
    noise = program(after_gates(circuit, lambda r: [(r.qubits, damping)] if r.name == "u" else []))
    done, shots = [], 400
    for cost in (0.0, 1e9):  # of a draw: nothing, so norm-based; or too much
        located = locate(circuit, noise, draw_cost=cost)
        assert located is not None
        sampler = TrajectorySampler(located.circuit, located.table, RunOptions(), small=small)
        rows = _rows(sampler, located.errors, shots)
        control = RunControl()
        with ThreadPool(1, control) as thread_pool:
            walks = sampler.open(thread_pool, control)
            walks.bind(located.circuit.params, KEY)
            walks.indices(rows, 0)
        done.append(walks.operations)
    assert done[0] < 0.7 * done[1]


@pytest.mark.parametrize("precision", ["double", "single"])
def test_wide_and_small_states_find_the_same_outcomes(precision: str) -> None:
    """But where a Kraus operator or an outcome is drawn within rounding, or where two channels of a
    segment are drawn in another order."""
    circuit = layers(9, 4, np.random.default_rng(5)).circuit()
    mild = [
        item for k, item in enumerate(device_noise(circuit, 1.9, 0.1)) if k % 4 == 0
    ]  # as strong as devices are
    located = _located(circuit, program(mild))
    entries = []
    for small in (True, False):
        sampler = TrajectorySampler(
            located.circuit, located.table, RunOptions(precision=precision), small=small
        )
        rows = _rows(sampler, located.errors, 2_000)
        control = RunControl()
        with ThreadPool(1, control) as thread_pool:
            walks = sampler.open(thread_pool, control)
            walks.bind(located.circuit.params, KEY)
            entries.append(walks.indices(rows, 0))
    assert np.mean(entries[0] == entries[1]) >= 0.999
