"""The program `executor` of IBM's service: quantum programs, which the client's primitives send.

A quantum program is a list of items, each with one circuit. A circuit item has an array of values
of the circuit's parameters. A samplex item has a samplex, which draws them, for Pauli twirling as
an example. Formats are the models of ibm-quantum-schemas; samplomatic draws. An item is one sweep
of the service, and all items are accepted or refused together.

Invariant: what is drawn and sent is a function of the parameters and the key, so that a job that is
run again after a restart finds its tasks by their idempotency key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import metadata
from io import BytesIO
from types import ModuleType
from typing import Any, Unpack

import numpy as np
from ibm_quantum_schemas.common import CompressedTensorModel, PauliLindbladMapModel, TensorModel
from ibm_quantum_schemas.executor import (
    version_0_1,
    version_0_2,
    version_1_0,
    version_1_1,
    version_2_0,
)
from numpy.typing import NDArray
from pydantic import ValidationError
from qiskit import QuantumCircuit, qpy
from samplomatic.serialization import parameter_expression_serializer
from samplomatic.utils import unbox

from simenv.client.circuits import PackedCircuit, load
from simenv.client.client import Client
from simenv.client.submission.options import checked_seed, item_seeds
from simenv.client.tasks.task import Task
from simenv.errors import (
    BatchRefusedError,
    ConfigError,
    LimitExceededError,
    OptionError,
    ProgramError,
    SimenvError,
)
from simenv.frontends.qiskit.job import disjoint, share_bits
from simenv.model.devices import DeviceKind
from simenv.model.options import BatchOptions, CallOptions
from simenv.transpiler.qpy import OLDEST, check_header

# Formats, and the form of their arrays.
VERSIONS: dict[str, tuple[ModuleType, type[TensorModel]]] = {
    "v0.1": (version_0_1, TensorModel),
    "v0.2": (version_0_2, TensorModel),
    "v1.0": (version_1_0, TensorModel),
    "v1.1": (version_1_1, TensorModel),
    "v2.0": (version_2_0, CompressedTensorModel),
}
MAX_VALUES = 2**25  # parameter values of an item: 256 MiB
MAX_RESULT_BITS = 2**28  # of a program; a byte each while they are converted

# Where the client's sampler and estimator put the option `simulator.seed_simulator`.
_SEED_PATH = ("post_processor", "options", "simulator", "seed_simulator")
# Experimental options that are known; `execution` repeats two of the options.
_EXPERIMENTAL = ("seed_simulator", "execution")

Arrays = dict[str, NDArray[Any]]


def _load_formulas(file: BytesIO) -> list[QuantumCircuit]:
    """Load the QPY file inside a samplex. Raises ProgramError for a version that may hold code."""
    check_header(file.getvalue(), "formulas of a samplex")
    circuits: list[QuantumCircuit] = qpy.load(file)
    return circuits


# A samplex may hold the file in any of its nodes, and has no other place where it can be checked.
parameter_expression_serializer.load = _load_formulas


@lru_cache(1)
def _check_serializer() -> None:
    """Raise ConfigError if samplomatic does not load formulas by `_load_formulas`, as when it has
    given the function that is replaced above another name."""
    table = parameter_expression_serializer.ParameterExpressionTableSerializer
    for read in table.DESERIALIZERS.values():
        try:
            read({"qpy": "15", "circuit_base64": ""})
        except ProgramError:
            continue
        except Exception:  # noqa: BLE001 - that of another reader
            pass
        message = f"samplomatic {metadata.version('samplomatic')} reads QPY without simenv's check"
        raise ConfigError(message, hint="install the version of simenv's lock file")


@dataclass(frozen=True, slots=True)
class _Item:
    """One item, ready to be sent. `values`: float64 [elements, parameters], elements in C order of
    `shape`; `drawn`: the other arrays of the samplex, [*shape, ...]."""

    circuit: QuantumCircuit
    loaded: PackedCircuit
    shape: tuple[int, ...]
    values: NDArray[np.float64]
    drawn: Arrays
    chunk_size: int  # most elements of one sweep

    @property
    def is_sampled(self) -> bool:
        """False if all bits are 0: without a measurement or a stored value, and without bits."""
        program = self.loaded.program
        writes = self.loaded.measures or "store" in program.names
        return bool(self.circuit.cregs) and writes and len(self.values) > 0

    def bits(self, shots: int) -> int:
        """Return the number of bits of the result."""
        bits: int = len(self.values) * shots * self.circuit.num_clbits
        return bits

    def sweeps(self, shots: int) -> list[tuple[NDArray[np.float64], int]]:
        """Return values and shots of each sweep. Elements without parameters are one run of all
        their shots."""
        count, parameters = self.values.shape
        if not parameters:
            return [(self.values[:1], shots * count)]
        step = self.chunk_size
        return [(self.values[first : first + step], shots) for first in range(0, count, step)]


class ExecutorJob:
    """A quantum program whose sweeps the service has accepted."""

    def __init__(
        self, client: Client, request: Any, items: Sequence[_Item], tasks: Sequence[Sequence[Task]]
    ) -> None:
        self._client, self._request = client, request
        self._items, self._tasks = items, tasks
        self._submitted = datetime.now(UTC)

    @property
    def tasks(self) -> list[Task]:
        """Tasks of the environment: for each item, one for each element, or one for all elements
        if they have no parameters."""
        return [task for own in self._tasks for task in own]

    def result(self) -> str:
        """Wait for the result; return its text, of the version of the program. If a task fails,
        the others are cancelled. Raises what `Task.result` raises."""
        models, tensor = VERSIONS[self._request.schema_version]
        program = self._request.quantum_program
        spans: list[dict[str, Any]] = []
        data = []
        try:
            for number, (item, own) in enumerate(zip(self._items, self._tasks, strict=True)):
                with _about(f"item {number}"):
                    arrays = item.drawn | _bits(item, program.shots, _memory(own))
                results = {name: tensor.from_numpy(array) for name, array in arrays.items()}
                data.append({"results": results, "metadata": _metadata(self._request)})
                spans += _spans(number, item, own, self._submitted)
        except BaseException:
            self._client.cancel({task.handle.number for task in self.tasks})
            raise
        result = models.QuantumProgramResultModel(
            data=data,
            metadata={"chunk_timing": spans},
            passthrough_data=getattr(program, "passthrough_data", None),
            semantic_role=getattr(program, "semantic_role", None),
        )
        text: str = result.model_dump_json()
        return text


def run_executor(params: dict[str, Any], backend: str, client: Client, key: str) -> str:
    """Run a quantum program; return the text of its result. Raises as `submit_executor` and
    `ExecutorJob.result`."""
    return submit_executor(params, backend, client, key).result()


def submit_executor(
    params: dict[str, Any], backend: str, client: Client, key: str, **options: Unpack[CallOptions]
) -> ExecutorJob:
    """Submit a quantum program.

    `params`: of the job, as they came; `backend`: an emulated device, or a pool; `key`: an
    idempotency key; `options`: of all tasks, such as `reservation`. Circuits for a device must have
    its gates and couplings: they are not compiled.

    Raises OptionError for a version, option or shape that is not carried, ProgramError for a
    circuit or samplex, LimitExceededError, and what `Client.submit_many` raises for an item.
    """
    _check_serializer()
    version = params.get("schema_version")
    if not isinstance(version, str) or version not in VERSIONS:
        raise OptionError(
            option="schema_version", value=version, expected=f"one of: {', '.join(VERSIONS)}"
        )
    with _about("params"):
        request = VERSIONS[version][0].ParamsModel.model_validate(params)
    program, experimental = request.quantum_program, getattr(request.options, "experimental", {})
    _check_options(program, request.options, experimental)
    seeds = _item_seeds(program, experimental, key)
    with _about("circuits"):
        circuits = _circuits(program)
    items = []
    for number, model in enumerate(program.items):
        with _about(f"item {number}"):
            items.append(_item(model, circuits[number], seeds[number], program.shots))
    _check_bits(sum(item.bits(program.shots) for item in items))
    batch: BatchOptions = {"name": "executor", **options, "idempotency_key": key}  # type: ignore[typeddict-item]
    tasks = _submitted(items, program.shots, seeds, batch, backend, client)
    return ExecutorJob(client, request, items, tasks)


@contextmanager
def _about(subject: str) -> Iterator[None]:
    """Name the subject in errors, and convert those of other libraries, which read data of a
    caller and may raise anything."""
    try:
        yield
    except SimenvError as error:
        error.message = f"{subject}: {error.message}"
        raise
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise OptionError(f"{subject}: {place}: {first['msg']}") from error
    except MemoryError as error:
        raise LimitExceededError(f"{subject}: no memory left", hint="send less at once") from error
    except Exception as error:
        text = str(error) or type(error).__name__
        raise ProgramError(f"{subject}: {text:.500}") from error


def _check_options(program: Any, options: Any, experimental: dict[str, Any]) -> None:
    """Raise OptionError for an option that an emulated device does not have."""
    only_values = {
        "init_qubits": (True, "True: every shot begins with all qubits in 0"),
        "rep_delay": (None, "None: the time between shots is the device's own"),
        "scheduler_timing": (False, "False: there is no schedule to return"),
    }
    for name, (only, hint) in only_values.items():
        if (value := getattr(options, name, only)) != only:
            raise OptionError(option=f"options.{name}", value=value, expected=hint)
    level = getattr(program, "meas_level", "classified")
    if level != "classified":
        raise OptionError(option="meas_level", value=level, expected="classified")
    if unknown := sorted(experimental.keys() - set(_EXPERIMENTAL)):
        hint = f"there are {', '.join(_EXPERIMENTAL)}"
        raise OptionError(f"options.experimental: {unknown[0]:.80}", hint=hint)


def _item_seeds(program: Any, experimental: dict[str, Any], key: str) -> list[int]:
    """Return the seed of each item. A single one has the seed of the program, as `Client.submit`
    would use it; several have those of `Client.submit_many`."""
    seed: Any = getattr(program, "passthrough_data", None)
    for name in _SEED_PATH:
        seed = seed.get(name) if isinstance(seed, dict) else None
    checked = checked_seed(experimental.get("seed_simulator", seed), key)
    count = len(program.items)
    return [checked] if count == 1 else item_seeds(checked, count, None)


def _circuits(program: Any) -> list[QuantumCircuit]:
    if hasattr(program, "circuits"):
        version = getattr(program.circuits, "qpy_version", OLDEST)  # OpenQASM has none
        if version < OLDEST:
            raise ProgramError(f"QPY of version {version}", hint=f"{OLDEST} or later")
        found: list[QuantumCircuit] = program.circuits.to_python(use_cached=True)
    else:  # up to version 0.2, each item has its own
        found = [item.circuit.to_quantum_circuit(use_cached=True) for item in program.items]
    if len(found) != len(program.items):
        raise ProgramError(f"{len(found)} circuits for {len(program.items)} items")
    return found


def _item(model: Any, circuit: QuantumCircuit, seed: int, shots: int) -> _Item:
    """Read one item; draw its values if it has a samplex."""
    boxes = [each.operation for each in circuit.data if each.name == "box"]
    if any(box.duration is not None for box in boxes):
        raise ProgramError("a box with a duration is not carried", hint="write it as delays")
    circuit = unbox(circuit) if boxes else circuit
    loaded = load(disjoint(circuit))
    drawn: Arrays
    if model.item_type == "circuit":
        given = model.circuit_arguments.to_numpy()
        shape = _broadcast(getattr(model, "shape", []), given.shape[:-1])
        _check_elements(shape, loaded, circuit, shots)
        drawn = {"parameter_values": np.broadcast_to(given, (*shape, given.shape[-1]))}
    else:
        samplex = model.samplex.to_samplex(use_cached=True).finalize()
        inputs = samplex.inputs().make_broadcastable()
        for name, value in model.samplex_arguments.items():
            inputs[name] = _argument(value)
        shape = _broadcast(model.shape, inputs.shape)
        _check_elements(shape, loaded, circuit, shots)
        drawn = _draw(samplex, inputs, shape, np.random.default_rng(seed))
    values = drawn.pop("parameter_values", np.zeros((*shape, 0)))
    if values.shape[-1] != len(loaded.parameters):
        text = f"{values.shape[-1]} values for {len(loaded.parameters)} parameters of the circuit"
        raise OptionError(text, hint="one for each, in the order of circuit.parameters")
    count = math.prod(shape)
    rows = np.ascontiguousarray(values, np.float64).reshape(count, values.shape[-1])
    chunk_size = max(1, len(rows)) if model.chunk_size == "auto" else model.chunk_size
    return _Item(circuit, loaded, shape, rows, drawn, chunk_size)


def _argument(value: Any) -> Any:
    if isinstance(value, TensorModel):
        return value.to_numpy()
    return value.to_pauli_lindblad_map() if isinstance(value, PauliLindbladMapModel) else value


def _broadcast(shape: Sequence[int], given: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an item whose arguments have the shape `given`. Raises OptionError."""
    try:
        return np.broadcast_shapes(tuple(shape), given)
    except (ValueError, OverflowError) as error:
        text = f"shape={list(shape)!s:.80} with arguments of shape {given}"
        raise OptionError(text, hint=f"numpy: {error}") from error


