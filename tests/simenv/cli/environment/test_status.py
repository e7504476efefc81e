"""Status of an environment, and private ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import live
import psutil
import pytest
from failing import fails
from shell import Answer

from simenv import config
from simenv.cli.app import run
from simenv.client import environments
from simenv.client.connection import address
from simenv.errors import NoServiceError

BELL = str(Path(__file__).parents[4] / "examples" / "bell.qasm")
NAME = "cli-updown"


@pytest.fixture
def name() -> Iterator[str]:
    yield NAME
    if (config.home_root() / NAME / "connection.json").exists():
        environments.down(NAME, now=True)
    shutil.rmtree(config.home_root() / NAME, ignore_errors=True)


@pytest.mark.usefixtures("no_leaks")
def test_down_and_resume_keep_results(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def cli(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return run([*words, "--name", name]), capsys.readouterr().out

    assert cli("up", "--restore")[0] == 4
    code, value = cli("up", "--workers", "1", "--slots", "1", "--durability", "process")
    assert code == 0
    assert value.startswith(f"service  {name}, process ")
    code, waited = cli("submit", BELL, "--seed", "3", "--wait", "--json")
    assert code == 0
    done = json.loads(waited)
    code, value = cli("down")
    assert (code, value.startswith(f"{name} down in ")) == (0, True)
    assert value.endswith("s: 0 processes left on 1 node\n")
    assert (cli("status")[0], cli("down")[0]) == (5, 5)
    assert "nothing is left to end" in fails(NoServiceError, "", environments.down, name).hint
    assert "replayed" in cli("logs")[1]

    code, status = cli("up", "--restore", "--workers", "1", "--json")
    assert code == 0
    assert json.loads(status)["epoch"] == 2
    code, again = cli("result", done["task"], "--json")
    assert (code, json.loads(again)["counts"]) == (0, done["counts"])
    code, ended = cli("down", "--now", "--json")
    assert code == 0
    assert json.loads(ended)["queued"] == 0

    for path in (config.home_root() / name).glob("journal*.db*"):
        path.unlink()
    assert run(["up", "--name", name, "--workers", "1"]) == 0
    assert "warn: the journal of the last start is gone" in capsys.readouterr().err
    assert cli("down", "--now")[0] == 0


@pytest.mark.usefixtures("no_leaks")
def test_submit_after_crash_fails_and_up_resume_restores_start_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    file = tmp_path / "site.toml"
    file.write_text('[accounts.chem]\nusers = ["ana"]\n[accounts.bio]\n')
    options = ["--workers", "2", "--slots", "1", "--durability", "process"]
    assert run(["up", "--config", str(file), *options]) == 0
    service = psutil.Process(address.read(tmp_path / "default" / "connection.json").pid)
    service.kill()
    psutil.wait_procs([service], 20.0)
    capsys.readouterr()
    assert run(["submit", BELL]) == 5
    output = capsys.readouterr()
    assert (output.out, "simenv up" in output.err) == ("", True)
    assert run(["up"]) == 0
    try:
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[:4]] == ["service", "launcher", "nodes", "pools"]
        assert lines[2].split()[2:4] == ["1", "slot"]
        reused = "durability process, pools main, slots 1, accounts chem bio"
        assert lines[4] == f"reused   {reused}, from the last start"
        assert run(["status", "--json"]) == 0
        status = json.loads(capsys.readouterr().out)
        assert [pool["target"] for pool in status["pools"]] == [2]
        assert (status["durability"], status["slots"]) == ("process", 1)
        for words in (["scale", "main", "1"], ["down"], ["up", "--workers", "2"]):
            capsys.readouterr()
            assert run(words) == 0
        scaled = "scaled   main 1 workers by simenv scale; configured: 2"
        assert scaled in capsys.readouterr().out.splitlines()
    finally:
        assert run(["down", "--now"]) == 0


@pytest.mark.usefixtures("no_leaks")
def test_up_reports_the_environment_that_it_starts_whatever_the_variable_names(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", "--name", name, "--pool", "other:workers=1"]) == 0
    other = config.connection_file(name)
    capsys.readouterr()
    monkeypatch.setenv("SIMENV_SERVICE", str(other))
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    assert run(["up", "--workers", "1"]) == 0
    try:
        output = capsys.readouterr()
        own = tmp_path / "default" / "connection.json"
        assert output.out.splitlines()[0].endswith(f" connection file {own}")
        assert any(line.startswith("pools    main 1/1") for line in output.out.splitlines())
        warning = f"warn: commands without --name go to {other}, which SIMENV_SERVICE names"
        assert warning in output.err.splitlines()
    finally:
        assert run(["down", "--name", "default", "--now"]) == 0
        monkeypatch.undo()


def test_up_refuses_the_address_of_an_environment_that_is_up(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", "--name", name, "--service", str(tmp_path / "ana.simenv")]) == 2
    assert "--service names an environment that is up" in capsys.readouterr().err


def test_up_refuses_workers_with_pool(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up", "--name", name, "--workers", "2", "--pool", "sv:workers=2"]) == 2
    assert "--pool NAME:workers=N" in capsys.readouterr().err


@pytest.mark.usefixtures("no_leaks")
def test_submit_without_environment_runs_in_private_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", BELL, "--shots", "64", "--json"]) == 0
    assert sum(json.loads(capsys.readouterr().out)["counts"].values()) == 64


@pytest.mark.usefixtures("no_leaks")
def test_bad_circuit_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.qasm"
    file.write_text("OPENQASM 2.0;\nqreg q[1];\nwrong q[0];\n")
    assert run(["submit", str(file)]) == 2
    assert f"  at {file}:3:1   wrong q[0];" in capsys.readouterr().err


def test_refused_start_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    assert run(["up", "--name", "typo", "--pool", "main:engine=statevectr"]) == 2
    assert "statevectr" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


@pytest.mark.usefixtures("no_leaks")
def test_environments_are_listed_with_state_and_down_all_ends_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))

    def listed() -> dict[str, str]:
        capsys.readouterr()
        assert run(["environments", "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {row["name"]: row["state"] for row in rows}

    assert listed() == {}
    assert run(["down", "--all"]) == 0
    assert "no environment is up" in capsys.readouterr().out
    pool = ("--pool", "main:min=0,max=1", "--slots", "1", "--durability", "process")
    for name in ("one", "two"):
        assert run(["up", "--name", name, *pool]) == 0
    service = psutil.Process(address.read(tmp_path / "two" / "connection.json").pid)
    assert listed() == {"one": "up", "two": "up"}
    assert run(["nodes", "--name", "one", "--json"]) == 0
    (node,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (node["state"], node["slots"]) == ("up", 1)
    service.kill()
    psutil.wait_procs([service], 20.0)
    assert listed() == {"one": "up", "two": "crashed"}
    assert (run(["down", "--all", "--name", "one"]), run(["down", "--all", "--now"])) == (2, 0)
    assert listed() == {"one": "down", "two": "down"}


BELL_FILE = Path(__file__).parents[4] / "examples" / "bell.qasm"
SUBMITS = f"""
import simenv
with simenv.connect() as env:
    print(env.name, env.run({str(BELL_FILE)!r}, shots=10, seed=1).shots)
