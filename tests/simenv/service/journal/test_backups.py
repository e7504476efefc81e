"""Archives of an environment among whose results a worker made what it liked."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from service import ServiceHarness, filed, spec

from simenv import config
from simenv.config import EnvironmentPaths
from simenv.result_files import WORKERS, attempt_file
from simenv.service.journal import backups
from simenv.service.journal.writer import Journal
from testbed import damaged_journal


@pytest.mark.parametrize("kind", ["pipe", "link", "missing"])
def test_archive_has_all_results_but_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """A pipe has no end, a link may lead to a file of another user, and a tree of a worker has as
    many levels as it likes."""
    home = tmp_path / "home"
    home.mkdir()
    bench = ServiceHarness(home)
    bench.join()
    bench.submit(*(spec(seed) for seed in range(3)))
    root = bench.loop.result_requests.root
    tasks = bench.assigned()
    bench.send_results(*(filed(root, each, 100) for each in tasks))
    bench.journal.close()
    names = [attempt_file(each.task, each.attempt) for each in tasks]
    (root / names[1]).unlink()
    if kind == "pipe":
        os.mkfifo(root / names[1])
    elif kind == "link":
        (tmp_path / "secret").write_text("secret")
        (root / names[1]).symlink_to(tmp_path / "secret")
    (root / WORKERS / "main-0.1" / "config.json").mkdir(parents=True)
    (root / WORKERS / "main-0.1" / "link").symlink_to(tmp_path)
    manifest = backups.back_up(EnvironmentPaths(home, home), tmp_path / "archive.tar")
    archived = {each.name for each in manifest.files}
    assert {f"state/results/{name}" for name in names} - archived == {f"state/results/{names[1]}"}
    assert not any(WORKERS in name or "secret" in name for name in archived)


def test_archive_that_is_restored_again_gives_no_number_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path / "root"))
    settings = damaged_journal.settings("drill")
    paths = config.places(settings)
    damaged_journal.fill(paths, settings)
    config.write(settings, paths.config)
    backups.back_up(paths, tmp_path / "drill.tar")
    given = []
    for _ in range(3):
        shutil.rmtree(paths.home)
        restored = backups.restore(tmp_path / "drill.tar")
        journal = Journal(restored.journal, "process", restored.mark, restored.mark_copies)
        first = journal.records.next_task()
        given.append(range(first, first + 5))
        assert journal.mark is not None
        journal.mark.note({"task": first + 5})
        journal.abandon()
    assert all(one.stop <= other.start for one, other in pairwise(given)), given
