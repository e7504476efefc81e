"""Choice of the journal that a start continues with: the live one, or a newer copy.

Invariant: a start that finds a journal never begins empty, and neither a damaged journal nor one
that was not chosen is ever deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec

from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, JournalError, NotFoundError
from simenv.model import task_name
from simenv.service.journal import copying, marks, salvage as salvaging, tables, wal
from simenv.service.journal.database import FORMAT, fingerprint, way_out_of
from simenv.service.journal.schema import META
from simenv.text import duration

log = logging.getLogger("simenv.service")


class JournalHeader(msgspec.Struct, frozen=True):
    """Epoch and age of a journal."""

    epoch: int  # number of starts of the service that used it
    age_s: float  # since the last write
    next_task: int  # first task number that was never used
    is_complete: bool = False  # a copy with all commits of a service that has ended


def choose_journal(paths: EnvironmentPaths, resume: bool) -> str:
    """Make the journal to continue with the live one: the live journal itself, or its copy if that
    is newer, and complete or `resume` is set. Returns a description of the chosen journal, or "" if
    nothing was chosen. Of a live journal whose structure is damaged, so that SQLite would refuse it
    or drop commits of it, each row that can be read is taken into a new one, with those that only
    the copy has; the damaged files are kept. Raises NotFoundError, ConfigError, JournalError."""
    try:
        salvaging.finish(paths.journal)
    except OSError as error:
        text = f"the salvaged journal cannot take the place of {paths.journal}: {error}"
        raise JournalError(text, hint=way_out_of(error, paths.journal)) from error
    copy = _read_copy_header(paths.copy)
    damage = structural_damage(paths.journal) if paths.journal.exists() else ""
    if damage:
        return _salvaged(paths, damage)
    if copy is None:
        if paths.journal.exists():
            return f"from the live journal {paths.journal}" if resume else ""
        if resume:
            text = f"no journal to resume: neither {paths.journal} nor {paths.copy}"
            raise NotFoundError(text, hint="simenv up starts a new one")
        return ""
    live = read_header(paths.journal, paths.mark)
    if live is not None and live.epoch >= copy.epoch and live.next_task < copy.next_task:
        text = f"the live journal {paths.journal} knows {live.next_task - 1} tasks, and its copy"
        return _salvaged(paths, f"{text} {copy.next_task - 1}: commits of it are lost")
    if copy.is_complete:  # until this start makes one with its own commits
        _mark_incomplete(paths.copy)
    if live is not None and live.epoch >= copy.epoch:
        return f"from the live journal {paths.journal}" if resume else ""
    old = f"its copy {paths.copy} is {duration(copy.age_s)} old"
    if not resume and not copy.is_complete:
        lost = _lost(paths.mark, copy)
        raise ConfigError(
            f"there is no live journal {paths.journal}, and {old}"
            if live is None
            else f"the live journal {paths.journal} is of start {live.epoch}, and {old}, of "
            f"start {copy.epoch}: the environment has run elsewhere since",
            hint=f"simenv up --restore uses the copy{lost}; to start empty, remove {paths.copy}",
        )
    if live is not None:
        _set_aside(paths.journal, live.epoch)
    _restore_copy(paths.copy, paths.journal)
    return f"from the copy {paths.copy}, {duration(copy.age_s)} old"


def structural_damage(journal: Path) -> str:
    """Return what is damaged of a journal's structure; "": nothing. Indexes that do not fit their
    tables are made anew. Raises JournalError if it cannot be opened for another reason."""
    if damage := wal.damage(journal):
        return damage
    if not journal.stat().st_size:
        return f"the journal {journal} has no content: it was cut"
    try:
        with closing(sqlite3.connect(journal, isolation_level=None)) as db:
            db.execute("pragma busy_timeout=5000")
            found = db.execute("pragma integrity_check(1)").fetchone()[0]
            if found != "ok" and "index" in found:
                db.execute("reindex")
                log.warning("the journal %s: %s; its indexes were made anew", journal, found)
                found = db.execute("pragma integrity_check(1)").fetchone()[0]
            names = "user_version", "application_id"
            version, form = (db.execute(f"pragma {name}").fetchone()[0] for name in names)
            script = [row[0] for row in db.execute(SCHEMA_QUERY)] if found == "ok" else []
            if script:
                found = _header_damage(version, form, script)
    except (sqlite3.Error, OSError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in _DAMAGED:
            text = f"the journal {journal} cannot be opened: {error}"
            raise JournalError(text, hint=way_out_of(error, journal)) from error
        found = str(error)
    return "" if found == "ok" else f"the journal {journal} is damaged: {' '.join(found.split())}"


SCHEMA_QUERY = "select sql from sqlite_master where sql is not null"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _header_damage(version: int, form: int, script: list[str]) -> str:
    """Return what is damaged of the header or the schema: one of them says that the journal is of
    this build, and the other does not. "ok": they agree; those of another build, or of a format
    that is not a flipped bit away from this one, are refused later, by its number."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(tables.SCHEMA)
        own = {row[0] for row in db.execute(SCHEMA_QUERY)}
    is_own_schema = own == set(script)
    is_own_form = form == fingerprint(tables.SCHEMA)
    is_flipped = is_own_schema and is_own_form and (version ^ FORMAT).bit_count() == 1
    if not is_flipped and (version not in (0, FORMAT) or is_own_schema == is_own_form):
        return "ok"
    return "its header and its tables are not of the same build"


def _salvaged(paths: EnvironmentPaths, damage: str) -> str:
    """Replace a damaged live journal by what is intact of it; return the description of it."""
    found = salvaging.salvage(paths.journal, paths.copy)
    log.warning("%s", damage)
    text = f"{found.rows} intact rows of the damaged journal"
    if found.filled:
        text += f", {found.filled} rows of its copy"
    return f"{text}: {damage}; the damaged one is kept as {found.kept}"


def _lost(mark: Path, copy: JournalHeader) -> str:
    """Return, for a hint, the tasks that a copy does not know."""
    found = marks.IdMark(mark, read_only=True)
    lost = range(copy.next_task, found.floors["task"])
    if not lost:
        return ""
    most = "" if found.is_exact else " at most"
    span = f"{task_name(lost.start)} to {task_name(lost.stop - 1)}"
    return f", which drops {len(lost)} tasks{most}: {span}"


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


def read_header(path: Path, mark: Path | None = None) -> JournalHeader | None:
    """Read the header of a journal; None if there is no such file. `mark`: says the epoch of one
    whose own is damaged. Raises JournalError if the file is not a journal."""
    if not path.exists():
        return None
    try:
        age_s = max(0.0, time.time() - max(p.stat().st_mtime for p in salvaging.with_wal(path)))
        if not path.stat().st_size:
            raise sqlite3.DatabaseError("it has no content: it was cut")
        db = sqlite3.connect(path, isolation_level=None)
        try:
            query = f"{META.checked} where key in ('epoch', 'complete', 'next_task')"
            stored = db.execute(query).fetchall()
            values = {key: value for key, value, crc in stored if META.is_intact((key, value), crc)}
            newest = db.execute("select first + count from accepted order by first desc limit 1")
            (accepted,) = newest.fetchone() or (1,)
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        text = f"the journal {path} cannot be read: {error}"
        raise JournalError(text, hint=way_out_of(error, path)) from error
    epoch = values.get("epoch", 0)
    if not epoch and mark is not None and mark.exists():
        epoch = marks.IdMark(mark, read_only=True).floors["epoch"]
    next_task = max(accepted, values.get("next_task", 1))
    return JournalHeader(epoch, age_s, next_task, values.get("complete") == epoch)


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
