"""The database of the journal: its interface, and SQLite, the default implementation.

All statements of the journal are written in the part of SQL that SQLite and PostgreSQL share, and
`insert or replace`; `postgres` rewrites the little that differs. Invariant: a group of statements
that `store` has returned from is stored as a whole, and one that it has raised for is not stored,
except with LogNotSynced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from simenv.config import Config
from simenv.errors import JournalError, SimenvError
from simenv.service.journal import schema

Statement = schema.Statement
WAY_OUT = "simenv up continues with all rows that are intact, and keeps the damaged file"
_BUSY_MS = 5_000  # that a statement waits for another connection
FULL_DISK = "free space on its disk; tasks accepted before are safe, new ones are refused"


FAILED_DISK = (
    "its disk failed, or is full: the kernel's log (dmesg) has the reason; new tasks are refused"
)
IN_USE = "another process holds it, such as a copy or sqlite3: end that one, then try again"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def hint_of(error: Exception) -> str:
    """Return the remedy for an error of SQLite or the operating system that says nothing about the
    content of a database; "": the error has another cause."""
    number = getattr(error, "errno", None)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more of the same
    if code == sqlite3.SQLITE_FULL or number in _FULL:
        return FULL_DISK
    if code == sqlite3.SQLITE_IOERR or number == errno.EIO:
        return FAILED_DISK
    return IN_USE if code in _HELD else ""


def way_out_of(error: Exception, path: Path) -> str:
    """Return the remedy for a database that cannot be opened: a good one must not be moved away."""
    if hint := hint_of(error):
        return hint
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _REFUSED or isinstance(error, OSError):
        return f"this user must be able to write {path.parent}, also to read what is in it"
    return f"is it damaged? {WAY_OUT}"


class LeadershipLost(SimenvError):
    """Another service leads the environment, or may: this one must neither store nor answer."""


class LogNotSynced(OSError):
    """A group of statements is stored, but a power failure may lose it."""


class PostgresPlace(msgspec.Struct, frozen=True):
    """A journal in PostgreSQL: a schema of its own for each environment."""

    url: str  # postgresql://USER@HOST/DATABASE
    environment: str
    lease_s: float = 8.0  # a leader that has not renewed its lease for so long may be replaced
    settings: str = ""  # digest of the environment's configuration
    is_standby: bool = False  # it leads only if the environment was not ended

    def __str__(self) -> str:
        """Return a description for texts: without the user and the password."""
        return f"{self.environment} at {self.url.rpartition('@')[2].partition('?')[0]}"


class Standby(NamedTuple):
    """A service that waits to lead."""

    node: str
    address: str  # at which it will listen for other machines; "": at none
    state: str  # what it lacks to lead; "": nothing


class Cursor(Protocol):
    """The rows of one statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """What runs statements, each by itself or in the transaction that is open."""

    def execute(self, query: str, values: Any = ..., /) -> Cursor: ...
    def executemany(self, query: str, rows: Iterable[Any], /) -> object: ...


# It changes with tables, or with the content of rows, that a version with another number could not
# read.
FORMAT = 1


def fingerprint(script: str) -> int:
    """Return a number of the format and of the statements that create the tables, which a journal
    has too: before a release there are many forms with one number of the format."""
    return zlib.crc32(f"simenv {FORMAT} {script}".encode()) & 0x7FFFFFFF


def check_format(found: int, place: object) -> None:
    """Raise JournalError unless this version can continue a journal of that format."""
    if found != FORMAT:
        text = f"the journal {place} has format {found}, this build reads {FORMAT}"
        raise JournalError(text, hint="use the simenv version that wrote it")


def check_tables(found: int, script: str, place: object) -> None:
    """Raise JournalError unless the tables of a journal are those that a script creates."""
    if found != fingerprint(script):
        text = f"the journal {place} has the tables of another build, with the same format {FORMAT}"
        raise JournalError(text, hint="use the simenv version that wrote it")


