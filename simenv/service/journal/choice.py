"""Choice of the journal that a start continues with: the live one, or a newer copy.

Invariant: a start that finds a journal never begins empty, and the journal that was not chosen is
never deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, JournalError, NotFoundError
from simenv.service.journal import copying, wal
from simenv.service.journal.database import way_out_of
from simenv.text import duration

log = logging.getLogger("simenv.service")
RESTORE = (
    "simenv up --restore continues with its copy, or with what is intact, whichever has more tasks,"
    " and keeps the damaged files"
)


class JournalHeader(msgspec.Struct, frozen=True):
    """Epoch and age of a journal."""

    epoch: int  # number of starts of the service that used it
    age_s: float  # since the last write
    next_task: int  # first task number that was never used
    is_complete: bool = False  # a copy with all commits of a service that has ended


def choose_journal(paths: EnvironmentPaths, resume: bool) -> str:
    """Make the journal to continue with the live one: the live journal itself, or its copy if that
    is newer, and complete or `resume` is set. Returns a description of the chosen journal, or "" if
    nothing was chosen. A live journal that is damaged, so that SQLite would drop commits of it, is
    refused; with `resume` the copy is used, or what is intact of the live journal if that has more
    tasks, and the damaged files are kept. Raises NotFoundError, ConfigError, JournalError."""
    copy = _read_copy_header(paths.copy)
    if paths.journal.exists() and (damage := wal.damage(paths.journal)):
        if not resume:
            raise JournalError(damage, hint=RESTORE)
        return _replace_damaged(paths, damage, copy)
    if copy is None:
        if paths.journal.exists():
            return f"from the live journal {paths.journal}" if resume else ""
        if resume:
            text = f"no journal to resume: neither {paths.journal} nor {paths.copy}"
            raise NotFoundError(text, hint="simenv up starts a new one")
        return ""
    live = read_header(paths.journal)
    if live is not None and live.epoch >= copy.epoch and live.next_task < copy.next_task:
        text = f"the live journal {paths.journal} knows {live.next_task - 1} tasks, and its copy"
        text += f" {paths.copy} {copy.next_task - 1}: commits of it are lost"
        if not resume:
            raise JournalError(text, hint=RESTORE)
        return _replace_damaged(paths, text, copy)
    if copy.is_complete:  # until this start makes one with its own commits
        _mark_incomplete(paths.copy)
    if live is not None and live.epoch >= copy.epoch:
        return f"from the live journal {paths.journal}" if resume else ""
    old = f"its copy {paths.copy} is {duration(copy.age_s)} old"
    if not resume and not copy.is_complete:
        raise ConfigError(
            f"there is no live journal {paths.journal}, and {old}"
            if live is None
            else f"the live journal {paths.journal} is of start {live.epoch}, and {old}, of "
            f"start {copy.epoch}: the environment has run elsewhere since",
            hint=f"simenv up --restore uses the copy; to start empty, remove {paths.copy}",
        )
    if live is not None:
        _set_aside(paths.journal, live.epoch)
    _restore_copy(paths.copy, paths.journal)
    return f"from the copy {paths.copy}, {duration(copy.age_s)} old"


def _mark_incomplete(copy: Path) -> None:
    try:
        copying.mark_complete(copy, complete=False)
    except sqlite3.Error as error:
        text = f"the journal's copy {copy} cannot be written: {error}"
        raise JournalError(text, hint=way_out_of(error, copy)) from error


def _read_copy_header(path: Path) -> JournalHeader | None:
    """Read the header of a copy; None if there is none, or if it cannot be read."""
    try:
        return read_header(path)
    except JournalError as error:
        log.warning("%s", error.message)
        return None


def read_header(path: Path) -> JournalHeader | None:
    """Read the header of a journal; None if there is no such file. Raises JournalError if the file
    is not a journal."""
    if not path.exists():
        return None
    try:
        age_s = max(0.0, time.time() - max(p.stat().st_mtime for p in _with_wal(path)))
        if not path.stat().st_size:
            raise sqlite3.DatabaseError("it has no content: it was cut")
        db = sqlite3.connect(path, isolation_level=None)
        try:
            query = "select key, value from meta where key in ('epoch', 'complete', 'next_task')"
            values = dict(db.execute(query))
            newest = db.execute("select first + count from accepted order by first desc limit 1")
            (accepted,) = newest.fetchone() or (1,)
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        text = f"the journal {path} cannot be read: {error}"
        raise JournalError(text, hint=way_out_of(error, path)) from error
    epoch = values.get("epoch", 0)
    next_task = max(accepted, values.get("next_task", 1))
    return JournalHeader(epoch, age_s, next_task, values.get("complete") == epoch)


def _replace_damaged(paths: EnvironmentPaths, damage: str, copy: JournalHeader | None) -> str:
    """Continue with the copy, or with what is intact of the damaged live journal if that has more
    tasks. Returns the description of what was chosen. Raises JournalError."""
    stamp = f"damaged-{time.time_ns() // 10**9}"
    for part in _with_wal(paths.journal):
        shutil.copyfile(part, part.with_name(f"{part.name}.{stamp}"))
    live: JournalHeader | None = None
    with suppress(JournalError):
        live = read_header(paths.journal)
    kept = f"the damaged one is kept as {paths.journal}.{stamp}"
    if copy is not None and (live is None or copy.next_task >= live.next_task):
        for part in (*_with_wal(paths.journal), Path(f"{paths.journal}-shm")):
            part.unlink(missing_ok=True)
        _restore_copy(paths.copy, paths.journal)
        return f"from the copy {paths.copy}, {duration(copy.age_s)} old: {damage}; {kept}"
    if live is None:
        raise JournalError(damage, hint=f"there is no copy; {kept}: remove {paths.journal}*")
    return f"from what is intact of {paths.journal}, {live.next_task - 1} tasks: {damage}; {kept}"


def _with_wal(path: Path) -> list[Path]:
    return [p for p in (path, path.with_name(path.name + "-wal")) if p.exists()]


def _set_aside(path: Path, epoch: int) -> None:
    """Rename an older journal, which is kept."""
    for part in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        if part.exists():
            part.replace(part.with_name(f"{part.name}.of-start-{epoch}"))


def _restore_copy(copy: Path, live: Path) -> None:
    temporary = live.with_name(f".{live.name}.new")
    shutil.copyfile(copy, temporary)
    temporary.chmod(0o600)
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(live)
