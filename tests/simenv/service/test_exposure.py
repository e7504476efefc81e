"""The warning that other users of a node can run programs through the launcher."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from service import ServiceHarness

from simenv.service.queries import handlers, task_views


def test_exposure_warns_where_other_users_are_unless_isolated() -> None:
    warning = task_views.exposed("this machine allows no namespace", (1000, 1001))
    assert "2 other users of this node can run programs as you" in warning
    assert "this machine allows no namespace" in warning
    assert "docs/guides/security.md" in warning
    assert task_views.exposed("this machine allows no namespace", ()) == ""
    assert task_views.exposed("", (1000,)) == ""


def test_other_users_are_looked_up_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the status is asked for: reading all of /proc takes the loop milliseconds."""
    bench, walks = ServiceHarness(tmp_path), list[int]()

    def other_users() -> tuple[int, ...]:
        walks.append(1)
        return (1000,)

    monkeypatch.setattr(handlers, "other_users", other_users)
    bench.loop.facts = msgspec.structs.replace(bench.loop.facts, exposure="there is no namespace")
    for _ in range(3):
        assert any("1 other user" in each for each in bench.loop.query_handlers.status().warnings)
    assert len(walks) == 1
    monkeypatch.setattr(bench.loop.query_handlers, "_next_others_ns", 0)  # a minute later
    bench.loop.query_handlers.status()
    assert len(walks) == 2
