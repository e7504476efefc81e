"""Commands of the site that run when events happen: the table [hooks].

Invariants: the loop never waits for a command; at most MAX_RUNNING run and MAX_WAITING events wait,
and those beyond are counted in one event. A command ends at its time limit, with all that it has
started, also if the service is killed meanwhile: `timeout` of coreutils is its parent. Events of
hooks start no hooks. Used from the loop's thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase

from simenv.config.model import HookSettings
from simenv.config.paths import worker_environ
from simenv.model import Event
from simenv.sandbox.process_tree import register
from simenv.scheduler.core import RecordEvent

MAX_RUNNING = 4
MAX_WAITING = 256
MAX_CHARS = 2_000  # of a text of an event
KILL_AFTER_S = 5.0  # from SIGTERM to SIGKILL
LOOK_S = 0.5
FAILED, DROPPED = "hook.failed", "hook.dropped"
_TIMED_OUT = (124, 137)  # exit codes of timeout(1)


class EventHooks:
    """Commands of one configuration. `environment`: its name, for the commands."""

    def __init__(
        self, environment: str, settings: HookSettings, environ: Mapping[str, str]
    ) -> None:
        self._environment = environment
        self._on = {pattern: list(words) for pattern, words in settings.on.items()}
        self._timeout_s = settings.timeout_s
        self._environ = dict(worker_environ(environ))
        self._matching: dict[str, tuple[str, ...]] = {}  # patterns, by kind of event
        self._waiting: deque[tuple[str, Event]] = deque()
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._dropped = 0
        self._next_s = 0.0

    def problems(self) -> list[str]:
        """Return the commands whose program this user cannot run now, for `simenv status`."""
        path = self._environ.get("PATH")
        return [
            f"the hook of {pattern} cannot run: {words[0]} is no program"
            for pattern, words in self._on.items()
            if shutil.which(words[0], path=path) is None
        ]

    def notify(self, event: Event) -> None:
        """Let the commands for this event run."""
        patterns = self._matching.get(event.kind)
        if patterns is None:
            own = event.kind.startswith("hook.")
            found = (each for each in self._on if not own and fnmatchcase(event.kind, each))
            patterns = self._matching[event.kind] = tuple(found)
        for pattern in patterns:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append((pattern, event))
            else:
                self._dropped += 1

    def tick(self, now_s: float) -> Iterator[RecordEvent]:
        """Start commands, and yield events about those that failed. `now_s`: monotonic."""
        if now_s < self._next_s or not (self._waiting or self._running):
            return
        self._next_s = now_s + LOOK_S
        for pattern, process in [each for each in self._running if each[1].poll() is not None]:
            self._running.remove((pattern, process))
            if process.returncode:
                yield RecordEvent(FAILED, pattern, self._reason(process.returncode))
        while self._waiting and len(self._running) < MAX_RUNNING:
            pattern, event = self._waiting.popleft()
            try:
                self._running.append((pattern, self._start(self._on[pattern], event)))
            except (OSError, ValueError) as error:
                yield RecordEvent(FAILED, pattern, f"it cannot be started: {error}")
        if self._dropped and not self._waiting:
            text = f"{self._dropped} events had no command: {MAX_WAITING} waited already"
            yield RecordEvent(DROPPED, self._environment, text)
            self._dropped = 0

    def close(self) -> None:
        """End the commands that still run; events that wait have none."""
        for _, process in self._running:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGTERM)
        for _, process in self._running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILL_AFTER_S)
        self._running.clear()

    def _start(self, words: list[str], event: Event) -> subprocess.Popen[bytes]:
        fields = {
            "environment": self._environment, "kind": event.kind,
            "subject": _shortened(event.subject), "message": _shortened(event.message),
            "time_s": event.time_s,
        }  # fmt: skip
        limits = [f"--kill-after={KILL_AFTER_S}", f"{self._timeout_s}"]
        named = {f"SIMENV_EVENT_{key.upper()}": str(value) for key, value in fields.items()}
        process = subprocess.Popen(
            ["timeout", *limits, *words],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            env={**self._environ, **named}, start_new_session=True,
        )  # fmt: skip
        register(process)
        assert process.stdin is not None
        with suppress(OSError):  # it may have ended; a pipe holds more than MAX_CHARS of each text
            process.stdin.write(json.dumps(fields, ensure_ascii=False).encode())
            process.stdin.close()
        return process

    def _reason(self, code: int) -> str:
        if code in _TIMED_OUT:
            return f"it did not end within timeout_s = {self._timeout_s:g}"
        if code in (126, 127):
            return "it is no program on this node"
        return f"it ended with exit code {code}"


def _shortened(text: str) -> str:
    """Return the beginning of a text without control characters, which no variable may have."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_CHARS])
