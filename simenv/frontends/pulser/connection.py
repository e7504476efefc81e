"""Pulser's remote connection to an environment.

A batch is a durable job of the service (`simenv.client.jobs`), and each of Pulser's jobs is one
task, by whose id it is known. Invariant: the service has all that is needed to read the results of
a batch, so any process of the user reads them with the batch's id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import pulser
from pulser.backend import EmulationConfig, RemoteResults, Results
from pulser.backend.remote import (
    BatchStatus,
    JobParams,
    JobStatus,
    RemoteConnection,
    RemoteResultsError,
)
from pulser.devices import Device

from simenv.client.client import Client, connect
from simenv.client.environment import atom_devices
from simenv.client.job_tasks import JobTasks
from simenv.client.jobs import JobRecords
from simenv.client.submission.options import checked_seed
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.pulses import REFUSED, PulseResult, pack_pulses, prepare_pulses
from simenv.client.submission.sequence_device import device_of
from simenv.errors import (
    KeyConflictError,
    LimitExceededError,
    NotFoundError,
    OptionError,
    VersionMismatchError,
)
from simenv.frontends.pulser.emulation import (
    SimenvConfig,
    checked_config,
    checked_task_options,
    results_of,
    submit_options,
)
from simenv.model import TaskState
from simenv.model.jobs import BLOB_PART_BYTES, JobRecord
from simenv.model.task import joint_state
from simenv.model.task_rules import checked_key
from simenv.transpiler.atoms import errors_of_pulser, machine_of

__all__ = ["SimenvConnection"]

KIND = "pulser"  # of the stored job
_KEYS = uuid.UUID("4f1b1c0e-7d4e-5d0b-9a55-2b6d3f0c8e17")  # namespace of ids of batches with a key
FORMAT = 1  # of its metadata
_CONFIG = "config"  # name of its data: the configuration's abstract representation
_JOB_STATUS = {
    TaskState.QUEUED: JobStatus.PENDING,
    TaskState.RUNNING: JobStatus.RUNNING,
    TaskState.DONE: JobStatus.DONE,
    TaskState.CANCELLED: JobStatus.CANCELED,
    TaskState.FAILED: JobStatus.ERROR,
    TaskState.EXPIRED: JobStatus.ERROR,
}
_BATCH_STATUS = {
    TaskState.QUEUED: BatchStatus.PENDING,
    TaskState.RUNNING: BatchStatus.RUNNING,
    TaskState.DONE: BatchStatus.DONE,
    TaskState.CANCELLED: BatchStatus.CANCELED,
    TaskState.FAILED: BatchStatus.ERROR,
    TaskState.EXPIRED: BatchStatus.TIMED_OUT,
}
_DEVICES: tuple[Device, ...] = (pulser.AnalogDevice, pulser.DigitalAnalogDevice)


class _Metadata(msgspec.Struct, frozen=True, array_like=True):
    """Metadata of a stored batch. `device`: name of the sequence's device."""

    format: int
    device: str
    content: bytes = b""  # digest of the jobs, where the call had an idempotency key


def _check_open(count: int, record: JobRecord) -> None:
    """Raise KeyConflictError for a batch that is closed, or has other jobs than so many."""
    if record.ended_s:
        raise KeyConflictError(f"the batch {record.id} is closed", hint="submit a new one")
    if len(record.tasks) != count:
        text = f"the batch {record.id} got other jobs meanwhile"
        raise KeyConflictError(text, hint="submit the jobs again")


def _digest(orders: Sequence[PreparedSubmit], config: bytes) -> bytes:
    content = [(order.terms.content, order.specs) for order in orders]
    packed = msgspec.msgpack.encode((content, config))
    return hashlib.blake2b(packed, digest_size=16).digest()


