"""Evolution of atoms against dense matrices."""

import msgspec
import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import Stopped, Unsupported
from simulators.rydberg.drive import Drive, PulseProgram
from simulators.rydberg.evolution import AtomEvolution

NONE = np.zeros((0, 0))


def program(atoms: int, seed: int, samples: int = 61, exchange: bool = False) -> PulseProgram:
    """Smooth and sudden pulses of each atom, and random interactions."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0.0, 1.0, samples)[:, None]
    rabi = 12.0 * np.sin(np.pi * times) ** 2 * np.exp(1j * rng.uniform(0, 6, atoms))
    rabi[samples // 3 : samples // 2] += rng.uniform(-9, 9, atoms)
    detuning = rng.uniform(-20, 20, atoms) * times
    couplings = np.triu(rng.uniform(0.0, 40.0, (2, atoms, atoms)), 1)
    couplings += np.swapaxes(couplings, 1, 2)
    return PulseProgram(rabi, detuning, couplings[0], couplings[1] / 4 if exchange else NONE)


def dense_state(given: PulseProgram, steps: int = 32) -> NDArray[np.complex128]:
    """Final state by exponentials of the whole Hamiltonian, `steps` for each nanosecond."""
    n = given.atoms
    index = np.arange(1 << n)
    ones = [(index >> (n - 1 - k)) & 1 for k in range(n)]
    fixed = np.zeros((2, 1 << n, 1 << n), np.complex128)  # without and with masked atoms
    for j in range(n):
        for k in range(j):
            place = int(bool({j, k} & set(given.masked)))
            fixed[place] += np.diag(given.interaction[j, k] * ones[j] * ones[k])
            if given.exchange.size:
                both = (1 << (n - 1 - j)) | (1 << (n - 1 - k))
                from_states = index[ones[j] != ones[k]]
                fixed[place, from_states ^ both, from_states] += given.exchange[j, k]
    edges = np.linspace(0, given.duration_ns, given.duration_ns * steps + 1)
    state = np.eye(1, 1 << n, dtype=np.complex128)[0]
    for rabi, detuning, unmasked in zip(*Drive(given).means(edges), strict=True):
        matrix = fixed[0] + unmasked * fixed[1]
        for k in range(n):
            bit = 1 << (n - 1 - k)
            matrix -= np.diag(detuning[k] * ones[k])
            ground = index[ones[k] == 0]
            matrix[ground, ground | bit] += rabi[k] / 2
            matrix[ground | bit, ground] += np.conj(rabi[k]) / 2
        state = scipy.linalg.expm(-1j * matrix * 1e-3 / steps) @ state
    return state


@pytest.mark.parametrize("atoms", [1, 2, 3, 5])
@pytest.mark.parametrize("exchange", [False, True])
def test_state_is_that_of_dense_matrices(atoms: int, exchange: bool) -> None:
    given = program(atoms, 10 + atoms, exchange=exchange)
    expected = dense_state(given)
    evolved = AtomEvolution(given, 1e-10).run(RunControl())
    assert evolved.state == pytest.approx(expected, abs=2e-5), "the common phase too"
    assert abs(np.vdot(expected, evolved.state)) ** 2 == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("masked", [(1,), (0, 3), (0, 1, 2, 3)])
def test_masked_atoms_interact_after_the_mask(masked: tuple[int, ...]) -> None:
    given = program(4, 31, exchange=True)
    given = msgspec.structs.replace(given, masked=masked, masked_ns=24)
    expected = dense_state(given)
    evolved = AtomEvolution(given, 1e-10).run(RunControl())
    assert abs(np.vdot(expected, evolved.state)) ** 2 == pytest.approx(1.0, abs=1e-9)
    coarse = AtomEvolution(given, 1e-5).run(RunControl())
    assert 1 - abs(np.vdot(expected, coarse.state)) ** 2 <= coarse.error + 1e-9


def test_factor_of_masked_atoms_is_a_spline() -> None:
    given = msgspec.structs.replace(program(3, 1), masked=(1,), masked_ns=24)
    factors = [Drive(given).at(time)[2] for time in (0.0, 10.0, 24.0, 24.5, 25.0, 60.0)]
    assert factors == pytest.approx([0.0, 0.0, 0.0, 0.5, 1.0, 1.0], abs=1e-9)
    always = msgspec.structs.replace(given, masked_ns=60)
    assert Drive(always).at(60.0)[2] == 0.0, "to the end"


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_stated_error_bounds_the_error(tolerance: float) -> None:
    for seed in range(6):
        given = program(4, 100 + seed)
        expected = AtomEvolution(given, 1e-12).run(RunControl()).state
        evolved = AtomEvolution(given, tolerance).run(RunControl())
        error = 1 - abs(np.vdot(expected, evolved.state)) ** 2
        assert error <= evolved.error <= tolerance


@pytest.mark.parametrize("atoms", [13, 14])
def test_states_wider_than_a_tile_are_those_of_their_parts(atoms: int) -> None:
    # Atoms without interaction between them: the state is a product of two narrow ones.
    narrow, wide = program(3, 5), program(atoms, 6)
    wide.interaction[:] = 0.0
    wide.interaction[:3, :3] = narrow.interaction
    wide.rabi[:, :3], wide.detuning[:, :3] = narrow.rabi, narrow.detuning
    state = AtomEvolution(wide, 1e-8).run(RunControl()).state
    parts = [AtomEvolution(narrow, 1e-8).run(RunControl()).state]
    for atom in range(3, atoms):
        own = PulseProgram(wide.rabi[:, [atom]], wide.detuning[:, [atom]], np.zeros((1, 1)), NONE)
        parts.append(AtomEvolution(own, 1e-10).run(RunControl()).state)
    expected = parts[0]
    for part in parts[1:]:
        expected = np.kron(expected, part)
    assert abs(np.vdot(expected, state)) ** 2 == pytest.approx(1.0, abs=1e-6)


def test_interaction_of_high_and_low_bits_is_in_the_phases() -> None:
    # The order of the atoms changes which of them are above a tile, and nothing else.
    given = program(14, 8, samples=11)
    given.interaction[given.interaction < 30] = 0.0
    order = np.roll(np.arange(14), 5)
    moved = PulseProgram(
        given.rabi[:, order],
        given.detuning[:, order],
        given.interaction[np.ix_(order, order)],
        NONE,
    )
    first = AtomEvolution(given, 1e-9).run(RunControl()).state.reshape((2,) * 14)
    second = AtomEvolution(moved, 1e-9).run(RunControl()).state
    expected = np.transpose(first, order).ravel()
    assert abs(np.vdot(expected, second)) ** 2 == pytest.approx(1.0, abs=1e-7)


def test_drive_is_the_spline_through_its_samples() -> None:
    times = np.arange(21.0)[:, None]
    polynomial = 3 + 2 * times - 0.7 * times**2 + 0.01 * times**3
    given = PulseProgram(polynomial * (1 + 2j), polynomial, np.zeros((1, 1)), NONE)
    rabi, detuning, _ = Drive(given).means(np.array([4.2, 4.2 + 1e-3]))
    at = 4.2 + 5e-4
    assert detuning[0, 0] == pytest.approx(3 + 2 * at - 0.7 * at**2 + 0.01 * at**3)
    assert rabi[0, 0] == pytest.approx((1 + 2j) * detuning[0, 0])


def test_stop_ends_the_evolution() -> None:
    control = RunControl()
    control.stop()
    with pytest.raises(Stopped):
        AtomEvolution(program(3, 1), 1e-6).run(control)


def test_arrays_of_other_shapes_are_refused() -> None:
    good = program(3, 1)
    for bad in (
        PulseProgram(good.rabi[:2], good.detuning[:2], good.interaction, NONE),
        PulseProgram(good.rabi, good.detuning, good.interaction[:2], NONE),
        PulseProgram(good.rabi * np.nan, good.detuning, good.interaction, NONE),
    ):
        with pytest.raises(Unsupported):
            AtomEvolution(bad, 1e-6)
