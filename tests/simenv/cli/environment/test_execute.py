"""`simenv exec -- CMD`: what the application gets, and what is left of it."""

from __future__ import annotations

import sys
from pathlib import Path

import live
import pytest
from shell import Shell

from simenv.cli import app
from simenv.cli.environment import private
from simenv.cli.profiling.command import report_of
from simenv.model import TaskState

BELL = Path(__file__).parents[4] / "examples" / "bell.qasm"
SUBMITS = f"""
import simenv
with simenv.connect() as env:
    print(env.name, env.run({str(BELL)!r}, shots=10, seed=1).shots)
"""
RESERVES = """
import simenv
simenv.connect().reserve()
"""
LEAVES = f"""
import simenv
env = simenv.connect()
env.submit_many([{str(BELL)!r}] * 3, shots=1000, seed=1)
raise SystemExit(9)
"""


def test_application_connects_to_environment_of_run_and_is_logged_by_name(
    environment: live.Live, shell: Shell
) -> None:
    result = shell("exec", "--run-name", "mine", "--", sys.executable, "-c", SUBMITS)
    assert (result.code, result.out) == (0, f"{environment.name} 10\n")
    (row,) = shell("history", "--run-name", "mine", "--json").objects
    assert (row["app"], row["state"]) == ("mine", "DONE")
    assert shell("history", "--run-name", "last", "--json").objects == [row]
    assert shell("history", "--run-name", "other", "--json").objects == []


def test_each_run_has_its_own_application_id(shell: Shell) -> None:
    for _ in range(2):
        shell("exec", "--", sys.executable, "-c", SUBMITS)
    apps = [row["app"] for row in shell("history", "--json").objects[-2:]]
    assert len(set(apps)) == 2
    assert all(app.startswith("run-") for app in apps)


def test_accepted_tasks_run_to_completion_after_application_exits(
    environment: live.Live, shell: Shell
) -> None:
    result = shell("exec", "--run-name", "leaver", "--", sys.executable, "-c", LEAVES)
    assert result.code == 9
    with environment.client() as client:
        tasks = [client.task(row.id) for row in client.history.tasks(run_name="leaver")]
        assert [task.wait(timeout_s=60) for task in tasks] == [TaskState.DONE] * 3


def test_reservations_of_application_are_released_when_it_exits(
    environment: live.Live, shell: Shell
) -> None:
    with environment.client() as client:
        result = client.reserve()
        outcome = shell("exec", "--run-name", "holder", "--", sys.executable, "-c", RESERVES)
        assert outcome.code == 0
        states = {info.id: info.state for info in client.reservations()}
        assert states == {result.id: "active", result.id + 1: "released"}
        result.release()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--", "no-such-command-here"), 127),
        (("--", str(BELL)), 126),
        (("--run-name", "Not A Name", "--", "true"), 2),
        (("true",), 2),  # where it begins cannot be told: --json might be its own
        ((), 2),
    ],
)
def test_invalid_run_command_ends_with_its_exit_code(
    shell: Shell, words: tuple[str, ...], code: int
) -> None:
    assert shell("exec", *words).code == code


def test_arguments_after_double_dash_belong_to_command(shell: Shell) -> None:
    code = "import sys; print(sys.argv[1:])"
    result = shell("exec", "--", sys.executable, "-c", code, "--json", "--name", "x", "--", "-h")
    assert (result.code, result.out) == (0, "['--json', '--name', 'x', '--', '-h']\n")


def test_perf_profiles_last_run_by_application_or_period(
    environment: live.Live, shell: Shell, tmp_path: Path
) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "import simenv\n"
        f"text = open({str(BELL)!r}).read()\n"
        "with simenv.connect() as env:\n"
        "    for step in range(2):\n"
        "        for task in env.submit_many([text] * 20, shots=100, seed=step):\n"
        "            task.result()\n"
    )
    assert shell("exec", "--run-name", "profiled", "--", sys.executable, str(program)).code == 0
    report = shell("profile", "--json").object
    profile = report["profile"]
    assert (profile["app"], profile["tasks"], profile["messages"]) == ("profiled", 40, 2)
    assert sum(stage["share"] for stage in profile["stages"]) == pytest.approx(1)
    codes = [finding["code"] for finding in report["findings"]]
    assert codes[0] == "largest"
    assert "bindings" in codes
    with environment.client() as client:
        assert report_of(client, "profiled").profile.wall_s == profile["wall_s"]
    output = shell("profile", "--run-name", "profiled").out
    assert (
        f"- the largest stage is {max(profile['stages'], key=lambda s: s['wall_s'])['name']}"
        in output
    )
    assert "send them as bindings" in output
    assert shell("profile", "--since", "1h", "--json").object["profile"]["tasks"] >= 40
    assert shell("profile", "--run-name", "nobody").code == 4
    assert shell("profile", "--run-name", "profiled", "--since", "1h").code == 2


def test_run_of_missing_command_starts_no_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(workers: int) -> object:
        raise AssertionError("an environment was started")

    monkeypatch.setattr(private, "started", started)
    monkeypatch.setattr(private, "client_of", lambda *_: None)
    assert app.run(["exec", "--", "no-such-command-here"]) == 127
    assert "no-such-command-here: No such file or directory" in capsys.readouterr().err
