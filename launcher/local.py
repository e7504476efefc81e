"""The local launcher: workers are children of the service's main thread.

Each child is told the starter's pid and asks the kernel for a death signal itself (`lifeline`), so
that none outlives the service, however that ends. Must be used from the main thread: the death
signal follows the thread that started the child.
"""

from __future__ import annotations

import os
import signal
import subprocess

from launcher.base import Command, Exit, LaunchError

CLOSE_TIMEOUT_S = 5.0


class LocalLauncher:
    """Implements launcher.base.Launcher with plain subprocesses."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, command: Command) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            log = os.open(command.log, flags, 0o600)
        except OSError as error:
            raise LaunchError(f"cannot open {command.log}: {error.strerror}") from error
        try:
            child = subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(command.environ),
                cwd=command.cwd,
            )
        except OSError as error:
            raise LaunchError(f"cannot start {command.argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
        self._children[command.name] = child
        return child.pid

    def exited(self) -> list[Exit]:
        ends = []
        for name, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                del self._children[name]
                ends.append(Exit(name, child.pid, code, exit_words(code)))
        return ends

    def kill(self, name: str) -> None:
        child = self._children.get(name)
        if child is not None:
            child.kill()

    def terminate(self, name: str) -> None:
        child = self._children.get(name)
        if child is not None:
            child.terminate()

    def running(self) -> list[str]:
        return list(self._children)

    def close(self) -> None:
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()


def exit_words(code: int) -> str:
    """'exit 1', 'signal 9 (SIGKILL)'."""
    if code >= 0:
        return f"exit {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
