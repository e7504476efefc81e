"""Binding `control` of revision 2: health checks, reconciliation and shutdown.

`shutdown` ends this QPM and not the environment, which others use; `Client.shutdown` or `simenv
down` end the environment.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic, time
from typing import Any

import msgspec

from simenv.client.qpm.answers import snapshots
from simenv.client.qpm.requests import arguments
from simenv.client.qpm.runtime.circuit_run import CircuitRun
from simenv.client.qpm.runtime.context import QpmBinding
from simenv.errors import NoServiceError, SimenvError
from simenv.model import FINAL_STATES, ServiceInfo, task_number
from simenv.qpm.envelopes import plain
from simenv.qpm.errors import ExecutionError, NotReadyError
from simenv.qpm.states import ServiceState
from simenv.qpm.telemetry import (
    SUMMARY_SCHEMA,
    Reconciliation,
    SelfTest,
    ServiceStatus,
    ShutdownRequest,
    SummaryState,
)

MODES = ("graceful", "cancel")
HEARING_S = 1.0

Plain = dict[str, Any]


class ControlBinding(QpmBinding):
    """Methods of the binding. Thread-safe."""

    def test(self, token: str | None = None) -> Plain:
        """Check that calls arrive and whether the QPM is ready; no circuit is submitted."""
        status = self._service_status()
        return plain(SelfTest("ok" if status.ready else "not-ready", True, status))

    def is_ready(self, token: str | None = None) -> Plain:
        """Return the service status; hosts wait for its field `ready`."""
        return self.get_service_status(token)

    def get_service_status(self, token: str | None = None) -> Plain:
        """State and readiness. A service that does not answer is reported as not ready, without an
        error."""
        return plain(self._service_status())

    def get_service_summary(self, token: str | None = None) -> Plain:
        """Service status with the state in a batch scheduler's terms, the nodes of the workers, the
        service's version and pools; `service_state` is the state of `get_service_status`."""
        info = self._info()
        status = self._service_status(info)
        summary: Plain = {
            **plain(status),
            "schema": SUMMARY_SCHEMA,
            "target_id": self._context.identity.target_id,
            "state": str(self._summary_state(status)),
            "service_state": str(status.state),
            "assigned_hosts": [] if info is None else snapshots.hosts(info),
            "timestamp_ns": round(time() * 1e9),
        }
        if info is not None:
            summary |= {
                "version": info.version,
                "node": info.node,
                "epoch": info.epoch,
                "up_s": info.up_s,
                "done": info.done,
                "failed": info.failed,
                "cancelled": info.cancelled,
                "expired": info.expired,
                "pools": [snapshots.pool(pool) for pool in info.pools],
                "warnings": list(info.warnings),
            }
        return summary

    def reconcile_runtime_state(self, token: str | None = None, reason: str | None = None) -> Plain:
        """Compare the open circuits of this QPM with the service's tasks. `reason` is required.

        The lists of qtask ids are: circuits that ended in the service without notice here (their
        results are fetched now), circuits that the service does not know, and unfinished circuits.
        """
        if reason is None:
            raise ExecutionError("reconcile_runtime_state needs a reason", hint="reason='...'")
        self._context.audit.note("reconcile_runtime_state", arguments.text("reason", reason))
        stale, lost, unfinished = self._compare(self._context.registry.unfinished())
        for number in lost:
            self._context.audit.fault("provider-handle", number)
        return plain(
            Reconciliation(
                target_id=self._context.identity.target_id,
                timestamp_ns=round(time() * 1e9),
                pending_removed=[],
                stale_runtime_tasks=stale,
                capacity_hold_faults=[],
                unfinished_scheduler_tasks=unfinished,
                provider_handle_faults=lost,
                directory_generation_faults=[],
            )
        )

    def shutdown(
        self,
        token: str | None = None,
        mode: str = "graceful",
        timeout_s: float | None = None,
        reason: str | None = None,
    ) -> Plain:
        """Accept no more circuits and stop when all have ended; returns at once.

        `graceful`: accepted circuits may finish within `timeout_s` and are cancelled after it;
        `cancel`: they are cancelled now. A repeated call returns the first request with `repeated`.
        """
        arguments.optional_text("reason", reason)
        patience_s = arguments.seconds("timeout_s", timeout_s)
        if mode not in MODES:
            raise arguments.wrong("mode", mode, f"one of: {', '.join(MODES)}")
        with self._context.session.channel.lock:
            if self._shutdown_request is not None:
                return plain(msgspec.structs.replace(self._shutdown_request, repeated=True))
            draining = mode == "graceful"
            self._state = ServiceState.DRAINING if draining else ServiceState.STOPPING
            self._context.submitter.leaving = "it was asked to shut down"
            self._shutdown_request = ShutdownRequest(
                "accepted", mode, patience_s, reason, self._state, round(time() * 1e9)
            )
        self._context.audit.note("shutdown", reason)
        threading.Thread(
            target=self._stop, args=(patience_s if draining else 0.0,), name="simenv-qpm-stop",
            daemon=True,
        ).start()  # fmt: skip
        return plain(self._shutdown_request)

    # ------------------------------------------------------------------------------------------

    def _stop(self, patience_s: float | None) -> None:
        with suppress(SimenvError):  # service or client has gone: nothing is left to wait for
            self._finish(patience_s)
        self._state = ServiceState.STOPPED

    def _finish(self, patience_s: float | None) -> None:
        end_s = None if patience_s is None else monotonic() + patience_s
        open_runs = self._context.registry.unfinished()
        for run in open_runs:
            if not run.wait(None if end_s is None else max(0.0, end_s - monotonic())):
                break
        self._state = ServiceState.STOPPING
        for run in self._context.registry.unfinished():
            self._context.submitter.cancel(run)
        for run in open_runs:
            run.wait(None)

    def _service_status(self, info: ServiceInfo | None = None) -> ServiceStatus:
        info = info or self._info()
        provider = info is not None and snapshots.is_available(info.pools)
        accepting = self._state is ServiceState.RUNNING and info is not None
        return ServiceStatus(
            state=self._state,
            initialized=info is not None,
            ready=accepting and provider,
            accepting_requests=accepting,
            provider_ready=provider,
            active_task_count=len(self._context.registry.unfinished()),
            active_reservation_count=0 if info is None else self._reserved(),
            shutdown=self._shutdown_request,
        )

    def _summary_state(self, status: ServiceStatus) -> SummaryState:
        if status.state in (ServiceState.DRAINING, ServiceState.QUIESCING):
            return SummaryState.MAINT
        try:
            if status.accepting_requests and not self._context.identity.begins():
                return SummaryState.MAINT
        except NotReadyError:
            return SummaryState.DOWN
        if not status.ready:
            return SummaryState.DOWN
        is_busy = status.active_reservation_count or status.active_task_count
        return SummaryState.BUSY if is_busy else SummaryState.IDLE

    def _reserved(self) -> int:
        """Number of active reservations; 0 if the service does not answer."""
        with suppress(NotReadyError):
            return len(self._context.reservation_checks.active())
        return 0

    def _info(self) -> ServiceInfo | None:
        """Information on the service; None if it does not answer."""
        try:
            return self._context.identity.status()
        except NotReadyError:
            return None

    def _compare(self, runs: list[CircuitRun]) -> tuple[list[int], list[int], list[int]]:
        """Lists of qtask ids: ended in the service without notice here, unknown there,
        unfinished."""
        task_numbers = [task.handle.number for run in runs for task in run.tasks]
        try:
            infos = {
                task_number(info.id): info
                for info in self._context.session.task_infos(task_numbers)
            }
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error
        stale, lost, unfinished = [], [], []
        for run in runs:
            results = [infos.get(task.handle.number) for task in run.tasks]
            if any(info is None for info in results):
                lost.append(run.number)
            elif all(info is not None and info.state in FINAL_STATES for info in results):
                was_heard = run.over
                run.wait(HEARING_S)
                if not was_heard:
                    stale.append(run.number)
            else:
                unfinished.append(run.number)
        return stale, lost, unfinished
