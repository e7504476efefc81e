"""Engine `aer`: Qiskit Aer's statevector method.

A circuit without mid-circuit operations is evolved once, and its state sampled by the seed
contract. A dynamic circuit is run by Aer shot by shot, in blocks with seeds of their own.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
from numpy.typing import NDArray

from simulators.aer.library import ELSEWHERE, Sampler, block_shots, evolve
from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import SAMPLED, Plan, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution.outputs import (
    CountedState,
    DenseState,
    FinalState,
    RecordedState,
    SeedKey,
    collect,
)
from simulators.execution.qiskit_export import Dialect, convert
from simulators.execution.requests import bind, open_run, plan_layouts
from simulators.execution.rng import blocks
from simulators.execution.sampling import records_of
from simulators.results import EngineResult

# Gates for which Aer has kernels.
_NATIVE = frozenset(
    (
        *("h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg", "p", "r", "rx", "ry", "rz"),
        *("u", "u1", "u2", "u3", "cx", "cy", "cz", "cp", "cu1", "csx", "crx", "cry", "crz"),
        *("cu", "cu3", "swap", "ecr", "rxx", "ryy", "rzz", "rzx", "ccx", "ccz", "cswap"),
    )
)
DIALECT = Dialect("aer", ELSEWHERE, _NATIVE)
CARD = builtin_card("aer")


class AerEngine:
    """Qiskit Aer as an engine."""

    name = "aer"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Return False: a plan is two compiled passes."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the layouts; refuses noise. Circuits that Aer cannot run are refused by `run`."""
        return plan_layouts(CARD, circuit, noise, options)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """See `engine.Engine`."""
        layouts, number = open_run(CARD, plan, circuit, request, options)
        _refuse_mixed(layouts, request)
        results = []
        for row in range(number):
            control.check()
            params = bind(circuit, request, row)
            key = request.seed, request.binding + row
            state: FinalState
            if layouts.clbits.branching and not SAMPLED.isdisjoint(request.outputs):
                state = _shot_by_shot(circuit, params, request, key, options.threads, control)
            else:
                work = partial(evolve, circuit, params, options.threads, control)
                state = DenseState(layouts, circuit.num_qubits, work)
            results.append(collect(state, layouts, request, key))
            control.check()
        return EngineResult.joined(results)

    def warm_up(self) -> None:
        """Run small circuits, dynamic and not."""
        for circuit in (bell(), feed_forward()):
            options = RunOptions()
            plan = self.plan(circuit, None, options)
            self.run(plan, circuit, Request(16, 1), options, RunControl())


def _refuse_mixed(plan: MeasurementLayouts, request: Request) -> None:
    """Refuse exact outputs of a dynamic circuit: it leaves a mixed state, for which Aer has counts
    only."""
    for output, end in (("probabilities", plan.clbits), ("expectation", plan.state)):
        if output in request.outputs and (end.branching or plan.clbits.branching):
            raise Unsupported(
                f"engine 'aer' has no output {output!r} of a circuit that measures, resets or"
                " branches on the way",
                hint=f"ask for counts; {ELSEWHERE} exactly",
            )


def _shot_by_shot(
    circuit: Circuit,
    params: NDArray[np.float64],
    request: Request,
    key: SeedKey,
    threads: int,
    control: RunControl,
) -> FinalState:
    """Outcomes of a dynamic circuit: counted, or in the order of the shots for `memory`."""
    size = block_shots(circuit)
    converted = convert(circuit, params, DIALECT)
    sampler = Sampler(circuit.num_qubits, threads)
    counts: Counter[int] = Counter()
    memory: list[int] = []
    for seed, wanted in blocks(request.shots, *key, control, size):
        if "memory" in request.outputs:
            memory += [int(outcome, 16) for outcome in sampler.memory(converted, wanted, seed)]
            continue
        for outcome, count in sampler.counts(converted, wanted, seed).items():
            counts[int(outcome, 16)] += count
    remark = f"blocks of {size} shots"
    if memory:
        return RecordedState(circuit.num_qubits, records_of(memory, circuit.num_clbits), remark)
    return CountedState(circuit, counts, remark)
