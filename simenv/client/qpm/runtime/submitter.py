"""A host's request on its way to the service, and everything both revisions do alike.

Refusals of two kinds: a request that is not one raises at once and leaves nothing behind; a circuit
that the service will not take is a run that failed, whose end is told like any other.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from functools import partial
from time import time
from typing import Any, Protocol, Unpack

from simenv.client.qpm.requests import arguments, run_request
from simenv.client.qpm.requests.run_request import Prepared, Request
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
)
from simenv.qpm.errors import ExecutionError, NotReadyError, OutOfResourcesError
from simenv.qpm.states import Reason


class TaskClient(Protocol):
    """The submitting part of a client; `simenv.Client` implements it."""

    def submit(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task: ...
    def cancel(self, tasks: Iterable[Task | str | int]) -> list[str]: ...


class CircuitSubmitter:
    """Thread-safe. `leaving`: says why nothing new is taken, or None. `pool`: where all runs; "":
    where the reservation or the request says. `widest`: of a statevector, in qubits."""

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
        """The circuit is accepted, or refused: then the run has ended already.

        Raises ExecutionError (no request, or not under that reservation), OutOfResourcesError,
        NotReadyError.
        """
        if self.leaving is not None:
            raise ExecutionError(
                f"the QPM takes nothing new: {self.leaving}", hint="connect anew",
                reason=Reason.DRAINING,
            )  # fmt: skip
        asked = run_request.read(info)
        created_s = time()
        cid, number = str(uuid.uuid4()), self.registry.next_number()
        try:
            prepared = run_request.prepare(asked, self._widest)
            tasks = self._submit(asked, prepared, under)
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error
        except InsufficientError as error:
            raise OutOfResourcesError(error.message, hint=error.hint) from error
        except NoDeviceError as error:
            what = error.message.replace("compile", "verbatim", 1)
            raise ExecutionError(
                f"the field {what}",
                hint="a QPM of a pool with an emulated device; or leave it out",
                reason=Reason.UNSUPPORTED,
            ) from error
        except NotReservedError as error:
            raise self._reservation_checks.refusal(under.number, error) from error
        except SimenvError as error:
            if under.number:  # the service has not been asked whether it may be used
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
        self, asked: Request, prepared: Prepared, under: ReservationRef
    ) -> tuple[Task, ...]:
        tasks: list[Task] = []
        pool = self._pool or under.device
        submit = partial(
            self._client.submit,
            priority=asked.priority,
            pool=pool or None,
            prefer=None if pool else asked.prefer,
            reservation=under.number or None,
            noise=asked.noise,
            compile="never" if asked.verbatim else "auto",
            qubit_mapping=asked.qubit_mapping or None,
        )
        if prepared.counts is not None:
            tasks.append(submit(prepared.counts, shots=asked.shots, seed=asked.seed))
        if prepared.amplitudes is not None:
            try:
                tasks.append(submit(prepared.amplitudes, shots=None, outputs=("statevector",)))
            except BaseException:
                self._client.cancel(tasks)
                raise
        return tuple(tasks)

    def wait(self, run: CircuitRun, timeout_s: float | None) -> bool:
        """As `CircuitRun.wait`; NotReadyError when the service is lost."""
        try:
            return run.wait(timeout_s)
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error

    def cancel(self, run: CircuitRun) -> set[str]:
        """The service's words for its tasks: cancelled, cancelling, final, unknown."""
        try:
            return set(self._client.cancel(run.tasks))
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error

    def delete(self, cid: Any) -> None:
        """Stop it if it runs, forget it; nothing where it is not known."""
        result = self.registry.find(arguments.text("cid", cid))
        if isinstance(result, CircuitRun):
            self.registry.drop(result)
            if not result.over:
                self.cancel(result)


def failure(error: SimenvError) -> ExecutionError:
    """What a caller that waited is raised."""
    reason = getattr(error, "reason", "") or error.code
    return ExecutionError(error.message, hint=error.hint, reason=reason)
