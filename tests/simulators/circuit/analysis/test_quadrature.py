"""Grids over detunings integrate all phases up to their reach, or state that they are too large."""

import numpy as np
import pytest

from simulators.circuit.analysis.quadrature import exact_grid, nodes


@pytest.mark.parametrize("reaches", [(0.5,), (8.0,), (60.0,), (300.0,), (30.0, 30.0), (60.0, 0.5)])
def test_an_exact_grid_has_the_error_that_it_states(reaches: tuple[float, ...]) -> None:
    grid = exact_grid(reaches, 65_536)
    assert grid is not None
    assert 0.0 < grid.error <= 1e-7
    for part in np.random.default_rng(1).uniform(size=(200, len(reaches))):
        a = part * reaches
        mean = grid.weights @ np.exp(1j * grid.x @ a)
        assert abs(mean - np.exp(-0.5 * a @ a)) <= grid.error + 1e-12


@pytest.mark.parametrize("reach", [1e5, 1e12, 1e200, float("inf")])
def test_nodes_above_the_limit_are_none(reach: float) -> None:
    assert nodes(reach, 1e-7, 65_536) is None
