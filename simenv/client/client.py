"""The public face of an environment: submit, wait, look, cancel.

Thread-safe; opens a connection of its own in a forked child; works inside a running event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex, Unpack

from simenv.client import address, orders
from simenv.client.completions import Completions
from simenv.client.entry import Submission
from simenv.client.explaining import explained
from simenv.client.history import Past
from simenv.client.ids import number_of, row_of
from simenv.client.link import Link
from simenv.client.options import Seed, checked_key
from simenv.client.options import options as checked
from simenv.client.posting import Window
from simenv.client.result import Result
from simenv.client.sending import post, send
from simenv.client.silence import LOST_S
from simenv.client.task import Task
from simenv.client.wishes import SubmitOptions, prepared
from simenv.errors import NotFound, OptionError, SimenvError
from simenv.model import (
    Event,
    PoolInfo,
    ServiceInfo,
    TaskInfo,
    WorkerInfo,
)
from simenv.wire import messages as m
from simenv.wire.engines import Explanation
from simenv.wire.keeping import Collect, Collected

if TYPE_CHECKING:
    from simenv.client.people import People
    from simenv.client.qpm import QPM


class Client:
    """An environment. Made by `simenv.connect` and `simenv.local`; use it with `with`."""

    def __init__(self, where: address.Address, timeout_s: float = LOST_S) -> None:
        self._where = where
        self._link = Link(where, timeout_s)
        self.past = Past(self._link)  # what the journal keeps of it
        self._posted = Window()
        self._qpm: QPM | None = None

    # --- submitting ---------------------------------------------------------------------------

    def submit(
        self,
        circuit: Any,
        *,
        shots: SupportsIndex | None = 1024,
        seed: Seed | None = None,
        outputs: Sequence[str] | str = ("counts",),
        observables: Any = None,
        bindings: Any = None,
        binding: SupportsIndex = 0,
        engine: str = "auto",
        precision: str = "double",
        pool: str | None = None,
        priority: SupportsIndex = 0,
        queue_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        options: Mapping[str, float] | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> Task:
        """One task, durably accepted when this returns; whatever is wrong is raised here.

        `circuit`: a QuantumCircuit, OpenQASM 2 or 3 text, or the path of a file (a `str` is text if
        it holds a newline or `;`). `shots=None`: exact. `seed=None`: one is drawn, and the result
        names it. `outputs`: of counts, probabilities, statevector, expectation; `observables` ask
        for the last by themselves. `bindings`: one set of parameter values; `binding`: its
        number in a sweep, which with the seed of a result gives that result's counts again.
        `priority`: higher goes first. `options`: the engine's own, such as
        `{"bond": 64}`. `key`: a repeat with the same key and content gives the same
        task, other content raises KeyConflict.

        Raises ProgramError, OptionError, Infeasible, LimitExceeded, QueueFull, KeyConflict,
        ServiceLost.
        """
        begun = perf_counter()
        order = prepared(
            circuit,
            shots=shots,
            seed=seed,
            outputs=outputs,
            observables=observables,
            bindings=bindings,
            binding=binding,
            engine=engine,
            precision=precision,
            pool=pool,
            priority=priority,
            queue_timeout_s=queue_timeout_s,
            run_timeout_s=run_timeout_s,
            options=options,
            name=name,
            key=key,
        )
        self._link.account.packed_s += perf_counter() - begun
        return send(self._link, order, key)[0]

    def submit_many(
        self,
        work: Any,
        *,
        shots: SupportsIndex | None = 1024,
        seed: Seed | Sequence[Seed] | None = None,
        outputs: Sequence[str] | str = ("counts",),
        observables: Any = None,
        engine: str = "auto",
        precision: str = "double",
        pool: str | None = None,
        priority: SupportsIndex = 0,
        queue_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        options: Mapping[str, float] | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> list[Task]:
        """Many tasks, in order, accepted or refused as a whole; options as in `submit`.

        `work`: several circuits; or (circuit, bindings), one task for each set of values. Bindings
        are an array (K, P), columns in the order of `circuit.parameters`, or a mapping from
        parameter to K values. A sweep travels as few tasks of up to 4,096 bindings, each accepted,
        run and ended as one; the Tasks returned, `t-8k2f.17` and so on, stand for one binding each.

        `seed`: a list gives each task its own. One seed: circuit k gets BLAKE2b(seed, k), cut to 53
        bits; the bindings of a sweep share it, and their number is a part of the random key. Item k
        has the idempotency key (key, k).

        Raises BatchRefused with one error for each bad item; a refusal that is about the call as a
        whole (QueueFull, KeyConflict) is raised as it is.
        """
        begun = perf_counter()
        chosen = checked(
            shots,
            outputs,
            engine,
            precision,
            pool,
            priority,
            queue_timeout_s,
            run_timeout_s,
            name,
            options,
        )
        if orders.is_sweep(work):
            circuit, bindings = work
            order = orders.sweep(circuit, bindings, observables, chosen, seed, _key(key))
        else:
            order = orders.several(_listed(work), observables, chosen, seed, _key(key))
        self._link.account.packed_s += perf_counter() - begun
        return send(self._link, order, key)

    def post(self, circuit: Any, **wishes: Unpack[SubmitOptions]) -> Task:
        """Like `submit`, without waiting for the acceptance: for many circuits one by one.

        What the client finds wrong is raised here. What the service refuses is raised by the first
        use of the task that needs its acceptance: its id, its state, its result.
        """
        begun = perf_counter()
        order = prepared(circuit, **wishes)
        self._link.account.packed_s += perf_counter() - begun
        return post(self._link, order, wishes.get("key"), self._posted)

    def run(self, circuit: Any, **wishes: Unpack[SubmitOptions]) -> Result:
        """Submit and wait: the result of `submit(circuit, ...)`."""
        return self.submit(circuit, **wishes).result()

    def explain(self, circuit: Any, **wishes: Unpack[SubmitOptions]) -> Explanation:
        """Which engine `submit(circuit, ...)` would choose, and why no other; nothing is run.

        Its `engine` is "" where none can run it here. Raises ProgramError, OptionError.
        """
        return explained(self._link, circuit, **wishes)

    # --- tasks --------------------------------------------------------------------------------

    def task(self, task: str | int) -> Task:
        """A task submitted before, here or by another process; NotFound if there is none (any
        longer)."""
        number = number_of(task)
        infos = self._link.infos([number])
        if not infos:
            entry = self._link.adopt(number, Submission())
            self._link.finish(entry, None)  # it is answered at once: there is nothing to wait for
            raise entry.error() or NotFound(f"no task {task} here")
        return Task(self._link.adopt(number, Submission(infos[0].name)), row_of(task))

    def tasks(self, tasks: Iterable[Task | str | int]) -> list[TaskInfo]:
        """What the service knows of these; unknown ones are left out."""
        return self._link.infos([number_of(task) for task in tasks])

    def cancel(self, tasks: Iterable[Task | str | int]) -> list[str]:
        """One word for each: "cancelled", "cancelling" (it was asked to stop), "final" (it had
        ended), "unknown"."""
        return self._link.cancel([number_of(task) for task in tasks])

    def queue(self, done: bool = False, limit: int = 100) -> tuple[int, list[TaskInfo]]:
        """How many there are, and the first of them: running, then waiting in their order;
        `done`: ended ones instead, newest first."""
        answer = self._link.ask(m.Queue, partial(m.GetQueue, done=done, limit=limit))
        return answer.total, answer.tasks

    def completions(
        self, since: int | None = None, cursor: str = "default", follow: bool = False
    ) -> Completions:
        """All completions of the environment numbered above `since`, in order; also `async for`.

        `since=None`: from where the named cursor stands. Ends when all is read and no task waits or
        runs; `follow`: never. Acknowledge with `ack` when a result is safe.
        """
        if since is None:
            since = self._link.ask(m.Acked, partial(m.GetCursor, cursor=_cursor(cursor))).seq
        return Completions(self._link, since, follow)

    def ack(self, seq: int, cursor: str = "default") -> int:
        """The named cursor has safely read everything up to `seq`; returns where it stands."""
        return self._link.ask(m.Acked, partial(m.Ack, cursor=_cursor(cursor), seq=seq)).seq

    # --- the environment ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The environment's name."""
        return self._link.channel.name

    @property
    def service(self) -> str:
        """What SIMENV_SERVICE must hold for another process to find it: its connection file."""
        return str(self._where.path)

    def status(self) -> ServiceInfo:
        """Is it well? Figures of service, queue and pools."""
        return self._link.ask(m.Status, m.GetStatus).info

    def workers(self) -> list[WorkerInfo]:
        """The resident simulators."""
        return self._link.ask(m.Workers, m.GetWorkers).workers

    def pools(self) -> dict[str, PoolInfo]:
        """The pools, by name."""
        return {pool.name: pool for pool in self._link.ask(m.Workers, m.GetWorkers).pools}

    def events(self, since: int = 0, kinds: Sequence[str] | None = None) -> Iterator[Event]:
        """What has happened after event `since`, up to now. `kinds`: patterns like `worker.*`."""
        return self.past.events(since, kinds)

    @property
    def qpm(self) -> QPM:
        """This environment as a QPM, for hosts that drive hardware through one."""
        from simenv.client.qpm import QPM

        with self._link.channel.lock:
            if self._qpm is None:
                self._qpm = QPM(self, self._link)
            return self._qpm

    @property
    def people(self) -> People:
        """Who may come in from other machines; for admins."""
        from simenv.client.people import Asked

        return Asked(self._link)

    def gc(self, older_than_s: float | None = None, dry_run: bool = False) -> Collected:
        """Give up what is kept of tasks that ended longer ago, or without a say of what the limits
        of the configuration no longer allow; what that freed, and what is left.

        `dry_run`: only say what would go. Tasks that have not ended are never touched.
        """
        older_s = -1.0 if older_than_s is None else max(0.0, older_than_s)
        return self._link.ask(Collected, partial(Collect, older_s=older_s, dry=dry_run))

    def shutdown(self, now: bool = False, timeout_s: float | None = None) -> m.Stopping:
        """End the service: finish what runs, keep what waits. `now`: what runs waits as well."""
        return self._link.ask(m.Stopping, partial(m.Shutdown, now=now), timeout_s)

    def close(self) -> None:
        """Let go of the connection; tasks go on. Idempotent."""
        self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._link.channel.closed:
            return f"<simenv {self.name} | closed>"
        try:
            info = self._link.ask(m.Status, m.GetStatus, 0.5).info
        except SimenvError:
            return f"<simenv {self.name} | no answer>"
        up = sum(pool.workers for pool in info.pools)
        wanted = sum(pool.target for pool in info.pools)
        pools = f"{len(info.pools)} pool{'s' if len(info.pools) != 1 else ''}"
        return (
            f"<simenv {info.name}@{info.node} | {pools}, {up}/{wanted} workers up | "
            f"{info.queued} waiting>"
        )


def connect(
    name: str | None = None, *, service: str | Path | None = None, timeout_s: float = LOST_S
) -> Client:
    """A client of an environment that is up.

    `service`: its connection file; else `name`; else the file SIMENV_SERVICE names; else `default`.
    Raises NoService, VersionMismatch.
    """
    return Client(address.find(name, Path(service) if service is not None else None), timeout_s)


def _key(key: str | None) -> str | None:
    return None if key is None else checked_key(key)


def _cursor(cursor: str) -> str:
    if not 0 < len(cursor) <= 64:
        raise OptionError(f"cursor={cursor!r:.80}", hint="a name of 1 to 64 characters")
    return cursor


def _listed(work: Any) -> Iterable[Any]:
    if isinstance(work, str | bytes) or not isinstance(work, Iterable) or hasattr(work, "qubits"):
        raise OptionError(
            f"submit_many wants several circuits, got one {type(work).__name__}",
            hint="submit(circuit); or submit_many((circuit, bindings)) for a sweep",
        )
    return work
