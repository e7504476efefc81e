"""Qiskit's EstimatorV2, and the plans of its PUBs.

Plan of an estimator's PUB: the observables to compute for each set of values. A PUB broadcasts its
observables against its sets of values. All observables of one submission are computed for all of
its sets of values, so sets that need the same observables form a group. If that would make many
groups, and computing all pairs costs little more, there is one group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qiskit import primitives
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers import DataBin
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from simenv.client.submission.options import is_single_seed, item_seeds
from simenv.client.submission.send import BatchItem
from simenv.client.tasks.task import Task
from simenv.errors import LimitExceededError
from simenv.frontends.qiskit import sampler
from simenv.frontends.qiskit.backend import SimenvBackend
from simenv.frontends.qiskit.job import SimenvPrimitiveJob, refusals
from simenv.model import MAX_SHOTS
from simenv.model.devices import DeviceKind

MOST_OBSERVABLES = 4_096  # of one submission
MOST_TERMS = 100_000
_EXCESS = 16  # all pairs are computed if they are at most this multiple of the requested pairs
_FEW = 4_096  # or if they are at most this many

# Each letter of Qiskit's observables as a sum of Paulis, and the factor of each.
_LETTERS = {
    **{letter: ((letter, 1.0),) for letter in "IXYZ"},
    **{letter: (("I", 0.5), (pauli, 0.5)) for letter, pauli in zip("0+r", "ZXY", strict=True)},
    **{letter: (("I", 0.5), (pauli, -0.5)) for letter, pauli in zip("1-l", "ZXY", strict=True)},
}


class PubGroup(NamedTuple):
    """One submission: `observables` for the sets of values `rows`. Entry k of its result goes to
    `places[k]` of the flat PUB, from its row `row_of[k]` and its observable `column_of[k]`."""

    rows: NDArray[np.intp]
    observables: list[int]
    places: NDArray[np.intp]
    row_of: NDArray[np.intp]
    column_of: NDArray[np.intp]


_FIRST = np.zeros(1, np.intp)
_SINGLE = PubGroup(_FIRST, [0], _FIRST, _FIRST, _FIRST)


class PubPlan(NamedTuple):
    """Submissions of a PUB. `start`: float64 [size of the PUB], its values before those of the
    groups are entered."""

    observables: list[dict[str, float]]  # Pauli sums, in C order of the observables' array
    groups: list[PubGroup]
    start: NDArray[np.float64]


def plan_of(pub: EstimatorPub) -> PubPlan:
    """Plan the submissions of a PUB. Raises LimitExceededError for an observable of too many
    terms."""
    settings = pub.observables
    listed: Any = [settings.tolist()] if settings.shape == () else settings.ravel().tolist()
    observables = [_paulis(each) for each in listed]
    if pub.circuit.num_qubits and pub.size == settings.size == pub.parameter_values.size == 1:
        return PubPlan(observables, [_SINGLE], np.zeros(1))
    columns = np.broadcast_to(np.arange(settings.size).reshape(settings.shape), pub.shape).ravel()
    sets = pub.parameter_values
    rows = np.broadcast_to(np.arange(sets.size).reshape(sets.shape), pub.shape).ravel()
    if not pub.circuit.num_qubits:  # all terms are the number 1
        sums = np.array([sum(each.values()) for each in observables])
        return PubPlan(observables, [], sums[columns])
    groups = list(_groups(rows, columns, observables))
    return PubPlan(observables, groups, np.zeros(columns.size))


def _groups(
    rows: NDArray[np.intp], columns: NDArray[np.intp], observables: list[dict[str, float]]
) -> Iterator[PubGroup]:
    if not rows.size:
        return
    places = np.arange(rows.size)
    pairs = np.unique(rows).size * np.unique(columns).size
    if pairs <= max(_FEW, _EXCESS * rows.size):
        yield from _within_limits(rows, columns, places, observables)
        return
    needed: dict[int, set[int]] = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        needed.setdefault(row, set()).add(column)
    alike: dict[frozenset[int], list[int]] = {}
    for row, wanted in needed.items():
        alike.setdefault(frozenset(wanted), []).append(row)
    for members in alike.values():
        mine = np.isin(rows, members)
        yield from _within_limits(rows[mine], columns[mine], places[mine], observables)


def _within_limits(
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    places: NDArray[np.intp],
    observables: list[dict[str, float]],
) -> Iterator[PubGroup]:
    """Divide a group into several with a part of the observables each, if it exceeds the limits of
    a submission."""
    part: list[int] = []
    terms = 0
    for column in [*np.unique(columns).tolist(), -1]:
        size = len(observables[column]) if column >= 0 else 0
        if part and (column < 0 or len(part) >= MOST_OBSERVABLES or terms + size > MOST_TERMS):
            mine = np.isin(columns, part)
            used = np.unique(rows[mine])
            row_of = np.searchsorted(used, rows[mine])
            column_of = np.searchsorted(np.array(part), columns[mine])
            yield PubGroup(used, part, places[mine], row_of, column_of)
            part, terms = [], 0
        part.append(column)
        terms += size


def _paulis(observable: dict[str, float]) -> dict[str, float]:
    """Convert an observable to a sum of Paulis: projectors on eigenstates, which Qiskit's labels
    may hold, are expanded."""
    if all(not label.strip("IXYZ") for label in observable):
        return observable
    total = sum(math.prod(len(_LETTERS[letter]) for letter in label) for label in observable)
    if total > MOST_TERMS:
        text = f"an observable of {total} Pauli strings; the limit is {MOST_TERMS}"
        raise LimitExceededError(text, hint="fewer projectors (0, 1, +, -, r, l) in one term")
    entries: dict[str, float] = {}
    for label, weight in observable.items():
        for letters in product(*(_LETTERS[letter] for letter in label)):
            key = "".join(letter for letter, _ in letters)
            factor = math.prod(factor for _, factor in letters)
            entries[key] = entries.get(key, 0.0) + weight * factor
    return entries


DEVICE_PRECISION = 0.015625  # 4,096 shots, as Qiskit's BackendEstimatorV2
FINEST_PRECISION = MAX_SHOTS**-0.5
_Results: TypeAlias = primitives.PrimitiveResult[primitives.PubResult]


class _Group(NamedTuple):
    """Tasks of one group of a plan, with the group's number."""

    number: int
    tasks: list[Task]


