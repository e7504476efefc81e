"""Translation of PennyLane's gates to gates of a program, and the operators that need no
decomposition.

A gate is a list of steps; each names a gate of a program, the wires it acts on and the source of
its angles. Invariant: a gate of the table equals its steps exactly, global phase included; a test
compares the matrices.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from simenv.model import MAX_UNITARY_QUBITS

FIXED = -1  # source of an angle that is constant
SMALL_MATRIX_WIRES = 3  # wider operators without parameters are decomposed, not written as matrices
PREPARED_WIRES = 6  # wider states are not prepared by one matrix
PREPARATIONS = ("StatePrep", "AmplitudeEmbedding")


class Step(NamedTuple):
    """One gate of a program. `wires`: numbers of the operator's wires. `angles`: for each angle the
    number of the operator's parameter and a factor, or FIXED and the angle itself."""

    name: str
    wires: tuple[int, ...]
    angles: tuple[tuple[int, float], ...] = ()


GateSteps = tuple[Step, ...]


def _plain(name: str, wires: int) -> GateSteps:
    return (Step(name, tuple(range(wires))),)


def _turn(name: str, wires: int, factor: float = 1.0) -> GateSteps:
    return (Step(name, tuple(range(wires)), ((0, factor),)),)


def _rot(names: tuple[str, str, str], wires: tuple[int, ...]) -> GateSteps:
    return tuple(Step(name, wires, ((k, 1.0),)) for k, name in enumerate(names))


_ZYZ = ("rz", "ry", "rz")
_CONTROLLED_ZYZ = ("crz", "cry", "crz")

# Gates whose inverse has the opposite angles, with all steps in reverse order.
_TURNS: dict[str, GateSteps] = {
    "RX": _turn("rx", 1),
    "RY": _turn("ry", 1),
    "RZ": _turn("rz", 1),
    "PhaseShift": _turn("p", 1),
    "U1": _turn("p", 1),
    "Rot": _rot(_ZYZ, (0,)),
    "CRX": _turn("crx", 2),
    "CRY": _turn("cry", 2),
    "CRZ": _turn("crz", 2),
    "CRot": _rot(_CONTROLLED_ZYZ, (0, 1)),
    "ControlledPhaseShift": _turn("cp", 2),
    "IsingXX": _turn("rxx", 2),
    "IsingYY": _turn("ryy", 2),
    "IsingZZ": _turn("rzz", 2),
    "IsingXY": (Step("xx_plus_yy", (0, 1), ((0, -1.0), (FIXED, 0.0))),),
    "SingleExcitation": (Step("xx_plus_yy", (0, 1), ((0, 1.0), (FIXED, -math.pi / 2))),),
    "GlobalPhase": (Step("global_phase", (), ((0, -1.0),)),),
}

# Gates without parameters that are their own inverse.
_INVOLUTIONS: dict[str, GateSteps] = {
    "Identity": (),
    "Barrier": (),
    "Snapshot": (),
    "Hadamard": _plain("h", 1),
    "PauliX": _plain("x", 1),
    "PauliY": _plain("y", 1),
    "PauliZ": _plain("z", 1),
    "CNOT": _plain("cx", 2),
    "CY": _plain("cy", 2),
    "CZ": _plain("cz", 2),
    "CH": _plain("ch", 2),
    "SWAP": _plain("swap", 2),
    "ECR": _plain("ecr", 2),
    "Toffoli": _plain("ccx", 3),
    "CCZ": _plain("ccz", 3),
    "CSWAP": _plain("cswap", 3),
}


def _inverse(steps: GateSteps) -> GateSteps:
    return tuple(
        Step(name, wires, tuple((k, value if k == FIXED else -value) for k, value in angles))
        for name, wires, angles in reversed(steps)
    )


GATES: dict[str, GateSteps] = {
    **_TURNS,
    **{f"Adjoint({name})": _inverse(steps) for name, steps in _TURNS.items()},
    **_INVOLUTIONS,
    **{f"Adjoint({name})": steps for name, steps in _INVOLUTIONS.items()},
    "S": _plain("s", 1),
    "Adjoint(S)": _plain("sdg", 1),
    "T": _plain("t", 1),
    "Adjoint(T)": _plain("tdg", 1),
    "SX": _plain("sx", 1),
    "Adjoint(SX)": _plain("sxdg", 1),
    "ISWAP": _plain("iswap", 2),
    "U2": (Step("u2", (0,), ((0, 1.0), (1, 1.0))),),
    "U3": (Step("u", (0,), ((0, 1.0), (1, 1.0), (2, 1.0))),),
}

# Controlled gates that equal these gates if all controls require a 1.
CONTROLLED: dict[str, GateSteps] = {
    "C(S)": _plain("cs", 2),
    "C(SX)": _plain("csx", 2),
}
_WIDE = ("MultiRZ", "MultiControlledX", "C(PhaseShift)")


def steps_of(op: Any) -> GateSteps | None:
    """Steps of an operator; None if it has none, and may be written as a matrix."""
    name: str = op.name
    result = GATES.get(name)
    if result is not None:
        return result
    if name in CONTROLLED:
        return CONTROLLED[name] if _all_ones(op) and len(op.wires) == 2 else None
    if name in _WIDE:
        return _wide(name, op)
    if name == "BasisState":
        bits = [int(bit) for bit in op.data[0]]
        return tuple(Step("x", (k,)) for k, bit in enumerate(bits) if bit)
    return None


def _all_ones(op: Any) -> bool:
    return all(bool(value) for value in op.control_values)


def _wide(name: str, op: Any) -> GateSteps | None:
    count = len(op.wires)
    everything = tuple(range(count))
    if name == "C(PhaseShift)":
        return (Step("mcphase", everything, ((0, 1.0),)),) if _all_ones(op) else None
    if name == "MultiControlledX":
        flips = tuple(Step("x", (k,)) for k, bit in enumerate(op.control_values) if not bit)
        return (
            *flips,
            Step("mcx" if count > 3 else ("x", "cx", "ccx")[count - 1], everything),
            *flips,
        )
    down = tuple(Step("cx", (k + 1, k)) for k in reversed(range(count - 1)))
    return (*down, Step("rz", (0,), ((0, 1.0),)), *reversed(down))


def is_gate(op: Any) -> bool:
    """Return whether the operator is written as gates, whose angles may be free parameters."""
    return op.name in GATES or (op.name != "BasisState" and steps_of(op) is not None)


def matrix_wires(op: Any) -> int:
    """Largest width at which an operator that is no gate is written as a matrix."""
    if op.name in ("QubitUnitary", "ControlledQubitUnitary"):
        return MAX_UNITARY_QUBITS
    if op.name in PREPARATIONS:
        return PREPARED_WIRES
    if op.num_params or not op.has_matrix:
        return MAX_UNITARY_QUBITS if op.has_matrix and not op.has_decomposition else 0
    return SMALL_MATRIX_WIRES


def is_carried(op: Any) -> bool:
    """Return whether a program can hold the operator; else PennyLane must decompose it."""
    if op.name in GATES or op.name == "BasisState":
        return True
    return len(op.wires) <= matrix_wires(op) or steps_of(op) is not None
