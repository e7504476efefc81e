"""An environment with a standby: its service on one host of a test cluster, its database elsewhere.

    with hosts(3) as cluster, failover_site(cluster) as site, site.load() as load:
        site.lose_leader()

node1 and node2 serve in turns, node3 has the database and the client, which has a key file and
submits without a pause. As a program, this module is that client:

    python -m testbed.failover KEY_FILE    until its input ends; prints gaps, then its count
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
import psutil
from qiskit import QuantumCircuit

from simenv.client.administration.keys import issue_key
from simenv.client.client import connect
from simenv.client.connection.address import read
from simenv.client.tasks.task import Task
from simenv.errors import NoServiceError
from testbed.cluster import Cluster
from testbed.cluster_environment import SERVICE, Environment, left, wait_for, words_of
from testbed.cluster_host import close
from testbed.postgres_server import PostgresServer

SERVERS, STORE = ("node1", "node2"), "node3"
SETTINGS = """journal = "{url}"
listen = "tcp://eth0:0"
leader_lease_s = {lease_s}
[[pools]]
name = "sv"
min = 1
max = 1
"""
BATCH, SEEDS = 8, 5  # circuits in each submit_many; different ones
QUBITS, LAYERS = 14, 14  # of a circuit: some ms each, so that some always wait
OUTSTANDING = 60  # tasks that wait for their results
PAUSE_S = 0.02
GAP_S = 0.5  # a longer time without an accepted submit is printed
END_S = 300.0


class LoadReport(msgspec.Struct, frozen=True):
    """What the client saw. `lost`: accepted tasks without their one end; `doubled`: ends and tasks
    that nobody asked for; `wrong`: results with other counts than before."""

    accepted: int
    lost: int
    doubled: int
    wrong: int
    attempts: int  # of all tasks together
    longest_gap_s: float


class Load:
    """The client, a process on the database's host."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.gaps: list[tuple[float, float]] = []  # monotonic
        self._report: LoadReport | None = None
        self.serving = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if isinstance(message, list):
                self.gaps.append((message[0], message[1]))
            elif message == "serving":
                self.serving.set()
            else:
                self._report = msgspec.convert(message, LoadReport)

    def await_service(self, since_s: float) -> None:
        """Wait until it is served again after a fault at a time, monotonic. It submits nothing
        while OUTSTANDING tasks wait, as for kernels that a worker compiles."""
        served = lambda: any(end > since_s for _, end in self.gaps)  # noqa: E731
        wait_for("the client is served", served, END_S)

    def end(self) -> LoadReport:
        """End the client after all its tasks; return what it saw."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(END_S)
        self._thread.join()
        assert self._report is not None, "the client has failed"
        return self._report


class FailoverSite(Environment):
    """The environment."""

    def __init__(self, cluster: Cluster, name: str, folder: Path) -> None:
        super().__init__(cluster, name)
        self.folder = folder

    @property
    def leader(self) -> str:
        """The host whose service wrote the connection file."""
        return read(self.home / "connection.json").node

    def service(self, host: str) -> list[psutil.Process]:
        """The service of a host, or its standby."""
        return [
            each for each in self.of(SERVICE, host) if str(self.home) in " ".join(words_of(each))
        ]

    def stand_by(self, host: str) -> None:
        self.simenv("up", "--standby", host=host)

    def await_leader(self, host: str, timeout_s: float = 60.0) -> None:
        """Wait until another host's service wrote the connection file."""

        def leads() -> bool:
            with suppress(NoServiceError):
                return self.leader == host
            return False

        wait_for(f"{host} leads", leads, timeout_s)

    def await_standby(self, host: str) -> None:
        """Wait until the process that led on a host is a standby, as the leader knows."""
        with self.client() as client:
            wait_for(
                f"{host} stands by",
                lambda: any(each.node == host for each in client.status().standbys),
            )

    def crash(self, pause_s: float = 0.0) -> float:
        """Cut the power of the leader's host; return the seconds until the other one leads. After
        `pause_s` the host is switched on again, and has a standby."""
        old, begin_s = self.leader, time.monotonic()
        self.cluster.crash(old)
        self.await_leader(other(old))
        taken_s = time.monotonic() - begin_s
        time.sleep(pause_s)
        self.cluster.boot(old)
        self.stand_by(old)
        return taken_s

    def cut_off(self, submit: Callable[[], Task]) -> tuple[float, Task]:
        """Pull the cable of the leader's host, and submit there all the same, with a client that
        reaches it by its socket; return the seconds until the other host leads, and that client's
        task. Then the cable is back, and the old leader a standby."""
        old, begin_s = self.leader, time.monotonic()
        self.cluster.unplug(old)
        with ThreadPoolExecutor() as pool:
            pending = pool.submit(submit)
            self.await_leader(other(old))
            taken_s = time.monotonic() - begin_s
            self.cluster.replug(old)
            task = pending.result(END_S)
        self.await_standby(old)
        return taken_s, task

    def freeze(self, submit: Callable[[], Task]) -> tuple[float, Task]:
        """As `cut_off`, but the leader's process is stopped, and continues as if nothing had been:
        it has a submit to store."""
        old, begin_s = self.leader, time.monotonic()
        processes = self.service(old)
        for process in processes:
            process.suspend()
        with ThreadPoolExecutor() as pool:
            pending = pool.submit(submit)
            self.await_leader(other(old))
            taken_s = time.monotonic() - begin_s
            for process in processes:
                process.resume()
            task = pending.result(END_S)
        self.await_standby(old)
        return taken_s, task

    def key_file(self) -> Path:
        """Issue a key for a client that does not see the environment's home; return its file, which
        names the standby."""
        file, path = self.home / "connection.json", self.folder / "user.simenv"
        wait_for("the standby is known", lambda: read(file).standbys)
        with self.client() as client:
            issue_key(client.keys, "user", "client", path)
        return path

    @contextmanager
    def load(self) -> Iterator[Load]:
        """The client, which has a key file, and has submitted when this begins."""
        words = [sys.executable, "-m", "testbed.failover", str(self.key_file())]
        process = self.cluster.popen(
            STORE, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        load = Load(process)
        try:
            assert load.serving.wait(60.0), "the client has not begun"
            yield load
        finally:
            close(process)


def other(host: str) -> str:
    """The other one of the two hosts that serve."""
    return SERVERS[1 - SERVERS.index(host)]


@contextmanager
def failover_site(
    cluster: Cluster, lease_s: float = 8.0, *, safe: bool = False
) -> Iterator[FailoverSite]:
    """`simenv up` on node1, a standby on node2. `safe`: the database forces commits to disk."""
    before = {process for name in cluster.hosts for process in cluster.processes(name)}
    folder = Path(tempfile.mkdtemp(prefix="simenv-pg-", dir="/tmp"))
    quiet = ["sh", "-c", 'exec "$@" > /dev/null 2>&1', "sh"]  # the server keeps what it inherits

    def run(words: list[str]) -> None:
        cluster.run(STORE, [*quiet, *words])

    server = PostgresServer(folder, run, safe=safe, address=cluster.hosts[STORE].address)
    server.start()
    site = FailoverSite(cluster, f"f{uuid.uuid4().hex[:8]}", folder)
    settings = folder / "simenv.toml"
    settings.write_text(SETTINGS.format(url=server.url, lease_s=lease_s))
    try:
        site.simenv("up", "--config", str(settings), host=SERVERS[0])
        site.stand_by(SERVERS[1])
        yield site
        site.simenv("down", "--now", host=site.leader)
        services = [each for host in SERVERS for each in site.service(host)]
        wait_for("the standby has ended", lambda: not any(map(psutil.Process.is_running, services)))
    except BaseException as error:
        error.add_note(site.logged())
        raise
    finally:
        server.stop()
        for process in left(cluster, before):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for path in (site.home, folder):
            shutil.rmtree(path, ignore_errors=True)


# --- the client -----------------------------------------------------------------------------------


def _circuit(seed: int) -> QuantumCircuit:
    angles, circuit = (
        np.random.default_rng(seed).uniform(0, 6, LAYERS * QUBITS),
        QuantumCircuit(QUBITS),
    )
    for k, angle in enumerate(angles.tolist()):
        circuit.ry(angle, k % QUBITS)
        circuit.cx(k % QUBITS, (k + 1) % QUBITS)
    circuit.measure_all()
    return circuit


def _submit_until_end(key_file: str) -> LoadReport:
    ends = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ends.set()), daemon=True).start()
    circuits = [_circuit(seed) for seed in range(SEEDS)]
    with connect(service=key_file) as env:
        tasks, seeds = [], []
        before_s, longest_s, next_seed = time.monotonic(), 0.0, 0
        while not ends.is_set():
            chosen = [(next_seed + k) % SEEDS for k in range(BATCH)]
            next_seed += 1
            new = env.submit_many([circuits[k] for k in chosen], shots=100, seed=chosen)
            single = env.submit(circuits[0], shots=100, seed=0)
            if not tasks:
                _say("serving")
            tasks += [*new, single]
            seeds += [*chosen, 0]
            now_s = time.monotonic()
            longest_s = max(longest_s, now_s - before_s)
            if now_s - before_s > GAP_S:
                _say([before_s, now_s])
            before_s = now_s
            if len(tasks) > OUTSTANDING:
                tasks[-OUTSTANDING].result(END_S)
                before_s = max(before_s, time.monotonic() - GAP_S)  # it waited for results
            time.sleep(PAUSE_S)
        counts: dict[int, dict[str, int]] = {}
        wrong = 0
        for task, seed in zip(tasks, seeds, strict=True):
            found = task.result(END_S).counts
            wrong += counts.setdefault(seed, found) != found
        ids = Counter(task.id for task in tasks)
        ended, attempts = Counter[str](), 0
        for done in env.completions(since=0):
            ended[done.task.id] += 1
            attempts += done.task.result(0).attempts
        lost = len(ids - ended) + len(tasks) - len(ids)
        return LoadReport(len(tasks), lost, (ended - ids).total(), wrong, attempts, longest_s)


def _say(message: object) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    _say(msgspec.to_builtins(_submit_until_end(sys.argv[1])))
