"""Qiskit's EstimatorV2 over an environment: workers compute the expectation values."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qiskit.exceptions import QiskitError
from qiskit.primitives import (
    BackendEstimatorV2,
    BaseEstimatorV2,
    BasePrimitiveJob,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
)
from qiskit.primitives.containers import DataBin
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from simenv.client.submission.batch import BatchItem
from simenv.client.submission.options import item_seeds
from simenv.client.tasks.task import Task
from simenv.frontends.qiskit.backend import SimenvBackend
from simenv.frontends.qiskit.errors import refusals
from simenv.frontends.qiskit.primitive_job import SimenvPrimitiveJob
from simenv.frontends.qiskit.pub_plan import PubPlan, plan_of
from simenv.frontends.qiskit.sampler import pub_values, run_metadata
from simenv.frontends.qiskit.session import SimenvBatch, SimenvSession, backend_of
from simenv.model import MAX_SHOTS
from simenv.model.devices import DeviceKind

DEVICE_PRECISION = 0.015625  # 4,096 shots, as Qiskit's BackendEstimatorV2
FINEST_PRECISION = MAX_SHOTS**-0.5


class _Group(NamedTuple):
    """Tasks of one group of a plan, with the group's number."""

    number: int
    tasks: list[Task]


class SimenvEstimator(BaseEstimatorV2):  # type: ignore[misc]  # qiskit is untyped
    """Estimates PUBs `(circuit, observables, parameter values, precision)`.

    A precision p > 0 takes ceil(1 / p^2) shots of each Pauli string; 0 is exact. The values of all
    observables of a PUB come from one state for each set of parameter values, and all PUBs of a
    call are submitted together. The same seed, PUBs and backend give the same results. On a machine
    the bases of the observables are measured, as by Qiskit's BackendEstimatorV2.
    """

    def __init__(
        self,
        mode: SimenvBackend | SimenvSession | SimenvBatch,
        *,
        default_precision: float | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        """Set defaults. `default_precision`: None: 0.0 (exact) on an ideal backend, else 0.015625.
        `seed`: None: the backend's, else one is drawn for each call. `options`: noise, precision
        (of amplitudes), compile, engine_options, priority and run_timeout_s, as for
        `SimenvBackend.run`; the backend's by default. Raises TypeError for others."""
        self._backend = backend_of(mode)
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
    ) -> BasePrimitiveJob[PrimitiveResult[PubResult], Any]:
        """Submit PUBs. `precision`: of PUBs without one.

        Raises ValueError and TypeError for an argument that is no PUB or a precision beyond the
        limits, QiskitError for a circuit that the environment does not run. No PUB is accepted
        then. On a machine, the job's `result`
        raises that error.
        """
        default = self.default_precision if precision is None else precision
        read = [EstimatorPub.coerce(pub, default) for pub in pubs]
        shots = [shots_of(pub.precision) for pub in read]
        if self._backend.info.kind is DeviceKind.HARDWARE:
            return self._measured(read)
        job_id = str(uuid.uuid4())
        with refusals():
            seeds = item_seeds(self.seed, len(read), None)
            plans = [plan_of(pub) for pub in read]
            items, owners = [], []
            for number, (pub, plan) in enumerate(zip(read, plans, strict=True)):
                values = pub_values(pub)
                own = [seeds[number]]
                if len(plan.groups) > 1:  # independent random numbers for each group
                    own = item_seeds(seeds[number], len(plan.groups), None)
                for group_number, group in enumerate(plan.groups):
                    rows = None if values is None else values[group.rows]
                    options = self._backend.submit_options(
                        shots=shots[number] or None,
                        seed=own[group_number],
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

        def collect() -> PrimitiveResult[PubResult]:
            results = list(map(_pub_result, read, plans, groups))
            own = [[task for group in each for task in group.tasks] for each in groups]
            return PrimitiveResult(results, metadata=run_metadata(seeds, own))

        every = [task for tasks in sent for task in tasks]
        return SimenvPrimitiveJob(job_id, self._backend.client, every, collect)

    def _measured(self, pubs: Sequence[EstimatorPub]) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Run PUBs on a machine, which has no expectation values: Qiskit's estimator measures
        qubit-wise commuting terms together, with ceil(1 / p^2) shots each."""
        for number, pub in enumerate(pubs):
            if not pub.precision:
                raise QiskitError(
                    f"PUB {number} has the precision 0: a machine gives no exact values; ask for"
                    f" {DEVICE_PRECISION}, for example"
                )
        backend = copy(self._backend)
        backend.set_options(**self._options)
        job = BackendEstimatorV2(backend=backend, options={"seed_simulator": self.seed}).run(pubs)
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


def _pub_result(pub: EstimatorPub, plan: PubPlan, groups: Sequence[_Group]) -> PubResult:
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
    return PubResult(data, metadata)


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
