"""Folders, memory and processes of workers that serve one account each.

Each start of a worker has a folder of its own below the results, `workers/NAME.START`: its results
and checkpoints, and in `tmp` its home, its working directory and its temporary files. The worker
can write nothing else (`simenv.worker.main`). The service moves its results to their place, takes
checkpoints from and to it, and removes it when the worker has ended, all through
`simenv.foreign_files`, whatever a task has made of the folder. So no worker can read, replace or
add a file of another account.

Where control groups are delegated, the kernel bounds the memory of each worker; the service's own
watch does so everywhere. Processes that a worker leaves behind become children of the service,
which kills and reaps them.

Used from the loop's thread; what takes time is returned as a job for another one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from launcher.base import Command
from launcher.process import cgroup
from simenv import files, foreign_files
from simenv.config import Config
from simenv.errors import ConfigError
from simenv.model import task_name
from simenv.model.calls import FUNCTIONS
from simenv.result_files import CHECKPOINTS, WIDE_QUBITS, WORKERS, attempt_file
from simenv.sandbox import confinement, private_namespaces, process_tree
from simenv.scheduler.core import TaskRecord
from simenv.scheduler.dispatch.account_isolation import account_of
from simenv.service.workers import account_users
from simenv.service.workers.account_users import AccountUsers
from simenv.text import size
from simenv.wire.keyfiles import TOKEN
from simenv.wire.messages.client import AttemptResult

MAX_CHECKPOINT_FILES = 1_000  # of one task: a few of each rank
ORPHANS_S = 1.0  # between two looks for processes that workers left behind
LEFT_S = 0.05  # the same while some are left: they may have started others
REAP_S = 30.0  # from the first look that finds an adopted process ended, until it is reaped
_UNSET = frozenset({"HOME", "TMPDIR", "USER", "XDG_RUNTIME_DIR", "SIMENV_HOME", "SIMENV_KERNELS"})


def check_isolation(config: Config) -> None:
    """Check that the pools which run code of users can be confined, and that accounts can have
    users of their own if a range of them is set. Raises ConfigError."""
    reason = confinement.unavailable_reason() if config.isolation == "account" else ""
    for pool in config.pools if reason else ():
        if pool.engine == FUNCTIONS or pool.command:
            raise ConfigError(
                f"pool {pool.name!r} runs code of users, and isolation = 'account' cannot confine"
                f" it on this machine: {reason}",
                hint="leave the pool out, use a kernel with Landlock, or isolation = 'none'",
            )
    if config.isolation_uids:
        numbers = account_users.numbers_of(config.isolation_uids)
        if reason := account_users.unavailable_reason(numbers):
            text = f"isolation_uids = {config.isolation_uids!r} cannot hold here: {reason}"
            raise ConfigError(text, hint="leave isolation_uids out")


class _Start(msgspec.Struct):
    """One start of a worker."""

    number: int
    folder: Path
    has_own_user: bool = False  # its process becomes the owner of the folder before its tasks
    pid: int = 0  # 0: it is not known
    user: int = 0  # of its account; 0: it has had no task
    wide: set[int] = msgspec.field(default_factory=set)  # tasks that may have checkpoints here


class WorkerIsolation:
    """Isolation of all workers of one start of the service."""

    def __init__(
        self, results: Path, environment: str, users: AccountUsers | str = "not asked for"
    ) -> None:
        """Remove folders that an earlier start has left. `results`: by its path on all nodes.
        `users`: of accounts, or why they have none."""
        self._users = None if isinstance(users, str) else users
        self._has_namespaces = not private_namespaces.unavailable_reason()
        self._results = results
        self._folder = results / WORKERS
        foreign_files.remove_tree(self._folder)
        self._starts: dict[str, _Start] = {}
        groups = cgroup.memory_groups(f"simenv-{environment}.{os.getpid()}")
        self._groups = None if isinstance(groups, str) else groups
        self._next_look_s = 0.0
        self._is_looking = False  # a job waits for the thread
        self._ended_s: dict[int, float] = {}  # adopted processes that have ended: since when
        self._filters = _filters(os.getpid())
        process_tree.adopt_orphans()
        # Of what the kernel here cannot do, for the event log.
        self.gaps = [
            reason
            for reason in (
                confinement.unavailable_reason(),
                f"all accounts have the user id of the service: {users}"
                if isinstance(users, str)
                else "",
                f"workers have no namespaces: {private_namespaces.unavailable_reason()}"
                if not self._has_namespaces
                else "",
                f"memory of workers is not bounded by the kernel: {groups}"
                if isinstance(groups, str)
                else "",
                f"signals between processes are not forbidden before Linux 6.12 (Landlock"
                f" {confinement.landlock_abi()})"
                if 0 < confinement.landlock_abi() < confinement.SCOPED_ABI
                else "",
            )
            if reason
        ]

    def make(self, worker: str, start: int) -> Path:
        """Return the folder of a start of a worker, which `create` makes."""
        folder = self._folder / f"{worker}.{start}"
        self._starts[worker] = _Start(start, folder)
        return folder

    def create(self, folder: Path) -> None:
        """Make the folder of a start of a worker; from any thread. Raises ConfigError."""
        files.private_folder(folder)
        files.private_folder(folder / "tmp")
        with suppress(OSError):  # without it the worker has no files, and says so
            shutil.copyfile(self._results / TOKEN, folder / TOKEN)

    def confined(self, command: Command, folder: Path, *, is_local: bool) -> Command:
        """Return the command with its home, temporary files and working directory in `folder`.
        `is_local`: its process is a child of this one, and gets namespaces, and the user of its
        account, where these can be had."""
        own, argv = str(folder / "tmp"), list(command.argv)
        if is_local and self._has_namespaces:
            if self._users is not None:
                argv.append("--own-user")
                self._starts[command.name].has_own_user = True
            argv = private_namespaces.command_line(folder, argv)
        environ = [(name, value) for name, value in command.environ if name not in _UNSET]
        environ += [("HOME", own), ("TMPDIR", own)]
        return Command(
            command.name, tuple(argv), tuple(environ), command.log, Path(own), command.start,
            command.shares,
        )  # fmt: skip

    def started(self, worker: str, pid: int) -> None:
        """Note the process of the last start of a worker; 0: it is not known."""
        self._starts[worker].pid = pid
        if pid and self._groups is not None:
            with suppress(OSError):  # it has ended already, or the group was removed
                self._groups.add(worker, pid)

    def assign(
        self, worker: str, records: Iterable[TaskRecord], bound_bytes: int
    ) -> Callable[[], None] | None:
        """Bound the memory of a worker that gets tasks; return the job, for any thread, that gives
        it their user and checkpoints before they are sent, None: there is nothing to give."""
        if self._groups is not None:
            self._groups.limit(worker, bound_bytes)
        start, records = self._starts.get(worker), list(records)
        if start is None:
            return None
        jobs: list[Callable[[], None]] = []
        if start.has_own_user and not start.user:
            assert self._users is not None
            in_use = {each.user for each in self._starts.values()}
            start.user = self._users.user_of(account_of(records[0]), in_use)
            jobs += [self._users.writing(), partial(self._give, start, start.user)]
        for record in records:
            if record.route.num_qubits < WIDE_QUBITS:
                continue
            if record.attempts > 1:
                jobs.append(partial(self._give_checkpoint, start, record.number))
            start.wide.add(record.number)
        return partial(_run_all, jobs) if jobs else None

    def _give_checkpoint(self, start: _Start, task: int) -> None:
        """Give the checkpoints of a task to a start of a worker that has it now."""
        for other in list(self._starts.values()):
            if other is not start and task in other.wide:
                self._take_back(task, other)
        self._hand_out(task, start)

    def has(self, worker: str) -> bool:
        """Return whether a worker has a folder of its own."""
        return worker in self._starts

    def taking(
        self, worker: str, results: Sequence[AttemptResult], *, sync: bool
    ) -> Callable[[], list[str]]:
        """Return the job that moves the files of a worker's results to their place: it returns the
        reason for each that it could not move, or "". A result's file is that of its attempt,
        whatever the worker named. `sync`: files and folders are on the disk when it returns."""
        start, target = self._starts[worker], self._results

        def take() -> list[str]:
            try:
                return take_from_folder()
            except OSError as error:  # of one of the two folders
                return [error.strerror or type(error).__name__] * len(results)

        def take_from_folder() -> list[str]:
            reasons, owners = [], self._owners(start)
            with foreign_files.opened(start.folder) as source, foreign_files.opened(target) as own:
                for each in results:
                    name, size = attempt_file(each.task, each.attempt), each.file_bytes
                    try:
                        foreign_files.take_file(
                            source, name, own, size_bytes=size, owners=owners, sync=sync
                        )
                        reasons.append("")
                    except OSError as error:
                        reasons.append(error.strerror or type(error).__name__)
            return reasons

        return take

    def _owners(self, start: _Start) -> set[int]:
        """Return the users to whom files of a worker may belong. On a file system that takes the
        service for another user, as NFS may root, they belong to that one."""
        return {os.geteuid(), start.user or os.geteuid(), self._results.stat().st_uid}

    def ended(self, worker: str, start: int) -> Callable[[], Path] | None:
        """Forget a worker that has ended. Return the job, for the thread of `assign`'s jobs, that
        takes its checkpoints and returns the folder to remove; None: there is none."""
        own = self._starts.get(worker)
        if own is None or own.number != start:
            return None
        del self._starts[worker]
        if self._groups is not None:
            self._groups.remove(worker)

        def take() -> Path:
            for task in list(own.wide):
                self._take_back(task, own)
            return own.folder

        return take

    @property
    def folder(self) -> Path:
        """The folder of the folders of all workers."""
        return self._folder

    def pids(self) -> dict[str, int]:
        """Return the process of each worker, by the name of its folder."""
        return {each.folder.name: each.pid for each in self._starts.values() if each.pid}

    def above_limit(self, sizes: object, max_bytes: int) -> dict[str, str]:
        """Return the workers whose folders are larger, each with the reason to end it. `sizes`: by
        the names of folders, as `FileWorker.list_sizes` measures them."""
        by_name = sizes if isinstance(sizes, dict) else {}
        return {
            worker: "it made more files than are counted, or folders that cannot be listed"
            if taken >= foreign_files.UNMEASURABLE
            else f"its files took {size(taken)}; the limit of a worker is {size(max_bytes)}"
            f" (results.keep_gib)"
            for worker, start in self._starts.items()
            if (taken := by_name.get(start.folder.name, 0)) > max_bytes
        }

    def is_out_of_memory(self, worker: str) -> bool:
        """Return whether the kernel ended processes of a worker at the bound of its memory."""
        return self._groups is not None and self._groups.is_out_of_memory(worker)

    def killing_orphans(self, *, at_once: bool) -> Callable[[], None] | None:
        """Return the job that kills processes that outlive the worker that started them, for the
        thread that starts workers. None: it is not due, as it is once in ORPHANS_S, LEFT_S after
        the last look has found some, or `at_once`."""
        if self._is_looking or (time.monotonic() < self._next_look_s and not at_once):
            return None
        self._is_looking = True
        self._next_look_s = time.monotonic() + ORPHANS_S
        return self._kill_orphans

    def _kill_orphans(self) -> None:
        """Kill the children that this process has adopted and that have the filter of system calls
        of workers; reap the others, once they have ended for good: whoever has started one without
        registering it has waited for it by then."""
        self._is_looking = False  # what comes from now on is for another look
        adopted = process_tree.adopted()
        now_s = time.monotonic()
        ended = [pid for pid in adopted if process_tree.has_ended(pid)]
        self._ended_s = {pid: self._ended_s.get(pid, now_s) for pid in ended}
        for pid, since_s in self._ended_s.items():
            if now_s >= since_s + REAP_S:
                process_tree.reap(pid)

        def find() -> list[int]:
            return [pid for pid in process_tree.adopted() if _filters(pid) > self._filters]

        if adopted and process_tree.kill_children(find):
            self._next_look_s = time.monotonic() + LEFT_S

    def close(self) -> None:
        """Remove all folders and groups; all workers have ended."""
        for worker, start in list(self._starts.items()):
            if (take := self.ended(worker, start.number)) is not None:
                take()
        self._kill_orphans()
        foreign_files.remove_tree(self._folder)
        if self._groups is not None:
            self._groups.close()

    def _take_back(self, task: int, start: _Start) -> None:
        """Move the checkpoints of a task from the worker that had it last. Without them it begins
        anew."""
        name = f"{CHECKPOINTS}/{task_name(task)}"
        start.wide.discard(task)
        with (
            suppress(OSError),
            foreign_files.opened(start.folder) as source,
            foreign_files.opened(self._results) as target,
        ):
            most, owners = MAX_CHECKPOINT_FILES, self._owners(start)
            foreign_files.take_folder(source, name, target, owners=owners, max_entries=most)

    def _hand_out(self, task: int, start: _Start) -> None:
        """Move the checkpoints of a task to its worker."""
        name = f"{CHECKPOINTS}/{task_name(task)}"
        with (
            suppress(OSError),
            foreign_files.opened(self._results) as source,
            foreign_files.opened(start.folder) as target,
        ):
            foreign_files.give_folder(source, name, target, start.user)

    def _give(self, start: _Start, user: int) -> None:
        """Make a user the owner of the folder of a start."""
        with foreign_files.opened(self._folder) as folder:
            foreign_files.give(folder, start.folder.name, user)


def _run_all(jobs: Iterable[Callable[[], None]]) -> None:
    for job in jobs:
        job()


def _filters(pid: int) -> int:
    """Return how many filters of system calls a process has (proc(5)); 0 if that is not known."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Seccomp_filters:"):
                return int(line.split()[1])
    return 0
