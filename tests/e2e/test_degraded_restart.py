"""A service with a journal serves with the pools that stand, and calls the others degraded."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from circuits import bell
from failing import fails
from live import Live, environment
from waiting import until

from simenv.errors import StartFailedError

RESULT_S = 600.0
POOLS = [{"name": name, "min": 1, "max": 1} for name in ("main", "side")]


@contextmanager
def killed_workers(home: Path, pool: str) -> Iterator[None]:
    """Kill each worker of a pool as soon as it exists, as the kernel does without memory."""
    ending = threading.Event()
    marks = str(home.resolve()).encode(), f"--name\0{pool}-".encode()

    def watch() -> None:
        while not ending.wait(0.02):
            for entry in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    line = (entry / "cmdline").read_bytes()
                    if b"simenv.worker" in line and all(mark in line for mark in marks):
                        os.kill(int(entry.name), signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def test_restart_serves_with_the_pools_that_stand_and_others_come_later() -> None:
    with environment(pools=POOLS) as live:
        live.crash()
        with killed_workers(live.home, "side"):
            live.up()
            with live.client() as env:
                assert env.run(bell(), shots=10, pool="main").shots == 10
                task = env.submit(bell(), shots=10, pool="side")
                until(lambda: env.pools()["side"].state == "degraded", RESULT_S)
                assert env.pools()["main"].state == "up"
                warnings = " ".join(env.status().warnings)
        assert "side" in warnings
        with live.client() as env:
            assert env.task(task.id).result(RESULT_S).shots == 10


def test_first_start_fails_and_names_load_and_option() -> None:
    live = Live(pools=POOLS)
    with killed_workers(live.home, "side"):
        error = fails(StartFailedError, "pool side has no working worker", live.up)
    assert "processors" in error.message
    assert error.hint is not None
    assert "start_timeout_s" in error.hint
    live.down()
