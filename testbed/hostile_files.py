"""A task that makes everything of its worker's folder while the service works there, and what the
service does there: it adopts results, moves checkpoints, measures and removes.

The task's process knows all names that the service will use, may create all kinds of files there,
and exchanges them as fast as it can. Canaries outside of the folder must stay as they are.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import secrets
import select
import shutil
import socket
import stat
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from launcher.base import Command
from simenv import foreign_files
from simenv.model import task_name
from simenv.process import resident_bytes
from simenv.result_files import CHECKPOINTS, WORKERS, attempt_file
from simenv.sandbox import confinement
from simenv.service.results.file_worker import FileWorker
from simenv.service.workers.account_users import AccountUsers
from simenv.service.workers.isolation import WorkerIsolation
from testbed.waiting import until

SPAWN = multiprocessing.get_context("spawn")
FIRST_UID = 310_000
TASKS, FENCE = 4, 65_537
DATA = b"the task's own bytes"
SECRET = b"bytes of another account"
HARD_LINKS = 50  # that it has from the begin
ENTRIES = 300  # in its temporary folder at once
GOES_ON_S, PATIENCE_S = 0.05, 600.0  # of the task after its end; for the removal
PASSES = 12  # of the service over one folder
EXCHANGE = 2  # RENAME_EXCHANGE
DEPTH = 70  # of a deep tree: more than are measured
IN_ACCESS, IN_MODIFY, IN_OPEN, IN_DELETE, IN_MOVED = 0x1, 0x2, 0x20, 0x200, 0xC0


class Outcome(NamedTuple):
    """What happened in all rounds."""

    entries: int  # that the task made
    taken: int  # results that were adopted
    kept: int  # checkpoints that were taken back
    touched: Counter[str]  # accesses to canaries: opened, read, changed, moved or removed
    left: list[str]  # what was not removed, or stands in the results and should not
    grown_bytes: int  # of this process's memory


def attack(folder: int, canaries: int, user: int, seed: int, made: Synchronized[int]) -> None:
    """Make and exchange entries of an open folder until this process is killed. `canaries`: an open
    folder with the file `file`, of which there are further names in the folder. `user`: the one to
    become; 0: this one, confined to the folder as functions are. `made`: counts the entries."""
    os.fchdir(folder)
    outside = os.readlink(f"/proc/self/fd/{canaries}")
    for number in range(HARD_LINKS):
        os.link("file", f"tmp/second-{number}", src_dir_fd=canaries)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    else:
        rules = confinement.FileRules((Path("/usr"), Path("/proc")), (), (Path.cwd(),))
        confinement.restrict_files(rules, None, scoped=False)
    chance = random.Random(seed)
    names = [attempt_file(task, FENCE) for task in range(1, TASKS + 1)]
    for task in range(1, TASKS + 1):
        checkpoints = f"{CHECKPOINTS}/{task_name(task)}"
        names += [checkpoints, f"{checkpoints}/0.1.h5"]
    exchange, kinds, number = ctypes.CDLL(None).renameat2, _kinds(outside), 0
    while True:
        number += 1
        for above in ("0", CHECKPOINTS):
            if number % 10 == 0:
                with suppress(OSError):
                    os.rename(above, f"tmp/{above}.{number}")
            with suppress(OSError):
                os.mkdir(above)
        name = chance.choice(names) if chance.random() < 0.9 else chance.choice(["0", CHECKPOINTS])
        fresh = f"tmp/{number % ENTRIES}"
        with suppress(OSError):
            chance.choice(kinds)(fresh)
            made.value += 1
        with suppress(OSError):
            if chance.random() < 0.7:
                os.rename(fresh, name)
        for _ in range(chance.randint(0, 8)):  # between two calls of the service
            exchange(-100, os.fsencode(fresh), -100, os.fsencode(name), EXCHANGE)
        if number >= ENTRIES:
            old = f"tmp/{(number + 1) % ENTRIES}"
            with suppress(OSError):
                os.unlink(old)
            shutil.rmtree(old, ignore_errors=True)


def _kinds(outside: str) -> list[Callable[[str], object]]:
    """Return what makes an entry of each kind; good files are as frequent as all others."""

    def deep(name: str) -> None:
        os.makedirs(f"{name}/" + "/".join("d" * DEPTH))
        os.chmod(name, 0)

    def listen(name: str) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)

    def write(name: str) -> None:
        with open(name, "wb") as file:
            file.write(DATA)

    def checkpoint(name: str) -> None:
        os.mkdir(name)
        write(f"{name}/0.1.h5")

    def program(name: str) -> None:
        write(name)
        os.chmod(name, 0o4755)

    def held(name: str) -> None:
        os.write(os.open(name, os.O_CREAT | os.O_WRONLY), DATA)
        if len(os.listdir("/proc/self/fd")) > 200:
            os.closerange(100, 200)

    def tree_with_links(name: str) -> None:
        checkpoint(name)
        os.symlink(f"{outside}/file", f"{name}/link")
        os.symlink(outside, f"{name}/folder")

    def link_of_hard(name: str) -> None:
        os.rename(f"tmp/second-{secrets.randbelow(HARD_LINKS)}", name)

    bad: list[Callable[[str], object]] = [
        lambda name: os.symlink(f"{outside}/file", name),
        lambda name: os.symlink(outside, name),
        lambda name: os.symlink("../" * 8 + outside[1:], name),
        lambda name: os.mkfifo(name),
        lambda name: os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
        lambda name: os.mknod(name, stat.S_IFBLK | 0o666, os.makedev(7, 0)),
        lambda name: os.mkdir(name, 0),
        link_of_hard, listen, program, tree_with_links, held,
    ]  # fmt: skip
    return [*bad, *bad, deep, *[write, checkpoint] * len(bad)]


@contextmanager
def _watched(canaries: Path) -> Iterator[Callable[[], list[str]]]:
    """Yield what returns the accesses to the canaries since then (inotify(7)): none is expected."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    mask = IN_OPEN | IN_ACCESS | IN_MODIFY | IN_DELETE | IN_MOVED
    for path in (canaries, canaries / "file"):
        if libc.inotify_add_watch(descriptor, os.fsencode(path), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def accesses() -> list[str]:
        found = []
        while select.select([descriptor], [], [], 0.0)[0]:
            data, at = os.read(descriptor, 65_536), 0
            while at < len(data):
                _, event, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + size].rstrip(b"\0").decode()
                found.append(f"{name or 'canaries'}: {event:#x}")
                at += 16 + size
        return found

    try:
        yield accesses
    finally:
        os.close(descriptor)


