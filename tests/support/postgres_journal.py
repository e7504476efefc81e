"""Journals in a PostgreSQL server that the tests of one process share.

Where there is no server and it cannot be had, tests skip and say why, but not in CI.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packages import bring

from simenv.service.journal.database import PostgresPlace
from simenv.service.journal.postgres import PostgresDatabase
from testbed.postgres_server import UNPACKED, PostgresServer, programs

FAKETIME = Path(sys.prefix) / "var" / "simenv-faketime"


def need_server() -> None:
    """Get the programs of the server, or skip."""
    _need("" if programs() else bring("unpacked.sh", UNPACKED, "postgresql"))


def _need(why: str) -> None:
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


@cache
def server() -> str:
    """The URL of the server of this process, which ends with it."""
    found = _started([])
    atexit.register(_end, *found)
    return found[0].url


def _started(more: list[str]) -> tuple[PostgresServer, Path]:
    need_server()
    folder = Path(tempfile.mkdtemp(prefix="simenv-pg-", dir="/tmp"))
    # Not of a test: what a test that failed has left is ended by these variables.
    environ = {k: v for k, v in os.environ.items() if k not in ("SIMENV_HOME", "TMPDIR")}

    def run(command: list[str]) -> None:
        start = next(k for k, word in enumerate(command) if word.endswith("/pg_ctl"))
        command = [*command[:start], "env", *more, *command[start:]]  # as the server's user
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)

    found = PostgresServer(folder, run)
    found.start()
    return found, folder


def _end(server: PostgresServer, folder: Path) -> None:
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stepped_server() -> Iterator[tuple[str, Callable[[str], None]]]:
    """The URL of a server of its own, and a function that steps its clock away from this machine's:
    "+3600" are seconds."""
    _need(bring("unpacked.sh", FAKETIME, "libfaketime"))
    with tempfile.NamedTemporaryFile("w", prefix="simenv-step-", dir="/tmp") as file:
        os.chmod(file.name, 0o644)  # the server is nobody's

        def step(offset: str) -> None:
            Path(file.name).write_text(f"{offset}\n")

        step("+0")
        (library,) = FAKETIME.glob("usr/lib/*/faketime/libfaketime.so.1")
        found = _started(
            [
                f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={file.name}",
                "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ]
        )  # fmt: skip
        try:
            yield found[0].url, step
        finally:
            _end(*found)


_opened = defaultdict[str, list[PostgresDatabase]](list)  # by environment


def _recorded(self: PostgresDatabase, place: PostgresPlace, *args: Any, **options: Any) -> None:
    _opened[place.environment].append(self)
    _init(self, place, *args, **options)


_init, PostgresDatabase.__init__ = PostgresDatabase.__init__, _recorded  # type: ignore[method-assign]


@contextmanager
def new_place(lease_s: float = 8.0, url: str = "") -> Iterator[PostgresPlace]:
    """A place for a new journal, closed at the end. `url`: of the server; "": the shared one."""
    place = PostgresPlace(url or server(), f"t{uuid.uuid4().hex[:12]}", lease_s)
    yield place
    for each in _opened.pop(place.environment, []):
        if hasattr(each, "_session"):
            each.abandon()
