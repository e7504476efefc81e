"""Backups, restorations, checks and upgrades of environments by the command line."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import sqlite3
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import live
import pytest
from busy_circuits import busy
from msgspec.structs import replace
from shell import Answer, Shell
from waiting import until

from simenv import config, files
from simenv._version import build
from simenv.client import environments
from simenv.client.client import connect
from simenv.errors import ConfigError, JournalError
from simenv.model import TaskState
from simenv.service.journal import backups, writer
from simenv.service.journal.accepted import AcceptedRow
from simenv.wire import keyfiles

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
    assert json.loads((elsewhere / "second" / "config.json").read_text())["name"] == "second"


def changed(
    archive: Path, target: Path, change: Callable[[str, bytes], bytes | None], outside: str = ""
) -> Path:
    """Copy an archive with other members. `outside`: name in place of home/config.json."""
    with tarfile.open(archive) as source, tarfile.open(target, "w") as copy:
        for member in source:
            file = source.extractfile(member)
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


def test_commands_of_an_archive_are_listed_and_restored_only_if_allowed(
    archive: Path, tmp_path: Path, elsewhere: Path, shell: Shell
) -> None:
    settings: dict[str, bytes] = {}

    def hooked(name: str, data: bytes) -> bytes:
        if name == "home/config.json":
            config = json.loads(data) | {"hooks": {"on": {"node.lost": ["sh", "-c", "touch here"]}}}
            settings["new"] = data = json.dumps(config).encode()
        elif name == "manifest.json":
            manifest = json.loads(data)
            for file in manifest["files"]:
                if file["name"] == "home/config.json":
                    with tarfile.open(archive) as source:
                        old = source.extractfile("home/config.json")
                        new = hooked("home/config.json", old.read())
                    file["size_bytes"] = len(new)
                    file["sha256"] = hashlib.sha256(new).hexdigest()
            data = json.dumps(manifest).encode()
        return data

    foreign = changed(archive, tmp_path / "foreign.tar", hooked)
    answer = shell("admin", "restore", str(foreign), name="")
    assert answer.code != 0
    assert "hooks.on.node.lost: sh -c touch here" in answer.err
    assert not list(elsewhere.rglob("journal.db"))
    assert shell("admin", "restore", str(foreign), "--allow-commands", name="").code == 0


@pytest.mark.parametrize(
    "name", ["../config.json", "home/../../config.json", "home/{}", "home//config.json", "home/./x"]
)
def test_member_outside_the_environment_is_refused(
    archive: Path, tmp_path: Path, elsewhere: Path, shell: Shell, name: str
) -> None:
    """`home/` and an absolute path have two slashes: joined, the path alone would be left."""
    absolute = tmp_path / "written"
    member = name.format(absolute)

    def renamed(_name: str, data: bytes) -> bytes:
        return data.replace(b"home/config.json", member.encode())

    damaged = changed(archive, tmp_path / "outside.tar", renamed, member)
    assert "no file of an environment" in shell("admin", "restore", str(damaged), name="").err
    assert not (elsewhere.parent / "config.json").exists()
    assert not absolute.exists()


def test_dated_archives_are_kept_up_to_a_number(
    environment: live.Live, tmp_path: Path, shell: Shell
) -> None:
    old = [f"{environment.name}-2026010{day}T000000Z.tar" for day in (1, 2, 3)]
    for name in (*old, "other-20260101T000000Z.tar"):
        (tmp_path / name).touch()
    answer = shell("admin", "backup", str(tmp_path), "--keep", "2", "--json")
    assert [Path(path).name for path in answer.object["removed"]] == old[:2]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_backup_writes_over_nothing(environment: live.Live, tmp_path: Path, shell: Shell) -> None:
    path = tmp_path / "lab.tar"
    path.write_text("another archive")
    answer = shell("admin", "backup", str(path))
    assert answer.code != 0
    assert f"{path} already exists" in answer.err
    assert path.read_text() == "another archive"


def test_check_finds_a_missing_result(
    archive: Path, elsewhere: Path, environment: live.Live, shell: Shell
) -> None:
    assert shell("admin", "restore", str(archive), name="").code == 0
    results = (elsewhere / environment.name / "results").rglob("*")
    (result,) = (path for path in results if path.is_file())
    result.unlink()
    answer = shell("admin", "check", "--json", code=1)
    assert "1 result files are missing" in answer.object["problems"][0]


CONVERT = """
import json, pathlib, sqlite3, sys
home = pathlib.Path(sys.argv[1])
db = sqlite3.connect(home / "journal.db")
db.executescript(sys.argv[2])
db.close()
(home / "config.json").write_text(json.dumps({"format": 99}))
"""


def failing_version(folder: Path, home: Path, script: str) -> Path:
    """A version that passes all checks, runs a script of SQL in the journal, writes settings that
    nobody can read, and does not start."""
    (folder / "convert.py").write_text(CONVERT)
    other = folder / "python"
    change = f"{sys.executable} {folder}/convert.py {home} '{script}'"
    other.write_text(
        f'#!/bin/sh\ncase "$*" in *" up "*) {change}; exit 3;; esac\nexec {sys.executable} "$@"\n'
    )
    other.chmod(0o755)
    return other


@pytest.mark.parametrize(
    "script", ["", "pragma user_version=4; alter table accepted rename to tasks;"]
)
def test_upgrade_that_does_not_start_puts_the_files_back_and_continues(
    environment: live.Live, tmp_path: Path, shell: Shell, script: str
) -> None:
    other = failing_version(tmp_path, environment.home, script)
    made = environment.home / "backups"
    shutil.rmtree(made, ignore_errors=True)  # of other tests
    settings = config.read(environment.home / "config.json")
    with environment.client() as client:
        for node in client.nodes():
            client.undrain(node)
        running = client.submit(busy(100), shots=10)
        until(lambda: running.state == TaskState.RUNNING, live.PATIENCE_S)
        waiting = client.submit(BELL, shots=100, seed=4)
    answer = shell("admin", "upgrade", "--python", str(other))
    assert answer.code != 0
    assert "did not start" in answer.err
    assert "with the files of" in answer.err
    modes = [folder.stat().st_mode & 0o777 for folder in (made, made / "upgrades")]
    assert modes == [0o700, 0o700]
    assert shell("status").code == 0
    restarted = config.read(environment.home / "config.json")
    assert restarted == replace(settings, resume=True)
    with environment.client() as client:
        # It ended in the drain, and the files that were put back know that.
        assert client.task(running.id).wait(timeout_s=live.PATIENCE_S) == TaskState.DONE
        assert next(r for r in client.history.tasks() if r.id == str(running.id)).attempts == 1
    assert sum(counts_of(environment.name, str(waiting.id)).values()) == 100


def test_clients_that_submit_all_the_time_see_no_error_in_an_upgrade(
    environment: live.Live, shell: Shell
) -> None:
    ended = threading.Event()

    def submit_steadily(first: int) -> int:
        with connect(environment.name) as client:
            for number in itertools.count():
                task = client.submit(BELL, shots=10, seed=first + number, pool="main")
                assert sum(task.result(live.PATIENCE_S).counts.values()) == 10
                if ended.wait(0.04):  # 25 a second for each of four clients
                    return number + 1
        raise AssertionError

    with environment.client() as client, ThreadPoolExecutor(4) as threads:
        for node in client.nodes():
            client.undrain(node)
        before = client.status().pid
        running = client.submit(busy(400), shots=10)  # the drain lasts
        until(lambda: running.state == TaskState.RUNNING, live.PATIENCE_S)
        counts = [threads.submit(submit_steadily, 10_000 * k) for k in range(4)]
        try:
            answer = shell("admin", "upgrade")
        finally:
            ended.set()
        assert answer.code == 0, answer.err
        assert [each.result() > 1 for each in counts] == [True] * 4
        assert client.status().pid != before
    assert f"simenv {build()} of {sys.executable} in place of the same version" in answer.out


def test_upgrade_that_cannot_be_backed_up_leaves_the_environment_up(
    environment: live.Live, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(backups, "back_up", full)
    answer = shell("admin", "upgrade", "--backup", str(tmp_path))
    assert answer.code != 0
    assert "the disk is full" in answer.err
    assert shell("status").code == 0


def test_rollback_keeps_tasks_accepted_after_the_backup_where_this_version_can_continue_them(
    archive: Path, elsewhere: Path, environment: live.Live, shell: Shell
) -> None:
    assert shell("admin", "restore", str(archive), name="").code == 0
    paths = config.EnvironmentPaths(elsewhere / environment.name, elsewhere / environment.name)
    journal = writer.Journal(paths.journal, "process")
    task = journal.records.next_task()
    journal.accept(AcceptedRow(task, 1, 1.5, "~", 0, b"", b"", b"not of this version"))
    journal.commit()
    journal.close()
    assert backups.roll_back(archive, paths)
    assert [path.name for path in paths.home.glob("*.replaced")] == ["journal.db.replaced"]
    assert shell("admin", "check").code == 0
    journal = writer.Journal(paths.journal, "process")
    first = next(iter(journal.records.accepted.all()))
    journal.accept(replace(first, first=task))  # by a version that came up first
    journal.commit()
    journal.close()
    assert shell("admin", "check").code == 0
    assert not backups.roll_back(archive, paths)
    with closing(sqlite3.connect(paths.journal)) as db:
        assert db.execute("select max(first) from accepted").fetchone() == (task,)


def test_rollback_refuses_while_a_service_runs(archive: Path, environment: live.Live) -> None:
    with pytest.raises(JournalError, match="another service uses"):
        backups.roll_back(archive, config.EnvironmentPaths(environment.home, environment.home))


@pytest.mark.parametrize("place", ["postgresql", "folder"])
def test_restore_refuses_over_an_environment_whose_journal_is_elsewhere(
    archive: Path, elsewhere: Path, environment: live.Live, shell: Shell, place: str
) -> None:
    assert shell("admin", "restore", str(archive), name="").code == 0
    home = elsewhere / environment.name
    settings = config.read(home / "config.json")
    if place == "postgresql":
        settings = replace(settings, journal="postgresql://ana@db/lab")
        (home / "journal.db").unlink()
    else:
        other = elsewhere.parent / "scratch"
        settings = replace(settings, state_dir=str(other))
        moved = config.state_folder(settings, home)
        moved.mkdir(parents=True)
        (home / "journal.db").rename(moved / "journal.db")
    config.write(settings, home / "config.json")
    before = (home / "config.json").read_bytes()
    answer = shell("admin", "restore", str(archive), name="")
    assert answer.code != 0
    assert "there is an environment" in answer.err
    assert (home / "config.json").read_bytes() == before
    (home / "config.json").unlink()  # as an interrupted restoration may leave it
    assert shell("admin", "restore", str(archive), name="").code == 0


def test_check_finds_a_journal_without_content(
    archive: Path, elsewhere: Path, environment: live.Live, shell: Shell
) -> None:
    assert shell("admin", "restore", str(archive), name="").code == 0
    home = elsewhere / environment.name
    assert backups.check(config.EnvironmentPaths(home, home)) == []
    (home / "journal.db").write_bytes(b"")
    assert "it was cut" in backups.check(config.EnvironmentPaths(home, home))[0]


@pytest.mark.parametrize(
    ("name", "read"), [("keys.json", keyfiles.read_keys), ("server-key.json", keyfiles.server_file)]
)
def test_check_finds_damaged_keys(
    name: str,
    read: Callable[[Path], object],
    archive: Path,
    elsewhere: Path,
    environment: live.Live,
    shell: Shell,
) -> None:
    assert shell("admin", "restore", str(archive), name="").code == 0
    home = elsewhere / environment.name
    files.create_private(home / "new", b'{"format": ')
    (home / "new").replace(home / name)
    (found,) = backups.check(config.EnvironmentPaths(home, home))
    assert f"{name} has unexpected content" in found
    with pytest.raises(ConfigError, match="unexpected content") as caught:
        read(home / name)
    assert "copy it from a backup" in caught.value.hint


def test_upgrade_continues_waiting_tasks_and_keeps_two_backups_in_the_home(
    environment: live.Live, shell: Shell
) -> None:
    with environment.client() as client:
        (node,) = client.nodes()
        client.drain(node, "later tasks wait")
        task = client.submit(BELL, shots=100, seed=3)
        pid = client.status().pid
    folder = environment.home / "backups" / "upgrades"
    shutil.rmtree(folder, ignore_errors=True)  # of other tests
    folder.mkdir(parents=True)
    former = [folder / f"{environment.name}-2020010{day}T000000Z.tar" for day in (1, 2)]
    other = folder / f"{environment.name}-before-the-move.tar"
    nightly = folder.parent / former[0].name
    for path in (*former, other, nightly):
        path.touch()
    answer: Answer = shell("admin", "upgrade", "--json")
    assert answer.code == 0
    assert answer.object["removed"] == [str(former[0])]
    assert set(folder.iterdir()) == {Path(answer.object["backup"]), former[1], other}
    assert nightly.exists(), "not of an upgrade"
    with environment.client() as client:
        assert client.status().pid != pid
        client.undrain(node)
        until(lambda: client.task(task.id).done(), live.PATIENCE_S)
