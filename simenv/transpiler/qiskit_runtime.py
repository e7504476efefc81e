"""Classes of Qiskit for packing, imported at first use by a thread that does not end.

Invariant: nothing of Qiskit is imported before a circuit or a text is loaded. Qiskit's compiled
part (seen with 2.6) stores data in the thread that loads it first; after the end of that thread,
the process crashes when the next circuit is read. A server that handles each call in a new thread
would crash so. Code that reads a circuit with Qiskit therefore calls `qiskit` before.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class QiskitClasses:
    """Classes of Qiskit, under their names in Qiskit."""

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
def names() -> QiskitClasses:
    """Import the classes. ImportError does not occur: Qiskit is a dependency of this
    distribution."""
    from qiskit import circuit
    from qiskit.circuit import library

    return QiskitClasses(
        **{
            name: getattr(circuit if hasattr(circuit, name) else library, name)
            for name in QiskitClasses.__annotations__
        }
    )


def is_circuit(value: object) -> bool:
    """Return whether this is a QuantumCircuit; False, without an import, if Qiskit is not imported
    yet."""
    return "qiskit" in sys.modules and isinstance(value, names().QuantumCircuit)


_MODULE = "qiskit"
_lock = threading.Lock()


def qiskit() -> None:
    """Load Qiskit. Raises ImportError."""
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
    except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
        errors.append(error)
        done.set()
        return
    done.set()
    threading.Event().wait()
