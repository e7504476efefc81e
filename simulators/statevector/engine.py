"""The statevector engine: which path a run takes.

Counts of a small circuit without branching go through one compiled call; everything else through a
state in memory (`dense`), and circuits that measure or reset on the way through `branching`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.base import (
    BindingResult,
    Control,
    EngineResult,
    PauliSum,
    Plan,
    Request,
    RunOptions,
)
from simulators.catalog import CARDS, SMALL_QUBITS
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.crew import Crew
from simulators.errors import BadCircuit, Stopped, TooManySteps, Unsupported
from simulators.sampling import outcome_width
from simulators.statevector.run import Run, Schedules, refuse_counts
from simulators.statevector.small import BRANCHING, NOTHING, STOPPED, Scratch, count
from simulators.statevector.state import Sweeper

_COUNTS = ("counts",)
_WARM = ("counts", "probabilities", "expectation")
_ZZ = PauliSum(("ZZ",), np.ones(1))
_CARD = next(entry for entry in CARDS if entry.name == "statevector")
_WIDTHS = tuple(outcome_width(bits) for bits in range(65))


def _rows(circuit: Circuit, request: Request) -> int:
    """How many bindings there are. Raises BadCircuit if they do not fit the circuit."""
    bindings = request.bindings
    if bindings is None:
        if circuit.num_slots:
            raise BadCircuit(
                f"the circuit has {circuit.num_slots} free parameters, and no binding came",
                hint="bind them",
            )
        return 1
    if bindings.shape[1] != circuit.num_slots:
        raise BadCircuit(
            f"{bindings.shape[1]} values for {circuit.num_slots} free parameters",
            hint="give one value for each",
        )
    if not np.isfinite(bindings).all():
        raise BadCircuit("a bound parameter is not a finite number", hint="bind real numbers")
    return len(bindings)


def bound(circuit: Circuit, request: Request, row: int) -> NDArray[np.float64]:
    """The circuit's parameters with row `row` of the bindings in their slots."""
    if request.bindings is None or not circuit.slots.size:
        return circuit.params
    params = circuit.params.copy()
    params[circuit.slots[0::2]] = request.bindings[row, circuit.slots[1::2]]
    return params


class StatevectorEngine:
    """All amplitudes in memory. `small=False` forces the dense path, for tests."""

    name = "statevector"

    def __init__(self, *, small: bool = True) -> None:
        self._scratch = Scratch()
        self._small = SMALL_QUBITS if small else -1

    def worth_caching(self, circuit: Circuit) -> bool:
        """False for small circuits without blocks, which are run without a plan."""
        return circuit.num_qubits > self._small or circuit.conditions.size > 0

    def plan(self, circuit: Circuit, noise: object | None, options: RunOptions) -> Plan:
        """Prepare the structure; refuses any noise, and what no memory could hold."""
        if options.precision not in _CARD.precisions:
            raise Unsupported(
                f"precision {options.precision[:32]!r}",
                hint=f"there are {', '.join(_CARD.precisions)}",
            )
        if circuit.num_qubits > _CARD.max_qubits:
            raise Unsupported(
                f"{circuit.num_qubits} qubits; engine 'statevector' takes {_CARD.max_qubits}",
                hint="take fewer qubits",
            )
        if noise is not None:
            raise Unsupported(
                f"engine 'statevector' has no noise, and {type(noise).__name__} was asked for",
                hint="leave the noise out",
            )
        plan = Schedules()
        if self.worth_caching(circuit):
            plan.of(circuit, keep=False)
        return plan

    def run(
        self, plan: Plan, circuit: Circuit, request: Request, options: RunOptions, control: Control
    ) -> EngineResult:
        """See `base.Engine`."""
        if circuit.ops.size > options.max_steps:
            raise TooManySteps(
                f"{circuit.ops.size} operations; max_steps is {options.max_steps}",
                hint="raise max_steps or split the circuit",
            )
        bindings = request.bindings
        rows = 1 if bindings is None and not circuit.num_slots else _rows(circuit, request)
        results: list[BindingResult] = []
        if (
            request.outputs == _COUNTS
            and request.shots > 0
            and circuit.num_qubits <= self._small
            and circuit.num_clbits <= 64
        ):
            for row in range(rows):
                found = self._counts(circuit, request, row, control)
                if found is None:
                    break
                results.append(found)
            else:
                return EngineResult.joined(results)
        if not isinstance(plan, Schedules):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        with Crew(options.threads, control) as crew:
            sweeper = Sweeper(crew, control)
            for row in range(rows):
                key = (request.seed, request.binding + row)
                params = bound(circuit, request, row)
                run = Run(sweeper, circuit, plan, params, request, key, options)
                results.append(run.result())
        return EngineResult.joined(results)

    def _counts(
        self, circuit: Circuit, request: Request, row: int, control: Control
    ) -> BindingResult | None:
        """The compiled call; None if the circuit needs branching."""
        scratch = self._scratch
        width = _WIDTHS[circuit.num_clbits]
        found = count(
            circuit.table.rows,
            circuit.ops,
            circuit.qubits,
            circuit.clbits,
            bound(circuit, request, row),
            circuit.num_qubits,
            circuit.num_clbits,
            width,
            request.shots,
            request.seed,
            request.binding + row,
            control.flag,
            scratch.reals,
            scratch.numbers,
            scratch.ints,
            scratch.floats,
            scratch.outcomes,
            scratch.values,
        )
        if found == BRANCHING:
            return None
        if found == NOTHING:
            refuse_counts(False, request.shots)
        if found == STOPPED:
            raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")
        return BindingResult(
            width,
            bytes(scratch.outcome_bytes[: found * width]),
            bytes(scratch.value_bytes[: found * 4]),
        )

    def warm_up(self) -> None:
        """Run small circuits through every path; all kernels came with importing this module."""
        for circuit in (bell(), feed_forward()):
            for engine, outputs in ((self, _COUNTS), (StatevectorEngine(small=False), _WARM)):
                options = RunOptions()
                plan = engine.plan(circuit, None, options)
                request = Request(16, 1, outputs, (_ZZ,))
                engine.run(plan, circuit, request, options, Control())
