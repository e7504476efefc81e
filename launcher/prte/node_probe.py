"""Which nodes answer: `true` is run on each through the agent, all at once, and nobody waits."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from launcher.process.agent import reach

TIMEOUT_S = 3.0
_WORDS = 160  # of what an agent said


class Probes:
    """One look at some nodes. `looked` says when all are known."""

    def __init__(
        self, nodes: Sequence[str], environ: Mapping[str, str], agent: str, now: float
    ) -> None:
        self._until = now + TIMEOUT_S
        self._asked: dict[str, subprocess.Popen[bytes]] = {}
        self.silent: dict[str, str] = {}  # node: why
        self.answered: list[str] = []
        for node in nodes:
            self._ask(node, environ, agent)

    def looked(self, now: float) -> bool:
        for node, process in list(self._asked.items()):
            code = process.poll()
            if code is None and now < self._until:
                continue
            del self._asked[node]
            if code == 0:
                self.answered.append(node)
            else:
                self.silent[node] = _why(process, code)
            _forget(process)
        return not self._asked

    def close(self) -> None:
        for process in self._asked.values():
            _forget(process)
        self._asked.clear()

    def _ask(self, node: str, environ: Mapping[str, str], agent: str) -> None:
        argv = reach(node, ["true"], environ, agent)
        try:
            self._asked[node] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=dict(environ),
                start_new_session=True,
            )
        except OSError as error:
            self.silent[node] = f"cannot start {argv[0]}: {error.strerror}"


def _why(process: subprocess.Popen[bytes], code: int | None) -> str:
    if code is None:
        return f"no answer in {TIMEOUT_S:g} s"
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)  # a child of the agent may hold it open
    said = process.stderr.read() or b""
    words = " ".join(said.decode("utf-8", "replace").split())[:_WORDS]
    return words or f"exit {code}"


def _forget(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    if process.stderr is not None:
        process.stderr.close()
