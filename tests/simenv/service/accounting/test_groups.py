"""Members of groups of the operating system, looked up outside the loop's thread."""

import grp
import os
import pwd
import threading
from collections.abc import Iterable

import pytest

from simenv.service.accounting import groups
from simenv.service.accounting.groups import GroupMembers, Members, members_of

LAB = frozenset({"lab"})


class Directory:
    """What a name service says, and how often it was asked."""

    def __init__(self, **members: set[str]) -> None:
        self.members = members
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()

    def look_up(self, names: Iterable[str]) -> Members:
        assert self.answers.wait(30.0)
        self.asked += 1
        return {n: frozenset(self.members[n]) if n in self.members else None for n in names}


def settled(known: GroupMembers, now_ns: int, wanted: frozenset[str] = LAB) -> bool:
    """Begin a lookup if it is due, wait for its end, and take the answer over."""
    changed = known.poll(wanted, now_ns)
    if known._thread is not None:
        known._thread.join(30.0)
    return known.poll(wanted, now_ns) or changed


def test_users_of_this_machine_are_in_their_primary_group() -> None:
    user = pwd.getpwuid(os.getuid())
    name = grp.getgrgid(user.pw_gid).gr_name
    answer = members_of([name, "no-such-group"])
    members = answer[name]
    assert members is not None
    assert user.pw_name in members
    assert answer["no-such-group"] is None


def test_groups_are_looked_up_again_after_30_s() -> None:
    directory = Directory(lab={"ana", "ben"}, staff={"eve"})
    known = GroupMembers(directory.look_up)
    assert settled(known, 1)
    assert known.known == {"lab": {"ana", "ben"}}
    directory.members["lab"].discard("ben")
    assert not settled(known, 1 + groups.LOOKUP_NS - 1)
    assert directory.asked == 1
    assert settled(known, 1 + groups.LOOKUP_NS)
    assert known.known == {"lab": {"ana"}}
    assert settled(known, 2 + groups.LOOKUP_NS, frozenset({"lab", "staff"})), "a new one at once"
    assert known.known["staff"] == {"eve"}


def test_slow_name_service_never_blocks_the_caller() -> None:
    directory = Directory(lab={"ana"})
    directory.answers.clear()
    known = GroupMembers(directory.look_up)
    known.wait(LAB, 0.01)
    assert known.confirm("ben", ("lab",), 2)
    assert known.known == {"lab": {"ben"}}, "who is confirmed is a member already"
    assert known.lacks(LAB)
    for turn in range(3):  # one thread, however often it is due
        assert not known.poll(LAB, turn * 2 * groups.LOOKUP_NS)
    directory.answers.set()
    assert settled(known, 0)
    assert directory.asked == 1
    assert not known.lacks(LAB)


def test_group_of_a_directory_out_of_order_keeps_its_members_for_ten_minutes() -> None:
    directory = Directory(lab={"ana"})
    known = GroupMembers(directory.look_up)
    settled(known, 1)
    directory.members.clear()
    assert not settled(known, 1 + groups.LOOKUP_NS)
    assert known.known == {"lab": {"ana"}}
    assert settled(known, 1 + groups.GONE_NS + groups.LOOKUP_NS)
    assert known.known == {"lab": frozenset()}


def test_failed_lookup_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_names: Iterable[str]) -> Members:
        raise OSError("no answer")

    known = GroupMembers(fail)
    assert not settled(known, 1)
    assert "groups.failed OSError: no answer" in caplog.text
    assert known.lacks(LAB)


def test_user_whom_the_directory_does_not_list_is_a_member_while_confirmed() -> None:
    known = GroupMembers(Directory(lab={"ana"}).look_up)
    settled(known, 1)
    assert known.confirm("ben", ("lab", "staff"), 2)
    assert known.known == {"lab": {"ana", "ben"}}
    assert not settled(known, 1 + groups.LOOKUP_NS)
    assert known.known == {"lab": {"ana", "ben"}}  # after a lookup, too
    assert not known.confirm("ben", ("lab",), 3)
    assert known.confirm("ben", ("staff",), 4)
    assert known.known == {"lab": {"ana"}}
    assert known.is_confirmed("ben")


def test_confirmed_groups_are_forgotten_with_their_user_or_after_ten_minutes() -> None:
    known = GroupMembers(Directory(lab=set()).look_up)
    settled(known, 1)
    for user in ("ana", "ben", "eve"):
        known.confirm(user, ("lab",), 1)
    known.confirm("ana", ("lab",), groups.GONE_NS)
    assert known.retain({"ana", "ben"}, 2)
    assert known.known == {"lab": {"ana", "ben"}}
    assert known.retain({"ana", "ben"}, 1 + groups.GONE_NS)
    assert known.known == {"lab": {"ana"}}
    assert not known.retain({"ana", "ben"}, 1 + groups.GONE_NS)
