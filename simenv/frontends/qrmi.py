"""QRMI's QuantumResource for one pool.

Invariant: an acquisition is a reservation, and its tasks are tasks of the service: `simenv queue`
and `client.reservations()` show them, and another process may query and end them by their names.
The process that started a task writes its result.

Payload and result of a Qiskit sampler, both in JSON. In: {"pubs": [[OpenQASM 3, parameter values or
null, shots or null], ...], "shots", "support_qiskit"}. Out, with `support_qiskit`: the form that
Qiskit's own decoder turns into a PrimitiveResult; else {"results": [{"data": {REGISTER: {"samples":
["0x3", ...], "num_bits"}}}]}. Samples are in the order of their shots, where the result has that
order; else sorted by outcome. At the same place in the lists of all registers are the samples of
one shot.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

import simenv
from simenv.client.client import Client
from simenv.client.qpm.circuit_run import device_metadata
from simenv.client.result import Result
from simenv.errors import ConfigError, NotFoundError, OptionError, SimenvError
from simenv.model import TaskState
from simenv.model.devices import DeviceKind

__all__ = ["Payload", "QuantumResource", "Target", "TaskResult", "resources"]

DEFAULT_SHOTS = 1024
Registers = tuple[tuple[str, int], ...]
Outcomes = Sequence[str]  # of each shot, with keys as in `Result.counts`


_FIELDS = ("pubs", "shots", "options", "version", "support_qiskit")
_DEVICE_OPTIONS = ("noise", "compile", "fractional_gates", "qubit_mapping", "account", "qos")


class Pub(msgspec.Struct, frozen=True):
    """One circuit. `values`: a list of parameter values, or of such lists; or a map from a
    parameter's name to its value, or to a list of values; None: no parameters."""

    text: str
    registers: Registers
    values: Any
    shots: Any  # a submission refuses what is no number

    @property
    def is_sweep(self) -> bool:
        """True if there are several sets of values, with one result that has an axis."""
        rows = self.values.values() if isinstance(self.values, dict) else (self.values or ())[:1]
        return any(isinstance(row, list) for row in rows)

    def fits(self, size_bytes: int) -> bool:
        """Return whether the outcomes of all shots have at most this size; False for a number of
        shots that a submission refuses."""
        rows = 1
        if self.is_sweep:
            swept = self.values.values() if isinstance(self.values, dict) else [self.values]
            rows = max(len(row) for row in swept if isinstance(row, list))
        shot_bytes = (sum(size for _, size in self.registers) + 7) // 8
        return type(self.shots) is int and rows * self.shots * shot_bytes <= size_bytes


class SamplerPayload(msgspec.Struct, frozen=True):
    """Parsed payload."""

    pubs: tuple[Pub, ...]
    for_qiskit: bool
    device_options: Mapping[str, Any] = {}  # those of _DEVICE_OPTIONS, as for a submit


def read(payload: Any) -> SamplerPayload:
    """Parse a payload with `input` and `program_id`. Raises OptionError with the invalid value."""
    program, text = getattr(payload, "program_id", None), getattr(payload, "input", None)
    if not isinstance(text, str):
        hint = "Payload.QiskitPrimitive"
        raise OptionError(f"a payload of {type(payload).__name__} cannot be run", hint=hint)
    if program != "sampler":
        text = f"program_id={str(program)[:80]!r}: of Qiskit's primitives only the sampler is here"
        raise OptionError(text, hint="expectation values: Client.submit(circuit, observables=...)")
    try:
        settings = json.loads(text)
        default_shots, device_options = _options(settings)
        pubs, shots = settings["pubs"], settings.get("shots") or default_shots
        for_qiskit = bool(settings.get("support_qiskit", False))
        read_pubs = tuple(_pub(pub, shots) for pub in pubs)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        text = f"this is not an input of a sampler: {error!r:.200}"
        raise OptionError(text, hint='{"pubs": [[circuit, values, shots]]}') from error
    if not read_pubs:
        raise OptionError("pubs is empty: there is nothing to run", hint="one circuit at least")
    if for_qiskit and importlib.util.find_spec("qiskit_ibm_runtime") is None:
        text = "support_qiskit needs qiskit-ibm-runtime, which is not installed"
        raise OptionError(text, hint="pip install 'simenv[ibm]', or support_qiskit=false")
    return SamplerPayload(read_pubs, for_qiskit, device_options)


