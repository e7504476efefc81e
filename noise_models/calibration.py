"""Measured values of a calibration: one device at one time.

Field names end in their units. None: the value was not measured. Physical limits (T2 <= 2 T1, the
largest error of a depolarizing channel) never change a stored value: `snapshot.clamps` lists the
values beyond a limit, and a noise model applies the limit.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from noise_models.atoms import AnalogCalibration

FORMATS = (1, 2)  # that are read; a snapshot has the first one that holds all of its fields
_FAMILY = re.compile(r"[A-Za-z][A-Za-z-]*")
_NAMED_MEASUREMENT = re.compile(r"measure_[A-Za-z0-9_]{1,56}", re.ASCII)
# Two-qubit gates that do not change when their qubits are exchanged.
SYMMETRIC = frozenset(("cz", "cp", "cu1", "cs", "csdg", "swap", "iswap", "rxx", "ryy", "rzz"))
IBM_PROPERTIES = "ibm-properties"  # name of the importer of IBM's backend properties
# Factor of the ZZ rates that these state, where a snapshot has none of its own: see "Crosstalk" in
# docs/concepts/noise.md, and the figures of `python -m bench run noise_calibration`.
IBM_ZZ_STRENGTH = 0.0
# Time before a shot if a calibration has none: the default `rep_delay` of IBM Quantum's processors,
# the reset of IonQ's Aria, the interval between shots of QuEra's Aquila.
RESET_NS = {"superconducting": 250e3, "trapped-ion": 20e3, "neutral-atom": 200e6}
MOST_MEMORY_ERROR = 1.0 / 3.0  # average infidelity of complete dephasing
Technology = Literal["superconducting", "trapped-ion", "neutral-atom", "simulator", ""]


def is_named_measurement(name: str) -> bool:
    """Return whether an operation is a measurement instruction with a name of its own, such as
    IBM's `measure_2`, as Qiskit's MidCircuitMeasure names them."""
    return _NAMED_MEASUREMENT.fullmatch(name) is not None


class NativeGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gate that the device executes; the name is Qiskit's."""

    name: str
    num_qubits: int
    num_params: int = 0


