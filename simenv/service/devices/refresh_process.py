"""Refresh of one device: run the site's command, import what it prints, store it.

    python -P -m simenv.service.devices.refresh_process NAME FOLDER

The settings come as JSON in a frame, and so goes the outcome. The command is a program
without a shell, in a process group of its own. Invariants: neither it nor what it has started
outlives the refresh; when this process is killed alone, the kernel kills the command, but not what
the command has started: `sandbox.child.Child.end` kills them all. It is bounded in time, memory and
output; it reads the files of the system
and those that its words name, and writes none (where the kernel has Landlock); the device's file is
replaced by rename, after the whole import, or not at all. One refresh runs at a time in a folder of
devices.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from noise_models import library
from noise_models.importers import ReportLine, import_snapshot
from noise_models.snapshot import dump
from noise_models.strict_json import NoiseError
from simenv import files
from simenv.config.model import DeviceSettings
from simenv.config.paths import passed_environ, worker_environ
from simenv.errors import ConfigError, InsufficientError, SimenvError
from simenv.model.devices import date_name
from simenv.sandbox import confinement, die_with_parent
from simenv.sandbox.limits import limit_process
from simenv.sandbox.parent import ParentChannel
from simenv.sandbox.process_tree import adopt_orphans, kill_orphans
from simenv.sandbox.program import OutputLimitError, last_text, run_program
from simenv.service.devices.refresh import Refresh, read_record, record_path
from simenv.service.devices.registry import MAX_FILE_BYTES

KEPT = 64  # dated snapshots of a device; older ones are removed
MEMORY_BYTES = 4 * 2**30  # of the command and of the import, each
OUTPUT_BYTES = 64 * 2**20
ERROR_CHARS = 500
_MOST_LINES = 12  # of what the device does not have
_OF_PREFIX = ("bin", "lib", "lib64", "pyvenv.cfg")
_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ca-certificates", "/etc/pki")


def refresh(folder: Path, name: str, settings: DeviceSettings) -> Refresh:
    """Refresh a device, and record and return the outcome. Raises InsufficientError if another
    refresh runs in this folder, ConfigError if the folder cannot be used."""
    files.private_folder(folder)
    with _locked(folder):
        before = read_record(folder, name) or Refresh(0.0)
        try:
            outcome = _renewed(folder, name, settings, _printed(settings))
        except (SimenvError, NoiseError) as error:
            outcome = msgspec.structs.replace(
                before, at_s=time.time(), error=error.message, hint=error.hint, changed=False
            )
        except (MemoryError, OSError) as error:
            text = "the import ran out of memory" if isinstance(error, MemoryError) else str(error)
            outcome = msgspec.structs.replace(before, at_s=time.time(), error=text, changed=False)
        files.write_atomic(record_path(folder, name), msgspec.json.encode(outcome))
        return outcome


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".refresh.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"another refresh of a device in {folder} is under way"
            raise InsufficientError(text, hint="try again when it has ended") from error
        yield


def _renewed(folder: Path, name: str, settings: DeviceSettings, data: bytes) -> Refresh:
    """Import the data and store the device. Raises NoiseError, ConfigError."""
    if name in library.BUNDLED:
        raise ConfigError(f"{name} is the name of a bundled profile", hint="choose another name")
    snapshot, report = import_snapshot(
        {name: data}, settings.format, allow_ignored=settings.allow_ignored
    )
    if any(line.field == "name" for line in report.defaulted):
        snapshot = msgspec.structs.replace(snapshot, name=name)
    body = dump(snapshot)
    if len(body) > MAX_FILE_BYTES:
        text = f"a snapshot of {len(body)} bytes; an environment reads {MAX_FILE_BYTES}"
        raise ConfigError(text, hint="print the data of one device")
    now_s, path = time.time(), folder / f"{name}.json"
    changed = not path.exists() or path.read_bytes() != body
    if changed:
        series = files.private_folder(folder / f"{name}.d")
        files.write_atomic(series / f"{date_name(now_s)}.json", body, sync=True)
        for old in sorted(series.glob("*Z.json"))[:-KEPT]:
            old.unlink()
        path.with_suffix(".h5").unlink(missing_ok=True)  # a fit of the earlier data
        files.write_atomic(path, body, sync=True)
    return Refresh(
        now_s,
        renewed_s=now_s,
        digest=snapshot.digest.hex(),
        changed=changed,
        num_qubits=snapshot.num_qubits,
        used=_values(report.used),
        ignored=_values(report.ignored),
        defaulted=_values(report.defaulted),
        clamped=_values(report.clamped),
        missing=tuple(f"{line.field}: {line.note}" for line in report.missing[:_MOST_LINES]),
    )


def _values(lines: Iterable[ReportLine]) -> int:
    return sum(line.count for line in lines)


def _printed(settings: DeviceSettings) -> bytes:
    """Run the command; return its standard output. Raises ConfigError."""
    program = shutil.which(settings.refresh[0])
    subject = f"refresh command {Path(settings.refresh[0]).name!r}"
    if program is None:
        text = f"{subject} is not on this node ({os.uname().nodename})"
        raise ConfigError(text, hint="give its path")
    environ = {
        key: value for key, value in worker_environ(os.environ) if not key.startswith("SIMENV_")
    } | passed_environ(os.environ, settings.environ)
    deadline_s = time.monotonic() + settings.timeout_s
    argv = [program, *settings.refresh[1:]]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            code = run_program(
                argv,
                (out, err),
                OUTPUT_BYTES,
                environ=environ,
                cwd="/",
                check=partial(_check_time, deadline_s),
                before_exec=partial(_confine, os.getpid(), _readable(argv)),
            )
            problem = f"ended with {f'exit code {code}' if code > 0 else f'signal {-code}'}"
        except TimeoutError:
            code, problem = 1, f"did not end within timeout_s = {settings.timeout_s:g}"
        except OutputLimitError:
            code, problem = 1, f"printed more than {OUTPUT_BYTES} bytes"
        finally:
            kill_orphans()
        if code:
            raise ConfigError(f"{subject} {problem}", hint=_tail(err, settings, environ))
        out.seek(0)
        data = out.read(OUTPUT_BYTES + 1)
        if len(data) > OUTPUT_BYTES:  # of a process that runs on: `kill_orphans` has its limits
            raise ConfigError(f"{subject} printed more than {OUTPUT_BYTES} bytes")
        return data


def _check_time(deadline_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise TimeoutError


def _confine(parent: int, readable: Iterable[Path]) -> None:
    """Bound the command's process, before its program begins."""
    die_with_parent.bind_to_parent(parent)
    limit_process(data_bytes=MEMORY_BYTES, file_bytes=OUTPUT_BYTES + 1)
    if confinement.landlock_abi():
        confinement.restrict_files(confinement.FileRules(tuple(readable)).with_system, None)


