"""Qiskit's SamplerV2, and sessions and batches.

Sessions and batches: reservations of the environment, in the shape of qiskit-ibm-runtime's:

    with SimenvSession(backend) as session:
        sampler = SimenvSampler(mode=session)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, PrimitiveResult
from qiskit.primitives.containers import BitArray, DataBin, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike

from simenv.client.circuits import load
from simenv.client.submission.options import is_single_seed, item_seeds
from simenv.client.submission.send import BatchItem
from simenv.client.tasks.task import Task, distinct_warnings
from simenv.errors import SimenvError
from simenv.frontends.qiskit import job
from simenv.frontends.qiskit.backend import SHOTS, SimenvBackend
from simenv.model.task_rules import checked_seconds

LEASE_S = 600.0  # duration of a reservation, renewed until the session is closed


class _ReservedBackend:
    """Backend whose circuits run under one reservation."""

    def __init__(
        self, backend: SimenvBackend, *, max_time: float | None = None, workers: int = 0
    ) -> None:
        """Reserve capacity. `max_time`: seconds until the reservation ends by itself; None: it is
        renewed until it is closed. `workers`: workers of the backend's pool that serve this session
        alone. Raises QiskitError if the reservation is refused, ValueError."""
        with job.refusals():
            for_s = LEASE_S if max_time is None else checked_seconds("max_time", max_time)
            self._reservation = backend.client.reserve(
                backend.pool,
                workers=workers,
                for_s=for_s,
                account=backend.options.account or "",
            )
            if max_time is None:
                self._reservation.__enter__()
        self._backend = backend.reserved(self._reservation)
        self._is_open = True

    @property
    def session_id(self) -> str:
        """Number of the reservation, as `simenv` lists it."""
        return str(self._reservation.id)

    @property
    def reserved_backend(self) -> SimenvBackend:
        """Backend whose circuits run under the reservation."""
        return self._backend

    def backend(self) -> str:
        """Name of the backend."""
        name: str = self._backend.name
        return name

    def run(self, circuits: Any, **options: Any) -> Any:
        """Run circuits as `SimenvBackend.run`, under the reservation."""
        return self._backend.run(circuits, **options)

    def status(self) -> str:
        """State of the reservation in the environment: "active", for example."""
        return str(self.details()["state"])

    def details(self) -> dict[str, Any]:
        """State, pool and times of the reservation."""
        with job.refusals():
            result = self._backend.client.reservations()
        info = next((each for each in result if each.id == self._reservation.id), None)
        return {
            "id": self.session_id,
            "backend_name": self.backend(),
            "mode": type(self).__name__,
            "state": "closed" if info is None else str(info.state),
            "pool": None if info is None else info.device or None,
            "workers": 0 if info is None else info.workers,
        }

    def close(self) -> None:
        """Wait for the tasks under the reservation, then end it. Idempotent."""
        if self._is_open:
            with job.refusals():
                self._backend.wait()
            self._is_open = False
            with job.refusals():
                self._reservation.release()

    def cancel(self) -> None:
        """End the reservation, and cancel its waiting and running tasks. Idempotent."""
        if self._is_open:
            self._is_open = False
            with job.refusals():
                self._reservation.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self.cancel()


class SimenvSession(_ReservedBackend):
    """Session for dependent jobs of one program, one after the other."""


class SimenvBatch(_ReservedBackend):
    """Batch of independent jobs that are submitted together."""


def backend_of(mode: SimenvBackend | SimenvSession | SimenvBatch | None) -> SimenvBackend:
    """Backend of a primitive's `mode`; None: the ideal one of the environment that is up. Raises
    TypeError for another object."""
    if mode is None:
        return SimenvBackend()
    if isinstance(mode, _ReservedBackend):
        return mode.reserved_backend
    if not isinstance(mode, SimenvBackend):
        raise TypeError(
            f"mode is a {type(mode).__name__}; it is a SimenvBackend, SimenvSession or SimenvBatch"
        )
    return mode


class SimenvSampler(BaseSamplerV2):  # type: ignore[misc]  # qiskit is untyped
    """Samples PUBs `(circuit, parameter values, shots)`; all PUBs of a call are submitted together.
    Shots keep their order, and the registers of a shot belong together. The same seed, PUBs and
    backend give the same results."""

    def __init__(
        self,
        mode: SimenvBackend | SimenvSession | SimenvBatch | None = None,
        *,
        default_shots: int | None = None,
        seed: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        """Set defaults. `mode`: see `backend_of`. `default_shots`: None: the backend's option
        `shots`. `seed`: None: the backend's, else one is drawn for each call; a list: that of each
        PUB's task. `options`: noise, precision, compile, engine_options, priority, queue_timeout_s,
        run_timeout_s, account and qos, as for `SimenvBackend.run`; the backend's by default. Raises
        TypeError for others."""
        self._backend = backend_of(mode)
        self._options = self._backend.primitive_options(options)
        if default_shots is None:
            default_shots = self._backend.options.shots or SHOTS
        self.default_shots = default_shots
        self.seed = self._backend.default_seed if seed is None else seed

    @property
    def backend(self) -> SimenvBackend:
        """Backend that runs the PUBs."""
        return self._backend

    def run(
        self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None
    ) -> job.SimenvPrimitiveJob:
        """Submit PUBs. `shots`: of PUBs without a number. Raises ValueError and TypeError for an
        argument that is no PUB, QiskitError for a circuit that the environment does not run. No PUB
        is accepted then."""
        default = self.default_shots if shots is None else shots
        read = [SamplerPub.coerce(pub, default) for pub in pubs]
        for number, pub in enumerate(read):
            _check_registers(number, pub.circuit)
            if not pub.circuit.cregs:
                warnings.warn(
                    f"The {number}-th pub's circuit has no output classical registers and so the"
                    " result will be empty. Did you mean to add measurement instructions?",
                    UserWarning,
                    stacklevel=2,
                )
        job_id = self._backend.new_job_id()
        with job.refusals():
            seeds = item_seeds(self.seed, len(read), None)
            circuits = [job.disjoint(pub.circuit) for pub in read]
            sampled = [
                number for number, pub in enumerate(read) if _is_sampled(pub, circuits[number])
            ]
            items = [
                BatchItem(
                    circuits[number],
                    self._backend.submit_options(
                        shots=read[number].shots,
                        seed=task_seed(self.seed, seeds[number], read[number]),
                        outputs=("memory",),
                        name=f"sampler-{job_id[:8]}",
                        **self._options,
                    ),
                    pub_values(read[number]),
                )
                for number in sampled
            ]
        tasks: list[list[Task]] = [[] for _ in read]
        with job.refusals(sampled):
            for number, result in zip(sampled, self._backend.submitted(items), strict=True):
                tasks[number] = result

        def collect() -> PrimitiveResult[SamplerPubResult]:
            results = [_pub_result(pub, each) for pub, each in zip(read, tasks, strict=True)]
            return PrimitiveResult(results, metadata=run_metadata(seeds, tasks))

        every = [task for each in tasks for task in each]
        return job.SimenvPrimitiveJob(job_id, self._backend.client, every, collect)


def _is_sampled(pub: SamplerPub, circuit: QuantumCircuit) -> bool:
    """Return whether the PUB needs a run: without a measurement or a stored value all clbits are 0,
    and without a set of values there are no shots. `circuit`: the circuit that is sent."""
    if not circuit.cregs or 0 in pub.shape:
        return False
    try:
        loaded = load(circuit)
    except SimenvError:
        return True  # the submission raises it, with the number of the circuit
    return loaded.measures or "store" in loaded.program.names


def _check_registers(number: int, circuit: QuantumCircuit) -> None:
    """Check that Qiskit's result has a place for each register of a PUB's circuit. Raises its
    ValueError or TypeError for a name such as "keys"."""
    bits = BitArray(np.zeros((1, 1), np.uint8), 1)
    for register in circuit.cregs:
        try:
            DataBin(**{register.name: bits}, shape=())
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{error}: rename the register {register.name!r} of circuit {number}"
            ) from error


def run_metadata(seeds: Sequence[int], tasks: Sequence[Sequence[Task]]) -> dict[str, Any]:
    """Metadata of a primitive's result: seed of each PUB, warnings about requested noise, and the
    engine's remark."""
    entries = [
        {
            "seed": seed,
            "warnings": distinct_warnings(each),
            "remark": each[0].result().remark if each else "",
        }
        for seed, each in zip(seeds, tasks, strict=True)
    ]
    return {"version": 2, "simenv": entries}


