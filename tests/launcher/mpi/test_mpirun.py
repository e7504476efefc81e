"""One mpirun for each worker, with real MPIs: hello, ends, deaths."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import mpis
import psutil
import pytest
import waiting

from launcher import mpirun, probe
from launcher.base import Command, Exit, Share
from launcher.mpirun import MpirunLauncher

HERE = os.uname().nodename
WAIT_S = 60.0
T = TypeVar("T")
# A rank as our workers are: it dies with what started it.
RANK = """
import ctypes, json, os, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
from mpi4py import MPI
comm = MPI.COMM_WORLD
place = [os.uname().nodename, os.environ.get("MARK"), os.getcwd()]
facts = [comm.rank, comm.size, os.getpid(), *place]
sys.stdout.write(json.dumps(facts) + "\\n")
sys.stdout.flush()
comm.Barrier()
"""


@pytest.fixture(params=mpis.NAMES)
def mpi(request: pytest.FixtureRequest) -> mpis.RealMpi:
    return mpis.real(request.param)


@pytest.fixture
def launcher(mpi: mpis.RealMpi, tmp_path: Path) -> Iterator[MpirunLauncher]:
    folder = tmp_path / "launcher"
    folder.mkdir(mode=0o700)
    with closing(MpirunLauncher(mpi.mpirun, folder)) as result:
        yield result


def command(mpi: mpis.RealMpi, folder: Path, then: str, ranks: int = 2) -> Command:
    environ = (*mpi.environ.items(), ("MARK", "a 'b' $c"))
    argv = (sys.executable, "-P", "-c", RANK + then)
    return Command("w", argv, environ, folder / "w.log", folder, 5, (Share(HERE, ranks),))


def until(look: Callable[[], T], log: Path) -> T:
    """The first value of `look` that is true."""
    return waiting.until(look, WAIT_S, message=log.read_text)


def facts(log: Path) -> list[list[object]]:
    """What the ranks have said, by rank."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("[") and "," in line]
    return sorted(json.loads(line) for line in lines)


def alive(log: Path) -> list[int]:
    return [int(str(fact[2])) for fact in facts(log) if psutil.pid_exists(int(str(fact[2])))]


def end_of(launcher: MpirunLauncher, log: Path) -> Exit:
    return until(launcher.poll_exits, log)[0]


def test_ranks_of_worker_share_comm_world(mpi: mpis.RealMpi, tmp_path: Path) -> None:
    def make() -> MpirunLauncher:
        return MpirunLauncher(mpi.mpirun, tmp_path)

    outcome = probe.probe_launcher("mpirun", "it", "", make, mpi.environ, tmp_path, WAIT_S)
    assert outcome.works, outcome.detail
    assert outcome.detail.startswith(mpi.library)
    assert list(tmp_path.iterdir()) == []


def test_ranks_keep_their_environment_and_exit_code(
    mpi: mpis.RealMpi, launcher: MpirunLauncher, tmp_path: Path
) -> None:
    result = command(mpi, tmp_path, "MPI.Finalize(); os._exit(3)", ranks=3)
    pid = launcher.start(result)
    end = end_of(launcher, result.log)
    # Hydra ends the others when the first one has, and may tell of them.
    codes = (3, 9) if mpi.library == "MPICH" else (3,)
    assert (end.name, end.pid, end.start) == ("w", pid, 5)
    assert end.code in codes
    assert [[*fact[:2], *fact[3:]] for fact in facts(result.log)] == [
        [rank, 3, HERE, "a 'b' $c", str(tmp_path)] for rank in range(3)
    ]


def test_killed_rank_ends_all(mpi: mpis.RealMpi, launcher: MpirunLauncher, tmp_path: Path) -> None:
    result = command(mpi, tmp_path, "time.sleep(300)")
    launcher.start(result)
    until(lambda: len(facts(result.log)) == 2, result.log)
    os.kill(int(str(facts(result.log)[1][2])), signal.SIGKILL)
    assert end_of(launcher, result.log).code != 0
    until(lambda: not alive(result.log), result.log)


def test_kill_ends_stubborn_ranks(
    mpi: mpis.RealMpi, launcher: MpirunLauncher, tmp_path: Path
) -> None:
    deaf = "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
    unbound = "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"  # not even bound to its starter
    result = command(mpi, tmp_path, deaf + unbound + "print('deaf', flush=True); time.sleep(300)")
    launcher.start(result)
    until(lambda: result.log.exists() and result.log.read_text().count("deaf") == 2, result.log)
    launcher.kill("w")
    assert end_of(launcher, result.log).reason == "signal 9 (SIGKILL)"
    assert launcher.running() == []
    until(lambda: not alive(result.log), result.log)


def test_close_ends_all_ranks(mpi: mpis.RealMpi, launcher: MpirunLauncher, tmp_path: Path) -> None:
    result = command(mpi, tmp_path, "time.sleep(300)")
    launcher.start(result)
    until(lambda: len(facts(result.log)) == 2, result.log)
    launcher.close()
    until(lambda: not alive(result.log), result.log)


SERVICE = """
import json, sys
from pathlib import Path
from launcher import mpirun
from launcher.base import Command, Share
path, argv, environ, folder, node = json.load(sys.stdin)
found = mpirun.identify(Path(path), environ)
launcher = mpirun.MpirunLauncher(found, Path(folder))
environ = tuple(environ.items())
log = Path(folder) / "w.log"
launcher.start(Command("w", tuple(argv), environ, log, Path(folder), 1, (Share(node, 2),)))
print("started", flush=True)
sys.stdin.read()
import signal; signal.pause()
"""


def test_ranks_end_with_a_killed_service(mpi: mpis.RealMpi, tmp_path: Path) -> None:
    result = command(mpi, tmp_path, "time.sleep(300)")
    entries = [mpi.mpirun.path, result.argv, mpi.environ, str(tmp_path), HERE]
    argv = [sys.executable, "-P", "-c", SERVICE]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as outcome:
        assert outcome.stdin is not None
        outcome.stdin.write(json.dumps(entries))
        outcome.stdin.close()
        until(lambda: result.log.exists() and len(facts(result.log)) == 2, result.log)
        below = psutil.Process(outcome.pid).children(recursive=True)
        assert len(below) >= 3
        outcome.kill()
        _, left = psutil.wait_procs(below, WAIT_S)
    assert not left, [process.cmdline() for process in left]


@pytest.mark.parametrize(
    ("text", "words", "infrastructure_failure"),
    [
        ("  Remote daemon: [prterun-n1-7@0,1] on node n2\n", "signal 9 (SIGKILL), without", True),
        ("  Local host: n1\n  Remote host: n2\n", "signal 9 (SIGKILL), without", False),
        ("", "signal 9 (SIGKILL)", False),
    ],
)
def test_lost_remote_daemon_is_infrastructure_failure(
    tmp_path: Path, text: str, words: str, infrastructure_failure: bool
) -> None:
    log = tmp_path / "w.log"
    log.write_text("Remote daemon: [x] on node n3\n" + text)
    code, value, free = mpirun._translate_mpirun_exit(
        log, len("Remote daemon: [x] on node n3\n"), 137
    )
    assert (code, value[: len(words)], free) == (-9, words, infrastructure_failure)


def test_program_with_unknown_version_output_is_not_taken_as_mpirun(tmp_path: Path) -> None:
    for name, text in (("mpirun", "echo Open MPI 5.0"), ("mpiexec", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o700)
    assert mpirun.find({"PATH": str(tmp_path)}, prefix=str(tmp_path / "none")) == []
    (tmp_path / "mpiexec").write_text("#!/bin/sh\necho 'mpirun (Open MPI) 5.0.11'\n")
    result = mpirun.find({"PATH": str(tmp_path)}, prefix=str(tmp_path / "none"))
    assert [(each.path, each.version, each.prefix) for each in result] == [
        (str(tmp_path / "mpiexec"), "5.0.11", "")
    ]