def _check_elements(
    shape: tuple[int, ...], loaded: PackedCircuit, circuit: QuantumCircuit, shots: int
) -> None:
    """Raise LimitExceededError before values are drawn that no memory holds."""
    elements, parameters = math.prod(shape), len(loaded.parameters)
    if elements * max(1, parameters) > MAX_VALUES:
        text = f"{elements} circuits with {parameters} parameters"
        hint = f"at most {MAX_VALUES} values in one item: send fewer circuits"
        raise LimitExceededError(text, hint=hint)
    _check_bits(elements * shots * circuit.num_clbits)


def _check_bits(bits: int) -> None:
    if bits > MAX_RESULT_BITS:
        hint = f"at most {MAX_RESULT_BITS} in one job: use fewer shots or circuits"
        raise LimitExceededError(f"a result of {bits} bits", hint=hint)


def _draw(samplex: Any, inputs: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    """Draw from a samplex: arrays [*shape, ...]. Axes of `shape` that no argument has are
    randomizations, all drawn at once; arguments along the others are a sweep."""
    swept = (1,) * (len(shape) - len(inputs.shape)) + inputs.shape
    free = tuple(size for size, given in zip(shape, swept, strict=True) if given == 1)
    result: Arrays = {}
    for place in np.ndindex(swept):
        own = inputs[place[len(shape) - len(inputs.shape) :]]
        drawn = samplex.sample(own, math.prod(free), rng, max_workers=1)  # threads cost more
        target = tuple(k if n > 1 else slice(None) for k, n in zip(place, swept, strict=True))
        for name, array in drawn.items():
            if name not in result:
                result[name] = np.empty((*shape, *array.shape[1:]), array.dtype)
            result[name][target] = array.reshape(*free, *array.shape[1:])
    return result


def _submitted(
    items: Sequence[_Item],
    shots: int,
    seeds: Sequence[int],
    options: BatchOptions,
    backend: str,
    client: Client,
) -> list[list[Task]]:
    """Submit all items in one call; return the tasks of each. Raises the error of the first item
    that is refused."""
    info = client.devices().get(backend)
    options |= {"device": backend} if info is None else {"pool": backend}
    if info is None or info.kind is DeviceKind.EMULATED:
        options["compile"] = "never"
    sweeps: list[tuple[PackedCircuit, NDArray[np.float64]]] = []
    shots_each: list[int] = []
    seeds_each: list[int] = []
    owners: list[int] = []
    for number, item in enumerate(items):
        parts = item.sweeps(shots) if item.is_sampled else []
        seed, count = seeds[number], len(parts)
        sweeps += [(item.loaded, values) for values, _ in parts]
        shots_each += [each for _, each in parts]
        seeds_each += [seed] if count == 1 else item_seeds(seed, count, None)
        owners += [number] * count
    options |= {"shots": shots_each, "seed": seeds_each, "outputs": "memory"}
    tasks: list[list[Task]] = [[] for _ in items]
    if not sweeps:
        return tasks
    try:
        every = iter(client.submit_many(sweeps, **options))
    except BatchRefusedError as error:
        first = error.errors[0]
        if "compile=" in first.hint:  # no option of a job
            first.hint = "transpile the circuit for this backend"
        with _about(f"item {owners[first.index]}" if first.index >= 0 else "items"):
            raise first from error
    for number, (_, values) in zip(owners, sweeps, strict=True):
        tasks[number] += [next(every) for _ in range(len(values))]
    return tasks


def _first_bindings(tasks: Sequence[Task]) -> list[Task]:
    """Return the first binding of each task of the service: they share result and times."""
    return [task for task in tasks if not task.row]


def _memory(tasks: Sequence[Task]) -> NDArray[np.uint8]:
    """Wait; return the bits of all shots, uint8 [shots of all elements, bytes]."""
    parts = []
    for task in _first_bindings(tasks):
        task.result()  # raises the task's error
        decoded = task.handle.decode()
        packed = np.frombuffer(decoded.packed("memory"), np.uint8)
        parts.append(packed.reshape(decoded.data.count * decoded.data.shots, -1))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.uint8)