class Database(Protocol):
    """The database of one journal. Used from one thread."""

    hint: str  # of an error of writing

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the methods raise besides LeadershipLost."""

    @property
    def db(self) -> Connection:
        """What runs single statements."""

    @property
    def lost(self) -> str:
        """Why another service may lead now; "": none does."""

    @property
    def standbys(self) -> tuple[Standby, ...]:
        """The services that wait to lead, as of the last look."""

    def create(self, script: str) -> None:
        """Create the tables that are missing. Raises JournalError; the journal is as before
        then."""

    def next_epoch(self, last: int) -> int:
        """Return the number of this start of a service, above `last`, and store it."""

    def store(self, statements: list[Statement], *, forced: bool) -> None:
        """Store statements in one transaction. `forced`: it survives a power failure. Raises
        LogNotSynced if it may not; the next forced group that is stored ends that."""

    def transaction(self, level: str) -> AbstractContextManager[Connection]:
        """Run a block in one transaction; an exception rolls it back. `level`: FULL, to survive a
        power failure, or NORMAL."""

    def sizes(self) -> tuple[int, int | None]:
        """Return the bytes that it takes of the disk, and those of them that are in use; None: not
        known."""

    def release_pages(self, pages: int, spare: int, /) -> bool:
        """Return up to `pages` free pages to the file system if more than `spare` are free. Returns
        whether it did."""

    def close(self) -> None:
        """Close the database; all commits are on disk then."""

    def abandon(self) -> None:
        """Close the database without another word to it, as if this process had died."""

    @property
    def is_ended(self) -> bool:
        """True if another process has ended the environment, as `simenv down` does where the
        service does not answer."""

    def end_standbys(self) -> None:
        """Store, for standbys, that the environment is ended on purpose."""


def place_of(config: Config, path: Path, *, standby: bool = False) -> Path | PostgresPlace:
    """Return the place of an environment's journal. `path`: of the file, if it is one."""
    if not config.journal:
        return path
    own = msgspec.structs.replace(config, lifeline=False, resume=False, force_lock=False)
    digest = hashlib.sha256(msgspec.json.encode(own)).hexdigest()
    return PostgresPlace(config.journal, config.name, config.leader_lease_s, digest, standby)


