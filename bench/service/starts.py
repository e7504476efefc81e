"""Starts and restarts: cold commands, workers, overcommit, upgrades, silent services."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

import simenv
from bench.circuits import four_qubit_circuit, layered
from bench.harness import Report, benchmark, repeated_s, timed, timed_s
from bench.harness.environments import (
    SIMENV,
    cores,
    home,
    simenv as command,
    started,
)  # fmt: skip
from bench.harness.kernels import compile_kernels
from simenv import config
from simenv.client import environments
from simenv.client.client import Client, connect
from simenv.client.connection.address import read
from simenv.errors import KeyRefusedError, NoServiceError, SimenvError
from simenv.model import PoolSpec
from simenv.wire.keyfiles import write_private
from testbed.forwarder import Forwarder
from testbed.keys import remote_key
from testbed.waiting import until

# --- commands as typed ----------------------------------------------------------------------------

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[{0}];\ncreg c[{0}];\n'
BELL = HEAD.format(2) + "h q[0];\ncx q[0],q[1];\nmeasure q -> c;\n"
WARM_RUNS, LARGE = 5, 22  # qubits
SUBMIT = ["submit", "bell.qasm", "--wait"]
COLD = {  # arguments by goal
    "cold_s": SUBMIT, "noisy_cold_s": [*SUBMIT, "--device", "superconducting-lattice"],
    "large_cold_s": ["submit", "large.qasm", "--wait"], "demo_s": ["demo"],
}  # fmt: skip


@benchmark()
def cold_start(report: Report, _options: Namespace) -> None:
    """Time to the first result of `simenv submit bell.qasm --wait`, as typed.

    No environment is up: the call starts a private one, uses it and ends it. Cold: no compiled
    kernel is on this machine; a circuit on an emulated device and one of 22 qubits, which need many
    more kernels, and `simenv demo` with its first verified row in the same way. Warm: median of 5.
    Then, with an environment up, until a circuit too wide for this machine is refused. CPU seconds
    of the cold starts are printed: on a busy machine they say more.
    """
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        place = Path(folder)
        environ = {**os.environ, "SIMENV_HOME": f"{place}/home", "SIMENV_KERNELS": f"{place}/k"}
        (place / "bell.qasm").write_text(BELL)
        ladder = [f"cx q[{k}],q[{k + 1}];" for k in range(59)]  # no qubit can be left out
        wide = "\n".join(["h q;", *ladder, "ry(0.3) q;", "measure q -> c;", ""])
        (place / "wide.qasm").write_text(HEAD.format(60) + wide)
        (place / "large.qasm").write_text(_large())
        for key, args in COLD.items():
            fresh = {**environ, "SIMENV_KERNELS": tempfile.mkdtemp(dir=folder)}
            before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
            report.seconds(key, timed_s(partial(command, args, fresh, cwd=place)))
            spent_s = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
            print(f"       {' '.join(args)}: {spent_s:.1f} s CPU")
        row = _first_row(place, {**environ, "SIMENV_KERNELS": tempfile.mkdtemp(dir=folder)})
        report.seconds("demo_row_s", row)
        compile_kernels(Path(environ["SIMENV_KERNELS"]))
        typed = partial(command, environ=environ, cwd=place)
        warm = repeated_s(lambda: typed(SUBMIT), WARM_RUNS + 1)
        typed(["up"])
        try:
            args = ["submit", "wide.qasm", "--engine", "statevector", "--wait"]
            refused = timed_s(lambda: typed(args, code=3))
        finally:
            typed(["down"])
    report.seconds("warm_s", warm[1:])
    report.seconds("refusal_s", refused)


def _large() -> str:
    lines = []
    for layer in range(3):
        lines += [f"ry({0.1 * qubit + layer}) q[{qubit}];\n" for qubit in range(LARGE)]
        lines += [f"cx q[{qubit}],q[{qubit + 1}];\n" for qubit in range(LARGE - 1)]
        lines += ["ccx q[0],q[5],q[20];\n", "cu1(0.3) q[3],q[21];\n"]
    return "".join([HEAD.format(LARGE), *lines, "measure q -> c;\n"])


def _first_row(folder: Path, environ: dict[str, str]) -> float:
    begin = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([SIMENV, "demo"], cwd=folder, env=environ, text=True, **pipes) as process:
        assert process.stdout is not None
        row = next((line for line in process.stdout if " ok " in line), "")
        took = time.perf_counter() - begin
        process.terminate()
        process.stdout.close()
    if not row:
        raise SystemExit("simenv demo printed no verified row")
    return took


@benchmark(workers=(64, 8))
def overcommit(report: Report, options: Namespace) -> None:
    """More workers than cores: refusal, and the event loop while many workers start.

    An environment of two slots is up; `simenv scale main 999` must be refused, naming the slots and
    the memory that limit it. Then one is started with `simenv up --workers 64 --slots 2`: all must
    get ready, while the event loop's passes stay short and `status` is answered in time.
    """
    slowest_s, ready, deadline_s = 0.0, 0, 300.0
    with home(), ExitStack() as stack:
        command(["up", "--slots", "2"])
        try:
            refused_s, output = timed(lambda: command(["scale", "main", "999"], code=3))
        finally:
            command(["down", "--now"])
        print(output.strip())
        command(["up", "--slots", "2", "--workers", str(options.workers)])
        stack.callback(command, ["down", "--now"])
        begin_s = time.monotonic()
        while ready < options.workers and time.monotonic() - begin_s < deadline_s:
            seconds, text = timed(lambda: command(["--json", "status"]))
            slowest_s, info = max(slowest_s, seconds), json.loads(text)
            ready = sum(pool["workers"] for pool in info["pools"])
            time.sleep(0.2)
    report.seconds("refusal_s", refused_s)
    report.at_most("missing", options.workers - ready)
    report.at_most("longest_pass_ms", float(info["longest_pass_ms"]))
    report.seconds("status_s", slowest_s)


# --- workers --------------------------------------------------------------------------------------

WORKERS, IDLE_WORKERS, IDLE_RANKS, WATCH_S, READY_S = 20, 8, 2, 20.0, 120.0


def _prte(pool: PoolSpec, **options: int) -> Client:
    return simenv.local(pools=(pool,), launcher={"use": "prte"}, **options)


@benchmark(rounds=(5, 2))
def worker_start(report: Report, options: Namespace) -> None:
    """Start time of workers of two ranks through PRTE.

    The pool has one worker, which does not run yet. The clock runs from the submit of a small
    circuit to its counts: the decision, the spawn, Python's start, MPI, the kernels (warm), the
    join and the run; median of successive starts with the launcher up. Then from `up` until 20
    workers are ready, and the CPU share of 8 idle workers of 2 ranks.
    """
    totals = []
    try:
        with _prte(PoolSpec("main", "statevector", 0, 1, 1.0, 2)) as client:  # ends after 1 s
            for number, circuit in enumerate(layered(4, 30, options.rounds + 1, 1)):
                seconds, result = timed(partial(client.run, circuit, shots=100, seed=number))
                assert sum(result.counts.values()) == 100
                totals.append(seconds)
                until(lambda: not client.workers(), READY_S)
    except SimenvError as error:
        return print(f"no worker through PRTE: {error}")
    report.seconds("first_result_s", totals[1:])  # the first start may also start a DVM
    begin = time.perf_counter()
    with _prte(PoolSpec("main", "statevector", WORKERS, WORKERS)) as client:
        until(lambda: client.pools()["main"].workers == WORKERS, READY_S)
        report.seconds("many_s", time.perf_counter() - begin)
    size: Any = {"ranks": IDLE_RANKS, "memory_bytes": 2**28}
    pool = PoolSpec("main", "statevector", IDLE_WORKERS, IDLE_WORKERS, **size)
    with _prte(pool, slots=IDLE_RANKS) as client:
        until(lambda: client.pools()["main"].workers == IDLE_WORKERS, READY_S)
        ranks = list(_ranks(str(Path(client.service).with_name("worker.json"))))
        assert len(ranks) == IDLE_WORKERS * IDLE_RANKS, f"{len(ranks)} ranks"
        client.run(layered(4, 30, 1, 1)[0], shots=100)
        time.sleep(5.0)  # for the work that follows a worker's start
        report.at_most("idle_percent", 100 * sum(cores(WATCH_S, *ranks)))


def _ranks(service: str) -> Iterator[psutil.Process]:
    """Yield the processes of the ranks of all workers of this service."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            argv = process.cmdline()
            if "simenv.worker" in argv and service in argv and "-c" not in argv:
                yield process


