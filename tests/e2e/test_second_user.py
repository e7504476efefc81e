"""A second user of the machine cannot connect to an environment, read its files, put something into
its folders, or run programs through its launcher."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from circuits import bell
from launched import below, missing, ranks_of
from live import Live
from other_user import attempt, skip_without_second_user

LAUNCHERS = ("auto", "mpirun", "local")
RESULT_S = 120.0
BEGAN_S = psutil.Process().create_time()


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that everybody may enter, with a home and a folder for temporary files: whatever
    keeps others out must be what simenv has made."""
    skip_without_second_user()
    path = Path(tempfile.mkdtemp(prefix="simenv-second-", dir="/tmp"))
    path.chmod(0o755)
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", params=LAUNCHERS)
def live(request: pytest.FixtureRequest, base: Path) -> Iterator[Live]:
    """An environment that has run something, with a worker of two ranks where there is an MPI."""
    launcher = request.param
    ranks = launcher != "local"
    if why := missing("prte" if launcher == "auto" else launcher) if ranks else "":
        pytest.skip(why)
    pools = [{"name": "main", "min": 1, "max": 1}]
    if ranks:
        pools.append({"name": "pair", "engine": "statevector", "min": 1, "max": 1, "ranks": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMENV_HOME", str(base / launcher))
        patch.setenv("TMPDIR", str(base / "tmp"))
        patch.setattr(tempfile, "tempdir", None)
        umask = os.umask(0o002)  # of many systems: every user has a group of the same name
        outcome = Live(pools=pools, launcher={"use": launcher})
        try:
            outcome.up()
            with outcome.client() as env:
                for pool in pools:
                    env.submit(bell(), shots=10, pool=pool["name"]).result(RESULT_S)
            yield outcome
        finally:
            outcome.down()
            os.umask(umask)


def listening(processes: list[psutil.Process]) -> dict[int, str]:
    """TCP ports on which these processes listen in our own network namespace, and who."""
    inodes = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A":
                inodes[f"socket:[{parts[9]}]"] = int(parts[1].rpartition(":")[2], 16)
    mapping = {}
    for process in processes:
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            port = inodes.get(os.readlink(entry))
            if port:
                mapping[port] = " ".join(process.cmdline())
    return mapping


def test_single_node_environment_listens_on_no_tcp_port(live: Live) -> None:
    assert listening(below(live.service().pid)) == {}


def test_sockets_refuse_another_user(live: Live, base: Path) -> None:
    sockets = [path for path in base.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert len(sockets) >= 2
    assert attempt("connect", *sockets) == []


def test_files_and_folders_refuse_another_user(live: Live, base: Path) -> None:
    folders = [live.home.parent, *(base / "tmp").iterdir()]
    shared = [path for path in Path("/dev/shm").iterdir() if path.lstat().st_mtime > BEGAN_S]
    assert attempt("files", *folders, *shared) == []


def test_pmix_spawns_nothing_for_another_user(live: Live, base: Path, tmp_path: Path) -> None:
    if live.options["launcher"] == {"use": "local"}:
        pytest.skip("plain processes speak no PMIx")
    rank = ranks_of(live, "pair-0")[0]
    result = rank.environ()
    uri = next(result[name] for name in sorted(result) if name.startswith("PMIX_SERVER_URI"))
    control = attempt("pmix", uri, base / "by-owner", os.geteuid(), rank.pid)
    assert control == [str(base / "by-owner")], "the attempt itself does not work"
    assert attempt("pmix", uri, base / "by-other", os.geteuid()) == []
