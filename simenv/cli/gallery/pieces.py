"""The shape of one piece of the gallery: a circuit that measures, and its right answer."""

from __future__ import annotations

from dataclasses import dataclass

from qiskit import QuantumCircuit

from simenv.cli.gallery.answers import Answer


@dataclass(frozen=True, slots=True)
class Piece:
    """`circuit.name` is what the demo's table calls it."""

    circuit: QuantumCircuit
    answer: Answer


def bits(value: int, width: int) -> str:
    """`value` as Qiskit writes `width` classical bits: the highest first."""
    return format(value, f"0{width}b")
