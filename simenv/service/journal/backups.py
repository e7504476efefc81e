"""Backups of a whole environment: one archive each, its restoration, and checks before either.

An archive is a tar file with the settings, keys and tokens of an environment, a snapshot of its
journal and telemetry, its result files and the devices of its user; the manifest is its last
member. Invariants: every result file that the journal of an archive names is in it; an archive has
mode 0600 and its name only once it is complete and on disk; a restoration writes nothing over an
environment, and its journal comes last, so that one that was interrupted can be repeated.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import msgspec

from simenv import config as configs, files, foreign_files
from simenv._version import __version__
from simenv.config import EnvironmentPaths
from simenv.config.model import commands_of
from simenv.errors import DECODE_ERRORS, ConfigError, JournalError, NotFoundError, SimenvError
from simenv.service.journal import copying, damage, database, marks, reader, tables, wal
from simenv.service.ownership import take_lock
from simenv.text import duration
from simenv.wire import codec, keyfiles

FORMAT = 1
SUFFIX = ".tar"
_MANIFEST, _CONFIG, _JOURNAL = "manifest.json", "home/config.json", "state/journal.db"
_MAX_MANIFEST_BYTES = 2**28
_BLOCK_BYTES = 2**20
_SNAPSHOTS = 5  # of the journal, while results are pruned before they are copied
# What a start makes anew, belongs to processes, or can be large and is not needed.
_LEFT_OUT = frozenset(
    {
        *("connection.json", "worker.json", "journal.lock", "lock", "gateway.json", "key.json"),
        *("journal.db", "journal.copy.db", "journal.spare", "results", "logs", "backups"),
        *("jobs", "numbers.mark"),
    }
)
_TEMPORARY = ("-wal", "-shm", "-journal", ".log", ".log.old")


class ArchivedFile(msgspec.Struct, frozen=True):
    """A file of an archive. `name`: below home/, state/ or devices/."""

    name: str
    size_bytes: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True):
    """The last member of an archive."""

    format: int
    version: str  # of simenv, which made it
    environment: str
    made_s: float  # seconds since 1970
    epoch: int  # number of starts of the service
    tasks: int  # accepted, ended ones included
    files: tuple[ArchivedFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.files)


def back_up(paths: EnvironmentPaths, target: Path) -> BackupManifest:
    """Write an archive of an environment, whose service may be up. Where the live journal is on
    another machine, its copy in the home is used, a minute old at most. Raises NotFoundError if
    there is no journal here, JournalError, ConfigError if the archive exists or cannot be written,
    or the journal is in PostgreSQL."""
    if target.exists():
        hint = f"a folder, as {target.parent}, gets an archive with a date"
        raise ConfigError(f"{target} already exists", hint=hint)
    if paths.config.exists():
        _check_place(paths)
    source = next((each for each in (paths.journal, paths.copy) if each.exists()), None)
    if source is None:
        hint = "simenv environments lists those of this user"
        raise NotFoundError(f"no journal of an environment in {paths.state}", hint=hint)
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".simenv-backup-") as scratch,
            files.replacing(target, sync=True) as out,
            tarfile.open(fileobj=out, mode="w") as archive,
        ):
            manifest = _Writer(paths, source, Path(scratch), archive).write()
        files.sync_folder(target.parent)
    except OSError as error:
        message = f"the backup {target} cannot be written: {error.strerror or error}"
        raise ConfigError(message, hint="is the disk full? name another folder") from error
    return manifest


class _Writer:
    """Members of one archive."""

    def __init__(
        self, paths: EnvironmentPaths, journal: Path, scratch: Path, archive: tarfile.TarFile
    ) -> None:
        self._paths = paths
        self._journal = journal
        self._scratch = scratch
        self._archive = archive
        self._files: dict[str, ArchivedFile] = {}

    def write(self) -> BackupManifest:
        for name, path in self._settings():
            if path.suffix == ".db":
                path = _snapshot(path, self._scratch / "telemetry.db")
            with suppress(FileNotFoundError):  # replaced or removed meanwhile
                self._add(name, path)
        for attempt in range(_SNAPSHOTS):
            snapshot = _snapshot(self._journal, self._scratch / "journal.db")
            if self._add_results(snapshot):
                break
            if attempt + 1 == _SNAPSHOTS:
                message = "results are removed faster than they are copied"
                raise JournalError(message, hint="try again when `simenv prune` has ended")
        self._add(_JOURNAL, snapshot)
        epoch, tasks = _figures(snapshot)
        name, listed = self._paths.home.name, tuple(self._files.values())
        manifest = BackupManifest(FORMAT, __version__, name, time.time(), epoch, tasks, listed)
        path = self._scratch / _MANIFEST
        path.write_bytes(msgspec.json.encode(manifest))
        self._archive.add(path, _MANIFEST)
        return manifest

    def _settings(self) -> Iterator[tuple[str, Path]]:
        """Yield the names in the archive and the paths of all but journal and results."""
        for folder, below, names in os.walk(self._paths.home):
            # Not into the results, where workers make trees of their own.
            below[:] = sorted(set(below) - _LEFT_OUT)
            for path in (Path(folder, name) for name in sorted(set(names) - _LEFT_OUT)):
                is_kept = path.name[0] != "." and not path.name.endswith(_TEMPORARY)
                if is_kept and path.is_file() and not path.is_symlink():
                    yield f"home/{path.relative_to(self._paths.home)}", path
        for path in sorted(self._paths.home.parent.glob("devices/*.json")):
            yield f"devices/{path.name}", path

    def _add_results(self, snapshot: Path) -> bool:
        """Add the result files that the journal names. Returns False if one of them was removed
        after the snapshot."""
        for name in _result_files(snapshot):
            folder, path = _result_path(self._paths, name)
            if f"{folder}/results/{name}" not in self._files:
                root = self._paths.results if folder == "state" else self._paths.home / "results"
                try:
                    self._add(f"{folder}/results/{name}", path, partial(_open_result, root, name))
                except (FileNotFoundError, foreign_files.ForeignFileError):
                    if not _result_still_named(self._journal, name):
                        return False
        return True

    def _add(self, name: str, path: Path, opened: Callable[[], BinaryIO] | None = None) -> None:
        """Add a file as it is at this time. `opened`: opens it, None: as the path says. Raises
        FileNotFoundError."""
        with path.open("rb") if opened is None else opened() as file:
            member = self._archive.gettarinfo(str(path), name, file)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o600
            reading = _HashingReader(file)
            self._archive.addfile(member, reading)
        self._files[name] = ArchivedFile(name, member.size, reading.sha256.hexdigest())


def _open_result(root: Path, name: str) -> BinaryIO:
    return os.fdopen(foreign_files.open_file(root, name), "rb")


class _HashingReader:
    """A file whose digest is taken as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _snapshot(source: Path, path: Path) -> Path:
    """Copy a database to `path`, which needs no WAL. Raises JournalError."""
    path.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source, isolation_level=None)) as db:
            db.execute("pragma busy_timeout=10000")
            copying.copy_into(db, path)
    except sqlite3.Error as error:
        text = f"{source} cannot be copied: {error}"
        raise JournalError(text, hint=database.way_out_of(error, source)) from error
    return path


