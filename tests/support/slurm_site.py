"""A site with Slurm as the guide says: an environment of root on the login node, slurmctld as the
user slurm, who is its admin, and `--qpu` of the jobs of two users.

    with site(4) as it:
        number = it.submit("user0", "job.sh", "--qpu=fez_emulated")

The users have accounts on these hosts alone: each has its own /etc/passwd and /etc/group, in its
mount namespace, where also folders that only root may enter are open to them as far as they lead to
the interpreter and the packages.
"""

import json
import pwd
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import slurm_jobs
from cluster_slurm import LOGIN, slurm, start_controller, start_node
from site_users import Accounts

from simenv.frontends.slurm import LICENSES, build
from testbed.cluster import Cluster
from testbed.cluster_environment import wait_for

PORT, WEB_PORT = 7481, 8480
LATE_S = 5.0  # goal: from the end of a job, as Slurm sees it, to the end of its reservation
CLUSTER = "simenv"
SLURM_USER = "slurm"  # of Debian's package
POOL, WORKERS = "fez_emulated", 3
OTHER, OTHERS = "small", 2  # a pool on the same slots
ADDRESS = f"munge:root@{LOGIN}:{PORT}/default"
CONFIG = """
listen = "tcp://{address}:0"
launcher = {{use = "local"}}
[[pools]]
name = "{pool}"
device = "fez"
min = {workers}
max = {workers}
[[pools]]
name = "{other}"
engine = "statevector"
min = 0
max = {others}
[identity]
use = ["keys", "munge"]
users = ["user0", "user1"]
admins = ["slurm"]
listen = "tcp://{address}:{port}"
[gateway]
listen = "{address}:{web_port}"
[limits.client]
max_reserved_percent = 1  # without Slurm nobody reserves a worker
"""
# OPEN FOLDER PATH...: a folder that only root may enter is hidden by an open one, in which the ways
# to the paths are as they were.
OPEN = """
set -e
folder=$1
shift
holder=$(mktemp -d /dev/shm/open-XXXXXX)
for path; do mkdir -p "$holder$path"; mount --bind "$path" "$holder$path"; done
mount -t tmpfs -o mode=755 tmpfs "$folder"
for path; do mkdir -p "$path"; mount --move "$holder$path" "$path"; done
"""


