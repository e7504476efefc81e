"""A home of their own for all tests, with kernels kept between runs; and a watch over leaks."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from simulators import warm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "support"))
KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
LEAK_PATIENCE_S = 5.0


def pytest_configure() -> None:
    """Before anything is collected: no test touches the user's own environments or folders."""
    base = Path(tempfile.mkdtemp(prefix="simenv-tests-"))
    for variable, folder in (("SIMENV_HOME", "home"), ("TMPDIR", "tmp")):
        (base / folder).mkdir(mode=0o700)
        os.environ[variable] = str(base / folder)
    tempfile.tempdir = None  # read TMPDIR again
    os.environ["SIMENV_KERNELS"] = str(KERNELS)
    for variable in ("SIMENV_SERVICE", "XDG_RUNTIME_DIR"):
        os.environ.pop(variable, None)
    warm.prepare(KERNELS)


def pytest_unconfigure() -> None:
    shutil.rmtree(Path(os.environ["SIMENV_HOME"]).parent)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Nothing of ours is left behind: processes, sockets' folders, threads."""
    threads = set(threading.enumerate())
    folders = _ours()
    yield
    children = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=LEAK_PATIENCE_S)
    assert not alive, f"processes are left: {[p.cmdline() for p in alive]}"
    for thread in set(threading.enumerate()) - threads:
        thread.join(LEAK_PATIENCE_S)
        assert not thread.is_alive(), f"thread {thread.name} is left"
    assert _ours() == folders, "socket or home folders are left"


def _ours() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("simenv-*"))
