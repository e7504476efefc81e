"""Submission of a host's request to the service, for both revisions.

An invalid request raises at once and leaves no circuit. A circuit that the service refuses becomes
a failed run with a completion.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from functools import partial
from time import time
from typing import Any, Protocol, Unpack

import msgspec

from simenv.client.qpm.requests import arguments, run_request
from simenv.client.qpm.requests.run_request import PreparedPrograms, Request
from simenv.client.qpm.runtime.circuit_run import CircuitRun, refused
from simenv.client.qpm.runtime.completion_queues import CircuitRegistry
from simenv.client.qpm.runtime.reservations import UNCLAIMED, ReservationChecks, ReservationRef
from simenv.client.submission.options import SubmitOptions
from simenv.client.tasks.task import Task
from simenv.errors import (
    InsufficientError,
    NoDeviceError,
    NoServiceError,
    NotReservedError,
    SimenvError,
    rename_options,
)
from simenv.qpm.errors import ExecutionError, NotReadyError, OutOfResourcesError
from simenv.qpm.states import Reason


class TaskClient(Protocol):
    """Submitting part of a client; `simenv.Client` implements it."""

    def submit(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task: ...
    def post(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task: ...
    def cancel(self, tasks: Iterable[Task | str | int]) -> list[str]: ...


class CircuitSubmitter:
    """Submitter of circuits. Thread-safe.

    `leaving`: the reason why no circuit is accepted any more, or None. `pool`: the pool of all
    circuits; "": the reservation or the request names it. `widest`: limit of a statevector, in
    qubits.
    """

    def __init__(
        self,
        client: TaskClient,
        registry: CircuitRegistry,
        reservation_checks: ReservationChecks,
        pool: str = "",
        widest: int = run_request.MAX_STATEVECTOR_QUBITS,
    ) -> None:
        self._client = client
        self._pool = pool
        self._widest = widest
        self.registry = registry
        self._reservation_checks = reservation_checks
        self.leaving: str | None = None

    def start(self, info: Any, *, queued: bool, under: ReservationRef = UNCLAIMED) -> CircuitRun:
        """Submit a circuit; the run of a refused circuit has ended already.

        Raises ExecutionError (invalid request or reservation), OutOfResourcesError, NotReadyError.
        """
        if self.leaving is not None:
            raise ExecutionError(
                f"the QPM takes nothing new: {self.leaving}", hint="connect anew",
                reason=Reason.DRAINING,
            )  # fmt: skip
        asked = run_request.read(info)
        if asked.options["prefer"] and (self._pool or under.device):
            owner = "QPM" if self._pool else "reservation"
            text = f"info: prefer has no effect: the pool is the {owner}'s"
            asked = msgspec.structs.replace(asked, warnings=(*asked.warnings, text))
        created_s = time()
        cid, number = str(uuid.uuid4()), self.registry.next_number()
        try:
            prepared = run_request.prepare(asked, self._widest)
            tasks = self._submit(asked, prepared, under, waits=not queued)
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error
        except InsufficientError as error:
            raise OutOfResourcesError(error.message, hint=error.hint) from error
        except NoDeviceError as error:
            rename_options(error, run_request.NAMES)
            raise ExecutionError(
                f"the field {error.message}",
                hint="a QPM of a pool with an emulated device; or leave it out",
                reason=Reason.UNSUPPORTED,
            ) from error
        except NotReservedError as error:
            raise self._reservation_checks.refusal(under.number, error) from error
        except SimenvError as error:
            rename_options(error, run_request.NAMES)
            if under.number:  # the service has not checked the reservation
                self._reservation_checks.check_active(under.number)
            run = refused(cid, number, asked, created_s, error, under.number)
        else:
            run = CircuitRun(
                cid, number, asked.shots, created_s,
                tasks=tasks,
                wants_amplitudes=asked.statevector,
                fixed=prepared.fixed,
                size_bytes=prepared.size_bytes,
                reservation=under.number,
                warnings=asked.warnings,
            )  # fmt: skip
        self.registry.enter(run, queued=queued)
        return run

    def _submit(
        self, asked: Request, prepared: PreparedPrograms, under: ReservationRef, *, waits: bool
    ) -> tuple[Task, ...]:
        """Submit the programs of a request. `waits`: the caller waits for the results, so that the
        acceptance of a single program may come with its result."""
        tasks: list[Task] = []
        pool = self._pool or under.device
        is_single = prepared.counts is None or prepared.amplitudes is None
        options: SubmitOptions = {
            **asked.options,
            "pool": pool or None,
            "reservation": under.number or None,
        }
        if pool:
            del options["prefer"]
        submit = partial(
            self._client.post if waits and is_single else self._client.submit, **options
        )
        if prepared.counts is not None:
            tasks.append(submit(prepared.counts, shots=asked.shots, seed=asked.seed))
        if prepared.amplitudes is not None:
            try:
                tasks.append(submit(prepared.amplitudes, shots=None, outputs=("statevector",)))
            except BaseException:
                self._client.cancel(tasks)
                raise
        for task in tasks:
            _ = task.handle  # raises the refusal of a posted task
        return tuple(tasks)

    def wait(self, run: CircuitRun, timeout_s: float | None) -> bool:
        """Wait as `CircuitRun.wait`. Raises NotReadyError if the service is lost."""
        try:
            return run.wait(timeout_s)
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error

    def cancel(self, run: CircuitRun) -> set[str]:
        """Cancel the tasks of a run; return the service's answers: cancelled, cancelling, final,
        unknown."""
        try:
            return set(self._client.cancel(run.tasks))
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error

    def delete(self, cid: Any) -> None:
        """Cancel a circuit if it runs, and forget it; an unknown cid is no error."""
        result = self.registry.find(arguments.text("cid", cid))
        if isinstance(result, CircuitRun):
            self.registry.drop(result)
            if not result.over:
                self.cancel(result)


def failure(error: SimenvError) -> ExecutionError:
    """Make the error that a waiting caller gets."""
    reason = getattr(error, "reason", "") or error.code
    return ExecutionError(error.message, hint=error.hint, reason=reason)
