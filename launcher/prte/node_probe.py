"""Probe of the reachability of nodes: `true` is run through the agent on all at once, without
blocking."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from launcher.process.agent import remote_command

TIMEOUT_S = 3.0
_MAX_CHARS = 160  # of an agent's output


class NodeProbe:
    """One probe of some nodes. It is complete when `poll` returns True."""

    def __init__(
        self, nodes: Sequence[str], environ: Mapping[str, str], agent: str, now: float
    ) -> None:
        self._deadline = now + TIMEOUT_S
        self._pending: dict[str, subprocess.Popen[bytes]] = {}
        self.unreachable: dict[str, str] = {}  # node: reason
        self.reachable: list[str] = []
        for node in nodes:
            self._start(node, environ, agent)

    def poll(self, now: float) -> bool:
        """Return whether the state of every node is known."""
        for node, process in list(self._pending.items()):
            code = process.poll()
            if code is None and now < self._deadline:
                continue
            del self._pending[node]
            if code == 0:
                self.reachable.append(node)
            else:
                self.unreachable[node] = _failure(process, code)
            _kill(process)
        return not self._pending

    def close(self) -> None:
        for process in self._pending.values():
            _kill(process)
        self._pending.clear()

    def _start(self, node: str, environ: Mapping[str, str], agent: str) -> None:
        argv = remote_command(node, ["true"], environ, agent)
        try:
            self._pending[node] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=dict(environ),
                start_new_session=True,
            )
        except OSError as error:
            self.unreachable[node] = f"cannot start {argv[0]}: {error.strerror}"


def _failure(process: subprocess.Popen[bytes], code: int | None) -> str:
    if code is None:
        return f"no answer in {TIMEOUT_S:g} s"
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)  # a child of the agent may hold it open
    output = process.stderr.read() or b""
    message = " ".join(output.decode("utf-8", "replace").split())[:_MAX_CHARS]
    return message or f"exit {code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    if process.stderr is not None:
        process.stderr.close()
