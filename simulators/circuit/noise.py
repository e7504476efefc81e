"""Noise program: the channels of a noise model at the locations of one circuit."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, Readout
from simulators.catalog import NoiseKind
from simulators.circuit.ir import Circuit
from simulators.circuit.time_order import OrderedCircuit

__all__ = ["AFTER_OP", "CHANNEL", "Q0", "Q1", "NoiseProgram", "Readout"]

# Facts about the channels of a noise program that passes and cost models need, as one array
# each.

BLOCK = 256  # floats of a transfer matrix on two qubits
CLOSED, FIRST_ALONE, SECOND_ALONE = 1, 2, 4  # traits of a channel
_TOLERANCE = 1e-14  # limit of entries of a transfer matrix that count as zero
_OFF_DIAGONAL = 1e-12  # limit of off-diagonal entries of a Pauli channel's transfer matrix
_CERTAIN = 1.0 - 1e-12  # largest probability of an error


class ChannelFacts(msgspec.Struct, frozen=True, eq=False):
    """Facts of channels, which programs with some of the same channels share.

    `traits`: CLOSED if the Z-diagonal part is closed; FIRST_ALONE (SECOND_ALONE) if the action on
    the first (second) qubit does not depend on the other one. `is_pauli`: True for a mixture of
    Pauli operators. `errors`: -log(1 - p). p is estimated as the entanglement infidelity without
    its coherent part, which folds into the gate: (1 - sqrt(u)) (4^n - 1) / 4^n by the unitarity u
    (Wallman et al., arXiv 1503.07865). `drawn`: the part of `errors` that depends on the state: the
    nonunital part, the probability of a reset. `matrices`: the Pauli transfer matrix row by row,
    padded with zeros.
    """

    rows: NDArray[np.int64]  # [channels]: row of each channel in the arrays below
    all_traits: NDArray[np.uint8]
    all_is_pauli: NDArray[np.bool_]
    all_errors: NDArray[np.float64]
    all_drawn: NDArray[np.float64]
    all_matrices: NDArray[np.float64]  # [rows, BLOCK]

    @property
    def traits(self) -> NDArray[np.uint8]:
        """Traits of the channels, uint8 [channels]."""
        return self.all_traits[self.rows]

    @property
    def is_pauli(self) -> NDArray[np.bool_]:
        """Pauli channels, bool [channels]."""
        return self.all_is_pauli[self.rows]

    @property
    def errors(self) -> NDArray[np.float64]:
        """Error weights, float64 [channels]."""
        return self.all_errors[self.rows]

    @property
    def drawn(self) -> NDArray[np.float64]:
        """State-dependent parts of the error weights, float64 [channels]."""
        return self.all_drawn[self.rows]

    def of(self, indices: NDArray[np.int64]) -> ChannelFacts:
        return msgspec.structs.replace(self, rows=self.rows[indices])

    def joined(self, other: ChannelFacts) -> ChannelFacts:
        """Facts of these channels followed by others, both made by `channel_facts` or this method.
        Matrices are written into the same array while it has room."""
        count = self.rows.size
        total = count + other.rows.size
        matrices = self.all_matrices
        if total > len(matrices):
            matrices = np.zeros((2 * total, BLOCK))
            matrices[:count] = self.all_matrices[:count]
        matrices[count:total] = other.all_matrices
        return ChannelFacts(
            np.arange(total), np.concatenate((self.all_traits, other.all_traits)),
            np.concatenate((self.all_is_pauli, other.all_is_pauli)),
            np.concatenate((self.all_errors, other.all_errors)),
            np.concatenate((self.all_drawn, other.all_drawn)), matrices,
        )  # fmt: skip


def transfer_matrices(channels: Sequence[Channel]) -> NDArray[np.float64]:
    """Pauli transfer matrices of channels on one and two qubits, float64 [channels, BLOCK]."""
    result = np.zeros((len(channels), BLOCK))
    for row, channel in zip(result, channels, strict=True):
        row[: channel.ptm.size] = channel.ptm.ravel()
    return result


def channel_facts(channels: Sequence[Channel]) -> ChannelFacts:
    """Facts of channels on one and two qubits."""
    count = len(channels)
    traits, is_pauli = np.zeros(count, np.uint8), np.zeros(count, np.bool_)
    errors, drawn = np.zeros(count), np.zeros(count)
    for size, masks, flags in _FORBIDDEN:
        mine = [k for k, channel in enumerate(channels) if len(channel.ptm) == size]
        if not mine:
            continue
        stack = np.array([channels[k].ptm for k in mine])
        flat = np.abs(stack).reshape(len(mine), -1)
        traits[mine] = (flat @ masks < _TOLERANCE) @ flags
        is_pauli[mine] = flat[:, ~np.eye(size, dtype=np.bool_).ravel()].max(1) < _OFF_DIAGONAL
        unital = np.sqrt(np.square(stack[:, 1:, 1:]).sum(axis=(1, 2)) / (size - 1))
        p = np.clip((1.0 - unital) * (size - 1) / size, 0.0, _CERTAIN)
        errors[mine] = -np.log1p(-p)
        drawn[mine] = np.minimum(errors[mine], np.abs(stack[:, 1:, 0]).max(axis=1))
    matrices = transfer_matrices(channels)
    return ChannelFacts(np.arange(count), traits, is_pauli, errors, drawn, matrices)


def _forbidden(size: int) -> tuple[int, NDArray[np.float64], NDArray[np.uint8]]:
    """Masks of the entries [size^2, traits] that are zero if a channel has a trait, with the
    flags."""
    index = np.arange(size)
    diagonal = ((index & 3) % 3 == 0) & ((index >> 2) % 3 == 0)
    first, second = index & 3 == 0, index >> 2 == 0
    masks = [(diagonal, CLOSED)]
    if size == 16:
        masks += [(second, FIRST_ALONE), (first, SECOND_ALONE)]
    columns = [np.outer(mask, ~mask).ravel() for mask, _ in masks]
    flags = np.array([flag for _, flag in masks], np.uint8)
    return size, np.array(columns, np.float64).T, flags


_FORBIDDEN = _forbidden(4), _forbidden(16)


AFTER_OP, CHANNEL, Q0, Q1 = range(4)  # columns of a location


class Detunings(msgspec.Struct, frozen=True, eq=False):
    """Rotations about Z of qubits whose detuning is constant during a shot, in order. The rotation
    angle is `angles` times x, the detuning of the qubit in units of its standard deviation: normal,
    independent from shot to shot and from qubit to qubit."""

    before: NDArray[np.int64]  # [rotations]: the operation that each precedes; their number: none
    qubits: NDArray[np.int64]  # [rotations]
    angles: NDArray[np.float64]  # [rotations]
    loops: bool = False  # the circuit has loops: a rotation may act several times
    # Largest phase of each qubit, rad for one standard deviation; a qubit without an entry: the sum
    # of its rotations.
    bounds: dict[int, float] = msgspec.field(default_factory=dict)

    def of(self, operations: NDArray[np.int64], wires: NDArray[np.int64]) -> Detunings | None:
        """Rotations in the numbering of a part; None if it has none. `operations`: of the part,
        ascending; `wires`: new number of each qubit up to the last one of the part, -1: not in
        it."""
        inside = self.qubits < wires.size
        inside[inside] = wires[self.qubits[inside]] >= 0
        if not inside.any():
            return None
        before, qubits = np.searchsorted(operations, self.before[inside]), self.qubits[inside]
        bounds = {
            int(wires[q]): self.bounds[q] for q in np.unique(qubits).tolist() if q in self.bounds
        }
        return Detunings(before, wires[qubits], self.angles[inside], self.loops, bounds)


class Leakage(msgspec.Struct, frozen=True, eq=False):
    """Gates that take a qubit from |1> to a third level with probability `leak`, and gates and idle
    times that bring one back from there to |1> with probability `seep` and to |0> with probability
    `decay`, in order; see `passes.leakage`."""

    after: NDArray[np.int64]  # [events]: the operation that each follows
    places: NDArray[np.int64]  # [events]: location of the noise program that each precedes
    qubits: NDArray[np.int64]  # [events]
    leak: NDArray[np.float64]  # [events]
    seep: NDArray[np.float64]  # [events]
    decay: NDArray[np.float64]  # [events]
    readout: NDArray[np.float64]  # [qubits]: probability that a leaked qubit is read as |1> is

    def of(self, operations: NDArray[np.int64], wires: NDArray[np.int64]) -> Leakage | None:
        """Leakage in the numbering of a part with all locations; see `Detunings.of`. Events without
        leakage after an operation that the part lacks, as idle times, follow the last earlier one.
        None: it has none."""
        inside = (self.leak == 0.0) | np.isin(self.after, operations)
        inside &= self.qubits < wires.size
        inside[inside] = wires[self.qubits[inside]] >= 0
        if not inside.any():
            return None
        owners = np.flatnonzero(wires >= 0)
        return Leakage(
            np.searchsorted(operations, self.after[inside], side="right") - 1, self.places[inside],
            wires[self.qubits[inside]], self.leak[inside], self.seep[inside],
            self.decay[inside], self.readout[owners[np.argsort(wires[owners])]],
        )  # fmt: skip

    @property
    def num_flags(self) -> int:
        """Number of qubits that leak."""
        return np.unique(self.qubits).size

    @property
    def memory_bytes(self) -> int:
        return 48 * self.qubits.size + self.readout.nbytes


class NoiseProgram(msgspec.Struct, frozen=True, eq=False):
    """Noise of one circuit; a plan depends on it through `digest`. Locations are those of the
    circuit `located`, in order of their action. AFTER_OP: the operation that a channel follows (-1:
    before the first one); CHANNEL: its number in `channels`; Q0 is bit 0 of its matrices; Q1 is -1
    for a channel on one qubit."""

    digest: bytes  # of the noise model and the locations: part of the key of a cached plan
    kinds: frozenset[NoiseKind]
    locations: NDArray[np.int64]  # [n, 4]
    channels: tuple[Channel, ...] = ()
    readout: Readout | None = None  # of the circuit's qubits, at each measurement
    known_facts: ChannelFacts | None = None  # facts of the channels, if known
    duration_ns: float = -1.0  # duration of the circuit's schedule; -1.0: not scheduled
    detunings: Detunings | None = None
    leakage: Leakage | None = None
    ordered: OrderedCircuit | None = None  # by start time; None: the operations stay as listed

    def located(self, circuit: Circuit) -> Circuit:
        """The circuit that the noise acts on: the one that it was made for, in the order of time
        where coupled qubits interact."""
        return circuit if self.ordered is None else self.ordered.of(circuit)

    @property
    def memory_bytes(self) -> int:
        """Memory of the locations and channels, each counted as if no other program shared it."""
        facts = 0 if self.known_facts is None else self.known_facts.rows.nbytes
        rotations = 0 if self.detunings is None else 24 * self.detunings.angles.size
        flags = 0 if self.leakage is None else self.leakage.memory_bytes
        ordered = 0 if self.ordered is None else self.ordered.memory_bytes
        own = self.locations.nbytes + facts + rotations + flags + ordered
        return own + sum(each.ptm.nbytes for each in self.channels)

    @property
    def facts(self) -> ChannelFacts:
        """Facts about the channels that passes need."""
        return channel_facts(self.channels) if self.known_facts is None else self.known_facts
