"""Sampler and estimator: parameters as IBM's clients send them, run by simenv's primitives.

Runs in a job process. Circuits arrive as QPY (zlib, base64) or as OpenQASM 3, in which `$5` is
qubit 5 of the backend. Only types that hold plain data are decoded, within limits of size; QPY of
versions that may hold code is refused. A job that is repeated, with the tasks that were accepted
before or without, returns the same tasks.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import PrimitiveResult, PubResult
from qiskit.primitives.containers import DataBin
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit_ibm_runtime import RuntimeEncoder
from qiskit_ibm_runtime.execution_span import DoubleSliceSpan, ExecutionSpans

from simenv.client.circuits import load, text_checks
from simenv.client.circuits.load import parse
from simenv.client.client import Client
from simenv.client.connection.task_handle import Submission
from simenv.client.submission.options import checked_seed, item_seeds
from simenv.client.tasks.task import Task, distinct_warnings, number_of
from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler
from simenv.gateway.ibm import backends, options
from simenv.gateway.ibm.executor import submit_executor
from simenv.gateway.ibm.jobs import Job
from simenv.model.devices import DeviceKind
from simenv.transpiler import qpy
from simenv.transpiler.native_form import NativeForm

MAX_CIRCUIT_BYTES = 256 * 2**20  # of one circuit or array, unpacked
_PHYSICAL = re.compile(r"\$\d")


AcceptedTasks = Sequence[tuple[str, int]]  # as of `Job.tasks`


class Work(msgspec.Struct, frozen=True):
    """One job to run. `params`: JSON; `noise`: the document of the device's calibration, b"": the
    present one."""

    job: Job
    params: bytes
    noise: bytes = b""

    @property
    def reservation(self) -> int:
        return self.job.reservation or self.job.session_reservation


class JobResult(msgspec.Struct, frozen=True):
    """Result of a job. Times in seconds since 1970."""

    parts: dict[str, bytes]  # by kind: `result`, or the artifacts of IQM's API
    quantum_s: float  # on the device, by its calibration; of an ideal one: of the simulation
    started_s: float
    ended_s: float
    warnings: list[str] = []


class SubmittedJob:
    """A job whose tasks are accepted."""

    def __init__(
        self,
        tasks: Sequence[Task],
        wait: Callable[[], Any],
        encode: Callable[[Any, tuple[float, float]], str | dict[str, bytes]],
    ) -> None:
        """`wait`: returns the result; `encode`: writes it as text, or its parts, given begin and
        end of the run in seconds since 1970."""
        self._tasks, self._wait, self._encode = tasks, wait, encode

    def accepted(self) -> tuple[tuple[str, int], ...]:
        """Tasks of the job, in their order."""
        found: dict[int, tuple[str, int]] = {}
        for task in self._tasks:
            identifier, rows = found.get(task.handle.number, (task.handle.id, 0))
            found[task.handle.number] = identifier, rows + (task.row is not None)
        return tuple(found.values())

    def result(self) -> JobResult:
        """Wait for the result. Raises JobError, SimenvError."""
        result = self._wait()
        unique = {task.handle.number: task for task in self._tasks}
        timings = [task.results()[0].timing for task in unique.values()]
        now_s = datetime.now(UTC).timestamp()
        longest_s = max((timing.total_s - timing.queued_s for timing in timings), default=0.0)
        device_s = sum(timing.device_s for timing in timings)
        used_s = device_s or sum(timing.run_s for timing in timings)
        span = now_s - longest_s, now_s
        found = distinct_warnings(self._tasks)
        encoded = self._encode(result, span)
        parts = {"result": encoded.encode()} if isinstance(encoded, str) else encoded
        return JobResult(parts, used_s, *span, found)


def submit(work: Work, client: Client) -> SubmittedJob:
    """Decode a job and submit it. Raises SimenvError, QiskitError, ValueError, TypeError."""
    if work.job.program == "executor":
        return _submit_executor(work, client)
    chosen = options.read(work.job.program, work.params)
    pubs = _decoded(work.params)
    backend = backend_of(work, client)
    settings = primitive_options(work, chosen.seed, len(pubs))
    if work.job.program == "sampler":
        shots = chosen.shots or backends.DEFAULT_SHOTS
        sampled = [_sampler_pub(number, pub, backend) for number, pub in enumerate(pubs)]
        job = SimenvSampler(backend, default_shots=shots, **settings).run(sampled)
        write = _sampler_result if chosen.for_qiskit else _plain_samples
        read = [SamplerPub.coerce(pub, shots) for pub in sampled]
        return SubmittedJob(job.tasks, job.result, lambda result, span: write(result, span, read))
    precision = chosen.precision or 1.0 / math.sqrt(chosen.shots)
    estimated = [_estimator_pub(number, pub, backend) for number, pub in enumerate(pubs)]
    job = SimenvEstimator(backend, default_precision=precision, **settings).run(estimated)
    encode = _estimator_result if chosen.for_qiskit else _plain_estimates
    tasks = getattr(job, "tasks", [])  # a machine's are submitted by another thread
    return SubmittedJob(tasks, job.result, lambda result, _: encode(result))


def _submit_executor(work: Work, client: Client) -> SubmittedJob:
    own = task_options(work)
    if work.reservation:
        own["reservation"] = work.reservation
    own["name"] = f"executor-{work.job.id[:8]}"
    job = submit_executor(json.loads(work.params), work.job.backend, client, work.job.id, **own)
    return SubmittedJob(job.tasks, job.result, lambda text, _: text)


def task_options(work: Work) -> dict[str, Any]:
    """Options of a job's tasks."""
    limit_s = float(work.job.cost) or None
    own = {"account": work.job.account or None, "run_timeout_s": limit_s, "trace": work.job.trace}
    return {**own, "noise": work.noise} if work.noise else own


