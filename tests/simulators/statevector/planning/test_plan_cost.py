"""How often a large state is loaded and stored for well-known circuits: bounds that plans keep."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from arrays import Arrays

from simulators.statevector.planning import planner, tile_selection
from simulators.statevector.planning.tables import OperationRange

N = 24


def qft(arrays: Arrays) -> None:
    for high in reversed(range(N)):
        arrays.add("h", [high])
        for low in reversed(range(high)):
            arrays.add("cp", [low, high], (), [math.pi / 2 ** (high - low)])
    for qubit in range(N // 2):
        arrays.add("swap", [qubit, N - 1 - qubit])


def volume(arrays: Arrays, entangling: str = "cx") -> None:
    rng = np.random.default_rng(3)
    for _ in range(N):
        order = rng.permutation(N).tolist()
        for pair in zip(order[0::2], order[1::2], strict=True):
            for part in range(4):
                for qubit in pair:
                    arrays.add("u", [qubit], (), rng.uniform(-3, 3, 3).tolist())
                if part < 3:
                    arrays.add(entangling, pair)


def volume_cz(arrays: Arrays) -> None:
    volume(arrays, "cz")


def ghz(arrays: Arrays) -> None:
    arrays.add("h", [0])
    for qubit in range(N - 1):
        arrays.add("cx", [qubit, qubit + 1])


def ansatz(arrays: Arrays) -> None:
    for layer in range(5):
        for qubit in range(N - 1 if layer else 0):
            arrays.add("cx", [qubit, qubit + 1])
        for qubit in range(N):
            arrays.add("ry", [qubit], (), [0.1])


def clifford_t(arrays: Arrays) -> None:
    rng = np.random.default_rng(3)
    for qubit in range(N):
        arrays.add("h", [qubit])
    for kind in rng.integers(10, size=19 * N).tolist():
        one, two = rng.permutation(N)[:2].tolist()
        if kind < 4:
            arrays.add("cx", [one, two])
        else:
            arrays.add(("h", "h", "t", "tdg", "s", "x")[kind - 4], [one])


def tfim(arrays: Arrays) -> None:
    for _ in range(10):
        for first in (0, 1):
            for qubit in range(first, N - 1, 2):
                arrays.add("rzz", [qubit, qubit + 1], (), [-0.2])
        for qubit in range(N):
            arrays.add("rx", [qubit], (), [-0.2])


def planned(build: Callable[[Arrays], None], precision: str = "double") -> planner.SegmentPlan:
    arrays = Arrays(N, 0)
    build(arrays)
    circuit = arrays.circuit()
    ends = planner.SegmentContext(zero=True, measured=(1 << N) - 1)
    rows = OperationRange(0, circuit.ops.size, 0, 0)
    return planner.plan_segment(circuit, rows, ends, planner.tile_width(N, precision))


@pytest.mark.parametrize(
    ("build", "sweeps", "cost"),
    [
        (qft, 2.5, 70), (volume, 21, 1600), (volume_cz, 23, 1600), (ghz, 2.1, 32),
        (ansatz, 2, 60), (clifford_t, 9, 350), (tfim, 4, 200),
    ],
)  # fmt: skip
def test_well_known_circuits_stay_within_bounds_of_sweeps_and_cost(
    build: Callable[[Arrays], None], sweeps: float, cost: float
) -> None:
    table, single = planned(build).sweeps, planned(build, "single").sweeps
    for each in (table, single):
        passes = planner.describe_sweeps(each)
        assert sum(one.amplitudes for one in passes) < sweeps * 2**N
    ops, live, places = (a.astype(np.int64) for a in (table.ops, table.live, table.places))
    price = tile_selection.plan_cost(
        ops, table.starts, live, places, len(table.live), table.width, N
    )
    assert price < cost


def test_described_sweeps_account_for_all_operations() -> None:
    table = planned(tfim).sweeps
    result = planner.describe_sweeps(table)
    assert len(result) == len(table.live)
    assert sum(value for each in result for _, value in each.operations) == len(table.ops)
    assert result[0].amplitudes == 1 << table.width
    assert result[-1].amplitudes == 1 << N
