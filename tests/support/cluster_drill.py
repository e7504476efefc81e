"""Tasks that run on several nodes while something breaks, and what must hold afterwards."""

import itertools
import os
import time
from collections.abc import Callable, Iterable

import psutil
from circuits import layered
from ledger import Ledger
from qiskit import QuantumCircuit

from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.model import FINAL_STATES, Event, TaskState, WorkerInfo, WorkerState
from testbed.cluster_environment import Environment, orphans, wait_for

AGAIN_S = 30.0  # until what was lost runs again; on a machine that has nothing else to do
GONE_S = 30.0  # until no process is left that nobody needs
BACK_S = 90.0  # until all workers are there: nobody is promised when
ENDS_S = 180.0
HEAD = "node1"  # where the service runs
SHOTS = 100
CORES = os.cpu_count() or 1
KINDS = {"sv": (0, 20, 60), "big": (100, 21, 40)}  # first seed, qubits, layers: tenths of a second
DIFFERENT = 6  # circuits of each kind


def circuit(pool: str, seed: int) -> QuantumCircuit:
    _, num_qubits, layers = KINDS[pool]
    return layered(num_qubits, layers, seed)


class Drill:
    """One environment, broken again and again. Every task ends once, with undisturbed counts."""

    def __init__(self, up: Environment, env: Client) -> None:
        self.up = up
        self.env = env
        self.size = {name: pool.target for name, pool in env.pools().items()}
        self.whole()
        self._seen = 0
        self._broken_s = 0.0
        self._tasks: list[Task] = []
        counts: dict[int, dict[str, int]] = {}
        for pool in self.size:
            first = KINDS[pool][0]
            seeds = list(range(first, first + DIFFERENT))
            tasks = self._submit(pool, seeds)
            for seed, task in zip(seeds, tasks, strict=True):
                counts[seed] = task.result(ENDS_S).counts
        self._ledger = Ledger(counts)

    def _submit(self, pool: str, seeds: list[int]) -> list[Task]:
        circuits = [circuit(pool, seed) for seed in seeds]
        return self.env.submit_many(circuits, shots=SHOTS, seed=seeds, pool=pool)

    def ready(self) -> None:
        """All workers are there, small ones not only on the service's node; so they stay until
        something breaks."""
        self.whole()
        if all(worker.node == HEAD for worker in self.env.workers() if worker.pool == "sv"):
            self.env.drain(HEAD, "for a drill")
            wait_for("they moved", lambda: all(w.node != HEAD for w in self.env.workers()))
            self.env.undrain(HEAD)
            self.whole()

    def load(self, pool: str = "sv", number: int = 24) -> None:
        """Give a pool much to do, all of whose workers are there. Look for processes before it:
        that takes long enough for much to end."""
        self.ready()
        first = KINDS[pool][0]
        seeds = list(itertools.islice(itertools.cycle(range(first, first + DIFFERENT)), number))
        self._tasks = self._submit(pool, seeds)
        self._ledger.accepted(self._tasks, seeds)

    def busy(self, pool: str = "sv") -> list[WorkerInfo]:
        """Workers that run a task just now, as soon as there are any; from here on events count."""
        return self._busy(pool, lambda _: True)

    def busy_elsewhere(self) -> WorkerInfo:
        """A small worker that runs a task just now, not on the service's node."""
        return self._busy("sv", lambda worker: worker.node != HEAD)[0]

    def _busy(self, pool: str, fits: Callable[[WorkerInfo], bool]) -> list[WorkerInfo]:
        entries: list[WorkerInfo] = []

        def look() -> bool:
            workers = (worker for worker in self.env.workers() if worker.pool == pool)
            entries[:] = [worker for worker in workers if worker.task and fits(worker)]
            return bool(entries)

        try:
            wait_for(f"workers of {pool} are busy", look)
        except AssertionError as error:
            for worker in self.env.workers():
                error.add_note(f"{worker.name} {worker.state} on {worker.node}: {worker.task}")
            raise
        self._seen = max(event.seq for event in self.env.events())
        self._broken_s = time.monotonic()
        return entries

    def survived(self, doomed: Iterable[psutil.Process]) -> None:
        """The fault took running tasks along, they run again soon enough, everything ends once,
        `doomed` processes go, and no rank is left without a daemon."""
        try:
            self._survived(list(doomed))
        except AssertionError as error:
            events = (f"{e.time_s:.1f} {e.kind} {e.subject} {e.message}" for e in self.told("*"))
            error.add_note("\n".join(["since it broke:", *events, self.up.logged()]))
            raise

    def _survived(self, processes: list[psutil.Process]) -> None:
        wait_for("what was lost runs again", self._again, self._left_s(AGAIN_S))
        wait_for(f"gone: {processes}", lambda: all(map(is_gone, processes)), self._left_s(GONE_S))
        wait_for("no orphan", lambda: not orphans(self.up.cluster), self._left_s(GONE_S))
        for task in self._tasks:
            task.result(ENDS_S)
        attempts = self._ledger.check(self.env)
        assert any(attempts[task] > 1 for task in self._lost()), "the fault hit nothing"

    def _lost(self) -> set[str]:
        """Tasks that were taken from those who ran them. Which these are, only the service can
        say: workers end a task and begin the next between our look and the blow."""
        return {event.subject for event in self.told("task.requeued")}

    def _again(self) -> bool:
        lost = self.env.tasks(sorted(self._lost()))
        return bool(lost) and all(
            task.state in FINAL_STATES or (task.state is TaskState.RUNNING and task.attempt > 1)
            for task in lost
        )

    def _left_s(self, limit_s: float) -> float:
        slow = max(1.0, os.getloadavg()[0] / CORES)  # what others do here meanwhile
        return self._broken_s + slow * limit_s - time.monotonic()

    def homes(self, pool: str) -> set[str]:
        """Nodes of a pool's workers that are ready, with nothing to do."""
        workers = (each for each in self.env.workers() if each.pool == pool)
        return {each.node for each in workers if each.state is WorkerState.IDLE}

    def told(self, *kinds: str) -> list[Event]:
        """Events since `busy`."""
        return list(self.env.events(since=self._seen, kinds=kinds))

    def whole(self) -> None:
        """Wait until all workers are there."""

        def ready() -> bool:
            pools = self.env.pools()
            return all(pools[name].workers == size for name, size in self.size.items())

        wait_for("all workers are ready", ready, BACK_S)


def is_gone(process: psutil.Process) -> bool:
    """Has it ended, also where nobody has asked for its end yet?"""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
