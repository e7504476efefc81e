"""The engine `aer`: Qiskit Aer's statevector method.

A circuit without anything between its gates is evolved once, and its state sampled as the seed
contract says. A dynamic circuit goes through Aer shot by shot, in blocks with seeds of their own.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from simulators.aer.library import ELSEWHERE, Sampler, block_shots, evolve
from simulators.catalog import CARDS
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution import pauli_sums, sampling
from simulators.execution.qiskit_export import Dialect, convert
from simulators.execution.requests import bind, check_request, open_run
from simulators.execution.rng import blocks
from simulators.execution.sampling import pack_counts
from simulators.results import BindingResult, EngineResult

# What Aer has kernels for.
_NATIVE = frozenset(
    (
        *("h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg", "p", "r", "rx", "ry", "rz"),
        *("u", "u1", "u2", "u3", "cx", "cy", "cz", "cp", "cu1", "csx", "crx", "cry", "crz"),
        *("cu", "cu3", "swap", "ecr", "rxx", "ryy", "rzz", "rzx", "ccx", "ccz", "cswap"),
    )
)
DIALECT = Dialect("aer", ELSEWHERE, _NATIVE)
CARD = next(entry for entry in CARDS if entry.name == "aer")


class AerEngine:
    """See the module."""

    name = "aer"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Never: a plan is two compiled passes."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Refuses noise; what Aer cannot run is refused when it is handed over."""
        check_request(CARD, circuit, noise, options)
        return MeasurementLayouts.of(circuit)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        """See `engine.Engine`."""
        endings, number = open_run(CARD, plan, circuit, request, options)
        _refuse_mixed(endings, request)
        found = []
        for row in range(number):
            control.check()
            params = bind(circuit, request, row)
            key = request.seed, request.binding + row
            if "counts" in request.outputs and endings.clbits.branching:
                found.append(_shot_by_shot(circuit, params, request, key, options.threads, control))
            else:
                found.append(
                    _sampled(endings, circuit, params, request, key, options.threads, control)
                )
            control.check()
        return EngineResult.joined(found)

    def warm_up(self) -> None:
        """Run small circuits, dynamic and not."""
        for circuit in (bell(), feed_forward()):
            options = RunOptions()
            plan = self.plan(circuit, None, options)
            self.run(plan, circuit, Request(16, 1), options, RunControl())


def _refuse_mixed(plan: MeasurementLayouts, request: Request) -> None:
    """A dynamic circuit leaves a mixed state; Aer has counts of it and nothing else."""
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
    key: tuple[int, int],
    threads: int,
    control: RunControl,
) -> BindingResult:
    """Counts of a dynamic circuit."""
    size = block_shots(circuit)
    converted = convert(circuit, params, DIALECT)
    sampler = Sampler(circuit.num_qubits, threads)
    found: Counter[int] = Counter()
    for seed, wanted in blocks(request.shots, *key, control, size):
        for outcome, count in sampler.counts(converted, wanted, seed).items():
            found[int(outcome, 16)] += count
    width, outcomes, counts = pack_counts(found, circuit.num_clbits)
    return BindingResult(
        outcome_width=width, outcomes=outcomes, counts=counts, remark=f"blocks of {size} shots"
    )


def _sampled(
    plan: MeasurementLayouts,
    circuit: Circuit,
    params: NDArray[np.float64],
    request: Request,
    key: tuple[int, int],
    threads: int,
    control: RunControl,
) -> BindingResult:
    """All outputs of a circuit whose measurements can wait for its end."""
    asked, source = request.outputs, plan.clbits.source
    strings = pauli_sums.terms(request.observables, circuit.num_qubits)
    if "expectation" in asked:
        pauli_sums.refuse_collapsed(request.observables, strings, plan.state.measured)
    state = evolve(circuit, params, threads, control)
    width, outcomes, counts = 0, b"", b""
    value_width, values, odds = 0, b"", b""
    expectations: tuple[tuple[float, float], ...] = ()
    if "counts" in asked:
        width, outcomes, counts = sampling.counts(state, source, request.shots, key)
    if "probabilities" in asked:
        read = source if plan.clbits.measures else None
        value_width, values, odds = sampling.distribution(state, read)
    if "expectation" in asked:
        means = sampling.means(state, strings)
        if request.shots:
            means = pauli_sums.sampled(means, request.shots, key)
        expectations = pauli_sums.estimates(request.observables, means, request.shots)
    return BindingResult(
        outcome_width=width,
        outcomes=outcomes,
        counts=counts,
        probability_outcomes=values,
        probability_width=value_width,
        probabilities=odds,
        statevector=state if "statevector" in asked else None,
        expectations=expectations,
    )
