"""The comparison of two devices, on which tests of a real GPU stand, tells bits apart."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from gpu_bits import circuit_results, same, table_bits
from host_device import HostDevice


@pytest.mark.parametrize("precision", ["double", "single"])
def test_two_orders_of_threads_have_the_same_bits(library: Path, precision: str) -> None:
    one, two = HostDevice(library), HostDevice(library, order=11)
    assert table_bits(one, 3, precision) == table_bits(two, 3, precision)
    assert table_bits(one, 3, precision) != table_bits(two, 4, precision)
    for n in (5, 13):
        result = circuit_results(one, n, precision)
        again = circuit_results(two, n, precision)
        assert all(same(a, b) for a, b in zip(result, again, strict=True))


def test_one_different_bit_is_noticed(library: Path) -> None:
    (_, value) = circuit_results(HostDevice(library), 5, "double")
    assert value.statevector is not None
    changed = value.statevector.copy()
    changed.view("uint64")[0, 0] ^= 1
    assert not same(value, msgspec.structs.replace(value, statevector=changed))
