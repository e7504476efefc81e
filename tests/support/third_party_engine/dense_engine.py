"""An engine of another distribution: all amplitudes in plain numpy."""

from __future__ import annotations

from functools import partial

import numpy as np

from simulators.catalog import EngineCard
from simulators.catalog.costs import StatevectorCost
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.operations import matrix, operations
from simulators.execution import requests
from simulators.execution.outputs import DenseState, collect
from simulators.results import EngineResult

CARD = EngineCard(
    name="dense", module="dense_engine:DenseEngine",
    outputs=("counts", "probabilities", "statevector", "expectation", "memory"),
    dynamic=False, reproducible=True, precisions=("double",), max_qubits=20, needs=("numpy",),
    install="pip install dense-engine", summary="all amplitudes, by numpy", costs=StatevectorCost(),
    loops=False, variables=False, threads=False, gate_qubits=8,
    auto_rank=lambda _profile, num_qubits: -1 if num_qubits <= 2 else 100,
)  # fmt: skip


class DenseEngine:
    name = "dense"

    def worth_caching(self, circuit) -> bool:
        return False

    def plan(self, circuit, noise, options) -> MeasurementLayouts:
        return requests.plan_layouts(CARD, circuit, noise, options)

    def run(self, plan, circuit, request, options, control) -> EngineResult:
        layouts, count = requests.open_run(CARD, plan, circuit, request, options)
        results = []
        for row in range(count):
            params = requests.bind(circuit, request, row)
            state = DenseState(
                layouts, circuit.num_qubits, partial(_evolve, circuit, params, control)
            )
            results.append(collect(state, layouts, request, (request.seed, request.binding + row)))
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
