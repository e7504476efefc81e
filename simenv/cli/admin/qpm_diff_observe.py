"""Observation of pools through their QPMs: probes, values, and shapes."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.errors import SimenvError, TimedOutError
from simenv.model.views import DeviceInfo
from simenv.qpm import contract, envelopes

if TYPE_CHECKING:
    from simenv.client.client import Client

# Probes of a pool's QPM in addition to the circuits: queries and invalid requests.
#
# A probe is a name and a call; it costs the pool at most one circuit of FEW_SHOTS shots.

FEW_SHOTS = 16
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
FAR = 2**40  # a number that no task and no reservation has
Probe = tuple[str, Callable[[], Any]]

# Invalid requests by their error: values that replace fields of a valid request; ...: no field.
_MISTAKES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("num_shots=0", {"num_shots": 0}),
    ("num_shots=text", {"num_shots": "many"}),
    ("num_shots missing", {"num_shots": ...}),
    ("seed=-1", {"seed": -1}),
    ("priority=text", {"priority": "first"}),
    ("no circuit", {"qasm": ..., "circuit": ...}),
    ("circuit is no QASM", {"qasm": "OPENQASM 2.0;\nqreg q[2]\nthis is none;", "circuit": ...}),
    ("gate that is none", {"qasm": "OPENQASM 2.0;\nqreg q[1];\nnosuch q[0];", "circuit": ...}),
    ("circuit format unknown", {"qasm": ..., "circuit": {"format": "other", "data": "x;"}}),
    ("num_qubits=0", {"num_qubits": 0}),
)


def revision2(qpm: Any, info: dict[str, Any], pool: str) -> Iterator[Probe]:
    """Yield the probes of revision 2. `info`: a valid request for the pool."""
    few = {**info, "num_shots": FEW_SHOTS}
    yield "sync_run", partial(qpm.sync_run, few)
    yield "sync_run(timeout=-1)", partial(qpm.sync_run, few, timeout=-1)
    yield "sync_run(reservation_id=none of mine)", partial(qpm.sync_run, few, FAR)
    yield from _invalid_calls("sync_run", qpm.sync_run, few)
    yield from _invalid_calls("async_run", qpm.async_run, few)
    for call in (qpm.read_cq, qpm.peek_cq, qpm.task_status, qpm.cancel_task, qpm.delete_circuit):
        yield f"{call.__name__}(unknown)", partial(call, UNKNOWN_ID)
        yield f"{call.__name__}(cid=7)", partial(call, 7)
    yield "read_cq() of nothing", qpm.read_cq
    for call in (qpm.get_task_timing, qpm.get_task_metadata):
        yield f"{call.__name__}(unknown)", partial(call, task_id=FAR)
        yield f"{call.__name__}(task_id=text)", partial(call, task_id="one")
    yield from _telemetry(qpm, pool)
    yield from _management_probes(qpm)
    for call in (qpm.query, qpm.test, qpm.is_ready, qpm.get_service_status):
        yield call.__name__, call


def revision1(qpm: Any, info: dict[str, Any]) -> Iterator[Probe]:
    """Yield the probes of revision 1, the single class; their names begin with `r1.`."""
    few = {**info, "num_shots": FEW_SHOTS}
    yield "r1.sync_run", partial(qpm.sync_run, few)
    yield from _invalid_calls("r1.sync_run", qpm.sync_run, few)
    yield "r1.read_cq(unknown)", partial(qpm.read_cq, UNKNOWN_ID)
    yield "r1.peek_cq(cid=7)", partial(qpm.peek_cq, 7)
    yield "r1.delete_circuit(unknown)", partial(qpm.delete_circuit, UNKNOWN_ID)
    for call in (qpm.query, qpm.test, qpm.is_ready):
        yield f"r1.{call.__name__}", call


def _invalid_calls(name: str, call: Callable[[Any], Any], valid: dict[str, Any]) -> Iterator[Probe]:
    yield f"{name}(info=[])", partial(call, [])
    for what, changes in _MISTAKES:
        invalid = {key: value for key, value in {**valid, **changes}.items() if value is not ...}
        yield f"{name}({what})", partial(call, invalid)


def _management_probes(qpm: Any) -> Iterator[Probe]:
    """Yield queries only: none of them reserves anything or changes the pool's settings."""
    for call in (
        qpm.get_scheduler_status, qpm.get_scheduler_policy, qpm.get_scheduler_queue_state,
        qpm.get_device_profile, qpm.get_admission_policy, qpm.list_reservations,
    ):  # fmt: skip
        yield call.__name__, call
    for call in (qpm.get_reservation, qpm.renew, qpm.release, qpm.cancel):
        yield f"{call.__name__}(none of mine)", partial(call, reservation_id=FAR)
    yield "evaluate(request=none)", qpm.evaluate
    yield "evaluate(request=[])", partial(qpm.evaluate, request=[])


