"""The engine `mps`: a matrix product state, for wide circuits of little entanglement.

Exact as long as no bond needs more than the option `bond`; else the result says what was cut off.
Qubits stand in the circuit's own order: gates between distant ones are dear.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import CARDS
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Plan, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution import pauli_sums, sampling
from simulators.execution.requests import bind, check_request, open_run
from simulators.execution.sampling import Counts
from simulators.results import BindingResult, EngineResult
from simulators.tensornetwork.evolve import evolve, warm_up
from simulators.tensornetwork.mps_state import Chain

CARD = next(entry for entry in CARDS if entry.name == "mps")
_DTYPES = {"double": "complex128", "single": "complex64"}
_SHOTS_AT_ONCE = 8_192
_BITS_AT_ONCE = 1 << 24


class MpsEngine:
    """See the module."""

    name = "mps"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Never: a plan is one compiled pass."""
        return False

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Refuses noise, and circuits that measure, reset or branch before their end."""
        check_request(CARD, circuit, noise, options)
        endings = MeasurementLayouts.of(circuit)
        if endings.clbits.branching:
            raise Unsupported(
                "engine 'mps' has no measurements, resets or conditions before a circuit's end",
                hint="engine='statevector' runs it, where its qubits fit into memory",
            )
        _refuse_wide(circuit)
        return endings

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
        _refuse_dense(circuit, request)
        found = []
        for row in range(number):
            control.check()
            chain = evolve(
                circuit,
                bind(circuit, request, row),
                bond=int(CARD.value(options.settings, "bond")),
                cutoff=float(CARD.value(options.settings, "cutoff")),
                dtype=_DTYPES[options.precision],
                control=control,
            )
            key = request.seed, request.binding + row
            found.append(_result(chain, circuit, endings, request, key, control))
        return EngineResult.joined(found)

    def warm_up(self) -> None:
        """Load and compile all that a first task would have to wait for."""
        warm_up()


def _refuse_wide(circuit: Circuit) -> None:
    """Every gate becomes a matrix, `mcx` of any width too."""
    rows = circuit.table.rows
    wide = np.flatnonzero((rows[:, 0] >= UNITARY) & (rows[:, 1] > CARD.gate_qubits))
    for row in wide[np.isin(wide, circuit.ops)].tolist():
        raise Unsupported(
            f"{circuit.table.names[row]} on {rows[row, 1]} qubits; engine 'mps' takes gates on at"
            f" most {CARD.gate_qubits}",
            hint="decompose it: qiskit.transpile with basis_gates=['u', 'cx']",
        )


def _refuse_dense(circuit: Circuit, request: Request) -> None:
    for output in ("statevector", "probabilities"):
        if output in request.outputs and circuit.num_qubits > CARD.dense_qubits:
            raise Unsupported(
                f"{output} of {circuit.num_qubits} qubits; engine 'mps' makes whole states of at"
                f" most {CARD.dense_qubits}",
                hint="ask for counts or expectation values",
            )


def _result(
    chain: Chain,
    circuit: Circuit,
    plan: MeasurementLayouts,
    request: Request,
    key: tuple[int, int],
    control: RunControl,
) -> BindingResult:
    """Everything the request asks for."""
    asked, end = request.outputs, plan.clbits
    width, outcomes, counts = 0, b"", b""
    value_width, values, odds = 0, b"", b""
    expectations: tuple[tuple[float, float], ...] = ()
    if "expectation" in asked:
        strings = pauli_sums.terms(request.observables, circuit.num_qubits)
        pauli_sums.refuse_collapsed(request.observables, strings, plan.state.measured)
        means = chain.means(strings, control)
        if request.shots:
            means = pauli_sums.sampled(means, request.shots, key)
        expectations = pauli_sums.estimates(request.observables, means, request.shots)
    if "counts" in asked:
        width, outcomes, counts = _counts(chain, end.source, request.shots, key, control)
    state = None
    if "statevector" in asked or "probabilities" in asked:
        state = chain.state()
    if state is not None and "probabilities" in asked:
        source = end.source if end.measures else None
        value_width, values, odds = sampling.distribution(state, source)
    return BindingResult(
        outcome_width=width,
        outcomes=outcomes,
        counts=counts,
        probability_outcomes=values,
        probability_width=value_width,
        probabilities=odds,
        statevector=state if "statevector" in asked else None,
        expectations=expectations,
        truncation=chain.truncation,
        remark=f"bond {chain.bond}",
    )


def _counts(
    chain: Chain,
    source: NDArray[np.int64],
    shots: int,
    key: tuple[int, int],
    control: RunControl,
) -> tuple[int, bytes, bytes]:
    found = Counts(source.size)
    read = np.flatnonzero(source >= 0)
    step = max(1, min(_SHOTS_AT_ONCE, _BITS_AT_ONCE // max(1, len(chain.tensors))))
    for first in range(0, shots, step):
        bits = chain.sample(first, min(first + step, shots), key, control)
        chosen = np.zeros((len(bits), 8 * found.width), np.uint8)
        chosen[:, read] = bits[:, source[read]]
        found.add(np.packbits(chosen, axis=1, bitorder="little"))
    return found.width, *found.packed()
