"""Runs of circuits: the checks that all engines share, and the parameters of one binding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import EngineCard
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit
from simulators.engine import BINDINGS, OUTPUTS, PURE, SAMPLED, Request, RunControl, RunOptions
from simulators.errors import BadCircuit, TooManyQubits, TooManySteps, Unsupported


def check_threads(opts: RunOptions) -> None:
    """Raises Unsupported for fewer threads than one."""
    if opts.threads < 1:
        raise Unsupported(f"{opts.threads} threads", hint="a run has one thread at least")


def check_run(circuit: Circuit, opts: RunOptions) -> None:
    """Raises Unsupported for no threads, TooManySteps for more operations than the limit."""
    check_threads(opts)
    if len(circuit.ops_data) > 2 * opts.max_steps:
        text = f"{circuit.ops.size} operations; max_steps is {opts.max_steps}"
        raise TooManySteps(text, hint="raise max_steps or split the circuit")


def check_outputs(
    card: EngineCard, request: Request, measures: bool, *, collapses: bool = False
) -> None:
    """Raises Unsupported for outputs that the engine lacks, or that are undefined for the circuit.
    `measures`: the circuit has a measurement; `collapses`: it measures, resets or branches before
    its end."""
    for output in request.outputs:
        if output not in OUTPUTS:
            raise Unsupported(f"output {output[:32]!r}", hint=f"there are {', '.join(OUTPUTS)}")
        if output not in card.outputs:
            hint = f"it has {', '.join(card.outputs)}; engine 'statevector' has all"
            raise Unsupported(f"engine {card.name!r} has no output {output!r}", hint=hint)
    for output in request.outputs:
        if output in SAMPLED:
            refuse_sampled(output, measures, request.shots)
    for output in request.outputs:
        if output in PURE:
            refuse_pure(output, measures, collapses)


def refuse_sampled(output: str, measures: bool, shots: int) -> None:
    """Refuse outputs in SAMPLED without a measurement or without shots."""
    if not measures:
        text = f"output {output!r} was asked for, and the circuit measures nothing"
        hint = "add measurements, or ask for probabilities or the statevector"
        raise Unsupported(text, hint=hint)
    if shots < 1:
        hint = "give shots, or ask for probabilities: they are exact"
        raise Unsupported(f"output {output!r} was asked for, with 0 shots", hint=hint)


_ASKED = {"statevector": "a statevector was", "amplitudes": "amplitudes were"}


def refuse_pure(output: str, measures: bool, collapses: bool) -> None:
    """Refuse outputs in PURE of a circuit with measurements or resets: only without them is the
    final state pure."""
    if measures:
        hint = "remove the measurements, or ask for probabilities"
        raise Unsupported(f"{_ASKED[output]} asked for, and the circuit measures", hint=hint)
    if collapses:
        text = f"{_ASKED[output]} asked for, and the circuit resets or branches on the way"
        hint = "ask for probabilities or expectation values: the final state is mixed"
        raise Unsupported(text, hint=hint)


def refuse_gradient(request: Request, *, branches: bool) -> None:
    """Refuse a gradient unless it is exact, of expectation values, of a circuit that keeps one pure
    state."""
    if "expectation" not in request.outputs:
        hint = "ask for both, and give observables"
        raise Unsupported("a gradient was asked for without expectation values", hint=hint)
    if request.shots:
        hint = "0 shots: gradients are exact"
        raise Unsupported(f"a gradient was asked for with {request.shots} shots", hint=hint)
    if branches:
        raise Unsupported(
            "a gradient was asked for, and the circuit measures, resets or branches before its end",
            hint="shift each parameter and ask for expectation values",
        )


def bits_of(strings: Sequence[str]) -> NDArray[np.uint8]:
    """Bits of strings of one length, the highest qubit first, for `Request.amplitudes`: uint8
    [strings, qubits], qubit q in column q."""
    characters = np.frombuffer("".join(strings).encode(), np.uint8).reshape(len(strings), -1)
    return np.ascontiguousarray(characters[:, ::-1]) - np.uint8(ord("0"))


def num_bindings(circuit: Circuit, request: Request) -> int:
    """Number of bindings. Raises BadCircuit if they do not match the circuit."""
    bindings = request.bindings
    if bindings is None:
        if circuit.num_slots:
            text = f"the circuit has {circuit.num_slots} free parameters, and no binding came"
            raise BadCircuit(text, hint="bind them")
        return 1
    if bindings.shape[1] != circuit.num_slots:
        text = f"{bindings.shape[1]} values for {circuit.num_slots} free parameters"
        raise BadCircuit(text, hint="give one value for each")
    if not np.isfinite(bindings).all():
        raise BadCircuit("a bound parameter is not a finite number", hint="bind real numbers")
    return len(bindings)


def bind(circuit: Circuit, request: Request, row: int) -> NDArray[np.float64]:
    """Parameters of the circuit with row `row` of the bindings in their slots."""
    if request.bindings is None or not circuit.slots_data:
        return circuit.params
    params = circuit.params.copy()
    params[circuit.slots[0::2]] = request.bindings[row, circuit.slots[1::2]]
    return params


class BindingRun(msgspec.Struct, frozen=True, eq=False):
    circuit: Circuit
    params: NDArray[np.float64]  # all parameters of the circuit, bound
    request: Request
    key: tuple[int, int]  # seed and number of the binding
    options: RunOptions
    control: RunControl


class EngineRun(msgspec.Struct, frozen=True, eq=False):
    """A circuit and what is asked of it: the arguments of `Engine.run` without the plan."""

    circuit: Circuit
    request: Request
    options: RunOptions
    control: RunControl

    def row(self, row: int) -> BindingRun:
        circuit, request = self.circuit, self.request
        self.control.row = row
        key = request.seed, request.binding + row
        params = bind(circuit, request, row)
        return BindingRun(circuit, params, request, key, self.options, self.control)

    def rows(self) -> Iterator[BindingRun]:
        """All bindings. Raises BadCircuit if they do not match the circuit."""
        number = num_bindings(self.circuit, self.request)
        return map(self.row, self.control.divide(number, BINDINGS))


def open_run(
    card: EngineCard, plan: object, circuit: Circuit, request: Request, options: RunOptions
) -> tuple[MeasurementLayouts, int]:
    """Check a run; return the plan and the number of bindings. Raises the errors of the checks of
    this module."""
    if not isinstance(plan, MeasurementLayouts):
        raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
    check_run(circuit, options)
    number = num_bindings(circuit, request)
    check_outputs(card, request, plan.clbits.measures, collapses=plan.state.branching)
    for output in ("statevector", "probabilities") if card.dense_qubits else ():
        if output in request.outputs and circuit.num_qubits > card.dense_qubits:
            text = f"{output} of {circuit.num_qubits} qubits; engine {card.name!r} makes"
            text += f" whole states of at most {card.dense_qubits}"
            raise TooManyQubits(text, hint="ask for counts or expectation values")
    return plan, number
