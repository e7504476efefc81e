"""One pool seen through a QPM that stands for it alone: circuits run, questions asked, mistakes
made. What the service knows beside is asked of `watch`, which shares nothing with the QPM.

What a pool says of itself, in words: only who asks learns it.
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
from simenv.cli.qpm_diff.values import CallOutcome, CircuitSource, Observed, Ran
from simenv.errors import SimenvError, TimedOutError
from simenv.model.devices import DeviceInfo
from simenv.qpm.errors import ExecutionError, QPMError
from simenv.qpm.states import Lifecycle, Outcome

if TYPE_CHECKING:
    from simenv.client.client import Client

UNKNOWN = "not known"
_NO_CLIFFORD = "OPENQASM 2.0;\nqreg q[1];\nu3(0.1,0,0) q[0];\n"


def facts(device: DeviceInfo, client: Client) -> dict[str, str]:
    """By name, the same names for every pool."""
    return {
        "kind": str(device.kind),
        "provider": device.provider,
        "model": device.model,
        "technology": device.technology,
        "qubits": str(device.num_qubits),
        "gates": ", ".join(sorted(gate.name for gate in device.gates)),
        "couplings": _couplings(device),
        "largest number of shots": str(device.max_shots),
        "measures and branches on the way": _yes(device.dynamic),
        "circuit formats": ", ".join(device.formats),
        "statevectors": _yes(_takes_amplitudes(client, device.name)),
        "calibration": device.calibration_id or "none",
        "error of a gate of two qubits": _middle(
            each.error for each in device.operations if len(each.qubits) == 2
        ),
        "error of reading": _middle(qubit.readout_error for qubit in device.qubits),
        "T1 (us)": _middle(qubit.t1_us for qubit in device.qubits),
        "T2 (us)": _middle(qubit.t2_us for qubit in device.qubits),
    }


def _couplings(device: DeviceInfo) -> str:
    if device.all_to_all:
        return "every pair"
    way = "directed" if device.directed else "both ways"
    return f"{len(device.coupling)} pairs, {way}"


def _middle(values: Iterable[float]) -> str:
    """The median of those that are known."""
    measured = [value for value in values if not math.isnan(value)]
    return f"{median(measured):.3g} (median)" if measured else UNKNOWN


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _takes_amplitudes(client: Client, pool: str) -> bool:
    try:
        entry = client.explain(_NO_CLIFFORD, pool=pool, shots=None, outputs="statevector")
    except SimenvError:
        return False
    return bool(entry.engine)


LOOK_S = 0.05  # between looks at a circuit's state; its end is heard at once
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
) -> Observed:
    """`client` and `watch`: two of the environment. `announce` is called with each circuit's name.

    Raises TimedOutError where a circuit has no end after `patience_s`; it is cancelled.
    """
    qpm = client.qpm_with(pool=pool)
    runs: list[Ran] = []
    answers: list[CallOutcome] = []
    for number, source in enumerate(sources):
        announce(source.name)
        life = Life(qpm, watch, patience_s)
        runs.append(life.run(source.name, request(source, shots, seed)))
        if number == 0:
            answers += life.answers  # of the others it is the same
    info = request(sources[0], shots, seed)
    answers += _asked(probes.revision2(qpm, info, pool))
    answers += _asked(probes.revision1(qpm.revision1, info))
    return Observed(pool, tuple(answers), tuple(runs), facts(watch.devices()[pool], watch))


def request(source: CircuitSource, shots: int, seed: int) -> Plain:
    """The `info` of a run."""
    if source.format == "openqasm2":
        circuit: Plain = {"qasm": source.text}
    else:
        circuit = {"circuit": {"format": source.format, "data": source.text}}
    return {**circuit, "num_shots": shots, "seed": seed}


class Life:
    """One circuit from `async_run` to `delete_circuit`; `answers`: to all calls on the way."""

    def __init__(self, qpm: Any, watch: Client, patience_s: float) -> None:
        self._qpm = qpm
        self._watch = watch
        self._poll_timeout_s = patience_s
        self.answers: list[CallOutcome] = []

    def run(self, name: str, info: Plain) -> Ran:
        """Never raises what the QPM refuses: that is what it looks for."""
        qpm = self._qpm
        taken = self._call("async_run", lambda: qpm.async_run(info))
        if taken is None:
            return Ran(name, self.answers[-1].outcome, words=self.answers[-1].words)
        cid, number = taken["cid"], taken["qtask_id"]
        states, last = self._followed(cid, taken)
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
        ran = Ran(
            name,
            outcome,
            states=states,
            reached=_reached(record),
            counts=counts,
            form=values.form(counts),
            words=str(record.get("message") or last.get("error") or ""),
        )
        return self._placed(ran, taken.get("scheduler_task_id"))

    def _followed(self, cid: str, taken: Plain) -> tuple[tuple[str, ...], Plain]:
        """The states it was seen in, and its envelope at the end."""
        states, task = [str(taken["lifecycle_state"])], taken.get("scheduler_task_id")
        deadline_s = monotonic() + self._poll_timeout_s
        while True:
            envelope: Plain = self._qpm.task_status(cid)
            state = str(envelope["lifecycle_state"])
            if state != states[-1]:
                states.append(state)
            if state in _OVER:
                self._tell("task_status", envelope)
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

    def _placed(self, ran: Ran, task: str | None) -> Ran:
        """With where it ran and why there."""
        if not task:
            return ran
        try:
            result = self._watch.task(task).result(self._poll_timeout_s)  # it has ended
        except SimenvError as error:
            return msgspec.structs.replace(ran, words=ran.words or str(error))
        return msgspec.structs.replace(
            ran, engine=result.engine, route=result.engine_reason, remark=result.remark
        )

    def _call(self, name: str, call: Callable[[], Any]) -> Plain | None:
        answer, entry = asked(f"a circuit's {name}", call)
        self.answers.append(answer)
        return entry if isinstance(entry, dict) else None

    def _tell(self, name: str, envelope: Plain) -> None:
        self.answers.append(_answer(f"a circuit's {name}", envelope))


def asked(name: str, call: Callable[[], Any]) -> tuple[CallOutcome, Any]:
    """How it ended, and what it returned: None where it raised."""
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
    return _answer(name, entry), entry


def _asked(calls: Iterable[probes.Probe]) -> list[CallOutcome]:
    return [asked(name, call)[0] for name, call in calls]


def _answer(name: str, answer: Any) -> CallOutcome:
    plain = msgspec.to_builtins(answer)
    outcome = plain.get("outcome", RETURNED) if isinstance(plain, dict) else RETURNED
    message = plain.get("message") or plain.get("error") if isinstance(plain, dict) else ""
    if outcome == Outcome.FAILED and plain.get("reason"):
        outcome = f"{outcome} ({plain['reason']})"
    return CallOutcome(name, str(outcome), values.shape(plain), str(message or ""))


def _reached(record: Plain) -> tuple[str, ...]:
    """The times that are there and not -1, in the order of their clocks; equal ones as listed."""
    results = [name for name in _TIMES if record.get(name, -1) != -1]
    return tuple(sorted(results, key=lambda name: float(record[name])))
