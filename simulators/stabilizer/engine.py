"""Stabilizer engine: Clifford circuits of any width, through stim.

Counts are sampled in blocks of shots with seeds of their own: they are the same on one version of
stim and one processor family. Probabilities and expectation values are exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import CARDS
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.examples import bell
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.execution import pauli_sums
from simulators.execution.requests import bind, check_request, open_run
from simulators.execution.rng import BLOCK_SHOTS, blocks
from simulators.execution.sampling import Counts, select
from simulators.results import BindingResult, EngineResult
from simulators.stabilizer import exact
from simulators.stabilizer.convert import Converted, convert

CARD = next(entry for entry in CARDS if entry.name == "stabilizer")


class StabilizerEngine:
    """Clifford circuits. What a binding's angles make of a gate is seen when it runs."""

    name = "stabilizer"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Never: a plan is two compiled passes."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Refuses any noise; what is no Clifford gate is refused by the run."""
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
        found = []
        for row in range(number):
            control.check()
            run = _Run(endings, circuit, bind(circuit, request, row), request, control)
            found.append(run.result(request.binding + row))
        return EngineResult.joined(found)

    def warm_up(self) -> None:
        """Run a small circuit for every output."""
        options = RunOptions()
        request = Request(16, 1, CARD.outputs)
        self.run(self.plan(bell(), None, options), bell(), request, options, RunControl())


class _Run:
    """One binding."""

    def __init__(
        self,
        plan: MeasurementLayouts,
        circuit: Circuit,
        params: NDArray[np.float64],
        request: Request,
        control: RunControl,
    ) -> None:
        self._plan = plan
        self._circuit = circuit
        self._params = params
        self._request = request
        self._control = control

    def result(self, binding: int) -> BindingResult:
        """Everything the request asks for."""
        request = self._request
        key = request.seed, binding
        width, outcomes, counts = 0, b"", b""
        values, value_width, odds = b"", 0, b""
        expectations: tuple[tuple[float, float], ...] = ()
        if "expectation" in request.outputs:
            expectations = self._expectations(key)
        if "counts" in request.outputs:
            width, outcomes, counts = self._counts(key)
        if "probabilities" in request.outputs:
            values, value_width, odds = self._probabilities()
        return BindingResult(
            outcome_width=width,
            outcomes=outcomes,
            counts=counts,
            probability_outcomes=values,
            probability_width=value_width,
            probabilities=odds,
            expectations=expectations,
        )

    def _deferred(self, end: MeasurementLayout) -> Converted:
        return convert(self._circuit, self._params, end, deferred=True)

    def _counts(self, key: tuple[int, int]) -> tuple[int, bytes, bytes]:
        made = convert(self._circuit, self._params, self._plan.clbits)
        reference = made.circuit.reference_sample()
        found = Counts(self._circuit.num_clbits)
        for seed, wanted in blocks(self._request.shots, *key, self._control):
            # A whole block, whatever is wanted of it: stim's numbers depend on how many it makes.
            sampler = made.circuit.compile_sampler(seed=seed, reference_sample=reference)
            packed = sampler.sample(BLOCK_SHOTS, bit_packed=True)[:wanted]
            found.add(select(packed, made.source, made.identical))
        return found.width, *found.packed()

    def _probabilities(self) -> tuple[bytes, int, bytes]:
        circuit = self._circuit
        if self._plan.clbits.measures:
            made = self._deferred(self._plan.clbits)
            source = made.source
        else:
            made = self._deferred(self._plan.state)
            source = np.arange(circuit.num_qubits)
        bits = exact.distribution(exact.simulate(made.circuit), source)
        found = Counts(source.size)
        packed = np.packbits(bits, axis=1, bitorder="little")
        found.add(select(packed, np.arange(source.size), identical=True))
        values, counts = found.packed()
        odds = np.frombuffer(counts, np.uint32) / len(bits)
        return values, found.width, odds.tobytes()

    def _expectations(self, key: tuple[int, int]) -> tuple[tuple[float, float], ...]:
        circuit, request, end = self._circuit, self._request, self._plan.state
        strings = pauli_sums.terms(request.observables, circuit.num_qubits)
        pauli_sums.refuse_collapsed(request.observables, strings, end.measured)
        simulator = exact.simulate(self._deferred(end).circuit)
        means = exact.means(simulator, strings, circuit.num_qubits)
        if request.shots:
            means = pauli_sums.sampled(means, request.shots, key)
        return pauli_sums.estimates(request.observables, means, request.shots)
