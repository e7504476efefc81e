"""What is removed of files half written: those of the worker that died, and of no other."""

from __future__ import annotations

import time
from pathlib import Path

from service import ServiceHarness, spec

from simenv.model import task_name
from simenv.result_files.reader import CHECKPOINTS
from simenv.service.results.file_worker import FileWorker, fence_of
from simenv.wire.messages import client as m

WAIT_S = 60.0
DEAD, NAMESAKE, OTHER = "main-0.3", "main-0.13", "main.x4-0.3"


def half(folder: Path, attempt: int, worker: str) -> Path:
    path = folder / "0" / f".t-5.{attempt:x}.h5.{worker}.new"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def test_only_unfinished_files_of_dead_worker_are_removed(tmp_path: Path) -> None:
    files = {worker: half(tmp_path, 65_537, worker) for worker in (DEAD, NAMESAKE, OTHER)}
    beside = FileWorker(tmp_path)
    beside.start()
    beside.unfinished(DEAD)
    deadline = time.monotonic() + WAIT_S
    while files[DEAD].exists():
        assert time.monotonic() < deadline, "the half file stays"
        time.sleep(0.01)
    beside.stop()
    assert [worker for worker, path in files.items() if path.exists()] == [NAMESAKE, OTHER]


def test_start_removes_unfinished_files_of_earlier_starts_only(tmp_path: Path) -> None:
    old, new = half(tmp_path, 65_537, DEAD), half(tmp_path, 131_073, NAMESAKE)
    (tmp_path / ".token").touch()
    assert [fence_of(path.name) for path in (old, new)] == [65_537, 131_073]
    beside = FileWorker(tmp_path)
    beside.sweep(set(), 131_072)
    beside.start()
    beside.stop()
    assert [path.exists() for path in (old, new, tmp_path / ".token")] == [False, True, True]


def test_checkpoints_are_removed_when_their_task_has_ended(tmp_path: Path) -> None:
    """Of two tasks one has ended; and nothing beside the folder is touched."""
    bench = ServiceHarness(tmp_path)
    accepted = bench.submit(spec())
    assert isinstance(accepted, m.Accepted)
    root = bench.loop.result_requests.root
    over, live = (root / CHECKPOINTS / task_name(accepted.first + k) for k in (1, 0))
    for folder in (over, live):
        folder.mkdir(parents=True)
        (folder / "0.0.h5").write_bytes(b"part")
    (root / "other").mkdir()
    bench.loop.result_requests.start()
    deadline = time.monotonic() + WAIT_S
    while over.exists():
        assert time.monotonic() < deadline, "it stays"
        bench.loop.run_once(timeout_s=0.01)
    bench.loop.result_requests.stop()
    assert (live / "0.0.h5").exists()
    assert (root / "other").exists()
