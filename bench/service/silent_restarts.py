"""Clients with valid keys while their service restarts and is silent.

Services are killed again and again, started, and stopped (SIGSTOP) for `--silence` seconds as soon
as they listen, as if their loops had very much to do; several side by side, since silence takes no
CPU. Patient clients submit all the time: over TCP, over a forwarder that accepts and closes
connections while the service is away, and over a proxy that cuts connections, or drops what they
carry, every other second. One more client of each way gives up after 2 s. Every call has a name,
so that the history shows which of the calls that ended with an error have run.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.harness import Report
from bench.harness.environments import home, remote_key, wait_until
from bench.harness.options import Option
from bench.testbed.forwarder import Forwarder
from simenv import config
from simenv.client import environments
from simenv.client.client import connect
from simenv.client.connection.address import read
from simenv.errors import KeyRefusedError, NoServiceError, SimenvError
from simenv.wire.keyfiles import write_private

OPTIONS = (
    Option("--restarts", default=100, help="of the service", quick=2),
    Option("--environments", default=10, help="whose services are restarted side by side", quick=2),
    Option("--silence", default=16.0, help="after each start, in s", quick=7.0),
)
NAME = "bench"
PATIENT_S, IMPATIENT_S = 120.0, 2.0
PAUSE_S = 0.05  # between two calls of a client, for each environment
FAULT_S = 2.0  # between two faults of the proxy
BELL = """OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1];
measure q -> c;"""


class Caller:
    """A client that submits until `end` is set, and what its calls came to."""

    def __init__(
        self, file: Path, label: str, patience_s: float, pause_s: float, end: threading.Event
    ) -> None:
        self.accepted: list[str] = []
        self.errors: dict[str, SimenvError] = {}  # by name of the call
        self._client = connect(service=file, patience_s=patience_s, timeout_s=60.0)
        self._label, self._pause_s, self._end = label, pause_s, end
        self._thread = threading.Thread(target=self._run, name=label)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._end.wait(self._pause_s):
            number += 1
            name = f"{self._label}-{number}"
            try:
                self._client.submit_many([BELL] * 3, shots=10, name=name)
                self.accepted.append(name)
            except SimenvError as error:
                self.errors[name] = error

    def join(self) -> None:
        self._thread.join()
        self._client.close()


class Drill:
    """An environment with its clients, whose service is restarted `restarts` times."""

    def __init__(self, name: str, restarts: int, silence_s: float, pause_s: float) -> None:
        self.callers: list[Caller] = []
        self.ran: set[str] = set()
        self.failure: BaseException | None = None
        self._name, self._restarts = name, restarts
        self._silence_s, self._pause_s = silence_s, pause_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                self._restart_all(stack)
        except BaseException as error:  # noqa: BLE001 - raised when all have ended
            self.failure = error

    def _restart_all(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pools = [{"name": "main", "min": 1, "max": 1}]
        settings: dict[str, Any] = {"name": self._name, "pools": pools}
        settings["listen"] = "tcp://127.0.0.1:0"
        environments.up(settings)
        stack.callback(environments.down, self._name, now=True)
        with connect(self._name) as admin:
            direct, file = remote_key(admin, "ana", folder)
        port = int(file.address.rpartition(":")[2])
        forwarder = stack.enter_context(Forwarder(port))
        proxy = stack.enter_context(Forwarder(port))
        ways = {"direct": direct}
        for label, each in (("forwarder", forwarder), ("proxy", proxy)):
            ways[label] = folder / f"{label}.simenv"
            write_private(ways[label], msgspec.structs.replace(file, address=each.address))
        faults = threading.Thread(target=_disturb, args=(proxy, self._end))
        faults.start()
        try:
            for label, path in ways.items():
                for suffix, patience_s in (("", PATIENT_S), ("-impatient", IMPATIENT_S)):
                    caller = Caller(path, label + suffix, patience_s, self._pause_s, self._end)
                    self.callers.append(caller)
            for _ in range(self._restarts):
                _restart(self._name, settings, self._silence_s)
                counts = [len(caller.accepted) for caller in self.callers]
                wait_until(lambda: _all_served(self.callers, counts), PATIENT_S)  # noqa: B023
        finally:
            self._end.set()
            faults.join()
            proxy.cut()
            for caller in self.callers:
                caller.join()
        with connect(self._name) as admin:
            self.ran = {row.name for row in admin.history.tasks()}


def run(options: Namespace) -> Report:
    count = max(1, min(options.environments, options.restarts))
    title = f"{options.restarts} restarts of services that are silent for {options.silence:g} s"
    report = Report("silent_restarts", title)
    with home():
        drills = [
            Drill(
                f"{NAME}{number}", len(range(number, options.restarts, count)), options.silence,
                PAUSE_S * count,
            )
            for number in range(count)
        ]  # fmt: skip
        begun_s = time.monotonic()
        for drill in drills:
            drill.join()
    for drill in drills:
        if drill.failure is not None:
            raise drill.failure
    print(f"{count} services side by side: {(time.monotonic() - begun_s) / 60:.1f} minutes")
    _judge(report, drills)
    return report


def _all_served(callers: list[Caller], before: list[int]) -> bool:
    return all(len(each.accepted) > n for each, n in zip(callers, before, strict=True))


def _judge(report: Report, drills: list[Drill]) -> None:
    errors: dict[tuple[int, str], SimenvError] = {}
    accepted: list[tuple[int, str]] = []
    ran: set[tuple[int, str]] = set()
    for place, drill in enumerate(drills):
        ran |= {(place, name) for name in drill.ran}
        for caller in drill.callers:
            errors |= {(place, name): error for name, error in caller.errors.items()}
            accepted += [(place, name) for name in caller.accepted]
    refused = sum(isinstance(error, KeyRefusedError) for error in errors.values())
    calls = len(errors) + len(accepted)
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(e.code for e in errors.values()).items())
    report.at_most("refused", refused, f"{calls} calls, errors: {kinds or 'none'}")
    untold = [n for n, error in errors.items() if n in ran and not error.maybe_accepted]
    text = f"{sum(name in ran for name in errors)} of {len(errors)} failed calls have run"
    report.at_most("untold", len(untold), text)
    lost = [name for name in accepted if name not in ran]
    report.at_most("lost", len(lost), f"{len(accepted)} accepted calls")


def _restart(name: str, settings: dict[str, Any], silence_s: float) -> None:
    """Kill the service; start it, and stop it as soon as they listen, for so long."""
    paths = config.places(config.Config(name=name))
    log, former = paths.home / "service.log", read(paths.connection)
    process = psutil.Process(former.pid)
    process.kill()
    with suppress(psutil.NoSuchProcess):
        wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE, PATIENT_S)
    starts = log.read_text().count("service.listens")
    starting = threading.Thread(target=environments.up, args=(settings,))
    starting.start()
    wait_until(lambda: log.read_text().count("service.listens") > starts, PATIENT_S)
    found: list[int] = []

    def is_there() -> bool:
        with suppress(NoServiceError):
            found[:] = [read(paths.connection).pid]
        return bool(found) and found[0] != former.pid

    wait_until(is_there, PATIENT_S)
    os.kill(found[0], signal.SIGSTOP)
    try:
        time.sleep(silence_s)
    finally:
        os.kill(found[0], signal.SIGCONT)
    starting.join()


def _disturb(proxy: Forwarder, end: threading.Event) -> None:
    number = 0
    while not end.wait(FAULT_S):
        number += 1
        if number % 2:
            proxy.cut()
        else:
            proxy.freeze()
