"""The statevector engine: which path a run takes.

Counts of a small circuit without branching go through one compiled call (`small`); sweeps of such a
circuit, its probabilities and expectation values through another (`batch`); everything else through
a state in memory, and circuits that measure or reset on the way through `branching`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulators.base import Control, EngineResult, PauliSum, Plan, Request, RunOptions
from simulators.catalog import SMALL_QUBITS
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.crew import Crew
from simulators.errors import Stopped
from simulators.requests import bound, check_plan, check_run, refuse_counts, rows
from simulators.sampling import outcome_width
from simulators.statevector.run import CARD, Run, Schedules
from simulators.statevector.small import (
    MAX_CLBITS,
    NOTHING,
    OUTCOMES,
    STOPPED,
    VALUES,
    count,
    scratch,
)
from simulators.statevector.state import Sweeper

if TYPE_CHECKING:
    from simulators.statevector.batch import Batch

_COUNTS = ("counts",)
_BATCHED = {"counts", "probabilities", "expectation"}
_WARM = ("counts", "probabilities", "expectation")
_ZZ = PauliSum(("ZZ",), np.ones(1))
_WIDTHS = tuple(outcome_width(bits) for bits in range(65))


class StatevectorEngine:
    """All amplitudes in memory. `small=False` forces the dense path, for tests."""

    name = "statevector"

    def __init__(self, *, small: bool = True) -> None:
        self._buffer = scratch()
        self._bytes = self._buffer.data  # cutting this is three times as fast as cutting the array
        self._batch: Batch | None = None
        self._small = SMALL_QUBITS if small else -1

    def worth_caching(self, circuit: Circuit) -> bool:
        """False for small circuits without blocks, which are run without a plan."""
        return circuit.num_qubits > self._small or circuit.conditions.size > 0

    def plan(self, circuit: Circuit, noise: object | None, options: RunOptions) -> Plan:
        """Prepare the structure; refuses any noise, and what no memory could hold."""
        check_plan(CARD, circuit, noise, options)
        plan = Schedules()
        if self.worth_caching(circuit):
            plan.of(circuit, keep=False)
        return plan

    def run(
        self, plan: Plan, circuit: Circuit, request: Request, options: RunOptions, control: Control
    ) -> EngineResult:
        """See `base.Engine`."""
        check_run(circuit, options)
        bindings = request.bindings
        number = 1 if bindings is None and not circuit.num_slots else rows(circuit, request)
        if circuit.num_qubits <= self._small and circuit.num_clbits <= MAX_CLBITS:
            found = self._compiled(circuit, request, number, control)
            if found is not None:
                return found
        if not isinstance(plan, Schedules):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        results = []
        with Crew(options.threads, control) as crew:
            sweeper = Sweeper(crew, control)
            for row in range(number):
                key = (request.seed, request.binding + row)
                params = bound(circuit, request, row)
                run = Run(sweeper, circuit, plan, params, request, key, options)
                results.append(run.result())
        return EngineResult.joined(results)

    def _compiled(
        self, circuit: Circuit, request: Request, number: int, control: Control
    ) -> EngineResult | None:
        """One compiled call; None if the circuit or the request needs the general path."""
        outputs = request.outputs
        if request.shots < 1 and "counts" in outputs:
            return None
        if outputs == _COUNTS and number == 1:
            found = self._counts(circuit, request, control)
        elif set(outputs) <= _BATCHED:
            found = self._rows().run(circuit, request, control)
        else:
            return None
        if not isinstance(found, int):
            return found
        if found == NOTHING:
            refuse_counts(False, request.shots)
        if found == STOPPED:
            raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")
        return None

    def _rows(self) -> Batch:
        """Loaded when first needed: a first circuit shall not wait for its compilation."""
        if self._batch is None:
            from simulators.statevector.batch import Batch

            self._batch = Batch()
        return self._batch

    def _counts(self, circuit: Circuit, request: Request, control: Control) -> EngineResult | int:
        """Counts of one row."""
        width = _WIDTHS[circuit.num_clbits]
        found: int = count(
            self._buffer,
            circuit.table.rows,
            circuit.ops,
            circuit.qubits,
            circuit.clbits,
            bound(circuit, request, 0),
            control.flag,
            circuit.num_qubits,
            circuit.num_clbits,
            width,
            request.shots,
            request.seed,
            request.binding,
        )
        if found < 0:
            return found
        data = self._bytes
        return EngineResult(
            1,
            width,
            bytes(data[OUTCOMES : OUTCOMES + found * width]),
            bytes(data[VALUES : VALUES + 4 * found]),
        )

    def warm_up(self) -> None:
        """Run small circuits through every path; all kernels came with importing this module."""
        for circuit in (bell(), feed_forward()):
            for engine, outputs in ((self, _COUNTS), (StatevectorEngine(small=False), _WARM)):
                options = RunOptions()
                plan = engine.plan(circuit, None, options)
                request = Request(16, 1, outputs, (_ZZ,))
                engine.run(plan, circuit, request, options, Control())
