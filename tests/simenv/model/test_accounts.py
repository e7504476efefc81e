"""The tree of accounts: parents, members of groups, who may use and see what."""

import pytest
from failing import fails

from simenv.errors import ConfigError
from simenv.model.accounts import MAX_DEPTH, Account, AccountTree, association

TREE = AccountTree(
    {
        "physics": Account(coordinators=("eve",)),
        "chem": Account(parent="physics", users=("ana", "@lab")),
        "bio": Account(users=("ben", "ana")),
    },
    {"lab": ["cem", "ana"]},
)


def test_path_goes_from_a_child_of_the_site_to_the_account() -> None:
    assert TREE.path("chem") == ("physics", "chem")
    assert TREE.path("bio") == ("bio",)
    assert TREE.path("root") == ("root",)


def test_members_of_groups_are_users_of_the_account() -> None:
    assert TREE.members["chem"] == {"ana", "cem"}
    assert TREE.accounts_of("cem") == ("chem",)


def test_association_names_account_and_user() -> None:
    assert (association("", "ana"), association("chem", "ana")) == ("ana", "chem/ana")


def test_coordinator_sees_the_accounts_below() -> None:
    assert TREE.sees("eve") == {"physics", "chem"}
    assert TREE.sees("ana") == frozenset()


def test_account_that_is_refused_is_not_among_those_that_there_are() -> None:
    error = fails(ConfigError, "account 'y'", AccountTree, {"x": Account(), "y": Account("no")})
    assert error.hint == "there are: x"
    error = fails(ConfigError, "account 'y'", AccountTree, {"y": Account("no")})
    assert error.hint == "add that account first"


@pytest.mark.parametrize(
    ("accounts", "words"),
    [
        ({"a": Account(parent="b")}, "account 'a': there is no parent 'b'"),
        ({"a": Account(parent="a")}, "below itself or too deep: a < a"),
        ({"a": Account(parent="b"), "b": Account(parent="a")}, "below itself"),
        ({f"a{k}": Account(parent=f"a{k - 1}" if k else "") for k in range(MAX_DEPTH + 1)}, "deep"),
        ({"a": Account(share=0.0)}, "share = 0.0 is outside"),
        ({"a": Account(share=float("nan"))}, "share = nan is outside"),
        ({"a": Account(budget_slot_h=-1.0)}, "budget_slot_h = -1.0 is outside"),
    ],
)
def test_trees_that_cannot_be_are_refused(accounts: dict[str, Account], words: str) -> None:
    fails(ConfigError, words, AccountTree, accounts)