def _telemetry(qpm: Any, pool: str) -> Iterator[Probe]:
    by_library = (
        qpm.get_backend_info, qpm.get_device_info, qpm.get_dynamic_backend_info,
        qpm.get_calibration_snapshot, qpm.get_coupling_graph,
    )  # fmt: skip
    for call in by_library:
        yield call.__name__, partial(call, lib=pool)
        yield f"{call.__name__}(lib=none)", partial(call, lib="no-such-pool")
    for call in (qpm.get_capacity_snapshot, qpm.get_queue_metrics):
        yield call.__name__, partial(call, device_id=pool)
        yield f"{call.__name__}(device_id=none)", partial(call, device_id="no-such-pool")


# Observations of a pool through its QPM, their shapes, and the result of a comparison. Frozen, no
# I/O.
#
# A shape has the part of an answer on which a caller's code depends: its names and their types.
# Values are data, not behaviour. Fields that depend on the moment of the call, or that the contract
# leaves to the provider, are not part of a shape.


class CircuitSource(msgspec.Struct, frozen=True):
    """Circuit as a host sends it. `format`: openqasm2 or openqasm3."""

    name: str
    text: str
    format: str = "openqasm2"


class CallOutcome(msgspec.Struct, frozen=True):
    """Outcome of one call.

    `outcome`: outcome of the envelope, or class and reason of the error as a host of the transport
    sees them. `shape`: see `shape`. `words`: message for users.
    """

    call: str
    outcome: str
    shape: dict[str, str] = {}
    words: str = ""


class RunOutcome(msgspec.Struct, frozen=True):
    """Run of one circuit.

    - `states`: observed states of its envelope, which depend on the moments of observation
    - `reached`: its times that were set, in ascending order
    - `form`: form of its outcomes, such as "2+1 bits"
    - `words`: reason why it has no counts
    """

    circuit: str
    outcome: str
    states: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    form: str = ""
    engine: str = ""
    route: str = ""
    remark: str = ""
    words: str = ""


class PoolObservations(msgspec.Struct, frozen=True):
    """All observations of one pool. `facts`: description of its device, by name."""

    pool: str
    answers: tuple[CallOutcome, ...]
    runs: tuple[RunOutcome, ...]
    facts: dict[str, str]


class RowSubject(enum.StrEnum):
    """Subject of a row."""

    CALL = "call"
    STATES = "states"
    TIMES = "times"
    DEVICE = "device"
    COUNTS = "counts"
    ROUTE = "route"


class Difference(enum.StrEnum):
    """Kind of difference in a row."""

    SAME = "same"
    BEHAVIOUR = "behaviour"  # an application may fail because of it
    FACT = "fact"  # visible only in a query
    NOISE = "noise"  # counts that differ as two samples of one distribution
    COUNTS = "counts"  # counts that differ more than that
    BOUND = "bound"  # counts that differ more than the bound


class SampleDistance(msgspec.Struct, frozen=True):
    """Distances of two samples, and those of shot noise alone: mean, and `most`, mean plus five
    standard deviations."""

    total_variation: float
    hellinger: float
    noise_total_variation: float
    noise_hellinger: float
    most_total_variation: float
    most_hellinger: float

    @property
    def is_noise(self) -> bool:
        return (
            self.total_variation <= self.most_total_variation
            and self.hellinger <= self.most_hellinger
        )


class Row(msgspec.Struct, frozen=True):
    """One subject compared on both pools."""

    aspect: RowSubject
    what: str
    first: str
    second: str
    finding: Difference
    distance: SampleDistance | None = None


class Comparison(msgspec.Struct, frozen=True):
    """All rows. Alike: an application cannot tell the pools apart, except by queries or
    statistics."""

    first: str
    second: str
    rows: tuple[Row, ...]

    def count(self, finding: Difference) -> int:
        return sum(row.finding is finding for row in self.rows)

    @property
    def alike(self) -> bool:
        return not self.count(Difference.BEHAVIOUR) and not self.count(Difference.BOUND)


OUTCOME = "*"  # replaces the outcomes of counts, which are data
NOTHING = "null"
ABSENT = "-"
# The contract leaves the content of these to the provider, and the presence of those to the moment.
_OPAQUE = {"extensions", "metadata", "raw", "calibration", "policy_context", "policy_state",
           "provider_metadata", "details", "properties"}  # fmt: skip
