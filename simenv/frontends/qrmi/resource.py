"""QRMI's QuantumResource for one pool.

Invariant: an acquisition is a reservation, and its tasks are tasks of the service: `simenv queue`
and `client.reservations()` show them, and another process may query and end them by their names.
The process that started a task writes its result.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

import simenv
from simenv.client.client import Client
from simenv.client.qpm.runtime.circuit_run import device_metadata
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.frontends.qrmi import sampler, variables
from simenv.frontends.qrmi.sampler import SamplerPayload
from simenv.frontends.qrmi.types import NAMES, ORDER, Target, TaskResult, statuses
from simenv.model.devices import DeviceKind

LEASE_S = 3600.0  # duration of a reservation after its last renewal
MAX_CIRCUITS = 1_000  # circuits of one payload
MAX_MEMORY_BYTES = 16 * 2**20  # of one task's shots in order; above it, samples are sorted
_TOKEN_DIGITS = 18  # a whole number of 64 bits
_JOIN = "+"  # between the names of the tasks of one payload


def resources(environ: Mapping[str, str] | None = None) -> list[QuantumResource]:
    """Resources of this job that are pools of simenv and can be reached. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    entries = [QuantumResource(name, environ=environ) for name in variables.names(environ)]
    return [entry for entry in entries if entry.is_accessible()]


