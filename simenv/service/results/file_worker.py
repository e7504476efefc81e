"""Threads that read, check and remove result files, which may have many gigabytes.

Invariant: only these threads access result files; the event loop handles their results.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from simenv import files, result_files
from simenv.errors import StoreError
from simenv.model import ResultFile
from simenv.result_files import UNFINISHED

Outcome = object
Job = Callable[[], Outcome]
Callback = Callable[[Outcome], None]


class FileWorker:
    """Two threads: one for short jobs (a chunk of a file), one for long jobs (a whole file)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._short: queue.SimpleQueue[tuple[Job, Callback] | None] = queue.SimpleQueue()
        self._long: queue.SimpleQueue[tuple[Job, Callback] | None] = queue.SimpleQueue()
        self._over: deque[tuple[Callback, Outcome]] = deque()
        self._open = 0  # jobs whose outcome the loop has not handled yet
        self._threads = [
            threading.Thread(target=self._run, args=(jobs,), name=name, daemon=True)
            for name, jobs in (("files", self._short), ("checks", self._long))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the jobs that have begun, and drop the others."""
        for jobs in (self._short, self._long):
            while not jobs.empty():
                jobs.get()
            jobs.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    @property
    def busy(self) -> bool:
        """True if a job with a callback has not been handled yet."""
        return self._open > 0

    def run_callbacks(self) -> None:
        """Call the callbacks of completed jobs; called by the loop."""
        while self._over:
            callback, outcome = self._over.popleft()
            self._open -= 1
            callback(outcome)

    def read(
        self, name: str, offset: int, size_bytes: int, callback: Callable[[object], None]
    ) -> None:
        """Read a part of a file; `callback` gets the bytes, or a StoreError."""
        self._do(self._short, lambda: _part(self._root, name, offset, size_bytes), callback)

    def check(self, stored: ResultFile, callback: Callable[[object], None]) -> None:
        """Check a whole file; `callback` gets its defect, or ""."""
        self._do(self._long, lambda: _damage(self._root, stored), callback)

    def remove(self, names: list[str]) -> None:
        """Remove files; missing ones are ignored."""
        self._short.put((lambda: _remove(self._root, names), _no_callback))

    def after(self, callback: Callable[[object], None]) -> None:
        """Call `callback` when all files of earlier calls of `remove` are removed."""
        self._do(self._short, lambda: None, callback)

    def sweep(self, referenced: set[str], epoch_fence: int) -> None:
        """Remove unfinished and unreferenced files of earlier starts; called at a start.
        `epoch_fence`: the lowest fencing token of this start, whose files stay."""
        self._long.put((lambda: _sweep(self._root, referenced, epoch_fence), _no_callback))

    def list_checkpoints(self, callback: Callable[[object], None]) -> None:
        """List checkpoints; `callback` gets a dict of task names and bytes."""
        self._do(self._short, lambda: _checkpoint_sizes(self._root), callback)

    def forget(self, tasks: list[str]) -> None:
        """Remove the checkpoints of these tasks."""
        self._long.put((lambda: _remove_checkpoints(self._root, tasks), _no_callback))

    def remove_folder(self, folder: Path) -> None:
        """Remove the folder of an isolated worker that has ended."""
        self._long.put((lambda: files.remove_tree(folder), _no_callback))

    def list_sizes(
        self, folder: Path, pids: Mapping[str, int], callback: Callable[[object], None]
    ) -> None:
        """Measure the folders in a folder, with the files that the process of a folder's name and
        its descendants write elsewhere; `callback` gets a dict of names and bytes."""

        def measured() -> dict[str, int]:
            return {
                each.name: files.tree_bytes(each)
                + (files.open_bytes(pids[each.name], each) if each.name in pids else 0)
                for each in folder.glob("*")
            }

        self._do(self._short, measured, callback)

    def unfinished(self, mark: str) -> None:
        """Remove the unfinished files of a worker that has ended; `mark`: its name and start."""
        self._long.put((lambda: _remove(self._root, _marked(self._root, mark)), _no_callback))

    def _do(
        self, jobs: queue.SimpleQueue[tuple[Job, Callback] | None], job: Job, callback: Callback
    ) -> None:
        self._open += 1
        jobs.put((job, callback))

    def _run(self, jobs: queue.SimpleQueue[tuple[Job, Callback] | None]) -> None:
        while (entry := jobs.get()) is not None:
            job, callback = entry
            try:
                outcome = job()
            except Exception as error:  # noqa: BLE001 - without this thread no result could be read
                outcome = StoreError(f"a file of results: {str(error) or type(error).__name__}")
            if callback is not _no_callback:
                self._over.append((callback, outcome))


def _no_callback(_outcome: Outcome) -> None:
    return None


def _part(root: Path, name: str, offset: int, size_bytes: int) -> bytes | StoreError:
    try:
        descriptor = result_files.open_file(result_files.below(root, name))
    except StoreError as error:
        return error
    try:
        return b"".join(result_files.blocks(descriptor, offset, size_bytes))
    except OSError as error:
        return StoreError(f"{root / name} cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _damage(root: Path, stored: ResultFile) -> str:
    try:
        return result_files.damage(result_files.below(root, stored.name), stored)
    except StoreError as error:
        return error.message


def _remove(root: Path, names: list[str]) -> None:
    for name in names:
        try:
            result_files.below(root, name).unlink(missing_ok=True)
        except (OSError, StoreError):
            continue  # `sweep` removes it at the next start


def _sweep(root: Path, referenced: set[str], epoch_fence: int) -> None:
    for path in _files(root):
        name = str(path.relative_to(root))
        fence = fence_of(path.name)
        is_referenced = name in referenced and not name.endswith(UNFINISHED)
        if 0 <= fence < epoch_fence and not is_referenced:
            _remove(root, [name])


def _checkpoint_sizes(root: Path) -> dict[str, int]:
    """Return the bytes of checkpoints by the name of the task."""
    folder = root / result_files.CHECKPOINTS
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return {name: files.tree_bytes(folder / name) for name in names}


def _remove_checkpoints(root: Path, tasks: list[str]) -> None:
    for task in tasks:
        files.remove_tree(result_files.below(root / result_files.CHECKPOINTS, task))


def _marked(root: Path, mark: str) -> list[str]:
    return [str(path.relative_to(root)) for path in root.glob(f"*/.*.h5.{mark}{UNFINISHED}")]


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.glob("*/*")) if not path.is_dir())


def fence_of(name: str) -> int:
    """Return the fencing token in the name of a result file, finished or not; -1 if the name has
    none."""
    message = name.removeprefix(".").split(".")
    try:
        return int(message[1], 16)
    except (IndexError, ValueError):
        return -1
