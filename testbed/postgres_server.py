"""A PostgreSQL server of Debian for tests and benchmarks, in a folder of its own.

The server's programs refuse to run as root, which benchmarks in containers are: then they run as
nobody. It trusts whoever reaches it: a Unix socket in its folder, or hosts of a test cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

UNPACKED = Path(sys.prefix) / "var" / "simenv-postgresql"
SCRIPT = Path(__file__).parents[1] / "scripts" / "unpacked.sh"
NOBODY = 65534
PORT = 5432
NETWORK = "10.77.0.0/24"  # of test clusters
Run = Callable[[list[str]], object]


def programs() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`; None if there is none."""
    for root in (Path("/"), UNPACKED):
        for folder in sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True):
            if (folder / "postgres").exists():
                return folder
    return None


def brought() -> Path:
    """Return the folder of the programs, which are unpacked if there are none."""
    if programs() is None:
        subprocess.run([SCRIPT, UNPACKED, "postgresql"], check=True)
    folder = programs()
    assert folder is not None
    return folder


class PostgresServer:
    """One server in a folder. `run`: runs a command where the server is to be."""

    def __init__(self, folder: Path, run: Run, *, safe: bool = False, address: str = "") -> None:
        """`safe`: commits are forced to disk. `address`: at which hosts of a test cluster reach it;
        "": by its socket only."""
        self._folder, self._run, self._address = folder, run, address
        self._programs = brought()
        folder.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        make = [self._programs / "initdb", "-D", folder / "data", "-U", "simenv", "-A", "trust"]
        subprocess.run(
            _as_user(*make, "--no-sync", "-E", "UTF8"), check=True, stdout=subprocess.DEVNULL
        )
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORK} trust\n")
        settings = {
            "listen_addresses": f"'{address}'",
            "unix_socket_directories": f"'{folder}'",
            "fsync": "on" if safe else "off",
            "max_connections": "300",
            "shared_buffers": "32MB",
        }
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())

    @property
    def url(self) -> str:
        """The address of its database."""
        if self._address:
            return f"postgresql://simenv@{self._address}:{PORT}/postgres"
        return f"postgresql://simenv@/postgres?host={self._folder}"

    def start(self) -> None:
        self._control("-w", "-l", str(self._folder / "log"), "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        self._run(_as_user(self._programs / "pg_ctl", "-D", self._folder / "data", *words))


def _as_user(*words: str | Path) -> list[str]:
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [*(user if os.geteuid() == 0 else []), *map(str, words)]
