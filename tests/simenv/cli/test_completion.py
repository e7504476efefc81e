"""Completion in the shell: names of the environment that is up, and silence without one."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from live import Live
from shell import Shell

from simenv.cli import app, completion
from simenv.cli.entry import COMPLETE

BELL = str(Path(__file__).parents[3] / "examples" / "bell.qasm")
Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Complete:
    """Complete the last word of a line, as bash does; a busy machine may take longer."""
    monkeypatch.setattr(completion, "ANSWER_S", 30.0)

    def completed(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv(COMPLETE, "complete_bash")
        capfd.readouterr()
        assert completion.answer() == 0
        output = capfd.readouterr()
        monkeypatch.delenv(COMPLETE)
        assert output.err == ""
        return output.out.split()

    return completed


def test_names_come_from_the_running_environment(
    complete: Complete, shell: Shell, environment: Live
) -> None:
    simenv = f"simenv --name {environment.name}"
    pools = shell("pools", "-o", "pool", "--no-header").out.split()
    assert complete(f"{simenv} run x.qasm --pool ") == pools
    assert complete(f"{simenv} scale ") == pools
    assert complete(f"{simenv} policy queue ") == [*pools, "all"]
    assert "superconducting-lattice" in complete(f"{simenv} run x.qasm --device ")
    assert complete(f"{simenv} devices show trapped") == ["trapped-ions"]
    assert {"auto", "statevector", "mps"} <= set(complete(f"{simenv} submit x.qasm --engine "))
    assert complete(f"{simenv} explain x.qasm --engine statev") == ["statevector"]
    assert complete(f"{simenv} drain ") == [
        *shell("nodes", "-o", "node", "--no-header").out.split(),
        "all",
    ]
    task = shell("submit", BELL).out.strip()
    shell("result", task)
    for command in ("result", "trace", "receipt"):
        assert task in complete(f"{simenv} {command} ")
    assert complete(f"{simenv} cancel ") == []  # it has ended
    workers = shell("workers", "-o", "worker", "--no-header").out.split()
    assert complete(f"{simenv} logs ") == workers
    assert "queue" in complete(f"{simenv} history --series ")
    assert "list" in complete(f"{simenv} history --series l")


def test_accounts_and_classes_of_service_are_completed(
    complete: Complete, shell: Shell, environment: Live
) -> None:
    simenv = f"simenv --name {environment.name}"
    shell("accounts", "add", "physics", "--add-user", "ana")
    shell("qos", "set", "urgent", "--priority", "5")
    try:
        assert "physics" in complete(f"{simenv} run x.qasm --account ")
        assert complete(f"{simenv} accounts set phy") == ["physics"]
        assert complete(f"{simenv} accounts add phy") == []  # a new name
        assert "urgent" in complete(f"{simenv} run x.qasm --qos ")
        assert complete(f"{simenv} gateway tokens add --user an") == ["ana"]
    finally:
        shell("accounts", "remove", "physics")
        shell("qos", "remove", "urgent")


def test_common_options_are_completed_after_the_command_too(
    complete: Complete, environment: Live
) -> None:
    assert environment.name in complete("simenv --name ")
    assert environment.name in complete("simenv queue --name ")
    assert complete("simenv queue --js") == ["--json"]
    assert complete(f"simenv run x.qasm --name {environment.name} --device trapped") == [
        "trapped-ions"
    ]
    assert complete("simenv devices import x.json --na") == ["--name"]  # the device's
    assert complete("simenv devices import x.json --name ") == []


def test_without_an_environment_there_is_silence(complete: Complete) -> None:
    assert complete("simenv --name nowhere run x.qasm --device ") == []
    assert complete("simenv --name NoName result ") == []
    assert complete("simenv --service /none/key.simenv result ") == []
    assert complete("simenv ru") == ["run"]
    assert "import" in complete("simenv devices ")


def test_environment_that_answers_late_gives_no_names(environment: Live) -> None:
    endless = completion._of(lambda _: (str(number) for number in count()))
    with pytest.raises(completion._NoAnswer):
        endless(app.Settings(environment.name))


def commands(application: typer.Typer, path: str = "") -> Iterator[tuple[str, Any]]:
    for command in application.registered_commands:
        word = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        yield f"{path} {word}".strip(), command.callback
    for group in application.registered_groups:
        callback = group.typer_instance.registered_callback
        if callback is not None:
            yield f"{path} {group.name}".strip(), callback.callback
        yield from commands(group.typer_instance, f"{path} {group.name}".strip())


def test_each_completed_name_is_a_parameter() -> None:
    known = {".name"}
    for path, callback in commands(app.application()):
        names = set(get_type_hints(callback)) | set(inspect.signature(callback).parameters)
        known |= names | {f"{path}.{name}" for name in names}
    assert completion.NAMES.keys() <= known


def test_process_of_a_completion_prints_names_alone() -> None:
    line = "simenv qu"
    variables = {COMPLETE: "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    code = "from simenv.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert '"queue"' in done.stdout
