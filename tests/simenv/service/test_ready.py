"""When a starter hears that the environment is ready, or why it is not."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec
from interpreter import python
from service import LIMITS, ServiceHarness

from launcher.base import Exit, Node
from simenv.config.paths import QUIET, StartupMessage
from simenv.service import __main__ as main
from simenv.service.bootstrap import RunningService
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import DrainNode, Scale

NODES = (Node("n1", 2, 2**30), Node("n2", 2, 2**30))
TWO = msgspec.structs.replace(LIMITS, slots=4, memory_bytes=2**31, nodes=NODES, max_ranks=4)
OPTIONS = {"limits": TWO, "pools": [{"name": "main", "min": 2, "max": 2}]}


class Starter:
    """The pipe's other end."""

    def __init__(self, bench: ServiceHarness) -> None:
        self.bench = bench
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        places = bench.loop.workers._paths
        self._environment = RunningService(bench.loop, places, ExitStack())

    def hears(self) -> StartupMessage | None:
        """What it is told now; None: nothing yet."""
        outcome = main._report_readiness(self._environment, self._write)
        if not outcome:
            return None
        result = os.read(self._read, 65_536)
        os.close(self._read)
        return msgspec.json.decode(result, type=StartupMessage)


def ends(bench: ServiceHarness, name: str, code: int = 1) -> None:
    command = bench.paper.commands.pop(name)
    bench.paper.gone.append(Exit(name, 0, code, f"exit {code}", command.start))
    bench.step()


def test_service_is_ready_only_when_all_workers_have_joined(bench: ServiceHarness) -> None:
    starter = Starter(bench)
    assert starter.hears() is None
    bench.join("main-0")
    assert starter.hears() is None
    bench.join("main-1")
    assert starter.hears() == StartupMessage(ready=True)


def test_start_fails_when_no_worker_of_pool_starts(bench: ServiceHarness) -> None:
    starter = Starter(bench)
    ends(bench, "main-0")
    assert starter.hears() is None  # another one may still come
    ends(bench, "main-1", m.EXIT_MPI)
    hears = starter.hears()
    assert "no working worker: exit 105" in hears.error.message
    assert bench.state.draining


def test_service_is_ready_after_failed_worker_is_replaced(bench: ServiceHarness) -> None:
    starter = Starter(bench)
    bench.join("main-0")
    ends(bench, "main-1")
    assert starter.hears() is None
    bench.state.cluster.pools["main"].starts.next_ns = 0
    bench.step()
    (again,) = [name for name in bench.paper.commands if name != "main-0"]
    bench.join(again)
    assert starter.hears() == StartupMessage(ready=True)


def test_service_with_all_nodes_drained_is_ready(bench: ServiceHarness) -> None:
    for node in ("n1", "n2"):
        bench.say(DrainNode(1, node, "for repair"))
    bench.restart()
    assert bench.paper.commands == {}
    assert Starter(bench).hears() == StartupMessage(ready=True)


def test_readiness_counts_workers_of_pool_as_scaled_before_restart(bench: ServiceHarness) -> None:
    bench.say(Scale(1, "main", 1, 2))
    bench.restart()
    bench.join("main-0")
    assert Starter(bench).hears() == StartupMessage(ready=True)


def test_service_is_ready_without_hardware_worker_that_failed(tmp_path: Path) -> None:
    qpu = {"name": "qpu", "engine": "hardware", "provider": "lab:one"}
    bench = ServiceHarness(tmp_path, pools=[{"name": "main", "min": 1, "max": 1}, qpu])
    starter = Starter(bench)
    bench.join("main-0")
    assert starter.hears() is None
    ends(bench, "qpu-0", 2)
    assert starter.hears() == StartupMessage(ready=True)


def test_restart_is_ready_with_the_pools_that_stand(tmp_path: Path) -> None:
    pools = [{"name": name, "min": 1, "max": 1} for name in ("main", "side")]
    bench = ServiceHarness(tmp_path, pools=pools)
    bench.restart()
    starter = Starter(bench)
    ends(bench, "side-0")
    assert starter.hears() is None  # a worker of the other pool may come
    bench.join("main-0")
    assert starter.hears() == StartupMessage(ready=True)
    assert not bench.state.draining


def test_restart_without_a_worker_and_without_tasks_fails(bench: ServiceHarness) -> None:
    bench.restart()
    starter = Starter(bench)
    ends(bench, "main-0")
    ends(bench, "main-1")
    hears = starter.hears()
    assert "no working worker" in hears.error.message
    assert "start_timeout_s raises the limit" in hears.error.hint


def test_pools_that_still_start_keep_no_service_waiting_for_ever(tmp_path: Path) -> None:
    pools = [{"name": name, "min": 1, "max": 1} for name in ("main", "side")]
    bench = ServiceHarness(tmp_path, pools=pools)
    starter = Starter(bench)
    bench.join("main-0")
    assert starter.hears() is None
    bench.loop.lifecycle.started_ns -= bench.state.limits.start_timeout_ns + 1
    assert starter.hears() == StartupMessage(ready=True)


BEGIN = """
import logging, os, sys
from simenv.service import __main__ as main
def stop(**_):
    raise KeyboardInterrupt
logging.basicConfig = stop
try:
    main.main()
except KeyboardInterrupt:
    print("numpy" in sys.modules, os.environ["OPENBLAS_NUM_THREADS"])
"""


def test_the_service_prices_circuits_on_one_thread_of_blas(tmp_path: Path) -> None:
    """Splits of small tensors by many threads took tens of seconds of processor time."""
    environment = {name: value for name, value in os.environ.items() if name not in QUIET}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    found = python("-P", "-c", BEGIN, str(tmp_path / "config.toml"), env=environment)
    assert found.stdout == "False 1\n"
