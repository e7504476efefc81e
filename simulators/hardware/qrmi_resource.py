"""A resource of QRMI as a machine: QRMI's own client starts, polls and stops its tasks.

The resource is acquired when its worker starts and released when it ends. QRMI reads endpoints and
credentials from environment variables. Invariants: no value of a variable of the resource is in the
text of an error; one call of the resource runs at a time, because its objects are not for several
threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from qiskit import QuantumCircuit, transpile
from qiskit.transpiler import Target

from simulators.hardware.jobs import SampledJob, SamplerAdapter

# Types of resources that take Payload.QiskitPrimitive, as in QRMI_JOB_QPU_TYPES.
TYPES = {
    "ibm-quantum-compute-service": "IBMQuantumComputeService",
    "ibm-quantum-system": "IBMQuantumSystem",
    "qiskit-runtime-service": "IBMQiskitRuntimeService",
}
TARGET_S = 900.0  # a Target is read again after this time: devices are calibrated while they run
_FIRST_POLL_S, _POLL_S, _POLL_SHARE = 0.1, 2.0, 0.05  # pause between polls: a share of the age
_SHORTEST_SECRET = 6  # characters; shorter values are words such as "batch"
_LOG_CHARS = 400  # of a failed task's log, which ends with the cause


def machine(name: str) -> QrmiMachine:
    """Acquire the resource `name` of QRMI. Raises RuntimeError if variables or packages are
    missing, if its type takes no circuits of Qiskit, or if it cannot be reached."""
    try:
        import qrmi
        from qrmi.primitives.ibm import SamplerV2, get_backend
    except ImportError as error:
        text = f"{error}: install it with pip install 'simenv[ibm,qrmi]'"
        raise RuntimeError(text) from error
    names, types = qrmi.get_job_qpu_resources_and_types()
    if name not in names:
        text = f"QRMI_JOB_QPU_RESOURCES has no {name!r}, only {', '.join(names) or 'nothing'}"
        raise RuntimeError(text)
    kind = types[names.index(name)]
    if kind not in TYPES:
        text = f"resource {name!r} is of type {kind!r}, which takes no circuits of Qiskit"
        raise RuntimeError(f"{text}: one of {', '.join(TYPES)}")
    secrets = {
        value: f"${variable}"
        for variable, value in os.environ.items()
        if variable.startswith(f"{name}_QRMI_") and len(value) >= _SHORTEST_SECRET
    }
    try:
        bare = qrmi.QuantumResource(name, getattr(qrmi.ResourceType, TYPES[kind]))
    except Exception as error:  # noqa: BLE001  # of Rust, with any text
        raise RuntimeError(_cleaned(error, secrets)) from None
    resource = _Resource(bare, secrets)
    resource.acquire()
    return QrmiMachine(resource, get_backend(resource), SamplerV2(resource), kind)


class QrmiMachine(SamplerAdapter):
    """Backend over a resource that is acquired."""

    def __init__(self, resource: _Resource, backend: Any, sampler: Any, kind: str) -> None:
        super().__init__(backend, sampler)
        self.provider = SimpleNamespace(name=f"qrmi {kind}")
        self._resource = resource
        self._read_s = time.monotonic()

    @property
    def target(self) -> Target:
        """Target of the device, at most TARGET_S old."""
        if time.monotonic() - self._read_s > TARGET_S:
            self._backend.refresh()
            self._read_s = time.monotonic()
        return self._backend.target

    def run(self, circuits: Any, shots: int, memory: bool = False) -> SampledJob:  # noqa: ARG002
        """Start one task for one circuit or several, on the physical qubits of their numbers."""
        several = list(circuits) if isinstance(circuits, Sequence) else [circuits]
        placed = [_placed(each, self.target) for each in several]
        return _QrmiJob(self._sampler.run(placed, shots=shots))

    def close(self) -> None:
        """Release the resource. Idempotent."""
        self._resource.release()


class _QrmiJob(SampledJob):
    def error_message(self) -> str:
        """Return the end of the task's log."""
        return str(self._job.logs()).strip()[-_LOG_CHARS:]


class _Resource:
    """A QuantumResource of QRMI for its own backend and sampler."""

    def __init__(self, resource: Any, secrets: dict[str, str]) -> None:
        """`secrets`: texts that no error may have, with what stands in place of each."""
        self._resource = resource
        self._secrets = secrets
        self._lock = threading.Lock()
        self._token = ""  # of the acquisition; "": none
        self._stopped = ""  # the job's destructor stops a task again
        self._task, self._begin_s, self._next_s = "", 0.0, 0.0  # last polled task
        self._status: Any = None

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._call(name, *arguments)

    def acquire(self) -> None:
        """Acquire the resource, if it is not acquired."""
        if not self._token:
            self._token = str(self._call("acquire"))

    def release(self) -> None:
        """Release the resource; whoever lent it ends the acquisition if that fails."""
        token, self._token = self._token, ""
        if token:
            with suppress(RuntimeError):
                self._call("release", token)

    def task_start(self, payload: Any) -> str:
        """Start a task. After a failure the next task has an acquisition of its own, because this
        one may have ended."""
        self.acquire()
        try:
            return str(self._call("task_start", payload))
        except RuntimeError:
            self.release()
            raise

    def task_status(self, task: str) -> Any:
        """Return the state of a task, of the last poll if that was a moment ago: polls of a remote
        service become rarer with the age of a task."""
        now_s = time.monotonic()
        if task != self._task:
            self._task, self._begin_s, self._next_s = task, now_s, 0.0
        if now_s >= self._next_s:
            self._status = self._call("task_status", task)
            pause_s = max(_FIRST_POLL_S, _POLL_SHARE * (now_s - self._begin_s))
            self._next_s = time.monotonic() + min(_POLL_S, pause_s)
        return self._status

    def task_stop(self, task: str) -> None:
        """Stop a task, once; a task that has ended is deleted."""
        if task != self._stopped:
            self._call("task_stop", task)
            self._stopped = task

    def _call(self, name: str, *arguments: Any) -> Any:
        with self._lock:
            try:
                return getattr(self._resource, name)(*arguments)
            except Exception as error:  # noqa: BLE001  # of Rust, with any text
                raise RuntimeError(_cleaned(error, self._secrets)) from None


def _cleaned(error: Exception, secrets: dict[str, str]) -> str:
    text = str(error)
    for value in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, secrets[value])
    return text


def _placed(circuit: QuantumCircuit, target: Target) -> QuantumCircuit:
    """Return a circuit with a layout, for which OpenQASM 3 names physical qubits."""
    if circuit.layout is not None:
        return circuit
    layout = list(range(circuit.num_qubits))
    return transpile(circuit, target=target, initial_layout=layout, optimization_level=0)
