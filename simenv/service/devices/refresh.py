"""Refreshes of devices at their times: one process after the other, and what came of them.

Invariant: outcomes are read from the records that `refresh_process` writes, so that those of the
command line, of another environment and of an earlier start of the service count as well. Used from
the loop's thread.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from simenv.config.model import DeviceSettings
from simenv.config.paths import passed_environ, worker_environ
from simenv.errors import DECODE_ERRORS, ConfigError, InsufficientError
from simenv.sandbox import die_with_parent
from simenv.sandbox.child import Child
from simenv.sandbox.frames import FrameError
from simenv.sandbox.program import last_text
from simenv.scheduler.core import RecordEvent
from simenv.text import duration

LOOK_S = 1.0
RETRY_S = 600.0  # after a failure, if `every_h` is not shorter
GRACE_S = 30.0  # for the import, above the time of the command
REFRESHED, FAILED = "device.refreshed", "device.refresh_failed"

RECORD_FORMAT = 1
ERROR_BYTES = 4_096  # of what a refresh said, in an error
_MOST_BYTES = 2**20  # of an outcome
_LOG = 2  # error output of the service


class Refresh(msgspec.Struct, frozen=True):
    """Outcome of the last refresh of a device: what `NAME.refresh` in the folder of devices has.
    `at_s`, `renewed_s`: when it ended, and when the last one that succeeded did, in seconds since
    1970; 0: none did. `error`: why it failed; "": it succeeded."""

    at_s: float
    error: str = ""
    hint: str = ""
    renewed_s: float = 0.0
    digest: str = ""  # of the snapshot, hexadecimal
    changed: bool = False  # the snapshot is another one than before
    num_qubits: int = 0
    used: int = 0  # values of the data, as in the report of an import
    ignored: int = 0
    defaulted: int = 0
    clamped: int = 0
    missing: tuple[str, ...] = ()  # first lines of what the device does not have
    format: int = RECORD_FORMAT


def record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.refresh"


def read_record(folder: Path, name: str) -> Refresh | None:
    """Return the outcome of a device's last refresh; None if there is none that can be read."""
    with suppress(OSError, *DECODE_ERRORS):
        found = msgspec.json.decode(record_path(folder, name).read_bytes(), type=Refresh)
        return found if found.format == RECORD_FORMAT else None
    return None


def command_line(name: str, folder: Path) -> list[str]:
    """Return the command line of the process that refreshes a device. It ends with the calling
    thread, which has to be the main one."""
    module = "simenv.service.devices.refresh_process"
    argv = [sys.executable, "-P", "-m", module, name, str(folder)]
    return die_with_parent.command_line(os.getpid(), argv)


def start(
    name: str, folder: Path, settings: DeviceSettings, environ: Mapping[str, str], log: int
) -> Child:
    """Start the process that refreshes a device, and answers with its outcome. Raises OSError."""
    argv = command_line(name, folder)
    child = Child(argv, environ, log, most_bytes=_MOST_BYTES, cwd="/")
    child.send(msgspec.json.encode(settings))
    return child


def refresh_now(name: str, folder: Path, settings: DeviceSettings) -> Refresh:
    """Refresh a device, and wait for the outcome. Raises ConfigError with what the process said if
    it ends without one."""
    limit_s = settings.timeout_s + GRACE_S
    with tempfile.TemporaryFile() as log:
        child = start(name, folder, settings, os.environ, log.fileno())
        try:
            return msgspec.json.decode(child.receive(limit_s), type=Refresh)
        except FrameError as error:
            child.end(GRACE_S)
            reason = last_text(log, ERROR_BYTES) or "it said nothing"
            text = f"the refresh ended with exit code {child.poll()}: {reason}"
            raise ConfigError(text) from error
        except TimeoutError as error:
            raise ConfigError(f"the refresh did not end within {limit_s:g} s") from error
        finally:
            child.end()


