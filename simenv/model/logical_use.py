"""What a program in native gates costs on a device of logical qubits; pure.

Gates start as early as their qubits allow. The errors of a logical device are Pauli errors: of T by
its magic state, of CX, of a readout, and of every qubit by the time from its first operation to its
last, in which it relaxes to the mixed state. Operations in blocks count once, whatever the
conditions.
"""

from __future__ import annotations

import math
from collections import defaultdict

import msgspec

from simenv.model.devices import DeviceInfo, OperationInfo, QubitInfo
from simenv.model.program import Program

T_GATES = ("t", "tdg")
# Of each rotation that Qiskit's synthesis (Ross and Selinger, arXiv 1403.2975) makes with
# `approximation_degree` 1.0, in the operator norm: Qiskit 2.6 stays below 3e-13.
SYNTHESIS_ERROR = 1e-12
_IN_TIME = ("measure", "reset")


class LogicalUse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Costs of one shot on a device of logical qubits."""

    t_gates: int
    rotations: int  # that became sequences of T gates and Clifford gates
    synthesis_error: float  # bound of all rotations together, in the operator norm
    physical_qubits: int  # of the logical qubits in use, without factories of magic states
    seconds: float  # without the reset before the shot
    error: float  # probability of at least one logical error


def logical_use(program: Program, info: DeviceInfo, rotations: int) -> LogicalUse | None:
    """Return the costs of a program in native gates; None on a device of physical qubits.
    `rotations`: that its compilation synthesized."""
    if info.logical is None:
        return None
    listed = {(each.name, each.qubits): each for each in info.operations}
    first: dict[int, float] = {}
    free: dict[int, float] = defaultdict(float)  # end of the last operation, ns
    kept: dict[int, float] = {}  # end of the last operation but readout, ns
    count, right = 0, 0.0  # T gates, and the logarithm of the probability of no error
    for name, qubits, params in _operations(program):
        begin = max((free[qubit] for qubit in qubits), default=0.0)
        known = listed.get((name, qubits), listed.get((name, ()), _NONE))
        lasts = params[0] if name == "delay" and params else _known(known.duration_ns)
        count += name in T_GATES
        right += math.log1p(-min(_pauli_error(known, len(qubits)), 1.0 - 1e-12))
        for qubit in qubits:
            if name != "barrier":
                first.setdefault(qubit, begin)
            free[qubit] = begin + lasts
            kept[qubit] = begin if name in _IN_TIME else begin + lasts
    for qubit, begin in first.items():
        if qubit < len(info.qubits):
            wrong = _memory_error(info.qubits[qubit], kept[qubit] - begin)
            right += math.log1p(-min(wrong, 1.0 - 1e-12))
    return LogicalUse(
        t_gates=count,
        rotations=rotations,
        synthesis_error=rotations * SYNTHESIS_ERROR,
        physical_qubits=len(first) * info.logical.physical_qubits,
        seconds=1e-9 * max((free[qubit] for qubit in first), default=0.0),
        error=-math.expm1(right),
    )


_NONE = OperationInfo("", (), 0.0, 0.0)


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _pauli_error(known: OperationInfo, num_qubits: int) -> float:
    """Return the probability of an error other than the identity: of a readout as it is stated, of
    a gate (d + 1) / d times its average infidelity (Nielsen, quant-ph/0205035)."""
    error = _known(known.error)
    return error if known.name in _IN_TIME else error * (1.0 + 0.5**num_qubits)


def _memory_error(qubit: QubitInfo, time_ns: float) -> float:
    """Return the probability of a Pauli error of a qubit that relaxes to the mixed state."""
    relaxed, dephased = (
        math.exp(-1e-3 * time_ns / each) if each > 0.0 else 1.0  # unknown: NaN
        for each in (qubit.t1_us, qubit.t2_us)
    )
    return 0.75 - 0.25 * relaxed - 0.5 * dephased


def _operations(program: Program) -> list[tuple[str, tuple[int, ...], list[float]]]:
    """Return name, qubits and parameters of each operation."""
    arities = memoryview(program.arities).cast("H").tolist()
    qubits = memoryview(program.qubits).cast("H").tolist()
    params: list[float] = memoryview(program.params).cast("d").tolist()  # type: ignore[assignment]
    result, at, of_param = [], 0, 0
    for row in memoryview(program.ops).cast("H").tolist():
        size, _, count = arities[3 * row : 3 * row + 3]
        here = tuple(qubits[at : at + size])
        result.append((program.names[row], here, params[of_param : of_param + count]))
        at, of_param = at + size, of_param + count
    return result
