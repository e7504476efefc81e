"""A PostgreSQL server of Debian, for the tests of one process, and journals in it.

The server's programs refuse to run as root, which tests in containers are: then they run as nobody.
Where there is no server and it cannot be had, tests skip and say why, but not in CI.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from packages import bring

from simenv.service.journal import postgres
from simenv.service.journal.database import PostgresPlace

UNPACKED = Path(sys.prefix) / "var" / "simenv-postgresql"
NOBODY = 65534
SETTINGS = "-c fsync=off -c max_connections=60 -c shared_buffers=16MB"


def programs() -> Path:
    """The folder of `initdb` and `postgres`."""
    for root in (Path("/"), UNPACKED):
        for folder in sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True):
            if (folder / "postgres").exists():
                return folder
    why = bring("unpacked.sh", UNPACKED, "postgresql")
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)
    return next(UNPACKED.glob("usr/lib/postgresql/*/bin"))


def as_user(*words: str | Path) -> list[str]:
    """The words of a command of the server's user."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [*(user if os.geteuid() == 0 else []), *map(str, words)]


def make_cluster(folder: Path) -> None:
    """A new cluster of databases in `folder`/data, which trusts whoever reaches it."""
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    command = as_user(programs() / "initdb", "-D", folder / "data", "-U", "simenv", "-A", "trust")
    subprocess.run([*command, "--no-sync", "-E", "UTF8"], check=True, capture_output=True)


@cache
def server() -> str:
    """The URL of the server of this process, which ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="simenv-pg-", dir="/tmp"))
    make_cluster(folder)
    control = programs() / "pg_ctl"
    settings = f"{SETTINGS} -c listen_addresses= -k {folder}"
    start = ["-D", folder / "data", "-w", "-l", folder / "log", "-o", settings, "start"]
    # Not of a test: what a test that failed has left is ended by these variables.
    environ = {k: v for k, v in os.environ.items() if k not in ("SIMENV_HOME", "TMPDIR")}
    subprocess.run(as_user(control, *start), check=True, env=environ, stdout=subprocess.DEVNULL)

    def end() -> None:
        stop = as_user(control, "-D", folder / "data", "-m", "immediate", "stop")
        subprocess.run(stop, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return f"postgresql://simenv@/postgres?host={folder}"


@contextmanager
def new_place() -> Iterator[PostgresPlace]:
    """A place for a new journal; whatever is opened meanwhile is closed at the end."""
    opened = []

    class Recorded(postgres.PostgresDatabase):
        def __init__(self, *args: object, **options: object) -> None:
            opened.append(self)
            super().__init__(*args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "PostgresDatabase", Recorded)
        yield PostgresPlace(server(), f"t{uuid.uuid4().hex[:12]}")
        for each in opened:
            each.abandon()
