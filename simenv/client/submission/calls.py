"""Calls as tasks: functions, transpilation, and circuits with detectors.

First options and submission of calls, and the futures of the returned values. Transpilation sends
circuits in QPY, a few in each task, and returns them compiled. Circuits of stim with detectors are
sampled and decoded by workers of the environment. Invariant: this module does not import stim; the
caller's circuit shows that it is installed.

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
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task, TaskExecutor, deadline_of, number_of
from simenv.config import application
from simenv.errors import OptionError
from simenv.model import MAX_QUBITS, TaskSpec, calls as model_calls, task_name
from simenv.model.calls import DETECTORS
from simenv.model.devices import DeviceInfo
from simenv.model.options import VALUE, CallOptions, SubmitOptions
from simenv.model.task_rules import checked_integer, checked_key, checked_list
from simenv.text import size
from simenv.transpiler import qiskit_runtime, qpy
from simenv.wire import codec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    """Submit packed calls, all or none; return their tasks in order. `of_device`: options `device`
    and `noise` of calls that have a device. Raises like `Client.submit_many`."""
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
    values: SubmitOptions = {**options, **of_device, "engine": engine}  # type: ignore[typeddict-item]
    terms = msgspec.structs.replace(
        submission_options.checked_options(values).task,
        outputs=(VALUE,),
        app=application(),
    )
    order = PreparedSubmit(
        terms, [TaskSpec(packed, shots, seed) for packed in calls], single=len(calls) == 1
    )
    return [CallTask(task.handle, read) for task in send(session, order, key)]


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
                model_calls.CALL_FORMAT, device, rules, seed, common.QPY_VERSION, first, chunk
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
        return [circuit for task in tasks for circuit in task.result()]
    except BaseException as error:
        session.cancel([task.handle.number for task in tasks if not task.handle.over])
        if (
            isinstance(error, simenv_errors.TaskFailedError)
            and error.reason == simenv_errors.ProgramError.code
        ):
            raise simenv_errors.ProgramError(error.message, hint=error.hint) from error
        raise


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


_OWN = {
    *("shots", "seed", "outputs", "engine", "decoder"),
    *("device", "noise", "qubit_mapping"),
}
DRAW = "draw"  # in place of a mapping of qubits


class DetectionResult:
    """Counts of detection events, observable flips and errors of a decoder. Detectors and
    observables have stim's numbers. Raises OptionError when data is read that was not requested."""

    def __init__(self, value: bytes) -> None:
        """`value`: the value of a task's Result, as in `client.task(id).result().value`."""
        answer = decode_answer(value, model_calls.DetectionAnswer)
        self._answer = answer
        self.shots = answer.shots
        self.seed = answer.seed
        self.sampler = answer.sampler  # name and version
        self.decoder = answer.decoder  # name and version; "": samples were not decoded
        self.num_detectors = answer.sizes.detectors
        self.num_observables = answer.sizes.observables

    @property
    def logical_errors(self) -> int:
        """Number of shots in which the decoder predicted an observable wrongly."""
        self._require_decoder()
        return self._answer.errors

    @property
    def logical_error_rate(self) -> float:
        """`logical_errors` divided by the number of shots."""
        return self.logical_errors / self.shots

    @property
    def observable_errors(self) -> NDArray[np.int64]:
        """int64 [observables]: shots in which the observable was predicted wrongly."""
        self._require_decoder()
        return _unpack_numbers(self._answer.observable_errors)

    @property
    def detection_counts(self) -> NDArray[np.int64]:
        """int64 [detectors]: shots in which the detector fired."""
        return _unpack_numbers(self._answer.detections)

    @property
    def detection_rates(self) -> NDArray[np.float64]:
        """float64 [detectors]: fraction of the shots in which the detector fired."""
        return self.detection_counts / self.shots

    @property
    def flip_rates(self) -> NDArray[np.float64]:
        """float64 [observables]: fraction of the shots that flipped it, before any correction."""
        return _unpack_numbers(self._answer.flips) / self.shots

    @property
    def detection_events(self) -> NDArray[np.uint8]:
        """Detection events of each shot, with outputs="memory": uint8 [shots, ceil(detectors / 8)];
        detector d is bit d % 8 of byte d // 8, as stim and PyMatching pack them."""
        return self._rows(self._answer.detection_events, self.num_detectors)

    @property
    def observable_flips(self) -> NDArray[np.uint8]:
        """Observable flips of each shot, packed like `detection_events`: uint8 [shots,
        ceil(observables / 8)]."""
        return self._rows(self._answer.observable_flips, self.num_observables)

    @property
    def predictions(self) -> NDArray[np.uint8]:
        """Observable flips that the decoder predicts, packed like `observable_flips`."""
        self._require_decoder()
        return self._rows(self._answer.predictions, self.num_observables)

    @property
    def device(self) -> str | None:
        """The device whose noise the circuit has; None: it had its noise in it."""
        placed = self._answer.device
        return None if placed is None else placed.record.name

    @property
    def snapshot(self) -> str | None:
        """Digest of the device's calibration, in hexadecimal; None without a device."""
        placed = self._answer.device
        return None if placed is None else placed.record.snapshot

    @property
    def warnings(self) -> tuple[str, ...]:
        """Noise of the device that does not act as its numbers say, or was not measured."""
        placed = self._answer.device
        return () if placed is None else placed.record.warnings

    @property
    def native_gates(self) -> dict[str, int]:
        """Native gates of the device in one shot, by name."""
        return dict(self._placed.record.gates)

    @property
    def mapping(self) -> dict[int, int] | None:
        """The device's qubit of each qubit of the circuit; None: their values were drawn from those
        of the device, see `draw`."""
        placement = self._placed.placement
        places = zip(placement.qubits, placement.places, strict=False)
        return dict(places) if placement.places else None

    @property
    def draw(self) -> int | None:
        """Number of the draw of the values of qubits and pairs; None: a mapping was given."""
        number = self._placed.placement.draw
        return number if number >= 0 else None

    @property
    def shot_ns(self) -> float:
        """Time of one shot on the device, with the reset of its qubits before it."""
        return self._placed.shot_ns

    @property
    def layers(self) -> int:
        """Layers of one shot, from TICK to TICK, that have measurements."""
        return self._placed.layers

    @property
    def layer_ns(self) -> float:
        """Time of the circuit on the device for each of its `layers`, without `late_ns`."""
        return self._placed.layer_ns

    @property
    def late_ns(self) -> float:
        """Idle time of all qubits in each of the `layers` that a TICK ends, for a late decoder."""
        return self._placed.late_ns

    @property
    def _placed(self) -> model_calls.DetectionDevice:
        if self._answer.device is None:
            hint = "device='NAME', with qubit_mapping="
            raise OptionError("the circuit ran with its own noise, on no device", hint=hint)
        return self._answer.device

    def __repr__(self) -> str:
        errors = f", {self.logical_errors} logical errors" if self.decoder else ""
        return (
            f"<DetectionResult: {self.num_detectors} detectors, {self.num_observables}"
            f" observables, {self.shots} shots{errors}>"
        )

    def _require_decoder(self) -> None:
        if not self.decoder:
            raise OptionError("the samples were not decoded", hint='decoder="pymatching"')

    def _rows(self, packed: bytes, width: int) -> NDArray[np.uint8]:
        if not self._answer.detection_events and not self._answer.observable_flips:
            raise OptionError("the bits of each shot were not requested", hint='outputs="memory"')
        import numpy as np

        return np.frombuffer(packed, np.uint8).reshape(self.shots, -(-width // 8))


def submit_detection(
    session: ServiceSession, circuit: Any, options: SubmitOptions, devices: SubmitDevices
) -> CallTask:
    """Submit a task that samples a stim.Circuit; its result is a DetectionResult. See
    `Client.submit`."""
    submission_options.check_names(options)
    outputs, calls = _checked(options)
    decoder = options.get("decoder")
    if decoder is not None and not isinstance(decoder, str):
        raise OptionError(f"decoder={decoder!r:.80}", hint="the name of a decoder, or None")
    seed = submission_options.checked_seed(options.get("seed"), options.get("idempotency_key"))
    shots = submission_options.checked_options(
        {"shots": options.get("shots", submission_options.DEFAULTS["shots"])}
    ).shots
    placement, of_device = _placement(circuit, options, devices)
    call = model_calls.DetectionCall(
        model_calls.CALL_FORMAT,
        str(circuit),
        decoder or "",
        "memory" in outputs,
        model_calls.sizes_of(circuit),
        placement,
    )
    model_calls.check_detection(call)
    model_calls.check_events(call, shots)
    return send_calls(
        session,
        DETECTORS,
        [codec.encode(call)],
        DetectionResult,
        calls,
        seed,
        shots,
        of_device=of_device,
    )[0]


def _placement(
    circuit: Any, options: SubmitOptions, devices: SubmitDevices
) -> tuple[model_calls.DevicePlacement | None, Mapping[str, Any]]:
    """Return the place of a circuit on the device of its options, and the options that are sent
    with it; None without a device. Raises OptionError, NotFoundError."""
    mapping, number = options.get("qubit_mapping"), -1
    if isinstance(mapping, str):
        number = _draw_number(mapping)
    device, noise = options.get("device"), options.get("noise", "auto")
    checked = submission_options.checked_options(
        {"device": device, "noise": noise, "pool": options.get("pool")}
    )
    info = devices.of_options(checked.task)
    given = [name for name in ("noise", "qubit_mapping") if not _is_default_option(options, name)]
    if info is None:
        if given:
            raise OptionError(
                f"{given[0]}= of a circuit of stim without a device: {options.get(given[0])!r:.60}",
                hint="its noise is in it; device= with qubit_mapping= gives it that of a device",
            )
        return None, NO_DEVICE
    if checked.document:
        hint = "factors of components, or device=None and channels in the circuit"
        raise OptionError("a noise model of your own for a circuit of stim", hint=hint)
    qubits = model_calls.qubits_of(circuit)
    places: tuple[int, ...] = ()
    if number < 0:
        places = _places(mapping, qubits, info)
    placement = model_calls.DevicePlacement(qubits, places, number)
    return placement, {"device": info.name if device else None, "noise": noise}


def _draw_number(mapping: str) -> int:
    """Return the number of `draw` or `draw:NUMBER`. Raises OptionError."""
    kind, _, number = mapping.partition(":")
    digits = number.isascii() and number.isdigit() and len(number) <= 10
    if kind != DRAW or not (digits or mapping == DRAW):
        hint = f"the device's qubit of each qubit, {DRAW!r}, or '{DRAW}:3' for draw number 3"
        raise OptionError(f"qubit_mapping={mapping!r:.60}", hint=hint, option="qubit_mapping")
    return int(number or 0)


def _places(mapping: Any, qubits: tuple[int, ...], info: DeviceInfo) -> tuple[int, ...]:
    """Return the device's qubit of each qubit that the circuit uses. Raises OptionError."""
    if mapping is None:
        raise OptionError(
            f"a circuit of stim on device {info.name} without a place",
            hint=f"qubit_mapping=[...], or {DRAW!r} for values drawn from the device's qubits",
            option="qubit_mapping",
        )
    if isinstance(mapping, Mapping):
        missing = [qubit for qubit in qubits if qubit not in mapping]
        if missing:
            hint = "the device's qubit of each qubit that the circuit uses"
            text = f"qubit_mapping has no place for qubit {missing[0]}"
            raise OptionError(text, hint=hint, option="qubit_mapping")
        mapping = [mapping[qubit] for qubit in qubits]
    expected = "a list with the device's qubit of each qubit of the circuit, such as [5, 4, 3]"
    values = checked_list("qubit_mapping", mapping, expected)
    if len(values) != len(qubits):
        if not qubits or len(values) != qubits[-1] + 1:
            raise OptionError(
                f"qubit_mapping has {len(values)} entries; the circuit uses {len(qubits)} qubits",
                hint="one for each of them, in ascending order; or one for each number from 0",
                option="qubit_mapping",
            )
        values = tuple(values[qubit] for qubit in qubits)
    results = tuple(checked_integer("qubit_mapping", each, 0, MAX_QUBITS) for each in values)
    if len(set(results)) < len(results):
        hint = "each qubit of the device once"
        raise OptionError(option="qubit_mapping", value=results, expected=hint)
    beyond = [each for each in results if each >= info.num_qubits]
    if beyond:
        text = f"qubit_mapping names qubit {beyond[0]}; device {info.name} has {info.num_qubits}"
        hint = f"0 to {info.num_qubits - 1}"
        raise OptionError(text, hint=hint, option="qubit_mapping")
    return results


def _is_default_option(options: SubmitOptions, name: str) -> bool:
    value: Any = options.get(name, submission_options.DEFAULTS[name])
    return _is_default(value, submission_options.DEFAULTS[name])


def _checked(options: SubmitOptions) -> tuple[tuple[str, ...], CallOptions]:
    """Return the outputs and the options of calls. Raises OptionError for options of other
    circuits."""
    calls: dict[str, Any] = {}
    for name, value in options.items():
        if name in CallOptions.__optional_keys__:
            calls[name] = value
        elif name not in _OWN and not _is_default(value, submission_options.DEFAULTS[name]):
            raise OptionError(
                f"{name}= of a circuit of stim: {value!r:.60}",
                hint="its observables are instructions in it; options are shots, seed, decoder,"
                " outputs, device, noise, qubit_mapping and those of tasks",
            )
    engine = options.get("engine", "auto")
    if engine not in ("auto", DETECTORS):
        hint = f"engine={DETECTORS!r}, or none"
        raise OptionError(f"engine {engine!r:.80} samples no detectors", hint=hint)
    outputs = submission_options.checked_options(
        {"outputs": options.get("outputs", "counts")}
    ).task.outputs
    if not set(outputs) <= set(submission_options.SAMPLED):
        hint = f"of: {', '.join(submission_options.SAMPLED)}"
        raise OptionError(f"outputs {outputs} of a circuit of stim", hint=hint)
    return outputs, calls  # type: ignore[return-value]


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, type(default)) and bool(value == default))


def _unpack_numbers(packed: bytes) -> NDArray[np.int64]:
    import numpy as np

    return np.frombuffer(packed, "<u8").astype(np.int64)


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
