"""Where a service is: its connection file, followed when the service starts anew elsewhere.

Invariant: a connection file of somebody else, or one that others can write, is not believed.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Protocol

import msgspec

from simenv import config
from simenv.client.afar import KeyAddress, is_personal
from simenv.config import ConnectionFile
from simenv.errors import NoService, SimenvError
from simenv.wire.connection import Connection, ZmqConnection

FORMAT = 1
SERVICE = b"simenv.service"  # in the command line of every service
_READ = msgspec.json.Decoder(ConnectionFile).decode


class Address(Protocol):
    """How a link finds its service, and what it can tell of one that is silent."""

    name: str
    path: Path  # its connection file

    def open(self, identity: bytes) -> Connection:
        """A new connection; NoService when there is plainly nobody."""

    def moved(self) -> bool:
        """Does the service now listen elsewhere than where `open` went last?"""

    def refusal(self) -> SimenvError | None:
        """Why it is certain that this client is not let in, if it is."""

    def fate(self) -> tuple[str, str]:
        """What is known of a silent service, and the way out."""

    def door(self) -> tuple[str, str]:
        """Where the service listens for other machines, and its public key; "" if it does not."""


class FileAddress:
    """The address in a connection file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.parent.name
        self._file: ConnectionFile | None = None

    def open(self, identity: bytes) -> Connection:
        file = read(self.path)
        self.name = file.name
        if ended(file):
            self._file = file
            raise NoService(f"no service {file.name!r}: {self.fate()[0]}", hint=self.fate()[1])
        connection = ZmqConnection(Path(file.sockets) / "client.sock", identity)
        self._file = file
        return connection

    def moved(self) -> bool:
        try:
            file = read(self.path)
        except NoService:
            return False
        return self._file is not None and file.sockets != self._file.sockets and not ended(file)

    def refusal(self) -> SimenvError | None:
        return None

    def door(self) -> tuple[str, str]:
        file = self._file or read(self.path)
        return file.address, file.server_key

    def fate(self) -> tuple[str, str]:
        log = self.path.with_name("service.log")
        hint = f"see {log}{_last_words(log)}; start again: simenv up{_option(self.name)} --resume"
        file = self._file
        if file is None:
            return "it was never heard", hint
        state = "has ended" if ended(file) else "does not answer"
        try:
            age = f"; last sign of life {elapsed(time.time() - self.path.stat().st_mtime)} ago"
        except OSError:
            age = "; its connection file is gone"
        return f"process {file.pid} on {file.node} {state}{age}", hint


def find(name: str | None = None, file: Path | None = None) -> FileAddress | KeyAddress:
    """The address of an environment: `file`, else `name`, else SIMENV_SERVICE, else `default`."""
    path = file or (None if name else config.service_file())
    if path is None:
        path = config.home_root() / config.check_name(name or "default") / "connection.json"
    elif is_personal(path):
        return KeyAddress(path)
    return FileAddress(path)


def read(path: Path) -> ConnectionFile:
    """The connection file; NoService when there is none that can be believed."""
    try:
        with path.open("rb") as source:
            info = os.fstat(source.fileno())
            body = source.read(65_536)
    except FileNotFoundError as error:
        name = path.parent.name
        if path != config.home_root() / name / "connection.json":
            hint = "its service has ended, or it is another file: simenv up names it as key"
            raise NoService(f"there is no connection file {path}", hint=hint) from error
        raise NoService(
            f"no environment {name!r} is up (there is no {path})",
            hint=f"start one: simenv up{_option(name)}",
        ) from error
    except OSError as error:
        raise NoService(f"cannot read {path}: {error.strerror}") from error
    if info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoService(
            f"{path} belongs to someone else or can be written by others: not believed",
            hint=f"chmod 600 {path}, or start your own: simenv up",
        )
    try:
        file = _READ(body)
    except msgspec.MsgspecError as error:
        raise NoService(f"{path} is not a connection file: {error}") from error
    if file.format != FORMAT:
        raise NoService(
            f"{path} has format {file.format} (simenv {file.version}), this client reads {FORMAT}",
            hint="use one version of simenv on both sides",
        )
    return file


def ended(file: ConnectionFile) -> bool:
    """Is the service's process surely gone? Never sure of another node's."""
    return file.node == os.uname().nodename and not runs(file.pid, SERVICE)


def runs(pid: int, words: bytes, *, ending: bool = False) -> bool:
    """Does `pid` run, with `words` in its command line (where /proc can tell)?

    `ending`: a process that is just being taken apart, and has no command line any more, counts.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return not Path("/proc/self").exists()
    return state not in ("Z", "X") and (words in line or (ending and not line))


def elapsed(seconds: float) -> str:
    """M:SS, H:MM:SS or D-HH:MM:SS."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}-{hour:02}:{minute:02}:{second:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def last_lines(log: Path, count: int = 1) -> list[str]:
    """The last non-empty lines of a log, control characters made visible; [] without one."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - 16_384))
            text = source.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines[-count:]]


def _last_words(log: Path) -> str:
    lines = last_lines(log)
    return f" (last line: {lines[0][:200]})" if lines else ""


def _option(name: str) -> str:
    return "" if name == "default" else f" --name {name}"