class DeviceRefreshes:
    """Refreshes of the devices of one configuration."""

    def __init__(
        self, devices: Mapping[str, DeviceSettings], folder: Path, environ: Mapping[str, str]
    ) -> None:
        self._devices = {name: each for name, each in devices.items() if each.refresh}
        self._folder = folder
        self._base = dict(worker_environ(environ))
        # Variables that the command of a device reads, which no other process gets.
        self.passed = {
            name: passed_environ(environ, each.environ) for name, each in self._devices.items()
        }
        self._records: dict[str, Refresh | None] = {
            name: read_record(folder, name) for name in self._devices
        }
        self._versions: dict[str, int] = {name: self._version(name) for name in self._devices}
        self._broken: dict[str, tuple[float, str]] = {}  # wall clock and reason: without a record
        self._running: tuple[str, Child, float] | None = None
        self._next_s = 0.0

    def tick(self, now_s: float) -> Iterator[RecordEvent]:
        """Start the refresh that is due, and yield events of those that have ended. `now_s`:
        monotonic."""
        if now_s < self._next_s or not self._devices:
            return
        self._next_s = now_s + LOOK_S
        if self._running is not None:
            yield from self._look(*self._running, now_s)
        for name in self._devices:
            version = self._version(name)
            if version != self._versions[name]:
                self._versions[name], record = version, read_record(self._folder, name)
                self._records[name] = record
                if record is not None:
                    self._broken.pop(name, None)
                    yield _event(name, record)
        if self._running is None:
            due = [name for name in self._devices if self.due_s(name) <= time.time()]
            if due:
                self._start(min(due, key=self.due_s), now_s)

    def due_s(self, name: str) -> float:
        """Return the time of a device's next refresh, in seconds since 1970."""
        period_s, record = 3600.0 * self._devices[name].every_h, self._records[name]
        last_s, failed = (0.0, False) if record is None else (record.at_s, bool(record.error))
        if name in self._broken:
            last_s, failed = self._broken[name][0], True
        return last_s + (min(period_s, RETRY_S) if failed else period_s)

    def problems(self) -> list[str]:
        """Return a text for each device whose last refresh has failed."""
        results = []
        for name, record in self._records.items():
            reason = self._broken[name][1] if name in self._broken else ""
            reason = reason or (record.error if record is not None else "")
            if reason:
                renewed_s = record.renewed_s if record is not None else 0.0
                since = (
                    f"is from {duration(time.time() - renewed_s)} ago" if renewed_s else "is kept"
                )
                results.append(f"device {name}: its calibration {since}: {reason}")
        return results

    def close(self) -> None:
        """End a refresh that is under way."""
        if self._running is not None:
            self._running[1].end()
            self._running = None

    def _start(self, name: str, now_s: float) -> None:
        settings = self._devices[name]
        environ = {**self._base, **self.passed[name]}
        try:
            child = start(name, self._folder, settings, environ, _LOG)
        except OSError as error:
            self._broken[name] = time.time(), f"the refresh cannot be started: {error.strerror}"
            return
        self._running = name, child, now_s + settings.timeout_s + GRACE_S

    def _look(
        self, name: str, child: Child, deadline_s: float, now_s: float
    ) -> Iterator[RecordEvent]:
        """Yield an event if a refresh has ended without a record."""
        with suppress(FrameError):
            child.received()  # the record has the same
        code, reason = child.poll(), ""
        if code is None:
            if now_s > deadline_s:
                child.kill_tree()
            return
        child.end()
        self._running = None
        if code and code != InsufficientError.exit_code:  # that code: another one is under way
            cause = f"signal {-code}" if code < 0 else f"exit code {code}, see the service's log"
            reason = f"the refresh ended with {cause}"
            yield RecordEvent(FAILED, name, reason)
        if code:
            self._broken[name] = time.time(), reason

    def _version(self, name: str) -> int:
        try:
            return record_path(self._folder, name).stat().st_mtime_ns
        except OSError:
            return 0


def _event(name: str, record: Refresh) -> RecordEvent:
    if record.error:
        text = f"{record.error}; {record.hint}" if record.hint else record.error
        return RecordEvent(FAILED, name, text)
    state = "changed" if record.changed else "unchanged"
    return RecordEvent(
        REFRESHED,
        name,
        f"{state}, {record.digest[:12]}, {record.num_qubits} qubits;"
        f" {f'lacks {record.missing[0]}; ' if record.missing else ''}values used {record.used},"
        f" ignored {record.ignored}, defaulted {record.defaulted}, clamped {record.clamped}",
    )
