"""Drive of atoms between its samples, and its means over steps.

Samples stand at whole nanoseconds. Between them the complex Rabi frequency omega exp(-i phi) and
the detuning of each atom are cubic splines with not-a-knot ends, the rule of pulser-simulation
(`QobjEvo` of QuTiP with arrays, order 3): the two Hamiltonians agree to rounding errors. The spline
of a sum is the sum of the splines, so channels are added before: omega exp(-i phi), and not omega
and phi.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.errors import Unsupported

LEAST_SAMPLES = 4  # of a cubic spline
Reals = NDArray[np.float64]


class PulseProgram(msgspec.Struct, frozen=True, eq=False):
    """Drive and interactions of n atoms. Atom k is bit n - 1 - k of an index of the state, whose
    bit is 1 in the state of the atom that is measured as 1.

        H = sum_k (rabi_k |0><1| + h.c.) / 2 - detuning_k n_k
            + sum_{j<k} interaction_jk n_j n_k + exchange_jk (|01><10|_jk + h.c.) + constant

    `constant`: energy of the index 0, which changes no state: sum_k detuning_k, or
    sum_{j<k} interaction_jk. The latter is of atoms that interact in the state 0, (1 - n_j)
    (1 - n_k) instead of n_j n_k; `Drive` adds what this is more to the detunings.

    Both interactions of the pairs of `masked` atoms have a factor in time, the spline through 0 at
    the samples up to `masked_ns` and 1 at those after, the rule of pulser-simulation for an SLM
    mask.
    """

    rabi: NDArray[np.complex128]  # [T + 1, n], rad/us, at 0, 1 .. T ns
    detuning: Reals  # [T + 1, n], rad/us
    interaction: Reals  # [n, n], rad/us, symmetric
    exchange: Reals  # [n, n], rad/us, symmetric; [0, 0] if there is none
    constant: Literal["", "detuning", "interaction"] = ""
    masked: tuple[int, ...] = ()
    masked_ns: int = 0

    @property
    def atoms(self) -> int:
        """Number of atoms."""
        return int(self.rabi.shape[1])

    @property
    def duration_ns(self) -> int:
        """Time of the last sample."""
        return len(self.rabi) - 1

    def check(self) -> None:
        """Check shapes and values. Raises Unsupported."""
        n, samples = self.atoms, len(self.rabi)
        shapes = (
            self.detuning.shape == (samples, n),
            self.interaction.shape == (n, n),
            self.exchange.shape in ((0, 0), (n, n)),
        )
        if not n or samples < LEAST_SAMPLES or not all(shapes):
            raise Unsupported(
                f"pulses of {n} atoms with {samples} samples, and interactions of shape"
                f" {self.interaction.shape}",
                hint=f"one atom or more, {LEAST_SAMPLES} samples or more, arrays of one width",
            )
        arrays = self.rabi, self.detuning, self.interaction, self.exchange
        if not all(np.isfinite(each).all() for each in arrays):
            raise Unsupported("pulses or interactions that are not finite numbers")

    @property
    def masked_pairs(self) -> NDArray[np.bool_]:
        """Whether a pair has a masked atom: [n, n]."""
        is_masked = np.isin(np.arange(self.atoms), self.masked)
        return is_masked[:, None] | is_masked

    def without(self, atoms: Sequence[int]) -> PulseProgram:
        """Return the program with these atoms neither driven nor interacting."""
        if not atoms:
            return self
        lost = list(atoms)
        rabi, detuning = self.rabi.copy(), self.detuning.copy()
        interaction, exchange = self.interaction.copy(), self.exchange.copy()
        rabi[:, lost] = detuning[:, lost] = 0.0
        for matrix in (interaction, exchange):
            if matrix.size:
                matrix[lost] = matrix[:, lost] = 0.0
        return msgspec.structs.replace(
            self, rabi=rabi, detuning=detuning, interaction=interaction, exchange=exchange
        )


_THIRDS = np.array([0.0, 1 / 3, 1 / 2, 2 / 3, 1.0])  # edges of one, two and three steps
_EDGES = np.array([(0, 4), (0, 2), (2, 4), (0, 1), (1, 3), (3, 4)])  # of each of the six
_SHARES = np.array([1.0, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])  # of the window
LEVELS = (slice(0, 1), slice(1, 3), slice(3, 6))  # the steps of each number
# Weights of extrapolation from these numbers of steps, of sixth order.
_STEP_WEIGHTS = np.array([1 / 24, -16 / 15, -16 / 15, 81 / 40, 81 / 40, 81 / 40])
_LEAST_JUMP = 0.25  # rad/us
_SUDDEN = 8.0  # a jump is so many times the changes beside it
_UNMASKED_DIGITS = 12


class WindowMeans(msgspec.Struct, frozen=True, eq=False):
    """Means of the drive over one, two and three equal steps of a window, after one another.

    `roughness`: what extrapolation from these steps leaves of the first moments of the drive about
    the middles of the steps, the largest of all columns, in rad/us * us**2. It is of sixth order
    for a drive that is smooth within the window, and large for one that jumps there."""

    rabi: NDArray[np.complex128]  # [6, n]
    detuning: Reals  # [6, n]
    unmasked: Reals  # [6], the factor of the interactions of masked atoms
    lengths_us: Reals  # [6], of the steps
    roughness: float


class Drive:
    """Exact integrals of the splines of a PulseProgram."""

    def __init__(self, program: PulseProgram) -> None:
        from scipy.interpolate import make_interp_spline  # here: it takes 0.3 s to import

        self._atoms = program.atoms
        detuning, unmasked = program.detuning, np.ones((len(program.rabi), 1))
        pairs = program.masked_pairs
        present = [each[pairs] for each in (program.interaction, program.exchange) if each.size]
        # As a column it is in rad/us, as the others are.
        self._strength = float(np.abs(np.concatenate(present)).max(initial=0.0)) or 1.0
        if program.masked:
            unmasked[: program.masked_ns + 1] = 0.0
        if program.constant == "interaction":
            shifts = [
                np.where(each, program.interaction, 0.0).sum(axis=1) for each in (~pairs, pairs)
            ]
            detuning = detuning + shifts[0] + unmasked * shifts[1]
        self.peak = float(np.abs(program.rabi).max() + np.abs(detuning).max())
        columns = np.hstack(
            [program.rabi.real, program.rabi.imag, detuning, self._strength * unmasked]
        )
        places: dict[bytes, int] = {}  # of equal columns, such as those of global pulses
        by_column = np.ascontiguousarray(columns.T)
        self._columns = np.array([places.setdefault(c.tobytes(), len(places)) for c in by_column])
        firsts = [int(np.argmax(self._columns == place)) for place in range(len(places))]
        self._unique = columns[:, firsts]
        times = np.arange(len(columns), dtype=np.float64)
        self._spline = make_interp_spline(times, self._unique, k=3)
        self._integral = self._spline.antiderivative()
        self._second = self._integral.antiderivative()
        changes = np.abs(np.diff(self._unique, axis=0))
        beside = np.zeros_like(changes)
        beside[1:] = changes[:-1]
        beside[:-1] = np.maximum(beside[:-1], changes[1:])
        jumps = (changes > _LEAST_JUMP) & (changes > _SUDDEN * beside)
        self.jumps_ns = np.flatnonzero(jumps.any(axis=1)) + 0.5  # times of sudden changes

    def at(self, time_ns: float) -> tuple[NDArray[np.complex128], Reals, float]:
        """Rabi frequency and detuning [n] at a time, and the factor of the interactions of masked
        atoms."""
        rabi, detuning, unmasked = self._by_atom(self._spline(np.array([time_ns])))
        return rabi[0], detuning[0], float(unmasked[0])

    def means(self, edges_ns: Reals) -> tuple[NDArray[np.complex128], Reals, Reals]:
        """Means of the Rabi frequency and detuning [len(edges_ns) - 1, n] between the edges, and of
        the factor of the interactions of masked atoms [len(edges_ns) - 1]."""
        return self._by_atom(np.diff(self._integral(edges_ns), axis=0) / np.diff(edges_ns)[:, None])

    def window(self, start_ns: float, length_ns: float) -> WindowMeans:
        """Means and roughness of a window."""
        edges = start_ns + length_ns * _THIRDS
        first, second = self._integral(edges), self._second(edges)
        lengths = length_ns * _SHARES
        means = np.diff(first[_EDGES], axis=1)[:, 0] / lengths[:, None]
        ends, areas = first[_EDGES].sum(axis=1), np.diff(second[_EDGES], axis=1)[:, 0]
        moments = lengths[:, None] / 2 * ends - areas
        rough = _STEP_WEIGHTS @ moments
        roughness = 1e-6 * float(np.abs(rough).max())
        return WindowMeans(*self._by_atom(means), 1e-3 * lengths, roughness)

    def _by_atom(self, unique: Reals) -> tuple[NDArray[np.complex128], Reals, Reals]:
        values = unique[:, self._columns]
        n = self._atoms
        # Exactly 0 or 1 far from the end of the mask, where one table serves all steps of a length.
        unmasked = np.round(values[:, -1] / self._strength, _UNMASKED_DIGITS)
        return values[:, :n] + 1j * values[:, n : 2 * n], values[:, 2 * n : -1], unmasked


class DriveRotations(msgspec.Struct, frozen=True, eq=False):
    """Exponentials of each atom's own terms over steps, as diag(1, e^(i left)) rotation diag(1,
    e^(i right)), times the factor of the whole state."""

    turns: Reals  # [steps, n, 2]: cosine and sine of the rotation
    phases: Reals  # [steps, 2, n]: right and left
    whole: Reals  # [steps]: angle of the factor


def rotations(means: WindowMeans) -> DriveRotations:
    """Return the exponentials of each step."""
    rabi, detuning = means.rabi, means.detuning
    lengths = means.lengths_us[:, None]
    strength = np.abs(rabi)
    frequency = np.sqrt(strength**2 + detuning**2)
    angle = frequency * (lengths / 2)
    sine = np.sin(angle) / np.where(frequency == 0.0, 1.0, frequency)
    # Columns of exp(-i h (rabi |0><1| + h.c. - detuning n)), up to exp(i h detuning / 2): 0 stays
    # with cos - i sine detuning, leaves with -i sine conj(rabi), and enters with -i sine rabi.
    cosine, shift = np.cos(angle), -sine * detuning
    turns = np.empty((*rabi.shape, 2))
    np.sqrt(cosine**2 + shift**2, out=turns[..., 0])
    np.abs(sine * strength, out=turns[..., 1])
    phase = np.arctan2(shift, cosine)
    own = np.arctan2(rabi.imag, rabi.real)
    half = np.copysign(np.pi / 2, sine)  # the angle of i sine
    phases = np.empty((len(rabi), 2, rabi.shape[1]))
    phases[:, 0] = own + half - phase
    phases[:, 1] = -own - half - phase
    return DriveRotations(turns, phases, (phase + detuning * lengths / 2).sum(axis=1))