def _options(payload: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Read the default number of shots and the device options of `options.simenv`. Raises
    OptionError for a field or an option without an effect here, unless its value is empty; an empty
    `simulator.noise_model` is a request, too: for no noise."""
    unknown = sorted(key for key in payload if key not in _FIELDS)
    if unknown:
        hint = f"some of: {', '.join(_FIELDS)}"
        raise OptionError(f"the payload has a field {unknown[0]!r:.80}", hint=hint)
    options = _table("options", payload.get("options"))
    shots = options.pop("default_shots", None)
    if shots is None:
        shots = DEFAULT_SHOTS
    elif not isinstance(shots, int) or isinstance(shots, bool) or shots < 1:
        raise OptionError(f"options: default_shots = {shots!r:.80}", hint="a whole number from 1")
    device_options = _table("options: simenv", options.pop("simenv", None))
    simulator = options.get("simulator")
    if isinstance(simulator, dict) and simulator.get("noise_model") is not None:
        hint = 'the noise of a device in "simenv": {"noise": "off"}, a noise model likewise'
        raise OptionError("options: 'simulator.noise_model' is not supported here", hint=hint)
    asked = [name for name, value in options.items() if _asks(value)]
    asked += [f"simenv.{name}" for name in device_options if name not in _DEVICE_OPTIONS]
    if asked:
        hint = f"default_shots, and in simenv: {', '.join(_DEVICE_OPTIONS)}"
        raise OptionError(f"options: {asked[0]!r:.80} is not supported here", hint=hint)
    return shots, device_options


def _table(name: str, value: Any) -> dict[str, Any]:
    """Return a copy of a table of options; {} for null. Raises OptionError for other types."""
    if value is not None and not isinstance(value, dict):
        raise OptionError(f"{name} = {value!r:.80}", hint='a table: {"simenv": {"noise": "off"}}')
    return dict(value or {})


def _asks(value: Any) -> bool:
    """Return whether an option has a value, itself or inside, other than None and False."""
    if isinstance(value, dict):
        return any(map(_asks, value.values()))
    return value is not None and value is not False


def write(
    work: SamplerPayload,
    outcomes: Sequence[Sequence[Outcomes]],
    metadata: Sequence[Mapping[str, Any]],
) -> str:
    """Write the result. `outcomes`: for each pub, one for each of its sets of values. `metadata`:
    for each pub, in addition to its shots."""
    if work.for_qiskit:
        return _encoded(work, outcomes, metadata)
    results = [
        {"data": _plain(pub.registers, rows), "metadata": {"shots": pub.shots, **more}}
        for pub, rows, more in zip(work.pubs, outcomes, metadata, strict=True)
    ]
    return json.dumps({"results": results, "metadata": {"version": 2}})


def _pub(raw_pub: Any, shots: int) -> Pub:
    from simenv.client.circuits import load

    text, values, own = (*([raw_pub] if isinstance(raw_pub, str) else raw_pub), None, None)[:3]
    text += "\n"  # marks it as text: it is not the path of a file on this host
    return Pub(text, load(text).program.registers, values or None, own or shots)


def outcomes_of(result: Result) -> Outcomes:
    """Outcome of each shot: in the order of the shots, or sorted if the result has counts alone."""
    if result.has("memory"):
        return result.memory_strings()
    return [outcome for outcome, count in sorted(result.counts.items()) for _ in range(count)]


def samples(registers: Registers, outcomes: Outcomes) -> dict[str, list[int]]:
    """Values of each register in each shot; the last register of an outcome is leftmost."""
    values = {outcome: [int(word, 2) for word in outcome.split(" ")] for outcome in set(outcomes)}
    return {
        name: [values[outcome][-1 - place] for outcome in outcomes]
        for place, (name, _) in enumerate(registers)
    }


def _plain(registers: Registers, rows: Sequence[Outcomes]) -> dict[str, Any]:
    each = [samples(registers, row) for row in rows]
    return {
        name: {
            "samples": [hex(sample) for sample in chain.from_iterable(row[name] for row in each)],
            "num_bits": width,
        }
        for name, width in registers
    }


def _encoded(
    work: SamplerPayload,
    outcomes: Sequence[Sequence[Outcomes]],
    metadata: Sequence[Mapping[str, Any]],
) -> str:
    from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
    from qiskit_ibm_runtime import RuntimeEncoder

    results = []
    for pub, rows, more in zip(work.pubs, outcomes, metadata, strict=True):
        each = [samples(pub.registers, row) for row in rows]
        data = {
            name: BitArray.from_samples(
                [sample for row in each for sample in row[name]], width
            ).reshape((len(rows), pub.shots) if pub.is_sweep else (pub.shots,))
            for name, width in pub.registers
        }
        shape = (len(rows),) if pub.is_sweep else ()
        result = DataBin(**data, shape=shape)
        results.append(SamplerPubResult(result, {"shots": pub.shots, **more}))
    return json.dumps(PrimitiveResult(results, {"version": 2}), cls=RuntimeEncoder)


class Payload(msgspec.Struct, frozen=True):
    """Payload with the fields of `Payload.QiskitPrimitive`, which is accepted too: JSON, and
    "sampler"."""

    input: str
    program_id: str


class TaskResult(msgspec.Struct, frozen=True):
    """Result of a task. `value`: JSON."""

    value: str


class Target(msgspec.Struct, frozen=True):
    """Target of a resource. `value`: JSON."""

    value: str


class TaskStatus(enum.Enum):
    """Task status if the package `qrmi` is not installed."""

    Queued = "queued"
    Running = "running"
    Completed = "completed"
    Failed = "failed"
    Cancelled = "cancelled"


NAMES = {
    TaskState.QUEUED: "Queued",
    TaskState.RUNNING: "Running",
    TaskState.DONE: "Completed",
    TaskState.FAILED: "Failed",
    TaskState.EXPIRED: "Failed",
    TaskState.CANCELLED: "Cancelled",
}
# Status of several circuits: the first of these that one of them has.
ORDER = ("Failed", "Cancelled", "Running", "Queued", "Completed")


@lru_cache(1)
def statuses() -> Any:
    """Class of task statuses."""
    if importlib.util.find_spec("qrmi") is None:
        return TaskStatus
    return importlib.import_module("qrmi").TaskStatus


TYPE = "simenv"  # type of a pool in QRMI_JOB_QPU_TYPES
RESOURCES, TYPES = "QRMI_JOB_QPU_RESOURCES", "QRMI_JOB_QPU_TYPES"
_OLD = {RESOURCES: "SLURM_JOB_QPU_RESOURCES", TYPES: "SLURM_JOB_QPU_TYPES"}
_DELIMITER = "QRMI_LIST_DELIMITER"


class ResourceSettings(msgspec.Struct, frozen=True):
    """Settings of one resource, whose name is its pool's. `reservation` 0: none."""

    service: Path | None
    reservation: int
    run_timeout_s: float | None
    account: str | None = None
    qos: str | None = None


def names(environ: Mapping[str, str]) -> list[str]:
    """Resources of this job that are pools of simenv, in order. Raises ConfigError."""
    result, types = _listed(environ, RESOURCES), _listed(environ, TYPES)
    if len(result) != len(types):
        text = f"{RESOURCES} names {len(result)} resources, {TYPES} {len(types)} types"
        raise ConfigError(text, hint=f"one type for each, {TYPE} for a pool")
    return [name for name, kind in zip(result, types, strict=True) if kind == TYPE]


def read_settings(environ: Mapping[str, str], resource: str) -> ResourceSettings:
    """Read the settings of a resource. Raises ConfigError with the variable and its value."""
    service = environ.get(f"{resource}_QRMI_SIMENV_SERVICE", "")
    reservation = _number(environ, f"{resource}_QRMI_JOB_ACQUISITION_TOKEN")
    timeout = _number(environ, f"{resource}_QRMI_JOB_TIMEOUT_SECONDS")
    account = environ.get(f"{resource}_QRMI_SIMENV_ACCOUNT") or None
    qos = environ.get(f"{resource}_QRMI_SIMENV_QOS") or None
    path = Path(service) if service else None
    return ResourceSettings(path, reservation or 0, timeout or None, account, qos)


def _listed(environ: Mapping[str, str], name: str) -> list[str]:
    text = environ.get(name, environ.get(_OLD[name], ""))
    return [word.strip() for word in text.split(environ.get(_DELIMITER, ","))] if text else []


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name}={text[:80]!r}", hint="a whole number from 1 on")
    return int(text)


