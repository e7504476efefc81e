"""Journals in a PostgreSQL server that the tests of one process share.

Where there is no server and it cannot be had, tests skip and say why, but not in CI.
"""

import atexit
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from packages import bring

from bench.testbed.postgres_server import UNPACKED, PostgresServer, programs
from simenv.service.journal import postgres
from simenv.service.journal.database import PostgresPlace


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


@contextmanager
def new_place(lease_s: float = 8.0) -> Iterator[PostgresPlace]:
    """A place for a new journal; whatever is opened meanwhile is closed at the end."""
    opened = []

    class Recorded(postgres.PostgresDatabase):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            opened.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "PostgresDatabase", Recorded)
        yield PostgresPlace(server(), f"t{uuid.uuid4().hex[:12]}", lease_s)
        for each in opened:
            each.abandon()
