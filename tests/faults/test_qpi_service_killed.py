"""kill -9 of the service, or of its gateway, while a compiled program submits and waits.

The program goes on, gets every row once, and its counts are those of an undisturbed run; no task
is submitted twice.
"""

import random
import subprocess
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from busy_circuits import busy
from live import Live, resurrected
from qpi_programs import environ, sanitized, token
from waiting import until

import simenv
from simenv import config
from simenv.client import environments
from simenv.config import GatewayFile
from simenv.model import TaskState
from simenv.service import fault_injection

pytestmark = pytest.mark.usefixtures("no_leaks")

JOBS = 8  # of drill.c
ROWS = 300
TASKS = JOBS
KILLS = 6
GATEWAY = "127.0.0.1:0"
ANGLE = 'OPENQASM 3.0; include "stdgates.inc"; input float a; qubit[2] q; bit[2] c;'
TURN = ANGLE + " ry(2 * a) q[0]; cx q[0], q[1]; c = measure q;"
PARTS = ("submit", "journal", "accepted", "completion")
POINTS = [point for point in fault_injection.POINTS if point.startswith(PARTS)]


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sanitized("drill", tmp_path_factory.mktemp("drill"))


@pytest.fixture(scope="module")
def oracle() -> set[str]:
    """Lines of an undisturbed run, by the Python client."""
    lines = set()
    angles = [[0.001 * row] for row in range(ROWS)]
    with simenv.local(workers=1) as env:
        for seed in range(JOBS):
            tasks = env.submit_many((TURN, angles), shots=200, seed=seed)
            for row, task in enumerate(tasks):
                counts = sorted(task.result().counts.items())
                text = " ".join(f"{bits}={count}" for bits, count in counts)
                lines.add(f"{seed} {row} {text}")
    return lines


def started(drill: Path, live: Live) -> subprocess.Popen[str]:
    assert environments.await_gateway(live.home) is not None
    with live.client() as client:
        secret = token(client)
    where = environ(SIMENV_SERVICE=str(live.home / "connection.json"), SIMENV_TOKEN=secret)
    return subprocess.Popen(
        [str(drill), "sweeps", str(ROWS)],
        env=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(program: subprocess.Popen[str], live: Live, oracle: set[str], tasks: int = TASKS) -> None:
    value, errors = program.communicate(timeout=280)
    assert program.returncode == 0, errors
    rows = [line for line in value.splitlines() if line[0].isdigit()]
    assert len(rows) == len(set(rows)) == JOBS * ROWS
    assert set(rows) == oracle
    with live.client() as client:
        assert len(list(client.history.tasks())) == tasks


def test_program_gets_every_row_once_after_random_kills(drill: Path, oracle: set[str]) -> None:
    chance = random.Random(16)
    live = Live(gateway=GATEWAY)
    live.up()
    try:
        with resurrected(live) as deaths:
            program = started(drill, live)
            assert program.stdout is not None
            assert program.stdout.readline() == "connected\n"  # a start needs a service
            while len(deaths) < KILLS and program.poll() is None:
                count = len(deaths)
                time.sleep(chance.uniform(0.0, 0.3))
                live.kill_service()
                while len(deaths) == count:
                    time.sleep(0.01)
                environments.await_gateway(live.home)
            check(program, live, oracle)
        assert deaths
    finally:
        live.down()


def has_gone(live: Live, gateway: GatewayFile) -> bool:
    return config.running_gateway(live.home) != gateway


def test_program_gets_every_row_once_after_kills_of_the_gateway(
    drill: Path, oracle: set[str]
) -> None:
    chance = random.Random(17)
    live = Live(gateway=GATEWAY)
    live.up()
    try:
        program = started(drill, live)
        assert program.stdout is not None
        assert program.stdout.readline() == "connected\n"
        kills = 0
        while kills < KILLS and program.poll() is None:
            time.sleep(chance.uniform(0.0, 0.3))
            gateway = environments.await_gateway(live.home)
            assert gateway is not None
            psutil.Process(gateway.pid).kill()
            kills += 1
            until(partial(has_gone, live, gateway))
        check(program, live, oracle)
        assert kills
    finally:
        live.down()


@pytest.mark.parametrize("point", POINTS)
def test_program_gets_every_row_once_after_kill_at_a_point_of_a_submit(
    point: str, drill: Path, oracle: set[str]
) -> None:
    live = Live(gateway=GATEWAY, faults=f"{point}:{7 if point.startswith('journal') else 2}:kill")
    live.up()
    try:
        with resurrected(live) as deaths:
            check(started(drill, live), live, oracle)
        assert len(deaths) == 1, f"{point} was never hit"
    finally:
        live.down()


def test_program_that_is_refused_by_a_service_that_shuts_down_waits_for_the_next(
    drill: Path, oracle: set[str]
) -> None:
    live = Live(gateway=GATEWAY)
    live.up()
    try:
        with live.client() as client:
            running = client.submit(busy(400), shots=1)  # the drain lasts
            until(lambda: running.state == TaskState.RUNNING)
            client.shutdown()
            program = started(drill, live)
            assert program.stdout is not None
            assert program.stdout.readline() == "connected\n"
            assert client.status().running, "it submits during the drain"
        until(lambda: not (live.home / "connection.json").exists())
        live.up(resume=True)
        check(program, live, oracle, TASKS + 1)
    finally:
        live.down()
