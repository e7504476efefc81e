"""Class of the reference plugin: the calls of a host, over the machine of the process."""

import itertools
import os
import sys
import threading

from .machine import ENDED, MAX_QUBITS, OUTCOMES, Machine, Registration, Task

MACHINES = []  # the one of this process, once there is one
SIMULATOR, NWQSIM, STATEVECTOR = 2, 16, 2
BINDINGS = (
    ("execution", "api_qpm_execution", "QPMExecution"),
    ("admission", "api_qpm_admission_control", "QPMAdmissionControl"),
    ("admission-policy", "api_qpm_admission_policy_config", "QPMAdmissionPolicyConfig"),
    ("scheduler", "api_qpm_scheduler_control", "QPMSchedulerControl"),
    ("telemetry", "api_qpm_telemetry", "QPMTelemetry"),
    ("control", "api_qpm_control", "QPMControl"),
)
_making = threading.Lock()
_numbers = itertools.count(1)


class QPM:
    """A client's own object in revision 1, one for all in revision 2."""

    types = SIMULATOR | NWQSIM  # of revision 1

    def __init__(self, *given, start=True, **named):
        self.owner = next(_numbers)
        if start:
            sys.setswitchinterval(0.0005)  # the simulator shares its process
            self.install()
            with _making:
                if not MACHINES:
                    MACHINES.append(Machine(single=not self.revision2()))
                    self.prepare(MACHINES[0])
            self.machine = MACHINES[0]
            self.reservations = {}  # id to whether it is active

    def prepare(self, machine):
        """The machine was made, and nothing has been done on it."""

    @staticmethod
    def revision2():
        import defw_agent_info

        return hasattr(defw_agent_info.DEFwServiceInfo, "get_properties")

    def install(self):
        """One lock around all that this process sends: the host has none."""
        import defw_workers

        if getattr(defw_workers, "reference_lock", None) is None:
            lock = defw_workers.reference_lock = threading.Lock()
            for name in ("defw_send_req", "defw_send_rsp"):
                setattr(defw_workers, name, _guarded(lock, getattr(defw_workers, name)))

    # --- circuits -----------------------------------------------------------------------------

    def sync_run(self, info, reservation_id=None, token=None, timeout=None,
                 cancel_on_timeout=False):  # fmt: skip
        task = self._accept(info, reservation_id)
        task.over.wait(timeout)
        self.machine.take(task.cid, task.owner, keep=False)
        if task.state != "completed":
            raise self.error(task.why or task.state)
        record = self.machine.record(task)
        return record if self.machine.single else {**self.envelope(task), "result": record}

    def async_run(self, info, reservation_id=None, token=None, timeout=None,
                  cancel_on_timeout=False):  # fmt: skip
        task = self._accept(info, reservation_id)
        return task.cid if self.machine.single else self.envelope(task)

    def _accept(self, info, reservation):
        shots = info.get("num_shots") if isinstance(info, dict) else None
        if not isinstance(shots, int) or not 0 < shots <= 65_536:
            raise self.error(f"num_shots={shots!r:.60}")
        if not self.reservations.get(reservation, reservation is None):
            raise self.error(f"reservation {reservation} is not active")
        try:
            text = _text_of(info)
        except ValueError as bad:
            raise self.error(str(bad)) from bad
        owner = self.owner if self.machine.single else reservation
        task = Task(text, shots, info.get("return_statevector", False), owner)
        self.machine.submit(task)
        return task

    def read_cq(self, cid=None, reservation_id=None, token=None):
        return self._poll("read_cq", cid, reservation_id, keep=False)

    def peek_cq(self, cid=None, reservation_id=None, token=None):
        return self._poll("peek_cq", cid, reservation_id, keep=True)

    def _poll(self, operation, cid, reservation, *, keep):
        self.check_reached()
        owner = self.owner if self.machine.single else reservation
        self._task(cid)
        task = self.machine.take(cid, owner, keep=keep)
        if self.machine.single and task is None:
            import defw_exception

            raise defw_exception.DEFwInProgress(f"{cid} is not there yet")
        if task is not None:
            record = self.machine.record(task)
            return record if self.machine.single else {**record, "poll_operation": operation}
        state = self.task_status(cid) if self._task(cid) else _stands("unknown", "")
        return {**state, "outcome": "IN_PROGRESS", "completion_ready": False,
                "poll_operation": operation}  # fmt: skip

    def _task(self, cid):
        if not isinstance(cid, str | None):
            raise self.error(f"cid={cid!r:.60}: a text")
        return self.machine.tasks.get(cid)

    def check_reached(self):
        """Refused while the machine is away."""
        if self.machine.is_away():
            import defw_exception

            raise defw_exception.DEFwNotReady("the machine does not answer")

    def task_status(self, cid=None, reservation_id=None, token=None, qtask_id=None):
        task = self._task(cid)
        return self.envelope(task) if task else _stands("unknown", "UNKNOWN")

    def cancel_task(self, cid=None, reservation_id=None, token=None, reason=None, qtask_id=None):
        task = self._task(cid)
        if task and task.state not in ENDED:
            self.machine.cancel(task)
        return self.task_status(cid)

    def delete_circuit(self, cid, reservation_id=None, token=None):
        if task := self._task(cid):
            self.machine.cancel(task)
            task.over.wait()
            self.machine.take(cid, task.owner, keep=False)

    def register_event_notification(self, ep, evtype, class_id, token=None, reservation_id=None,
                                    filters=None):  # fmt: skip
        owner = self.owner if self.machine.single else reservation_id
        registrations = self.machine.registrations
        with self.machine.changed:
            if self.machine.single:  # the last one of a client counts
                registrations[:] = [each for each in registrations if each.owner != owner]
            registrations.append(Registration(self.machine, ep, evtype, class_id, owner))
            return None if self.machine.single else {"status": "accepted", "class_id": class_id}

    # --- the service --------------------------------------------------------------------------

    def test(self, token=None):
        return "a reference QPM"

    def is_ready(self, token=None):
        return True if self.machine.single else {"ready": True}

    def shutdown(self, *given, **named):
        """Clients of revision 1 stop nothing."""

    def reserve(self, *given, token=None, request=None):
        if self.machine.single:
            return None
        number = next(_numbers)
        self.reservations[number] = True
        return {"status": "accepted", "reservation_id": number}

    def release(self, *given, reservation_id=None, **named):
        if reservation_id is not None:
            self.reservations[reservation_id] = False

    cancel = release

    def query(self):
        from defw_agent_info import Capability, DEFwServiceInfo

        kind = type(self)
        bits = SIMULATOR if self.revision2() else self.types
        capability = Capability(bits, STATEVECTOR, "a simulator with state vectors")
        entries = ("QPM", "a reference QPM", kind.__name__, kind.__module__, capability, -1)
        more = {"properties": self.properties()} if self.revision2() else {}
        return DEFwServiceInfo(*entries, **more)

    def properties(self):
        home = {"service_module": type(self).__module__, "service_class": type(self).__name__}
        bindings = [
            {"binding_name": name, "client_module": module, "client_class": client, **home,
             "version": 1}
            for name, module, client in BINDINGS
        ]  # fmt: skip
        first = {name: value for name, value in bindings[0].items() if name != "version"}
        identity = os.environ.get("QFW_QPM_SERVICE_ID") or "qpm:reference:reference"
        return {
            "service_type": "qfw.qpm", "service_id": identity, "provider": "reference",
            "device_id": "reference", "target_id": "reference", "num_qubits": MAX_QUBITS,
            "max_shots": 65_536, "qpm_type": SIMULATOR, "qpm_capabilities": STATEVECTOR,
            "simulator": True, "hardware": False, "controller": {},
            "selector": {"name": "reference", "resources": ["reference"],
                         "aliases": ["reference", "QPM"]},
            "api_bindings": bindings, **first, "circuit_formats": ["openqasm2"],
        }  # fmt: skip

    def envelope(self, task):
        owner = {} if task.owner is None else {"reservation_id": task.owner}
        return {**_stands(task.state, OUTCOMES[task.state]), "cid": task.cid,
                "qtask_id": task.number, "telemetry": {}, **owner}  # fmt: skip

    def error(self, text):
        import defw_exception

        error = defw_exception.DEFwExecutionError(text)
        error.stacktrace = ""  # of what is handled here: nothing for clients
        return error


def _guarded(lock, send):
    def guarded(*given, **named):
        with lock:
            return send(*given, **named)

    return guarded


def _stands(state, outcome):
    return {"outcome": outcome, "lifecycle_state": state, "state": state}


def _text_of(info):
    """The circuit's text of an `info`; ValueError where it has none that can be read."""
    circuit = info.get("circuit") or {"format": "openqasm2", "data": info.get("qasm")}
    if not isinstance(circuit, dict):
        raise ValueError("circuit is no table")
    if circuit.get("format") != "openqasm2" or not isinstance(circuit.get("data"), str):
        raise ValueError(f"circuit format {circuit.get('format')!r:.60} cannot be read")
    return circuit["data"]