class QuantumResource:
    """One pool. Thread-safe, as the Client is.

    `resource_id`: the pool's name. `resource_type`: "simenv", else OptionError. The connection is
    made by the first call that needs it.
    """

    def __init__(
        self,
        resource_id: str,
        resource_type: str = variables.TYPE,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if resource_type != variables.TYPE:
            raise OptionError(
                f"resource_type={str(resource_type)[:80]!r}",
                hint=f"{variables.TYPE} here; others: the package qrmi",
            )
        self._pool = resource_id
        self._settings = variables.read(os.environ if environ is None else environ, resource_id)
        self._client: Client | None = None
        self._reservation = self._settings.reservation
        self._acquired = 0  # reservation of acquire() that is not released yet; 0: none
        self._works: dict[str, SamplerPayload] = {}  # payloads of the tasks of this process

    def resource_id(self) -> str:
        """Name of the pool."""
        return self._pool

    def resource_type(self) -> str:
        """Type of the resource: simenv."""
        return variables.TYPE

    # --- the resource -------------------------------------------------------------------------

    def is_accessible(self) -> bool:
        """Return whether the environment answers and the pool has a worker that runs or is being
        started."""
        try:
            pool = self._connected().pools().get(self._pool)
        except SimenvError:
            return False
        result = pool is not None and pool.state in ("up", "starting")
        if not result:
            self.close()
        return result

    def acquire(self) -> str:
        """Make a reservation, under which later tasks run; return its number, the token. It is
        renewed until `release` or `close`, or this process ends.

        Raises OptionError if an earlier one is not released yet.
        """
        if self._acquired:
            raise OptionError(
                f"{self._pool!r} is acquired already, with the token {self._acquired}",
                hint="release() it first",
            )
        lease = self._connected().reserve(self._pool, for_s=LEASE_S)
        self._reservation = self._acquired = lease.id
        lease.__enter__()  # the renewal ends with the release or the connection
        return str(lease.id)

    def release(self, id: str) -> None:  # noqa: A002 - named as in QRMI
        """End a reservation: its waiting tasks are cancelled. Raises NotFoundError for an invalid
        token."""
        if not id.isascii() or not id.isdigit() or len(id) > _TOKEN_DIGITS:
            raise NotFoundError(
                f"{id[:80]!r} is not a token", hint="pass the value that acquire() returned"
            )
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
        return {
            "backend_name": self._pool,
            "kind": str(device.kind),
            "provider": device.provider,
            "model": device.model,
            "version": device.version,
            "num_qubits": str(device.num_qubits),
            "max_shots": str(device.max_shots),
            "calibration_id": device.calibration_id,
            "environment": self._connected().name,
        }

    # --- tasks --------------------------------------------------------------------------------

    def task_start(self, payload: Any) -> str:
        """Submit a payload and return its name. A payload of several circuits is several tasks
        under one name."""
        work = sampler.read(payload)
        if len(work.pubs) > MAX_CIRCUITS:
            raise OptionError(
                f"{len(work.pubs)} circuits in a payload, at most {MAX_CIRCUITS}",
                hint="several payloads",
            )
        client, names = self._connected(), list[str]()
        has_memory = self._has_memory()
        try:
            for pub in work.pubs:
                output = "memory" if has_memory and pub.fits(MAX_MEMORY_BYTES) else "counts"
                names.append(self._submitted(client, pub, output, work.device_options))
        except BaseException:
            client.cancel(names)
            raise
        task_id = _JOIN.join(names)
        self._works[task_id] = work
        return task_id

    def task_status(self, task_id: str) -> Any:
        """Status as `qrmi.TaskStatus`, or as `TaskStatus` without that package. Raises
        NotFoundError."""
        names = task_id.split(_JOIN)
        infos = self._connected().tasks(names)
        if len(infos) < len(names):
            raise NotFoundError(
                f"no task {task_id[:200]!r} here", hint="what task_start() returned"
            )
        seen = {NAMES[info.state] for info in infos}
        return getattr(statuses(), next(name for name in ORDER if name in seen))

    def task_stop(self, task_id: str) -> None:
        """Cancel a task; no effect after its end. Results can still be read."""
        self._connected().cancel(task_id.split(_JOIN))

    def task_result(self, task_id: str) -> TaskResult:
        """Wait for the end and return the result. Raises the errors of `Task.result`, and
        NotFoundError if another process started the task, because only that process knows the
        registers."""
        work = self._works.get(task_id)
        if work is None:
            raise NotFoundError(
                f"task {task_id[:200]!r} was not started here", hint="simenv result TASK shows it"
            )
        client = self._connected()
        tasks = [client.task(name) for name in task_id.split(_JOIN)]
        results = [task.results() for task in tasks]
        outcomes = [[sampler.outcomes_of(result) for result in rows] for rows in results]
        metadata = [device_metadata(rows[0]) for rows in results]
        return TaskResult(sampler.write(work, outcomes, metadata))

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

    # ------------------------------------------------------------------------------------------

    def _connected(self) -> Client:
        if self._client is None:
            self._client = simenv.connect(service=self._settings.service)
            if self._reservation:  # made by the launcher, or before `close`
                with suppress(SimenvError):  # it has ended: submissions under it raise
                    self._client.reservation(self._reservation).__enter__()
        return self._client

    def _device(self) -> Any:
        devices = self._connected().devices()
        if self._pool not in devices:
            raise NotFoundError(
                f"no pool {self._pool[:80]!r} here", hint=f"there are: {', '.join(devices)}"
            )
        return devices[self._pool]

    def _has_memory(self) -> bool:
        """Return whether results have the order of the shots: not all machines and external
        programs give it."""
        device = self._device()
        return device.kind is not DeviceKind.HARDWARE and device.model != "external"

    def _submitted(
        self, client: Client, pub: sampler.Pub, output: str, device_options: Mapping[str, Any]
    ) -> str:
        """Submit one circuit or sweep; return the name of its task."""
        settings, reservation = self._settings, self._reservation or None
        if not pub.is_sweep:
            return client.submit(
                pub.text,
                parameter_values=pub.values,
                shots=pub.shots,
                outputs=output,
                pool=self._pool,
                run_timeout_s=settings.run_timeout_s,
                reservation=reservation,
                **device_options,
            ).id
        tasks = client.submit_many(
            (pub.text, pub.values),
            shots=pub.shots,
            outputs=output,
            pool=self._pool,
            run_timeout_s=settings.run_timeout_s,
            reservation=reservation,
            **device_options,
        )
        names = {task.id.partition(".")[0] for task in tasks}
        if len(names) > 1:
            client.cancel(names)
            raise OptionError(
                f"the sets of values of one pub travel as {len(names)} tasks",
                hint="fewer in one pub",
            )
        return names.pop()
