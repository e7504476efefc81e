"""Stalls of a service with many clients: what its processes hold before and after."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

import simenv
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.errors import SimenvError
from testbed.gateway_users import QASM3
from testbed.waiting import until

FIRST_STALLS = 4
PATIENCE_S = 240.0  # of the clients with a service that is stopped
OPTIONS: dict[str, object] = {
    "listen": "tcp://127.0.0.1:0",
    "gateway": {"listen": "127.0.0.1:0"},
    "identity": {"use": ["keys", "local"], "users": ["nobody-else"]},
    "pools": [{"name": "main", "min": 1, "max": 1}],
}  # fmt: skip


class Crowd:
    """Clients over TCP and over Unix sockets, each of which runs tasks from a thread of its own."""

    def __init__(self, clients: list[Client]) -> None:
        self.runs = [0] * len(clients)
        self.errors: list[str] = []
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number, client), name=f"client {number}")
            for number, client in enumerate(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int, client: Client) -> None:
        while not self._ending.wait(0.2):
            try:
                client.run(QASM3, shots=5)
                self.runs[number] += 1
            except SimenvError as error:
                self.errors.append(str(error))

    def serve_again(self, timeout_s: float = 900.0) -> None:
        """Wait until each client has run two more tasks."""
        before = list(self.runs)
        until(
            lambda: all(now >= then + 2 for now, then in zip(self.runs, before, strict=True)),
            timeout_s, message=f"a client runs nothing more: {self.errors[-3:]}",
        )  # fmt: skip

    def close(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def crowd(env: Client, folder: Path, count: int) -> Iterator[Crowd]:
    """Half of the clients over TCP, of three users, half over Unix sockets."""
    files = [folder / f"user{k}.simenv" for k in range(3)]
    for file in files:
        issue_key(env.keys, file.stem, "client", file)
    ways: list[str | Path] = [
        files[number % 3] if number % 2 else Path(env.service) for number in range(count)
    ]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(simenv.connect(service=way, patience_s=PATIENCE_S)) for way in ways
        ]
        made = Crowd(clients)
        stack.callback(made.close)
        yield made


def processes(env: Client) -> dict[str, psutil.Process]:
    """The service, its broker and its gateway."""
    service = psutil.Process(env.status().pid)
    found = {"service": service}
    for child in service.children():
        with suppress(psutil.Error):
            line = " ".join(child.cmdline())
            for name, module in (
                ("broker", "simenv.service.broker"),
                ("gateway", "simenv.gateway"),
            ):
                if f"-m {module}" in line or f" {module} " in line:
                    found[name] = child
    return found


def held(process: psutil.Process) -> Counter[str]:
    """Threads and descriptors of a process, by kind; `dead`: sockets in none of the kernel's
    tables, whose connection has ended."""
    pid, counts = process.pid, Counter[str]()
    counts["threads"] = process.num_threads()
    listed = {
        fields[column]
        for name, column in (("tcp", 9), ("tcp6", 9), ("unix", 6))
        for fields in map(str.split, Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:])
    }
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # closed meanwhile
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            counts["descriptors"] += 1
            if target.startswith("socket:["):
                counts["sockets"] += 1
                counts["dead"] += target[8:-1] not in listed
    return counts


def stall(process: psutil.Process, for_s: float) -> None:
    """Stop a process for a while."""
    process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(for_s)
    finally:
        process.send_signal(signal.SIGCONT)


def leaked(
    env: Client, people: Crowd, count: int, stall_s: float, settle_s: float = 60.0
) -> dict[str, Counter[str]]:
    """Stall the service `count` times; return what each of its processes holds more than before,
    once that has settled. Before: the most it held after any of the first stalls, which start the
    threads of its pools, each with its own connection to the journal."""
    known = processes(env)
    before = {name: Counter[str]() for name in known}
    for number in range(FIRST_STALLS):
        people.serve_again()
        stall(known["service"], stall_s if number and count > FIRST_STALLS else 0.1)
        people.serve_again()
        for name, process in known.items():
            before[name] |= held(process)
    for _ in range(count):
        stall(known["service"], stall_s)
        people.serve_again()

    def more() -> dict[str, Counter[str]]:
        return {name: held(process) - before[name] for name, process in known.items()}

    with suppress(AssertionError, TimeoutError):
        until(lambda: not any(more().values()), settle_s, look_s=0.5)
    return more()
