"""Qiskit's SamplerV2 over an environment: joint shots of all registers, as BitArrays."""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, PrimitiveResult
from qiskit.primitives.containers import BitArray, DataBin, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike

from simenv.client.circuits import load
from simenv.client.submission.batch import BatchItem
from simenv.client.submission.options import item_seeds
from simenv.client.tasks.task import Task, distinct_warnings
from simenv.errors import SimenvError
from simenv.frontends.qiskit.backend import SHOTS, SimenvBackend
from simenv.frontends.qiskit.conversion import (
    disjoint,
    register_bits,
    scattered_bits,
    share_bits,
)
from simenv.frontends.qiskit.errors import refusals
from simenv.frontends.qiskit.primitive_job import SimenvPrimitiveJob
from simenv.frontends.qiskit.session import SimenvBatch, SimenvSession, backend_of


class SimenvSampler(BaseSamplerV2):  # type: ignore[misc]  # qiskit is untyped
    """Samples PUBs `(circuit, parameter values, shots)`; all PUBs of a call are submitted together.

    Shots keep their order, and the registers of a shot belong together. The same seed, PUBs and
    backend give the same results.
    """

    def __init__(
        self,
        mode: SimenvBackend | SimenvSession | SimenvBatch,
        *,
        default_shots: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        """Set defaults. `default_shots`: None: the backend's option `shots`. `seed`: None: the
        backend's, else one is drawn for each call. `options`: noise, precision, compile,
        engine_options, priority and run_timeout_s, as for `SimenvBackend.run`; the backend's by
        default. Raises TypeError for others."""
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
    ) -> SimenvPrimitiveJob:
        """Submit PUBs. `shots`: of PUBs without a number.

        Raises ValueError and TypeError for an argument that is no PUB, QiskitError for a circuit
        that the environment does not run. No PUB is accepted then.
        """
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
        job_id = str(uuid.uuid4())
        with refusals():
            seeds = item_seeds(self.seed, len(read), None)
            circuits = [disjoint(pub.circuit) for pub in read]
            sampled = [
                number for number, pub in enumerate(read) if _is_sampled(pub, circuits[number])
            ]
            items = [
                BatchItem(
                    circuits[number],
                    self._backend.submit_options(
                        shots=read[number].shots,
                        seed=seeds[number],
                        outputs=("memory",),
                        name=f"sampler-{job_id[:8]}",
                        **self._options,
                    ),
                    pub_values(read[number]),
                )
                for number in sampled
            ]
        tasks: list[list[Task]] = [[] for _ in read]
        with refusals(sampled):
            for number, result in zip(sampled, self._backend.submitted(items), strict=True):
                tasks[number] = result

        def collect() -> PrimitiveResult[SamplerPubResult]:
            results = [_pub_result(pub, each) for pub, each in zip(read, tasks, strict=True)]
            return PrimitiveResult(results, metadata=run_metadata(seeds, tasks))

        every = [task for each in tasks for task in each]
        return SimenvPrimitiveJob(job_id, self._backend.client, every, collect)


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


class _PubLike(Protocol):
    """PUB of either primitive."""

    @property
    def circuit(self) -> QuantumCircuit: ...
    @property
    def parameter_values(self) -> Any: ...


def pub_values(pub: _PubLike) -> NDArray[np.float64] | None:
    """Values of a PUB, float64 [K, parameters], in C order of its parameter array; None: one
    circuit without parameters."""
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
    fields, first, shared = {}, 0, share_bits(circuit)
    for register in circuit.cregs:
        if shared:
            places = np.array([circuit.find_bit(bit).index for bit in register])
            bits = scattered_bits(memory, places)
        else:
            bits = register_bits(memory, first, register.size)
        fields[register.name] = BitArray(bits, register.size)
        first += register.size
    metadata = {"shots": shots, "circuit_metadata": circuit.metadata}
    return SamplerPubResult(DataBin(**fields, shape=shape), metadata)