def primitive_options(work: Work, seed: int | None, count: int) -> dict[str, Any]:
    """Options of a primitive with this many PUBs. Seeds of its tasks: of one PUB as
    `Client.submit`, of several as `Client.submit_many` would use the seed; None: it follows from
    the job."""
    chosen = checked_seed(seed, work.job.id)
    seeds = [chosen] if count == 1 else item_seeds(chosen, count, None)
    return {"seed": seeds, **task_options(work)}


def backend_of(work: Work, client: Client) -> SimenvBackend:
    """Backend of a job, whose submissions have the job's idempotency keys."""
    backend = SimenvBackend(work.job.backend, env=client)
    if work.reservation:
        backend = backend.reserved(client.reservation(work.reservation))
    return backend.keyed(work.job.id, _tasks(client, work.job.tasks))


def _tasks(client: Client, accepted: AcceptedTasks) -> list[Task]:
    tasks: list[Task] = []
    for identifier, rows in accepted:
        handle = client.session.tasks.handle(number_of(identifier), Submission())
        tasks += [Task(handle, row) for row in range(rows)] if rows else [Task(handle)]
    return tasks


def _decoded(params: bytes) -> list[Any]:
    """PUBs of a program's parameters. Raises OptionError, ProgramError, LimitExceededError."""
    try:
        pubs = json.loads(params, object_hook=_object)["pubs"]
    except (ValueError, KeyError, RecursionError) as error:
        raise OptionError(f"params: these are no PUBs: {error!r:.200}") from error
    if not isinstance(pubs, list) or not pubs:
        raise OptionError("params: pubs is empty", hint="at least one PUB")
    if len(pubs) > backends.MAX_CIRCUITS:
        text = f"{len(pubs)} PUBs in one job; the limit is {backends.MAX_CIRCUITS}"
        raise LimitExceededError(text, hint="several jobs, in a Batch")
    return [[pub] if isinstance(pub, str | QuantumCircuit) else pub for pub in pubs]


def _object(value: dict[str, Any]) -> Any:
    """Objects that RuntimeEncoder writes. Others are refused: they may stand for any class."""
    kind: Any = value.get("__type__")
    inside: Any = value.get("__value__")
    if kind is None:
        return value
    if kind == "QuantumCircuit":
        return qpy.parse(_unpacked(inside))
    if kind == "ndarray":
        if not isinstance(inside, str):
            return np.asarray(inside, float)
        return np.load(io.BytesIO(_unpacked(inside)), allow_pickle=False)
    if kind == "complex":
        return complex(*inside)
    if kind == "ObservablesArray":
        return ObservablesArray(inside)
    if kind == "BindingsArray":
        names = {
            tuple(json.loads(key, object_hook=_object)): v for key, v in inside["data"].items()
        }
        return BindingsArray(names, tuple(inside["shape"]))
    if kind in ("settings", "NoiseModel"):
        return None  # of options, which were checked
    raise OptionError(f"params: an object of type {kind!r:.80} is not accepted here")


def _unpacked(text: str) -> bytes:
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(base64.b64decode(text, validate=True), MAX_CIRCUIT_BYTES)
    except (ValueError, TypeError, zlib.error) as error:
        raise ProgramError(f"a circuit or an array cannot be unpacked: {error}") from error
    if reader.unconsumed_tail:
        text = f"a circuit or an array of more than {MAX_CIRCUIT_BYTES >> 20} MiB"
        raise LimitExceededError(text, hint="several jobs with smaller ones")
    return data


