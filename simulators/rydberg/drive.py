"""Drive of atoms between its samples, and its means over steps.

Samples stand at whole nanoseconds. Between them the complex Rabi frequency omega exp(-i phi) and
the detuning of each atom are cubic splines with not-a-knot ends, the rule of pulser-simulation
(`QobjEvo` of QuTiP with arrays, order 3): the two Hamiltonians agree to rounding errors. The spline
of a sum is the sum of the splines, so channels are added before: omega exp(-i phi), and not omega
and phi.
"""

from __future__ import annotations

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
            + sum_{j<k} interaction_jk n_j n_k + exchange_jk (|01><10|_jk + h.c.)
    """

    rabi: NDArray[np.complex128]  # [T + 1, n], rad/us, at 0, 1 .. T ns
    detuning: Reals  # [T + 1, n], rad/us
    interaction: Reals  # [n, n], rad/us, symmetric
    exchange: Reals  # [n, n], rad/us, symmetric; [0, 0] if there is none

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


_THIRDS = np.array([0.0, 1 / 3, 1 / 2, 2 / 3, 1.0])  # edges of one, two and three steps
LEVELS = ((0, 4), (0, 2, 4), (0, 1, 3, 4))  # the edges of each
WEIGHTS = (1 / 24, -16 / 15, 81 / 40)  # of extrapolation from these steps, of sixth order
_LEAST_JUMP = 0.25  # rad/us
_SUDDEN = 8.0  # a jump is so many times the changes beside it


class WindowMeans(msgspec.Struct, frozen=True, eq=False):
    """Means of the drive over one, two and three equal steps of a window.

    `roughness`: [columns], what extrapolation from these steps leaves of the first moments of the
    drive about the middles of the steps, in rad/us * us**2. It is of sixth order for a drive that
    is smooth within the window, and large for one that jumps there."""

    rabi: tuple[NDArray[np.complex128], ...]  # [steps, n] of each level
    detuning: tuple[Reals, ...]
    roughness: float


class Drive:
    """Exact integrals of the splines of a PulseProgram."""

    def __init__(self, program: PulseProgram) -> None:
        from scipy.interpolate import make_interp_spline  # here: it takes 0.3 s to import

        self._atoms = program.atoms
        columns = np.hstack([program.rabi.real, program.rabi.imag, program.detuning])
        self._unique, self._columns = np.unique(columns, axis=1, return_inverse=True)
        times = np.arange(len(columns), dtype=np.float64)
        self._integral = make_interp_spline(times, self._unique, k=3).antiderivative()
        self._second = self._integral.antiderivative()
        changes = np.abs(np.diff(self._unique, axis=0))
        beside = np.zeros_like(changes)
        beside[1:] = changes[:-1]
        beside[:-1] = np.maximum(beside[:-1], changes[1:])
        jumps = (changes > _LEAST_JUMP) & (changes > _SUDDEN * beside)
        self.jumps_ns = np.flatnonzero(jumps.any(axis=1)) + 0.5  # times of sudden changes

    def means(self, edges_ns: Reals) -> tuple[NDArray[np.complex128], Reals]:
        """Means of the Rabi frequency and detuning [len(edges_ns) - 1, n] between the edges."""
        return self._by_atom(np.diff(self._integral(edges_ns), axis=0) / np.diff(edges_ns)[:, None])

    def window(self, start_ns: float, length_ns: float) -> WindowMeans:
        """Means and roughness of a window."""
        edges = start_ns + length_ns * _THIRDS
        first, second = self._integral(edges), self._second(edges)
        rough = np.zeros(first.shape[1])
        rabi, detuning = [], []
        for places, weight in zip(LEVELS, WEIGHTS, strict=True):
            chosen = list(places)
            step = length_ns / (len(places) - 1)
            ends, areas = first[chosen], np.diff(second[chosen], axis=0)
            moments = step / 2 * (ends[:-1] + ends[1:]) - areas
            rough += weight * moments.sum(axis=0)
            means = self._by_atom(np.diff(ends, axis=0) / step)
            rabi.append(means[0])
            detuning.append(means[1])
        roughness = 1e-6 * float(np.abs(rough[self._columns]).max())
        return WindowMeans(tuple(rabi), tuple(detuning), roughness)

    def _by_atom(self, unique: Reals) -> tuple[NDArray[np.complex128], Reals]:
        values = unique[:, self._columns]
        n = self._atoms
        return values[:, :n] + 1j * values[:, n : 2 * n], values[:, 2 * n :]


def rotations(
    rabi: NDArray[np.complex128], detuning: Reals, length_us: float
) -> tuple[Reals, Reals, complex]:
    """Return the exponentials of each atom's own terms as diag(1, e^(i left)) rotation diag(1,
    e^(i right)): [steps, n, 2] with cosine and sine, the phases right and left of each step
    [2 * steps, n], and the factor of the whole state. `rabi`, `detuning`: [steps, n], rad/us."""
    frequency = np.sqrt(np.abs(rabi) ** 2 + detuning**2)
    angle = frequency * (length_us / 2)
    sine = np.sin(angle) / np.where(frequency == 0.0, 1.0, frequency)
    # Columns of exp(-i h (rabi |0><1| + h.c. - detuning n)), up to exp(i h detuning / 2).
    stays = np.cos(angle) - 1j * sine * detuning
    leaves = -1j * sine * np.conj(rabi)  # from 0 to 1
    enters = -1j * sine * rabi  # from 1 to 0
    turns = np.stack([np.abs(stays), np.abs(leaves)], axis=-1)
    turns /= np.linalg.norm(turns, axis=-1, keepdims=True)
    phase = np.angle(stays)
    left = np.where(leaves == 0.0, -2 * phase, np.angle(leaves) - phase)
    right = np.where(leaves == 0.0, 0.0, np.angle(-enters) - phase)
    phases = np.stack([right, left], axis=1).reshape(-1, rabi.shape[1])
    whole = phase.sum() + (detuning.sum() * length_us / 2)
    return turns, phases, complex(np.exp(1j * whole))
