"""Algorithms with their theoretical results, and checks of counts against them.

Invariant: a check judges counts alone, with a stated error rate: an outcome may deviate by five
standard deviations of its binomial, and outcomes that theory forbids may not occur at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qiskit import QuantumCircuit

SIGMAS = 5.0
IMPOSSIBLE = 1e-12


@dataclass(frozen=True, slots=True)
class ExpectedOutcomes:
    """The probability of every outcome (Qiskit's bit order); outcomes not named cannot occur.

    `width`: number of leftmost bits of a key that are judged (the registers declared last); 0: all.
    """

    probabilities: Mapping[str, float]
    width: int = 0

    @property
    def likely(self) -> frozenset[str]:
        """Outcomes that the algorithm is run for: at least a quarter as likely as the likeliest."""
        least = max(self.probabilities.values()) / 4
        return frozenset(key for key, value in self.probabilities.items() if value >= least)

    def success(self, counts: Mapping[str, int]) -> float:
        """Return the share of shots with a likely outcome."""
        seen, likely = self._judged(counts), self.likely
        return sum(count for key, count in seen.items() if key in likely) / sum(seen.values())

    def fidelity(self, counts: Mapping[str, int]) -> float:
        """Return (sum sqrt(p q))^2, the definition of `qiskit.quantum_info.hellinger_fidelity`."""
        seen = self._judged(counts)
        shots = sum(seen.values())
        overlap = sum(
            (p * seen.get(key, 0) / shots) ** 0.5 for key, p in self.probabilities.items()
        )
        return float(overlap**2)

    def fault(self, counts: Mapping[str, int]) -> str:
        """Return what is wrong with the counts of an ideal run as a short text; "" if nothing."""
        seen = self._judged(counts)
        shots = sum(seen.values())
        for bits, count in seen.items():
            if self.probabilities.get(bits, 0.0) < IMPOSSIBLE:
                return f"{bits} came {count} times and cannot"
        for bits, probability in self.probabilities.items():
            allowed = SIGMAS * math.sqrt(shots * probability * (1 - probability)) + 1
            if abs(seen.get(bits, 0) - shots * probability) > allowed:
                return f"{bits} came {seen.get(bits, 0)} times of {shots * probability:.0f}"
        return ""

    def _judged(self, counts: Mapping[str, int]) -> dict[str, int]:
        seen: dict[str, int] = {}
        for key, count in counts.items():
            bits = key.replace(" ", "")
            bits = bits[: self.width] if self.width else bits
            seen[bits] = seen.get(bits, 0) + count
        return seen


@dataclass(frozen=True, slots=True)
class ExpectedParities:
    """Expectation values of products of Z: (clbits, value) each, in [-1, 1]."""

    values: tuple[tuple[tuple[int, ...], float], ...]

    def fault(self, counts: Mapping[str, int]) -> str:
        """Return what is wrong with the counts of an ideal run as a short text; "" if nothing."""
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


Expected = ExpectedOutcomes | ExpectedParities


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A circuit, what theory says of its counts, and where that is published."""

    circuit: QuantumCircuit
    expected: Expected
    reference: str

    @property
    def name(self) -> str:
        """Name of the circuit."""
        return str(self.circuit.name)

    def fault(self, counts: Mapping[str, int]) -> str:
        """Return what is wrong with the counts of an ideal run as a short text; "" if nothing."""
        return self.expected.fault(counts)


def bits(value: int, width: int) -> str:
    """Return `value` as Qiskit writes `width` classical bits: the highest first."""
    return format(value, f"0{width}b")
