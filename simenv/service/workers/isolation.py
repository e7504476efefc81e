"""Folders, memory and processes of workers that serve one account each.

Each start of a worker has a folder of its own below the results, `workers/NAME.START`: its results
and checkpoints, and in `tmp` its home, its working directory and its temporary files. The worker
can write nothing else (`simenv.worker.main`). The service moves its results to their place, takes
checkpoints from and to it, and removes it when the worker has ended. So no worker can read, replace
or add a file of another account.

Where control groups are delegated, the kernel bounds the memory of each worker; the service's own
watch does so everywhere. Processes that a worker leaves behind become children of the service,
which kills them.

Used from the loop's thread; folders are removed in another one.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from launcher.base import Command
from launcher.process import cgroup
from simenv import files
from simenv.config import Config
from simenv.errors import ConfigError, NotAllowedError
from simenv.model import task_name
from simenv.model.calls import FUNCTIONS
from simenv.result_files import CHECKPOINTS, WIDE_QUBITS, attempt_file
from simenv.sandbox import confinement, private_namespaces
from simenv.sandbox.process_tree import adopt_orphans
from simenv.scheduler.core import TaskRecord
from simenv.scheduler.dispatch.account_isolation import account_of
from simenv.service.workers import account_users
from simenv.service.workers.account_users import AccountUsers
from simenv.text import size
from simenv.wire.keyfiles import TOKEN
from simenv.wire.messages.client import AttemptResult

FOLDER = "workers"  # in the folder of results
ORPHANS_S = 1.0  # between two looks for processes that workers left behind
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
        self._folder = results / FOLDER
        files.remove_tree(self._folder)
        self._starts: dict[str, _Start] = {}
        groups = cgroup.memory_groups(f"simenv-{environment}.{os.getpid()}")
        self._groups = None if isinstance(groups, str) else groups
        self._next_look_s = 0.0
        self._filters = _filters(os.getpid())
        adopt_orphans()
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
        """Make and return the folder of a start of a worker. Raises ConfigError."""
        folder = files.private_folder(self._folder / f"{worker}.{start}")
        files.private_folder(folder / "tmp")
        with suppress(OSError):  # without it the worker has no files, and says so
            shutil.copyfile(self._results / TOKEN, folder / TOKEN)
        self._starts[worker] = _Start(start, folder)
        return folder

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

    def assign(self, worker: str, records: Iterable[TaskRecord], bound_bytes: int) -> None:
        """Bound the memory of a worker that gets tasks, and give it their checkpoints."""
        if self._groups is not None:
            self._groups.limit(worker, bound_bytes)
        start, records = self._starts.get(worker), list(records)
        if start is not None and start.has_own_user and not start.user:
            assert self._users is not None
            in_use = {each.user for each in self._starts.values()}
            start.user = self._users.user_of(account_of(records[0]), in_use)
            _give(start.folder, start.user)
        for record in records:
            if start is None or record.route.num_qubits < WIDE_QUBITS:
                continue
            if record.attempts > 1:
                self._take_back(record.number)
                if start.user:
                    _give(self._checkpoint(record.number), start.user)
                _move(self._checkpoint(record.number), start.folder, record.number)
            start.wide.add(record.number)

    def adopt(self, worker: str, results: Iterable[AttemptResult]) -> None:
        """Move the files of a worker's results to their place. Raises NotAllowedError for a name
        that is not that of the attempt's file."""
        start = self._starts.get(worker)
        for result in results:
            if not result.file or start is None:
                continue
            if result.file != attempt_file(result.task, result.attempt):
                raise NotAllowedError(
                    f"worker {worker} names {result.file[:80]!r} as the file of"
                    f" {task_name(result.task)}",
                    hint="each attempt has one file, named after it",
                )
            source, target = start.folder / result.file, self._results / result.file
            with suppress(OSError):  # the result is found damaged, and its task runs again
                target.parent.mkdir(mode=0o700, exist_ok=True)
                if not source.is_symlink():
                    source.replace(target)
                    if start.user:
                        os.chown(target, os.geteuid(), os.getegid(), follow_symlinks=False)

    def ended(self, worker: str, start: int) -> Path | None:
        """Take the checkpoints of a worker that has ended; return the folder to remove."""
        own = self._starts.get(worker)
        if own is None or own.number != start:
            return None
        for task in list(own.wide):
            self._take_back(task)
        del self._starts[worker]
        if self._groups is not None:
            self._groups.remove(worker)
        return own.folder

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
            worker: "it made folders that cannot be listed, so its files have no bound"
            if taken >= files.UNMEASURABLE
            else f"its files took {size(taken)}; the limit of a worker is {size(max_bytes)}"
            f" (results.keep_gib)"
            for worker, start in self._starts.items()
            if (taken := by_name.get(start.folder.name, 0)) > max_bytes
        }

    def is_out_of_memory(self, worker: str) -> bool:
        """Return whether the kernel ended processes of a worker at the bound of its memory."""
        return self._groups is not None and self._groups.is_out_of_memory(worker)

    def kill_orphans(self, *, at_once: bool = False) -> None:
        """Kill processes that outlive the worker that started them: children of the service with
        the filter of system calls that only workers have. Looks once in ORPHANS_S, or `at_once`."""
        if time.monotonic() < self._next_look_s and not at_once:
            return
        self._next_look_s = time.monotonic() + ORPHANS_S
        known = {start.pid for start in self._starts.values()}
        for listed in Path("/proc/self/task").glob("*/children"):
            with suppress(OSError):
                for pid in map(int, listed.read_text().split()):
                    if pid not in known and _filters(pid) > self._filters:
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, os.WNOHANG)

    def close(self) -> None:
        """Remove all folders and groups; all workers have ended."""
        for worker, start in list(self._starts.items()):
            self.ended(worker, start.number)
        self.kill_orphans(at_once=True)
        files.remove_tree(self._folder)
        if self._groups is not None:
            self._groups.close()

    def _checkpoint(self, task: int) -> Path:
        return self._results / CHECKPOINTS / task_name(task)

    def _take_back(self, task: int) -> None:
        """Move the checkpoints of a task from the worker that had it last, if one has them."""
        for start in self._starts.values():
            if task in start.wide:
                start.wide.discard(task)
                _move(start.folder / CHECKPOINTS / task_name(task), self._results, task)


def _move(source: Path, folder: Path, task: int) -> None:
    """Move the checkpoints of a task into `folder`. Without them it begins anew."""
    target = folder / CHECKPOINTS / task_name(task)
    with suppress(OSError):
        if source.is_dir() and not source.is_symlink():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            files.remove_tree(target)
            source.rename(target)


def _give(folder: Path, user: int) -> None:
    """Make a user, and the group of the same number, the owner of a folder and all below it."""
    for path, folders, names in os.walk(folder):
        for name in ("", *folders, *names):
            os.chown(os.path.join(path, name), user, user, follow_symlinks=False)


def _filters(pid: int) -> int:
    """Return how many filters of system calls a process has (proc(5)); 0 if that is not known."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Seccomp_filters:"):
                return int(line.split()[1])
    return 0
