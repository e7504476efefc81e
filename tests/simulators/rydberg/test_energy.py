"""Moments of the energy against dense matrices."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.rydberg.drive import Drive, PulseProgram
from simulators.rydberg.energy import EnergyMoments

ATOMS, TIME_NS = 4, 3.7
RAISE = np.array([[0.0, 1.0], [0.0, 0.0]])  # |0><1|
NUMBER = np.diag([0.0, 1.0])


def on(atoms: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Product of operators of atoms."""
    result = np.eye(1)
    for atom in range(ATOMS):
        result = np.kron(result, atoms.get(atom, np.eye(2)))
    return result


def given(constant: str) -> PulseProgram:
    rng = np.random.default_rng(3)
    rabi = rng.normal(size=(9, ATOMS)) + 1j * rng.normal(size=(9, ATOMS))
    pairs = np.triu(rng.uniform(1, 9, (2, ATOMS, ATOMS)), 1)
    pairs += np.swapaxes(pairs, 1, 2)
    detuning = rng.normal(size=(9, ATOMS))
    return PulseProgram(rabi, detuning, pairs[0], pairs[1], constant)  # type: ignore[arg-type]


def dense(program: PulseProgram, present: list[int]) -> NDArray[np.complex128]:
    """The Hamiltonian of the docstring of PulseProgram, of the present atoms."""
    rabi, detuning, unmasked = Drive(msgspec.structs.replace(program, constant="")).at(TIME_NS)
    total = np.zeros((1 << ATOMS, 1 << ATOMS), np.complex128)
    for k in present:
        lowering = rabi[k] / 2 * on({k: RAISE})
        total += lowering + lowering.conj().T - detuning[k] * on({k: NUMBER})
        if program.constant == "detuning":
            total += detuning[k] * np.eye(1 << ATOMS)
        for j in (j for j in present if j < k):
            factor = unmasked if {j, k} & set(program.masked) else 1.0
            # Of the state 0, or of 1.
            own = np.eye(2) - NUMBER if program.constant == "interaction" else NUMBER
            total += factor * program.interaction[j, k] * on({j: own, k: own})
            total += factor * program.exchange[j, k] * on({j: RAISE, k: RAISE.T})
            total += factor * program.exchange[j, k] * on({j: RAISE.T, k: RAISE})
    return total


@pytest.mark.parametrize("constant", ["", "detuning", "interaction"])
@pytest.mark.parametrize("lost", [(), (2,)])
@pytest.mark.parametrize("masked", [(), (0, 2)])
def test_moments_are_those_of_the_matrix(
    constant: str, lost: tuple[int, ...], masked: tuple[int, ...]
) -> None:
    # The time is beside the end of the mask, where the factor is neither 0 nor 1.
    program = msgspec.structs.replace(given(constant), masked=masked, masked_ns=4)
    matrix = dense(program, [k for k in range(ATOMS) if k not in lost])
    rng = np.random.default_rng(8)
    state = rng.normal(size=1 << ATOMS) + 1j * rng.normal(size=1 << ATOMS)
    state /= np.linalg.norm(state)
    moved = matrix @ state
    expected = np.vdot(state, moved).real, np.vdot(moved, moved).real
    assert EnergyMoments(program).of(state, TIME_NS, lost, RunControl()) == pytest.approx(expected)