class SimenvConnection(RemoteConnection):  # type: ignore[misc]  # pulser is untyped
    """Connection for Pulser's remote backends, such as `pulser.QPUBackend`. Thread-safe."""

    def __init__(self, env: Client | str | None = None, **options: Any) -> None:
        """`env`: a client; a name, or None: `simenv.connect(env)`, closed by `close`. `options`: of
        each task, as in `Client.submit`: seed, noise, pool, priority, account ... The jobs of a
        batch share the seed, and their numbers in the batch are a part of the random key; the seed
        of a configuration comes before it. Batches that a process of this user had stored when it
        died get their jobs now.

        Raises NoServiceError without an environment, OptionError for options that configurations
        and jobs decide."""
        self._options = checked_task_options(options)
        self._own = not isinstance(env, Client)
        self._client = env if isinstance(env, Client) else connect(env)
        self._records = JobRecords(self._client.session)
        self._tasks = JobTasks(self._client.session)
        self._tasks.complete_all(KIND)

    @property
    def client(self) -> Client:
        """Client of the environment."""
        return self._client

    def close(self) -> None:
        """Close the connection, but a client that was given."""
        if self._own:
            self._client.close()

    def __enter__(self) -> SimenvConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        sequence: pulser.Sequence,
        wait: bool = False,
        open: bool = False,  # noqa: A002 - Pulser's name
        batch_id: str | None = None,
        job_params: Sequence[JobParams] | None = None,
        config: EmulationConfig[Any] | None = None,
        **options: Any,
    ) -> RemoteResults:
        """Submit jobs as a new batch, or to an open one; return their results to come.

        `job_params`: runs and variables of each job; None: one job, or none in a batch that is
        opened. `config`: of an emulation, the same one for all jobs of a batch, whose `runs` are
        the shots of bit strings without num_shots; None: the bit strings of the sequence's device,
        with the limits, times and noise of the environment's device of that name. `options`: in
        place of those of the connection; `idempotency_key`: a repeat of the call returns the same
        batch. The jobs of a call are accepted together or not at all, also if this process dies.
        Raises like `Client.submit`, KeyConflictError for a closed batch and for one of another
        configuration.
        """
        params = job_params if job_params is not None else [] if open else [JobParams()]
        for each in params:
            _check_job(each)
        given = checked_task_options({**self._options, **options})
        emulation = None if config is None else checked_config(config)
        text = _config_text(emulation)
        record = None if batch_id is None else self._open(batch_id, text)
        first = 0 if record is None else len(record.tasks)
        orders = self._orders(sequence, emulation, params, given, first)
        if record is None:
            key = given.get("idempotency_key")
            record = self._created(sequence, text, orders, key, is_open=open)
        elif "idempotency_key" in given:
            hint = "a key is for a new batch: submit without batch_id="
            raise OptionError("idempotency_key= of jobs that are added to a batch", hint=hint)
        else:
            record = self._tasks.add(record, partial(_check_open, first), orders)
        tasks = [task for task, _ in record.tasks[first : first + len(params)]]
        if wait:
            for task in tasks:
                self._client.task(task).wait()
        return self.get_results(record.id, tasks or None)

    def _orders(
        self,
        sequence: pulser.Sequence,
        config: SimenvConfig | None,
        params: Sequence[JobParams],
        given: Mapping[str, Any],
        first: int,
    ) -> list[PreparedSubmit]:
        """Return what is to be submitted for each job. `first`: number of the first one."""
        shared: dict[str, Any] = dict(given)
        if config is None and not given.keys() & {"device", "pool"}:
            shared |= self._device_option(sequence.device.name)
        drawn = checked_seed(None, given.get("idempotency_key"))
        orders = []
        for number, job in enumerate(params, first):
            options = _asked(sequence, config, job, shared) | {"binding_index": number}
            if options.get("seed") is None:
                options["seed"] = drawn
            info = device_of(options, self._client.submit_devices)
            orders.append(prepare_pulses([pack_pulses(sequence, options, info)], options, info))
        return orders

    def _device_option(self, name: str) -> dict[str, str]:
        """Return the option for a device of the environment; none for another name."""
        is_known = name in self._client.device_names()
        return {"device": name} if is_known and self._client.device(name).analog else {}

    def get_results(self, batch_id: str, job_ids: list[str] | None = None) -> RemoteResults:
        """Return the results of a batch, of these jobs in this order or of all."""
        return RemoteResults(batch_id, self, job_ids)

    def cancel(self, batch_id: str, job_ids: Sequence[str] | None = None) -> None:
        """Cancel jobs of a batch, or all of them. Raises NotFoundError."""
        known = self._get_job_ids(batch_id)
        chosen = known if job_ids is None else [each for each in known if each in set(job_ids)]
        if chosen:
            self._client.cancel(chosen)

    def fetch_available_devices(self) -> dict[str, Device]:
        """Return the devices that sequences may be written for, by name: those of Pulser, which run
        without noise, and the environment's devices of neutral atoms."""
        devices = {device.name: device for device in _DEVICES}
        for name, info in atom_devices(self._client).items():
            assert info.analog is not None
            devices[name] = dataclasses.replace(machine_of(info.analog.device), name=name)
        return devices

    def supports_open_batch(self) -> bool:
        """Return True: jobs may be added to a batch until it is closed."""
        return True

    def _close_batch(self, batch_id: str) -> None:
        self._tasks.close(batch_id)

    def _fetch_result(self, batch_id: str, job_ids: list[str] | None) -> Sequence[Results]:
        record = self._record(batch_id)
        config = self._config(record)
        states = self._states(record)
        results = []
        for job in states if job_ids is None else job_ids:
            state = states[job]
            if state is not TaskState.DONE:
                raise RemoteResultsError(self._unavailable(job, state))
            results.append(self._result(job, config))
        return results

    def _query_job_progress(self, batch_id: str) -> Mapping[str, tuple[JobStatus, Results | None]]:
        record = self._record(batch_id)
        config = self._config(record)
        return {
            job: (
                _JOB_STATUS[state],
                self._result(job, config) if state is TaskState.DONE else None,
            )
            for job, state in self._states(record).items()
        }

    def _get_batch_status(self, batch_id: str) -> BatchStatus:
        record = self._record(batch_id)
        if not record.tasks:
            return BatchStatus.DONE if record.ended_s else BatchStatus.PENDING
        return _BATCH_STATUS[joint_state(self._states(record).values())]

    def _get_job_ids(self, batch_id: str) -> list[str]:
        return [task for task, _ in self._record(batch_id).tasks]

    def _created(
        self,
        sequence: pulser.Sequence,
        text: bytes,
        orders: Sequence[PreparedSubmit],
        key: str | None,
        *,
        is_open: bool,
    ) -> JobRecord:
        """Store a new batch with its jobs, or return that of an earlier call with the key. `text`:
        its configuration."""
        number, content = str(uuid.uuid4()), b""
        if key is not None:
            number, content = str(uuid.uuid5(_KEYS, checked_key(key))), _digest(orders, text)
            if (earlier := self._tasks.stored(number)) is not None:
                return self._repeated(earlier, key, content)
        metadata = msgspec.msgpack.encode(_Metadata(FORMAT, sequence.device.name, content))
        record = JobRecord(number, KIND, metadata=metadata)
        blobs = {_CONFIG: text} if text else {}
        try:
            return self._tasks.create(record, orders, blobs, closes=not is_open)
        except KeyConflictError:  # of a call with the same key at the same time
            if key is None or (earlier := self._tasks.stored(number)) is None:
                raise
            return self._repeated(earlier, key, content)

    def _repeated(self, earlier: JobRecord, key: str, content: bytes) -> JobRecord:
        if msgspec.msgpack.decode(earlier.metadata, type=_Metadata).content != content:
            text = f"the key {key!r} was used before with other content"
            raise KeyConflictError(text, hint="choose another key")
        return earlier

    def _record(self, batch_id: str) -> JobRecord:
        """Return a stored batch. Raises NotFoundError, VersionMismatchError."""
        record = self._tasks.complete(batch_id)
        if record.kind != KIND:
            raise NotFoundError(f"{batch_id!r:.80} is no batch of Pulser's jobs")
        stored = msgspec.msgpack.decode(record.metadata, type=_Metadata)
        if stored.format != FORMAT:
            text = f"the batch {batch_id} has format {stored.format}, this version reads {FORMAT}"
            raise VersionMismatchError(text, hint="read it with the version that stored it")
        return record

    def _open(self, batch_id: str, config: bytes) -> JobRecord:
        """Return an open batch of this configuration, by which its results are read."""
        record = self._record(batch_id)
        _check_open(len(record.tasks), record)
        if self._records.data(record.id, _CONFIG) != config:
            text = f"the batch {batch_id} was opened with another configuration"
            raise KeyConflictError(text, hint="one batch for each configuration")
        return record

    def _config(self, record: JobRecord) -> SimenvConfig | None:
        text = self._records.data(record.id, _CONFIG).decode()
        return SimenvConfig.from_abstract_repr(text) if text else None

    def _states(self, record: JobRecord) -> dict[str, TaskState]:
        """Return the states of a batch's tasks, in order; FAILED for one that was removed."""
        ids = [task for task, _ in record.tasks]
        infos = {info.id: info.state for info in self._client.tasks(ids)} if ids else {}
        return {task: infos.get(task, TaskState.FAILED) for task in ids}

    def _result(self, job: str, config: SimenvConfig | None) -> Results:
        result = PulseResult(self._client.task(job).result().value)
        if config is not None:
            return results_of(config, result)
        return Results.from_final_bitstrings(result.atoms, result.duration_ns, result.counts)

    def _unavailable(self, job: str, state: TaskState) -> str:
        text = f"job {job} is {state.name}"
        if state not in (TaskState.FAILED, TaskState.EXPIRED):
            return text
        try:
            return f"{text}: {self._client.task(job).exception()}"
        except NotFoundError as error:
            return f"{text}: {error}"


