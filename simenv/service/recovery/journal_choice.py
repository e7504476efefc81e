"""Choose the journal that a start continues with: the live one, or a newer backup.

Invariant: a start that finds a journal never begins empty, and the journal that was not chosen is
never deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from pathlib import Path

import msgspec

from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, JournalError, NotFoundError
from simenv.service.journal.reader import WAY_OUT
from simenv.text import duration

log = logging.getLogger("simenv.service")


class JournalHeader(msgspec.Struct, frozen=True):
    """Epoch and age of a journal."""

    epoch: int  # number of starts of the service that used it
    age_s: float  # since the last write


def choose_journal(paths: EnvironmentPaths, resume: bool) -> str:
    """Make the journal to continue with the live one: the live journal itself, or its copy if
    `resume` is set and the copy is newer.

    Returns a description of the chosen journal, or "" for a start without `resume`. Raises
    NotFoundError, ConfigError, JournalError.
    """
    copy = _read_copy_header(paths.copy)
    if copy is None:
        if paths.journal.exists():
            return f"from the live journal {paths.journal}" if resume else ""
        if resume:
            raise NotFoundError(
                f"no journal to resume: neither {paths.journal} nor {paths.copy}",
                hint="simenv up starts a new one",
            )
        return ""
    live = read_header(paths.journal)
    if live is not None and live.epoch >= copy.epoch:
        return f"from the live journal {paths.journal}" if resume else ""
    old = f"its copy {paths.copy} is {duration(copy.age_s)} old"
    if not resume:
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
            row = db.execute("select value from meta where key = 'epoch'").fetchone()
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        raise JournalError(
            f"the journal {path} cannot be read: {error}",
            hint=WAY_OUT,
        ) from error
    return JournalHeader(row[0] if row is not None else 0, age_s)


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