LEASE_S = 3600.0  # duration of a reservation after its last renewal
MAX_CIRCUITS = 1_000  # circuits of one payload
MAX_MEMORY_BYTES = 16 * 2**20  # of one task's shots in order; above it, samples are sorted
_TOKEN_DIGITS = 18  # a whole number of 64 bits
MAX_WORKS = 1_000  # payloads kept for `task_result`; the oldest go first
_JOIN = "+"  # between the names of the tasks of one payload
_TASKS = "what task_start() returned"


def resources(environ: Mapping[str, str] | None = None) -> list[QuantumResource]:
    """Resources of this job that are pools of simenv and can be reached. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    entries = [QuantumResource(name, environ=environ) for name in names(environ)]
    return [entry for entry in entries if entry.is_accessible()]


class QuantumResource:
    """One pool. Thread-safe, as the Client is.

    `resource_id`: the pool's name. `resource_type`: "simenv", else OptionError. The connection is
    made by the first call that needs it.
    """

    def __init__(
        self,
        resource_id: str,
        resource_type: str = TYPE,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if resource_type != TYPE:
            hint = f"{TYPE} here; others: the package qrmi"
            raise OptionError(f"resource_type={str(resource_type)[:80]!r}", hint=hint)
        self._pool = resource_id
        self._settings = read_settings(os.environ if environ is None else environ, resource_id)
        self._client: Client | None = None
        self._lock = threading.Lock()  # of the first connection
        self._reservation = self._settings.reservation
        self._acquired = 0  # reservation of acquire() that is not released yet; 0: none
        self._works: dict[str, SamplerPayload] = {}  # payloads of the tasks of this process

    def resource_id(self) -> str:
        """Name of the pool."""
        return self._pool

    def resource_type(self) -> str:
        """Type of the resource: simenv."""
        return TYPE

    def is_accessible(self) -> bool:
        """Return whether the environment answers and the pool has a worker that runs or is being
        started."""
        try:
            pool = self._connected().pools().get(self._pool)
        except SimenvError:
            return False
        result = pool is not None and pool.state in ("up", "starting")
        if not (result or self._acquired):  # an acquired one stays renewed
            self.close()
        return result

    def acquire(self) -> str:
        """Make a reservation, under which later tasks run; return its number, the token. It is
        renewed until `release` or `close`, or this process ends. Raises OptionError if an earlier
        one is not released yet."""
        if self._acquired:
            text = f"{self._pool!r} is acquired already, with the token {self._acquired}"
            raise OptionError(text, hint="release() it first")
        account = self._settings.account or ""
        lease = self._connected().reserve(self._pool, for_s=LEASE_S, account=account)
        self._reservation = self._acquired = lease.id
        lease.__enter__()  # the renewal ends with the release or the connection
        return str(lease.id)

    def release(self, id: str) -> None:  # noqa: A002 - named as in QRMI
        """End a reservation: its waiting tasks are cancelled. Raises NotFoundError for an invalid
        token."""
        if not id.isascii() or not id.isdigit() or len(id) > _TOKEN_DIGITS:
            hint = "pass the value that acquire() returned"
            raise NotFoundError(f"{id[:80]!r} is not a token", hint=hint)
        if int(id) == self._reservation:
            self._reservation = 0
        if int(id) == self._acquired:
            self._acquired = 0
        self._connected().reservation(int(id)).release()

    def target(self) -> Target:
        """Qubits, gates, couplings and figures as JSON: the fields of `simenv.model.DeviceInfo`;
        unknown figures are null."""
        return Target(msgspec.json.encode(self._device()).decode())

    def metadata(self) -> dict[str, str]:
        """Summary of the pool's device."""
        device = self._device()
        fields = ("kind", "provider", "model", "version", "num_qubits", "max_shots")
        return {
            "backend_name": self._pool,
            **{name: str(getattr(device, name)) for name in (*fields, "calibration_id")},
            "environment": self._connected().name,
        }

    def task_start(self, payload: Any) -> str:
        """Submit a payload and return its name. A payload of several circuits is several tasks
        under one name."""
        work = read(payload)
        if len(work.pubs) > MAX_CIRCUITS:
            text = f"{len(work.pubs)} circuits in a payload, at most {MAX_CIRCUITS}"
            raise OptionError(text, hint="several payloads")
        client, names = self._connected(), list[str]()
        device = self._device()  # not all machines and external programs give the order of shots
        has_memory = device.kind is not DeviceKind.HARDWARE and device.model != "external"
        try:
            for pub in work.pubs:
                output = "memory" if has_memory and pub.fits(MAX_MEMORY_BYTES) else "counts"
                names.append(self._submitted(client, pub, output, work.device_options))
        except BaseException:
            client.cancel(names)
            raise
        task_id = _JOIN.join(names)
        self._works[task_id] = work
        while len(self._works) > MAX_WORKS:
            del self._works[next(iter(self._works))]
        return task_id

    def task_status(self, task_id: str) -> Any:
        """Status as `qrmi.TaskStatus`, or as `TaskStatus` without that package. Raises
        NotFoundError."""
        names = task_id.split(_JOIN)
        infos = self._connected().tasks(names)
        if len(infos) < len(names):
            raise NotFoundError(f"no task {task_id[:200]!r} here", hint=_TASKS)
        seen = {NAMES[info.state] for info in infos}
        return getattr(statuses(), next(name for name in ORDER if name in seen))

    def task_stop(self, task_id: str) -> None:
        """Cancel a task; no effect after its end. Results can still be read. Raises
        NotFoundError."""
        if "unknown" in self._connected().cancel(task_id.split(_JOIN)):
            raise NotFoundError(f"no task {task_id[:200]!r} here", hint=_TASKS)

    def task_result(self, task_id: str) -> TaskResult:
        """Wait for the end and return the result. Raises the errors of `Task.result`, and
        NotFoundError if another process started the task, because only that process knows the
        registers."""
        work = self._works.get(task_id)
        if work is None:
            hint = "simenv result TASK shows it"
            raise NotFoundError(f"task {task_id[:200]!r} was not started here", hint=hint)
        client = self._connected()
        tasks = [client.task(name) for name in task_id.split(_JOIN)]
        results = [task.results() for task in tasks]
        outcomes = [[outcomes_of(result) for result in rows] for rows in results]
        metadata = [device_metadata(rows[0]) for rows in results]
        return TaskResult(write(work, outcomes, metadata))

    def task_logs(self, task_id: str) -> str:
        """Log with a line for each circuit: worker and pool, or the reason of its failure."""
        client = self._connected()
        return "".join(
            f"{info.id} {info.state} on {info.worker or '-'} of {info.pool or '-'}"
            f" after {info.time_s:.3f} s {info.reason}".rstrip()
            + "\n"
            for info in client.tasks(task_id.split(_JOIN))
        )

    def close(self) -> None:
        """Close the connection; tasks and reservations stay, without further renewal.
        Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = simenv.connect(service=self._settings.service)
                if self._reservation:  # made by the launcher, or before `close`
                    with suppress(SimenvError):  # it has ended: submissions under it raise
                        self._client.reservation(self._reservation).__enter__()
            return self._client

    def _device(self) -> Any:
        devices = self._connected().devices()
        if self._pool not in devices:
            hint = f"there are: {', '.join(devices)}"
            raise NotFoundError(f"no pool {self._pool[:80]!r} here", hint=hint)
        return devices[self._pool]

    def _submitted(
        self, client: Client, pub: Pub, output: str, device_options: Mapping[str, Any]
    ) -> str:
        """Submit one circuit or sweep; return the name of its task."""
        options: dict[str, Any] = {
            "shots": pub.shots, "outputs": output, "pool": self._pool,
            "account": self._settings.account, "qos": self._settings.qos, **device_options,
            "run_timeout_s": self._settings.run_timeout_s,
            "reservation": self._reservation or None,
        }  # fmt: skip
        if not pub.is_sweep:
            return client.submit(pub.text, parameter_values=pub.values, **options).id
        tasks = client.submit_many((pub.text, pub.values), **options)
        names = {task.id.partition(".")[0] for task in tasks}
        if len(names) > 1:
            client.cancel(names)
            text = f"the sets of values of one pub travel as {len(names)} tasks"
            raise OptionError(text, hint="fewer in one pub")
        return names.pop()
