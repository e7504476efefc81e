"""`simenv keys` on an environment that is down: its files are edited, and nothing is guessed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from simenv.cli.app import run
from simenv.wire.keyfiles import ServerFile, UserKeyFile, new_pair, read_private, write_private


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that listened once and is down; we stand in a folder of our own."""
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "default"
    folder.mkdir(parents=True)
    pair = new_pair()
    write_private(
        folder / "server-key.json", ServerFile(1, pair.public, pair.secret, "tcp://10.0.0.1:7000")
    )
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder


def test_keys_add_writes_private_key_file_at_reported_path(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "add", "ana"]) == 0
    output = capsys.readouterr().out
    assert list(Path().iterdir()) == [], "a secret lies in the working folder"
    file = home / "keys" / "ana.simenv"
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    private = read_private(file, UserKeyFile)
    server = read_private(home / "server-key.json", ServerFile)
    assert (private.address, private.server_key) == (server.address, server.public_key)
    assert (private.owner, private.role, private.name) == ("ana", "client", "default")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"SIMENV_SERVICE={file.absolute()}" in output
    assert private.secret_key not in output
    assert server.secret_key not in file.read_text()


def test_keys_are_listed_and_revoked_by_owner(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "add", "ana"]) == 0
    assert run(["keys", "add", "ops", "--role", "admin"]) == 0
    capsys.readouterr()
    assert run(["keys", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["role"]) for row in rows] == [("ana", "client"), ("ops", "admin")]
    assert run(["keys", "revoke", "ana"]) == 0
    assert run(["keys", "revoke", "ana"]) == 4
    assert "there are: ops" in capsys.readouterr().err
    assert run(["keys", "list", "--no-header", "-o", "name"]) == 0
    assert capsys.readouterr().out == "ops\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["ana", "--role", "worker"], 2),
        (["ana", "--role", "king"], 2),
        (["../ana"], 2),
        (["Ana; rm -rf"], 2),
        (["ana", "--out", "no/such/folder/ana"], 2),
        (["ana", "--name", "never-was"], 5),
    ],
)
def test_refused_keys_add_leaves_no_file_and_no_key(
    home: Path, words: list[str], code: int
) -> None:
    assert run(["keys", "add", *words]) == code
    assert list(Path().iterdir()) == []
    assert not (home / "keys.json").exists() or '"name"' not in (home / "keys.json").read_text()


def test_keys_add_refuses_existing_file_and_leaves_it_unchanged(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ana.simenv").write_text("something dear")
    Path("ana.simenv").chmod(0o644)
    assert run(["keys", "add", "ana", "--out", "ana.simenv"]) == 2
    assert "can be opened by others" in capsys.readouterr().err
    assert Path("ana.simenv").read_text() == "something dear"
    assert not (home / "keys.json").exists()
