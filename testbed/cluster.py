"""N hosts on one machine, out of namespaces: for launchers, services and faults over several nodes.

    with hosts(3) as cluster:
        cluster.run("node1", ["simenv", "up", "--hosts", "node1:2,node2:2,node3:2"])

Hosts node1..nodeN (and others by name) share the file system and hang on one switch that has a
network namespace of its own: nothing of a cluster is seen from outside, so several can exist at
once and none needs free names, addresses or ports. Works as root, and without wherever a user may
have a user namespace. What an earlier run left that was killed is ended by the next.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from testbed.cluster_host import (
    Host,
    NoCluster,
    close,
    entry,
    hold,
    inside,
    network,
    network_of,
)

PREFIX = "cluster-of-simenv-"
MARK = "# simenv test cluster of process"
NETWORK = "10.77.0"
TOOLS = ("ip", "unshare", "nsenter", "mount", "hostname")
AGENT = """#!/bin/sh
# AGENT HOST COMMAND...: the words after HOST go to a shell there, as ssh does it.
folder=$(dirname "$(readlink -f "$0")")
host=$1
shift
for end in "$host" "$(hostname)"; do
    [ ! -e "$folder/unplugged/$end" ] || { echo "agent: no route to $host" >&2; exit 255; }
done
read -r pid 2>/dev/null <"$folder/pids/$host" || { echo "agent: $host is off" >&2; exit 255; }
user=
if [ "$(readlink /proc/self/ns/user)" != "$(readlink "/proc/$pid/ns/user")" ]; then
    user='--user --preserve-credentials'
fi
exec nsenter -t "$pid" --net --uts --mount $user -- /bin/sh -c "$*"
"""


class Cluster:
    """Hosts that are up. Names are node1..nodeN and those given."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.agent = folder / "agent"
        self.hosts = {
            name: Host(name, f"{NETWORK}.{k}", f"port{k}") for k, name in enumerate(names, 1)
        }
        self._switch: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[str]] = []
        self.environ = {"SIMENV_LAUNCH_AGENT": str(self.agent)}  # of every command

    def start(self) -> None:
        lines = [_mark(os.getpid()), "127.0.0.1 localhost"]
        lines += [f"{host.address} {host.name}" for host in self.hosts.values()]
        self._table.write_text("\n".join(lines) + "\n")
        for name in ("pids", "unplugged"):
            (self.folder / name).mkdir()
        self.agent.write_text(AGENT)
        self.agent.chmod(0o700)
        user = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
        self._switch = hold(user, self._table, "switch")
        network(entry(self._switch.pid), "link add switch type bridge", "link set switch up")
        for name in self.hosts:
            self.boot(name)

    def stop(self) -> None:
        for host in self.hosts.values():
            host.power_off()
        for process in self._started:
            close(process)
        if self._switch is not None:
            close(self._switch)

    def boot(self, name: str) -> None:
        """Switch a host on, again after `crash`."""
        assert self._switch is not None
        host = self.hosts[name]
        host.boot(self._switch.pid, self._table)
        (self.folder / "pids" / name).write_text(f"{host.pid}\n")

    def crash(self, name: str) -> None:
        """Cut a host's power: every process there stops at once and is gone."""
        (self.folder / "pids" / name).unlink()
        self.hosts[name].power_off()

    def unplug(self, name: str) -> None:
        """Pull its cable: it runs on, and nobody reaches it."""
        (self.folder / "unplugged" / name).touch()
        self._cable(name, "down")

    def replug(self, name: str) -> None:
        self._cable(name, "up")
        (self.folder / "unplugged" / name).unlink(missing_ok=True)

    def processes(self, name: str) -> list[psutil.Process]:
        """Everything that runs on a host."""
        return self.hosts[name].processes()

    def programs(self, name: str) -> list[tuple[str, psutil.Process]]:
        """What runs on a host with the names of the programs, without what ends meanwhile."""
        entries = []
        for process in self.processes(name):
            with suppress(psutil.NoSuchProcess):
                entries.append((process.name(), process))
        return entries

    def popen(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        **options: object,
    ) -> subprocess.Popen[str]:
        """Start a command on a host; it ends with the cluster. Its environment is this process's,
        the cluster's `environ` and `env`."""
        entries = [*entry(self.hosts[name].pid), *map(str, argv)]
        environ = {**os.environ, **self.environ, **(env or {})}
        environ.pop("HOSTNAME", None)
        process = subprocess.Popen(entries, env=environ, text=True, **options)  # type: ignore[call-overload]
        self._started.append(process)
        return process  # type: ignore[no-any-return]

    def run(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        check: bool = True,
        timeout_s: float = 120.0,
        cwd: Path | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; with `check`, a failure shows what it said."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with self.popen(name, argv, env, cwd=cwd, **pipes) as process:
            try:
                out, err = process.communicate(stdin, timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"{argv} takes > {timeout_s} s:\n{out}\n{err}") from None
        outcome = subprocess.CompletedProcess(list(argv), process.returncode, out, err)
        assert not check or outcome.returncode == 0, (
            f"{argv}: exit {outcome.returncode}\n{out}\n{err}"
        )
        return outcome

    @property
    def _table(self) -> Path:
        return self.folder / "hosts"

    def _cable(self, name: str, state: str) -> None:
        assert self._switch is not None
        network(entry(self._switch.pid), f"link set {self.hosts[name].port} {state}")


@contextmanager
def hosts(count: int, *others: str) -> Iterator[Cluster]:
    """A cluster of node1..node`count` and `others`; NoCluster where the machine allows none."""
    reason = unavailable()
    if reason:
        raise NoCluster(reason)
    end_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)  # slurmd and munged look at the way to their files
    cluster = Cluster(folder, [*(f"node{k}" for k in range(1, count + 1)), *others])
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


def unavailable() -> str:
    """Why this machine can have no cluster; "" if it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} here (Debian packages iproute2 and util-linux)"
    command = ["unshare", "--net", "--uts", "--mount"]
    command += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {done.stderr.strip()}" if done.returncode else ""


def end_leftovers() -> None:
    """End what a killed run left: processes that see a host table of ours whose owner is dead."""
    result = network_of("self")
    for pid in psutil.pids():
        with suppress(OSError, ValueError, psutil.Error):
            if network_of(pid) in ("", result):
                continue
            mark = Path(f"/proc/{pid}/root/etc/hosts").read_text().partition("\n")[0]
            if mark.startswith(MARK) and not _alive(mark):
                for process in inside(network_of(pid)):
                    process.kill()


def _mark(pid: int) -> str:
    """First line of the host table: who made it. The start time tells a pid's users apart."""
    return f"{MARK} {pid} {psutil.Process(pid).create_time()}"


def _alive(mark: str) -> bool:
    pid = int(mark.removeprefix(MARK).split()[0])
    return psutil.pid_exists(pid) and _mark(pid) == mark
