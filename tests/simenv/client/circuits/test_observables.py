"""Observables that are taken for others, or refused without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qiskit.circuit import Parameter
from qiskit.quantum_info import Pauli, SparsePauliOp

from simenv.client.circuits import load_observables
from simenv.errors import OptionError


def sums(value: Any, num_qubits: int = 3) -> list[dict[str, float]]:
    return [
        dict(zip(each.labels, np.frombuffer(each.coefficients), strict=True))
        for each in load_observables(value, num_qubits)
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ZZI", [{"ZZI": 1.0}]),
        ("ZZI:0.5", [{"ZZI": 0.5}]),
        (" ZZI : -5e-1 , XXI:0.25,IIY", [{"ZZI": -0.5, "XXI": 0.25, "IIY": 1.0}]),
        ({"ZZI": 0.5, "XXI": np.float32(0.25)}, [{"ZZI": 0.5, "XXI": 0.25}]),
        (Pauli("XYZ"), [{"XYZ": 1.0}]),
        (Pauli("-XYI"), [{"XYI": -1.0}]),
        (SparsePauliOp(["ZZI", "XXI"], [0.5, -0.25]), [{"ZZI": 0.5, "XXI": -0.25}]),
        (["ZZI:0.5", Pauli("XXY"), {"IIZ": 2}], [{"ZZI": 0.5}, {"XXY": 1.0}, {"IIZ": 2.0}]),
        (("ZZI", "XXI"), [{"ZZI": 1.0}, {"XXI": 1.0}]),
    ],
)
def test_observable_is_parsed_into_pauli_terms(
    value: Any, expected: list[dict[str, float]]
) -> None:
    assert sums(value) == expected


def test_rounding_error_in_imaginary_part_is_ignored() -> None:
    assert sums(SparsePauliOp(["ZZI"], [0.5 + 1e-17j])) == [{"ZZI": 0.5}]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("ZZ", "has 2 qubits, the circuit 3"),
        ("ZZZZ:1", "has 4 qubits"),
        ("zzi", "not made of I, X, Y and Z"),
        ("ZZI:", "no real number"),
        ("ZZI:half", "no real number"),
        ("ZZI:1j", "no real number"),
        ("ZZI:nan", "not a finite real number"),
        ("", "not made of"),
        ("ZZI,,XXI", "not made of"),
        ({"ZZI": 1j}, "not a finite real number"),
        ({"ZZI": float("inf")}, "not a finite real number"),
        ({"ZZI": None}, "is no number"),
        ({"ZZI": 10**400}, "is no number"),
        ({5: 1.0}, "not made of"),
        ({}, "without terms"),
        ([], "empty list"),
        ([["ZZI"]], "a list is no observable"),
        (None, "a NoneType is no observable"),
        (Pauli("iXYZ"), "not a finite real number"),
        (SparsePauliOp(["ZZI"], [1j]), "not a finite real number"),
        (SparsePauliOp(["ZZI"], np.array([Parameter("a")])), "is no number"),
        (SparsePauliOp(["ZZ"]), "has 2 qubits"),
    ],
)
def test_invalid_observable_is_refused(value: Any, told: str) -> None:
    with pytest.raises(OptionError) as refused:
        load_observables(value, 3)
    assert told in refused.value.message