def _circuit(number: int, given: Any, backend: SimenvBackend) -> QuantumCircuit:
    """Circuit of a PUB. Raises ProgramError."""
    if isinstance(given, QuantumCircuit):
        return given
    if not isinstance(given, str):
        hint = "QPY as RuntimeEncoder writes it, or OpenQASM 3"
        raise ProgramError(f"PUB {number} begins with a {type(given).__name__}", hint=hint)
    source = text_checks.inspect(given, f"PUB {number}")
    if source.version != 3:
        raise ProgramError(f"PUB {number} is OpenQASM {source.version}", hint="OpenQASM 3")
    circuit = parse(source).circuit
    is_placed = backend.info.kind is not DeviceKind.IDEAL and _PHYSICAL.search(source.text)
    if is_placed and not NativeForm(backend.info).fits(load(circuit).program):
        text = f"PUB {number} names qubits of {backend.name!r}, and has a gate or a coupling which"
        raise ProgramError(f"{text} the backend lacks", hint="transpile it for the backend")
    return circuit


def _sampler_pub(number: int, pub: Any, backend: SimenvBackend) -> tuple[Any, ...]:
    circuit, values, shots = (*pub, None, None)[:3]
    circuit = _circuit(number, circuit, backend)
    return (circuit, _values(circuit, values), shots)


def _values(circuit: QuantumCircuit, values: Any) -> Any:
    """Parameter values of a PUB: an array, a list, a table by parameter, or none."""
    if values is None or (isinstance(values, list) and not values):
        return None
    return values if circuit.num_parameters or isinstance(values, np.ndarray) else None


def _estimator_pub(number: int, pub: Any, backend: SimenvBackend) -> EstimatorPub:
    circuit, observables, values, precision = (*pub, None, None, None)[:4]
    circuit = _circuit(number, circuit, backend)
    wanted = ObservablesArray.coerce(observables)
    width = wanted.num_qubits or 0
    if width > circuit.num_qubits and isinstance(pub[0], str):
        wider = QuantumCircuit(width, *circuit.cregs)
        circuit = wider.compose(circuit, range(circuit.num_qubits), circuit.clbits)
    return EstimatorPub.coerce((circuit, wanted, _values(circuit, values), precision))


def _spans(span: tuple[float, float], pubs: Sequence[SamplerPub]) -> ExecutionSpans:
    slices = {
        number: ((*pub.shape, pub.shots), slice(0, pub.size), slice(0, pub.shots))
        for number, pub in enumerate(pubs)
    }
    start, stop = (datetime.fromtimestamp(time_s, UTC) for time_s in span)
    return ExecutionSpans([DoubleSliceSpan(start, stop, slices)])


def _sampler_result(
    result: PrimitiveResult[Any], span: tuple[float, float], pubs: Sequence[SamplerPub]
) -> str:
    metadata = {**result.metadata, "execution": {"execution_spans": _spans(span, pubs)}}
    return json.dumps(PrimitiveResult(list(result), metadata), cls=RuntimeEncoder)


def _plain_samples(
    result: PrimitiveResult[Any], _span: tuple[float, float], _pubs: Sequence[SamplerPub]
) -> str:
    """Samples of each register in the order of the shots, as clients without Qiskit read them."""
    results = [
        {
            "data": {
                name: {
                    "samples": [hex(int(bits, 2)) for bits in array.get_bitstrings()],
                    "num_bits": array.num_bits,
                }
                for name, array in pub.data.items()
            },
            "metadata": pub.metadata,
        }
        for pub in result
    ]
    return json.dumps({"results": results, "metadata": result.metadata})


def _estimator_result(result: PrimitiveResult[Any]) -> str:
    results = [PubResult(_with_ensemble(pub.data), pub.metadata) for pub in result]
    return json.dumps(PrimitiveResult(results, result.metadata), cls=RuntimeEncoder)


def _with_ensemble(data: DataBin) -> DataBin:
    """Values, and their standard errors under both names of that service."""
    errors = data.stds
    return DataBin(evs=data.evs, stds=errors, ensemble_standard_error=errors, shape=data.shape)


def _plain_estimates(result: PrimitiveResult[Any]) -> str:
    results = [
        {
            "data": {name: np.asarray(array).tolist() for name, array in data.items()},
            "metadata": pub.metadata,
        }
        for pub in result
        for data in [_with_ensemble(pub.data)]
    ]
    return json.dumps({"results": results, "metadata": result.metadata})
