"""Positions of the qubits of a device that has no coordinates."""

from itertools import combinations

import numpy as np
import pytest
from qiskit.transpiler import CouplingMap

from simenv.transpiler.lattice import MAX_QUBITS, grid, positions


def crosses(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Return whether two segments of general position cross."""

    def turn(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        (x, y), (u, v) = q - p, r - p
        return float(x * v - y * u)

    return turn(a, b, c) * turn(a, b, d) < -1e-9 and turn(c, d, a) * turn(c, d, b) < -1e-9


@pytest.mark.parametrize("distance", [3, 5, 7])
def test_heavy_hexagons_come_out_as_a_lattice_without_crossings(distance: int) -> None:
    lattice = CouplingMap.from_heavy_hex(distance)
    edges = [tuple(edge) for edge in lattice.get_edges()]
    places = positions(lattice.size(), edges)
    lengths = np.array([np.linalg.norm(places[a] - places[b]) for a, b in edges])
    assert lengths.min() > 0.6
    assert lengths.max() < 1.5
    near = min(
        np.linalg.norm(places[a] - places[b]) for a, b in combinations(range(len(places)), 2)
    )
    assert near > 0.5
    for (a, b), (c, d) in combinations({(min(e), max(e)) for e in edges}, 2):
        assert len({a, b, c, d}) < 4 or not crosses(places[a], places[b], places[c], places[d])


def test_parts_that_no_coupling_joins_are_apart_and_large_devices_in_rows() -> None:
    places = positions(7, [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5)])
    for first, second in (((0, 1, 2), (3, 4, 5)), ((3, 4, 5), (6,)), ((0, 1, 2), (6,))):
        apart = [np.linalg.norm(places[a] - places[b]) for a in first for b in second]
        assert min(apart) > 1.0
    count = MAX_QUBITS + 1
    np.testing.assert_array_equal(positions(count, [(0, 1)]), grid(count))
    np.testing.assert_array_equal(positions(3, []), grid(3))
    np.testing.assert_array_equal(
        positions(2, [(0, 1)], ((5.0, 1.0), (5.0, 3.0))), [[5, 1], [5, 3]]
    )


def test_lattices_without_a_planar_drawing_are_laid_out_too() -> None:
    edges = list(combinations(range(6), 2))
    places = positions(6, edges)
    assert np.isfinite(places).all()
    assert min(np.linalg.norm(places[a] - places[b]) for a, b in edges) > 0.3
