"""Observation of one pool through a QPM over it alone: circuits, calls, and invalid requests.

Further facts come from `watch`, a client that shares nothing with the QPM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.cli.qpm_diff import probes, values
from simenv.cli.qpm_diff.values import CallOutcome, CircuitSource, PoolObservations, RunOutcome
from simenv.errors import SimenvError, TimedOutError
from simenv.model.devices import DeviceInfo
from simenv.qpm.errors import ExecutionError, QPMError
from simenv.qpm.states import Lifecycle, Outcome

if TYPE_CHECKING:
    from simenv.client.client import Client

UNKNOWN = "not known"
_NO_CLIFFORD = "OPENQASM 2.0;\nqreg q[1];\nu3(0.1,0,0) q[0];\n"


def facts(device: DeviceInfo, client: Client) -> dict[str, str]:
    """Return the facts about a device by name; the names are the same for every pool."""
    return {
        "kind": str(device.kind),
        "provider": device.provider,
        "model": device.model,
        "technology": device.technology,
        "qubits": str(device.num_qubits),
        "gates": ", ".join(sorted(gate.name for gate in device.gates)),
        "couplings": _couplings(device),
        "maximum number of shots": str(device.max_shots),
        "mid-circuit measurements and branches": _yes_no(device.dynamic),
        "circuit formats": ", ".join(device.formats),
        "statevectors": _yes_no(_takes_amplitudes(client, device.name)),
        "calibration": device.calibration_id or "none",
        "two-qubit gate error": _median_text(
            each.error for each in device.operations if len(each.qubits) == 2
        ),
        "readout error": _median_text(qubit.readout_error for qubit in device.qubits),
        "T1 (us)": _median_text(qubit.t1_us for qubit in device.qubits),
        "T2 (us)": _median_text(qubit.t2_us for qubit in device.qubits),
    }


def _couplings(device: DeviceInfo) -> str:
    if device.all_to_all:
        return "every pair"
    way = "directed" if device.directed else "both ways"
    return f"{len(device.coupling)} pairs, {way}"


def _median_text(values: Iterable[float]) -> str:
    """Return the median of the known values, as text."""
    measured = [value for value in values if not math.isnan(value)]
    return f"{median(measured):.3g} (median)" if measured else UNKNOWN


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _takes_amplitudes(client: Client, pool: str) -> bool:
    try:
        entry = client.explain(_NO_CLIFFORD, pool=pool, shots=None, outputs="statevector")
    except SimenvError:
        return False
    return bool(entry.engine)


LOOK_S = 0.05  # interval of polls of a circuit's state; its end is noticed at once
RETURNED = "returned"
_OVER = (Lifecycle.COMPLETED, Lifecycle.FAILED, Lifecycle.CANCELLED, Lifecycle.UNKNOWN)
_TIMES = (
    "creation_time", "resources_consumed_time", "launch_time", "exec_time", "completion_time",
    "cq_enqueue_time", "cq_dequeue_time",
)  # fmt: skip
Plain = dict[str, Any]


def observed(
    client: Client,
    watch: Client,
    pool: str,
    sources: Sequence[CircuitSource],
    shots: int,
    seed: int,
    patience_s: float,
    announce: Callable[[str], None],
) -> PoolObservations:
    """Observe one pool. `client` and `watch`: two clients of the environment.

    `announce` is called with each circuit's name. Raises TimedOutError if a circuit has no end
    after `patience_s`; it is cancelled.
    """
    qpm = client.qpm_with(pool=pool)
    runs: list[RunOutcome] = []
    answers: list[CallOutcome] = []
    for number, source in enumerate(sources):
        announce(source.name)
        lifecycle = CircuitLifecycle(qpm, watch, patience_s)
        runs.append(lifecycle.run(source.name, request(source, shots, seed)))
        if number == 0:
            answers += lifecycle.answers  # the answers are the same for the other circuits
    info = request(sources[0], shots, seed)
    answers += _call_all(probes.revision2(qpm, info, pool))
    answers += _call_all(probes.revision1(qpm.revision1, info))
    return PoolObservations(pool, tuple(answers), tuple(runs), facts(watch.devices()[pool], watch))


def request(source: CircuitSource, shots: int, seed: int) -> Plain:
    """Return the `info` of a run."""
    if source.format == "openqasm2":
        circuit: Plain = {"qasm": source.text}
    else:
        circuit = {"circuit": {"format": source.format, "data": source.text}}
    return {**circuit, "num_shots": shots, "seed": seed}


class CircuitLifecycle:
    """One circuit from `async_run` to `delete_circuit`; `answers`: outcomes of all calls."""

    def __init__(self, qpm: Any, watch: Client, patience_s: float) -> None:
        self._qpm = qpm
        self._watch = watch
        self._poll_timeout_s = patience_s
        self.answers: list[CallOutcome] = []

    def run(self, name: str, info: Plain) -> RunOutcome:
        """Run the circuit. Refusals of the QPM are recorded, never raised."""
        qpm = self._qpm
        envelope = self._call("async_run", lambda: qpm.async_run(info))
        if envelope is None:
            return RunOutcome(name, self.answers[-1].outcome, words=self.answers[-1].words)
        cid, number = envelope["cid"], envelope["qtask_id"]
        states, last = self._follow_states(cid, envelope)
        self._call("peek_cq", lambda: qpm.peek_cq(cid))
        record = self._call("read_cq", lambda: qpm.read_cq(cid)) or {}
        self._call("read_cq again", lambda: qpm.read_cq(cid))
        self._call("task_status of what was read", lambda: qpm.task_status(cid))
        self._call("get_task_timing", lambda: qpm.get_task_timing(task_id=number))
        self._call("get_task_metadata", lambda: qpm.get_task_metadata(task_id=number))
        self._call("cancel_task too late", lambda: qpm.cancel_task(cid))
        self._call("delete_circuit", lambda: qpm.delete_circuit(cid))
        counts = (record.get("result") or {}).get("counts") or {}
        outcome = str(record.get("outcome", last.get("outcome", "")))
        run = RunOutcome(
            name,
            outcome,
            states=states,
            reached=_reached_times(record),
            counts=counts,
            form=values.form(counts),
            words=str(record.get("message") or last.get("error") or ""),
        )
        return self._with_route(run, envelope.get("scheduler_task_id"))

    def _follow_states(self, cid: str, submitted: Plain) -> tuple[tuple[str, ...], Plain]:
        """Return the states in which the circuit was observed, and its last envelope."""
        states, task = [str(submitted["lifecycle_state"])], submitted.get("scheduler_task_id")
        deadline_s = monotonic() + self._poll_timeout_s
        while True:
            envelope: Plain = self._qpm.task_status(cid)
            state = str(envelope["lifecycle_state"])
            if state != states[-1]:
                states.append(state)
            if state in _OVER:
                self._add_outcome("task_status", envelope)
                return tuple(states), envelope
            if monotonic() >= deadline_s:
                self._qpm.cancel_task(cid)
                prefix = f"{self._qpm.query().service_description}: no end after"
                raise TimedOutError(
                    f"{prefix} {self._poll_timeout_s:g} s, the circuit is {state}",
                    hint="simenv status says what the pool does; --timeout SECONDS waits longer",
                )
            if task:
                with suppress(TimedOutError):
                    self._watch.task(task).wait(timeout_s=LOOK_S)

    def _with_route(self, run: RunOutcome, task: str | None) -> RunOutcome:
        """Return the run with the engine, the route and the remark of its result."""
        if not task:
            return run
        try:
            result = self._watch.task(task).result(self._poll_timeout_s)  # it has ended
        except SimenvError as error:
            return msgspec.structs.replace(run, words=run.words or str(error))
        return msgspec.structs.replace(
            run, engine=result.engine, route=result.engine_reason, remark=result.remark
        )

    def _call(self, name: str, call: Callable[[], Any]) -> Plain | None:
        answer, entry = call_outcome(f"a circuit's {name}", call)
        self.answers.append(answer)
        return entry if isinstance(entry, dict) else None

    def _add_outcome(self, name: str, envelope: Plain) -> None:
        self.answers.append(_outcome_of(f"a circuit's {name}", envelope))


def call_outcome(name: str, call: Callable[[], Any]) -> tuple[CallOutcome, Any]:
    """Return the outcome of a call and its return value; None if it raised."""
    try:
        entry = call()
    except ExecutionError as error:
        outcome = f"{error.defw_name} ({error.reason})"
        return CallOutcome(name, outcome, words=error.message), None
    except QPMError as error:
        return CallOutcome(name, error.defw_name, words=error.message), None
    except SimenvError as error:
        return CallOutcome(
            name, f"{type(error).__name__} (not of the contract)", words=str(error)
        ), None
    return _outcome_of(name, entry), entry


def _call_all(calls: Iterable[probes.Probe]) -> list[CallOutcome]:
    return [call_outcome(name, call)[0] for name, call in calls]


def _outcome_of(name: str, answer: Any) -> CallOutcome:
    plain = msgspec.to_builtins(answer)
    outcome = plain.get("outcome", RETURNED) if isinstance(plain, dict) else RETURNED
    message = plain.get("message") or plain.get("error") if isinstance(plain, dict) else ""
    if outcome == Outcome.FAILED and plain.get("reason"):
        outcome = f"{outcome} ({plain['reason']})"
    return CallOutcome(name, str(outcome), values.shape(plain), str(message or ""))


def _reached_times(record: Plain) -> tuple[str, ...]:
    """Return the times of a record that are present and not -1, in ascending order; equal ones as
    listed."""
    results = [name for name in _TIMES if record.get(name, -1) != -1]
    return tuple(sorted(results, key=lambda name: float(record[name])))
