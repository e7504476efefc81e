"""Classes of Qiskit at first use, and bounds on circuits.

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

from simenv.errors import LimitExceededError


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


LEVEL = 1  # optimization level of Qiskit's transpiler
BY_COST = -1  # in place of a level: the cheapest of several compilations
SEED = 7  # seed of its random choices
BELL = "simenv_bell"  # operation that makes the Bell pair of a link, up to s on its first qubit
MAX_OPERATIONS = 1_000_000  # after every definition is expanded
MAX_ORDER = 64  # of a product formula, whose bound is then far above MAX_OPERATIONS


def least_operations(operation: Any) -> int:
    """Return a lower bound of the operations of a gate of Qiskit's library whose definition is far
    larger than the gate in a file; 1 for all others. The definition is not computed."""
    kind = type(operation).__name__
    if kind == "QFTGate":
        return int(operation.num_qubits) * (int(operation.num_qubits) - 1) // 2
    if kind == "PauliEvolutionGate":
        order = min(int(getattr(operation.synthesis, "order", 1) or 1), MAX_ORDER)
        repetitions = int(getattr(operation.synthesis, "reps", 1))
        return repetitions * int(5 ** max(0, order // 2 - 1))
    return 1


def check_operations(circuit: Any, name: str = "") -> None:
    """Check a QuantumCircuit, its blocks and its gates' own definitions by `least_operations`, each
    gate with its modifiers. Raises LimitExceededError."""
    try:
        total = _least_of_circuit(circuit)
    except RecursionError as error:
        raise LimitExceededError(f"{label(name)}definitions are nested too deeply") from error
    if total > MAX_OPERATIONS:
        raise too_many_operations(label(name))


def _least_of_circuit(circuit: Any) -> int:
    total = 0
    for item in circuit.data:
        # A standard gate has no definition of its own; its Python object costs more than the rest.
        total += 1 if item.is_standard_gate() else _least_of(item.operation)
        if total > MAX_OPERATIONS:
            break
    return total


def _least_of(operation: Any) -> int:
    base = getattr(operation, "base_op", None)  # of an annotated operation
    if base is not None:
        powers = [abs(each.power) for each in operation.modifiers if hasattr(each, "power")]
        times = int(min(max([1.0, *powers]), 2.0 * MAX_OPERATIONS))
        return times * _least_of(base)
    total = least_operations(operation)
    if type(operation).__name__ == "UnitaryGate":  # its synthesis has about half as many CX gates
        total = int(4**operation.num_qubits)
    inner = [*getattr(operation, "blocks", ()), getattr(operation, "_definition", None)]
    return max(total, sum(_least_of_circuit(each) for each in inner if each is not None))


def label(name: str) -> str:
    """Return the prefix of a message about the text `name`; "" without a name."""
    return f"{name}: " if name else ""


def too_many_bits(kind: str, count: int | str, limit: int, prefix: str = "") -> LimitExceededError:
    """Return the refusal of a circuit by its width."""
    hint = "no simulator here is wider; check the sizes of the registers"
    return LimitExceededError(f"{prefix}{count} {kind}; a program holds at most {limit}", hint=hint)


def too_many_operations(prefix: str = "") -> LimitExceededError:
    """Return the refusal of a circuit by its length."""
    text = f"{prefix}more than {MAX_OPERATIONS} operations once every gate definition is expanded"
    hint = "split the circuit; look for gates that call one another many times"
    return LimitExceededError(text, hint=hint)
