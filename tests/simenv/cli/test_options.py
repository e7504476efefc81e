"""Options that stand anywhere on the line, parameters, completion and short help."""

import os
from pathlib import Path

import pytest
from failing import fails
from interpreter import python

import simenv
from simenv.cli.app import Settings, hoist
from simenv.cli.tasks.circuit_input import bindings_of
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


def test_parameters_are_parsed_into_bindings() -> None:
    assert bindings_of([]) is None
    assert bindings_of(["a=0.5", "b=-1e-3"]) == {"a": [0.5], "b": [-1e-3]}


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=pie", "a=1=2"])
def test_malformed_parameter_is_refused(text: str) -> None:
    fails(OptionError, "", bindings_of, [text])


def typed(*words: str, **environment: str) -> str:
    """What `python -m simenv` prints for a command line."""
    done = python("-m", "simenv", *words, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_runs_as_a_module() -> None:
    assert typed("--version").strip().partition("+")[0] == simenv.__version__


@pytest.mark.parametrize("line", [(), ("submit",), ("keys", "add")])
def test_short_help_option_equals_long_one(line: tuple[str, ...]) -> None:
    assert typed(*line, "-h") == typed(*line, "--help")


@pytest.mark.parametrize(
    ("line", "word"), [("simenv sub", "submit"), ("simenv submit --sh", "--shots")]
)
def test_bash_completes_commands_and_options(line: str, word: str) -> None:
    index = str(len(line.split()) - 1)
    result = typed(_SIMENV_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=index)
    assert result.split() == [word]


def test_the_completion_script_can_be_shown() -> None:
    assert "complete_bash" in typed("--show-completion", "bash")
