"""Links of results end, and their memory is bounded for each user."""

import pytest

from simenv.errors import LimitExceededError
from simenv.gateway.pasqal import links


def test_a_link_ends_after_its_time() -> None:
    now = [0.0]
    held = links.ResultLinks(lambda: now[0])
    secret = held.add("ana", b"1")
    assert held.get(secret) == b"1"
    now[0] = links.HELD_S + 1.0
    assert held.get(secret) is None
    assert held.get("other") is None


def test_a_user_drives_out_own_links_alone() -> None:
    held = links.ResultLinks()
    of_bea = held.add("bea", b"b")
    part = b"a" * (links.MAX_BYTES // 4)
    secrets = [held.add("ana", part) for _ in range(5)]
    assert held.get(of_bea) == b"b"
    assert [held.get(secret) is not None for secret in secrets] == [False] * 3 + [True] * 2
    with pytest.raises(LimitExceededError, match="limit of a link"):
        held.add("ana", part * 3)
