"""Bindings `telemetry` and `control` of revision 2.

The binding `telemetry` has the service's data in the contract's terms. `lib` names a pool; None is
the QPM's own target: a pool or the environment. Access classes are recorded, not enforced.

The binding `control` has health checks, reconciliation and shutdown. `shutdown` ends this QPM and
not the environment, which others use; `Client.shutdown` or `simenv down` end the environment.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic, time
from typing import Any

import msgspec

from simenv import model
from simenv.client.qpm import devices, requests, scheduler
from simenv.client.qpm.circuit_run import CircuitRun
from simenv.client.qpm.identity import WHOLE, pools_of
from simenv.client.qpm.status import QpmBinding
from simenv.client.qpm.submitter import LIVE
from simenv.errors import SimenvError
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.qpm import answers, envelopes, telemetry_answers
from simenv.qpm.contract import PROVIDER, Device, ExecutionError, NotReadyError, UnknownObjectError
from simenv.wire.messages import admin, client as m, metrics

EVENTS_SHOWN = 1_000  # the newest
UNLIMITED_POLICY = "unlimited"
ACCESS = {
    "basic-discovery": "what the device is: anybody who may look for one",
    "caller-owned": "a caller's own circuits",
    "manager-aggregate": "sums over all callers",
    "operator": "the service's own life",
}
_BY_LIBRARY = (
    "get_backend_info", "get_device_info", "get_dynamic_backend_info", "get_calibration_snapshot",
    "get_coupling_graph",
)  # fmt: skip
_CALLS = {
    **dict.fromkeys((*_BY_LIBRARY, "capability_map"), "basic-discovery"),
    "get_telemetry_access_model": "basic-discovery",
    **dict.fromkeys(("task_status", "get_task_timing", "get_task_metadata"), "caller-owned"),
    "list_scheduler_allocations": "manager-aggregate",
    "get_capacity_snapshot": "manager-aggregate",
    "get_queue_metrics": "manager-aggregate",
    "get_telemetry_history": "manager-aggregate",
    "get_service_lifecycle_telemetry": "operator",
}

Plain = dict[str, Any]


class QuerySubject(msgspec.Struct, frozen=True):
    """Subject of a query about a device. `device`: the service's name; `name`: the contract's
    name."""

    device: str
    name: str
    info: DeviceInfo


class TelemetryBinding(QpmBinding):
    """Methods of the binding. Thread-safe. Each answer has the present state."""

    def get_backend_info(self, lib: str | None = None, token: str | None = None) -> Plain:
        """Simple form of the device, with its `qhw-device-v1` record in `qhw_device`."""
        subject = self._subject(lib)
        answer: Plain = {**_simple(subject), "qhw_device": self._device_record(subject)}
        if subject.info.kind is not DeviceKind.IDEAL:
            answer["active_qubits"] = devices.qubits(subject.info)
            answer["calibration_set_id"] = subject.info.calibration_id or None
        return answer

    def get_device_info(self, lib: str | None = None, token: str | None = None) -> Plain:
        """`qhw-device-v1` record, with the simple form for older hosts. `max_shots`: limit of one
        request; the record has the machine's own limit."""
        subject = self._subject(lib)
        return {
            **_simple(subject),
            **self._device_record(subject),
            "num_qubits": subject.info.num_qubits,
            "max_shots": model.MAX_SHOTS,
        }

    def get_dynamic_backend_info(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """Current state: availability, queue, wait estimate and free slots."""
        subject = self._subject(lib, calibration_set_id)
        seen = self._moment(subject.device, "basic-discovery")
        info, target = seen.service, seen.target
        return {
            **_simple(subject), "calibration_set_id": subject.info.calibration_id or None,
            "device_available": seen.is_available, "timestamp_ns": seen.now_ns,
            "state": target.state, "pause_reason": target.pause_reason or None,
            "pools": [devices.pool(pool) for pool in seen.pools],
            "pending_qtask_count": target.parked, "scheduler_queue_depth": target.queued,
            "active_task_count": target.running,
            "wait_estimate": envelopes.plain(devices.wait(seen)), "slots": info.slots,
            "slots_granted": info.slots_granted, "memory_bytes": info.memory_bytes,
        }  # fmt: skip

    def get_calibration_snapshot(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """`qhw-calibration-v1` record; of an ideal device: no observations."""
        subject = self._subject(lib, calibration_set_id)
        record = envelopes.plain(devices.calibration(subject.name, subject.info))
        return {**_simple(subject), **record}

    def get_coupling_graph(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """`qhw-coupling-v1` record, with `couplings` [[a, b], ...] for older hosts."""
        subject = self._subject(lib, calibration_set_id)
        couplings = [list(pair) for pair in devices.edges(subject.info)]
        record = envelopes.plain(devices.coupling(subject.name, subject.info))
        return {**_simple(subject), **record, "couplings": couplings}

    def capability_map(self, token: str | None = None) -> Plain:
        """Map from each call to the libraries (pools) that it accepts. Under "paradigms": the
        formats and libraries of gate and analog programs; annealing has none, with the reason."""
        infos = self._identity.devices()
        calls = {call: list(infos) if call in _BY_LIBRARY else [] for call in _CALLS}
        return {**calls, "paradigms": devices.paradigms(infos)}

    def list_scheduler_allocations(
        self, token: str | None = None, filters: Plain | None = None
    ) -> Plain:
        """Allocations of batch schedulers with live reservations that the caller may see, one entry
        each. A QPM of a pool lists reservations of that pool. `filters`: values of entry fields."""
        wanted = requests.optional_table("filters", filters)
        infos = self._ask(admin.GetReservations(0)).reservations
        entries = devices.allocations(
            info
            for info in infos
            if info.state in LIVE and self._identity.device in (WHOLE, info.device)
        )
        chosen = [
            entry
            for entry in entries
            if all(requests.matches(getattr(entry, name, None), v) for name, v in wanted.items())
        ]
        return envelopes.plain(answers.SchedulerAllocations(chosen))

    def get_telemetry_access_model(self, token: str | None = None) -> Plain:
        """Access class of each call, with the intended readers of each class."""
        return {
            "target_id": self._identity.target_id,
            "enforcement": "record-only",
            "access_classes": [
                {"name": name, "description": description} for name, description in ACCESS.items()
            ],
            "methods": {
                call: {
                    "access_class": access,
                    "enforced": False,
                    "object_visibility": "own" if access == "caller-owned" else "all",
                    "field_visibility": {},
                }
                for call, access in _CALLS.items()
            },
        }

    def get_capacity_snapshot(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        scope_id: str | None = None,
        access_class: str | None = None,
    ) -> Plain:
        """Waiting tasks, running tasks and free capacity. `device_id`: the target or one of its
        pools."""
        device = self._targets.device(device_id)
        requests.optional_text("scope_id", scope_id)
        access = _access(access_class, "manager-aggregate")
        return envelopes.plain(devices.capacity(self._moment(device, access), scope_id))

    def get_queue_metrics(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        access_class: str | None = None,
    ) -> Plain:
        """Queue metrics of a device; `device_id` as in `get_capacity_snapshot`."""
        device = self._targets.device(device_id)
        access = _access(access_class, "manager-aggregate")
        return envelopes.plain(devices.queue(self._moment(device, access)))

    def get_telemetry_history(
        self,
        token: str | None = None,
        series: str | None = None,
        since_s: float | None = None,
        until_s: float | None = None,
        step_s: float | None = None,
        access_class: str | None = None,
    ) -> Plain:
        """A stored series, such as `queue` or `device/POOL/t1_us`; without `series` the names of
        all. Times in seconds since 1970."""
        name = requests.optional_text("series", series) or ""
        times = (("since_s", since_s), ("until_s", until_s), ("step_s", step_s))
        asked = {key: requests.moment(key, value) for key, value in times}
        access = _access(access_class, "manager-aggregate")
        found = self._ask(metrics.GetSeries(0, name=name, **asked))
        points = list(zip(found.at_s, found.mean, found.least, found.most, strict=True))
        return envelopes.plain(
            telemetry_answers.TelemetryHistory(
                self._identity.target_id, _now_ns(), access, name, found.unit, points, found.names,
                telemetry_answers.Visibility("telemetry-history", access),
            )
        )  # fmt: skip

    def get_service_lifecycle_telemetry(
        self, token: str | None = None, access_class: str | None = None
    ) -> Plain:
        """Newest events of the service and its workers, with the audit entries of `control`."""
        access = _access(access_class, "operator")
        target = self._identity.target_id
        newest = self._ask(m.GetEvents(0, limit=0)).newest
        since = max(0, newest - EVENTS_SHOWN)
        events = self._ask(m.GetEvents(0, since=since, limit=EVENTS_SHOWN)).events
        return envelopes.plain(
            telemetry_answers.LifecycleTelemetry(
                target, _now_ns(), access,
                [devices.lifecycle(target, event) for event in events],
                [msgspec.to_builtins(entry) for entry in self._audit.entries()],
                [msgspec.to_builtins(fault) for fault in self._audit.faults()],
                telemetry_answers.Visibility("service-lifecycle", access),
            )
        )  # fmt: skip

    def _subject(self, lib: Any, calibration_set_id: Any = None) -> QuerySubject:
        wanted = requests.optional_text("calibration_set_id", calibration_set_id)
        device = self._targets.device(requests.optional_text("lib", lib))
        info = self._identity.device_info(device)
        if wanted not in (None, info.calibration_id):
            there = f"there is {info.calibration_id!r}" if info.calibration_id else "it has none"
            message = f"no calibration set {wanted!r:.80} here"
            hint = f"{there}; without calibration_set_id the present one is meant"
            raise UnknownObjectError(message, hint=hint)
        return QuerySubject(device, self._identity.contract_name(device), info)

    def _device_record(self, subject: QuerySubject) -> Plain:
        pools = pools_of(self._identity.status(), subject.device)
        engines = self._identity.engines_of(subject.info, pools)
        return envelopes.plain(devices.device(subject.name, subject.info, engines))

    def _moment(self, device: str, access: str) -> devices.DeviceSnapshot:
        info, target = self._identity.status(), self._identity.target(device)
        full = target if device == WHOLE else self._identity.target(WHOLE)
        rules = self._ask(admin.GetPolicy(0, device=device)).policy
        return devices.DeviceSnapshot(
            target_id=self._identity.target_id, device_id=self._identity.contract_name(device),
            access_class=access, now_ns=_now_ns(),
            service=info, pools=pools_of(info, device), target=target,
            admission={
                "name": rules.name,
                "options": {},
                "capacity": scheduler.capacity_table(rules),
                "baseline": scheduler.baseline_table(rules.baseline),
            },
            room=self._available_units(device, rules), begins=devices.begins(target, full),
        )  # fmt: skip

    def _available_units(self, device: str, rules: model.AdmissionPolicy) -> int | None:
        """Units of the next reservation that the service would grant to this caller; None if
        unlimited."""
        if rules.name == UNLIMITED_POLICY:
            return None
        request = model.ReservationRequest(device=device)
        answer = self._ask(admin.Reserve(0, ask=request, dry=True))
        return answer.decision.capacity_available


def _simple(subject: QuerySubject) -> Plain:
    return {"backend": PROVIDER, "target_id": subject.name, "metadata_supported": True}


def _access(value: Any, default: str) -> str:
    return default if value is None else requests.text("access_class", value)


def _now_ns() -> int:
    return round(time() * 1e9)


MODES = ("graceful", "cancel")
HEARING_S = 1.0


class ControlBinding(QpmBinding):
    """Methods of the binding. Thread-safe."""

    def test(self, token: str | None = None) -> Plain:
        """Check that calls arrive and whether the QPM is ready; no circuit is submitted."""
        status = self._service_status()
        word = "ok" if status.ready else "not-ready"
        return envelopes.plain(answers.SelfTest(word, True, status))

    def is_ready(self, token: str | None = None) -> Plain:
        """Return the service status; hosts wait for its field `ready`."""
        return self.get_service_status(token)

    def get_service_status(self, token: str | None = None) -> Plain:
        """State and readiness. A service that does not answer is reported as not ready, without an
        error."""
        return envelopes.plain(self._service_status())

    def get_service_summary(self, token: str | None = None) -> Plain:
        """Service status with the state in a batch scheduler's terms, the nodes of the workers, the
        service's version and pools; `service_state` is the state of `get_service_status`."""
        info = self._info()
        status = self._service_status(info)
        summary: Plain = {
            **envelopes.plain(status),
            "schema": answers.SUMMARY_SCHEMA,
            "target_id": self._identity.target_id,
            "state": str(self._summary_state(status)),
            "service_state": str(status.state),
            "assigned_hosts": [] if info is None else devices.hosts(info),
            "timestamp_ns": _now_ns(),
        }
        if info is not None:
            names = ("version", "node", "epoch", "up_s", "done", "failed", "cancelled", "expired")
            summary |= {name: getattr(info, name) for name in names}
            summary["pools"] = [devices.pool(pool) for pool in info.pools]
            summary["warnings"] = list(info.warnings)
        return summary

    def reconcile_runtime_state(self, token: str | None = None, reason: str | None = None) -> Plain:
        """Compare the open circuits of this QPM with the service's tasks. `reason` is required. The
        lists of qtask ids are: circuits that ended in the service without notice here (their
        results are fetched now), circuits that the service does not know, and unfinished
        circuits."""
        if reason is None:
            raise ExecutionError("reconcile_runtime_state needs a reason", hint="reason='...'")
        self._audit.note("reconcile_runtime_state", requests.text("reason", reason))
        stale, lost, unfinished = self._compare(self._registry.unfinished())
        for number in lost:
            self._audit.fault("provider-handle", number)
        answer = answers.Reconciliation(
            target_id=self._identity.target_id, timestamp_ns=_now_ns(),
            pending_removed=[], stale_runtime_tasks=stale, capacity_hold_faults=[],
            unfinished_scheduler_tasks=unfinished, provider_handle_faults=lost,
            directory_generation_faults=[],
        )  # fmt: skip
        return envelopes.plain(answer)

    def shutdown(
        self,
        token: str | None = None,
        mode: str = "graceful",
        timeout_s: float | None = None,
        reason: str | None = None,
    ) -> Plain:
        """Accept no more circuits and stop when all have ended; returns at once. `graceful`:
        accepted circuits may finish within `timeout_s` and are cancelled after it; `cancel`: they
        are cancelled now. A repeated call returns the first request with `repeated`."""
        requests.optional_text("reason", reason)
        patience_s = requests.seconds("timeout_s", timeout_s)
        if mode not in MODES:
            raise requests.wrong("mode", mode, f"one of: {', '.join(MODES)}")
        with self._session.channel.lock:
            if self._shutdown_request is not None:
                repeated = msgspec.structs.replace(self._shutdown_request, repeated=True)
                return envelopes.plain(repeated)
            draining, states = mode == "graceful", envelopes.ServiceState
            self._state = states.DRAINING if draining else states.STOPPING
            self._submitter.leaving = "it was asked to shut down"
            self._shutdown_request = answers.ShutdownRequest(
                "accepted", mode, patience_s, reason, self._state, _now_ns()
            )
        self._audit.note("shutdown", reason)
        threading.Thread(
            target=self._stop, args=(patience_s if draining else 0.0,), name="simenv-qpm-stop",
            daemon=True,
        ).start()  # fmt: skip
        return envelopes.plain(self._shutdown_request)

    def _stop(self, patience_s: float | None) -> None:
        with suppress(SimenvError):  # service or client has gone: nothing is left to wait for
            self._finish(patience_s)
        self._state = envelopes.ServiceState.STOPPED

    def _finish(self, patience_s: float | None) -> None:
        end_s = None if patience_s is None else monotonic() + patience_s
        open_runs = self._registry.unfinished()
        for run in open_runs:
            if not run.wait(None if end_s is None else max(0.0, end_s - monotonic())):
                break
        self._state = envelopes.ServiceState.STOPPING
        for run in self._registry.unfinished():
            self._submitter.cancel(run)
        for run in open_runs:
            run.wait(None)

    def _service_status(self, info: model.ServiceInfo | None = None) -> answers.ServiceStatus:
        info = info or self._info()
        provider = info is not None and devices.is_available(info.pools)
        accepting = self._state is envelopes.ServiceState.RUNNING and info is not None
        return answers.ServiceStatus(
            state=self._state, initialized=info is not None, ready=accepting and provider,
            accepting_requests=accepting, provider_ready=provider,
            active_task_count=len(self._registry.unfinished()),
            active_reservation_count=0 if info is None else self._reserved(),
            shutdown=self._shutdown_request,
        )  # fmt: skip

    def _summary_state(self, status: answers.ServiceStatus) -> answers.SummaryState:
        if status.state in (envelopes.ServiceState.DRAINING, envelopes.ServiceState.QUIESCING):
            return answers.SummaryState.MAINT
        try:
            if status.accepting_requests and not self._identity.begins():
                return answers.SummaryState.MAINT
        except NotReadyError:
            return answers.SummaryState.DOWN
        if not status.ready:
            return answers.SummaryState.DOWN
        is_busy = status.active_reservation_count or status.active_task_count
        return answers.SummaryState.BUSY if is_busy else answers.SummaryState.IDLE

    def _reserved(self) -> int:
        """Number of active reservations; 0 if the service does not answer."""
        with suppress(NotReadyError):
            return len(self._reservation_checks.active())
        return 0

    def _info(self) -> model.ServiceInfo | None:
        """Information on the service; None if it does not answer."""
        try:
            return self._identity.status()
        except NotReadyError:
            return None

    def _compare(self, runs: list[CircuitRun]) -> tuple[list[int], list[int], list[int]]:
        """Lists of qtask ids: ended in the service without notice here, unknown there,
        unfinished."""
        infos = {model.task_number(i.id): i for i in self._status_queries.task_infos(*runs)}
        stale, lost, unfinished = [], [], []
        for run in runs:
            results = [infos.get(task.handle.number) for task in run.tasks]
            if any(info is None for info in results):
                lost.append(run.number)
            elif all(info is not None and info.state in model.FINAL_STATES for info in results):
                was_heard = run.over
                run.wait(HEARING_S)
                if not was_heard:
                    stale.append(run.number)
            else:
                unfinished.append(run.number)
        return stale, lost, unfinished
