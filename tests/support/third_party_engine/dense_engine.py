"""An engine of another distribution: all amplitudes in plain numpy, for up to 12 qubits."""

from __future__ import annotations

import numpy as np

from simulators.catalog import EngineCard
from simulators.catalog.costs import StatevectorCost
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.operations import matrix, operations
from simulators.errors import Unsupported
from simulators.execution import requests, sampling
from simulators.results import BindingResult, EngineResult

CARD = EngineCard(
    name="dense", module="dense_engine:DenseEngine", outputs=("counts", "probabilities"),
    dynamic=False, reproducible=True, precisions=("double",), max_qubits=12, needs=("numpy",),
    install="pip install dense-engine", summary="all amplitudes, by numpy", costs=StatevectorCost(),
    loops=False, variables=False, threads=False,
    auto_rank=lambda _profile, num_qubits: -1 if num_qubits <= 2 else 100,
)  # fmt: skip


class DenseEngine:
    name = "dense"

    def worth_caching(self, circuit) -> bool:
        return False

    def plan(self, circuit, noise, options) -> MeasurementLayouts:
        requests.check_request(CARD, circuit, noise, options)
        return MeasurementLayouts.of(circuit)

    def run(self, plan, circuit, request, options, control) -> EngineResult:
        layouts, count = requests.open_run(CARD, plan, circuit, request, options)
        if layouts.clbits.branching:
            raise Unsupported("mid-circuit operations", hint="engine='statevector' has them")
        results, asked, source = [], request.outputs, layouts.clbits.source
        read = source if layouts.clbits.measures else None
        for row in range(count):
            state = _evolve(circuit, requests.bind(circuit, request, row), control)
            key, no = (request.seed, request.binding + row), (0, b"", b"")
            counts = sampling.counts(state, source, request.shots, key) if "counts" in asked else no
            odds = sampling.distribution(state, read) if "probabilities" in asked else no
            results.append(BindingResult(*counts, odds[1], odds[0], odds[2]))
        return EngineResult.joined(results)

    def warm_up(self) -> None:
        pass


def _evolve(circuit, params, control) -> np.ndarray:
    n, state = circuit.num_qubits, np.zeros((2,) * circuit.num_qubits, np.complex128)
    state[(0,) * n] = 1.0
    for operation in (each for each in operations(circuit, params) if each.is_gate):
        control.check()
        k, axes = len(operation.qubits), [n - 1 - q for q in reversed(operation.qubits)]
        gate = matrix(circuit, operation).reshape((2,) * (2 * k))
        state = np.moveaxis(np.tensordot(gate, state, (range(k, 2 * k), axes)), range(k), axes)
    return np.ascontiguousarray(state).reshape(-1)