class SimenvEstimator(primitives.BaseEstimatorV2):  # type: ignore[misc]  # qiskit is untyped
    """Estimates PUBs `(circuit, observables, parameter values, precision)`.

    A precision p > 0 takes ceil(1 / p^2) shots of each Pauli string; 0 is exact. The values of all
    observables of a PUB come from one state for each set of parameter values, and all PUBs of a
    call are submitted together. The same seed, PUBs and backend give the same results. On a machine
    the bases of the observables are measured, as by Qiskit's BackendEstimatorV2.
    """

    def __init__(
        self,
        mode: SimenvBackend | sampler.SimenvSession | sampler.SimenvBatch | None = None,
        *,
        default_precision: float | None = None,
        seed: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        """Set defaults. `mode`: see `sampler.backend_of`. `default_precision`: None: 0.0 (exact) on
        an ideal backend, else 0.015625. `seed`: None: the backend's, else one is drawn for each
        call; a list: that of each PUB (of a machine the first). `options`: noise, precision (of
        amplitudes), compile, engine_options, priority, queue_timeout_s, run_timeout_s, account and
        qos, as for `SimenvBackend.run`; the backend's by default. Raises TypeError for others."""
        self._backend = sampler.backend_of(mode)
        self._options = self._backend.primitive_options(options)
        if default_precision is None:
            default_precision = DEVICE_PRECISION if self._backend.is_emulated else 0.0
        self.default_precision = default_precision
        self.seed = self._backend.default_seed if seed is None else seed

    @property
    def backend(self) -> SimenvBackend:
        """Backend that runs the PUBs."""
        return self._backend

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> primitives.BasePrimitiveJob[_Results, Any]:
        """Submit PUBs. `precision`: of PUBs without one. Raises ValueError and TypeError for an
        argument that is no PUB or a precision beyond the limits, QiskitError for a circuit that the
        environment does not run. No PUB is accepted then. On a machine, the job's `result` raises
        that error."""
        default = self.default_precision if precision is None else precision
        read = [EstimatorPub.coerce(pub, default) for pub in pubs]
        shots = [shots_of(pub.precision) for pub in read]
        if self._backend.info.kind is DeviceKind.HARDWARE:
            return self._measured(read)
        job_id = self._backend.new_job_id()
        with refusals():
            seeds = item_seeds(self.seed, len(read), None)
            plans = [plan_of(pub) for pub in read]
            items, owners = [], []
            for number, (pub, plan) in enumerate(zip(read, plans, strict=True)):
                values = sampler.pub_values(pub)
                own = [seeds[number]]
                if len(plan.groups) > 1:  # independent random numbers for each group
                    own = item_seeds(seeds[number], len(plan.groups), None)
                for group_number, group in enumerate(plan.groups):
                    rows = None if values is None else values[group.rows]
                    options = self._backend.submit_options(
                        shots=shots[number] or None,
                        seed=sampler.task_seed(self.seed, own[group_number], pub),
                        outputs=("expectation",),
                        observables=[plan.observables[k] for k in group.observables],
                        name=f"estimator-{job_id[:8]}",
                        **self._options,
                    )
                    items.append(BatchItem(pub.circuit, options, rows))
                    owners.append((number, group_number))
        groups: list[list[_Group]] = [[] for _ in read]
        with refusals([number for number, _ in owners]):
            sent = self._backend.submitted(items)
        for (number, group_number), tasks in zip(owners, sent, strict=True):
            groups[number].append(_Group(group_number, tasks))

        def collect() -> _Results:
            results = list(map(_pub_result, read, plans, groups))
            own = [[task for group in each for task in group.tasks] for each in groups]
            return primitives.PrimitiveResult(results, metadata=sampler.run_metadata(seeds, own))

        every = [task for tasks in sent for task in tasks]
        return SimenvPrimitiveJob(job_id, self._backend.client, every, collect)

    def _measured(self, pubs: Sequence[EstimatorPub]) -> primitives.PrimitiveJob[_Results]:
        """Run PUBs on a machine, which has no expectation values: Qiskit's estimator measures
        qubit-wise commuting terms together, with ceil(1 / p^2) shots each."""
        for number, pub in enumerate(pubs):
            if not pub.precision:
                text = f"PUB {number} has the precision 0: a machine gives no exact values; ask for"
                text += f" {DEVICE_PRECISION}, for example"
                raise QiskitError(text)
        backend = copy(self._backend)
        backend.set_options(**self._options)
        seed: Any = self.seed
        seed = seed if is_single_seed(seed) else seed[0]
        options = {"seed_simulator": seed}
        job = primitives.BackendEstimatorV2(backend=backend, options=options).run(pubs)
        self._backend.wait_for(job)
        return job


def shots_of(precision: float) -> int:
    """Shots of each Pauli string for a target precision; 0: exact. Raises ValueError for a
    precision that is not finite, or needs more shots than a task has."""
    if not precision:
        return 0
    if not math.isfinite(precision):
        raise ValueError(f"precision={precision}: a finite number of at least 0; 0 is exact")
    if precision < FINEST_PRECISION:
        raise ValueError(
            f"precision={precision:g} needs more than {MAX_SHOTS} shots of each Pauli string, the"
            f" limit: a precision of at least {FINEST_PRECISION:.2g}, or 0, which is exact"
        )
    return math.ceil(1.0 / precision**2)


def _pub_result(pub: EstimatorPub, plan: PubPlan, groups: Sequence[_Group]) -> primitives.PubResult:
    """Values and standard errors, float64 of the PUB's shape, and its metadata."""
    values = plan.start.copy()
    errors = np.zeros(values.size)
    for number, tasks in groups:
        group = plan.groups[number]
        table = _estimates(tasks)
        values[group.places] = table[group.row_of, group.column_of, 0]
        errors[group.places] = table[group.row_of, group.column_of, 1]
    metadata = {
        "target_precision": pub.precision,
        "shots": shots_of(pub.precision),
        "circuit_metadata": pub.circuit.metadata,
    }
    shape = pub.shape
    data = DataBin(evs=values.reshape(shape), stds=errors.reshape(shape), shape=shape)
    return primitives.PubResult(data, metadata)


def _estimates(tasks: Sequence[Task]) -> NDArray[np.float64]:
    """Estimates of tasks in the order of their rows, float64 [rows, observables, 2]."""
    parts, seen = [], set()
    for task in tasks:
        handle = task.handle
        if handle.number not in seen:
            seen.add(handle.number)
            task.result()  # raises the task's error
            parts.append((handle.decoded or handle.decode()).expectations())
    return np.concatenate(parts)