def closed_parent(path: Path) -> Path | None:
    """The outermost folder on the way to a path that others may not enter."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def open_to_users(cluster: Cluster, name: str) -> None:
    """Give a host the accounts, and open the ways to the programs."""
    needed = (sys.base_prefix, sys.prefix, Path(__file__).parents[2], cluster.folder)
    closed: dict[Path, set[Path]] = {}
    for path in map(Path, needed):
        closed.setdefault(closed_parent(path) or path, set()).add(path)
    for table in ("passwd", "group"):
        cluster.run(name, ["mount", "--bind", cluster.folder / table, f"/etc/{table}"])
    for parent, paths in closed.items():
        if parent not in paths:
            cluster.run(name, ["sh", "-c", OPEN, "sh", parent, *paths])


class Site:
    """The running site."""

    def __init__(
        self, cluster: Cluster, accounts: Accounts, prepared: Callable[[str], None]
    ) -> None:
        """`prepared`: opens a host that was just made to the users."""
        self.cluster = cluster
        self.accounts = accounts
        self._prepared = prepared
        self.folder = cluster.folder / "jobs"
        self.folder.mkdir(mode=0o777)
        self.folder.chmod(0o777)

    def as_user(self, user: str, *argv: str | Path, check: bool = True, **more: str) -> str:
        """Run a command on the login node as a user; its output. `more`: its variables."""
        words, environ = self._of_user(user, argv)
        environ |= more
        done = self.cluster.run(LOGIN, words, environ, check=check, cwd=self.folder)
        return done.stdout if check else done.stdout + done.stderr

    def started_as(self, user: str, *argv: str | Path) -> "subprocess.Popen[str]":
        """Start a command on the login node as a user."""
        words, environ = self._of_user(user, argv)
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        return self.cluster.popen(LOGIN, words, environ, cwd=self.folder, **pipes)

    def _of_user(
        self, user: str, argv: Sequence[str | Path]
    ) -> tuple[list[str | Path], dict[str, str]]:
        """The command of a user, and its environment."""
        uid = self.accounts.uids.get(user) or pwd.getpwnam(user).pw_uid
        words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *argv]
        return words, {"HOME": "/nonexistent", "USER": user, "SIMENV_HOME": "/nonexistent"}

    def submit(self, user: str, script: Path, *options: str, **more: str) -> int:
        """Submit a batch script; the number of its job. `more`: variables of the user."""
        argv = ["sbatch", "--parsable", f"--output={self.folder}/%j.out", *options, script]
        return int(self.as_user(user, *argv, **more))

    def script(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def shown(self, job: int, form: str = "%T %r") -> str:
        argv = ["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={form}"]
        return self.cluster.run(LOGIN, argv, check=False).stdout.strip()

    def output(self, job: int) -> str:
        path = self.folder / f"{job}.out"
        return path.read_text() if path.exists() else ""

    def waits_for(self, job: int, form: str) -> None:
        self.until(lambda: self.shown(job) == form, job)

    def has_printed(self, job: int, text: str) -> None:
        self.until(lambda: text in self.output(job), job)

    def fails(self, job: int) -> None:
        """Wait for its failure."""
        self.until(lambda: self.shown(job, "%T") == "FAILED", job, may_fail=True)

    def until(
        self,
        ready: Callable[[], bool],
        job: int,
        *,
        may_fail: bool = False,
        timeout_s: float = 90.0,
    ) -> None:
        """Wait for what a job does; shows its output if it ends without."""

        def look() -> bool:
            is_ready = ready()
            ends = ("FAILED", "NODE_FAIL", "TIMEOUT")
            failed = not is_ready and not may_fail and self.shown(job, "%T") in ends
            assert not failed or ready(), f"{self.shown(job)}\n{self.output(job)}"
            return is_ready

        try:
            wait_for(f"job {job}", look, timeout_s)
        except AssertionError as error:
            error.add_note(f"{self.shown(job)}\n{self.output(job)}\n{self.logs()}")
            raise

    def simenv(self, *words: str | Path) -> Any:
        """The object that a command of the environment's owner prints; of a listing, a list."""
        done = self.cluster.run(LOGIN, ["simenv", "--json", *words], check=False)
        assert done.returncode in (0, 1), done.stderr
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        return entries if words[-1] == "list" else entries[-1]

    def reservations(self) -> dict[int, list[dict[str, Any]]]:
        """Live reservations of jobs, by job."""
        by_job: dict[int, list[dict[str, Any]]] = {}
        for each in self.simenv("slurm", "status", "--cluster", CLUSTER)["reservations"]:
            by_job.setdefault(int(each["job"]), []).append(each)
        return by_job

    def is_released(self, job: int) -> None:
        """Wait until a job has no reservation."""
        self.until(lambda: job not in self.reservations(), job, may_fail=True)

    @contextmanager
    def released(self, job: int, event: str) -> Iterator[None]:
        """Print how long after its end, by an event, a job has its reservation."""
        argv = ["python", slurm_jobs.__file__, "watch", str(job)]
        pipe = subprocess.PIPE
        with self.cluster.popen(LOGIN, argv, {"SERVICE": ADDRESS}, stdout=pipe) as watching:
            yield
            out, _ = watching.communicate(timeout=120.0)
        report(f"reservation of a job after {event}: ended", json.loads(out)["late_s"], LATE_S)

    def syncing(self) -> "subprocess.Popen[str]":
        """Start the daemon `simenv slurm sync`, as SlurmUser."""
        return self.started_as(SLURM_USER, *self._sync(), "--every", "0.5", "--pool", POOL)

    def sync(self, *options: str) -> Any:
        """One pass of `simenv slurm sync`, as SlurmUser."""
        return json.loads(self.as_user(SLURM_USER, *self._sync(), "--json", *options))

    def _sync(self) -> list[str | Path]:
        folder = self.cluster.folder / "slurm"
        words = ["simenv", "--service", ADDRESS, "slurm", "sync", "--cluster", CLUSTER]
        return [*words, "--conf", folder]

    def held(self, pool: str = POOL) -> int:
        """Licences of a pool that are held back, with or without a service."""
        argv = ["scontrol", "--oneliner", "show", "reservation", f"simenv_{pool}"]
        shown = self.cluster.run(LOGIN, argv, check=False).stdout
        found = re.search(rf"Licenses={pool}:(\d+)", shown)
        return int(found[1]) if found else 0

    def up(self) -> None:
        """Start the environment."""
        file = self.cluster.folder / "simenv.toml"
        self.cluster.run(LOGIN, ["simenv", "up", "--config", file, "--hosts", f"{LOGIN}:{WORKERS}"])

    def down(self) -> None:
        """End the environment; its tasks and reservations are in the journal."""
        self.cluster.run(LOGIN, ["simenv", "down", "--now"], check=False)

    def kill_service(self) -> None:
        """As a host that runs out of memory does."""
        file = self.cluster.folder / "home" / "default" / "connection.json"
        pid = json.loads(file.read_text())["pid"]
        (service,) = (each for each in self.cluster.processes(LOGIN) if each.pid == pid)
        service.kill()
        service.wait(30)

    def licences(self, pool: str = POOL) -> tuple[int, int, int]:
        """Licences of a pool: all, those held back and those used, as the controller counts."""
        rows = self.simenv("slurm", "status", "--cluster", CLUSTER)["pools"]
        (row,) = (row for row in rows if row["pool"] == pool)
        return row["licenses"], row["held"], row["used"]

    def hold_nothing(self) -> None:
        """As before the first pass."""
        for pool in (POOL, OTHER):
            argv = ["scontrol", "delete", f"ReservationName=simenv_{pool}"]
            self.cluster.run(LOGIN, argv, check=False)

    def stop_controller(self) -> None:
        """Stop slurmctld, which stores its jobs: it does so every few seconds otherwise."""
        for name, process in self.cluster.programs(LOGIN):
            if name == "slurmctld":
                process.terminate()
                process.wait(30)

    def start_controller(self) -> None:
        """Start slurmctld with the stored jobs."""
        start_controller(self.cluster)
        ping = ["scontrol", "ping"]
        wait_for("slurmctld", lambda: "UP" in self.cluster.run(LOGIN, ping, check=False).stdout)

    def boot(self, name: str) -> None:
        """Switch a node on after a crash."""
        self.cluster.boot(name)
        self._prepared(name)
        start_node(self.cluster, name)
        argv = ["sinfo", "--noheader", f"--nodes={name}", "--format=%T"]
        wait_for(name, lambda: self.cluster.run(LOGIN, argv).stdout.strip() == "idle")

    def logs(self) -> str:
        paths = sorted((self.cluster.folder / "slurm").glob("slurmctld.*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in paths)


def report(what: str, late_s: float, goal_s: float) -> None:
    """Print a figure, its goal and the verdict; `pytest -s` shows it."""
    verdict = "met" if late_s <= goal_s else "missed"
    sys.stderr.write(f"\n{what} {late_s:.2f} s later (goal {goal_s:g} s): {verdict}\n")


def install(
    cluster: Cluster, *options: str, check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run `simenv slurm install` on the login node, with more options; slurmctld need not run."""
    folder = cluster.folder / "slurm"
    argv = ["simenv", "--service", ADDRESS, "slurm", "install", "--conf", folder]
    argv += ["--plugin", folder / "simenv_spank.so", "--json", *options]
    argv += ["--gateway", f"https://{cluster.hosts[LOGIN].address}:{WEB_PORT}"]
    return cluster.run(LOGIN, argv, check=check)


@contextmanager
def site(count: int) -> Iterator[Site]:
    """A site of so many nodes. NoCluster where it cannot be."""
    accounts_of: list[Accounts] = []

    def prepare(cluster: Cluster, folder: Path) -> str:
        accounts_of.append(Accounts(cluster.folder, 3))
        for name in cluster.hosts:
            open_to_users(cluster, name)
        cluster.environ["SIMENV_MUNGE_SOCKET"] = str(folder / "munge.socket")
        build(folder)
        installed = json.loads(install(cluster).stdout)
        (folder / LICENSES).write_text(f"Licenses={POOL}:{WORKERS}\n")
        return "\n".join([*installed["slurm_conf"], "SlurmdTimeout=6", ""])

    with slurm(count, prepare, SLURM_USER) as cluster:
        home = cluster.folder / "home"
        home.mkdir(mode=0o700)
        cluster.environ["SIMENV_HOME"] = str(home)
        address = cluster.hosts[LOGIN].address
        file = cluster.folder / "simenv.toml"
        names = {"pool": POOL, "workers": WORKERS, "port": PORT, "web_port": WEB_PORT}
        names |= {"other": OTHER, "others": OTHERS}
        file.write_text(CONFIG.format(address=address, **names))
        running = Site(cluster, accounts_of[0], partial(open_to_users, cluster))
        try:
            running.up()
            running.sync("--pool", POOL)  # the first pass writes which names are pools
            yield running
        finally:
            running.down()
