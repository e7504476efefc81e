"""QRMI's QuantumResource over one pool.

Invariant: what it acquires is a reservation, what it starts are tasks, both the service's own: they
are seen by `simenv queue` and `client.reservations()` like any other, and another process may look
at them and end them by their names. A task's result is written by the process that started it.
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
from simenv.frontends.qrmi.sampler import Work
from simenv.frontends.qrmi.types import NAMES, ORDER, Target, TaskResult, statuses

LEASE_S = 3600.0  # of what is acquired, since it was renewed last
MAX_CIRCUITS = 1_000  # of one payload
_TOKEN_DIGITS = 18  # a whole number of 64 bits
_JOIN = "+"  # between the names of the tasks of one payload


def resources(environ: Mapping[str, str] | None = None) -> list[QuantumResource]:
    """Those of this job that are pools of ours and can be reached. ConfigError."""
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
        self._told = variables.read(os.environ if environ is None else environ, resource_id)
        self._client: Client | None = None
        self._reservation = self._told.reservation
        self._acquired = 0  # pass the value that acquire() returned, until it is released
        self._works: dict[str, Work] = {}  # of tasks that were started here

    def resource_id(self) -> str:
        """The pool's name."""
        return self._pool

    def resource_type(self) -> str:
        """simenv."""
        return variables.TYPE

    # --- the resource -------------------------------------------------------------------------

    def is_accessible(self) -> bool:
        """The environment answers, has this pool, and a worker of it is there or being started."""
        try:
            pool = self._connected().pools().get(self._pool)
        except SimenvError:
            return False
        result = pool is not None and pool.state in ("up", "starting")
        if not result:
            self.close()
        return result

    def acquire(self) -> str:
        """A reservation, under which tasks run from now on; its number, which is the token. It is
        renewed until `release` or `close`, or this process ends.

        OptionError where one that was acquired here is not released yet."""
        if self._acquired:
            raise OptionError(
                f"{self._pool!r} is acquired already, with the token {self._acquired}",
                hint="release() it first",
            )
        lease = self._connected().reserve(self._pool, for_s=LEASE_S)
        self._reservation = self._acquired = lease.id
        lease.__enter__()  # its renewal ends with its release, or with our connection
        return str(lease.id)

    def release(self, id: str) -> None:  # noqa: A002 - QRMI's own word
        """It is over: what waits under it is cancelled. NotFoundError where it is not a token."""
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
        what is not known is null."""
        return Target(msgspec.json.encode(self._device()).decode())

    def metadata(self) -> dict[str, str]:
        """In a few words."""
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
        """Its name. A payload of several circuits is several tasks under one name."""
        work = sampler.read(payload)
        if len(work.pubs) > MAX_CIRCUITS:
            raise OptionError(
                f"{len(work.pubs)} circuits in a payload, at most {MAX_CIRCUITS}",
                hint="several payloads",
            )
        client, names = self._connected(), list[str]()
        try:
            for pub in work.pubs:
                names.append(self._submitted(client, pub, work.device_options))
        except BaseException:
            client.cancel(names)
            raise
        task_id = _JOIN.join(names)
        self._works[task_id] = work
        return task_id

    def task_status(self, task_id: str) -> Any:
        """`qrmi.TaskStatus`, or ours; NotFoundError."""
        names = task_id.split(_JOIN)
        infos = self._connected().tasks(names)
        if len(infos) < len(names):
            raise NotFoundError(
                f"no task {task_id[:200]!r} here", hint="what task_start() returned"
            )
        seen = {NAMES[info.state] for info in infos}
        return getattr(statuses(), next(name for name in ORDER if name in seen))

    def task_stop(self, task_id: str) -> None:
        """Nothing where it has ended; results can be read still."""
        self._connected().cancel(task_id.split(_JOIN))

    def task_result(self, task_id: str) -> TaskResult:
        """Waits for the end. Raises what `Task.result` does; NotFoundError where it was started by
        another process, which alone knows the registers."""
        work = self._works.get(task_id)
        if work is None:
            raise NotFoundError(
                f"task {task_id[:200]!r} was not started here", hint="simenv result TASK shows it"
            )
        client = self._connected()
        tasks = [client.task(name) for name in task_id.split(_JOIN)]
        results = [task.results() for task in tasks]
        counts = [[result.counts for result in rows] for rows in results]
        metadata = [device_metadata(rows[0]) for rows in results]
        return TaskResult(sampler.write(work, counts, metadata))

    def task_logs(self, task_id: str) -> str:
        """A line for each circuit: where it ran, or why it did not."""
        client = self._connected()
        return "".join(
            f"{info.id} {info.state} on {info.worker or '-'} of {info.pool or '-'}"
            f" after {info.time_s:.3f} s {info.reason}".rstrip()
            + "\n"
            for info in client.tasks(task_id.split(_JOIN))
        )

    def close(self) -> None:
        """Let go of the connection; tasks and reservations stay, and are renewed no longer.
        Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # ------------------------------------------------------------------------------------------

    def _connected(self) -> Client:
        if self._client is None:
            self._client = simenv.connect(service=self._told.service)
            if self._reservation:  # one that was made for us, or before `close`
                with suppress(SimenvError):  # it is over: whoever submits under it is told
                    self._client.reservation(self._reservation).__enter__()
        return self._client

    def _device(self) -> Any:
        devices = self._connected().devices()
        if self._pool not in devices:
            raise NotFoundError(
                f"no pool {self._pool[:80]!r} here", hint=f"there are: {', '.join(devices)}"
            )
        return devices[self._pool]

    def _submitted(
        self, client: Client, pub: sampler.Pub, device_options: Mapping[str, Any]
    ) -> str:
        """The name of the one task that carries it."""
        settings, reservation = self._told, self._reservation or None
        if not pub.is_sweep:
            return client.submit(
                pub.text,
                parameter_values=pub.values,
                shots=pub.shots,
                pool=self._pool,
                run_timeout_s=settings.run_timeout_s,
                reservation=reservation,
                **device_options,
            ).id
        tasks = client.submit_many(
            (pub.text, pub.values),
            shots=pub.shots,
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