# --- upgrade and restoration ----------------------------------------------------------------------

LIFE = "bench-life"
CLIENTS, PERIOD_S = 4, 0.04  # 100 submissions a second


@benchmark(tasks=(100_000, 2_000))
def life_cycle(report: Report, options: Namespace) -> None:
    """Upgrade of a busy service, and restoration of a backup elsewhere.

    100,000 tasks wait, two workers run them, and four clients submit 100 tasks a second. Then
    `simenv admin upgrade` replaces the service. The pause is the longest time for which no task of
    a client was accepted. No client meets an error, and all tasks must end, each once. Before,
    `simenv admin backup` writes an archive, which is restored and started below another home.
    """
    settings = {"name": LIFE, "pools": [{"name": "main", "min": 2, "max": 2}]}
    with started(settings) as client, tempfile.TemporaryDirectory() as folder:
        (node,) = client.nodes()
        client.drain(node, "until all tasks wait")
        for start in range(0, options.tasks, 10_000):
            numbers = range(start, min(options.tasks, start + 10_000))
            client.submit_many([four_qubit_circuit(each) for each in numbers], shots=100, seed=1)
        archive = Path(folder) / "nightly.tar"
        command(["admin", "backup", str(archive), "--name", LIFE])
        report.seconds("restore_s", _restored(archive, Path(folder) / "elsewhere", options.tasks))
        client.undrain(node)
        until(lambda: client.status().done > 0, 60.0)
        stop = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as threads:
            ended = [threads.submit(_submitted, stop, number) for number in range(CLIENTS)]
            print(command(["admin", "upgrade", "--name", LIFE, "--json"]).strip())
            time.sleep(2.0)  # it goes on
            stop.set()
        accepted, longest_s, errors = zip(*(each.result() for each in ended), strict=True)
        print(*filter(None, errors), sep="\n")
        report.seconds("pause_s", max(longest_s))
        report.at_most("errors", len([*filter(None, errors)]))
        total = options.tasks + sum(accepted)
        until(lambda: client.status().done >= total, 1_800.0)
        ends = Counter(each.id for each in client.history.tasks())
        report.at_most("lost", total - len(ends))
        report.at_most("doubled", sum(count > 1 for count in ends.values()))


