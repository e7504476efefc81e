"""Conversion of PennyLane's observables to Pauli sums on the qubits of a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pennylane as qml

DECOMPOSED_WIRES = 4  # wider matrices are not expanded into their 4**wires Pauli words
_NOISE = 1e-12  # tolerance of an imaginary part from rounding

Word = tuple[tuple[Any, str], ...]  # wires and their letters
Words = dict[Word, float]  # coefficient by word


def words_of(observable: Any) -> Words | None:
    """Convert an observable to a real sum of Pauli words; None if it is not one, or too wide a
    matrix.

    A matrix up to DECOMPOSED_WIRES wires is decomposed exactly.
    """
    sentence = _sentence(observable)
    return None if sentence is None else _real(sentence)


def complex_words_of(observable: Any) -> dict[Word, complex] | None:
    """Convert an operator that is not Hermitian as `words_of` does, to a complex sum."""
    sentence = _sentence(observable)
    if sentence is None:
        return None
    return {tuple(word.items()): complex(number) for word, number in sentence.items()}


def _sentence(observable: Any) -> Any:
    sentence = observable.pauli_rep
    if sentence is None:
        if len(observable.wires) > DECOMPOSED_WIRES or not observable.has_matrix:
            return None
        matrix = np.asarray(qml.matrix(observable, wire_order=observable.wires))
        with qml.QueuingManager.stop_recording():
            sentence = qml.pauli_decompose(
                matrix, wire_order=observable.wires, pauli=True, check_hermitian=False
            )
    return sentence


def _real(sentence: Any) -> Words | None:
    terms: Words = {}
    for word, coefficient in sentence.items():
        number = complex(coefficient)
        if abs(number.imag) > _NOISE * max(1.0, abs(number)):
            return None
        terms[tuple(word.items())] = number.real
    return terms


def square_of(terms: Words) -> Words:
    """Square of a Hermitian sum: anticommuting words cancel, so it is real again."""
    if len(terms) == 1:  # a word squares to the identity
        return {(): next(iter(terms.values())) ** 2}
    sentence = qml.pauli.PauliSentence(
        {qml.pauli.PauliWord(dict(word)): value for word, value in terms.items()}
    )
    result = _real(sentence @ sentence)
    assert result is not None  # the square of a Hermitian operator is Hermitian
    return result


def labels_of(terms: Words, qubits: dict[Any, int]) -> dict[str, float]:
    """Coefficients by label in Qiskit's order: qubit 0 is the last character."""
    count = len(qubits)
    entries: dict[str, float] = {}
    for word, coefficient in terms.items():
        letters = ["I"] * count
        for wire, letter in word:
            letters[count - 1 - qubits[wire]] = letter
        label = "".join(letters)
        entries[label] = entries.get(label, 0.0) + coefficient
    return entries or {"I" * count: 0.0}
