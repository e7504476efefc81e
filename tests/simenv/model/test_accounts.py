"""The tree of accounts: parents, members of groups, who may use and see what."""

import pytest
from failing import fails

from simenv.errors import ConfigError, NotAllowedError, NotFoundError
from simenv.model.accounts import MAX_DEPTH, NO_ACCOUNTS, Account, AccountTree, association

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


def test_first_account_of_the_table_is_the_default() -> None:
    assert TREE.resolve("ana", "") == "chem"
    assert TREE.resolve("ana", "bio") == "bio"


def test_own_user_is_in_root_and_may_use_all_accounts() -> None:
    assert (TREE.resolve("", ""), TREE.resolve("", "bio")) == ("root", "bio")
    fails(NotFoundError, "there is no account 'geo'", TREE.resolve, "", "geo")


def test_account_of_others_and_users_without_account_are_refused() -> None:
    error = fails(
        NotAllowedError, "'ben' is not in the account 'chem'", TREE.resolve, "ben", "chem"
    )
    assert error.hint == "yours: bio"
    fails(NotAllowedError, "'dan' is in no account", TREE.resolve, "dan", "")


def test_without_accounts_there_is_no_tree() -> None:
    assert not NO_ACCOUNTS
    assert NO_ACCOUNTS.resolve("ana", "") == ""
    fails(NotFoundError, "this environment has no accounts", NO_ACCOUNTS.resolve, "ana", "chem")
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