def _is_gone(folder: Path) -> bool:
    return not folder.exists()


def _state(canaries: Path) -> list[tuple[object, ...]]:
    found = [canaries.stat(), (canaries / "file").stat()]
    return [(s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns) for s in found]


def serve(place: Path, entries: int, seed: int, *, own_user: bool) -> Outcome:
    """Work in the folders of a hostile task until it has made so many entries. `place`: an empty
    folder. `own_user`: the task runs as a user of its own, which root can give it."""
    canaries, results = place / "canaries", place / "results"
    canaries.mkdir(mode=0o755)
    results.mkdir(mode=0o700)
    (canaries / "file").write_bytes(SECRET)
    users = AccountUsers(range(FIRST_UID, FIRST_UID + 2_000), place / "users.json")
    isolation = WorkerIsolation(results, "hostile", users if own_user else "one user")
    made: Synchronized[int] = SPAWN.Value("i", 0, lock=False)
    before, touched, left = _state(canaries), Counter[str](), list[str]()
    round_number = taken = kept = 0
    first_bytes = 0
    file_worker = FileWorker(results)
    file_worker.start()
    with _watched(canaries) as accesses:
        while made.value < entries:
            round_number += 1
            folder = _begin(isolation, round_number)
            process = _enemy(folder, canaries, seed + round_number, made)
            accesses()  # the start of that process opens the folder
            for _ in range(PASSES):
                more = _pass(isolation, folder)
                taken, kept = taken + more[0], kept + more[1]
                left += _foreign(results)
            isolation.ended("fn-0", round_number)
            file_worker.remove_folder(folder)  # while the task goes on
            time.sleep(GOES_ON_S)
            process.kill()
            process.join()
            until(partial(_is_gone, folder), PATIENCE_S, message=f"{folder.name} stays")
            touched.update(accesses())
            first_bytes = first_bytes or resident_bytes()
        left += _foreign(results)
    if _state(canaries) != before:
        touched["changed"] += 1
    # Its reading counts as an access.
    if (canaries / "file").read_bytes() != SECRET or (canaries / "file").stat().st_nlink != 1:
        touched["replaced"] += 1
    file_worker.stop()
    isolation.close()
    left += [path.name for path in (results / WORKERS).glob("*")]
    return Outcome(made.value, taken, kept, touched, left, resident_bytes() - first_bytes)


