"""Comparison of two QPMs by what an application observes: calls, errors, states, times, counts.

A probe, in addition to the circuits, is a name and a call: a query or an invalid request. It costs
the pool at most one circuit of FEW_SHOTS shots, reserves nothing and changes no setting.

`compare` compares two observed pools, row by row; it is pure. Invariant: every row was observed on
both pools; an answer that one of them lacks is a row too.

`distance` is that of two samples of counts, with the distance that shot noise alone would give; it
is pure. Total variation: half the sum of |p - q|. Hellinger: sqrt(1 - sum of sqrt(p q)). Shot
noise: the shots of both samples are pooled and split again at random, which simulates two samples
of one unknown distribution (a permutation test; multivariate hypergeometric).
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import msgspec

from simenv.errors import SimenvError, TimedOutError
from simenv.model.devices import DeviceInfo
from simenv.qpm import contract
from simenv.qpm_check import runner
from simenv.qpm_check.fields import ENDS, NOT_REACHED, TIMES
from simenv.qpm_check.shapes import ABSENT, differing_paths, form, shape
from simenv.qpm_check.target import FAMILY, CheckTarget, named


class CircuitSource(msgspec.Struct, frozen=True):
    """Circuit as a host sends it. `format`: openqasm2, openqasm3 or pulser-abstract."""

    name: str
    text: str
    format: str = "openqasm2"

    def info(self, shots: int, seed: int) -> dict[str, Any]:
        """Return the `info` of a run."""
        if self.format == "openqasm2":
            return {"qasm": self.text, "num_shots": shots, "seed": seed}
        circuit = {"format": self.format, "data": self.text}
        return {"circuit": circuit, "num_shots": shots, "seed": seed}


class CallOutcome(msgspec.Struct, frozen=True):
    """Outcome of one call. `outcome`: outcome of the envelope, or class and reason of the error as
    a host of the transport sees them. `shape`: see `shape`. `words`: message for users."""

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

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {value:.4f} (shot noise {noise:.4f}, at most {most:.4f})"
            for name, value, noise, most in (
                ("total variation", self.total_variation, self.noise_total_variation,
                 self.most_total_variation),
                ("Hellinger", self.hellinger, self.noise_hellinger, self.most_hellinger),
            )
        )  # fmt: skip


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

    @property
    def summary(self) -> str:
        """One line: whether the pools behave alike, and the number of each kind of row."""
        counts = [f"{n} {each}" for each in Difference if (n := self.count(each))]
        verb = "behave" if self.alike else "do not behave"
        return f"{self.first} and {self.second} {verb} alike: {', '.join(counts)}"

    def plain(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "pools": [self.first, self.second],
            "alike": self.alike,
            **{str(finding): self.count(finding) for finding in Difference},
            "rows": self.rows,
        }


FEW_SHOTS = 16
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
FAR = 2**40  # a number that no task and no reservation has
Probe = tuple[str, Callable[[], Any]]

# Invalid requests by their error: values that replace fields of a valid request; ...: no field.
_MISTAKES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("num_shots=0", {"num_shots": 0}), ("num_shots=text", {"num_shots": "many"}),
    ("num_shots missing", {"num_shots": ...}), ("seed=-1", {"seed": -1}),
    ("priority=text", {"priority": "first"}), ("no circuit", {"qasm": ..., "circuit": ...}),
    ("circuit is no QASM", {"qasm": "OPENQASM 2.0;\nqreg q[2]\nthis is none;", "circuit": ...}),
    ("gate that is none", {"qasm": "OPENQASM 2.0;\nqreg q[1];\nnosuch q[0];", "circuit": ...}),
    ("circuit format unknown", {"qasm": ..., "circuit": {"format": "other", "data": "x;"}}),
    ("num_qubits=0", {"num_qubits": 0}),
)  # fmt: skip


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
    for argument, calls in (
        ("lib", (qpm.get_backend_info, qpm.get_device_info, qpm.get_dynamic_backend_info,
                 qpm.get_calibration_snapshot, qpm.get_coupling_graph)),
        ("device_id", (qpm.get_capacity_snapshot, qpm.get_queue_metrics)),
    ):  # fmt: skip
        for call in calls:
            yield call.__name__, partial(call, **{argument: pool})
            yield f"{call.__name__}({argument}=none)", partial(call, **{argument: "no-such-pool"})
    for call in (
        qpm.get_scheduler_status, qpm.get_scheduler_policy, qpm.get_scheduler_queue_state,
        qpm.get_device_profile, qpm.get_admission_policy, qpm.list_reservations,
    ):  # fmt: skip
        yield call.__name__, call
    for call in (qpm.get_reservation, qpm.renew, qpm.release, qpm.cancel):
        yield f"{call.__name__}(none of mine)", partial(call, reservation_id=FAR)
    yield "evaluate(request=none)", qpm.evaluate
    yield "evaluate(request=[])", partial(qpm.evaluate, request=[])
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


LOOK_S = 0.02  # interval of polls of a circuit's state
RETURNED = "returned"
Plain = dict[str, Any]
Provenance = Callable[[str], tuple[str, str, str]]  # engine, route and remark of an ended task


def observe(
    target: CheckTarget,
    sources: Sequence[CircuitSource],
    shots: int,
    seed: int,
    timeout_s: float,
    provenance: Provenance,
    facts: dict[str, str],
    announce: Callable[[str], None],
) -> PoolObservations:
    """Observe the pool of a target of both revisions, named like its pool. `facts`: of its device;
    `announce`: called with the name of each circuit. Raises TimedOutError if a circuit has no end
    after `timeout_s`; it is cancelled."""
    infos = [source.info(shots, seed) for source in sources]
    observed = []
    with target.open(2) as instance:
        qpm = instance.connect().methods
        for source, info in zip(sources, infos, strict=True):
            announce(source.name)
            observed.append(_run(qpm, source.name, info, timeout_s, provenance))
        answers = observed[0][1]  # the answers are the same for the other circuits
        answers += [_call(*probe)[0] for probe in revision2(qpm, infos[0], target.name)]
    with target.open(1) as instance:
        probes = revision1(instance.connect().methods, infos[0])
        answers += [_call(*probe)[0] for probe in probes]
    return PoolObservations(target.name, tuple(answers), tuple(run for run, _ in observed), facts)


def _run(
    qpm: Any, name: str, info: Plain, timeout_s: float, provenance: Provenance
) -> tuple[RunOutcome, list[CallOutcome]]:
    """Follow one circuit from `async_run` to `delete_circuit`; return its run, and the outcomes of
    all calls. Refusals of the QPM are recorded, never raised."""
    answers: list[CallOutcome] = []

    def call(what: str, method: Callable[..., Any], *args: Any, **by_name: Any) -> Plain:
        answer, value = _call(f"a circuit's {what}", partial(method, *args, **by_name))
        answers.append(answer)
        return value if isinstance(value, dict) else {}

    submitted = call("async_run", qpm.async_run, info)
    if not submitted:
        return RunOutcome(name, answers[0].outcome, words=answers[0].words), answers
    cid, number = submitted["cid"], submitted["qtask_id"]
    states, last = _follow(qpm, cid, str(submitted["lifecycle_state"]), timeout_s)
    answers.append(_outcome_of("a circuit's task_status", last))
    call("peek_cq", qpm.peek_cq, cid)
    record = call("read_cq", qpm.read_cq, cid)
    call("read_cq again", qpm.read_cq, cid)
    call("task_status of what was read", qpm.task_status, cid)
    call("get_task_timing", qpm.get_task_timing, task_id=number)
    call("get_task_metadata", qpm.get_task_metadata, task_id=number)
    call("cancel_task too late", qpm.cancel_task, cid)
    call("delete_circuit", qpm.delete_circuit, cid)
    counts = (record.get("result") or {}).get("counts") or {}
    times = [each for each in TIMES if record.get(each, NOT_REACHED) != NOT_REACHED]
    words = str(record.get("message") or last.get("error") or "")
    engine = route = remark = ""
    if task := submitted.get("scheduler_task_id"):
        try:
            engine, route, remark = provenance(task)
        except SimenvError as error:  # it failed
            words = words or str(error)
    outcome = str(record.get("outcome", last.get("outcome", "")))
    reached = tuple(sorted(times, key=lambda each: float(record[each])))  # equal ones as listed
    run = RunOutcome(
        name, outcome, states, reached, counts, form(counts), engine, route, remark, words
    )
    return run, answers


def _follow(qpm: Any, cid: str, state: str, timeout_s: float) -> tuple[tuple[str, ...], Plain]:
    """Return the states in which the circuit was observed, from `state` on, and its last
    envelope."""
    states = [state]
    deadline_s = time.monotonic() + timeout_s
    while True:
        envelope: Plain = qpm.task_status(cid)
        state = str(envelope["lifecycle_state"])
        if state != states[-1]:
            states.append(state)
        if state in (*ENDS, "unknown"):
            return tuple(states), envelope
        if time.monotonic() >= deadline_s:
            qpm.cancel_task(cid)
            service = qpm.query().service_description
            message = f"{service}: no end after {timeout_s:g} s, the circuit is {state}"
            hint = "simenv status says what the pool does; --timeout SECONDS waits longer"
            raise TimedOutError(message, hint=hint)
        time.sleep(LOOK_S)


def _call(name: str, call: Callable[[], Any]) -> tuple[CallOutcome, Any]:
    """Return the outcome of a call and its return value; None if it raised."""
    try:
        value = call()
    except SimenvError as error:
        outcome = named(error)
        if isinstance(error, contract.ExecutionError):
            outcome = f"{outcome} ({error.reason})"
        elif outcome not in FAMILY:
            outcome = f"{outcome} (not of the contract)"
        return CallOutcome(name, outcome, words=error.message), None
    return _outcome_of(name, value), value


def _outcome_of(name: str, answer: Any) -> CallOutcome:
    plain = msgspec.to_builtins(answer)
    fields = plain if isinstance(plain, dict) else {}
    outcome = fields.get("outcome", RETURNED)
    if outcome == "FAILED" and fields.get("reason"):
        outcome = f"{outcome} ({fields['reason']})"
    words = str(fields.get("message") or fields.get("error") or "")
    return CallOutcome(name, str(outcome), shape(plain), words)


def device_facts(device: DeviceInfo, statevectors: bool) -> dict[str, str]:
    """Return the facts about a device by name; the names are the same for every pool."""
    couplings = f"{len(device.coupling)} pairs, {'directed' if device.directed else 'both ways'}"
    pairs = [each.error for each in device.operations if device.width(each) == 2]
    return {
        "kind": str(device.kind),
        "provider": device.provider,
        "model": device.model,
        "technology": device.technology,
        "qubits": str(device.num_qubits),
        "gates": ", ".join(sorted(gate.name for gate in device.gates)),
        "couplings": "every pair" if device.all_to_all else couplings,
        "maximum number of shots": str(device.max_shots),
        "mid-circuit measurements and branches": "yes" if device.dynamic else "no",
        "circuit formats": ", ".join(device.formats),
        "statevectors": "yes" if statevectors else "no",
        "calibration": device.calibration_id or "none",
        "two-qubit gate error": _median_text(pairs),
        "readout error": _median_text(qubit.readout_error for qubit in device.qubits),
        "T1 (us)": _median_text(qubit.t1_us for qubit in device.qubits),
        "T2 (us)": _median_text(qubit.t2_us for qubit in device.qubits),
    }


def _median_text(values: Iterable[float]) -> str:
    measured = [value for value in values if not math.isnan(value)]
    return f"{median(measured):.3g} (median)" if measured else "not known"


NONE = "-"
# Calls that describe a device: their answers have the known fields of that device.
DESCRIBING = (
    "get_backend_info", "get_device_info", "get_dynamic_backend_info", "get_calibration_snapshot",
    "get_coupling_graph",
)  # fmt: skip
_MOST_PATHS = 4  # most paths of a shape in one row


def compare(
    first: PoolObservations, second: PoolObservations, bound: float | None = None
) -> Comparison:
    """Compare two pools. `bound`: total variation up to which counts may differ; None: no bound."""
    pools = [{answer.call: answer for answer in each.answers} for each in (first, second)]
    rows = [_call_row(call, *(pool.get(call) for pool in pools)) for call in pools[0] | pools[1]]
    for runs in zip(first.runs, second.runs, strict=True):  # the same circuits, in one order
        rows += _run_rows(*runs, bound)
    rows += (
        _row(RowSubject.DEVICE, name, first.facts.get(name), second.facts.get(name))
        for name in first.facts | second.facts
    )
    return Comparison(first.pool, second.pool, tuple(rows))


def _row(
    subject: RowSubject,
    what: str,
    first: str | None,
    second: str | None,
    difference: Difference = Difference.FACT,
) -> Row:
    finding = Difference.SAME if first == second else difference
    return Row(subject, what, first or NONE, second or NONE, finding)


def _call_row(call: str, first: CallOutcome | None, second: CallOutcome | None) -> Row:
    if first is None or second is None or first.outcome != second.outcome:
        left, right = (
            each and f"{each.outcome}: {each.words}".removesuffix(": ") for each in (first, second)
        )
        return _row(RowSubject.CALL, call, left or NONE, right or NONE, Difference.BEHAVIOUR)
    paths = differing_paths(first.shape, second.shape)
    if not paths:
        return _row(RowSubject.CALL, call, first.outcome, second.outcome)
    more = f" and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
    left, right = (
        ", ".join(f"{path[0]}: {path[side]}" for path in paths[:_MOST_PATHS]) + more
        for side in (1, 2)
    )
    lacks = call in DESCRIBING and all(ABSENT in path for path in paths)
    finding = Difference.FACT if lacks else Difference.BEHAVIOUR
    return _row(RowSubject.CALL, call, left, right, finding)


def _run_rows(first: RunOutcome, second: RunOutcome, bound: float | None) -> Iterator[Row]:
    name, behaviour = first.circuit, Difference.BEHAVIOUR
    yield _states_row(first, second)
    left, right = (", ".join(run.reached) for run in (first, second))
    yield _row(RowSubject.TIMES, name, left, right, behaviour)
    if first.counts and second.counts:
        if first.form == second.form:
            yield _counts_row(first, second, bound)
        else:
            yield _row(RowSubject.COUNTS, f"{name}: keys", first.form, second.form, behaviour)
    for what in ("engine", "route", "remark"):
        yield _row(RowSubject.ROUTE, f"{name}: {what}", getattr(first, what), getattr(second, what))


def _states_row(first: RunOutcome, second: RunOutcome) -> Row:
    """Compare the outcomes, and show the observed states: a short run may not be seen running."""
    same = first.outcome == second.outcome
    left, right = (
        (" > ".join(run.states) or run.outcome)
        + (f": {run.words}" if run.words and not same else "")
        for run in (first, second)
    )
    finding = Difference.SAME if same else Difference.BEHAVIOUR
    return Row(RowSubject.STATES, first.circuit, left, right, finding)


def _counts_row(first: RunOutcome, second: RunOutcome, bound: float | None) -> Row:
    apart = distance(first.counts, second.counts)
    if first.counts == second.counts:
        finding = Difference.SAME
    elif apart.is_noise:
        finding = Difference.NOISE
    else:
        far = bound is not None and apart.total_variation > bound
        finding = Difference.BOUND if far else Difference.COUNTS
    left, right = (
        f"{sum(run.counts.values())} shots, {len(run.counts)} outcomes" for run in (first, second)
    )
    return Row(RowSubject.COUNTS, first.circuit, left, right, finding, apart)


ROUNDS = 200
SIGMAS = 5.0
_SEED = 20_25  # of the random splits: the same counts give the same verdict


def distance(first: Mapping[str, int], second: Mapping[str, int]) -> SampleDistance:
    """Return the distances of two samples, each with at least one shot."""
    import numpy as np

    def apart(left: Any, right: Any) -> Any:
        """Return both distances of each row, [2, rows]."""
        p, q = (each / each.sum(axis=1, keepdims=True) for each in (left, right))
        overlap = np.sqrt(p * q).sum(axis=1)
        variation = 0.5 * np.abs(p - q).sum(axis=1)
        return np.array([variation, np.sqrt(np.clip(1.0 - overlap, 0.0, 1.0))])

    outcomes = sorted({*first, *second})
    left, right = (np.array([each.get(key, 0) for key in outcomes]) for each in (first, second))
    pooled = left + right
    split = np.random.default_rng(_SEED).multivariate_hypergeometric(
        pooled, int(left.sum()), size=ROUNDS, method="marginals"
    )
    noise = apart(split, pooled - split)
    mean, most = noise.mean(axis=1), noise.mean(axis=1) + SIGMAS * noise.std(axis=1)
    measured = apart(left[None, :], right[None, :])[:, 0]
    return SampleDistance(*np.concatenate([measured, mean, most]).tolist())


_COLOURS = {
    Difference.SAME: "dim", Difference.FACT: "cyan", Difference.NOISE: "green",
    Difference.COUNTS: "yellow",
    Difference.BEHAVIOUR: "red", Difference.BOUND: "red",
}  # fmt: skip


def table(comparison: Comparison, *, everything: bool, stream: Any) -> None:
    """Write the rows that differ, or all rows, and a summary to `stream`."""
    rows = (
        (
            (str(row.finding), _COLOURS[row.finding]),
            str(row.aspect),
            runner.short(row.what if row.distance is None else f"{row.what}: {row.distance}"),
            runner.short(row.first),
            runner.short(row.second),
        )
        for row in comparison.rows
        if everything or row.finding is not Difference.SAME
    )
    headers = ("FINDING", "ABOUT", "WHAT", comparison.first, comparison.second)
    runner.print_table(headers, rows, comparison.summary, stream, narrow=2)
