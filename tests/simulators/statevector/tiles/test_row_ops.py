"""Kernels written for registers of different widths give the same bits."""

from collections.abc import Callable

import numba
import numpy as np
import pytest

from simulators.compiler.simd import aligned
from simulators.statevector.planning.tables import LANES
from simulators.statevector.tiles import row_ops

_ROWS = 8


def made(dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Amplitudes of a few rows, room for a tile, where its rows begin, and a matrix."""
    random = np.random.default_rng(5)
    size = 2 * LANES * _ROWS
    item = np.dtype(dtype).itemsize
    amplitudes, tile = (aligned(size * item).view(dtype) for _ in range(2))
    amplitudes[:] = random.normal(size=size)
    return amplitudes, tile, 2 * LANES * np.arange(_ROWS), random.normal(size=128).astype(dtype)


def compiled(dtype: type[np.floating]) -> Callable[[], bytes]:
    """A call of the row functions in vectors of `emit.VECTOR_BYTES`."""
    rows = row_ops
    load_row, store_row, norm_row, norm_stored = (
        rows.load_row, rows.store_row, rows.norm_row, rows.norm_stored,
    )  # fmt: skip
    swap_lane, dense_1, dense_2, real_3 = rows.swap_lane, rows.dense_1, rows.dense_2, rows.real_3
    turn_row = rows.scale_row

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def run(amplitudes, tile, order, matrix, norms):  # type: ignore[no-untyped-def]
        for k in range(order.size):
            load_row(amplitudes, 64 * k, tile, order[k])
        for lane in range(5):
            swap_lane(tile, order[1], order[6], lane)
        dense_1(tile, order, 2, 1, 0, 0, matrix, 3)
        dense_2(tile, order, 0, 4, 1, 0, matrix, 9)
        dense_2(tile, order, 2, 4, 1, 0, matrix, 40)
        real_3(tile, order, 0, 1, 2, 4, matrix, 60)
        turn_row(tile, order[3], matrix, 7)
        for k in range(order.size):
            store_row(amplitudes, 64 * k, tile, order[k])
            norms[2 * k] = norm_row(tile, order[k])
            norms[2 * k + 1] = norm_stored(amplitudes, 64 * k)

    def call() -> bytes:
        amplitudes, tile, order, matrix = made(dtype)
        norms = np.empty(2 * _ROWS)
        run(amplitudes, tile, order, matrix, norms)
        assert (norms[0::2] == norms[1::2]).all()
        return amplitudes.tobytes() + norms.tobytes()

    return call


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_amplitudes_and_norms_do_not_depend_on_the_register_width(
    dtype: type[np.floating], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for count in (64, 32):
        monkeypatch.setattr(row_ops, "VECTOR_BYTES", count)
        names.add(compiled(dtype)())
    assert len(names) == 1


def test_vector_width_follows_cpu_features() -> None:
    assert row_ops.vector_bytes({"avx2": True, "fma": True, "avx512f": True}) == 64
    assert row_ops.vector_bytes({"avx2": True, "fma": True, "avx512f": False}) == 32
    assert row_ops.vector_bytes({"neon": True}) == 32