def _begin(isolation: WorkerIsolation, number: int) -> Path:
    folder = isolation.make("fn-0", number)
    isolation.create(folder)
    command = Command("fn-0", ("true",), (), folder / "log", folder, number, ())
    isolation.confined(command, folder, is_local=True)
    isolation.assign("fn-0", [_record(1)], 2**30)
    return folder


def _record(task: int) -> Any:
    route = SimpleNamespace(num_qubits=30)
    batch = SimpleNamespace(account="", owner="mallory")
    return SimpleNamespace(number=task, attempts=2, route=route, batch=batch)


def _enemy(folder: Path, canaries: Path, seed: int, made: Synchronized[int]) -> Any:
    """Start the task's process, and wait until it has begun."""
    user, before = folder.stat().st_uid, made.value
    arguments = os.fspath(folder), os.fspath(canaries), user if user != os.geteuid() else 0
    process = SPAWN.Process(target=_open_and_attack, args=(*arguments, seed, made), daemon=True)
    process.start()
    while made.value == before and process.is_alive():
        time.sleep(0.01)
    return process


def _open_and_attack(
    folder: str, canaries: str, user: int, seed: int, made: Synchronized[int]
) -> None:
    opened = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (folder, canaries)]
    attack(*opened, user, seed, made)


def _pass(isolation: WorkerIsolation, folder: Path) -> tuple[int, int]:
    """Do once what the service does with the folder of a worker. Returns how many results and how
    many checkpoints it took."""
    results, taken, kept = isolation.folder.parent, 0, 0
    for task in range(1, TASKS + 1):
        one = SimpleNamespace(task=task, attempt=FENCE, file_bytes=len(DATA))
        (reason,) = isolation.taking("fn-0", [one], sync=False)()
        path = results / attempt_file(task, FENCE)
        if not reason:
            taken += 1
            if path.read_bytes() != DATA:
                raise AssertionError(f"{path} has {path.read_bytes()[:40]!r}")
        foreign_files.remove(results, attempt_file(task, FENCE))
        isolation._take_back(task, isolation._starts["fn-0"])
        checkpoint = results / CHECKPOINTS / task_name(task)
        if checkpoint.is_dir():
            kept += 1
        if job := isolation.assign("fn-0", [_record(task)], 2**30):
            job()
    foreign_files.tree_bytes(folder)
    foreign_files.names(isolation.folder)
    return taken, kept


def _foreign(results: Path) -> list[str]:
    """Return what stands in the results, but for the workers' folders, and is no plain file of this
    user in a folder of this user."""
    found = []
    own = [path for path in results.iterdir() if path.name != WORKERS]
    for path in (*own, *(each for folder in own for each in folder.rglob("*"))):
        info = path.lstat()
        is_file = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
        if not (is_file or stat.S_ISDIR(info.st_mode)) or info.st_uid != os.geteuid():
            found.append(f"{path.relative_to(results)} {info.st_mode:o} of {info.st_uid}")
    return found
