"""A home of their own for all tests, with kernels kept between runs; and a watch over leaks."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import settings

from simenv.config import lasting_socket_folder
from simenv.config.paths import QUIET

# Before NumPy is loaded: threads of its library would spin, and beside other processes of tests
# that takes several times the CPU of what they compute. Programs that tests start inherit it.
os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})

from simulators.compiler import warmup

if TYPE_CHECKING:
    from shared_environment import SharedEnvironment

    from simenv.client.client import Client

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "support"), str(HERE.parent)]  # the package bench is not installed
KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
LEAK_PATIENCE_S = 30.0
# Of `make slow`. Tests name a number of examples only where less than Hypothesis' 100 are enough.
settings.register_profile("slow", settings.default, max_examples=1_000)
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LAST = 19  # as ranks do: those of one test would get next to nothing beside busier ones of others


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected: no test touches the user's own environments or folders, nor
    those of tests that run beside it."""
    one_of_several = getattr(config, "workerinput", None)
    if one_of_several is None:
        base = Path(tempfile.mkdtemp(prefix="simenv-tests-"))
        if config.getoption("numprocesses", None):  # they must find the same tests in one order
            os.environ.setdefault("PYTHONHASHSEED", str(os.getpid()))
    else:  # below the folder of the process that started this one; a socket's path must be short
        base = Path(os.environ["SIMENV_HOME"]).parent / one_of_several["workerid"]
        base.mkdir()
        config.option.basetemp = str(base / "pytest")
        os.environ.pop("PYTHONHASHSEED", None)
        os.nice(LAST)
        if [Path(each).resolve() for each in config.args] == [HERE]:
            index = int(one_of_several["workerid"].removeprefix("gw"))
            config.args = _shared_out(index, one_of_several["workercount"])
    for variable, folder in (("SIMENV_HOME", "home"), ("TMPDIR", "tmp")):
        (base / folder).mkdir(mode=0o700)
        os.environ[variable] = str(base / folder)
    tempfile.tempdir = None  # read TMPDIR again
    os.environ["SIMENV_KERNELS"] = str(KERNELS)
    for variable in ("SIMENV_SERVICE", "SIMENV_ACCOUNT", "SIMENV_QOS", "XDG_RUNTIME_DIR"):
        os.environ.pop(variable, None)
    import skipped

    config.pluginmanager.register(skipped)
    warmup.prepare(KERNELS)
    if one_of_several is not None:
        warmup.compile_all(KERNELS)  # together: each would compile it all when it collects


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from spread import AtOnce, Spread

    config.pluginmanager.register(AtOnce(config))
    config.option.loadscopereorder = False  # the order is ours
    return Spread(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, and keep what was collected from it: it would go
    through millions of objects that live to the end, again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def _shared_out(index: int, count: int) -> list[str]:
    """All folders of tests, first the share of one of several processes: what it has rewritten for
    `assert` the others find, when they come there."""
    places: list[Path] = []
    for folder in HERE.glob("*/"):
        inner = [each for each in folder.glob("*/") if any(each.rglob("test_*.py"))]
        places += [*inner, *folder.glob("test_*.py")] if inner else [folder]
    places.sort(key=lambda place: (-len(list(place.rglob("test_*.py"))), place))
    shares = [places[start::count] for start in range(count)]
    return [str(place) for share in (*shares[index:], *shares[:index]) for place in share]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Drills are in few files: who wants nothing else reads no other."""
    from spread import may_have_drills

    if not config.option.markexpr.startswith("drill") or collection_path.suffix != ".py":
        return None
    return None if may_have_drills(collection_path.relative_to(HERE.parent).as_posix()) else True


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from spread import is_drill, is_slow, of_other_shard, rank_of

    shard = os.environ.get("SHARD", "all")
    for item in items:
        if shard != "all" and of_other_shard(item.nodeid, int(shard)):
            item.add_marker(pytest.mark.other_shard)
        if is_drill(item.nodeid):
            item.add_marker(pytest.mark.drill)
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (rank_of(item.nodeid), item.path))


def pytest_unconfigure() -> None:
    shutil.rmtree(Path(os.environ["SIMENV_HOME"]).parent)


@pytest.fixture(scope="session")
def shared_environment() -> Iterator[SharedEnvironment]:
    from shared_environment import SharedEnvironment

    environment = SharedEnvironment()
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def env(shared_environment: SharedEnvironment) -> Iterator[Client]:
    """An environment of two workers; a module whose tests need another has a fixture of its own."""
    client = shared_environment.client()
    yield client
    client.cancel([info.id for info in client.queue()[1]])


@pytest.fixture(scope="module", autouse=True)
def nothing_outlives_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """What tests that failed have left ends with their module, and is in no other's way."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and _is_ours(process):
                    process.kill()


@pytest.fixture(autouse=True)
def orphans_are_adopted_by_none() -> Iterator[None]:
    """A test that makes this process a parent of orphans must not leave it so: it reaps none."""
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _is_ours(process: psutil.Process) -> bool:
    """Was it started by our tests, or by what these started?"""
    result = process.environ()
    return any(result.get(name) == os.environ[name] for name in ("SIMENV_HOME", "TMPDIR"))


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Nothing of ours is left behind: processes, sockets' folders, threads."""
    threads = set(threading.enumerate())
    folders, before = _ours(), set(psutil.Process().children(recursive=True))
    yield
    children = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(list(children), timeout=LEAK_PATIENCE_S)
    assert not alive, f"processes are left: {[p.cmdline() for p in alive]}"
    for thread in set(threading.enumerate()) - threads:
        if thread.name == "simenv-qiskit":  # it has imported Qiskit, and stays on purpose
            continue
        thread.join(LEAK_PATIENCE_S)
        assert not thread.is_alive(), f"thread {thread.name} is left"
    assert _ours() == folders, "socket or home folders are left"


def _ours() -> set[Path]:
    """Folders of environments; the lasting folder of all sockets stays, what is in it does not."""
    lasting = lasting_socket_folder()
    return {*Path(tempfile.gettempdir()).glob("simenv-*"), *lasting.iterdir()} - {lasting}