def _bits(item: _Item, shots: int, memory: NDArray[np.uint8]) -> Arrays:
    """Return the bits of each register, bool [*shape, shots, bits], bit 0 first."""
    circuit = item.circuit
    if not memory.size:
        return {
            register.name: np.zeros((*item.shape, shots, register.size), np.bool_)
            for register in circuit.cregs
        }
    bits = np.unpackbits(memory, axis=-1, bitorder="little", count=circuit.num_clbits)
    bits = bits.reshape(*item.shape, shots, -1)
    places, shared = iter(range(circuit.num_clbits)), share_bits(circuit)
    result: Arrays = {}
    for register in circuit.cregs:
        # Clbits are sent in the order of the registers, but in that of the circuit if these share
        # some.
        own = [circuit.find_bit(bit).index if shared else next(places) for bit in register]
        result[register.name] = bits[..., own].view(np.bool_)
    return result


def _metadata(request: Any) -> dict[str, Any] | None:
    """Return the metadata of an item. Circuits with a stretch are refused, so that none has
    values."""
    if request.schema_version == "v0.1":
        return None
    return {"stretch_values": [] if request.options.stretch_values else None}


def _spans(
    number: int, item: _Item, tasks: Sequence[Task], submitted: datetime
) -> list[dict[str, Any]]:
    """Return begin and end of each task of the service, and the elements that it ran."""
    spans = []
    first = 0
    for task in _first_bindings(tasks):
        timing = task.result().timing
        start = submitted + timedelta(seconds=timing.queued_s + timing.sent_s + timing.compile_s)
        count = len(item.values) if not item.values.shape[1] else task.handle.decode().data.count
        part = {
            "idx_item": number,
            "size": count,
            "permutation": list(range(len(item.shape))),
            "element_range": (first, first + count, 1),
        }
        spans.append(
            {"start": start, "stop": start + timedelta(seconds=timing.run_s), "parts": [part]}
        )
        first += count
    return spans
