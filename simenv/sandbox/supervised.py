"""Processes without frames that run as long as their parent: they are started again when they end.

Invariants: the pause before a start grows while the process ends soon; from its start on, before
its first import, it ends with the thread that started it, from which it is used.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from simenv.sandbox import die_with_parent
from simenv.sandbox.process_tree import register

RESTART_S, MAX_RESTART_S = 1.0, 60.0  # between two starts
SOON_S = 20.0  # a process that lived for less has failed
END_S = 5.0


class SupervisedProcess:
    """A module that runs as `python -P -m MODULE ARGUMENTS`."""

    def __init__(
        self,
        title: str,
        module: str,
        environ: Mapping[str, str],
        inputs: Callable[[], tuple[Sequence[str], Sequence[int]]],
        log: logging.Logger,
    ) -> None:
        """`title`: for the log. `inputs`: returns the arguments of the next start, and the
        descriptors that the process inherits."""
        self.process: subprocess.Popen[bytes] | None = None
        self._title = title
        self._argv = [sys.executable, "-P", "-m", module]
        self._environ = dict(environ)
        self._inputs = inputs
        self._log = log
        self._started_s = 0.0
        self._pause_s = RESTART_S

    def start(self) -> None:
        """Start the process."""
        self._started_s = time.monotonic()
        arguments, descriptors = self._inputs()
        try:
            self.process = subprocess.Popen(
                die_with_parent.command_line(os.getpid(), [*self._argv, *arguments]),
                stdin=subprocess.DEVNULL,
                cwd="/",
                env=self._environ,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            self._log.error("the %s cannot be started: %s", self._title, error)
        else:
            register(self.process)

    def keep(self) -> None:
        """Start the process again if it has ended."""
        age_s = time.monotonic() - self._started_s
        running = self.process is not None and self.process.poll() is None
        if running or age_s < self._pause_s:
            if age_s >= SOON_S:
                self._pause_s = RESTART_S
            return
        if age_s < SOON_S + self._pause_s:
            self._pause_s = min(MAX_RESTART_S, 2 * self._pause_s)
        self._log.warning("the %s has ended; it is started again", self._title)
        self.start()

    def end(self) -> None:
        """End the process: SIGTERM, then SIGKILL after END_S."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
