"""A home of their own for all tests, with kernels kept between runs; and a watch over leaks."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "support"))
KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
LEAK_PATIENCE_S = 5.0


def pytest_configure() -> None:
    """Before anything is collected: no test touches the user's own environments."""
    os.environ["SIMENV_HOME"] = tempfile.mkdtemp(prefix="simenv-tests-")
    os.environ["SIMENV_KERNELS"] = str(KERNELS)
    os.environ.pop("SIMENV_SERVICE", None)


def pytest_unconfigure() -> None:
    home = Path(os.environ["SIMENV_HOME"])
    for folder, folders, files in os.walk(home, topdown=False):
        for name in files:
            (Path(folder) / name).unlink()
        for name in folders:
            (Path(folder) / name).rmdir()
    home.rmdir()


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


def _ours() -> set[str]:
    bases = {tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()}
    return {
        str(path)
        for base in bases
        for path in Path(base).glob("simenv-*")
        if not path.name.startswith("simenv-tests-")
    }
