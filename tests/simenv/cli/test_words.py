"""Small languages of the command line: pools and parameters."""

from __future__ import annotations

import pytest

from simenv.cli.environment import _pool
from simenv.cli.reading import bindings_of
from simenv.errors import OptionError
from simenv.model import PoolSpec


def test_a_pool_is_another_one_than_written() -> None:
    assert _pool("sv:engine=statevector,workers=4") == PoolSpec("sv", "statevector", 4, 4)
    assert _pool("main") == PoolSpec("main", "any", 1, 1)
    assert _pool("m:min=0,max=8,idle_s=5") == PoolSpec("m", "any", 0, 8, 5.0)
    assert _pool("m:workers=0") == PoolSpec("m", "any", 0, 1)


@pytest.mark.parametrize("text", ["m:ranks=2", "m:workers", "m:workers=many", "m:,"])
def test_a_pool_is_guessed(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        _pool(text)
    assert text in caught.value.message


def test_a_parameter_is_lost() -> None:
    assert bindings_of([]) is None
    assert bindings_of(["a=0.5", "b=-1e-3"]) == {"a": [0.5], "b": [-1e-3]}


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=pi", "a=1=2"])
def test_a_parameter_is_guessed(text: str) -> None:
    with pytest.raises(OptionError):
        bindings_of([text])