def _submitted(stop: threading.Event, number: int) -> tuple[int, float, str]:
    """Submit until the stop; return the accepted tasks, the longest time between two of them in s,
    and the error that ended it."""
    times_s, failure, circuit = [time.monotonic()], "", four_qubit_circuit(number)
    try:
        with connect(LIFE) as client:
            while not stop.wait(PERIOD_S):
                client.submit(circuit, shots=100, seed=1)
                times_s.append(time.monotonic())
    except SimenvError as error:
        failure = f"{type(error).__name__}: {error.message}"
    return len(times_s) - 1, max(np.diff(times_s), default=0.0), failure


def _restored(archive: Path, place: Path, tasks: int) -> float:
    """Return the time of a restoration in another home; all tasks must be there."""
    before = os.environ["SIMENV_HOME"]
    os.environ["SIMENV_HOME"] = str(place)
    try:
        took = timed_s(lambda: command(["admin", "restore", str(archive), "--up"]))
        with connect(LIFE) as client:
            info = client.status()
            assert info.queued + info.running + info.done == tasks, info
        environments.down(LIFE, now=True)
    finally:
        os.environ["SIMENV_HOME"] = before
    return took


# --- services that are silent after a restart -----------------------------------------------------

PATIENT_S, IMPATIENT_S = 120.0, 2.0
PAUSE_S = 0.05  # between two calls of a client, for each environment
FAULT_S = 2.0  # between two faults of the proxy


class Caller(threading.Thread):
    """A client that submits until `end` is set, and what its calls came to, by name."""

    def __init__(
        self, file: Path, label: str, patience_s: float, pause_s: float, end: threading.Event
    ) -> None:
        super().__init__()
        self.accepted: list[str] = []
        self.errors: dict[str, SimenvError] = {}
        self._client = connect(service=file, patience_s=patience_s, timeout_s=60.0)
        self._label, self._pause_s, self._end = label, pause_s, end
        self.start()

    def run(self) -> None:
        with self._client as client:
            while not self._end.wait(self._pause_s):
                name = f"{self._label}-{len(self.accepted) + len(self.errors)}"
                try:
                    client.submit_many([BELL] * 3, shots=10, name=name)
                    self.accepted.append(name)
                except SimenvError as error:
                    self.errors[name] = error


