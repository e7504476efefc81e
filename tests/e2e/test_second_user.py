"""A second user of the machine cannot connect to an environment, read its files, put something into
its folders, run programs through its launcher, or answer in its place."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from circuits import bell
from failing import fails
from launched import below, missing, ranks_of
from live import Live
from other_user import attempt, impostor, skip_without_second_user
from waiting import until

from launcher import mpirun
from simenv import config, files
from simenv.client import environments
from simenv.client.client import Client
from simenv.client.connection import address
from simenv.errors import SimenvError
from simenv.wire.transport import unix_streams

LAUNCHERS = ("auto", "mpirun", "local")
RESULT_S = 120.0
START_S = 240.0  # a first start compiles kernels, beside other tests
SEGMENT = re.compile(r"(/dev/shm/\S+)$", re.MULTILINE)  # in /proc/PID/maps
BEGAN_S = psutil.Process().create_time()


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that everybody may enter, with a home and a folder for temporary files."""
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
    with environment(base, request.param) as outcome:
        outcome.up()
        with outcome.client() as env:
            for pool in outcome.options["pools"]:  # type: ignore[attr-defined]
                env.submit(bell(), shots=10, pool=pool["name"]).result(RESULT_S)
        yield outcome


@contextmanager
def environment(
    base: Path, launcher: str, *more: dict[str, object], kernels: Path | None = None
) -> Iterator[Live]:
    """An environment that is not up yet, of these and the launcher's pools, in such a folder."""
    ranks = launcher != "local"
    if why := missing("prte" if launcher == "auto" else launcher) if ranks else "":
        pytest.skip(why)
    pools: list[dict[str, object]] = [{"name": "main", "min": 1, "max": 1}, *more]
    if ranks:
        begun = int(kernels is None)  # a worker of several ranks would wait for all kernels
        pools.append({"name": "pair", "engine": "statevector", "min": begun, "max": 1, "ranks": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMENV_HOME", str(base / launcher))
        patch.setenv("TMPDIR", str(base / "tmp"))
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        patch.setattr(tempfile, "tempdir", None)
        if kernels is not None:
            patch.setenv("SIMENV_KERNELS", str(kernels))
        umask = os.umask(0o002)  # of many systems: every user has a group of the same name
        outcome = Live(pools=pools, launcher={"use": launcher}, start_timeout_s=START_S)
        try:
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
        with suppress(OSError, psutil.Error):  # it ends meanwhile
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


def test_shared_memory_of_ranks_is_in_a_folder_that_goes_with_the_service(live: Live) -> None:
    if live.options["launcher"] == {"use": "local"}:
        pytest.skip("workers of one rank share no memory")
    folder = config.segment_folder(Path(environments.read(live.home / "connection.json").sockets))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    maps = [Path(f"/proc/{rank.pid}/maps").read_text() for rank in ranks_of(live, "pair-0")]
    segments = {Path(name) for text in maps for name in SEGMENT.findall(text)}
    assert segments
    assert {path.parent for path in segments} == {folder}


def test_pmix_spawns_nothing_for_another_user(live: Live, base: Path, tmp_path: Path) -> None:
    if live.options["launcher"] == {"use": "local"}:
        pytest.skip("plain processes speak no PMIx")
    rank = ranks_of(live, "pair-0")[0]
    result = rank.environ()
    uri = next(result[name] for name in sorted(result) if name.startswith("PMIX_SERVER_URI"))
    control = attempt("pmix", uri, base / "by-owner", os.geteuid(), rank.pid)
    assert control == [str(base / "by-owner")], "the attempt itself does not work"
    assert attempt("pmix", uri, base / "by-other", os.geteuid()) == []


# --- a neighbour who waits for the end of the service ------------------------------------------

FUNCTIONS = {"name": "tools", "engine": "functions", "min": 1, "max": 1}
WAITED_S = 6.0  # a client's next attempt to connect comes within 1 s, its ping as well
SHOTS = 77


def submit_again(client: Client, ending: threading.Event) -> list[str]:
    """The outcomes of circuits that a client submits until then, whose service has gone."""
    outcomes: list[str] = []
    while not ending.is_set():
        with suppress(SimenvError):
            outcomes += client.submit(bell(), shots=SHOTS).result(0.3).counts
        time.sleep(0.1)
    return outcomes


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_clients_that_outlive_their_service_believe_no_neighbour(launcher: str, base: Path) -> None:
    mark = base / "tmp" / "called"
    results: list[object] = []
    with environment(base, launcher, FUNCTIONS) as live:
        live.up()
        service = str(live.home / "connection.json")
        sockets = Path(environments.read(Path(service)).sockets)
        with (
            live.client() as caller,
            live.client() as submitter,
            impostor(sockets, mark) as end_impostor,
        ):
            waiting = caller.functions().submit(time.sleep, 60)
            assert submitter.run(bell(), shots=10).shots == 10
            environments.down(live.name, now=True)
            lasting = sockets.parent
            assert lasting.name.startswith("simenv-sockets-")
            shutil.rmtree(lasting)  # as a cleaner of /tmp would do: keys alone protect now
            ending = threading.Event()
            thread = threading.Thread(
                target=lambda: results.extend(submit_again(submitter, ending))
            )
            thread.start()
            try:
                with suppress(SimenvError):
                    results.append(waiting.result(WAITED_S))
            finally:
                ending.set()
                thread.join()
            told = end_impostor()
            shutil.rmtree(lasting)  # the neighbour's, which the next service would avoid
    assert told == [f"listened {sockets}"]
    assert not mark.exists(), "the neighbour's code was run"
    assert results == []


@pytest.mark.parametrize("check", ["none", "ended", "weakness", "peer_of"])
def test_neighbour_is_believed_only_by_clients_without_any_check(
    check: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control of the test above: with all checks patched out of the client, the same neighbour
    runs code as the owner, and its outcomes are believed. Each check prevents it alone: whether the
    service has ended, whose its folder is, and which process is at the other end."""
    mark = base / "tmp" / f"called-{check}"
    with environment(base, "local", FUNCTIONS) as live:
        live.up()
        remaining = base / "remaining.json"  # `down` removes the file of the service
        shutil.copy2(live.home / "connection.json", remaining)
        file = environments.read(remaining)
        sockets = Path(file.sockets)
        patched = {
            "ended": (address, lambda _: False),
            "weakness": (files, lambda _: None),
            "peer_of": (unix_streams, lambda _: (file.pid, os.geteuid())),
        }
        with (
            Client(address.FileAddress(remaining)) as client,
            impostor(sockets, mark) as end_impostor,
            monkeypatch.context() as patch,
        ):
            call = client.functions().submit(time.sleep, 60)
            assert client.run(bell(), shots=10).shots == 10
            environments.down(live.name, now=True)
            for name, (module, replacement) in patched.items():
                if name != check:
                    patch.setattr(module, name, replacement)
            shutil.rmtree(sockets.parent)
            if check == "none":
                assert call.result(RESULT_S) == 0  # of the neighbour's command
                counts = client.submit(bell(), shots=SHOTS).result(RESULT_S).counts
                assert counts == {"01": 1}, "a Bell state has no such outcome"
            else:
                fails(SimenvError, "", call.result, WAITED_S)
            told = end_impostor()
            patch.undo()
            shutil.rmtree(sockets.parent)
    assert told[0] == f"listened {sockets}"
    assert mark.exists() is (check == "none")
    assert any(line.startswith("named") for line in told) is (check == "none")
    if check == "none":
        assert mark.read_text().startswith(f"uid={os.geteuid()}(")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_names_of_sockets_are_not_free_after_end_of_service(
    launcher: str, base: Path, tmp_path: Path
) -> None:
    with environment(base, launcher) as live:
        live.up()
        sockets = Path(environments.read(live.home / "connection.json").sockets)
        with impostor(sockets, tmp_path / "never") as end_impostor:
            environments.down(live.name, now=True)
            time.sleep(1.0)
            assert end_impostor() == [f"kept out of {sockets}"]


# --- the first start, whose kernels are not compiled -------------------------------------------

COMPILING = "simulators.compiler.warmup"
COMPILER_CPU_S = 5.0  # after its imports, which take about 2 s


class Observer:
    """Polls what the processes of this one open to others, and in whose names they are."""

    def __init__(self, folder: Path) -> None:
        self.ports: dict[int, str] = {}
        self.entries: set[str] = set()
        self.segments: set[Path] = set()  # of shared memory, with a name
        self.helped = False  # a process that compiles has got through its imports
        self._folder = folder
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Observer":
        self._others = {*psutil.Process().children(recursive=True)}  # of other environments
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        known: set[int] = set()
        while not self._ending.is_set():
            children = list({*psutil.Process().children(recursive=True)} - self._others)
            self.ports |= listening(children)
            self.entries |= {path.name for path in self._folder.iterdir()}
            for child in children:
                with suppress(psutil.Error, OSError):
                    maps = Path(f"/proc/{child.pid}/maps").read_text()
                    self.segments |= {Path(name) for name in SEGMENT.findall(maps)}
                    if COMPILING in child.cmdline():
                        known.add(child.pid)
                        self.helped |= child.cpu_times().user > COMPILER_CPU_S
            self.helped |= any(not psutil.pid_exists(pid) for pid in known)
            time.sleep(0.02)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_first_start_opens_no_port_and_no_name_others_can_take(launcher: str, base: Path) -> None:
    temporary = set((base / "tmp").iterdir())
    kernels = base / f"kernels-{launcher}"
    with environment(base, launcher, kernels=kernels) as live, Observer(base / "tmp") as observer:
        live.up()
        with live.client() as env:
            env.submit(bell(), shots=10).result(START_S)
            until(lambda: observer.helped, START_S)
        live.down()
    assert observer.ports == {}
    assert observer.entries - {p.name for p in temporary} <= {f"simenv-sockets-{os.geteuid()}"}
    assert not any(path.exists() for path in observer.segments)


def test_observer_sees_port_and_folder_of_a_process_that_loads_mpi(base: Path) -> None:
    """A control of the test above: what a process that compiles would open with Open MPI."""
    mpiruns = mpirun.find(os.environ)
    if not mpiruns or not mpiruns[0].family.is_open_mpi:
        pytest.skip("no Open MPI is here")
    argv = [sys.executable, "-c", "from mpi4py import MPI; input()"]
    environ = {name: value for name, value in os.environ.items() if "MCA" not in name}
    environ["TMPDIR"] = str(base / "tmp")
    with (
        Observer(base / "tmp") as observer,
        subprocess.Popen(argv, stdin=subprocess.PIPE, env=environ) as process,
    ):
        until(lambda: any(name.startswith("ompi.") for name in observer.entries.copy()), RESULT_S)
        until(lambda: observer.ports, RESULT_S)
        process.communicate(b"\n")
    assert all("mpi4py" in command for command in observer.ports.values())
