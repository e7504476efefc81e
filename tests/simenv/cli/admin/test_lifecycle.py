"""Backups, restorations, checks and upgrades of environments by the command line."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import live
import pytest
from shell import Answer, Shell
from waiting import until

from simenv.client import environments
from simenv.client.client import connect
from simenv.model import TaskState

BELL = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
h q[0];
cx q[0],q[1];
measure q -> c;
"""
LARGE_QUBITS = 17  # whose amplitudes are a result file


def counts_of(name: str, task: str) -> dict[str, int]:
    with connect(name) as client:
        return dict(client.task(task).result(timeout_s=live.PATIENCE_S).counts)


@pytest.fixture(scope="module")
def archive(environment: live.Live, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive of an environment with an ended, a waiting and a large task, and a device."""
    devices = environment.home.parent / "devices"
    devices.mkdir(mode=0o700, exist_ok=True)
    (devices / "own.json").write_text("{}")
    wide = f"OPENQASM 2.0;include 'qelib1.inc';qreg q[{LARGE_QUBITS}];h q;"
    with environment.client() as client:
        client.submit(BELL, shots=100, seed=1).result(timeout_s=live.PATIENCE_S)
        large = client.submit(wide, shots=None, outputs=("statevector",))
        large.wait(timeout_s=live.PATIENCE_S)
        (node,) = client.nodes()
        client.drain(node, "later tasks wait")
        client.submit(BELL, shots=100, seed=2)
    folder = tmp_path_factory.mktemp("backups")
    from simenv.cli.app import run

    assert run(["admin", "backup", str(folder), "--name", environment.name]) == 0
    (made,) = folder.iterdir()
    assert made.name.startswith(f"{environment.name}-")
    assert made.stat().st_mode & 0o777 == 0o600
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another home, as another host has."""
    home = tmp_path / "elsewhere"
    monkeypatch.setenv("SIMENV_HOME", str(home))
    yield home
    for each in environments.environments():
        if each.state == "up":
            environments.down(each.name, now=True)


def test_restored_environment_has_results_and_continues_waiting_tasks(
    environment: live.Live, archive: Path, elsewhere: Path, shell: Shell
) -> None:
    answer = shell("admin", "restore", str(archive), "--up", "--json", name="")
    assert (answer.code, answer.object["tasks"]) == (0, 3)
    with connect(environment.name) as client:
        (node,) = client.nodes()
        assert client.task("t-1").state == TaskState.DONE
        vector = client.task("t-2").result(timeout_s=live.PATIENCE_S).statevector
        assert vector.shape == (2**LARGE_QUBITS,)
        assert client.task("t-3").state == TaskState.QUEUED
        client.undrain(node)
    assert sum(counts_of(environment.name, "t-3").values()) == 100
    assert (elsewhere / "devices" / "own.json").read_text() == "{}"
    assert shell("admin", "check").code == 0


def test_restore_refuses_to_write_over_an_environment(
    archive: Path, environment: live.Live, shell: Shell
) -> None:
    answer = shell("admin", "restore", str(archive), name="")
    assert answer.code != 0
    assert "there is an environment" in answer.err
    assert shell("admin", "check").code == 0
    environment.client().close()  # it is up as before


def test_restore_under_another_name_keeps_the_first(
    archive: Path, elsewhere: Path, shell: Shell
) -> None:
    assert shell("admin", "restore", str(archive), name="").code == 0
    assert shell("admin", "restore", str(archive), name="second").code == 0
    settings = json.loads((elsewhere / "second" / "config.json").read_text())
    assert settings["name"] == "second"


def changed(
    archive: Path, target: Path, change: Callable[[str, bytes], bytes | None], outside: str = ""
) -> Path:
    """Copy an archive with other members. `outside`: name in place of home/config.json."""
    with tarfile.open(archive) as source, tarfile.open(target, "w") as copy:
        for member in source:
            file = source.extractfile(member)
            assert file is not None
            data = change(member.name, file.read())
            if data is not None:
                member.size = len(data)
                if outside and member.name == "home/config.json":
                    member.name = outside
                copy.addfile(member, io.BytesIO(data))
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: d[:-1] + b"x" if n.endswith("journal.db") else d, "has changed"),
        (lambda n, d: None if n.endswith("journal.db") else d, "it lacks state/journal.db"),
        (lambda n, d: None if n == "manifest.json" else d, "no complete backup"),
        (
            lambda n, d: d.replace(b'"format":1', b'"format":9') if n == "manifest.json" else d,
            "has format 9",
        ),
        (
            lambda n, d: d.replace(b"home/config", b"home/../../x") if n == "manifest.json" else d,
            "lacks",
        ),
    ],
)
def test_damaged_archive_restores_nothing(
    archive: Path,
    tmp_path: Path,
    elsewhere: Path,
    shell: Shell,
    change: Callable[[str, bytes], bytes | None],
    message: str,
) -> None:
    damaged = changed(archive, tmp_path / "damaged.tar", change)
    answer = shell("admin", "restore", str(damaged), name="")
    assert answer.code != 0
    assert message in answer.err
    assert [path.name for path in elsewhere.rglob("*") if path.is_file()] == []


