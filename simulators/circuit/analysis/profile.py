"""Profile of a circuit: the numbers that routing and cost models read.

The import loads neither numpy nor a kernel; `profiler` computes the numbers.
"""

import math

import msgspec


class LightConeSize(msgspec.Struct, frozen=True):
    """Numbers of a circuit's light cone, for engines that run only the light cone."""

    num_qubits: int  # sum over all its components
    widest: int  # of the widest component
    operations: int
    gates_1q: int
    gates_2q: int
    gates_many: int


class ChainTrial(msgspec.Struct, frozen=True):
    """Growth of the bonds of a matrix product state when its gates were tried (see
    `simulators.chain.trial`)."""

    bond: int  # largest bond after the gates that were applied
    done: bool  # the bonds stay, or are expected to stay, within the trial's limits
    part: float = 1.0  # share of the gates that were applied
    operations: int = 0  # estimate for all gates, also those beyond a limit
    tensor_bytes: int = 0  # last size of the tensors in double precision
    blocks: int = 0  # gates on neighbours, swaps included, that are left after fusion
    splits: int = 0  # those of the operations that grow with the bonds, as far as it was tried

    @property
    def all_splits(self) -> float:
        """Operations of the splits of all gates."""
        return self.splits if self.done else self.splits / self.part**3

    @property
    def expected_bond(self) -> int:
        """Largest bond of the whole circuit if its logarithm grows on at the same rate."""
        return math.ceil(self.bond ** (1.0 / self.part)) if self.part else self.bond


class SweepSize(msgspec.Struct, frozen=True):
    """Size of the sweeps that sample a circuit with its noise (see `simulators.lines`). Where
    `bits` is beyond the limit of any run, no program was made, and the rest is not known."""

    bits: float  # log2 of the values that a shot passes over
    layers: int  # in which values are drawn
    axes: int = 0  # of the largest tensor
    kept: int = 0  # values of the tensors that are kept at once
    steps: int = 0  # integers of the program
    parts: int = 0  # values that are drawn, times layers; too many: no program was made
    runnable: int = 0  # of a size beyond the limit: its first layers that alone would be within


class ActiveSize(msgspec.Struct, frozen=True):
    """Size of what a circuit of Clifford gates and others needs amplitudes for (see
    `active_width`)."""

    qubits: int  # of the widest part; above the limit of `active_width` it was not counted on
    work: float  # amplitudes that a shot passes over
    rotations: int  # that are no Clifford gates, and change the state


class StringsSize(msgspec.Struct, frozen=True):
    """Size of the propagation of observables, with the circuit's noise (see
    `simulators.strings`)."""

    terms: int  # distinct Pauli strings of the observables
    work: float  # strings that the steps of each of them pass over, on average
    strings: int  # held at once
    certified: bool  # those that were tried have an error of at most the tolerance
    tolerance: float


def max_sets(num_qubits: int) -> int:
    """Most sets of detunings for an exact result of so many qubits: 2^28 entries of density
    matrices, but at least 8,192 sets and at most 65,536."""
    return max(8_192, min(65_536, (1 << 28) >> min(2 * num_qubits, 28)))


class NoiseProfile(msgspec.Struct, frozen=True):
    """Numbers of the noise of one circuit. `error_weight`: L = -sum log(1 - p) over all locations,
    p the probability of an error; e^-L of the shots have none. `drawn_weight`: the part of L whose
    error depends on the state."""

    kinds: frozenset[str] = frozenset()  # see `catalog.NoiseKind`
    locations: int = 0
    pair_locations: int = 0  # locations on two qubits
    error_weight: float = 0.0
    drawn_weight: float = 0.0
    num_qubits: int = 0  # qubits that the outputs depend on; 0: not known
    shots: int = 1024  # shots for the comparison of engines; 0: exact results
    touched: int = 0  # qubits that operations act on, fewer than a device's; 0: not known
    device_shot_ns: float = 0.0  # time of one shot on the device; 0.0: not known
    device_overhead_ns: float = 0.0  # time of a circuit there without its shots
    # Qubits of the widest part that gates and channels connect, for counts and memory; 0: unknown.
    widest: int = 0
    conditional: bool = False  # a channel acts under a condition
    # Sets of detunings that are constant during a shot, of which each that shots have is a run of
    # its own; 0.0: no detunings.
    detunings: float = 0.0
    flags: int = 0  # qubits that leak, each with a flag
    outside_fit: tuple[str, ...] = ()  # see `fit_scope.ActingCalibration`


class Profile(msgspec.Struct, frozen=True, cache_hash=True):
    """Sizes of one circuit."""

    num_qubits: int
    num_clbits: int
    operations: int  # all rows, markers and barriers included
    gates_1q: int
    gates_2q: int
    gates_many: int
    measurements: int
    resets: int
    mid_circuit: bool  # needs branching: a measurement or reset that is not final, or a condition
    conditions: int  # `if` and `switch`
    loops: int = 0  # `while` and `for`
    switches: int = 0  # counted among the conditions too
    variables: int = 0
    stores: int = 0  # into clbits or variables
    unitaries: int = 0  # operations given by a matrix; counted among the gates too
    clifford: bool = False  # the rest as in `traits.Traits`
    may_be_clifford: bool = False
    non_clifford: int = 0  # gates that are not Clifford; 0: not counted
    by_angles: bool = False
    bond_bits: int = -1
    longest: int = 0
    # Most qubits with which one shares gates, of more than SMALL_QUBITS qubits; 0: not counted.
    partners: int = 0
    contraction_width: int = -1  # log2 of the largest tensor of an amplitude; -1: not known
    contraction_operations: float = 0.0  # products of values for a sample
    contraction_messages: int = 0  # sums over an index for a sample
    contraction_values: int = 0  # of all messages of a sample
    widest: int = 2  # qubits of its widest gate, at least two
    kept: LightConeSize | None = None  # None: the whole circuit
    trial: ChainTrial | None = None  # set if `bond_bits` is not decisive
    sweep: SweepSize | None = None  # set for the counts of a wide circuit
    strings: StringsSize | None = None  # set for the expectation values of a wide circuit
    active: ActiveSize | None = None  # set for a wide circuit that is no Clifford circuit
    noise: NoiseProfile | None = None
    recorded: int = -1  # bits of a classical record at once, see `recorded_bits`; -1: not known
    divisions: int = 0  # measurements before the end that are recorded; -1: not known
    # The leading parts run once; their final state is in memory besides those of the rest.
    in_parts: bool = False

    @property
    def used_qubits(self) -> int:
        """Number of qubits that operations act on, for a circuit on a device's qubits; else all."""
        touched = 0 if self.noise is None else self.noise.touched
        return touched or self.num_qubits