def _readable(argv: Sequence[str]) -> list[Path]:
    """Files beside those of the system: what the words of the command name, and the libraries next
    to its program, or to the interpreter of its virtual environment."""
    program = Path(argv[0])
    programs = {
        each for path in (program, program.with_name("python")) for each in (path, path.resolve())
    }
    prefixes = {each.parents[1] for each in programs if each.parent.name == "bin"}
    libraries = [each / name for each in prefixes for name in _OF_PREFIX]
    named = [Path(word) for word in argv if word.startswith("/") and word.strip("/")]
    return [*map(Path, _NETWORK_FILES), *named, *libraries]


def _tail(err: IO[bytes], settings: DeviceSettings, environ: Mapping[str, str]) -> str:
    """Return the end of the command's error output, without values of passed variables."""
    text = last_text(err, 4 * ERROR_CHARS)
    for name, value in passed_environ(environ, settings.environ).items():
        text = text.replace(value, f"${name}") if value else text
    words = " ".join(text.split())[-ERROR_CHARS:]
    return f"it said: {words}" if words else "it said nothing"


def main() -> int:
    name, folder = sys.argv[1], Path(sys.argv[2])
    channel = ParentChannel()
    body = channel.receive()
    if body is None:  # the parent process has ended
        return 1
    settings = msgspec.json.decode(body, type=DeviceSettings)
    limit_process(data_bytes=MEMORY_BYTES)
    adopt_orphans()  # of the command
    try:
        outcome = refresh(folder, name, settings)
    except SimenvError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    channel.send(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
