"""Outage of a plugin's backend, by commands that the user supplies."""

from __future__ import annotations

import shlex
import subprocess

from simenv.qpm_check.contract.outcomes import CheckFailed

LIMIT_S = 120.0


class Commands:
    """A `target.Outage` of two commands. Each runs to its end, without a shell; CheckFailed if it
    fails."""

    def __init__(self, kill: str, start: str) -> None:
        self._kill, self._start = kill, start

    def begin(self) -> None:
        _run(self._kill)

    def end(self) -> None:
        _run(self._start)


def _run(command: str) -> None:
    try:
        done = subprocess.run(
            shlex.split(command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CheckFailed(f"{command}: {error}") from error
    if done.returncode != 0:
        raise CheckFailed(f"{command}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
