"""Engine `aer`: Qiskit Aer's statevector method.

A circuit without mid-circuit operations is evolved once, and its state sampled by the seed
contract. A dynamic circuit is run by Aer shot by shot, in blocks with seeds of their own.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from simulators.aer.library import ELSEWHERE, Sampler, block_shots, evolve
from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.engine import SAMPLED, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution.base import BoundRun, EngineBase
from simulators.execution.outputs import (
    CountedState,
    DenseState,
    FinalState,
    RecordedState,
)
from simulators.execution.qiskit_export import Dialect, convert
from simulators.execution.rng import blocks
from simulators.execution.sampling import records_of

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


class AerEngine(EngineBase):
    """Qiskit Aer as an engine."""

    card = CARD

    def check(self, layouts: MeasurementLayouts, request: Request, options: RunOptions) -> None:
        """Refuse exact outputs of a dynamic circuit: it leaves a mixed state, for which Aer has
        counts only."""
        del options
        for output, end in (("probabilities", layouts.clbits), ("expectation", layouts.state)):
            if output in request.outputs and (end.branching or layouts.clbits.branching):
                raise Unsupported(
                    f"engine 'aer' has no output {output!r} of a circuit that measures, resets or"
                    " branches on the way",
                    hint=f"ask for counts; {ELSEWHERE} exactly",
                )

    def final_state(self, run: BoundRun) -> FinalState:
        """See `EngineBase`. Raises Unsupported for circuits that Aer cannot run."""
        if run.layouts.clbits.branching and not SAMPLED.isdisjoint(run.request.outputs):
            return _shot_by_shot(run)
        work = partial(evolve, run.circuit, run.params, run.options.threads, run.control)
        return DenseState(run.layouts, run.circuit.num_qubits, work)


def _shot_by_shot(run: BoundRun) -> FinalState:
    """Outcomes of a dynamic circuit: counted, or in the order of the shots for `memory`."""
    circuit, request = run.circuit, run.request
    size = block_shots(circuit)
    converted = convert(circuit, run.params, DIALECT)
    sampler = Sampler(circuit.num_qubits, run.options.threads)
    counts: Counter[int] = Counter()
    memory: list[int] = []
    for seed, wanted in blocks(request.shots, *run.key, run.control, size):
        if "memory" in request.outputs:
            memory += [int(outcome, 16) for outcome in sampler.memory(converted, wanted, seed)]
            continue
        for outcome, count in sampler.counts(converted, wanted, seed).items():
            counts[int(outcome, 16)] += count
    remark = f"blocks of {size} shots"
    if memory:
        return RecordedState(circuit.num_qubits, records_of(memory, circuit.num_clbits), remark)
    return CountedState(circuit, counts, remark)
