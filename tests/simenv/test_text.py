"""Values of others as text: short, and made in no time."""

import math
from typing import Any

import pytest

from simenv.text import run_time, short_repr


def aliased(depth: int) -> list[Any]:
    """10^depth values in a few lists."""
    result: list[Any] = [1] * 10
    for _ in range(depth):
        result = [result] * 10
    return result


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"), (True, "True"), (math.nan, "nan"), (None, "None"), ("\x1b[2J", r"'\x1b[2J'"),
        ([1, "a", None], "[1, 'a', None]"), ({"a": 0.5}, "{'a': 0.5}"), ("x" * 61, "<str>"),
        (10**5_000, "<int>"), (-(10**5_000), "<int>"), ([10**5_000], "<list>"),
        ([1] * 17, "<list>"), ([[1]], "<list>"), (aliased(50), "<list>"),
        ({"a": aliased(50)}, "<dict>"), (b"x", "<bytes>"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_representation_is_short_and_never_walks_into_values(value: object, expected: str) -> None:
    assert short_repr(value) == expected


def test_run_times_from_one_second_on_are_in_seconds() -> None:
    assert [run_time(each) for each in (0.000211, 0.9, 3.82, 8_230.4)] == [
        "0.211 ms", "900 ms", "3.8 s", "8230.4 s",
    ]  # fmt: skip
