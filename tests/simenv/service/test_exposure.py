"""The warning that other users of a node can run programs through the launcher."""

from __future__ import annotations

from simenv.service import api


def test_exposure_warns_where_other_users_are_present() -> None:
    warning = api.exposed("this machine allows no namespace", (1000, 1001))
    assert "2 other users of this node can run programs as you" in warning
    assert "this machine allows no namespace" in warning
    assert "docs/security.md" in warning


def test_nothing_is_said_to_a_user_who_is_alone_or_isolated() -> None:
    assert api.exposed("this machine allows no namespace", ()) == ""
    assert api.exposed("", (1000,)) == ""
