"""Random numbers are numpy's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from simulators.execution.rng import uniforms

MAX = 2**64 - 1


@pytest.mark.parametrize("seed", [0, 1, 12345678901234567890, MAX])
@pytest.mark.parametrize("binding", [0, 1, MAX])
@pytest.mark.parametrize("draw", [0, 1, 77, 2**32 + 3, MAX])
def test_uniforms_equal_numpy_philox(seed: int, binding: int, draw: int) -> None:
    key = np.array([seed, binding], np.uint64)
    counter = np.array([0, draw, 0, 0], np.uint64)
    expected = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(1001)
    array = np.empty(1001)
    uniforms(seed, binding, draw, np.arange(1001), array)
    assert (array == expected).all()


def test_uniform_of_shot_is_independent_of_other_shots() -> None:
    everyone = np.empty(5000)
    uniforms(3, 4, 5, np.arange(5000), everyone)
    rng = np.random.default_rng(0)
    for shots in (np.sort(rng.choice(5000, 300, replace=False)), rng.permutation(5000)):
        array = np.empty(shots.size)
        uniforms(3, 4, 5, shots, array)
        assert (array == everyone[shots]).all()


def test_shots_beyond_2_to_the_32_have_other_uniforms() -> None:
    far = np.array([2**40, 2**40 + 1])
    array, near = np.empty(2), np.empty(2)
    uniforms(1, 0, 0, far, array)
    uniforms(1, 0, 0, far % 2**32, near)
    assert (array != near).all()
