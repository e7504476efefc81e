"""Circuits through the interface of `concurrent.futures.Executor`."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, Unpack

from simenv.client.client import Client, connect
from simenv.client.results.result import Result
from simenv.client.submission.options import SubmitOptions
from simenv.client.tasks.task import Task
from simenv.errors import OptionError


class SimenvExecutor(Executor):
    """Runs circuits where libraries want an executor; its futures are tasks.

    `client`: None connects to the environment of this machine, and closes that connection at
    `shutdown`. `options`: of every circuit, as in `Client.submit`. Thread-safe.
    """

    def __init__(self, client: Client | None = None, **options: Unpack[SubmitOptions]) -> None:
        self._own = client is None
        self.client = connect() if client is None else client
        self._options = options
        self._closed = False
        self._tasks: weakref.WeakSet[Task] = weakref.WeakSet()  # whoever drops one does not wait

    def submit(  # type: ignore[override]
        self, circuit: Any, /, **options: Unpack[SubmitOptions]
    ) -> Task:
        """Submit a circuit; options as in `Client.submit`, which go before the executor's own.

        Raises OptionError for a function: an environment runs circuits; RuntimeError after
        `shutdown`; else as `Client.submit`.
        """
        self._check(circuit)
        merged: Any = {**self._options, **options}
        task = self.client.submit(circuit, **merged)
        self._tasks.add(task)
        return task

    def map(  # type: ignore[override]
        self,
        circuits: Iterable[Any],
        /,
        *,
        timeout: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Iterator[Result]:
        """Submit circuits in one message; their results in order.

        The iterator raises TimedOutError `timeout` seconds after this call, and what a task ended
        with. Tasks that are left when it ends early are cancelled. Raises as `Client.submit_many`.
        """
        circuits = list(circuits)
        for circuit in circuits:
            self._check(circuit)
        deadline = None if timeout is None else time.monotonic() + timeout
        merged: Any = {**self._options, **options}
        tasks = self.client.submit_many(circuits, **merged)
        self._tasks.update(tasks)
        return _results(tasks, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more circuits. `wait`: until all tasks that somebody still holds have ended;
        `cancel_futures`: ask for their end first. Tasks go on in the environment without it."""
        self._closed = True
        tasks = [task for task in self._tasks if not task.done()]
        if cancel_futures and tasks:
            self.client.cancel(tasks)
        if wait:
            for task in tasks:
                task.wait()
        if self._own and (wait or not tasks):
            self.client.close()

    def _check(self, circuit: object) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if callable(circuit):
            name = getattr(circuit, "__name__", type(circuit).__name__)
            raise OptionError(
                f"{name} is a function: this executor runs circuits",
                hint="give a QuantumCircuit, OpenQASM text or a file; functions run in"
                " the executor that client.functions() returns",
            )


def _results(tasks: list[Task], deadline: float | None) -> Iterator[Result]:
    try:
        while tasks:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield tasks[0].result(left_s)
            del tasks[0]
    finally:
        for task in tasks:
            task.cancel()
