"""One machine of a test cluster: its own network, host name, mounts, /etc/hosts and /dev/shm.

A sleeping process holds the namespaces; whatever runs there is found by its network namespace. The
PID space is shared with the machine on purpose: an agent on one host must be able to enter another.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

# As docs/guides/hpc.md advises a site: an unacknowledged segment of a daemon that was cut off is
# given up after about 25 s (6 retransmissions) instead of a quarter of an hour.
HOLD = """mount --bind "$1" /etc/hosts && mount -t tmpfs tmpfs /dev/shm && ip link set lo up &&
{ echo 6 > /proc/sys/net/ipv4/tcp_retries2 || true; } 2> /dev/null &&
hostname "$2" && echo ready && exec sleep infinity"""


class NoCluster(Exception):
    """This machine does not allow what a test cluster needs; the message says what."""


def network_of(pid: int | str) -> str:
    """The network namespace of a process; "" if it is gone, a zombie or not ours to see."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def entry(pid: int) -> list[str]:
    """The words that run a command where process `pid` is. Needs no right beyond those that made
    it: the user namespace is entered too, if there is one between."""
    command = ["nsenter", "-t", str(pid), "--net", "--uts", "--mount"]
    if os.readlink("/proc/self/ns/user") != os.readlink(f"/proc/{pid}/ns/user"):
        command += ["--user", "--preserve-credentials"]
    return [*command, "--"]


def hold(before: Sequence[str], hosts: Path, name: str) -> subprocess.Popen[str]:
    """Make namespaces and a process that keeps them; returns when they are ready."""
    command = [*before, "unshare", "--net", "--uts", "--mount", "sh", "-c", HOLD, "sh"]
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [*command, str(hosts), name]
    holder = subprocess.Popen(words, text=True, start_new_session=True, **pipes)
    assert holder.stdout is not None
    assert holder.stderr is not None
    if holder.stdout.readline() != "ready\n":
        text = holder.stderr.read().strip()
        close(holder)
        raise NoCluster(f"host {name} cannot be made: {text}")
    return holder


def close(process: subprocess.Popen[str]) -> None:
    """End a process of ours and its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def network(before: Sequence[str], *lines: str) -> None:
    """Run `ip` with these commands."""
    command = [*before, "ip", "-batch", "-"]
    done = subprocess.run(
        command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoCluster(f"ip: {done.stderr.strip()}")


class Host:
    """One host; `pid` of its holder, 0 while it is off."""

    def __init__(self, name: str, address: str, port: str) -> None:
        self.name = name
        self.address = address
        self.port = port  # its end of the cable, at the switch
        self.holder: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        return 0 if self.holder is None else self.holder.pid

    def boot(self, switch: int, hosts: Path) -> None:
        """Make it, and plug it into the switch that process `switch` holds."""
        at_switch = entry(switch)
        self.holder = hold(at_switch, hosts, self.name)
        network(
            at_switch,
            f"link add {self.port} type veth peer name eth0 netns {self.pid}",
            f"link set {self.port} master switch up",
        )
        network(entry(self.pid), f"addr add {self.address}/24 dev eth0", "link set eth0 up")

    def processes(self) -> list[psutil.Process]:
        """What runs there, but for the holder."""
        if not self.pid:
            return []
        return [process for process in inside(network_of(self.pid)) if process.pid != self.pid]

    def power_off(self) -> None:
        """End everything there, none seeing another go."""
        if self.holder is None:
            return
        processes = self.processes()
        while processes:
            for act in (psutil.Process.suspend, psutil.Process.kill):
                for process in processes:
                    with suppress(psutil.NoSuchProcess):
                        act(process)
            processes = self.processes()  # zombies have no namespaces
        close(self.holder)
        self.holder = None


def inside(namespace: str) -> list[psutil.Process]:
    """Every process of one network namespace."""
    entries = []
    for pid in psutil.pids():
        if namespace and network_of(pid) == namespace:
            with suppress(psutil.NoSuchProcess):
                entries.append(psutil.Process(pid))
    return entries