"""


def test_private_run(capfd: pytest.CaptureFixture[str], no_leaks: None, tmp_path: Path) -> None:
    folders = set(Path(tempfile.gettempdir()).glob("simenv-local-*"))
    code = run(["exec", "--workers", "1", "--", sys.executable, "-c", SUBMITS])
    answer = Answer(code, *capfd.readouterr())
    assert (answer.code, answer.out) == (0, "local 10\n"), answer.err
    assert set(Path(tempfile.gettempdir()).glob("simenv-local-*")) == folders


SILENCE_S = 1.5  # longer than a quarter of the patience of the watchdog, 1 s


class Supervised:
    """An environment in the foreground of a process, and what it tells its supervisor."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.live = live.Live()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(live.PATIENCE_S)
        argv = (sys.executable, "-m", "simenv", "up", "--foreground", "--workers", "1")
        self.process = subprocess.Popen(
            [*argv, "--name", self.live.name],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), **environ},
            stdout=subprocess.DEVNULL,
        )

    def state(self) -> bytes:
        """The next message to the supervisor."""
        return self._socket.recv(100)

    def listen(self, timeout_s: float) -> bytes:
        """The next message within `timeout_s`. Raises TimeoutError."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(100)
        finally:
            self._socket.settimeout(live.PATIENCE_S)

    def close(self) -> None:
        self._socket.close()
        self.process.kill()
        self.process.wait()
        self.live.down()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    started = Supervised(tmp_path)
    try:
        assert started.state() == b"READY=1"
        yield started
    finally:
        started.close()


def test_sigterm_ends_the_environment(supervised: Supervised) -> None:
    with supervised.live.client() as client:
        assert client.pools()["main"].workers == 1
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.state() == b"STOPPING=1"
    assert supervised.process.wait(live.PATIENCE_S) == 0
    with pytest.raises(NoServiceError):
        supervised.live.client()


def test_death_of_the_service_ends_the_command_with_an_error(supervised: Supervised) -> None:
    supervised.live.kill_service()
    assert supervised.process.wait(live.PATIENCE_S) == 1


def test_watchdog_is_told_only_while_the_service_answers(tmp_path: Path) -> None:
    watched = Supervised(tmp_path, WATCHDOG_USEC="1000000")
    try:
        assert watched.state() == b"READY=1"
        assert watched.state() == b"WATCHDOG=1"
        pid = watched.live.service().pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with suppress(TimeoutError):  # of a sign that was under way
                watched.listen(SILENCE_S)
            with pytest.raises(TimeoutError):
                watched.listen(SILENCE_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert watched.state() == b"WATCHDOG=1"
    finally:
        watched.close()
