"""The options that may stand anywhere on the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from simenv.cli.options import Settings, hoist
from simenv.errors import OptionError


def test_a_common_option_after_the_verb_is_not_understood() -> None:
    line = ["status", "--json", "--name", "a", "--service=f"]
    assert hoist(line) == ["--json", "--name", "a", "--service=f", "status"]


def test_a_word_after_the_double_dash_is_taken_away() -> None:
    assert hoist(["submit", "--", "--json"]) == ["submit", "--", "--json"]


@pytest.mark.parametrize(
    "line", [["status", "--name"], ["--service", "--json", "status"], ["--name", "--", "status"]]
)
def test_a_value_that_is_missing_is_taken_from_elsewhere(line: list[str]) -> None:
    with pytest.raises(OptionError, match="has no value"):
        hoist(line)


def test_another_environment_takes_the_place_of_the_named_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SIMENV_SERVICE", raising=False)
    assert not Settings().named
    assert Settings(name="a").named
    assert Settings(service=Path("connection.json")).named
    monkeypatch.setenv("SIMENV_SERVICE", "/tmp/connection.json")
    assert Settings().named
