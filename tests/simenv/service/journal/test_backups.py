"""Archives of an environment among whose results a worker made what it liked."""

import os
from pathlib import Path

import pytest
from service import ServiceHarness, filed, spec

from simenv.config import EnvironmentPaths
from simenv.result_files import WORKERS, attempt_file
from simenv.service.journal import backups


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
