"""Calls as tasks: functions and transpilation.

First options and submission of calls, and the futures of the returned values. Transpilation sends
circuits in QPY, a few in each task, and returns them compiled.

Functions of the environment's own user run in workers of a pool of engine `functions`. This is the
only module of a client that unpickles objects: return values of the user's own functions, from an
environment of the same user. A client with a key sends and reads pickles only where the environment
isolates accounts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeVar

import msgspec

from simenv import errors as simenv_errors
from simenv.client import result_display
from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import Submission, TaskHandle
from simenv.client.result import Result
from simenv.client.submission import options as submission_options
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task, TaskExecutor, deadline_of, number_of
from simenv.config import application
from simenv.errors import OptionError
from simenv.model import TaskOptions, TaskSpec, calls as model_calls, task_name
from simenv.model.devices import DeviceInfo
from simenv.model.options import VALUE, CallOptions, SubmitOptions
from simenv.model.task_rules import checked_integer, checked_key
from simenv.text import size
from simenv.transpiler import qiskit_runtime, qpy
from simenv.wire import codec

if TYPE_CHECKING:
    pass

NO_DEVICE: Mapping[str, Any] = {}
Read = Callable[[bytes], Any]  # decodes the returned value from a packed answer
_UNREAD = object()


class _Answer(Protocol):
    @property
    def format(self) -> int: ...


Answer = TypeVar("Answer", bound=_Answer)


class CallTask(Task):
    """A Task whose result is the value that a call returned. `details` has worker, node and
    times."""

    __slots__ = ("_read", "_value")

    def __init__(self, handle: TaskHandle, read: Read) -> None:
        super().__init__(handle)
        self._read = read
        self._value: Any = _UNREAD

    def result(self, timeout: float | None = None, *, timeout_s: float | None = None) -> Any:
        """Wait for the value that the call returned; the same object each time. Raises
        TaskFailedError if the function raised: the message has the worker's traceback; else like
        `Task.result`."""
        entry = super().result(timeout, timeout_s=timeout_s)
        if self._value is _UNREAD:
            self._value = self._read(entry.value)
        return self._value

    def results(self, timeout_s: float | None = None) -> list[Any]:
        """The only result, in a list."""
        return [self.result(timeout_s)]

    @property
    def details(self) -> Result:
        """Worker, node, attempts, slots and times of the call. Waits like `result`."""
        return super().result()

    def _repr_html_(self) -> str:
        """HTML for notebooks: the state."""
        infos = [] if self.done() else self.session.try_task_infos(self.handle.number)
        state = self.handle.final_state if self.done() else infos[0].state if infos else "no answer"
        return result_display.task_html(self.id, self.name, state, infos[0] if infos else None)


def send_calls(
    session: ServiceSession,
    engine: str,
    calls: Sequence[bytes],
    read: Read,
    options: CallOptions,
    seed: int = 0,
    shots: int = 0,
    *,
    of_device: Mapping[str, Any] = NO_DEVICE,
) -> list[CallTask]:
    """Submit packed calls, all or none; return their tasks in order. Raises like
    `Client.submit_many`."""
    order = prepare_calls(engine, calls, options, seed, shots, of_device=of_device)
    tasks = send(session, order, options.get("idempotency_key"))
    return [CallTask(task.handle, read) for task in tasks]


def prepare_calls(
    engine: str,
    calls: Sequence[bytes],
    options: CallOptions,
    seed: int = 0,
    shots: int = 0,
    *,
    of_device: Mapping[str, Any] = NO_DEVICE,
) -> PreparedSubmit:
    """Check packed calls and their options. `of_device`: options `device` and `noise` of calls that
    have a device, and `options` of engines. Raises OptionError, LimitExceededError."""
    submission_options.check_names(options, CallOptions)
    for index, packed in enumerate(calls):
        if len(packed) > model_calls.MAX_CALL_BYTES:
            raise simenv_errors.LimitExceededError(
                f"a call of {size(len(packed))}; the limit is {size(model_calls.MAX_CALL_BYTES)}",
                hint="give large data by the name of a file that the workers see",
                index=index,
            )
    key = options.get("idempotency_key")
    if key is not None:
        checked_key(key)
    terms = call_terms(engine, options, of_device)
    specs = [TaskSpec(packed, shots, seed) for packed in calls]
    return PreparedSubmit(terms, specs, single=len(calls) == 1)


def call_terms(
    engine: str, options: CallOptions, of_device: Mapping[str, Any] = NO_DEVICE
) -> TaskOptions:
    """Return the checked options of tasks that are calls. Raises OptionError."""
    values: SubmitOptions = {**options, **of_device, "engine": engine}  # type: ignore[typeddict-item]
    terms = submission_options.checked_options(values).task
    return msgspec.structs.replace(terms, outputs=(VALUE,), app=application())


def decode_answer(packed: bytes, kind: type[Answer]) -> Answer:
    """Decode the packed answer of a call. Raises VersionMismatchError."""
    answer = msgspec.msgpack.decode(packed, type=kind)
    if answer.format != model_calls.CALL_FORMAT:
        raise simenv_errors.VersionMismatchError(
            f"an answer of format {answer.format}, this client reads {model_calls.CALL_FORMAT}",
            hint="client and service should be of one version",
        )
    return answer


# Circuits of one task: a task of this length is prefetched while the worker runs the one before.
CIRCUITS = 2
FIRST_TASKS = 8  # sent in the first message: they run while the other circuits are packed
TASK_BYTES = 4 * 2**20  # bound on the circuits of one task; a single circuit may be larger
MAX_SEED = 2**32 - 1


def transpile(
    session: ServiceSession,
    info: DeviceInfo,
    circuits: Sequence[Any],
    level: SupportsIndex | None,
    seed: SupportsIndex,
    fractional_gates: bool,
    options: CallOptions,
) -> list[Any]:
    """Return QuantumCircuits compiled for the device, in order; see `Environment.transpile`."""
    qiskit_runtime.qiskit()
    from qiskit.qpy import common

    rules = model_calls.AS_SUBMITTED if level is None else checked_integer("level", level, 0, 3)
    seed = checked_integer("seed", seed, 0, MAX_SEED)
    device = codec.encode(info)
    for number, circuit in enumerate(circuits):
        _check_circuit(circuit, number)
    calls = (
        codec.encode(
            model_calls.TranspileCall(
                model_calls.CALL_FORMAT,
                device,
                rules,
                seed,
                common.QPY_VERSION,
                first,
                chunk,
                bool(fractional_gates),
            )
        )
        for first, chunk in _chunks(map(_pack, circuits, itertools.count()))
    )
    # An idempotency key covers one message, so all tasks must be in it.
    first_count = None if options.get("idempotency_key") is not None else FIRST_TASKS
    tasks: list[CallTask] = []
    try:
        for count in (first_count, None):
            batch = list(itertools.islice(calls, count))
            tasks += send_calls(session, model_calls.TRANSPILER, batch, _read, options, seed)
        compiled = [circuit for task in tasks for circuit in task.result()]
    except BaseException as error:
        session.cancel([task.handle.number for task in tasks if not task.handle.over])
        if (
            isinstance(error, simenv_errors.TaskFailedError)
            and error.reason == simenv_errors.ProgramError.code
        ):
            raise simenv_errors.ProgramError(error.message, hint=error.hint) from error
        raise
    if info.links:
        from simenv.transpiler.linked.distribution import with_pairs

        return [with_pairs(circuit, info) for circuit in compiled]
    return compiled


def _check_circuit(circuit: Any, number: int) -> None:
    if not qiskit_runtime.is_circuit(circuit):
        message = f"circuit {number} to transpile is of type {type(circuit).__name__}"
        raise OptionError(message, hint="a QuantumCircuit")


def _pack(circuit: Any, number: int) -> bytes:
    try:
        return qpy.write_qpy(circuit)
    except Exception as error:  # QPY raises any type for an operation that it cannot store
        message = f"circuit {number} cannot be written as QPY: {error}"
        hint = "replace its own operations by their definitions: circuit.decompose()"
        raise simenv_errors.ProgramError(message, hint=hint) from error


def _chunks(files: Iterable[bytes]) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Iterate over the files of each task, with the index of the first."""
    first, chunk, total = 0, list[bytes](), 0
    for file in files:
        if len(chunk) == CIRCUITS or (chunk and total + len(file) > TASK_BYTES):
            yield first, tuple(chunk)
            first, chunk, total = first + len(chunk), [], 0
        chunk.append(file)
        total += len(file)
    if chunk:
        yield first, tuple(chunk)


