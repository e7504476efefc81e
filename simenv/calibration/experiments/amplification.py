"""Sequences of entangling gates that are the identity and add up their errors about Z and ZZ.

A gate E is followed by a small rotation about ZI, IZ or ZZ. Each gate and turn of a sequence takes
such a generator to another Pauli, so that a sequence that is the identity turns its qubits by a sum
of these angles with known signs (error amplification; Sheldon et al., Phys. Rev. A 93, 012301).
Diagonal gates, of which four are the identity, leave each angle four times. A cx exchanges IZ and
ZZ, so that gates in sequence only show the sum of both angles; turns of the control between the
gates show the difference. Turns about Z between them cancel an over-rotation about ZX, and half
turns in both directions cancel their own over-rotations. An ecr is a cx after turns of both qubits.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments import clifford
from simenv.calibration.experiments.clifford import NativeOperation, Step

DIAGONAL = ("cz", "cp", "rzz")  # entangling gates of which four are the identity
GATES = 4  # entangling gates of a sequence
AXES = (3, 12, 15)  # numbers of ZI, IZ, ZZ: the first letter acts on the first qubit

_GATE: Step = ("entangler", 0, 0)
_CX: dict[str, tuple[Step, ...]] = {
    "cx": (_GATE,),
    "ecr": (("z", 0, 1), ("quarter", 1, 0), ("half", 0, 0), _GATE),
}


@functools.cache
def sequences(entangler: NativeOperation) -> tuple[tuple[Step, ...], ...]:
    """Sequences of four gates that show all angles together; (): there are none. Half turns have 0
    or, for the other direction, 1."""
    if entangler.name in DIAGONAL:
        return ((_GATE,) * GATES,)
    gate = _CX.get(entangler.name)
    if gate is None:
        return ()
    echoed = (*gate, ("z", 1, 2), *gate, ("z", 1, 2), ("z", 0, 2))
    turned = tuple(
        step
        for back in range(2)
        for step in (
            *(*gate, ("half", 0, back), *gate, ("half", 0, back)),
            ("half", 1, back),
        )
    )
    return echoed * 2, turned


@functools.cache
def coefficients(entangler: NativeOperation) -> NDArray[np.float64]:
    """Angles [sequences, axes, errors] that a sequence turns about ZI, IZ and ZZ for unit angles of
    the rotations after each of its gates."""
    results = []
    for sequence in sequences(entangler):
        table = np.zeros((3, 3))
        images = [clifford.conjugation(_matrix(step, entangler)) for step in sequence]
        for number, step in enumerate(sequence):
            if step != _GATE:
                continue
            for column, axis in enumerate(AXES):
                pauli, sign = axis, 1.0
                for image in images[number + 1 :]:
                    moved = int(image[pauli])
                    pauli = moved & (clifford.SIGN - 1)
                    sign = -sign if moved & clifford.SIGN else sign
                if pauli in AXES:
                    table[AXES.index(pauli), column] += sign
        results.append(table)
    return np.array(results)


def _matrix(step: Step, entangler: NativeOperation) -> clifford.Matrix:
    kind, qubit, turns = step
    if kind == "entangler":
        return clifford.entangler_matrix(entangler)
    own = {
        "z": lambda: clifford.z_turn(turns),
        "quarter": lambda: clifford.x_turn(1),
        "half": lambda: clifford.x_turn(2),
    }[kind]()
    identity = np.eye(2, dtype=np.complex128)
    return np.asarray(np.kron(identity, own) if qubit == 0 else np.kron(own, identity))
