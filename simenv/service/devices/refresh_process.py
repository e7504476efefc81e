"""Refresh of one device: run the site's command, import what it prints, store it.

    python -P -m simenv.service.devices.refresh_process NAME FOLDER

The settings come as JSON on stdin, the outcome goes to stdout as JSON. The command is a program
without a shell, in a process group of its own. Invariants: neither it nor what it has started
outlives this process; it is bounded in time, memory and output; it reads the files of the system
and those that its words name, and writes none (where the kernel has Landlock); the device's file is
replaced by rename, after the whole import, or not at all. One refresh runs at a time in a folder of
devices.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from launcher.process import confinement
from launcher.process.children import descendants
from noise_models import library
from noise_models.importers import ReportLine, import_snapshot
from noise_models.snapshot import dump
from noise_models.strict_json import NoiseError
from simenv import files
from simenv.config.model import DeviceSettings
from simenv.config.paths import passed_environ, worker_environ
from simenv.errors import ConfigError, InsufficientError, SimenvError
from simenv.model.views import date_name
from simenv.process import die_with_parent
from simenv.service.devices.refresh import Refresh, read_record, record_path
from simenv.service.devices.registry import MAX_FILE_BYTES

KEPT = 64  # dated snapshots of a device; older ones are removed
MEMORY_BYTES = 4 * 2**30  # of the command and of the import, each
OUTPUT_BYTES = 64 * 2**20
ERROR_CHARS = 500
_MOST_LINES = 12  # of what the device does not have
_POLL_S = 0.05
_KILLS = 20  # passes over the descendants of a command, which may start others meanwhile
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
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
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [program, *settings.refresh[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd="/",
            env=environ,
            process_group=0,
            preexec_fn=partial(_confine, os.getpid(), _readable([program, *settings.refresh[1:]])),
        )
        try:
            problem = _end(process, settings.timeout_s, (out, err))
        finally:
            _kill(process)
        if problem:
            raise ConfigError(f"{subject} {problem}", hint=_tail(err, settings, environ))
        out.seek(0)
        return out.read(OUTPUT_BYTES)


def _end(process: subprocess.Popen[bytes], timeout_s: float, streams: Sequence[IO[bytes]]) -> str:
    """Wait for the end of the command; return the reason why its output is not used, or ""."""
    deadline_s = time.monotonic() + timeout_s
    while (code := process.poll()) is None:
        if time.monotonic() > deadline_s:
            return f"did not end within timeout_s = {timeout_s:g}"
        time.sleep(_POLL_S)
    is_full = any(os.fstat(each.fileno()).st_size >= OUTPUT_BYTES for each in streams)
    if code == -signal.SIGXFSZ or is_full:
        return f"printed more than {OUTPUT_BYTES} bytes"
    return (
        "" if not code else f"ended with {f'exit code {code}' if code > 0 else f'signal {-code}'}"
    )


def _confine(parent: int, readable: Iterable[Path]) -> None:
    """Bound the command's process, before its program begins."""
    die_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
    confinement.forbid_core_dumps()
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


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command's group, and processes that it has moved to others."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(_KILLS):
        remaining = descendants(os.getpid())
        for pid in remaining:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not remaining:
            return
        time.sleep(_POLL_S)


def _tail(err: IO[bytes], settings: DeviceSettings, environ: Mapping[str, str]) -> str:
    """Return the end of the command's error output, without values of passed variables."""
    size = err.seek(0, os.SEEK_END)
    err.seek(max(0, size - 4 * ERROR_CHARS))
    text = err.read().decode("utf-8", "replace")
    for name, value in passed_environ(environ, settings.environ).items():
        text = text.replace(value, f"${name}") if value else text
    words = " ".join(text.split())[-ERROR_CHARS:]
    return f"it said: {words}" if words else "it said nothing"


def main() -> int:
    name, folder = sys.argv[1], Path(sys.argv[2])
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=DeviceSettings)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    if sys.platform.startswith("linux"):  # processes of the command whose parent has ended
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        outcome = refresh(folder, name, settings)
    except SimenvError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
