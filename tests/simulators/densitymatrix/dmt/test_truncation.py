"""Cuts of a bond: what density matrix truncation keeps, and that plain truncation does not."""

import numpy as np
import pytest

from simulators.densitymatrix.dmt.truncation import cut

SIDE = 24  # values of a bond, times 4


def matrix(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A matrix whose singular values decay, and the traces of its two sides."""
    random = np.random.default_rng(seed)
    u, _, v = np.linalg.svd(random.standard_normal((4 * SIDE, 4 * SIDE)))
    m = (u * 0.9 ** np.arange(4 * SIDE)) @ v
    left, right = random.standard_normal(SIDE), random.standard_normal(SIDE)
    eye = np.eye(4)
    return m, np.kron(left[:, None], eye), np.kron(right[:, None], eye)


@pytest.mark.parametrize("seed", range(5))
def test_operators_of_a_site_with_anything_on_the_other_side_are_kept(seed: int) -> None:
    m, left, right = matrix(seed)
    found = cut(m, left, right, 32)
    assert found.left.shape == (4 * SIDE, 32)
    assert found.left.T @ found.left == pytest.approx(np.eye(32), abs=1e-12)
    kept = found.left @ found.right
    assert left.T @ kept == pytest.approx(left.T @ m, abs=1e-10)
    assert kept @ right == pytest.approx(m @ right, abs=1e-10)
    u, s, v = np.linalg.svd(m)
    plain = (u[:, :32] * s[:32]) @ v[:32]
    assert np.abs(plain @ right - m @ right).max() > 1e-3
    lost = np.linalg.norm(m - kept) ** 2 / np.linalg.norm(m) ** 2
    assert found.lost == pytest.approx(lost, rel=1e-6)


@pytest.mark.parametrize("bond", [16, 32, 64])
def test_a_matrix_of_the_rank_that_is_kept_is_kept(bond: int) -> None:
    m, left, right = matrix(1)
    random = np.random.default_rng(2)
    low = random.standard_normal((4 * SIDE, bond - 9)) @ random.standard_normal(
        (bond - 9, 4 * SIDE)
    )
    if bond == 64:  # free directions are those beyond the protected ones
        found = cut(low, left, right, bond)
        assert found.left @ found.right == pytest.approx(low, abs=1e-9)
    assert cut(m[:bond], left[:bond], right, bond).lost == 0.0


def test_a_product_of_independent_sides_loses_nothing() -> None:
    random = np.random.default_rng(3)
    _, left, right = matrix(4)
    m = np.outer(random.standard_normal(4 * SIDE), random.standard_normal(4 * SIDE))
    found = cut(m, left, right, 16)
    assert found.left @ found.right == pytest.approx(m, abs=1e-10)
