"""Executor of circuits with the interface of `concurrent.futures.Executor`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Unpack

from simenv.client.client import Client, connect
from simenv.client.results.result import Result
from simenv.client.submission.options import SubmitOptions
from simenv.client.tasks.executor import TaskExecutor, deadline_of
from simenv.client.tasks.task import Task
from simenv.errors import OptionError


class SimenvExecutor(TaskExecutor[Task]):
    """Executor of circuits, for libraries that take one; its futures are tasks.

    `client`: None connects to the environment of this machine, and closes that connection at
    `shutdown`. `options`: defaults for every circuit, as in `Client.submit`. Thread-safe.
    """

    def __init__(self, client: Client | None = None, **options: Unpack[SubmitOptions]) -> None:
        super().__init__()
        self._owns_client = client is None
        self.client = connect() if client is None else client
        self._options = options

    def submit(  # type: ignore[override]
        self, circuit: Any, /, *arguments: Any, **options: Unpack[SubmitOptions]
    ) -> Task:
        """Submit a circuit; options as in `Client.submit` override those of the executor.

        Raises OptionError for a function, since an environment runs circuits; RuntimeError after
        `shutdown`; else like `Client.submit`.
        """
        self._check(circuit, arguments)
        merged: Any = {**self._options, **options}
        task = self.client.submit(circuit, **merged)
        self._remember([task])
        return task

    def map(  # type: ignore[override]
        self,
        circuits: Iterable[Any],
        /,
        *arguments: Any,
        timeout: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Iterator[Result]:
        """Submit circuits in one message; return an iterator over their results, in order.

        The iterator raises TimedOutError `timeout` seconds after this call, and the error of a task
        that failed. Tasks that are left when it ends early are cancelled. Raises like
        `Client.submit_many`.
        """
        self._check(circuits, arguments)
        circuits = list(circuits)
        for circuit in circuits:
            self._check(circuit)
        deadline = deadline_of(timeout)
        merged: Any = {**self._options, **options}
        tasks = self.client.submit_many(circuits, **merged)
        self._remember(tasks)
        return self._in_order(tasks, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down like `concurrent.futures.Executor.shutdown`; tasks go on in the environment."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        if self._owns_client and (wait or not self._unfinished()):
            self.client.close()

    def _cancel(self, tasks: Sequence[Task]) -> object:
        return self.client.cancel(tasks)

    def _check(self, circuit: object, arguments: tuple[object, ...] = ()) -> None:
        """Raise OptionError for what is a function, and its arguments."""
        self._check_open()
        if callable(circuit):
            name = getattr(circuit, "__name__", type(circuit).__name__)
            raise OptionError(
                f"{name} is a function: this executor runs circuits",
                hint="give a QuantumCircuit, OpenQASM text or a file; functions run in"
                " the executor that client.functions() returns",
            )
        if arguments:
            raise OptionError(
                f"{len(arguments)} arguments after the circuits",
                hint="submit takes one circuit, map one list of circuits, and options by name",
            )
