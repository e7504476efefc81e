"""A real environment in a test's hands: started, killed, resumed, searched."""

import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from waiting import until

import simenv
from simenv import config
from simenv.client import environments
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.client.connection import address, channel
from simenv.config import GatewayFile
from simenv.errors import NoServiceError, SimenvError, StartFailedError

WORKERS = 2
PATIENCE_S = 120.0


class Live:
    """A named environment under the tests' home; `with` takes it down again."""

    def __init__(self, **options: object) -> None:
        self.name = f"t{uuid.uuid4().hex[:8]}"
        pool = {"name": "main", "min": WORKERS, "max": WORKERS}
        self.options: dict[str, object] = {"name": self.name, "pools": [pool], **options}
        self.pids: list[int] = []  # of its services, in the order of their starts

    @property
    def home(self) -> Path:
        return config.home_root() / self.name

    def up(self, **changes: object) -> int:
        """Start (or resume); returns the service's pid."""
        self.pids.append(environments.up({**self.options, **changes}).pid)
        return self.pids[-1]

    def client(self) -> Client:
        return Client(address.find(self.name))  # patient for LOST_S, which tests change

    def service(self) -> psutil.Process:
        return psutil.Process(environments.read(self.home / "connection.json").pid)

    def kill_service(self) -> None:
        self.service().send_signal(signal.SIGKILL)

    def crash(self) -> None:
        """Kill the service, and wait until it is dead."""
        pid = self.service().pid
        self.kill_service()
        self.wait_dead(pid)

    def wait_dead(self, pid: int, timeout_s: float = PATIENCE_S) -> None:
        def is_over() -> bool:
            return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"

        until(is_over, timeout_s, message=f"process {pid} does not end")

    def down(self) -> None:
        with suppress(NoServiceError):
            environments.down(self.name, now=True)
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def environment(**options: object) -> Iterator[Live]:
    live = Live(**options)
    live.up()
    try:
        yield live
    finally:
        live.down()


@contextmanager
def with_keys(env: Client, folder: Path, *names: str) -> Iterator[dict[str, Client]]:
    """Clients of users, by name: each has a key of its own, in a file NAME.simenv."""
    with ExitStack() as stack:
        files = {name: folder / f"{name}.simenv" for name in names}
        for name, file in files.items():
            issue_key(env.keys, name, "client", file)
        yield {n: stack.enter_context(simenv.connect(service=f)) for n, f in files.items()}


@contextmanager
def trusted_gateway(live: Live) -> Iterator[GatewayFile]:
    """The gateway of an environment, whose certificate this process and its children check."""
    gateway = environments.await_gateway(live.home)
    assert gateway is not None, (live.home / "logs" / "gateway.log").read_text()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            patch.setenv(name, str(live.home / "gateway" / config.AUTHORITY_FILE))
        yield gateway


@contextmanager
def resurrected(live: Live) -> Iterator[list[int]]:
    """Whenever the service dies, start it again (without the drill's faults); yields the deaths.
    Clients here wait longer than others: on a machine with much to do a start takes its time."""
    deaths: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            try:
                pid = environments.read(live.home / "connection.json").pid
                if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
                    continue
                os.waitpid(pid, os.WNOHANG)
            except (NoServiceError, psutil.NoSuchProcess, ChildProcessError):
                pass
            if stop.is_set():
                return
            try:
                live.up(faults="")
                deaths.append(pid)
            except (StartFailedError, SimenvError):
                continue

    patience, channel.LOST_S = channel.LOST_S, PATIENCE_S
    thread = threading.Thread(target=watch, name="resurrection")
    thread.start()
    try:
        yield deaths
    finally:
        stop.set()
        thread.join()
        channel.LOST_S = patience
