"""Circuits of the benchmarks that are made by a seed."""

from __future__ import annotations

from bench.small_circuits import ansatz, layered


def test_circuits_are_reproducible_by_seed() -> None:
    first, again, other = layered(4, 30, 2, 7), layered(4, 30, 2, 7), layered(4, 30, 2, 8)
    assert first == again
    assert first[0] != first[1] != other[1]
    assert sum(first[0].count_ops().values()) == 30 + 4
    sweep = ansatz(8, 32, 68)
    assert (sweep.num_parameters, sum(sweep.count_ops().values())) == (32, 68 + 8)
