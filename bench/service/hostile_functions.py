"""Functions of a user that attack their worker, the machine and other accounts."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cloudpickle
import psutil

import simenv
from bench.harness import Report, benchmark, probed
from bench.harness.environments import service_process
from simenv.client.client import Client
from simenv.errors import TaskFailedError
from simenv.sandbox.tree_memory import tree_memory
from testbed.keys import remote_key

POOLS = [{"name": "main", "workers": 1}, {"name": "fn", "engine": "functions", "workers": 1}]
SLOT_BYTES = 2**28
PATIENCE_S = 120.0
LOOK_S, ASK_S = 0.02, 0.02
MARK = "86399"  # seconds of a sleep, by which a process is found


def find_connection() -> list[str]:
    """Objects of a worker that a function can reach: sockets, sessions, keys."""
    import gc

    frame, reached = sys._getframe(), []
    while frame is not None:
        reached += list(frame.f_locals.values())
        frame = frame.f_back  # type: ignore[assignment]
    names = {
        f"{type(each).__module__}.{type(each).__name__}" for each in (*reached, *gc.get_objects())
    }
    wanted = ("worker.session", "transport.unix_streams", "zmq_transport", "keyfiles")
    found = [name for name in names if any(part in name for part in wanted)]
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.append(f"descriptor {name}")
    return found


def touch_files(victim: str) -> list[str]:
    """Reads, links and removals outside of the function's own folder that succeeded."""
    own = os.path.realpath(os.environ["HOME"])
    worker, done = os.path.dirname(own), []
    attempts = {
        "unlink": lambda: os.unlink(victim),
        "read": lambda: open(victim).close(),
        "link": lambda: os.link(victim, f"{own}/linked"),
        "result folder": lambda: os.makedirs(f"{worker}/0/t-1.10001.h5/d"),
        "link for results": lambda: os.symlink(os.path.dirname(victim), f"{worker}/0"),
        "file of the worker": lambda: open(f"{worker}/token").close(),
        "environ of the worker": lambda: open(f"/proc/{os.getppid()}/environ").close(),
        "memory of the worker": lambda: open(f"/proc/{os.getppid()}/mem").close(),
        "signal to the worker": lambda: os.kill(os.getppid(), 0),
    }
    for name, attempt in attempts.items():
        with suppress(OSError):
            attempt()
            done.append(name)
    return done


def compute(seconds: float) -> None:
    end = time.time() + seconds
    while time.time() < end:
        pass


def make_file_in_memory() -> list[str]:
    try:
        os.memfd_create("held")
    except OSError:
        return []
    return ["file in memory"]


def hold_memory(num_bytes: int) -> None:
    page = os.urandom(2**20)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        held = [bytearray(page) for _ in range(num_bytes >> 20)]
        assert held
    time.sleep(PATIENCE_S)


def leave_processes(seconds: str) -> None:
    import subprocess

    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", seconds])
            os._exit(0)
    subprocess.Popen(["sleep", seconds], start_new_session=True)


@contextmanager
def _site() -> Iterator[tuple[Client, Client, Client, Path]]:
    """An isolated environment, clients of its owner and of two accounts, and a file of nobody's."""
    options = {"listen": "tcp://127.0.0.1:0", "isolation": "account", "pools": POOLS}
    with (
        simenv.local(memory_per_slot=SLOT_BYTES, **options) as own,
        tempfile.TemporaryDirectory() as folder,
    ):
        victim = Path(folder, "victim")
        victim.write_text("of nobody")
        files = [remote_key(own, name, folder)[0] for name in ("mallory", "ben")]
        with simenv.connect(service=files[0]) as mallory, simenv.connect(service=files[1]) as ben:
            yield own, mallory, ben, victim


def _ended_s(own: Client, mallory: Client) -> float:
    """Let a function take memory; return the seconds from the first moment above the bound to the
    end of its processes."""
    task = mallory.call(hold_memory, 3 * 2**30)
    service, bound_bytes = service_process(own), _bound_bytes()
    above_s = longest_s = 0.0
    while not task.done():
        used = sum(tree_memory(pid).used_bytes for pid in _workers(service))
        now_s = time.perf_counter()
        if used > bound_bytes:
            above_s = above_s or now_s
        elif above_s:
            longest_s, above_s = max(longest_s, now_s - above_s), 0.0
        time.sleep(LOOK_S)
    try:
        task.result(PATIENCE_S)
    except TaskFailedError as error:
        print(f"above its bound for {longest_s:.2f} s: {error.message}")
        return longest_s
    raise SystemExit("a function held 3 GiB")


def _workers(service: psutil.Process) -> list[int]:
    """Return the pids of the workers that call functions."""
    pids = []
    for each in service.children():
        with suppress(psutil.Error):  # it has ended
            if "fn-0" in each.cmdline():
                pids.append(each.pid)
    return pids


def _bound_bytes() -> int:
    """Memory at which the service ends a worker of these slots: see limits.md."""
    from simenv.scheduler.events.workers import GRANT_MARGIN_BYTES, PROCESS_BYTES

    return PROCESS_BYTES + SLOT_BYTES + GRANT_MARGIN_BYTES


def _left() -> int:
    return sum(
        MARK in each.info["cmdline"]
        for each in psutil.process_iter(["cmdline"])
        if each.info["cmdline"]
    )


@benchmark(seconds=(6.0, 2.0))
def hostile_functions(report: Report, options: Namespace) -> None:
    """Functions of an isolated account that attack their worker, files, memory and processes.

    Meanwhile the holder of another key asks for an answer every 20 ms. What succeeds of the
    attempts is counted; a function that computes for 6 s is compared with its receipt; the time
    from the first moment above the bound of memory to the end of all processes is that of a
    process in a session of its own, without control groups.
    """
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with _site() as (own, mallory, ben, victim):
        mallory.call(abs, -1).result(PATIENCE_S)
        with probed({"ben": lambda: ben.cancel(["t-0"])}, ASK_S) as times:
            done = mallory.call(find_connection).result(PATIENCE_S)
            done += mallory.call(touch_files, str(victim)).result(PATIENCE_S)
            done += mallory.call(make_file_in_memory).result(PATIENCE_S)
            print("succeeded:", ", ".join(done) or "nothing")
            task = mallory.call(compute, options.seconds)
            task.result(PATIENCE_S)
            receipt = mallory.receipt(task)
            charged_s = receipt.used.slot_us / 1e6 / max(1, receipt.slots)
            print(f"{options.seconds:g} s of computing are charged {charged_s:.3f} s")
            mallory.call(leave_processes, MARK).result(PATIENCE_S)
            time.sleep(1.0)
            left = _left()
            ended_s = _ended_s(own, mallory)
        assert victim.read_text() == "of nobody"
    report.at_most("succeeded", len(done))
    report.at_most("charge_error", abs(charged_s / options.seconds - 1))
    report.at_most("left_processes", left)
    report.at_most("memory_ended_s", ended_s, "session")
    report.p99_ms("p99_ms", times["ben"])
