"""The options that may stand anywhere on the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from failing import fails

from simenv.cli.app import Settings, hoist
from simenv.errors import OptionError


def test_common_options_are_moved_before_the_command() -> None:
    line = ["status", "--json", "--name", "a", "--service=f"]
    assert hoist(line) == ["--json", "--name", "a", "--service=f", "status"]
    assert hoist(["submit", "--", "--json"]) == ["submit", "--", "--json"]
    line = ["devices", "import", "a.json", "--name", "fez", "--json", "--service=f"]
    assert hoist(line) == ["--json", "--service=f", "devices", "import", "a.json", "--name", "fez"]
    both = ["--name", "e", "devices", "import", "a", "--name=fez"]
    assert hoist(both) == both
    assert hoist(["devices", "show", "fez", "--name", "e"]) == [
        *("--name", "e", "devices", "show", "fez")
    ]


@pytest.mark.parametrize(
    "line", [["status", "--name"], ["--service", "--json", "status"], ["--name", "--", "status"]]
)
def test_common_option_without_value_is_refused(line: list[str]) -> None:
    fails(OptionError, "has no value", hoist, line)


def test_settings_are_found_by_name_file_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMENV_SERVICE", raising=False)
    assert not Settings().named
    assert Settings(name="a").named
    assert Settings(service=Path("connection.json")).named
    monkeypatch.setenv("SIMENV_SERVICE", "/tmp/connection.json")
    assert Settings().named