class T1Jumps(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Jumps of a qubit's T1 by a defect that is a two-level system: a telegraph process between the
    calibrated T1 and a low one (Klimov et al., arXiv 1809.01043; arXiv 2407.02467). A pool that
    drifts has the process; a snapshot is one state of it."""

    per_hour: float  # rate of jumps to the low value while T1 is as calibrated
    dwell_s: float  # mean time at the low value
    factor: float  # low T1 / calibrated T1
    low: bool = False  # True: T1 is low now


class QubitCalibration(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Measured properties of one qubit."""

    t1_us: float | None = None
    t2_us: float | None = None  # as measured, possibly above 2 T1
    frequency_ghz: float | None = None
    p01: float | None = None  # probability that |0> is read as 1
    p10: float | None = None  # probability that |1> is read as 0
    readout_ns: float | None = None
    readout_error: float | None = None  # mean of p01 and p10, where the source gives it
    excited: float | None = None  # population of |1> in thermal equilibrium
    reset_error: float | None = None  # probability of |1> after a reset
    reset_ns: float | None = None
    preparation_error: float | None = None  # probability of |1> at the start of a circuit
    # Time at which the envelope of a Ramsey experiment has fallen to 1/e, beside `t2_us`, that of
    # an echo: the difference is a detuning that is constant during a shot.
    t2_star_us: float | None = None
    # Average infidelity of the qubit in each layer of a circuit, beside that of its gates: trapped
    # ions are transported and wait until all pairs of the layer had their gate.
    memory_error: float | None = None
    # Probabilities that a measurement inside a circuit leaves |1> in |0>, and |0> in |1>; both
    # contain relaxation during the readout.
    measure_decay: float | None = None
    measure_excitation: float | None = None
    # Probability that the qubit, in its third level, is read as |1> is (with p10), else as |0> is
    # (with p01). None: 1.
    leaked_readout: float | None = None
    # T1 of the third level: time constant of its decay to |1> while the qubit waits. None: see
    # `CalibrationSnapshot.leaked_t1_us`.
    leaked_t1_us: float | None = None
    # Part of a readout inside a circuit after which the outcome is decided: relaxation before it
    # changes the outcome too. None: 0.
    readout_decided: float | None = None
    t1_jumps: T1Jumps | None = None

    @property
    def jump_rate_per_us(self) -> float:
        """What a jump adds to 1/T1 now; 0.0: T1 is as calibrated."""
        jumps = self.t1_jumps
        if jumps is None or not jumps.low or not self.t1_us:
            return 0.0
        return (1.0 / jumps.factor - 1.0) / self.t1_us

    @property
    def in_force(self) -> QubitCalibration:
        """The qubit with the T1 of its jump, and the T2 and T2* that follow from it, as its
        calibrated values; itself if T1 is not low. Pure dephasing and detuning stay."""
        return self.with_jump(1.0)

    def with_jump(self, factor: float) -> QubitCalibration:
        """`in_force` with what the jump adds to 1/T1 times a factor."""
        more = self.jump_rate_per_us * factor
        if not more or not self.t1_us:
            return self
        t1_us, t2_us = 1.0 / (1.0 / self.t1_us + more), None
        if self.t2_limited_us is not None:
            t2_us = min(1.0 / (1.0 / self.t2_limited_us + 0.5 * more), 2.0 * t1_us)
        star_us = None
        if self.t2_star_us is not None:
            star_us = t2_star_us(t2_us or 2.0 * t1_us, self.detuning_rad_us)
        changes = {"t1_us": t1_us, "t2_us": t2_us, "t2_star_us": star_us}
        return msgspec.structs.replace(self, t1_jumps=None, **changes)

    @property
    def detuning_rad_us(self) -> float:
        """Standard deviation s of the detuning from shot to shot, in rad per us; 0.0: none. The
        envelope exp(-t / T2 - (s t)^2 / 2) is 1/e at T2* (Ithier et al., arXiv cond-mat/0508588,
        section II.C)."""
        if self.t2_star_us is None:
            return 0.0
        echo_us = self._echo_us
        return math.sqrt(2.0 * max(0.0, 1.0 - self.t2_star_us / echo_us)) / self.t2_star_us

    @property
    def _echo_us(self) -> float:
        """T2 limited to 2 T1, or that limit where T2 was not measured."""
        result = self.t2_limited_us
        if result is None:
            return math.inf if self.t1_us is None else 2.0 * self.t1_us
        return result

    def with_detuning(self, rad_us: float) -> QubitCalibration:
        """Copy with the T2* that a detuning of this standard deviation has beside T2."""
        echo_us = self._echo_us
        rate = 1.0 / echo_us  # of the positive root of (s t)^2 / 2 + rate t = 1
        if rad_us == 0.0:
            star_us = None if math.isinf(echo_us) else echo_us
        else:
            star_us = 2.0 / (rate + math.hypot(rate, math.sqrt(2.0) * rad_us))
        return msgspec.structs.replace(self, t2_star_us=star_us)

    @property
    def t2_limited_us(self) -> float | None:
        """T2 limited to 2 T1; None: not measured."""
        if self.t2_us is None or self.t1_us is None:
            return self.t2_us
        return min(self.t2_us, 2.0 * self.t1_us)

    @property
    def t2_ramsey_us(self) -> float | None:
        """Time at which the envelope of a Ramsey experiment is 1/e; None: not measured."""
        times = (self.t2_star_us, self.t2_limited_us)
        return min((each for each in times if each is not None), default=None)

    @property
    def confusion(self) -> tuple[float, float] | None:
        """(p01, p10); both are `readout_error` if only that was measured. None: nothing was
        measured."""
        if self.p01 is None and self.p10 is None:
            return None if self.readout_error is None else (self.readout_error,) * 2
        rest = self.readout_error if self.readout_error is not None else 0.0
        p01 = self.p01 if self.p01 is not None else _other(rest, self.p10)
        p10 = self.p10 if self.p10 is not None else _other(rest, self.p01)
        return p01, p10

    @property
    def state_without_readout(self) -> int | None:
        """State that is read exactly because the error of the other one alone was measured."""
        if self.readout_error is not None or (self.p01 is None) == (self.p10 is None):
            return None
        return 1 if self.p10 is None else 0


def t2_star_us(t2_us: float, detuning_rad_us: float) -> float:
    """Return the time at which the envelope exp(-t / T2 - (s t)^2 / 2) is 1/e, for the standard
    deviation s of the detuning."""
    slope = 1.0 / t2_us
    return 2.0 / (slope + math.sqrt(slope * slope + 2.0 * detuning_rad_us * detuning_rad_us))


def _other(mean: float, first: float | None) -> float:
    """The second of two probabilities from their mean and the first one, within 0 to 1."""
    return min(max(2.0 * mean - (first or 0.0), 0.0), 1.0)


class PauliRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rotation exp(-i angle P / 2) about a Pauli P; the first letter of `pauli` acts on the first
    qubit."""

    pauli: str
    angle_rad: float


class PauliError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pauli error of a gate or a Bell pair; the first letter of `pauli` acts on the first qubit."""

    pauli: str  # a letter I, X, Y or Z for each qubit, not all I
    probability: float


def pauli_infidelity(paulis: Iterable[PauliError], num_qubits: int) -> float:
    """Return the average gate infidelity of a Pauli channel: d / (d + 1) of the probability that
    there is an error, with d = 2^n (Nielsen, arXiv quant-ph/0205035)."""
    side = 1 << num_qubits
    return math.fsum(each.probability for each in paulis) * side / (side + 1)


class GateCalibration(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Measured properties of one gate on one ordered set of qubits. `qubits=()`: the entry holds
    for every set of qubits that has no entry of its own."""

    name: str
    qubits: tuple[int, ...] = ()
    error: float | None = None  # average gate infidelity; 1.0 marks a gate that does not work
    duration_ns: float | None = None
    over_rotation_rad: float | None = None  # coherent error of the gate's rotation angle
    rotations: tuple[PauliRotation, ...] = ()  # after the over-rotation, in this order
    # Leakage L1: mean probability, over the computational states, that the gate takes one of its
    # qubits to a third level. Seepage: probability that a qubit there comes back to |1> in the
    # gate, L2 of a gate on one qubit. (Wood and Gambetta, arXiv 1704.03081, section II.)
    leakage: float | None = None
    seepage: float | None = None
    # Pauli channel after the gate, in place of the depolarizing rest of `error`. The rest of the
    # probability is that of no error. `error` is then its average infidelity, also if not given.
    paulis: tuple[PauliError, ...] = ()

    def __post_init__(self) -> None:
        if self.paulis and self.error is None:
            error = pauli_infidelity(self.paulis, len(self.paulis[0].pauli))
            msgspec.structs.force_setattr(self, "error", error)

    def with_error(self, error: float) -> GateCalibration:
        """Copy with another error, and all Pauli errors times the same factor."""
        scale = error / self.error if self.error else 1.0
        paulis = tuple(
            msgspec.structs.replace(each, probability=each.probability * scale)
            for each in self.paulis
        )
        return msgspec.structs.replace(self, error=error, paulis=paulis)

    def leaks_from_one(self, num_qubits: int) -> float:
        """Probability that a qubit of the gate leaks from |1>, alike for each: a computational
        state has |1> at half of its places, so 1 - L1 = (1 - p / 2)^n. At most 1."""
        kept: float = (1.0 - (self.leakage or 0.0)) ** (1.0 / num_qubits)
        return min(2.0 * (1.0 - kept), 1.0)


def leaked_infidelity(gate: GateCalibration, num_qubits: int) -> float:
    """Return the average infidelity to the identity of a gate's leakage alone, which adds to that
    of other parts to first order: 1 - (|tr K|^2 + tr K^+ K) / (d (d + 1)) for the operator K of the
    shots that stay, diag(1, sqrt(1 - p)) of each qubit (Wood and Gambetta, arXiv 1704.03081)."""
    if not gate.leakage:
        return 0.0
    p, side = gate.leaks_from_one(num_qubits), 1 << num_qubits
    overlap = (1.0 + math.sqrt(1.0 - p)) ** (2 * num_qubits) + (2.0 - p) ** num_qubits
    return 1.0 - overlap / (side * (side + 1))


class MeasurementCalibration(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Measured properties of a measurement instruction with a name of its own on one qubit. None:
    those of the qubit's `measure` hold."""

    name: str
    qubit: int
    error: float | None = None  # probability of the wrong outcome, that of 0 and 1 alike
    duration_ns: float | None = None


class MeasurementCrosstalk(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What the measurement of a qubit inside a circuit does to another one, which is not measured.
    `qubits`: the measured one and the other; (): any two that have no entry of their own."""

    qubits: tuple[int, ...] = ()
    error: float | None = None  # average infidelity of the other qubit: dephasing
    angle_rad: float | None = None  # its rotation about Z


class ZZCoupling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Static ZZ interaction of two qubits. `rate_khz` is (E11 - E10 - E01 + E00) / h: the shift of
    one qubit's frequency if the other is excited. H / h = rate / 4 ZZ plus one-qubit terms. (Krantz
    et al., arXiv 1904.06560, IV.E.)"""

    qubits: tuple[int, int]
    rate_khz: float


def acting_zz_khz(terms: Iterable[ZZCoupling], factor: float = 1.0) -> dict[tuple[int, int], float]:
    """Rates times a factor by pair, the smaller number first; those of 0 left out."""
    return {
        (min(zz.qubits), max(zz.qubits)): zz.rate_khz * factor
        for zz in terms
        if zz.rate_khz * factor != 0.0
    }


class FitScope(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Measured circuits that a device was fitted to."""

    device: str  # whose calibration was fitted
    qubits: tuple[int, ...]  # that the circuits used; they are the compiler's choice if `placed`
    # Different circuits, apart from their last gates on single qubits; those with gates on several
    # qubits, if there are any: preparations of states say nothing about these.
    bodies: int
    widest: int  # largest number of qubits of a circuit
    two_qubit_gates: int  # most of a circuit
    families: tuple[str, ...] = ()  # named in the data; ("",): none was
    first: str = ""  # dates of the counts, ISO 8601; "": not known
    last: str = ""
    placed: bool = False
    pairs: tuple[tuple[int, int], ...] = ()  # of their gates, the smaller number first; (): any
    one_qubit_gates: int | None = None  # most on a qubit, without virtual ones; None: any
    delay_ns: float | None = None  # most of a qubit; None: any
    depth: int | None = None  # most layers of gates, without virtual ones; None: any
    duration_ns: float | None = None  # of the longest circuit; None: any
    gates: tuple[tuple[str, int], ...] = ()  # most of a circuit by name; on one qubit together
    pair_bodies: tuple[int, ...] = ()  # different circuits with gates on each of `pairs`
    refused: str = ""  # reason for which the fit was refused; it was stored by force

    @staticmethod
    def family(name: str) -> str:
        """Family of a circuit by its name: the letters before the first other character, apart from
        hyphens, in lower case."""
        found = _FAMILY.match(name)
        return "" if found is None else found[0].strip("-").lower()


class AngleBounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Smallest and largest angle of each parameter of a native gate, in radians."""

    gate: str
    bounds_rad: tuple[tuple[float, float], ...]


class LayerGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A two-qubit gate of a layer."""

    name: str
    qubits: tuple[int, int]


class PauliGenerator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Generator of a Pauli-Lindblad channel: exp(rate (P rho P - rho)). The first letter of `pauli`
    acts on the first qubit."""

    pauli: str
    qubits: tuple[int, ...]
    rate: float


class LayerCalibration(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Pauli-Lindblad error of two-qubit gates that act at the same time, and of the qubits around
    them. (van den Berg et al., arXiv 2201.09866.)

    The channel acts before the gates. It was learned with the gates' own errors, the relaxation of
    all of `qubits` during the layer and their crosstalk, in circuits with Pauli twirling, so that
    it replaces these.
    """

    gates: tuple[LayerGate, ...]
    qubits: tuple[int, ...]  # that the rates describe: those of the gates, and waiting ones
    generators: tuple[PauliGenerator, ...] = ()
    calibrated: str = ""  # ISO 8601; "": not known
    source: str = ""  # of the rates

    @property
    def names(self) -> tuple[str, ...]:
        """Gates with their qubits, such as `cz 0-1`."""
        return tuple(f"{gate.name} {gate.qubits[0]}-{gate.qubits[1]}" for gate in self.gates)

    @property
    def error(self) -> float:
        """Sum of the probabilities of all Pauli errors, (1 - e^(-2 rate)) / 2."""
        return 0.5 * sum(-math.expm1(-2.0 * each.rate) for each in self.generators)


class CorrelatedReadout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Confusion matrix of qubits that are read together: row read, column true, [2^k][2^k]. Bit 0
    of an index is qubits[0]. Each column sums to 1."""

    qubits: tuple[int, ...]
    confusion: tuple[tuple[float, ...], ...]

    @property
    def joint_flip(self) -> float:
        """Probability p with which both records of a pair are flipped after the errors of each, at
        least 0.0; 0.0 for other groups. A joint flip multiplies the contrast of either record by
        1 - 2 p and leaves that of their parity."""
        if len(self.qubits) != 2:
            return 0.0
        first, second, parity = (
            sum(
                (-1) ** ((read & mask).bit_count() + (true & mask).bit_count()) * p
                for read, row in enumerate(self.confusion)
                for true, p in enumerate(row)
            )
            / 4.0
            for mask in (1, 2, 3)
        )
        if min(first, second, parity) <= 0.0:
            return 0.0
        return max(0.5 - 0.5 * math.sqrt(first * second / parity), 0.0)


class Module(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A QPU of a device that is several ones, joined by links."""

    name: str
    qubits: tuple[int, ...]
    communication: tuple[int, ...] = ()  # those of `qubits` that links end at
    snapshot: str = ""  # digest of the module's own snapshot, hexadecimal; "": it has none


LINK_GATE = "rxx"  # with an angle of pi / 2: the native gate that makes the pair of a link
_KEEP_PAIR = frozenset(("ZZ", "XY", "YX"))  # Paulis that do not change the state of `Link.paulis`


class Link(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Source of Bell pairs on two communication qubits of different modules, and the classical
    channel beside it.

    A pair is attempted until a herald tells that there is one: its wait is `herald_ns` times a
    geometric number of attempts, or, where that is 0.0, exponential (Humphreys et al., arXiv
    1712.07567; Main et al., arXiv 2407.00835)."""

    pair: tuple[int, int]
    fidelity: float | None = None  # of the pair, with errors X, Y and Z alike: a Werner state
    # Errors of the pair, where `fidelity` is None. They act on the state (|00> - i |11>) / sqrt(2)
    # that `rxx(pi/2)` makes; one on the second qubit alone gives any mixture of Bell states.
    paulis: tuple[PauliError, ...] = ()
    rate_hz: float | None = None  # 1 / mean time of the attempts that fail; None: none does
    herald_ns: float = 0.0  # time of one attempt, with its herald
    latency_ns: float = 0.0  # from the end of a measurement to a gate in the other module
    attempts_max: int = 0  # after which a shot is given up, and is not counted; 0: no limit

    @property
    def success(self) -> float:
        """Probability that one attempt succeeds, for `herald_ns` above 0.0."""
        if self.rate_hz is None:
            return 1.0
        return self.herald_ns / (self.herald_ns + 1e9 / self.rate_hz)

    @property
    def mean_wait_ns(self) -> float:
        """Mean time until the pair is heralded, of the shots that are not given up."""
        if self.rate_hz is None:
            return self.herald_ns
        mean = self.herald_ns + 1e9 / self.rate_hz
        if not self.attempts_max:
            return mean
        # Of a geometric number that is at most n: 1 / p - n q^n / (1 - q^n), with q = 1 - p.
        failed = self.attempts_max * math.log1p(-self.success)
        return mean + self.herald_ns * self.attempts_max * math.exp(failed) / math.expm1(failed)

    @property
    def infidelity(self) -> float:
        """1 - fidelity of the pair."""
        if self.fidelity is not None:
            return 1.0 - self.fidelity
        return math.fsum(each.probability for each in self.paulis if each.pauli not in _KEEP_PAIR)


def _remade(link: Link, gate: GateCalibration | None) -> Link:
    """A link with the pairs that a gate makes."""
    if gate is None or gate.error is None or gate.error >= 1.0:
        return link
    if link.paulis:
        return msgspec.structs.replace(link, paulis=gate.paulis)
    return msgspec.structs.replace(link, fidelity=max(1.0 - gate.error, 0.25))


class LogicalOrigin(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Code and chip of a device whose qubits are logical: its errors are what decoding leaves."""

    code: str
    distance: int
    decoder: str
    chip: str  # name of the device whose qubits encode the logical ones
    chip_digest: str  # of its snapshot, hexadecimal
    options: str  # with which the errors were sampled, as text
    shots: int  # of each sampled circuit
    physical_qubits: int  # of one logical qubit
    round_ns: float  # time of one round of syndrome measurements
    deadline_ns: float = 0.0  # time that the decoder has for a round; 0.0: no limit
    # Errors of a round at this distance / those at the next odd one, of logical X and Z. None: not
    # known.
    suppression: tuple[float, float] | None = None
    extrapolated: bool = False  # by `suppression`, from a smaller distance
    # The chip's qubits of each patch that lies on it: data qubits by rows, then ancillas. Logical
    # qubit q has patch q modulo their sampled number; further patches have drawn values.
    patches: tuple[tuple[int, ...], ...] = ()


class CalibrationSnapshot(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="snapshot",
):
    """Calibration of one device at one time; `dump` and `load` convert it to canonical JSON.

    The device has what the data lists, and nothing else. A native gate with entries in `gates` acts
    on the qubits of these entries alone; with an entry for all qubits, or with none at all, on
    every usable qubit or coupled pair. An entry without figures lists a gate whose error was not
    measured; an error of 1 marks one that does not work.
    """

    name: str
    num_qubits: int
    format: int = FORMATS[0]  # set by the fields in use
    provider: str = ""
    technology: Technology = ""
    version: str = ""
    calibrated: str = ""  # ISO 8601; "": not known
    dt_ns: float = 0.0  # resolution of the device's clock; 0.0: not known
    max_shots: int = 0  # largest number of shots of one circuit; 0: not known
    dynamic: bool = False  # measurements, resets and conditions inside a circuit are possible
    feed_forward_ns: float = 0.0  # time from the end of a measurement to a gate that depends on it
    all_to_all: bool = False  # every pair is coupled; `coupling` is empty
    native_gates: tuple[NativeGate, ...] = ()
    coupling: tuple[tuple[int, int], ...] = ()  # pairs in the direction of their gates
    qubits: tuple[QubitCalibration, ...] = ()  # one for each qubit
    gates: tuple[GateCalibration, ...] = ()
    zz: tuple[ZZCoupling, ...] = ()
    correlated_readout: tuple[CorrelatedReadout, ...] = ()
    dates: dict[str, str] = {}  # dates of values not measured at `calibrated`: field -> ISO 8601
    source_format: str = ""  # name of the importer
    source_digest: str = ""  # SHA-256 of the imported files, hexadecimal
    coordinates: tuple[tuple[float, float], ...] = ()  # in a drawing: x right, y down; (): none
    rep_delay_ns: float = 0.0  # time between two shots, for the reset of the qubits; 0.0: not known
    overhead_ns: float = 0.0  # time per circuit for loading and control; 0.0: not known
    zz_strength: float | None = None  # factor of all rates of `zz`; None: `zz_factor`
    fitted: FitScope | None = None  # None: not fitted to counts
    outside: CalibrationSnapshot | None = None  # in force for circuits outside `fitted`; None: this
    unusable: tuple[int, ...] = ()  # numbers that name no qubit, or one that does not work
    unmeasured: tuple[int, ...] = ()  # usable qubits that have no measurement
    angle_bounds: tuple[AngleBounds, ...] = ()  # of gates whose angles are limited
    measurements: tuple[MeasurementCalibration, ...] = ()  # besides `measure`, where they exist
    measurement_crosstalk: tuple[MeasurementCrosstalk, ...] = ()
    unread: tuple[str, ...] = ()  # fields of the source that look like noise and were left out
    layers: tuple[LayerCalibration, ...] = ()  # errors of gates that act at the same time
    modules: tuple[Module, ...] = ()  # of which each qubit is in one; (): the device is one QPU
    links: tuple[Link, ...] = ()
    logical: LogicalOrigin | None = None  # None: the qubits are physical
    # Of a device that runs pulse sequences, on at most `num_qubits` atoms; it has no gates. None:
    # the device runs circuits.
    analog: AnalogCalibration | None = None
    # Gates beside `native_gates` that circuits have only on request: rotations by any angle of
    # IBM's processors, whose other gates make every circuit.
    fractional_gates: tuple[NativeGate, ...] = ()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "format", FORMATS[1 if self._second_format else 0])

    @property
    def _second_format(self) -> bool:
        """True if a field is in use that readers of format 1 do not know."""
        if self.modules or self.links or self.logical is not None or self.analog is not None:
            return True
        if self.outside is not None and self.outside.format == FORMATS[1]:
            return True
        return any(gate.paulis for gate in self.gates)

    @property
    def all_gates(self) -> tuple[NativeGate, ...]:
        """Native and fractional gates."""
        return self.native_gates + self.fractional_gates

    @property
    def uncalibrated_gates(self) -> tuple[str, ...]:
        """Gates of which no error was measured anywhere."""
        measured = {gate.name for gate in self.gates if gate.error is not None}
        return tuple(gate.name for gate in self.all_gates if gate.name not in measured)

    @property
    def untimed_gates(self) -> tuple[str, ...]:
        """Gates of which no duration is known anywhere, on a device with T1, T2 or ZZ rates:
        neither acts while such a gate runs, or while another qubit waits for it."""
        if not (
            self.acting_zz_khz
            or any(each.t1_us or each.t2_us or each.t2_star_us for each in self.qubits)
        ):
            return ()
        timed = {gate.name for gate in self.gates if gate.duration_ns is not None}
        return tuple(
            gate.name
            for gate in self.all_gates
            if gate.name not in timed and gate.num_qubits <= self.num_qubits
        )

    @property
    def linked(self) -> frozenset[frozenset[int]]:
        """Pairs of qubits that links join."""
        return frozenset(frozenset(each.pair) for each in self.links)

    def with_gates(self, gates: Iterable[GateCalibration]) -> CalibrationSnapshot:
        """Copy with other figures of the same gates, and with the links' pairs that these make."""
        gates = tuple(gates)
        if not self.links:
            return msgspec.structs.replace(self, gates=gates)
        made = {gate.qubits: gate for gate in gates if gate.name == LINK_GATE}
        links = tuple(_remade(link, made.get(link.pair)) for link in self.links)
        return msgspec.structs.replace(self, gates=gates, links=links)

    @property
    def leaks(self) -> bool:
        """True if a gate leaves the computational states."""
        return any(gate.leakage for gate in self.gates)

    @property
    def coupled(self) -> tuple[tuple[int, int], ...]:
        """Pairs of `coupling` whose qubits are usable and on which a native gate works: one is
        listed there without an error of 1, or a gate on two qubits acts on every pair."""
        wide = {gate.name for gate in self.native_gates if gate.num_qubits == 2}
        places: dict[str, dict[tuple[int, ...], bool]] = {name: {} for name in wide}
        for gate in self.gates:
            if gate.name in wide:
                places[gate.name][gate.qubits] = gate.error is None or gate.error < 1.0
        usable = set(range(self.num_qubits)).difference(self.unusable)
        return tuple(
            pair
            for pair in self.coupling
            if usable.issuperset(pair)
            and (
                not wide or any(each.get(pair, each.get((), not each)) for each in places.values())
            )
        )

    @property
    def zz_factor(self) -> float:
        """Factor of the ZZ rates: `zz_strength`, else IBM_ZZ_STRENGTH for rates of IBM's
        properties, and 1 for others."""
        if self.zz_strength is not None:
            return self.zz_strength
        return IBM_ZZ_STRENGTH if self.source_format == IBM_PROPERTIES else 1.0

    @property
    def acting_zz_khz(self) -> dict[tuple[int, int], float]:
        """ZZ rates times their factor by pair, the smaller number first; those of 0 left out."""
        return acting_zz_khz(self.zz, self.zz_factor)

    def leaked_t1_us(self, qubit: QubitCalibration) -> float | None:
        """Return the T1 of a qubit's third level; None: it does not decay. Where it was not
        measured, it is half of T1, as of a harmonic oscillator (Peterer et al., arXiv 1409.6031);
        the levels of ions and atoms are none."""
        if qubit.leaked_t1_us is not None or qubit.t1_us is None:
            return qubit.leaked_t1_us
        return None if self.technology in ("trapped-ion", "neutral-atom") else 0.5 * qubit.t1_us

    def reset_ns(self, qubits: Iterable[int]) -> float:
        """Return the time before a shot for the reset of these qubits. It is `rep_delay_ns`, else
        the longest calibrated reset of the qubits, else the value of RESET_NS for the
        technology."""
        if self.rep_delay_ns:
            return self.rep_delay_ns
        calibrated = [
            result
            for qubit in qubits
            if qubit < len(self.qubits) and (result := self.qubits[qubit].reset_ns) is not None
        ]
        return max(calibrated, default=RESET_NS.get(self.technology, 0.0))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON that `dump` writes, 32 bytes."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).digest()
