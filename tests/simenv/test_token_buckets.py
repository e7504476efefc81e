"""Token buckets: rate, burst, and the number of buckets."""

from __future__ import annotations

import pytest

from simenv.token_buckets import Rate, TokenBuckets


def test_buckets_give_tokens_at_their_rate() -> None:
    buckets, rate = TokenBuckets(), Rate(2.0, 4.0)
    assert [buckets.take("a", rate, 0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b", rate, 0.0) == 0.0
    assert buckets.take("a", rate, 0.5) == 0.0
    assert buckets.wait_s("a", rate, 0.75) == pytest.approx(0.25)
    assert [buckets.take("a", rate, 100.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]


def test_tokens_to_come_are_taken_too() -> None:
    buckets, rate = TokenBuckets(), Rate(2.0, 2.0)
    buckets.take_more("a", 10.0)  # it has taken none yet
    assert buckets.take("a", rate, 0.0) == 0.0
    buckets.take_more("a", 3.0)
    assert buckets.take("a", rate, 0.0) == pytest.approx(1.5)
    assert buckets.take("a", rate, 1.5) == 0.0


def test_remembered_buckets_are_bounded() -> None:
    buckets = TokenBuckets(3)
    for key in "abcde":
        buckets.take(key, Rate(1.0, 1.0), 0.0)
    assert list(buckets._buckets) == ["c", "d", "e"]