def task_seed(given: Any, seed: int, pub: Any) -> Any:
    """Seed of a PUB's submission. One of a list is used as it is. Another is that of a list of one
    circuit, from which the task's is derived."""
    return seed if is_single_seed(given) or pub_values(pub) is not None else [seed]


def pub_values(pub: Any) -> NDArray[np.float64] | None:
    """Values of a PUB of either primitive, float64 [K, parameters], in C order of its parameter
    array; None: one circuit without parameters."""
    parameters = list(pub.circuit.parameters)
    values = pub.parameter_values
    if not parameters and values.shape == ():
        return None
    rows: NDArray[np.float64] = (
        values.as_array(parameters) if parameters else np.zeros((*values.shape, 0))
    )
    return np.ascontiguousarray(rows, np.float64).reshape(math.prod(values.shape), len(parameters))


def _pub_result(pub: SamplerPub, tasks: Sequence[Task]) -> SamplerPubResult:
    """Bits of each register, uint8 [..., shots, bytes], and the PUB's metadata."""
    circuit, shape, shots = pub.circuit, pub.parameter_values.shape, pub.shots
    if tasks:
        memory = np.stack([task.result().memory for task in tasks])
    else:
        memory = np.zeros((math.prod(shape), shots, -(-circuit.num_clbits // 8)), np.uint8)
    memory = memory.reshape(*shape, shots, memory.shape[-1])
    fields, first, shared = {}, 0, job.share_bits(circuit)
    for register in circuit.cregs:
        if shared:
            places = np.array([circuit.find_bit(bit).index for bit in register])
            bits = job.scattered_bits(memory, places)
        else:
            bits = job.register_bits(memory, first, register.size)
        fields[register.name] = BitArray(bits, register.size)
        first += register.size
    metadata = {"shots": shots, "circuit_metadata": circuit.metadata}
    return SamplerPubResult(DataBin(**fields, shape=shape), metadata)
