"""Circuits of the gallery, and checks of their counts against theory.

Invariant: a check judges counts alone, with a stated error rate: an outcome may deviate by five
standard deviations of its binomial, and outcomes that theory forbids may not occur at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from qiskit import QuantumCircuit

SIGMAS = 5.0
IMPOSSIBLE = 1e-12


class ResultCheck(Protocol):
    """Check of one circuit's counts."""

    def fault(self, counts: Mapping[str, int]) -> str:
        """Return what is wrong with these counts as a short text; "" if nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class ExpectedOutcomes:
    """Check by the probability of every outcome (Qiskit's bit order); outcomes not named must not
    occur.

    `width`: number of leftmost bits of a key that are judged (the registers declared last); 0: all.
    """

    probabilities: Mapping[str, float]
    width: int = 0

    def fault(self, counts: Mapping[str, int]) -> str:
        seen: dict[str, int] = {}
        for key, count in counts.items():
            bits = key.replace(" ", "")
            bits = bits[: self.width] if self.width else bits
            seen[bits] = seen.get(bits, 0) + count
        shots = sum(seen.values())
        for bits, count in seen.items():
            if self.probabilities.get(bits, 0.0) < IMPOSSIBLE:
                return f"{bits} came {count} times and cannot"
        for bits, probability in self.probabilities.items():
            allowed = SIGMAS * math.sqrt(shots * probability * (1 - probability)) + 1
            if abs(seen.get(bits, 0) - shots * probability) > allowed:
                return f"{bits} came {seen.get(bits, 0)} times of {shots * probability:.0f}"
        return ""


@dataclass(frozen=True, slots=True)
class Parities:
    """Check by expectation values of products of Z: (clbits, value) each, in [-1, 1]."""

    values: tuple[tuple[tuple[int, ...], float], ...]

    def fault(self, counts: Mapping[str, int]) -> str:
        shots = sum(counts.values())
        for clbits, expected in self.values:
            measured = parity(counts, clbits)
            allowed = SIGMAS * math.sqrt(max(1 - expected**2, 0.0) / shots) + 2 / shots
            if abs(measured - expected) > allowed:
                where = " ".join(f"Z{bit}" for bit in clbits)
                return f"<{where}> is {measured:.3f}, not {expected:.3f}"
        return ""


def parity(counts: Mapping[str, int], clbits: tuple[int, ...]) -> float:
    """Return the mean of the product of (-1)^bit over `clbits`; clbit 0 is the rightmost
    character."""
    total = 0
    for key, count in counts.items():
        bits = key.replace(" ", "")
        ones = sum(bits[-1 - clbit] == "1" for clbit in clbits)
        total += -count if ones % 2 else count
    return total / sum(counts.values())


@dataclass(frozen=True, slots=True)
class DemoCircuit:
    """A circuit of the gallery with the check of its counts; `circuit.name` is its name in the
    demo's table."""

    circuit: QuantumCircuit
    answer: ResultCheck


def bits(value: int, width: int) -> str:
    """Return `value` as Qiskit writes `width` classical bits: the highest first."""
    return format(value, f"0{width}b")