_MOMENTARY = {"wait_estimate", "pending_queue_position", "provider_handle", "estimated_start",
              "estimated_queued_device_time"}  # fmt: skip


def shape(value: Any) -> dict[str, str]:
    """Return path -> type for all values in `value`: {"result.counts.*": "int", ...}."""
    entries: dict[str, str] = {}
    _enter(entries, "", value)
    return entries


def differing_paths(
    first: Mapping[str, str], second: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Return (path, first type, second type) for each difference on which a caller's code would
    fail.

    A null stands for "unknown" and fits every type; an empty list fits any list.
    """
    differences = []
    for path in sorted({*first, *second}):
        left, right = first.get(path), second.get(path)
        if left == right or NOTHING in (left, right):
            continue
        if (left is None and _covered(path, first)) or (right is None and _covered(path, second)):
            continue
        differences.append((path, left or ABSENT, right or ABSENT))
    return differences


def is_missing(differences: list[tuple[str, str, str]]) -> bool:
    """Return whether every difference is a field that one side lacks."""
    return all(ABSENT in (left, right) for _, left, right in differences)


def form(outcomes: Mapping[str, int]) -> str:
    """Return the form of outcomes: "2 bits"; with separate registers, "2+1 bits"."""
    forms = {"+".join(str(len(word)) for word in outcome.split(" ")) for outcome in outcomes}
    return f"{', '.join(sorted(forms))} bits" if forms else ""


def _enter(kinds: dict[str, str], path: str, value: Any) -> None:
    if isinstance(value, Mapping):
        kinds[path] = "table"
        name = path.rpartition(".")[2]
        if name in _OPAQUE:
            return
        if name in ("counts", "result") and all(set(str(key)) <= set("01 ") for key in value):
            value = dict.fromkeys((OUTCOME,), next(iter(value.values()))) if value else {}
        for key, each in value.items():
            if key not in _MOMENTARY:
                _enter(kinds, f"{path}.{key}" if path else str(key), each)
    elif isinstance(value, list | tuple):
        kinds[path] = "list"
        for each in value:
            _enter(kinds, f"{path}[]", each)
    else:
        kinds[path] = NOTHING if value is None else type(value).__name__


def _covered(path: str, shape: Mapping[str, str]) -> bool:
    """Return whether a value above the path is null, or is an empty list."""
    for end in range(len(path) - 1, 0, -1):
        if path[end] not in ".[":
            continue
        above = shape.get(path[:end])
        if above is not None:
            return above == NOTHING or (above == "list" and path[end] == "[")
    return False


# Observation of one pool through a QPM over it alone: circuits, calls, and invalid requests.
#
# Further facts come from `watch`, a client that shares nothing with the QPM.

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
_OVER = (
    envelopes.Lifecycle.COMPLETED,
    envelopes.Lifecycle.FAILED,
    envelopes.Lifecycle.CANCELLED,
    envelopes.Lifecycle.UNKNOWN,
)
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
    answers += _call_all(revision2(qpm, info, pool))
    answers += _call_all(revision1(qpm.revision1, info))
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
            form=form(counts),
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
    except contract.ExecutionError as error:
        outcome = f"{error.defw_name} ({error.reason})"
        return CallOutcome(name, outcome, words=error.message), None
    except contract.QPMError as error:
        return CallOutcome(name, error.defw_name, words=error.message), None
    except SimenvError as error:
        return CallOutcome(
            name, f"{type(error).__name__} (not of the contract)", words=str(error)
        ), None
    return _outcome_of(name, entry), entry


def _call_all(calls: Iterable[Probe]) -> list[CallOutcome]:
    return [call_outcome(name, call)[0] for name, call in calls]


def _outcome_of(name: str, answer: Any) -> CallOutcome:
    plain = msgspec.to_builtins(answer)
    outcome = plain.get("outcome", RETURNED) if isinstance(plain, dict) else RETURNED
    message = plain.get("message") or plain.get("error") if isinstance(plain, dict) else ""
    if outcome == envelopes.Outcome.FAILED and plain.get("reason"):
        outcome = f"{outcome} ({plain['reason']})"
    return CallOutcome(name, str(outcome), shape(plain), str(message or ""))


def _reached_times(record: Plain) -> tuple[str, ...]:
    """Return the times of a record that are present and not -1, in ascending order; equal ones as
    listed."""
    results = [name for name in _TIMES if record.get(name, -1) != -1]
    return tuple(sorted(results, key=lambda name: float(record[name])))
