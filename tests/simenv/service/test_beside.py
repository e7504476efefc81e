"""What is removed of files half written: those of the worker that died, and of no other."""

from __future__ import annotations

import time
from pathlib import Path

from simenv.service.beside import Beside, fence_of

WAIT_S = 60.0
DEAD, NAMESAKE, OTHER = "main-0.3", "main-0.13", "main.x4-0.3"


def half(folder: Path, attempt: int, worker: str) -> Path:
    path = folder / "0" / f".t-5.{attempt:x}.h5.{worker}.new"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def test_files_of_a_dead_worker_stay_or_take_those_of_others_along(tmp_path: Path) -> None:
    files = {worker: half(tmp_path, 65_537, worker) for worker in (DEAD, NAMESAKE, OTHER)}
    beside = Beside(tmp_path)
    beside.start()
    beside.unfinished(DEAD)
    deadline = time.monotonic() + WAIT_S
    while files[DEAD].exists():
        assert time.monotonic() < deadline, "the half file stays"
        time.sleep(0.01)
    beside.stop()
    assert [worker for worker, path in files.items() if path.exists()] == [NAMESAKE, OTHER]


def test_a_start_leaves_half_a_file_of_an_earlier_one(tmp_path: Path) -> None:
    old, new = half(tmp_path, 65_537, DEAD), half(tmp_path, 131_073, NAMESAKE)
    (tmp_path / ".token").touch()
    assert [fence_of(path.name) for path in (old, new)] == [65_537, 131_073]
    beside = Beside(tmp_path)
    beside.sweep(set(), 131_072)
    beside.start()
    beside.stop()
    assert [path.exists() for path in (old, new, tmp_path / ".token")] == [False, True, True]