def _rows(journal: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        return list(db.execute(query, values))


def _result_files(journal: Path) -> list[str]:
    return [str(name) for (name,) in _rows(journal, "select name from file where bytes > 0")]


def _result_still_named(journal: Path, name: str) -> bool:
    """Return whether the journal names a missing file even now: it is lost, and its task runs
    again."""
    return bool(_rows(journal, "select 1 from file where bytes > 0 and name = ?", name))


def _result_path(paths: EnvironmentPaths, name: str) -> tuple[str, Path]:
    """Return `state` or `home`, whichever has a file of results, and its path there."""
    on_home = paths.home / "results" / name
    if on_home.exists() and paths.home != paths.state:
        return "home", on_home
    return "state", paths.results / name


def _figures(journal: Path) -> tuple[int, int]:
    """Return the number of starts and of accepted tasks."""
    query = "select coalesce((select value from meta where key = 'epoch'), 0), sum(count)"
    ((epoch, tasks),) = _rows(journal, f"{query} from accepted")
    return int(str(epoch)), int(str(tasks or 0))


def dated(folder: Path, name: str, now_s: float) -> Path:
    """Return the path of an archive that is made now."""
    return folder / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_s))}{SUFFIX}"


def remove_old(folder: Path, name: str, keep: int) -> list[Path]:
    """Remove all dated archives of an environment but the newest `keep`; return them."""
    digits = "[0-9]" * 8 + "T" + "[0-9]" * 6 + "Z"
    old = sorted(folder.glob(f"{name}-{digits}{SUFFIX}"))[:-keep]
    for path in old:
        with suppress(OSError):
            path.unlink()
    return [path for path in old if not path.exists()]


