"""The honest plugin's service: execution, control and revision 1 over the desk."""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
import weakref

from .admitting import Admitting
from .desk import ENDED, OUTCOMES, Desk, text_of
from .ledger import Refused
from .locking import install
from .sending import Registration
from .telling import Telling

MODES = ("graceful", "cancel")
DESKS = []  # the one of this process, once there is one
_making = threading.Lock()
_owners = itertools.count(1)
TEXTS = ("compiler", "backend", "method", "lib")
NUMBERS = ("depth", "one_q_gate_count", "two_q_gate_count", "measurement_count", "deadline_ns")


class HonestQPM(Admitting, Telling):
    """A client's own object in revision 1, one for all in revision 2; one desk behind them."""

    def __init__(self, *given, start=True, **named):
        self.desk = None
        self.owner = next(_owners)
        if start:
            sys.setswitchinterval(0.0005)  # a pure-Python simulator shares its process
            install()
            with _making:
                if not DESKS:
                    DESKS.append(Desk(single=not self.revision2()))
                    self.prepare(DESKS[0])
            self.desk = DESKS[0]
            weakref.finalize(self, self.desk.leave, self.owner)
            self.events = [self.event("service-registration")]
            self.versions = {"scheduler": 1, "control": 1}
            self.control = {"paused": False, "draining": False, "drain_mode": None,
                            "drain_timeout_s": None, "drain_started_at_ns": None,
                            "pause_reason": None, "dispatch_depth": 1}  # fmt: skip
            self.asked, self.state = None, "running"

    def prepare(self, desk):
        """The desk was made: before anything is done on it."""

    @staticmethod
    def revision2():
        import defw_agent_info

        return hasattr(defw_agent_info.DEFwServiceInfo, "get_properties")

    # --- revision 1 and execution -------------------------------------------------------------

    def sync_run(self, info, reservation_id=None, token=None, timeout=None,
                 cancel_on_timeout=False):  # fmt: skip
        patience = self._seconds("timeout", timeout)
        if not isinstance(cancel_on_timeout, bool):
            raise self.error("cancel_on_timeout is true or false")
        task = self._accept(info, reservation_id, token)
        if not task.over.wait(patience):
            late = {"reason": "sync-timeout", "message": f"{timeout} s", "timestamp_ns": now()}
            if cancel_on_timeout:
                self.desk.cancel(task)
                task.over.wait(5.0)
                return {**self.envelope(task), "reason": "sync-timeout", "timeout": late}
            return {**self.envelope(task), "outcome": "TIMEOUT", "reason": "sync-timeout",
                    "timeout": late}  # fmt: skip
        if task.rc:
            self.desk.forget(task, "returned-to-caller")
            raise self.error(task.why or task.state)
        record = self.desk.record(task, None)
        self.desk.forget(task, "returned-to-caller")
        return record if self.desk.single else {**self.envelope(task), "result": record}

    def async_run(self, info, reservation_id=None, token=None, timeout=None,
                  cancel_on_timeout=False):  # fmt: skip
        self._seconds("timeout", timeout)
        task = self._accept(info, reservation_id, token)
        return task.cid if self.desk.single else self.envelope(task)

    def _accept(self, info, reservation_id, token):
        self._text("token", token)
        if self.asked is not None:
            raise self.error("shutting down")
        self._needs(reservation_id)
        try:
            owner = self.owner if self.desk.single else None
            return self.desk.accept(self._read(info), reservation_id, owner)
        except Refused as bad:
            raise self.error(str(bad)) from bad

    def _needs(self, number):
        """What costs needs an active reservation."""
        if self.desk.single:
            return
        if number is None:
            raise self.error("a reservation is needed")
        with self.desk.lock:
            try:
                self.desk.ledger.active(number)
            except Refused as bad:
                raise self.error(str(bad)) from bad

    def _read(self, info):
        if not isinstance(info, dict):
            raise self.error("info is no table")
        for name in TEXTS:
            self._text(name, info.get(name))
        for name in ("num_qubits", *NUMBERS):
            if info.get(name) is not None:
                self._whole(name, info[name], 0)
        shots = self._whole("num_shots", info.get("num_shots"), 1, 65_536)
        wants = info.get("return_statevector", False)
        if not isinstance(wants, bool):
            raise self.error("return_statevector is true or false")
        try:
            text = text_of(info)
        except ValueError as bad:
            raise self.error(str(bad)) from bad
        return {"text": text, "shots": shots, "amplitudes": wants}

    def _poll(self, operation, cid, reservation_id, token, *, keep):
        self._text("cid", cid)
        self._text("token", token)
        self._reached()
        if not self.desk.single:
            invalid = self._question(reservation_id, operation)
            if invalid is not None:
                return invalid
        task, value = self.desk.find(cid) if cid is not None else (None, None)
        if task is not None and not self.desk.single and task.reservation != reservation_id:
            return self._invalid(operation, "reservation-mismatch")
        owner = self.owner if self.desk.single else None
        result = self.desk.take(cid, reservation_id, owner, keep=keep)
        if result is not None:
            return self.desk.record(result, operation)
        if self.desk.single:
            import defw_exception

            raise defw_exception.DEFwInProgress(f"{cid} is not there yet")
        polled = {"completion_ready": False, "poll_operation": operation}
        if task is not None:
            return {**self.envelope(task), "reason": "completion-not-ready", **polled}
        if value is not None:
            return {**self._stands("no-longer-retained", "NO_LONGER_RETAINED"), "cid": cid,
                    "reason": "completion-no-longer-retained", "evicted_at_ns": value[1],
                    "retention_reason": value[2], **polled}  # fmt: skip
        return {**self._stands("no-ready-completion", "IN_PROGRESS"),
                "reason": "completion-not-ready", **polled}  # fmt: skip

    def read_cq(self, cid=None, reservation_id=None, token=None):
        return self._poll("read_cq", cid, reservation_id, token, keep=False)

    def peek_cq(self, cid=None, reservation_id=None, token=None):
        return self._poll("peek_cq", cid, reservation_id, token, keep=True)

    def _question(self, number, operation=None):
        """The answer to a question in the name of a reservation that is none."""
        if number is None:
            return self._invalid(operation, "reservation-required")
        with self.desk.lock:
            try:
                self.desk.ledger.find(number)
            except Refused as bad:
                if bad.code == 11:
                    return self._invalid(operation, "reservation-mismatch")
                raise self.error(str(bad)) from bad
        return None

    def _invalid(self, operation, reason):
        table = {**self._stands("invalid-reservation", "INVALID_RESERVATION"), "reason": reason}
        if operation:
            table |= {"completion_ready": False, "poll_operation": operation}
        return table

    def _given(self, number):
        """Refused where a reservation is given that is none."""
        if number is not None:
            self._needs(number)

    def task_status(self, cid=None, reservation_id=None, token=None, qtask_id=None):
        if reservation_id is not None and (bad := self._question(reservation_id)) is not None:
            return bad
        task, value = self._find(cid, qtask_id)
        if task is not None:
            return self.envelope(task)
        if value is not None:
            return self.envelope(value[0])
        return {**self._stands("unknown", "UNKNOWN"), "reason": "not-found"}

    def cancel_task(self, cid=None, reservation_id=None, token=None, reason=None, qtask_id=None):
        self._text("reason", reason)
        self._given(reservation_id)
        task, _ = self._find(cid, qtask_id)
        if task is None:
            return {**self._stands("unknown", "UNKNOWN"), "reason": "not-found"}
        if task.state in ENDED:
            return {**self.envelope(task), "reason": f"already-{task.state}"}
        running = task.state == "submitted"
        self.desk.cancel(task)
        if running and not task.over.wait(0.0):
            return {**self.envelope(task), "outcome": "CANCEL_PENDING",
                    "provider_cancel_status": "asked"}  # fmt: skip
        return self.envelope(task)

    def _find(self, cid, number):
        if cid is None and number is None:
            raise self.error("neither cid nor qtask_id")
        self._text("cid", cid)
        if number is not None:
            self._whole("qtask_id", number, 1)
        return self.desk.find(cid, number)

    def get_task_timing(self, token=None, reservation_id=None, task_id=None):
        if reservation_id is not None and (bad := self._question(reservation_id)) is not None:
            return bad
        task, value = self._find(None, task_id)
        task = task or (value and value[0])
        return {"task_id": task_id, "reservation_id": task and task.reservation,
                "lifecycle_state": task.state if task else "unknown",
                "timing": task.times() if task else {}}  # fmt: skip

    def get_task_metadata(self, token=None, reservation_id=None, task_id=None):
        answer = self.task_status(None, reservation_id, token, self._whole("task_id", task_id, 1))
        table = {"available": False, "reason": "provider-unsupported"}
        return {**answer, "task_id": task_id, "provider_metadata": table}

    def register_event_notification(self, ep, evtype, class_id, token=None, reservation_id=None,
                                    filters=None):  # fmt: skip
        self._given(reservation_id)
        if not isinstance(filters, dict | None):
            raise self.error("filters is a table")
        registration = Registration(self.desk, ep, evtype, class_id, reservation_id, filters or {})
        with self.desk.lock:
            if self.desk.single:
                self.desk.listening[self.owner] = registration
                return None
            self.desk.registrations.append(registration)
            return {"status": "accepted", "class_id": class_id,
                    "registration_count": len(self.desk.registrations)}  # fmt: skip

    def delete_circuit(self, cid, reservation_id=None, token=None):
        self._given(reservation_id)
        if not isinstance(cid, str):
            raise self.error("cid is a text")
        task, _ = self.desk.find(cid)
        if task is not None:
            if task.state not in ENDED:
                self.desk.cancel(task)
            with self.desk.lock:
                self.desk.ready.pop(cid, None)
                self.desk.tasks.pop(cid, None)

    # --- control ------------------------------------------------------------------------------

    def test(self, token=None):
        if self.desk.single:
            return "honest"
        return {"status": "ok", "rpc_ready": True, "service": self.get_service_status()}

    def is_ready(self, token=None):
        return True if self.desk.single else self.get_service_status()

    def get_service_status(self, token=None):
        with self.desk.lock:
            live = [each for each in self.desk.ledger.records.values() if each["state"] == "active"]
            return {
                "state": self.state, "initialized": True, "ready": self.asked is None,
                "accepting_requests": self.asked is None, "provider_ready": True,
                "active_task_count": len(self.desk.open()),
                "active_reservation_count": len(live), "shutdown": self.asked,
            }  # fmt: skip

    def get_service_summary(self, token=None):
        status = self.get_service_status()
        state = "BUSY" if status["active_reservation_count"] else "IDLE"
        if self.desk.paused:
            state = "MAINT"
        return {
            **status, "schema": "qfw-qpm-service-summary-v1", "state": state,
            "target_id": "honest", "assigned_hosts": ["honest-head"],
        }  # fmt: skip

    def reconcile_runtime_state(self, token=None, reason=None):
        if not self._text("reason", reason):
            raise self.error("a reason is needed")
        self.events.append(self.event("reconciliation", reason))
        lists = ("pending_removed", "stale_runtime_tasks", "capacity_hold_faults",
                 "unfinished_scheduler_tasks", "provider_handle_faults",
                 "directory_generation_faults")  # fmt: skip
        return {"target_id": "honest", "timestamp_ns": now(), **{name: [] for name in lists}}

    def shutdown(self, token=None, mode="graceful", timeout_s=None, reason=None):
        if self.desk.single:
            return None
        patience = self._seconds("timeout_s", timeout_s)
        self._text("reason", reason)
        if not isinstance(mode, str) or mode not in MODES:
            raise self.error(f"mode {mode!r:.60}")
        with self.desk.lock:
            if self.asked is not None:
                return {**self.asked, "repeated": True}
            self.state = "draining" if mode == "graceful" else "stopping"
            self.asked = {
                "status": "accepted",
                "mode": mode,
                "timeout_s": patience,
                "reason": reason,
                "state": self.state,
                "requested_at_ns": now(),
            }
        wait_s = patience if mode == "graceful" else 0.0
        threading.Thread(target=self._stop, args=(wait_s,), daemon=True).start()
        return self.asked

    def _stop(self, wait_s):
        end = None if wait_s is None else time.monotonic() + wait_s
        for task in self.desk.open():
            task.over.wait(None if end is None else max(0.0, end - time.monotonic()))
        for task in self.desk.open():
            self.desk.cancel(task)
        self.state = "stopped"

    # --- words --------------------------------------------------------------------------------

    def envelope(self, task):
        with self.desk.lock:
            table = {
                **self._stands(task.state, OUTCOMES[task.state]), "cid": task.cid,
                "qtask_id": task.number, "reservation_id": task.reservation,
                "reason": task.reason, "message": task.why or None, "telemetry": ACCESS,
            }  # fmt: skip
            if task in self.desk.parked:
                table["pending_queue_position"] = self.desk.parked.index(task) + 1
            return {name: value for name, value in table.items() if value is not None}

    @staticmethod
    def _stands(state, outcome):
        return {"outcome": outcome, "lifecycle_state": state, "state": state}

    def error(self, words):
        import defw_exception

        error = defw_exception.DEFwExecutionError(words)
        error.stacktrace = ""  # of what is handled here: nothing for clients
        return error

    def _reached(self):
        """Refused while the machine is away."""
        if self.desk.away():
            import defw_exception

            raise defw_exception.DEFwNotReady("the machine does not answer")

    def _text(self, what, value):
        if value is not None and not isinstance(value, str):
            raise self.error(f"{what}={value!r:.60}: a text")
        return value

    def _whole(self, what, value, low, high=2**63):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(f"{what}={value!r:.60}: a whole number from {low}")
        return value

    def _seconds(self, what, value):
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{what}={value!r:.60}: seconds")
        if not (math.isfinite(value) and 0 <= value < 1e8):
            raise self.error(f"{what}={value!r:.60}: seconds from 0")
        return float(value)


ACCESS = {"access_class": "caller-owned", "object": "managed-qtask", "field_visibility": {}}
SERVICE_ID = "QFW_QPM_SERVICE_ID"


def now():
    return time.time_ns()


def service_id():
    return os.environ.get(SERVICE_ID) or "qpm:honest:honest"
