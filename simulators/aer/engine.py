"""The engine `aer`: Qiskit Aer's statevector method.

A circuit without anything between its gates is evolved once, and its state sampled as the seed
contract says. A dynamic circuit goes through Aer shot by shot, in blocks with seeds of their own.
Aer cannot be interrupted in a call: the control flag is looked at between calls.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator
from qiskit_aer.aererror import AerError

from simulators import dense, expectation
from simulators.aer.convert import ELSEWHERE, convert
from simulators.base import BindingResult, Control, EngineResult, Plan, Request, RunOptions
from simulators.blocks import BLOCK_SHOTS, blocks
from simulators.catalog import CARDS
from simulators.circuit.examples import bell, feed_forward
from simulators.circuit.ir import Circuit
from simulators.circuit.walk import Endings
from simulators.errors import OutOfMemory, Unsupported
from simulators.requests import bound, check_outputs, check_plan, check_run, rows
from simulators.sampling import outcome_width

CARD = next(entry for entry in CARDS if entry.name == "aer")
SERIAL_QUBITS = 14  # below this a second thread costs more than it brings
_DTYPES = {"double": np.complex128, "single": np.complex64}


class AerEngine:
    """See the module."""

    name = "aer"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Never: a plan is two compiled passes."""
        return False

    def plan(self, circuit: Circuit, noise: object | None, options: RunOptions) -> Plan:
        """Refuses noise; what Aer cannot run is refused when it is handed over."""
        check_plan(CARD, circuit, noise, options)
        return Endings.of(circuit)

    def run(
        self, plan: Plan, circuit: Circuit, request: Request, options: RunOptions, control: Control
    ) -> EngineResult:
        """See `base.Engine`."""
        if not isinstance(plan, Endings):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        check_run(circuit, options)
        number = rows(circuit, request)
        check_outputs(CARD, request, plan.clbits.measures, collapses=plan.state.branching)
        _refuse_mixed(plan, request)
        library = _Library(circuit.num_qubits, options)
        found = []
        for row in range(number):
            control.check()
            params = bound(circuit, request, row)
            key = request.seed, request.binding + row
            if "counts" in request.outputs and plan.clbits.branching:
                found.append(_shot_by_shot(library, circuit, params, request, key, control))
            else:
                found.append(_sampled(library, plan, circuit, params, request, key))
            control.check()
        return EngineResult.joined(found)

    def warm_up(self) -> None:
        """Run small circuits, dynamic and not."""
        for circuit in (bell(), feed_forward()):
            options = RunOptions()
            plan = self.plan(circuit, None, options)
            self.run(plan, circuit, Request(16, 1), options, Control())


class _Library:
    """One Aer simulator, told how many threads it has and nothing else of the machine."""

    def __init__(self, num_qubits: int, options: RunOptions) -> None:
        threads = options.threads if num_qubits >= SERIAL_QUBITS else 1
        self._simulator = AerSimulator(
            method="statevector",
            precision=options.precision,
            max_parallel_threads=threads,
            max_parallel_experiments=1,
            max_parallel_shots=1,
        )
        self._dtype = _DTYPES[options.precision]

    def counts(self, circuit: QuantumCircuit, shots: int, seed: int) -> dict[str, int]:
        """How often each outcome came, by its number in hexadecimal."""
        found: dict[str, int] = self._run(circuit, shots=shots, seed_simulator=seed)["counts"]
        return found

    def state(self, circuit: QuantumCircuit) -> NDArray[np.complexfloating]:
        """The final state [2**n] of a circuit of gates alone."""
        if not circuit.num_qubits:
            return np.exp(1j * np.array([float(circuit.global_phase)])).astype(self._dtype)
        circuit.save_statevector()
        state: NDArray[np.complexfloating] = np.asarray(self._run(circuit)["statevector"])
        return state.astype(self._dtype, copy=False)

    def _run(self, circuit: QuantumCircuit, **keywords: int) -> dict:  # type: ignore[type-arg]
        try:
            result = self._simulator.run(circuit, **keywords).result()
        except AerError as error:
            raise Unsupported(f"Aer: {error.message}", hint=ELSEWHERE) from error
        if not result.success:
            status = result.results[0].status if result.results else result.status
            if "emory" in status:
                raise OutOfMemory(f"Aer: {status}", hint="take fewer qubits, or single precision")
            raise Unsupported(f"Aer: {status}", hint=ELSEWHERE)
        found: dict = result.data(0)  # type: ignore[type-arg]
        return found


def _refuse_mixed(plan: Endings, request: Request) -> None:
    """A dynamic circuit leaves a mixed state; Aer has counts of it and nothing else."""
    for output, end in (("probabilities", plan.clbits), ("expectation", plan.state)):
        if output in request.outputs and (end.branching or plan.clbits.branching):
            raise Unsupported(
                f"engine 'aer' has no output {output!r} of a circuit that measures, resets or"
                " branches on the way",
                hint=f"ask for counts; {ELSEWHERE} exactly",
            )


def _shot_by_shot(
    library: _Library,
    circuit: Circuit,
    params: NDArray[np.float64],
    request: Request,
    key: tuple[int, int],
    control: Control,
) -> BindingResult:
    """Counts of a dynamic circuit."""
    converted = convert(circuit, params, measured=True)
    found: Counter[int] = Counter()
    for seed, wanted in blocks(request.shots, *key, control):
        for outcome, count in library.counts(converted, wanted, seed).items():
            found[int(outcome, 16)] += count
    width = outcome_width(circuit.num_clbits)
    outcomes = sorted(found)
    return BindingResult(
        outcome_width=width,
        outcomes=b"".join([outcome.to_bytes(width, "little") for outcome in outcomes]),
        counts=np.array([found[outcome] for outcome in outcomes], np.uint32).tobytes(),
        remark=f"blocks of {BLOCK_SHOTS} shots",
    )


def _sampled(
    library: _Library,
    plan: Endings,
    circuit: Circuit,
    params: NDArray[np.float64],
    request: Request,
    key: tuple[int, int],
) -> BindingResult:
    """All outputs of a circuit whose measurements can wait for its end."""
    asked, source = request.outputs, plan.clbits.source
    strings = expectation.terms(request.observables, circuit.num_qubits)
    if "expectation" in asked:
        expectation.refuse_collapsed(request.observables, strings, plan.state.measured)
    state = library.state(convert(circuit, params, measured=False))
    width, outcomes, counts = 0, b"", b""
    value_width, values, odds = 0, b"", b""
    expectations: tuple[tuple[float, float], ...] = ()
    if "counts" in asked:
        width, outcomes, counts = dense.counts(state, source, request.shots, key)
    if "probabilities" in asked:
        read = source if plan.clbits.measures else None
        value_width, values, odds = dense.distribution(state, read)
    if "expectation" in asked:
        means = dense.means(state, strings)
        if request.shots:
            means = expectation.sampled(means, request.shots, key)
        expectations = expectation.estimates(request.observables, means, request.shots)
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
