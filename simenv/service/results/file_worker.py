"""Threads that take over, read, check and remove result files, which may have many gigabytes.

Invariant: only these threads access result files; the event loop handles their results. All names
are of attempts, never of a message of a worker, and are resolved as in a foreign folder.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from simenv import foreign_files, result_files
from simenv.errors import StoreError
from simenv.model import ResultFile
from simenv.result_files import UNFINISHED
from simenv.sandbox.tree_files import open_bytes

REMOVALS = 20  # of a folder in which something still writes
REMOVAL_WAIT_S = 0.5  # between two of them

Outcome = object
Job = Callable[[], Outcome]
Callback = Callable[[Outcome], None]


class FileWorker:
    """Three threads: for short jobs (a chunk of a file), for long jobs (a whole file), and for
    folders of workers, whose size the workers choose."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._short: queue.SimpleQueue[tuple[Job, Callback] | None] = queue.SimpleQueue()
        self._long: queue.SimpleQueue[tuple[Job, Callback] | None] = queue.SimpleQueue()
        self._folders: queue.SimpleQueue[tuple[Job, Callback] | None] = queue.SimpleQueue()
        self._over: deque[tuple[Callback, Outcome]] = deque()
        self._stopping = threading.Event()
        self._open = 0  # jobs whose outcome the loop has not handled yet
        self._jobs = {"files": self._short, "checks": self._long, "folders": self._folders}
        self._threads = [
            threading.Thread(target=self._run, args=(jobs,), name=name, daemon=True)
            for name, jobs in self._jobs.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the jobs that have begun, and drop the others."""
        self._stopping.set()
        for jobs in self._jobs.values():
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

    def check(self, name: str, stored: ResultFile, callback: Callable[[object], None]) -> None:
        """Check a whole file; `callback` gets its defect, or ""."""
        self._do(self._long, lambda: result_files.damage(self._root, name, stored), callback)

    def take(self, job: Job, callback: Callable[[object], None]) -> None:
        """Run a job that takes files over; `callback` gets its outcome, or a StoreError."""
        self._do(self._short, job, callback)

    def run(self, job: Job) -> None:
        """Run a short job whose end nobody waits for."""
        self._short.put((job, _no_callback))

    def remove(self, names: list[str]) -> None:
        """Remove files; missing ones are ignored."""
        self.run(lambda: _remove(self._root, names))

    def after(self, callback: Callable[[object], None]) -> None:
        """Call `callback` when all files of earlier calls of `remove` are removed."""
        self._do(self._short, lambda: None, callback)

    def sweep(self, referenced: set[str], epoch_fence: int) -> None:
        """Remove unfinished and unreferenced files of earlier starts; called at a start.
        `epoch_fence`: the lowest fencing token of this start, whose files stay."""
        self._long.put((lambda: _sweep(self._root, referenced, epoch_fence), _no_callback))

    def list_checkpoints(self, callback: Callable[[object], None]) -> None:
        """List checkpoints; `callback` gets a dict of task names and bytes."""
        self._do(self._folders, lambda: _checkpoint_sizes(self._root), callback)

    def forget(self, tasks: list[str]) -> None:
        """Remove the checkpoints of these tasks."""
        names = [f"{result_files.CHECKPOINTS}/{task}" for task in tasks]
        self._folders.put((lambda: _remove(self._root, names), _no_callback))

    def remove_folder(self, folder: Path) -> None:
        """Remove the folder of an isolated worker that has ended. Processes that it left may still
        write there for a moment."""

        def remove() -> None:
            for _ in range(REMOVALS):
                if foreign_files.remove_tree(folder) or self._stopping.wait(REMOVAL_WAIT_S):
                    return

        self._folders.put((remove, _no_callback))

    def list_sizes(
        self, folder: Path, pids: Mapping[str, int], callback: Callable[[object], None]
    ) -> None:
        """Measure the folders in a folder, with the files that the process of a folder's name and
        its descendants write elsewhere; `callback` gets a dict of names and bytes."""

        def measured() -> dict[str, int]:
            return {
                name: foreign_files.tree_bytes(folder / name)
                + (open_bytes(pids[name], folder / name) if name in pids else 0)
                for name in foreign_files.names(folder)
            }

        self._do(self._folders, measured, callback)

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
        descriptor = result_files.open_file(root, name)
    except StoreError as error:
        return error
    try:
        return b"".join(result_files.blocks(descriptor, offset, size_bytes))
    except OSError as error:
        return StoreError(f"{name} cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _remove(root: Path, names: list[str]) -> None:
    for name in names:  # what stays is removed by `_sweep` at the next start
        foreign_files.remove(root, name)


def _sweep(root: Path, referenced: set[str], epoch_fence: int) -> None:
    for name in _listed(root):
        is_referenced = name in referenced and not name.endswith(UNFINISHED)
        if 0 <= fence_of(name.rpartition("/")[2]) < epoch_fence and not is_referenced:
            foreign_files.remove(root, name)


def _checkpoint_sizes(root: Path) -> dict[str, int]:
    """Return the bytes of checkpoints by the name of the task."""
    folder = root / result_files.CHECKPOINTS
    return {name: foreign_files.tree_bytes(folder / name) for name in foreign_files.names(folder)}


def _marked(root: Path, mark: str) -> list[str]:
    """Return the names of unfinished files with the mark of a worker."""
    end = f".h5.{mark}{UNFINISHED}"
    return [name for name in _listed(root) if "/." in name and name.endswith(end)]


def _listed(root: Path) -> list[str]:
    """Return the names of all that is in the folders below the results, but of checkpoints and of
    isolated workers."""
    folders = set(foreign_files.names(root)) - {result_files.CHECKPOINTS, result_files.WORKERS}
    return [
        f"{folder}/{name}"
        for folder in sorted(folders)
        for name in foreign_files.names(root / folder)
    ]


def fence_of(name: str) -> int:
    """Return the fencing token in the name of a result file, finished or not; -1 if the name has
    none."""
    message = name.removeprefix(".").split(".")
    try:
        return int(message[1], 16)
    except (IndexError, ValueError):
        return -1
