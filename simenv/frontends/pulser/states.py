"""States and operators of Pulser's backend interface, for atoms of two levels.

Both have the register's first atom as the highest bit of an index, where 1 is the state r, h or d:
the order of `PulseResult.statevector`. An operator is a Pauli sum, the form in which workers
compute expectation values. Its keys are pairs (x, z) of bit masks for the product X^x Z^z, in which
every |a><b| has real factors, and a product of two terms is one term.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pulser.backend import Operator, State

from simenv.errors import LimitExceededError, OptionError
from simenv.model.pulses import BASES
from simenv.model.task_rules import MAX_TERMS

__all__ = ["SimenvOperator", "SimenvState"]

MAX_ATOMS = 26  # of a state in this process: 1 GiB
_PAULI = {(0, 0): "I", (1, 0): "X", (1, 1): "Y", (0, 1): "Z"}
# |a><b| as factors of I, Z, X and XZ.
_UNITS = {
    (0, 0): {(0, 0): 0.5, (0, 1): 0.5},
    (1, 1): {(0, 0): 0.5, (0, 1): -0.5},
    (0, 1): {(1, 0): 0.5, (1, 1): -0.5},
    (1, 0): {(1, 0): 0.5, (1, 1): 0.5},
}
_ROUNDING = 1e-12  # relative

Masks = tuple[int, int]
PauliTerms = dict[Masks, complex]


def basis_of(eigenstates: Sequence[str]) -> tuple[str, str]:
    """Return the names of the states 0 and 1 of these eigenstates, in any order. Raises
    OptionError."""
    for basis in (*BASES.values(), ("0", "1")):
        if set(basis) == set(eigenstates):
            return basis
    hint = "r and g, g and h, u and d, or 0 and 1"
    raise OptionError(f"eigenstates {tuple(eigenstates)!r:.80}", hint=hint)


class SimenvState(State[complex, float]):  # type: ignore[misc]  # pulser is untyped here
    """Pure state: complex128 [2**atoms]. `eigenstates`: names of the states 0 and 1."""

    def __init__(
        self, statevector: NDArray[np.complex128], *, eigenstates: Sequence[str] = ("g", "r")
    ) -> None:
        """Raises OptionError for a length that is no power of two."""
        super().__init__(eigenstates=basis_of(eigenstates))
        self.statevector = np.asarray(statevector, np.complex128)
        self._atoms = len(self.statevector).bit_length() - 1
        if self.statevector.shape != (2**self._atoms,):
            raise OptionError(f"a state vector of shape {self.statevector.shape}")

    @property
    def n_qudits(self) -> int:
        """Number of atoms."""
        return self._atoms

    @classmethod
    def _from_state_amplitudes(
        cls, *, eigenstates: Sequence[str], n_qudits: int, amplitudes: Mapping[str, complex]
    ) -> tuple[SimenvState, Mapping[str, complex]]:
        vector = np.zeros(2 ** checked_atoms(n_qudits), np.complex128)
        for index, value in amplitudes_of(eigenstates, amplitudes).items():
            vector[index] = value
        given = {text: complex(value) for text, value in amplitudes.items()}
        return cls(vector, eigenstates=eigenstates), given

    def overlap(self, other: SimenvState, /) -> float:
        """Return |<a|b>|^2. Raises OptionError for states of other registers."""
        if other.eigenstates != self.eigenstates or other.n_qudits != self.n_qudits:
            raise OptionError(
                f"the overlap of {self.n_qudits} atoms of {self.eigenstates} and of"
                f" {other.n_qudits} of {other.eigenstates}"
            )
        return float(abs(np.vdot(self.statevector, other.statevector)) ** 2)

    def sample(
        self,
        *,
        num_shots: int,
        one_state: str | None = None,
        p_false_pos: float = 0.0,
        p_false_neg: float = 0.0,
    ) -> Counter[str]:
        """Sample bit strings, with random numbers of this process; `one_state`: the state that is
        measured as 1. The service samples with its seed: `BitStrings`."""
        rng = np.random.default_rng()
        weights = np.abs(self.statevector) ** 2
        outcomes = rng.choice(len(weights), num_shots, p=weights / weights.sum())
        shifts = np.arange(self._atoms - 1, -1, -1)
        bits = (outcomes[:, None] >> shifts & 1).astype(bool)
        if one_state is not None and self.eigenstates.index(one_state) == 0:
            bits = ~bits
        drawn = rng.random(bits.shape)
        bits ^= np.where(bits, drawn < p_false_neg, drawn < p_false_pos)
        return Counter("".join("01"[bit] for bit in row) for row in bits.tolist())

    def __repr__(self) -> str:
        return f"<SimenvState: {self._atoms} atoms of {self.eigenstates}>"


class SimenvOperator(Operator[complex, complex, SimenvState]):  # type: ignore[misc]
    """Pauli sum on atoms of two levels."""

    def __init__(self, terms: PauliTerms, atoms: int, eigenstates: Sequence[str]) -> None:
        """`terms`: coefficients of the products X^x Z^z."""
        super().__init__()
        self.terms, self.n_qudits, self._basis = terms, atoms, basis_of(eigenstates)

    @property
    def eigenstates(self) -> tuple[str, str]:
        """Names of the states 0 and 1."""
        return self._basis

    @classmethod
    def _from_operator_repr(
        cls, *, eigenstates: Sequence[str], n_qudits: int, operations: Any
    ) -> tuple[SimenvOperator, Any]:
        basis = basis_of(eigenstates)
        return cls(pauli_terms(basis, n_qudits, operations), n_qudits, basis), operations

    def apply_to(self, state: SimenvState, /) -> SimenvState:
        """Return the product with a state, not normalized. Raises OptionError."""
        self._check(state.n_qudits, state.eigenstates)
        indices = np.arange(2**self.n_qudits)
        result = np.zeros_like(state.statevector)
        for (x, z), factor in self.terms.items():
            signed = state.statevector * (1 - 2 * (np.bitwise_count(indices & z) & 1).astype(float))
            result += factor * signed[indices ^ x]
        return SimenvState(result, eigenstates=self._basis)

    def expect(self, state: SimenvState, /) -> complex:
        """Return the expectation value; a float of a Hermitian operator. Raises OptionError."""
        value = complex(np.vdot(state.statevector, self.apply_to(state).statevector))
        return value if pauli_sums(self.terms, self.n_qudits)[1] else value.real

    def __add__(self, other: SimenvOperator, /) -> SimenvOperator:
        self._check(other.n_qudits, other._basis)
        terms = dict(self.terms)
        for masks, factor in other.terms.items():
            terms[masks] = terms.get(masks, 0.0) + factor
        return SimenvOperator(terms, self.n_qudits, self._basis)

    def __rmul__(self, scalar: complex) -> SimenvOperator:
        terms = {masks: scalar * factor for masks, factor in self.terms.items()}
        return SimenvOperator(terms, self.n_qudits, self._basis)

    def __matmul__(self, other: SimenvOperator) -> SimenvOperator:
        self._check(other.n_qudits, other._basis)
        return SimenvOperator(_product(self.terms, other.terms), self.n_qudits, self._basis)

    def _check(self, atoms: int, eigenstates: Sequence[str]) -> None:
        if (atoms, tuple(eigenstates)) != (self.n_qudits, self._basis):
            raise OptionError(
                f"an operator on {self.n_qudits} atoms of {self._basis} with {atoms} of"
                f" {tuple(eigenstates)}"
            )


def checked_atoms(atoms: int) -> int:
    """Return the number of atoms of a state in this process. Raises LimitExceededError."""
    if atoms > MAX_ATOMS:
        hint = "expectation values, or correlations: workers compute them"
        raise LimitExceededError(
            f"a state of {atoms} atoms in the client; the limit is {MAX_ATOMS}", hint=hint
        )
    return atoms


def amplitudes_of(
    eigenstates: Sequence[str], amplitudes: Mapping[str, complex]
) -> dict[int, complex]:
    """Return the amplitudes of a state by their indices."""
    basis = basis_of(eigenstates)
    return {
        int("".join(str(basis.index(letter)) for letter in text), 2): complex(value)
        for text, value in amplitudes.items()
    }


def pauli_terms(basis: Sequence[str], atoms: int, operations: Any) -> PauliTerms:
    """Return the terms of an operator in Pulser's representation: a list of a coefficient and a
    product, which is a list of a weighted sum of |a><b|, by name "ab", and the atoms that it acts
    on. Raises LimitExceededError for too many terms."""
    result: PauliTerms = {}
    for coefficient, product in operations:
        terms: PauliTerms = {(0, 0): complex(coefficient)}
        for single, places in product:
            factors: PauliTerms = {}
            for name, weight in single.items():
                for masks, factor in _UNITS[basis.index(name[0]), basis.index(name[1])].items():
                    factors[masks] = factors.get(masks, 0.0) + factor * complex(weight)
            factors = {masks: factor for masks, factor in factors.items() if factor}
            for place in places:
                shift = atoms - 1 - place
                shifted = {(x << shift, z << shift): value for (x, z), value in factors.items()}
                terms = _product(terms, shifted)
        for masks, value in terms.items():
            result[masks] = result.get(masks, 0.0) + value
    return result


def projector_terms(atoms: int, amplitudes: Mapping[int, complex]) -> PauliTerms:
    """Return the terms of |s><s| for a state with these amplitudes. Raises LimitExceededError."""
    _check_terms(len(amplitudes) ** 2 * 2**atoms)
    result: PauliTerms = {}
    for left, left_value in amplitudes.items():
        for right, right_value in amplitudes.items():
            terms: PauliTerms = {(0, 0): left_value * complex(right_value).conjugate()}
            for shift in range(atoms):
                unit = _UNITS[left >> shift & 1, right >> shift & 1]
                terms = _product(terms, {(x << shift, z << shift): v for (x, z), v in unit.items()})
            for masks, value in terms.items():
                result[masks] = result.get(masks, 0.0) + value
    return result


def pauli_sums(terms: PauliTerms, atoms: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return real coefficients of Pauli labels: of the Hermitian part, and of the anti-Hermitian
    one divided by the imaginary unit. Coefficients of the size of rounding errors are left out."""
    largest = max(map(abs, terms.values()), default=0.0)
    real, imaginary = dict[str, float](), dict[str, float]()
    for (x, z), factor in terms.items():
        value = factor * (-1j) ** ((x & z).bit_count() % 4)  # XZ = -iY
        shifts = range(atoms - 1, -1, -1)
        label = "".join(_PAULI[x >> shift & 1, z >> shift & 1] for shift in shifts)
        for part, number in ((real, value.real), (imaginary, value.imag)):
            if abs(number) > _ROUNDING * largest:
                part[label] = number
    return real, imaginary


def _product(left: PauliTerms, right: PauliTerms) -> PauliTerms:
    _check_terms(len(left) * len(right))
    result: PauliTerms = {}
    for (x1, z1), first in left.items():
        for (x2, z2), second in right.items():
            sign = -1 if (z1 & x2).bit_count() & 1 else 1
            masks = x1 ^ x2, z1 ^ z2
            result[masks] = result.get(masks, 0.0) + sign * first * second
    return result


def _check_terms(count: int) -> None:
    if count > MAX_TERMS:
        hint = "operators on fewer atoms, or states of fewer amplitudes"
        raise LimitExceededError(f"{count} Pauli terms; the limit is {MAX_TERMS}", hint=hint)
