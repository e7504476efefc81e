"""Transpilation to a device's Target; circuits that fit are left as written.

Clbits are never changed, so counts need no mapping back. The transpiler's level and seed are fixed,
so a circuit is transpiled the same way each time.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ControlFlowOp, Parameter
from qiskit.circuit.exceptions import CircuitError
from qiskit.exceptions import QiskitError
from qiskit.transpiler import PassManager, Target
from qiskit.transpiler.passes import Optimize1qGatesDecomposition

from simulators.circuit.analysis.measurements import MeasurementLayout
from simulators.circuit.gates import DELAY, DELAY_DT, IF, RESET
from simulators.circuit.ir import Circuit
from simulators.errors import Unsupported
from simulators.execution.qiskit_export import Dialect, convert

LEVEL = 1
SEED = 7
ELSEWHERE = "a simulator runs it: leave out the machine's pool"
DIALECT = Dialect("hardware", ELSEWHERE, pauses=True)
_BYTES_AN_OPERATION = 500  # of a cached Qiskit circuit


@dataclass(frozen=True, slots=True)
class TranspiledStructure:
    """Plan: a structure transpiled for the machine, with all its parameters free.

    `full_circuit` None: the result depends on the parameters (durations, or angles that the machine
    supports only in part); each binding is transpiled separately.
    """

    target: Target
    ending: MeasurementLayout
    full_circuit: QuantumCircuit | None
    open: tuple[Parameter, ...]
    transpiled: bool

    @property
    def memory_bytes(self) -> int:
        """Approximate size, bytes."""
        count = 0 if self.full_circuit is None else len(self.full_circuit.data)
        return _BYTES_AN_OPERATION * (count + len(self.open))


def has_durations(circuit: Circuit) -> bool:
    """Return whether the circuit has a delay with a duration."""
    return bool(np.isin(circuit.table.rows[circuit.ops, 0], (DELAY, DELAY_DT)).any())


def refuse_what_is_missing(
    circuit: Circuit, ending: MeasurementLayout, target: Target, machine: str
) -> None:
    """Raise Unsupported for qubits or mid-circuit operations that the Target lacks."""
    if target.num_qubits is not None and circuit.num_qubits > target.num_qubits:
        raise Unsupported(
            f"{circuit.num_qubits} qubits; machine {machine!r} has {target.num_qubits}",
            hint=ELSEWHERE,
        )
    has, codes = set(target.operation_names), circuit.table.rows[circuit.ops, 0]
    for code, operation, feature in ((IF, "if_else", "conditions"), (RESET, "reset", "resets")):
        if operation not in has and (codes == code).any():
            raise Unsupported(f"machine {machine!r} has no {feature}", hint=ELSEWHERE)
    if ending.branching and not is_dynamic(target):
        raise Unsupported(
            f"machine {machine!r} has no measurements before a circuit's end", hint=ELSEWHERE
        )


def is_dynamic(target: Target) -> bool:
    """Return whether operations may follow a measurement. A Target does not state it for the
    measurement itself, but a machine with reset or branches allows it."""
    return not {"reset", "if_else"}.isdisjoint(target.operation_names)


def fitted(
    circuit: Circuit, ending: MeasurementLayout, backend: Any, target: Target
) -> TranspiledStructure:
    """Plan for a structure. Raises Unsupported if the transpiler fails."""
    if has_durations(circuit):
        return TranspiledStructure(target, ending, None, (), False)
    parameters = [Parameter(f"p{k}") for k in range(circuit.params.size)]
    values = np.empty(len(parameters), object)
    values[:] = parameters
    try:
        full, transpiled = _fit(convert(circuit, values, DIALECT), backend, target)
    except Unsupported:
        if not parameters:
            raise
        return TranspiledStructure(target, ending, None, (), False)
    return TranspiledStructure(target, ending, full, tuple(parameters), transpiled)


def bound(
    plan: TranspiledStructure, circuit: Circuit, params: NDArray[np.float64], backend: Any
) -> QuantumCircuit:
    """Circuit to run for one binding."""
    if plan.full_circuit is None:
        return _fit(convert(circuit, params, DIALECT), backend, plan.target)[0]
    left = plan.full_circuit.parameters  # the transpiler may have removed some
    settings = dict(zip(plan.open, params.tolist(), strict=True))
    values = {parameter: value for parameter, value in settings.items() if parameter in left}
    ready = plan.full_circuit.assign_parameters(values) if values else plan.full_circuit
    if plan.transpiled and values:  # gates that can be merged only now that their angles are known
        ready = PassManager(Optimize1qGatesDecomposition(target=plan.target)).run(ready)
    return ready


def _fit(written: QuantumCircuit, backend: Any, target: Target) -> tuple[QuantumCircuit, bool]:
    if fits(written, target):
        return written, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the machine's own plugins
            result = transpile(
                written, backend=backend, optimization_level=LEVEL, seed_transpiler=SEED
            )
    except (QiskitError, CircuitError) as error:
        raise Unsupported(
            f"the circuit cannot be written in the machine's gates: {error.message}",
            hint=ELSEWHERE,
        ) from error
    return result, True


def fits(circuit: QuantumCircuit, target: Target) -> bool:
    """Return whether the machine has every operation on exactly these qubits."""
    if target.num_qubits is not None and circuit.num_qubits > target.num_qubits:
        return False
    for item in circuit.data:
        operation = item.operation
        if operation.name == "barrier":
            continue
        if isinstance(operation, ControlFlowOp):
            has = operation.name in target.operation_names
            if not has or not all(fits(block, target) for block in operation.blocks):
                return False
            continue
        qubits = tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
        angles = None if operation.name == "unitary" else list(operation.params)
        if not target.instruction_supported(operation.name, qubits, parameters=angles):
            return False
    return True
