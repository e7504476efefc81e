"""Starts and work beside busy processes: none may end for want of time."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.circuits import layered
from bench.harness import Report, benchmark
from bench.harness.environments import SIMENV, home, ibm_seconds, served
from simenv.client.client import Client, connect
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.sandbox.process_tree import kill_tree
from simenv.sandbox.progress import load_text

BUSY = "while True: pass"
BELL = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\n'
    "h q[0];\ncx q[0],q[1];\nmeasure q -> c;\n"
)
LOCAL = (
    "import simenv\nfrom qiskit import QuantumCircuit\nc = QuantumCircuit(2)\nc.h(0)\nc.cx(0, 1)\n"
    "c.measure_all()\nwith simenv.local() as env:\n    assert env.run(c, shots=10).shots == 10\n"
)
CLI = [str(SIMENV)]
WAYS: dict[str, list[list[str]]] = {  # commands of each way to start
    "demo": [[*CLI, "demo"]],
    "run": [[*CLI, "run", "bell.qasm"]],
    "up": [[*CLI, "up", "--workers", "1"], [*CLI, "submit", "bell.qasm", "--wait"]],
    "local": [[sys.executable, "-c", LOCAL]],
}
SECOND_ACCOUNT = Path(__file__).parents[2] / "tests" / "support" / "second_account.py"
HUNG_S = 7_200.0  # of one command: a hang, on any machine
MOVED_TO = 0x80  # inotify(7)
_EVENT = struct.Struct("iIII")


@benchmark(starts=(20, 4), busy=40, cores=2, ways=list(WAYS), user=0)
def cold_starts(report: Report, options: Namespace) -> None:
    """Cold starts beside busy processes: all come up, and each kernel is compiled once.

    Each start has an empty home and no compiled kernel, on `--cores` cores beside `--busy` programs
    that compute for ever: in turn the steps of `make demo` after the set-up (`simenv demo`),
    `simenv run bell.qasm`, `simenv up` and a task, and `simenv.local()` with a task. A start that
    ends with an error is printed with its last words. Kernels are counted as they are stored.
    `--user 12345`: by this user, who did not install the package; root starts it.
    """
    failed, repeated = [], 0
    with _on_cores(options.cores), busy_processes(options.busy):
        for number in range(options.starts):
            way = options.ways[number % len(options.ways)]
            begin_s = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
                error, again = _start(way, Path(folder), options.user)
            repeated += again
            failed += [way] if error else []
            text = f"start {number + 1} of {options.starts}, {way}: {error or 'up'}"
            print(f"{text}, {time.monotonic() - begin_s:.0f} s, {load_text()}", flush=True)
    report.at_least("up_percent", 100 * (1 - len(failed) / options.starts))
    report.at_most("compiled_again", repeated)


def _start(way: str, place: Path, user: int) -> tuple[str, int]:
    """Run the commands of one start; return the end of what a failed one has written, and how many
    kernels were stored again. `user`: who starts; 0: this one."""
    prefix: list[str] = []
    if user:
        os.chown(place, user, user)
        prefix = [sys.executable, "-P", str(SECOND_ACCOUNT), str(user), "--"]
    folders = {"SIMENV_HOME": f"{place}/home", "SIMENV_KERNELS": f"{place}/kernels"}
    environ = {**os.environ, **folders, "HOME": str(place), "TMPDIR": str(place)}
    (place / "bell.qasm").write_text(BELL)
    with stored_kernels(place / "kernels") as counts:
        error = ""
        for argv in WAYS[way]:
            error = error or _failure([*prefix, *argv], place, environ)
        if way == "up":
            _failure([*prefix, *CLI, "down", "--now"], place, environ)
    return error, sum(count - 1 for count in counts.values())


def _failure(argv: list[str], cwd: Path, environ: dict[str, str]) -> str:
    """Run a command; return "" or the end of what it has written."""
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as process:
        try:
            output = process.communicate(timeout=HUNG_S)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            return f"{argv[0]} {argv[1]} has not ended after {HUNG_S:g} s"
    return "" if process.returncode == 0 else f"exit {process.returncode}: {output[-600:]}"


@benchmark(pulses=(100, 10), jobs=(20, 4), pairs=(20, 4), busy=40, cores=2)
def busy_work(report: Report, options: Namespace) -> None:
    """Pulse sequences, IBM's jobs and workers of two ranks beside busy processes: none fails.

    On `--cores` cores beside `--busy` processes that compute for ever: `--pulses` Pulser sequences,
    `--jobs` jobs of IBM's unmodified client through the gateway, and `--pairs` tasks on a worker of
    two ranks, which PRTE starts through its PMIx helper where it is installed. Counted are those
    that end otherwise than with a result, restarts of the gateway and of the helper.
    """
    with _on_cores(options.cores), busy_processes(options.busy):
        with served(1, "main:workers=1", "pulses:workers=1,engine=rydberg") as (client, url, names):
            with ThreadPoolExecutor(2) as threads:
                pulses = threads.submit(_pulses, client, options.pulses)
                circuit = layered(2, 2, 1, 1)[0]
                failed_jobs = 0
                for _ in range(options.jobs // 2):
                    try:
                        ibm_seconds(url, names[0], "main", circuit, 10)
                    except SystemExit as error:
                        failed_jobs += 2
                        print(str(error)[-600:])
                failed_pulses = pulses.result()
            restarts = sum("is started again" in line for line in _log(client))
        failed_pairs = _pairs(options.pairs)
    report.at_most("failed_pulses", failed_pulses)
    report.at_most("failed_jobs", failed_jobs)
    report.at_most("gateway_restarts", restarts)
    if failed_pairs is None:
        print("no worker of two ranks: no PRTE is installed")
    else:
        report.at_most("failed_pairs", failed_pairs)


def _pulses(client: Client, count: int) -> int:
    import pulser

    tasks = []
    for number in range(count):
        register = pulser.Register.rectangle(2, 2, spacing=6.0 + number % 3, prefix="q")
        sequence = pulser.Sequence(register, pulser.MockDevice)
        sequence.declare_channel("ising", "rydberg_global")
        length = 400 + 100 * (number % 5)
        amplitude = pulser.BlackmanWaveform(length, 4.0)
        detuning = pulser.RampWaveform(length, -8.0, 8.0)
        sequence.add(pulser.Pulse(amplitude, detuning, 0.0), "ising")
        tasks.append(client.submit(sequence, shots=100, seed=number))
    return _failed(tasks)


def _failed(tasks: list[Task]) -> int:
    """Wait for tasks; return how many gave no result."""
    failed = 0
    for task in tasks:
        try:
            task.result(HUNG_S)
        except SimenvError as error:
            failed += 1
            print(f"{task.id}: {str(error)[:300]}")
    return failed


def _pairs(count: int) -> int | None:
    from launcher.prte import installation

    if isinstance(installation.find(os.environ), str):
        return None
    with home():
        words = ["up", "--name", "pairs", "--pool", "pair:workers=1,ranks=2,engine=statevector"]
        error = _failure([*CLI, *words], Path.cwd(), dict(os.environ))
        if error:
            print(error)
            return count
        try:
            with connect("pairs") as client:
                circuits = layered(4, 4, count, 1)
                return _failed([client.submit(each, shots=10) for each in circuits])
        finally:
            _failure([*CLI, "down", "--name", "pairs"], Path.cwd(), dict(os.environ))


def _log(client: Client) -> list[str]:
    return Path(client.service).with_name("service.log").read_text().splitlines()


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Restrict this process and those that it starts to some cores."""
    former = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(former)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, former)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep processes that compute for ever."""
    argv = [sys.executable, "-I", "-S", "-c", BUSY]
    processes = [subprocess.Popen(argv) for _ in range(count)]
    try:
        yield
    finally:
        for each in processes:
            each.kill()
        for each in processes:
            each.wait()


@contextmanager
def stored_kernels(folder: Path) -> Iterator[Counter[str]]:
    """Count how often each kernel is stored below a folder: files are renamed into their place."""
    libc, counts, ending = ctypes.CDLL(None, use_errno=True), Counter[str](), threading.Event()
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    watched: set[Path] = set()

    def observe() -> None:
        while not ending.is_set():
            for path in (*folder.glob("kernels-*"),):
                if path not in watched and path.is_dir():
                    watched.add(path)
                    libc.inotify_add_watch(descriptor, os.fsencode(path), MOVED_TO)
            if not select.select([descriptor], [], [], 0.2)[0]:
                continue
            data, offset = os.read(descriptor, 2**16), 0
            while offset < len(data):
                _, _, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                name = data[offset : offset + length].rstrip(b"\0").decode()
                offset += length
                if name.endswith(".code"):
                    counts[name] += 1

    thread = threading.Thread(target=observe)
    thread.start()
    try:
        yield counts
    finally:
        ending.set()
        thread.join()
        os.close(descriptor)
