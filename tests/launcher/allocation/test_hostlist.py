"""Lists of hosts as sites write them."""

from __future__ import annotations

import pytest

from launcher.allocation.hostlist import expand_counts, expand_hosts, same_host
from launcher.base import AllocationError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a,b.site.org", ["a", "b.site.org"]),
        ("a[1-3,07],b", ["a1", "a2", "a3", "a07", "b"]),
        ("n[009-011]", ["n009", "n010", "n011"]),
        ("r[1-2]n[3,5]x", ["r1n3x", "r1n5x", "r2n3x", "r2n5x"]),
        (" a , b ", ["a", "b"]),
        ("gpu-[10-11].local", ["gpu-10.local", "gpu-11.local"]),
    ],
)
def test_host_list_is_expanded_in_order(text: str, names: list[str]) -> None:
    assert expand_hosts(text, "X") == names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,,b",
        "a[",
        "a[1-]",
        "a[3-1]",
        "a[x]",
        "a]",
        "-oProxyCommand=x",
        "a b",
        "a;reboot",
        "$(x)",
        "a[1-99999999]",
        "a[1-9999][1-9999]",
        "a" * 300,
    ],
)
def test_invalid_host_list_is_refused_with_its_source_and_a_hint(text: str) -> None:
    with pytest.raises(AllocationError, match=r"^WHERE = ") as caught:
        expand_hosts(text, "WHERE")
    assert "--hosts" in caught.value.hint


def test_repeated_counts_are_expanded() -> None:
    assert expand_counts("2(x3),1", "X", 4) == [2, 2, 2, 1]


@pytest.mark.parametrize("text", ["2(x3)", "2,2,2,2,2", "", "x,1,1,1", "-1,1,1,1", "1(x999999999)"])
def test_counts_that_do_not_match_the_hosts_are_refused(text: str) -> None:
    with pytest.raises(AllocationError, match="SLOTS = "):
        expand_counts(text, "SLOTS", 4)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("n1", "n1", True),
        ("n1", "N1.site.org", True),
        ("n1.site.org", "n1", True),
        ("n1.site.org.", "n1.site.org", True),
        ("n1.a.org", "n1.b.org", False),
        ("n1", "n10", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("10", "10.0.0.1", False),
        ("fe80::1", "fe80::1", True),
    ],
)
def test_short_and_full_names_of_a_host_are_equal(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same
    assert same_host(other, one) is same
