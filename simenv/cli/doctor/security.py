"""Checks of the promises of docs/guides/security.md against other users of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from launcher.allocation.discover import discover
from launcher.base import AllocationError
from launcher.probe_cache import mpi4py_version
from launcher.process import network_namespace
from launcher.prte import installation
from simenv import config, files
from simenv.cli.doctor.finding import DoctorFinding
from simenv.cli.output import terminal
from simenv.client.connection import address
from simenv.errors import ConfigError, NoServiceError
from simenv.wire.transport.zmq_transport import CLIENT_SOCKET, PREVIOUS_CLIENT_SOCKET, WORKER_SOCKET

_SOCKETS = (PREVIOUS_CLIENT_SOCKET, CLIENT_SOCKET, WORKER_SOCKET)


def folders() -> Iterator[DoctorFinding]:
    """Check that nobody else can write a folder that simenv reads, or a folder above it."""
    results = [path for path in _folders() if path.exists()]
    bad = [finding for path in results if (finding := _folder_finding(path)) is not None]
    yield from dict.fromkeys(bad)  # several folders may share the weakness of one above them
    if not bad:
        count = terminal.counted(len(results), "folder")
        yield DoctorFinding("ok", "folders", f"{count}: nobody else can write them or those above")


def kernels() -> Iterator[DoctorFinding]:
    """Check that nobody else can write compiled kernels, which are loaded as code."""
    folder = config.kernel_cache()
    result = files.weakness(folder) if folder.exists() else None
    if result is None:
        yield DoctorFinding("ok", "kernels", f"nobody else can write {folder}")
        return
    level, why = result
    remedy = f"rm -r {folder}" if level == folder else "export SIMENV_KERNELS=/a/folder/of/yours"
    yield DoctorFinding("fail", "kernels", f"{level} {why}: its code would run as you", remedy)


def sockets() -> Iterator[DoctorFinding]:
    """Check that only this user can connect to the sockets of environments on this machine."""
    checked = 0
    for path in sorted(config.home_root().glob("*/connection.json")):
        try:
            file = address.read(path)
        except NoServiceError:
            continue  # reported by `folders.connections`
        if file.node != os.uname().nodename or address.ended(file):
            continue
        checked += 1
        why = _open_socket(Path(file.sockets))
        if why:
            remedy = f"simenv down --name {file.name}; simenv up --name {file.name} --restore"
            yield DoctorFinding("fail", "sockets", f"of {file.name}: {why}", remedy)
            return
    yield DoctorFinding(
        "ok", "sockets", f"of {terminal.counted(checked, 'environment')}: this user's alone"
    )


def launchers() -> Iterator[DoctorFinding]:
    """Check whether other users can run programs through the launcher of workers of several
    ranks."""
    if not mpi4py_version():
        yield DoctorFinding("ok", "isolation", "no MPI: workers of one rank listen on no port")
        return
    try:
        nodes = [node.name for node in discover(os.environ).nodes]
    except AllocationError:  # reported by `launchers.nodes`
        nodes = [os.uname().nodename]
    prte = installation.find(os.environ)
    library = prte.library if isinstance(prte, installation.Prte) else None
    exposure = network_namespace.exposure(nodes, os.environ, library)
    others = len(network_namespace.other_users())
    present = f"{terminal.counted(others, 'other user')} here now"
    if not exposure:
        detail = "other users cannot reach the launcher of MPI"
        yield DoctorFinding("ok", "isolation", f"{detail}; {present}")
    elif others or len(nodes) > 1:
        detail = f"other users can run programs as you through the launcher of MPI: {exposure}"
        remedy = "simenv up --launcher local, or see docs/guides/security.md"
        yield DoctorFinding("warn", "isolation", f"{detail}; {present}", remedy)
    else:
        yield DoctorFinding(
            "ok", "isolation", f"{present}; other users could reach the launcher of MPI: {exposure}"
        )


def _folders() -> Iterator[Path]:
    root = config.home_root()
    yield root
    for file in sorted(root.glob("*/config.json")):
        yield file.parent
        try:
            where = config.places(config.read(file))
        except ConfigError:
            continue
        yield from (where.state, where.logs, where.results, where.home / "results")
        yield where.home / "keys"


def _folder_finding(folder: Path) -> DoctorFinding | None:
    result = files.weakness(folder)
    if result is not None:
        level, why = result
        remedy = f"chmod 700 {level}" if "written" in why else "export SIMENV_HOME=$HOME/.simenv"
        return DoctorFinding("fail", "folders", f"{level} {why}", remedy)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077 and folder != config.home_root():
        detail = f"{folder} can be read by others (mode {mode:04o})"
        return DoctorFinding("warn", "folders", detail, f"chmod 700 {folder}")
    return None


def _open_socket(folder: Path) -> str:
    """Return why other users could connect, or listen in the service's place; "" if they cannot."""
    result = files.weakness(folder)
    if result is not None:
        return f"{result[0]} {result[1]}"
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return f"{folder} can be entered by others"
    for name in _SOCKETS:
        try:
            info = (folder / name).lstat()
        except OSError as error:
            return f"{folder / name}: {error.strerror}"
        if info.st_uid != os.geteuid():
            return f"{folder / name} belongs to user {info.st_uid}"
    return ""
