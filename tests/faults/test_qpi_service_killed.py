"""kill -9 of the service while a compiled program submits and waits.

The program goes on, gets every row once, and its counts are those of an undisturbed run; no task
is submitted twice.
"""

import random
import subprocess
import time
from pathlib import Path

import pytest
from busy_circuits import busy
from live import Live, resurrected
from qpi_programs import environ, sanitized
from waiting import until

import simenv
from simenv.model import TaskState
from simenv.service import fault_injection

pytestmark = pytest.mark.usefixtures("no_leaks")

JOBS = 8  # of drill.c
ROWS = 300  # two tasks of each job
TASKS = 2 * JOBS
KILLS = 6
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
    where = environ(SIMENV_SERVICE=str(live.home / "connection.json"))
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
    live = Live()
    live.up()
    try:
        with resurrected(live) as deaths:
            program = started(drill, live)
            assert program.stdout is not None
            assert program.stdout.readline() == "connected\n"  # a start needs a service
            while len(deaths) < KILLS and program.poll() is None:
                count = len(deaths)
                time.sleep(chance.uniform(0.0, 0.1))
                live.kill_service()
                while len(deaths) == count:
                    time.sleep(0.01)
            check(program, live, oracle)
        assert deaths
    finally:
        live.down()


@pytest.mark.parametrize("point", POINTS)
def test_program_gets_every_row_once_after_kill_at_a_point_of_a_submit(
    point: str, drill: Path, oracle: set[str]
) -> None:
    live = Live(faults=f"{point}:{7 if point.startswith('journal') else 2}:kill")
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
    live = Live()
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
