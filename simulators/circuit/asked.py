"""What of a circuit's end is looked at: all that leaving something out may depend on."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from simulators.circuit.ir import Circuit

NOT_SEEN, OUTCOME_SEEN, SEEN = range(3)  # how much of a qubit is: only its outcome, or anything

_OF_CLBITS = {"counts", "probabilities"}
_OF_LETTERS = np.full(256, 255, np.uint8)
_OF_LETTERS[np.frombuffer(b"IZXY", np.uint8)] = NOT_SEEN, OUTCOME_SEEN, SEEN, SEEN


class Asked(msgspec.Struct, frozen=True):
    """Classical bits, and qubits of Pauli strings."""

    clbits: bool
    levels: bytes  # of each qubit one of the three, as strings have it; b"" where there are none
    together: bool = False  # a state of all that is kept is needed


def asked(outputs: Iterable[str], labels: Iterable[str], circuit: Circuit) -> Asked | None:
    """None: all of the circuit counts. `labels`: of all Pauli strings, qubit 0 the last letter."""
    wanted = set(outputs)
    if "statevector" in wanted or (wanted & _OF_CLBITS and not circuit.clbits_data):
        return None
    levels = b""
    if "expectation" in wanted:
        found = _levels(labels, circuit.num_qubits)
        if found is None:
            return None
        levels = found
    return Asked(bool(wanted & _OF_CLBITS), levels, "gradient" in wanted)


def _levels(labels: Iterable[str], num_qubits: int) -> bytes | None:
    """None: these are no Pauli strings of so many qubits."""
    given = list(labels)
    if any(len(label) != num_qubits or not label.isascii() for label in given):
        return None
    letters = np.frombuffer("".join(given).encode(), np.uint8).reshape(len(given), num_qubits)
    found = _OF_LETTERS[letters].max(axis=0, initial=NOT_SEEN)
    return None if (found > SEEN).any() else found[::-1].tobytes()