@benchmark(restarts=(100, 2), environments=(10, 2), silence=(16.0, 7.0))
def silent_restarts(report: Report, options: Namespace) -> None:
    """Clients with valid keys while their service restarts and is silent.

    Services are killed again and again, started, and stopped (SIGSTOP) for `--silence` seconds as
    soon as they listen; several side by side, since silence takes no CPU. Patient clients submit
    all the time: over TCP, over a forwarder that accepts and closes connections while the service
    is away, and over a proxy that cuts connections, or drops what they carry. One more client of
    each way gives up after 2 s. Every call has a name, so that the history shows which of those
    that ended with an error have run.
    """
    count = max(1, min(options.environments, options.restarts))
    with home(), ThreadPoolExecutor(count) as threads:
        numbers = [len(range(number, options.restarts, count)) for number in range(count)]
        pending = [
            threads.submit(_drill, f"bench{k}", number, options.silence, PAUSE_S * count)
            for k, number in enumerate(numbers)
        ]
        drills = [each.result() for each in pending]
    errors: dict[tuple[int, str], SimenvError] = {}
    accepted, ran = list[tuple[int, str]](), set[tuple[int, str]]()
    for place, (callers, names) in enumerate(drills):
        ran |= {(place, name) for name in names}
        for caller in callers:
            errors |= {(place, name): error for name, error in caller.errors.items()}
            accepted += [(place, name) for name in caller.accepted]
    kinds = dict(Counter(error.code for error in errors.values()))
    print(
        f"{len(accepted)} accepted calls; errors {kinds}, {sum(n in ran for n in errors)} have run"
    )
    refused = sum(isinstance(error, KeyRefusedError) for error in errors.values())
    report.at_most("refused", refused)
    untold = sum(n in ran and not error.maybe_accepted for n, error in errors.items())
    report.at_most("untold", untold)
    report.at_most("lost", sum(name not in ran for name in accepted))


def _drill(
    name: str, restarts: int, silence_s: float, pause_s: float
) -> tuple[list[Caller], set[str]]:
    """Restart the service of an environment with its clients; return these, and the names of the
    calls that have run."""
    settings: dict[str, Any] = {
        "name": name, "pools": [{"name": "main", "min": 1, "max": 1}],
        "listen": "tcp://127.0.0.1:0",
    }  # fmt: skip
    callers, end = list[Caller](), threading.Event()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environments.up(settings)
        stack.callback(environments.down, name, now=True)
        with connect(name) as admin:
            direct, file = remote_key(admin, "ana", folder)
        port = int(file.address.rpartition(":")[2])
        ways, proxies = {"direct": direct}, {}
        for label in ("forwarder", "proxy"):
            proxies[label] = stack.enter_context(Forwarder(port))
            ways[label] = folder / f"{label}.simenv"
            other = msgspec.structs.replace(file, address=proxies[label].address)
            write_private(ways[label], other)
        faults = threading.Thread(target=_disturb, args=(proxies["proxy"], end))
        faults.start()
        try:
            for label, path in ways.items():
                callers.append(Caller(path, label, PATIENT_S, pause_s, end))
                callers.append(Caller(path, f"{label}-impatient", IMPATIENT_S, pause_s, end))
            for _ in range(restarts):
                _silenced(name, settings, silence_s)
                before = {caller: len(caller.accepted) for caller in callers}
                served = lambda was=before: all(len(each.accepted) > n for each, n in was.items())  # noqa: E731
                until(served, PATIENT_S)
        finally:
            end.set()
            faults.join()
            proxies["proxy"].cut()
            for caller in callers:
                caller.join()
        with connect(name) as admin:
            return callers, {row.name for row in admin.history.tasks()}


def _silenced(name: str, settings: dict[str, Any], silence_s: float) -> None:
    """Kill the service; start it, and stop it as soon as it listens, for so long."""
    paths = config.places(config.Config(name=name))
    log, former = paths.home / "service.log", read(paths.connection)
    process = psutil.Process(former.pid)
    process.kill()
    with suppress(psutil.NoSuchProcess):
        until(lambda: process.status() == psutil.STATUS_ZOMBIE, PATIENT_S)
    starts = log.read_text().count("service.listens")
    starting = threading.Thread(target=environments.up, args=(settings,))
    starting.start()
    until(lambda: log.read_text().count("service.listens") > starts, PATIENT_S)
    found = [former.pid]

    def is_there() -> bool:
        with suppress(NoServiceError):
            found[:] = [read(paths.connection).pid]
        return found[0] != former.pid

    until(is_there, PATIENT_S)
    os.kill(found[0], signal.SIGSTOP)
    try:
        time.sleep(silence_s)
    finally:
        os.kill(found[0], signal.SIGCONT)
    starting.join()


def _disturb(proxy: Forwarder, end: threading.Event) -> None:
    for fault in itertools.cycle((proxy.cut, proxy.freeze)):
        if end.wait(FAULT_S):
            return
        fault()