def read_manifest(archive: Path) -> BackupManifest:
    """Read the manifest of an archive. Raises ConfigError if the file is none, is cut, or was made
    by a version with another format."""
    try:
        with tarfile.open(archive, "r:") as source:
            member = source.getmember(_MANIFEST)
            if member.size > _MAX_MANIFEST_BYTES:
                raise tarfile.TarError("its manifest is too large")
            file = source.extractfile(member)
            assert file is not None
            manifest = msgspec.json.decode(file.read(), type=BackupManifest)
    except (OSError, KeyError, tarfile.TarError, *DECODE_ERRORS, AssertionError) as error:
        message = f"{archive} is no complete backup of an environment: {error}"
        raise ConfigError(message, hint="simenv admin backup writes one") from error
    if manifest.format != FORMAT:
        message = f"{archive} has format {manifest.format}, this build reads {FORMAT}"
        raise ConfigError(message, hint=f"use simenv {manifest.version}, which made it")
    return manifest


def restore(archive: Path, name: str = "", *, allow_commands: bool = False) -> EnvironmentPaths:
    """Restore an environment on this machine from an archive; return its paths. `name`: another
    name than that of the archive. Raises ConfigError if the archive is damaged, if there is such an
    environment already, or if its settings name commands, unless `allow_commands`."""
    manifest = read_manifest(archive)
    name = configs.check_name(name or manifest.environment)
    root = files.private_folder(configs.home_root())
    with tempfile.TemporaryDirectory(dir=root, prefix=".restore-") as scratch:
        _extract(archive, manifest, Path(scratch))
        stored = configs.read(Path(scratch) / _CONFIG)
        if (commands := commands_of(stored)) and not allow_commands:
            listed = "; ".join(f"{setting}: {text:.200}" for setting, text in commands.items())
            hint = "read them; if you trust the archive, --allow-commands restores it with them"
            raise ConfigError(f"the settings in {archive} run commands: {listed}", hint=hint)
        # The archive does not say where on this machine files are written: all below the new home.
        settings = msgspec.structs.replace(stored, name=name, state_dir="")
        paths = configs.places(settings)
        _check_absent(paths, name)
        for folder in (paths.home, paths.state):
            files.private_folder(folder)
        configs.write(settings, Path(scratch) / _CONFIG)
        for each in sorted(manifest.files, key=_journal_last):
            _place(Path(scratch) / each.name, _destination(paths, root, each.name))
        if name == manifest.environment and not paths.mark.exists():
            marks.leave_gap(paths.mark, paths.journal)
        for folder in {paths.home, paths.state}:
            files.sync_folder(folder)
    return paths


