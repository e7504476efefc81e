"""Rows of a request on the general path, on any backend of states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simulators.catalog import SMALL_QUBITS
from simulators.circuit.ir import Circuit
from simulators.control import RunControl
from simulators.engine import Request, RunOptions
from simulators.execution.requests import bind
from simulators.results import EngineResult
from simulators.statevector.plan import ComponentPlan, ExecutionPlan

if TYPE_CHECKING:
    from simulators.statevector.backend.protocol import StateBackend


class RequestExecution(msgspec.Struct, frozen=True, eq=False):
    """One run: its request, and the components of the circuit."""

    circuit: Circuit
    pieces: tuple[ComponentPlan, ...]
    request: Request
    options: RunOptions
    control: RunControl
    number: int  # rows of bindings

    @classmethod
    def of(
        cls,
        plan: ExecutionPlan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
        number: int,
    ) -> RequestExecution:
        """Execution of the support of the outputs; a small circuit is run as a whole."""
        if circuit.num_qubits <= SMALL_QUBITS:
            pieces = plan.as_one_component(circuit)
        else:
            pieces = plan.components(circuit, request)
            if len(pieces) == 1:
                request = pieces[0].request(request, circuit.num_qubits)
                circuit = pieces[0].circuit
        return cls(circuit, pieces, request, options, control, number)

    @property
    def widest(self) -> int:
        """Qubits of the widest state it holds."""
        return max([piece.circuit.num_qubits for piece in self.pieces])


def run_rows(states: StateBackend, job: RequestExecution) -> EngineResult:
    """Run row after row on the general path."""
    from simulators.statevector.combine import CombinedRun  # small circuits do without
    from simulators.statevector.execute import ComponentRun

    circuit, request, options = job.circuit, job.request, job.options
    results = []
    for row in range(job.number):
        key = (request.seed, request.binding + row)
        params = bind(circuit, request, row)
        if len(job.pieces) > 1:
            result = CombinedRun(
                states, circuit, job.pieces, params, request, key, options
            ).result()
        else:
            schedules = job.pieces[0].programs
            result = ComponentRun(
                states, circuit, schedules, params, request, key, options
            ).result()
        results.append(result)
    return EngineResult.joined(results)
