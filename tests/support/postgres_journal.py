"""Journals in a PostgreSQL server that the tests of one process share.

Where there is no server and it cannot be had, tests skip and say why, but not in CI.
"""

import atexit
import os
import shutil
import subprocess
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packages import bring

from bench.testbed.postgres_server import UNPACKED, PostgresServer, programs
from simenv.service.journal.database import PostgresPlace
from simenv.service.journal.postgres import PostgresDatabase


def need_server() -> None:
    """Get the programs of the server, or skip."""
    why = "" if programs() else bring("unpacked.sh", UNPACKED, "postgresql")
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


@cache
def server() -> str:
    """The URL of the server of this process, which ends with it."""
    need_server()
    folder = Path(tempfile.mkdtemp(prefix="simenv-pg-", dir="/tmp"))
    # Not of a test: what a test that failed has left is ended by these variables.
    environ = {k: v for k, v in os.environ.items() if k not in ("SIMENV_HOME", "TMPDIR")}

    def run(command: list[str]) -> None:
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)

    found = PostgresServer(folder, run)
    found.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(found.stop)
    return found.url


_opened = defaultdict[str, list[PostgresDatabase]](list)  # by environment


def _recorded(self: PostgresDatabase, place: PostgresPlace, *args: Any, **options: Any) -> None:
    _opened[place.environment].append(self)
    _init(self, place, *args, **options)


_init, PostgresDatabase.__init__ = PostgresDatabase.__init__, _recorded  # type: ignore[method-assign]


@contextmanager
def new_place(lease_s: float = 8.0) -> Iterator[PostgresPlace]:
    """A place for a new journal; whatever was opened there is closed at the end."""
    place = PostgresPlace(server(), f"t{uuid.uuid4().hex[:12]}", lease_s)
    yield place
    for each in _opened.pop(place.environment, []):
        if hasattr(each, "_session"):
            each.abandon()
