"""Bundles: folders or .zip files with all that is needed to run a task again.

A bundle is a container of a few named files. Invariant: no file is overwritten. Only the members of
NAMES are read, and each is bounded by its real decompressed size, whatever size the archive states.
A bundle is converted into a task, which `simenv submit BUNDLE` runs again with the same settings;
`simenv.client.bundle` converts an ended task into its files.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from simenv.cli import app, execute
from simenv.cli.tasks.result_view import present
from simenv.client import bundle, bundle_manifest
from simenv.client.bundle import BINDINGS, MANIFEST, PROGRAM
from simenv.client.launch import last_lines
from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.wire.messages.history import LogRow, Submitted

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task

MAX_BYTES = 64 * 2**20  # of one member: the size of a message
NAMES = (MANIFEST, PROGRAM, BINDINGS)


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write the files. Raises OptionError if the path exists or cannot be written."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as archive:
                for name, body in files.items():
                    archive.writestr(name, body)
            return
        path.mkdir(parents=True)
        for name, body in files.items():
            (path / name).write_bytes(body)
    except OSError as error:
        hint = "name a folder or .zip that does not exist"
        raise OptionError(f"--bundle {path}: {error.strerror}", hint=hint) from error


def read(path: Path) -> dict[str, bytes]:
    """Return the members of NAMES that exist. Raises ProgramError if the path is no bundle."""
    try:
        result = _unzipped(path) if path.is_file() else _unfolded(path)
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from error
    for name in (MANIFEST, PROGRAM):
        if name not in result:
            hint = "simenv result ID --bundle makes one"
            raise ProgramError(f"{path} is no bundle: it has no {name}", hint=hint)
    return result


def _unzipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        there = {info.filename: info for info in archive.infolist()}
        return {
            name: _member(archive, there[name], path)
            for name in NAMES
            if name in there and _fits(path, name, there[name].file_size)
        }


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    """Return the content of a member, at most MAX_BYTES. The size in the archive is only a claim,
    and only deflate can decompress a part without the whole."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ProgramError(
            f"{path}: {info.filename} is packed by method {info.compress_type}; bundles are stored "
            "or deflated",
            hint="unpack it to a folder, and name the folder",
        )
    try:
        with archive.open(info) as source:
            body = source.read(MAX_BYTES + 1)
    except zlib.error as error:
        raise ProgramError(f"{path}: {info.filename} cannot be unpacked: {error}") from error
    _fits(path, info.filename, len(body))
    return body


def _unfolded(path: Path) -> dict[str, bytes]:
    entries = {}
    for name in NAMES:
        member = path / name
        if _fits(path, name, member.stat().st_size if member.is_file() else None):
            entries[name] = member.read_bytes()
    return entries


def _fits(path: Path, name: str, size: int | None) -> bool:
    if size is not None and size > MAX_BYTES:
        raise LimitExceededError(f"{path}: {name} has {size} bytes; the limit is {MAX_BYTES}")
    return size is not None


LOG_LINES = 200


def collect(client: Client, task: Task, path: Path) -> None:
    """Wait for the task's end, and write its bundle."""
    files = bundle.files_of(client, task, path.name)
    log = getattr(task.exception(), "log", "") or _log(client, client.history.task(task))
    if log:
        files["worker.log"] = log.encode()
    write(path, files)


def load(path: Path) -> Submitted:
    """Return the task of a bundle; its engine is the one that ran it."""
    files = read(path)
    settings = bundle_manifest.read(files[MANIFEST], str(path))
    spec = settings.spec(files[PROGRAM], _values(files.get(BINDINGS), settings, path))
    return Submitted(0, settings.terms, spec, settings.route, settings.submitted_s)


def _values(body: bytes | None, meta: bundle_manifest.Manifest, path: Path) -> bytes:
    """Return the bindings in the wire format."""
    if body is None:
        return b""
    try:
        values = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ProgramError(f"{path}: {BINDINGS} cannot be read: {error}") from error
    if values.ndim != 2 or len(values) != meta.bindings:
        message = f"{path}: {BINDINGS} has shape {values.shape}; expected {meta.bindings} rows"
        raise ProgramError(message)
    return np.ascontiguousarray(values, np.float64).tobytes()


def _log(client: Client, row: LogRow) -> str:
    """Return the end of the worker's log if it is on this machine's disks; else ""."""
    logs = Path(client.service).with_name("logs")
    return "\n".join(last_lines(logs / f"{row.worker}.log", LOG_LINES)) if row.worker else ""


_FREE = ("file", "wait", "timeout", "save")  # options that a bundle does not set


def rerun(
    context: typer.Context,
    common: app.Settings,
    path: Path,
    wait: bool,
    timeout: float | None,
    save: Path | None = None,
) -> None:
    """Submit the task of a bundle; print its id, or its result."""
    for name in app.given(context):
        if name not in _FREE:
            message = f"--{name.replace('_', '-')} cannot be combined with a bundle, which sets it"
            raise OptionError(message, hint=f"simenv run {path}")
    stored = load(path)
    with ExitStack() as stack:
        client = execute.client_of(common, stack)
        is_private = client is None
        if client is None:
            client = stack.enter_context(execute.started(workers=1))
        tasks = client.history.resubmit(stored)
        if wait or is_private:
            full = tasks[0] if len(tasks) == 1 else client.task(tasks[0].handle.id)
            present(client, full, common.as_json, timeout, save, is_private=is_private)
        else:
            common.answer({"task": tasks[0].handle.id}, [tasks[0].handle.id])
