"""The classes of Qiskit that packing asks for, imported at first use.

Invariant: nothing of Qiskit is imported before a circuit or a text is loaded.

Qiskit, loaded by a thread that does not end.

Its compiled part (seen with 2.6) keeps things in the thread that loads it first; once that thread
has ended, the process crashes when the next circuit is read. A server that answers each call in a
thread of its own would. Whoever reads a circuit by Qiskit calls `qiskit` before.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import cache
from importlib import import_module
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


_MODULE = "qiskit"
_lock = threading.Lock()


def qiskit() -> None:
    """It is loaded when this returns. ImportError."""
    if getattr(sys.modules.get(_MODULE), "__version__", None) is None:
        _load()


def _load() -> None:
    if threading.current_thread() is threading.main_thread():
        import_module(_MODULE)
        return
    with _lock:
        if getattr(sys.modules.get(_MODULE), "__version__", None) is None:
            done, errors = threading.Event(), list[BaseException]()
            threading.Thread(
                target=_stay, args=(done, errors), name="simenv-qiskit", daemon=True
            ).start()
            done.wait()
            if errors:
                raise errors[0]


def _stay(done: threading.Event, errors: list[BaseException]) -> None:
    try:
        import_module(_MODULE)
    except BaseException as error:  # noqa: BLE001 - raised to the one who waits
        errors.append(error)
        done.set()
        return
    done.set()
    threading.Event().wait()
