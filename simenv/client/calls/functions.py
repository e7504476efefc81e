"""Calls of functions of the environment's own user, in workers of a pool of engine `functions`.

This is the only module of a client that unpickles objects: return values of the user's own
functions, from an environment of the same user. A client with a key neither sends nor reads
pickles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from simenv.client.calls.tasks import CallTask, decode_answer, send_calls
from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import Submission
from simenv.client.submission.options import CallOptions
from simenv.client.tasks.executor import TaskExecutor, deadline_of
from simenv.client.tasks.task import number_of
from simenv.errors import NotAllowedError, OptionError
from simenv.model.calls import (
    CALL_FORMAT,
    FUNCTIONS,
    MAX_NAME_CHARS,
    PYTHON,
    FunctionAnswer,
    FunctionCall,
)
from simenv.wire import codec


class FunctionExecutor(TaskExecutor[CallTask]):
    """Executor of functions in workers; its futures are tasks: durable, and repeated if a worker
    dies.

    Made by `Client.functions`. A function is called more than once if a worker died before the
    function's value was stored. Thread-safe.
    """

    def __init__(self, session: ServiceSession, with_key: bool, options: CallOptions) -> None:
        """`with_key`: the client connected with a key. Raises NotAllowedError then, because an
        environment calls functions of its own user only."""
        if with_key:
            raise NotAllowedError(
                "functions are called for the environment's own user alone, and this client came"
                " with a key",
                hint="connect without a key, as that user, where the environment runs",
            )
        super().__init__()
        self._session = session
        self._options = options

    def submit(  # type: ignore[override]
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> CallTask:
        """Submit one call. It is durably accepted when this returns.

        Raises OptionError for objects that cannot be pickled, LimitExceededError, NotAllowedError,
        InfeasibleError if no pool calls functions, QueueFullError, ServiceLostError.
        """
        return self._send([_pack(function, args, kwargs)])[0]

    def submit_many(
        self, function: Callable[..., Any], /, *iterables: Iterable[Any]
    ) -> list[CallTask]:
        """Submit function(*items) for the items of the iterables, grouped as by `zip`, in few
        messages. Raises like `submit`."""
        return self._send([_pack(function, items, {}) for items in zip(*iterables, strict=False)])

    def map(
        self,
        function: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,  # noqa: ARG002 - of Executor: calls travel together anyway
    ) -> Iterator[Any]:
        """Iterate over the values of `submit_many`, in order. The iterator raises TimedOutError
        `timeout` seconds after this call, and the error of a call that failed; calls that are left
        then are cancelled."""
        deadline = deadline_of(timeout)
        return self._in_order(self.submit_many(function, *iterables), deadline)

    def task(self, task: str | int) -> CallTask:
        """Return a call that was submitted before, by any process of this user."""
        handle = self._session.handle_for(number_of(task), Submission())
        return CallTask(handle, _read)

    def _cancel(self, tasks: Sequence[CallTask]) -> object:
        return self._session.cancel([task.handle.number for task in tasks])

    def _send(self, calls: list[bytes]) -> list[CallTask]:
        self._check_open()
        tasks = send_calls(self._session, FUNCTIONS, calls, _read, self._options)
        self._remember(tasks)
        return tasks


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError as error:
        raise OptionError(
            "functions need the package cloudpickle", hint="pip install 'simenv[functions]'"
        ) from error
    return cloudpickle


def _pack(
    function: Callable[..., Any], positional: tuple[Any, ...], named: dict[str, Any]
) -> bytes:
    if not callable(function):
        raise OptionError(f"{function!r:.80} is no function", hint="client.call(function, *args)")
    name = getattr(function, "__qualname__", type(function).__name__)
    pickler = _cloudpickle()
    try:
        pickled = pickler.dumps((function, positional, named))
    except Exception as error:  # objects of the user may raise any type
        raise OptionError(
            f"function {name} with its arguments cannot be pickled: {error}",
            hint="give files and connections by name, and open them in the function",
        ) from error
    printable = "".join(char if char.isprintable() else "?" for char in name)
    return codec.encode(FunctionCall(CALL_FORMAT, PYTHON, printable[:MAX_NAME_CHARS], pickled))


def _read(packed: bytes) -> Any:
    """Unpickle the value in an answer of this user's own environment."""
    answer = decode_answer(packed, FunctionAnswer)
    try:
        return _cloudpickle().loads(answer.pickled)
    except Exception as error:  # objects of the user may raise any type
        raise OptionError(
            f"the returned value cannot be unpickled: {type(error).__name__}: {error}",
            hint="this process needs the modules of the classes that were returned",
        ) from error