def _check_absent(paths: EnvironmentPaths, name: str) -> None:
    """Raise ConfigError if there is an environment, which may be down, and its journal elsewhere. A
    home without a journal is of a restoration that was interrupted."""
    places = [paths.connection, paths.journal, paths.copy]
    found = next((str(path) for path in places if path.exists()), "")
    if not found and paths.config.exists():
        settings = configs.read(paths.config)
        journal = configs.state_folder(settings, paths.home) / paths.journal.name
        if settings.journal:
            found = f"{paths.config}, with its journal in PostgreSQL"
        elif journal.exists():
            found = str(journal)
    if found:
        hint = "--name OTHER restores beside it; else move its folder away"
        raise ConfigError(f"there is an environment {name!r} already: {found}", hint=hint)


def roll_back(archive: Path, paths: EnvironmentPaths) -> bool:
    """Put the files of an archive of this very environment, made when it had ended, back in their
    places, because a later version may have changed them. Results never change: only missing ones
    are written. The journal that is replaced stays next to it as journal.db.replaced.

    Returns False, and changes nothing, if tasks were accepted or have ended since and this version
    can continue them. Raises ConfigError for a damaged archive, JournalError while a service
    runs."""
    manifest = read_manifest(archive)
    lock = take_lock(paths.state / "journal.lock")
    try:
        with tempfile.TemporaryDirectory(dir=paths.home, prefix=".rollback-") as scratch:
            folder = Path(scratch)
            _extract(archive, manifest, folder)
            if _progress(paths.journal) != _progress(folder / _JOURNAL) and not check(paths):
                return False
            if paths.journal.exists():
                paths.journal.replace(paths.journal.with_name(f"{paths.journal.name}.replaced"))
            for path in (*(Path(f"{paths.journal}{end}") for end in ("-wal", "-shm")), paths.copy):
                path.unlink(missing_ok=True)
            for each in sorted(manifest.files, key=_journal_last):
                path = _destination(paths, paths.home.parent, each.name)
                if "/results/" not in each.name or not path.exists():
                    _place(folder / each.name, path)
        for folder in {paths.home, paths.state}:
            files.sync_folder(folder)
    finally:
        os.close(lock)
    return True


def _progress(journal: Path) -> tuple[object, ...] | None:
    """Return figures that change when tasks are accepted or end; None for a format that this
    version cannot read. The service has ended."""
    ends = "select max(seq + count), count(*) from finished"
    try:
        return *_figures(journal)[1:], *_rows(journal, ends)[0]
    except (JournalError, sqlite3.Error):
        return None


def _journal_last(file: ArchivedFile) -> tuple[bool, str]:
    """Order files by name, but the journal, which makes them an environment, comes last."""
    return file.name == _JOURNAL, file.name


def _extract(archive: Path, manifest: BackupManifest, folder: Path) -> None:
    """Write the files of an archive below a folder. Raises ConfigError if one is not that of the
    manifest."""
    needed = {each.name: each for each in manifest.files}
    with tarfile.open(archive, "r:") as source:
        for member in source:
            expected = needed.pop(member.name, None)
            if expected is None:
                continue
            is_safe = _is_safe_name(member.name)
            is_whole = member.isreg() and not member.sparse and member.size == expected.size_bytes
            file = source.extractfile(member) if is_safe and is_whole else None
            if file is None:
                raise ConfigError(f"{archive}: {member.name} is no file of an environment")
            path = folder / member.name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            reading = _HashingReader(file)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                while block := reading.read(_BLOCK_BYTES):
                    out.write(block)
                out.flush()
                os.fsync(descriptor)
            if reading.sha256.hexdigest() != expected.sha256:
                hint = "take an earlier backup"
                raise ConfigError(f"{archive} is damaged: {member.name} has changed", hint=hint)
    if needed:
        hint = "take an earlier backup"
        raise ConfigError(f"{archive} is damaged: it lacks {min(needed)}", hint=hint)