def test_member_outside_the_environment_is_refused(
    archive: Path, tmp_path: Path, elsewhere: Path, shell: Shell
) -> None:
    def renamed(_name: str, data: bytes) -> bytes:
        return data.replace(b"home/config.json", b"../config.json")

    damaged = changed(archive, tmp_path / "outside.tar", renamed, "../config.json")
    answer = shell("admin", "restore", str(damaged), name="")
    assert "no file of an environment" in answer.err
    assert not (elsewhere.parent / "config.json").exists()


def test_dated_archives_are_kept_up_to_a_number(
    environment: live.Live, tmp_path: Path, shell: Shell
) -> None:
    old = [f"{environment.name}-2026010{day}T000000Z.tar" for day in (1, 2, 3)]
    for name in (*old, "other-20260101T000000Z.tar"):
        (tmp_path / name).touch()
    answer = shell("admin", "backup", str(tmp_path), "--keep", "2", "--json")
    assert [Path(path).name for path in answer.object["removed"]] == old[:2]
    assert len(list(tmp_path.iterdir())) == 3


def test_check_finds_a_missing_result(
    archive: Path, elsewhere: Path, environment: live.Live, shell: Shell
) -> None:
    assert shell("admin", "restore", str(archive), name="").code == 0
    results = (elsewhere / environment.name / "results").rglob("*")
    (result,) = (path for path in results if path.is_file())
    result.unlink()
    answer = shell("admin", "check", "--json")
    assert answer.code == 1
    assert "1 result files are missing" in answer.object["problems"][0]


def test_upgrade_that_does_not_start_leaves_the_environment_up(
    environment: live.Live, tmp_path: Path, shell: Shell
) -> None:
    other = tmp_path / "python"  # a version that passes all checks, and does not start
    other.write_text(
        f'#!/bin/sh\ncase "$*" in *" up "*) exit 3;; esac\nexec {sys.executable} "$@"\n'
    )
    other.chmod(0o755)
    answer = shell("admin", "upgrade", "--python", str(other))
    assert answer.code != 0
    assert "did not start" in answer.err
    assert shell("status").code == 0


def test_upgrade_continues_waiting_tasks(environment: live.Live, shell: Shell) -> None:
    with environment.client() as client:
        (node,) = client.nodes()
        client.drain(node, "later tasks wait")
        task = client.submit(BELL, shots=100, seed=3)
        pid = client.status().pid
    answer: Answer = shell("admin", "upgrade", "--json")
    assert answer.code == 0
    assert Path(answer.object["backup"]).exists()
    with environment.client() as client:
        assert client.status().pid != pid
        client.undrain(node)
        until(lambda: client.task(task.id).done(), live.PATIENCE_S)
