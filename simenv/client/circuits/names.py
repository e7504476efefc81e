"""The classes of Qiskit that packing asks for, imported at first use.

Invariant: nothing of Qiskit is imported before a circuit or a text is loaded.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Names:
    """Qiskit's classes, by the names they have there."""

    QuantumCircuit: Any
    ClassicalRegister: Any
    Clbit: Any
    Instruction: Any
    Gate: Any
    ParameterExpression: Any
    Measure: Any
    Reset: Any
    Barrier: Any
    Delay: Any
    Parameter: Any
    IfElseOp: Any
    WhileLoopOp: Any
    ForLoopOp: Any
    SwitchCaseOp: Any
    BreakLoopOp: Any
    ContinueLoopOp: Any
    CASE_DEFAULT: Any
    ControlFlowOp: Any
    Store: Any
    UnitaryGate: Any
    MCXGate: Any
    C4XGate: Any
    MCPhaseGate: Any


@cache
def names() -> Names:
    """Import them. ImportError does not occur: Qiskit is a dependency of this distribution."""
    from qiskit import circuit
    from qiskit.circuit.library import C4XGate, MCPhaseGate, MCXGate, UnitaryGate

    return Names(
        QuantumCircuit=circuit.QuantumCircuit,
        ClassicalRegister=circuit.ClassicalRegister,
        Clbit=circuit.Clbit,
        Instruction=circuit.Instruction,
        Gate=circuit.Gate,
        ParameterExpression=circuit.ParameterExpression,
        Measure=circuit.Measure,
        Reset=circuit.Reset,
        Barrier=circuit.Barrier,
        Delay=circuit.Delay,
        Parameter=circuit.Parameter,
        IfElseOp=circuit.IfElseOp,
        WhileLoopOp=circuit.WhileLoopOp,
        ForLoopOp=circuit.ForLoopOp,
        SwitchCaseOp=circuit.SwitchCaseOp,
        BreakLoopOp=circuit.BreakLoopOp,
        ContinueLoopOp=circuit.ContinueLoopOp,
        CASE_DEFAULT=circuit.CASE_DEFAULT,
        ControlFlowOp=circuit.ControlFlowOp,
        Store=circuit.Store,
        UnitaryGate=UnitaryGate,
        MCXGate=MCXGate,
        C4XGate=C4XGate,
        MCPhaseGate=MCPhaseGate,
    )


def is_circuit(value: object) -> bool:
    """Is this a QuantumCircuit? False, without importing Qiskit, if nobody imported it yet."""
    return "qiskit" in sys.modules and isinstance(value, names().QuantumCircuit)
