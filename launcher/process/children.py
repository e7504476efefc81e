"""A table of child processes: started, seen to end, signalled, ended. For launchers, main thread.

Invariant: a process is signalled only while it has not been reaped, so never by a number that has
come to mean another process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.base import Command, Exit, LaunchError, News

CLOSE_TIMEOUT_S = 5.0
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

# A child's exit code -> the worker's, in words, and whether it is blameless (see Exit).
Tell = Callable[[int], tuple[int, str, bool]]


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    start: int
    process: subprocess.Popen[bytes]
    leads: bool  # a process group, and what it has started
    tell: Tell


class Children:
    """Every child has a worker's name and start; several may run under one name."""

    def __init__(self) -> None:
        self._children: list[_Child] = []

    def start(
        self,
        command: Command,
        argv: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        *,
        leads: bool = False,
        tell: Tell | None = None,
    ) -> int:
        """Start `argv` (the command's own by default) for the command's worker; its pid.

        `leads`: in a process group of its own; kill ends all that it has started. LaunchError.
        """
        argv = argv or command.argv
        try:
            log = os.open(command.log, _LOG_FLAGS, 0o600)
        except OSError as error:
            raise LaunchError(f"cannot open {command.log}: {error.strerror}") from error
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(command.environ if environ is None else environ),
                cwd=command.cwd,
                process_group=0 if leads else None,
            )
        except OSError as error:
            raise LaunchError(f"cannot start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
        child = _Child(command.name, command.start, process, leads, tell or _as_it_is)
        self._children.append(child)
        return process.pid

    def exited(self) -> list[Exit]:
        ends = []
        for child in list(self._children):
            code = child.process.poll()
            if code is not None:
                self._children.remove(child)
                told, words, blameless = child.tell(code)
                pid = child.process.pid
                ends.append(Exit(child.name, pid, told, words, child.start, blameless))
        return ends

    def running(self) -> list[str]:
        return [child.name for child in self._children]

    def terminate(self, name: str) -> None:
        for child in self._named(name):
            child.process.terminate()

    def kill(self, name: str) -> None:
        for child in self._named(name):
            _kill(child)

    def close(self) -> None:
        """SIGTERM to all; SIGKILL to those that have not ended within CLOSE_TIMEOUT_S."""
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for child in self._children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill(child)
                child.process.wait()
        self._children.clear()

    def _named(self, name: str) -> list[_Child]:
        return [child for child in self._children if child.name == name]


class OfChildren:
    """What launchers whose workers are child processes have in common: all but how they start."""

    exposure = ""

    def __init__(self) -> None:
        self._children = Children()

    def exited(self) -> list[Exit]:
        return self._children.exited()

    def news(self) -> list[News]:
        return []

    def look(self, node: str) -> bool:  # noqa: ARG002 - nothing is known of nodes here
        return False

    def kill(self, name: str) -> None:
        self._children.kill(name)

    def terminate(self, name: str) -> None:
        self._children.terminate(name)

    def running(self) -> list[str]:
        return self._children.running()

    def close(self) -> None:
        self._children.close()


def exit_words(code: int) -> str:
    """'exit 1', 'signal 9 (SIGKILL)'."""
    if code >= 0:
        return f"exit {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def _as_it_is(code: int) -> tuple[int, str, bool]:
    return code, exit_words(code), False


def _kill(child: _Child) -> None:
    if child.process.poll() is not None:
        return
    if not child.leads:
        child.process.kill()
        return
    below = descendants(child.process.pid)  # mpirun gives each rank a group of its own
    os.killpg(child.process.pid, signal.SIGKILL)
    for pid in below:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, nearest first; [] where /proc does not tell."""
    found = [pid]
    for one in found:
        for listed in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(word) for word in listed.read_text().split()]
    return found[1:]
