"""Observables of users, converted to real-weighted Pauli sums."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from simenv.errors import OptionError
from simenv.model import Observable

if TYPE_CHECKING:
    pass


_NOISE = 1e-12  # tolerated imaginary part, from rounding
_HINT = (
    'an observable is "ZZI:0.5,XXI:0.25", a mapping of labels to coefficients, a Pauli or a '
    "SparsePauliOp; several go in a list"
)


def load_observables(value: Any, num_qubits: int) -> tuple[Observable, ...]:
    """Convert one observable, or a list of them, for a circuit of `num_qubits`.

    Accepts "ZZI:0.5,XXI:0.25" (one sum; a coefficient of 1 may be left out), a mapping from label
    to coefficient, qiskit's Pauli and SparsePauliOp, and a list or tuple of any of these. Labels
    are in Qiskit's order: qubit 0 is the last character. Raises OptionError.
    """
    if isinstance(value, list | tuple):
        if not value:
            raise OptionError("an empty list of observables", hint=_HINT)
        return tuple(_observable(item, num_qubits) for item in value)
    return (_observable(value, num_qubits),)


def _observable(value: Any, num_qubits: int) -> Observable:
    terms = list(_terms(value))
    if not terms:
        raise OptionError("an observable without terms", hint=_HINT)
    labels: list[str] = []
    coefficients: list[float] = []
    for label, coefficient in terms:
        labels.append(_checked_label(label, num_qubits))
        coefficients.append(_checked_coefficient(coefficient, label))
    return Observable(tuple(labels), struct.pack(f"<{len(coefficients)}d", *coefficients))


def _terms(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, str):
        return [_term(part) for part in value.split(",")]
    if isinstance(value, Mapping):
        return value.items()
    if "qiskit" in sys.modules:
        from qiskit.quantum_info import Pauli, SparsePauliOp

        if isinstance(value, Pauli):
            return [(value[:].to_label().lstrip("+-i"), (-1j) ** int(value.phase))]
        if isinstance(value, SparsePauliOp):
            return zip(value.paulis.to_labels(), value.coeffs.tolist(), strict=True)
    raise OptionError(f"a {type(value).__name__} is no observable", hint=_HINT)


def _term(text: str) -> tuple[str, float]:
    label, colon, coefficient = text.partition(":")
    if not colon:
        return label.strip(), 1.0
    try:
        return label.strip(), float(coefficient)
    except ValueError as error:
        message = f"the coefficient {coefficient.strip()!r} of {label.strip()!r} is no real number"
        raise OptionError(message, hint=_HINT) from error


def _checked_label(label: Any, num_qubits: int) -> str:
    if not isinstance(label, str) or not label or label.strip("IXYZ"):
        raise OptionError(f"the label {str(label)[:80]!r} is not made of I, X, Y and Z", hint=_HINT)
    if len(label) != num_qubits:
        message = f"the observable {label[:80]!r} has {len(label)} qubits, the circuit {num_qubits}"
        raise OptionError(message, hint="one character a qubit; qubit 0 is the last")
    return label


def _checked_coefficient(value: Any, label: str) -> float:
    try:
        number = complex(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        message = f"the coefficient {str(value)[:60]} of {label!r} is no number"
        raise OptionError(message, hint="bind its parameters first") from error
    if not math.isfinite(number.real) or not abs(number.imag) <= _NOISE * max(1.0, abs(number)):
        message = f"the coefficient {value} of {label!r} is not a finite real number"
        hint = "expectation values are of Hermitian sums; split off the imaginary part"
        raise OptionError(message, hint=hint)
    return number.real