class SqliteDatabase:
    """A file of SQLite in WAL mode. `store` forces the WAL to disk itself: to change the level of
    `synchronous` twice a task, for its acceptance and its result, would cost half a commit."""

    errors = (sqlite3.Error, OSError, OverflowError)
    hint = FULL_DISK
    lost = ""
    standbys: tuple[Standby, ...] = ()
    is_ended = False

    def __init__(self, path: Path, durability: str, *, read_only: bool = False) -> None:
        """Open or create it. Raises JournalError."""
        if path.exists() and not path.stat().st_size:
            raise JournalError(
                f"the journal {path} is there and has no content: it was cut", hint=WAY_OUT
            )
        self._path, self._durability = path, durability
        self._log: int | None = None  # descriptor of the WAL
        self._is_log_damaged = False  # it could not be forced to disk
        try:
            if read_only:
                address = f"{path.as_uri()}?mode=ro"
                self.db = sqlite3.connect(
                    address, uri=True, isolation_level=None, check_same_thread=False
                )
                self._check_format()
            else:
                self.db = sqlite3.connect(path, isolation_level=None, cached_statements=64)
                self._open()
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _open(self) -> None:
        run = self.db.execute
        run("pragma auto_vacuum=incremental")  # for a new file; an existing one keeps its mode
        if run("pragma journal_mode=wal").fetchone()[0] != "wal":
            raise sqlite3.OperationalError(
                "its file system has no shared memory, as a local one has"
            )
        run("pragma wal_autocheckpoint=0")
        run(f"pragma busy_timeout={_BUSY_MS}")
        self._level = "OFF"
        self._synchronous("FULL" if self._durability != "process" else "NORMAL")
        self._check_format()
        damaged = run("pragma quick_check(1)").fetchone()[0]
        if damaged != "ok":
            raise sqlite3.DatabaseError(damaged)
        if self._durability != "process":
            self._log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)

    def _check_format(self) -> None:
        if result := self._pragma("user_version"):  # else it is new
            check_format(result, self._path)

    def _unusable(self, error: Exception) -> JournalError:
        text = f"the journal {self._path} cannot be opened: {error}"
        return JournalError(text, hint=way_out_of(error, self._path))

    def create(self, script: str) -> None:
        """Create the tables that are missing."""
        try:
            if self._pragma("user_version"):
                check_tables(self._pragma("application_id"), script, self._path)
            with self.transaction(self._level) as db:
                for statement in filter(str.strip, script.split(";")):
                    db.execute(statement)
                db.execute(f"pragma user_version={FORMAT}")
                db.execute(f"pragma application_id={fingerprint(script)}")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def next_epoch(self, last: int) -> int:
        """Return the number of this start of a service, above `last`, and store it."""
        row = self.db.execute(f"{schema.META.checked} where key = 'epoch'").fetchone()
        is_intact = row is not None and schema.META.is_intact(row[:-1], row[-1])
        epoch = 1 + max(row[1] if is_intact else 0, last)
        self.db.execute(*schema.META.put("epoch", epoch))
        return int(epoch)

    def _synchronous(self, level: str) -> None:
        if level != self._level:
            self.db.execute(f"pragma synchronous={level}")
            self._level = level

    def store(self, statements: list[Statement], *, forced: bool) -> None:
        """Store statements in one transaction."""
        self._synchronous("NORMAL")
        if len(statements) == 1:  # it is a transaction by itself: this saves two of three calls
            self.db.execute(*statements[0])
        else:
            try:
                self.db.execute("begin immediate")
                for query, values in statements:
                    self.db.execute(query, values)
                self.db.execute("commit")
            except self.errors:
                self._roll_back()
                raise
        if forced and self._log is not None:
            try:
                self._mend_log()
                os.fdatasync(self._log)
            except self.errors as error:
                self._is_log_damaged = True
                raise LogNotSynced(str(error)) from error

    def _mend_log(self) -> None:
        """Move all commits from the WAL to the file if the WAL could not be forced to disk: the
        system then takes pages for written that are not, and a restart reads none behind them."""
        if self._is_log_damaged:
            self._synchronous("FULL")
            self.db.execute("pragma busy_timeout=0")  # the loop must not wait for a reader
            try:
                if self.db.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:
                    raise sqlite3.OperationalError("its log is being read")
            finally:
                self.db.execute(f"pragma busy_timeout={_BUSY_MS}")
            self._is_log_damaged = False

    @contextmanager
    def transaction(self, level: str) -> Iterator[sqlite3.Connection]:
        """Run a block in one transaction. `level`: as for `pragma synchronous`."""
        try:
            if level == "FULL":
                self._mend_log()
            self._synchronous(level)
            self.db.execute("begin immediate")
            yield self.db
            self.db.execute("commit")
        except BaseException as error:
            if level == "FULL" and isinstance(error, self.errors):
                self._is_log_damaged = True
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self.db.in_transaction:
            self.db.execute("rollback")

    def _pragma(self, name: str) -> int:
        return int(self.db.execute(f"pragma {name}").fetchone()[0])

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the file, and those of them that are in use."""
        pages, free, page_bytes = map(self._pragma, ("page_count", "freelist_count", "page_size"))
        return pages * page_bytes, (pages - free) * page_bytes

    def release_pages(self, pages: int, spare: int) -> bool:
        """Return up to `pages` free pages to the file system if more than `spare` are free."""
        if self._pragma("freelist_count") <= spare:
            return False
        self.db.execute(f"pragma incremental_vacuum({pages})").fetchall()
        return True

    def close(self) -> None:
        """Checkpoint the WAL into the file. Idempotent for a database that is only read."""
        if hasattr(self, "_level"):
            self._synchronous("FULL")
            self.db.execute("pragma wal_checkpoint(truncate)")
        self.abandon()

    def abandon(self) -> None:
        """Close the connection only."""
        self.db.close()
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def end_standbys(self) -> None:
        """Do nothing: a file has none."""