def _read(packed: bytes) -> list[Any]:
    return [qpy.parse(each) for each in decode_answer(packed, model_calls.TranspileAnswer).circuits]


class FunctionExecutor(TaskExecutor):
    """Executor of functions in workers; its futures are tasks: durable, and repeated if a worker
    dies.

    Made by `Client.functions`. A function is called more than once if a worker died before the
    function's value was stored. Thread-safe.
    """

    def __init__(
        self,
        session: ServiceSession,
        owner: str,
        options: CallOptions,
        *,
        is_isolated: bool = False,
    ) -> None:
        """`owner`: name of the key with which the client connected; "": none. Raises
        NotAllowedError with a key, because an environment calls functions of its own user only,
        unless it isolates accounts (`is_isolated`), TypeError for an unknown option."""
        if owner and not is_isolated:
            raise simenv_errors.NotAllowedError(
                "functions are called for the environment's own user alone, and this client came"
                " with a key",
                hint="connect without a key, as that user, where the environment runs",
            )
        super().__init__(session)
        submission_options.check_names(options, CallOptions)
        self._owner = owner
        self._options = options

    def submit(  # type: ignore[override]
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> CallTask:
        """Submit one call. It is durably accepted when this returns. Raises OptionError for objects
        that cannot be pickled, LimitExceededError, NotAllowedError, InfeasibleError if no pool
        calls functions, QueueFullError, ServiceLostError."""
        return self._send([_pack_function(function, args, kwargs)])[0]

    def submit_many(
        self, function: Callable[..., Any], /, *iterables: Iterable[Any]
    ) -> list[CallTask]:
        """Submit function(*items) for the items of the iterables, grouped as by `zip`, in few
        messages. Raises like `submit`."""
        return self._send(
            [_pack_function(function, items, {}) for items in zip(*iterables, strict=False)]
        )

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
        """Return a call that was submitted before, by any process of this user. Raises
        NotAllowedError for one of another user, whose value must not be unpickled here."""
        number = number_of(task)
        if any(info.owner != self._owner for info in self._session.task_infos([number])):
            raise simenv_errors.NotAllowedError(
                f"task {task_name(number)} is a call of another user",
                hint="client.task gives its state; its value is for that user alone",
            )
        handle = self._session.tasks.handle(number, Submission())
        return CallTask(handle, _read_value)

    def _send(self, calls: list[bytes]) -> list[CallTask]:
        self._check_open()
        tasks = send_calls(self._session, model_calls.FUNCTIONS, calls, _read_value, self._options)
        self._remember(tasks)
        return tasks


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError as error:
        hint = "pip install 'simenv[functions]'"
        raise OptionError("functions need the package cloudpickle", hint=hint) from error
    return cloudpickle


def _pack_function(
    function: Callable[..., Any], positional: tuple[Any, ...], named: dict[str, Any]
) -> bytes:
    if not callable(function):
        raise OptionError(f"{function!r:.80} is no function", hint="client.call(function, *args)")
    name = getattr(function, "__qualname__", type(function).__name__)
    pickler = _cloudpickle()
    try:
        pickled = pickler.dumps((function, positional, named))
    except Exception as error:  # objects of the user may raise any type
        message = f"function {name} with its arguments cannot be pickled: {error}"
        hint = "give files and connections by name, and open them in the function"
        raise OptionError(message, hint=hint) from error
    printable = "".join(char if char.isprintable() else "?" for char in name)
    kind = model_calls.CALL_FORMAT, model_calls.PYTHON
    name = printable[: model_calls.MAX_NAME_CHARS]
    return codec.encode(model_calls.FunctionCall(*kind, name, pickled))


def _read_value(packed: bytes) -> Any:
    """Unpickle the value in an answer of this user's own environment."""
    answer = decode_answer(packed, model_calls.FunctionAnswer)
    try:
        return _cloudpickle().loads(answer.pickled)
    except Exception as error:  # objects of the user may raise any type
        message = f"the returned value cannot be unpickled: {type(error).__name__}: {error}"
        hint = "this process needs the modules of the classes that were returned"
        raise OptionError(message, hint=hint) from error