def _check_job(job: Any) -> None:
    """Raise OptionError for parameters that no job has."""
    known = ("runs", "variables")
    unknown = [each for each in job if each not in known] if isinstance(job, Mapping) else [job]
    if unknown:
        raise OptionError(f"{unknown[0]!r:.80} of a job", hint=f"a dict of {' and '.join(known)}")


def _config_text(config: SimenvConfig | None) -> bytes:
    """Return a configuration as it is stored; b"" of None. Raises LimitExceededError."""
    text = b"" if config is None else config.to_abstract_repr().encode()
    if len(text) > BLOB_PART_BYTES:
        raise LimitExceededError(
            f"a configuration of {len(text)} bytes; the limit is {BLOB_PART_BYTES}",
            hint="operators and states of fewer terms",
        )
    return text


def _asked(
    sequence: pulser.Sequence,
    config: SimenvConfig | None,
    job: JobParams,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the options of one job's task. `given`: of all tasks."""
    variables, runs = job.get("variables") or {}, job.get("runs")
    asked: dict[str, Any] = {"parameter_values": variables} if variables else {}
    if config is not None:
        with errors_of_pulser(REFUSED):
            built = sequence.build(**variables) if variables else sequence
        return asked | submit_options(config, built, runs, given)
    return asked | dict(given) | ({} if runs is None else {"shots": runs})
