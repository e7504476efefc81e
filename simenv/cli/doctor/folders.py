"""Checks of the folders that simenv writes to: file system, free space, stale files, file modes."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from simenv import config
from simenv.cli.doctor.finding import DoctorFinding
from simenv.cli.output import terminal
from simenv.client.connection import address
from simenv.config import filesystems
from simenv.errors import NoServiceError

LEAST_FREE_BYTES = 2**30


def home() -> Iterator[DoctorFinding]:
    """Check that the journal is on a local file system with free space."""
    root = config.home_root()
    existing = next(path for path in (root, *root.parents) if path.exists())
    kind = filesystems.kind_of(existing)
    free = shutil.disk_usage(existing).free
    if filesystems.is_network(kind):
        live = config.places(config.Config()).state
        if live.is_relative_to(root):
            detail = f"{root} is on {kind}, where a journal is not safe; no local disk is set"
            yield DoctorFinding(
                "fail", "state", detail, "export SIMENV_SCRATCH=/a/folder/on/a/local/disk"
            )
        else:
            yield DoctorFinding(
                "ok", "state", f"{root} on {kind}; live journals go to {live.parent}"
            )
    elif free < LEAST_FREE_BYTES:
        yield DoctorFinding(
            "warn", "state", f"{root} has {terminal.size(free)} left", f"df -h {existing}"
        )
    else:
        yield DoctorFinding("ok", "state", f"{root} on {kind or 'an unknown file system'}")


def kernels() -> Iterator[DoctorFinding]:
    """Check the cache of compiled kernels."""
    folder = config.kernel_cache()
    kept = [path for path in folder.rglob("*/*") if path.is_file()] if folder.exists() else []
    if not kept:
        yield DoctorFinding("ok", "kernels", f"none in {folder}: the first start compiles them")
        return
    kept_bytes = sum(path.stat().st_size for path in kept)
    versions = [path for path in folder.iterdir() if path.is_dir()]
    detail = f"{terminal.size(kept_bytes)} for {len(versions)} version(s) in {folder}"
    if len(versions) > 8:
        yield DoctorFinding("warn", "kernels", detail, f"rm -r {folder}")
    else:
        yield DoctorFinding("ok", "kernels", detail)


def sockets() -> Iterator[DoctorFinding]:
    """Check that the folder of sockets is writable."""
    base = config.socket_base()
    if not os.access(base, os.W_OK | os.X_OK):
        yield DoctorFinding("fail", "sockets", f"{base} cannot be written", "export TMPDIR=/tmp")
    else:
        yield DoctorFinding("ok", "sockets", f"in {base}")


def connections() -> Iterator[DoctorFinding]:
    """Check for connection files of services that have ended."""
    stale = 0
    for path in sorted(config.home_root().glob("*/connection.json")):
        try:
            file = address.read(path)
        except NoServiceError as error:
            stale += 1
            yield DoctorFinding("warn", "environment", error.message, error.hint)
            continue
        if address.ended(file):
            stale += 1
            option = "" if file.name == "default" else f" --name {file.name}"
            detail = f"{file.name}: process {file.pid} is gone, its connection file is not"
            yield DoctorFinding("warn", "environment", detail, f"simenv up{option} --restore")
        else:
            yield DoctorFinding(
                "ok", "environment", f"{file.name}: process {file.pid} on {file.node}"
            )
    if not stale:
        yield DoctorFinding("ok", "environment", "no connection file without a service")


_FILES = (
    "server-key.json",
    "keys.json",
    "connection.json",
    "worker.json",
    "keys/*.simenv",
    "worker-keys/*.json",
)


def modes() -> Iterator[DoctorFinding]:
    """Check that no other user can open the files with keys or addresses.

    The files are those of each environment here, and the one that SIMENV_SERVICE names.
    """
    root = config.home_root()
    files = [path for name in _FILES for path in sorted(root.glob(f"*/{name}"))]
    named = config.service_file()
    if named is not None and named.exists() and named not in files:
        files.append(named)
    bad = [finding for path in files if (finding := _mode_finding(path)) is not None]
    yield from bad
    if not bad:
        count = f"{len(files)} file{'s' if len(files) != 1 else ''}"
        yield DoctorFinding("ok", "keys", f"{count} with keys or addresses, readable only by you")


def _mode_finding(path: Path) -> DoctorFinding | None:
    try:
        info = path.stat()
    except FileNotFoundError:  # file of a worker that has just ended
        return None
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.getuid():
        return DoctorFinding("fail", "keys", f"{path} belongs to user {info.st_uid}", f"rm {path}")
    if mode & 0o077:
        detail = f"{path} can be opened by others ({mode:04o})"
        return DoctorFinding("fail", "keys", detail, f"chmod 600 {path}")
    return None