def _is_safe_name(name: str) -> bool:
    """Whether a member's name is relative, normal, and below a folder of an environment. After the
    first part, as in "home//etc/x", an absolute path would replace the base it is joined to."""
    parts = PurePosixPath(name).parts
    is_normal = name == "/".join(parts) and ".." not in parts and "\0" not in name
    return is_normal and len(parts) > 1 and parts[0] in ("home", "state", "devices")


def _destination(paths: EnvironmentPaths, root: Path, name: str) -> Path:
    base, _, inside = name.partition("/")
    if base == "devices":
        return root / name
    return (paths.home if base == "home" else paths.state) / inside


def _place(source: Path, path: Path) -> None:
    """Move a file to its place; a device that is there already stays."""
    if path.exists() and source.parent.name == "devices":
        return
    files.private_folder(path.parent)
    try:
        os.replace(source, path)
    except OSError:  # another file system
        with source.open("rb") as data, files.replacing(path, sync=True) as out:
            while block := data.read(_BLOCK_BYTES):
                out.write(block)


def check(paths: EnvironmentPaths) -> list[str]:
    """Return what keeps this version from continuing an environment without loss; [] if nothing
    does. It reads all of the journal, and changes nothing; the service may be up."""
    found = []
    try:
        keyfiles.read_keys(paths.keys)
        if paths.server_key.exists():
            keyfiles.server_file(paths.server_key)
    except SimenvError as error:
        found.append(error.message)
    try:
        _check_place(paths)
    except SimenvError as error:
        return [*found, f"{paths.config}: {error.message}"]
    if paths.journal.exists() and (text := wal.damage(paths.journal)):
        found.append(text)
    journal = next((each for each in (paths.journal, paths.copy) if each.exists()), None)
    if journal is None:
        return [*found, f"there is no journal {paths.journal}, and no copy of it"]
    if not journal.stat().st_size:  # SQLite takes it for a new one
        return [*found, f"{journal} has no content: it was cut"]
    try:
        names = _read_all(journal, found)
    except (SimenvError, sqlite3.Error) as error:
        return [*found, f"{journal}: {error}"]
    missing = [name for name in names if not _result_path(paths, name)[1].exists()]
    if missing and journal == paths.journal:
        found.append(f"{len(missing)} result files are missing, such as {missing[0]}")
    return found


def _read_all(journal: Path, found: list[str]) -> list[str]:
    """Read all of a journal; add what is damaged to `found`. Returns the names of its result files.
    Raises JournalError, ProtocolError, sqlite3.Error."""
    opened = database.SqliteDatabase(journal, "process", read_only=True)
    with closing(opened.db) as db:
        db.execute("pragma busy_timeout=10000")
        for (problem,) in db.execute("pragma integrity_check(10)"):
            found += [] if problem == "ok" else [f"{journal}: {problem}"]
        database.check_tables(
            db.execute("pragma application_id").fetchone()[0], tables.SCHEMA, journal
        )
        records = reader.Records(opened, journal)
        for table in tables.ALL:
            if damaged := damage.damaged_rows(records, table):
                found.append(f"{journal}: {damage.described(records, table, damaged)}")
        if not found:  # intact rows may be those of another version
            for row in records.accepted.all():
                codec.submit(row.body)
        return [name for (name,) in db.execute("select name from file where bytes > 0")]


def _check_place(paths: EnvironmentPaths) -> None:
    """Raise ConfigError if the settings cannot be read, or the journal is no file."""
    if configs.read(paths.config).journal:
        text = f"the journal of {paths.home.name} is in PostgreSQL, and an archive has files alone"
        raise ConfigError(text, hint="pg_dump backs up its database; copy the home besides")


def age(manifest: BackupManifest, now_s: float) -> str:
    """Return the age of an archive for users."""
    return duration(max(0.0, now_s - manifest.made_s))
