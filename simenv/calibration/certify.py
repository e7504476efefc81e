"""Comparison of measured quantities of a device with the claims of its calibration snapshot.

`Claims` of a snapshot are as the experiments measure them. A gate cannot be better than the
relaxation of its qubits over its duration: if a snapshot states a smaller gate error than its own
T1, T2 and durations allow, the claim is the limit. `compare` gives a verdict on each quantity,
claimed against recovered, with simultaneous intervals; it is pure. `certify` runs all experiments
as tasks of an environment. Snapshots of a device follow from its own published figures
(`published`) and from the experiments (`recovered`).
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import calibration
from noise_models.build import build
from noise_models.channel import from_unitary
from noise_models.confusion import independent_confusion
from noise_models.gate_errors import coherent_error
from noise_models.layers import gate_key
from noise_models.options import NoiseOptions
from simenv.calibration.experiments import amplification, layers, procedure as experiments_procedure
from simenv.calibration.experiments.clifford import NativeOperation, native_set, x_turn
from simenv.calibration.experiments.estimators import (
    NS_PER_US,
    POPULATIONS,
    Estimate,
    confusion_of,
    flips_together,
    simultaneous_z,
    subsets,
    tallies,
    without_signal,
)
from simenv.calibration.experiments.plans import Counts, PoolRunner, TestLayout
from simenv.calibration.untested import (
    NO_EQUILIBRIUM,
    WIDEST_GROUP,
    UntestedTerm,
    blind,
    untested,
)
from simenv.errors import OptionError
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo, DeviceKind, GateInfo

if TYPE_CHECKING:
    from simenv.client.client import Client

_TIMES = {"t1_us": "t1_us", "t2_us": "t2_limited_us", "t2_ramsey_us": "t2_ramsey_us"}
_ROUNDING = 1e-6  # relative rounding error of a computed infidelity
_ERRORS = ("error_1q", "error_half", "error_2q")
_LEAKS = {"leakage": "leakage", "seepage": "seepage"}  # quantity -> field of a gate
_PAIR_LEAKS = {"leakage_2q": "leakage", "seepage_2q": "seepage"}
_ALL_LEAKS = _LEAKS | _PAIR_LEAKS
_ABOUT_Z = frozenset("IZ")
_DURING_TURNS = "the ZZ interaction during half turns between the gates is not told from it"
_TURNED = (
    "interleaved benchmarking does not measure the infidelity of a gate that rotates its qubits"
)


class Claims:
    """Values of one snapshot by quantity and qubits."""

    def __init__(
        self,
        snapshot: calibration.CalibrationSnapshot,
        half_turn: tuple[str, ...] = (),
        leaks: Collection[tuple[str, tuple[int, ...]]] = (),
    ) -> None:
        """Set up. `half_turn`: names of the gates that prepare |1>; `leaks`: gates whose measured
        errors have the leakage that randomized benchmarking does not see."""
        self._leaks = leaks
        self._half_turn = half_turn
        self._model = build(snapshot, NoiseOptions())
        missing = snapshot.num_qubits - len(snapshot.qubits)
        known = tuple(each.in_force for each in snapshot.qubits)
        self._qubits = known + (calibration.QubitCalibration(),) * missing
        self._zz = snapshot.acting_zz_khz
        self._together: dict[tuple[int, ...], float] = {}
        for group in snapshot.correlated_readout:
            if len(group.qubits) <= WIDEST_GROUP:
                flips = flips_together(np.array(group.confusion))
                for mask, place in subsets(group.qubits).items():
                    self._together[place] = 0.0 if flips is None else float(flips[mask])
        self._crosstalk = {each.qubits: each for each in snapshot.measurement_crosstalk}
        # With the errors of the resets before a pair, which are flips.
        resets = [each.reset_error or 0.0 for each in self._qubits]
        self._links = {
            tuple(sorted(each.pair)): 1.0
            - (1.0 - each.infidelity) * math.prod(1.0 - resets[qubit] for qubit in each.pair)
            for each in snapshot.links
        }
        self._layers = snapshot.layers
        self._in_layer = {
            gate_key(gate.name, gate.qubits) for each in snapshot.layers for gate in each.gates
        }

    def value(self, estimate: Estimate) -> float | None:
        """Claimed value of the estimated quantity; None: the snapshot has none. Readout
        probabilities contain the claimed errors of preparation, those of the half turn included,
        because counts of one measurement cannot separate the two."""
        quantity, qubit = estimate.quantity, self._qubits[estimate.qubits[0]]
        if quantity in _TIMES:
            result = getattr(qubit, _TIMES[quantity])
            return None if result is None else float(result)
        if quantity in ("p01", "p10"):
            return self._read(estimate.qubits[0], quantity)
        if quantity in _ERRORS:
            places = estimate.qubits if quantity == "error_2q" else estimate.qubits[:1]
            if self._has_layer(estimate.gate, places):
                return None  # it depends on what acts at the same time
            return self._gate_error(estimate.gate, places)
        if quantity == layers.QUANTITY:
            return layers.claimed(self._layers, estimate)
        if quantity in ("turn_angle_rad", "axis_angle_rad"):
            return self._turn(estimate)
        if quantity == "gate_time_ns":
            timed = self._model.calibration(estimate.gate, estimate.qubits)
            return None if timed is None else timed.duration_ns or None
        if quantity == "memory_error":
            return qubit.memory_error
        if quantity == "pair_error":
            return self._links.get(estimate.qubits)
        if quantity in _ALL_LEAKS:
            gate = self._model.calibration(estimate.gate, estimate.qubits)
            return None if gate is None else getattr(gate, _ALL_LEAKS[quantity]) or 0.0
        if quantity == "preparation_error":
            known = qubit.preparation_error is not None or qubit.excited is not None
            return self._model.preparation_error(estimate.qubits[0]) if known else None
        if quantity in POPULATIONS:
            stated_population = getattr(qubit, quantity)
            if quantity == "reset_error" and stated_population is None and qubit.p01 is not None:
                return 0.0  # as the device acts
            return None if stated_population is None else float(stated_population)
        if quantity in ("measure_decay", "measure_excitation"):
            return self._transition(estimate.qubits[0], quantity)
        if quantity in ("measurement_crosstalk", "measurement_angle_rad"):
            term = self._crosstalk.get(estimate.qubits, self._crosstalk.get(()))
            stated = term and (term.error if quantity.endswith("talk") else term.angle_rad)
            return None if term is None else stated or 0.0
        if quantity == "joint_flip":
            return self._together.get(estimate.qubits, 0.0)
        if quantity in ("zz_angle_rad", "z_angle_rad"):
            return self._angle(estimate)
        if quantity == "zz_khz":
            first, second = sorted(estimate.qubits)
            return self._zz.get((first, second), 0.0)
        return None

    def _turn(self, estimate: Estimate) -> float | None:
        """Over-rotation of a gate on one qubit, or what it turns about Y beyond Z."""
        gate = self._model.calibration(estimate.gate, estimate.qubits)
        if gate is None:
            return None
        angles = dict.fromkeys("XYZ", 0.0)
        for each in gate.rotations:
            angles[each.pauli] += each.angle_rad
        if estimate.quantity == "axis_angle_rad":
            return angles["Y"] - angles["Z"]
        return (gate.over_rotation_rad or 0.0) + angles["X"]

    def _angle(self, estimate: Estimate) -> float | None:
        """Angle about Z of the first qubit, or about ZZ, of a gate on two qubits."""
        pair = (min(estimate.qubits), max(estimate.qubits))  # as it runs
        gate = self._model.calibration(estimate.gate, pair)
        if gate is None or self._has_layer(estimate.gate, pair):
            return None
        pauli, angle = "ZZ", 0.0
        if estimate.gate in amplification.DIAGONAL:
            angle = gate.over_rotation_rad or 0.0
        if estimate.quantity == "z_angle_rad":
            first = estimate.qubits == (gate.qubits or pair)
            pauli, angle = "ZI" if first else "IZ", 0.0
        return angle + sum(each.angle_rad for each in gate.rotations if each.pauli == pauli)

    def _has_layer(self, name: str, qubits: tuple[int, ...]) -> bool:
        """Return whether a gate belongs to a layer, which has another error."""
        orders = qubits, qubits[::-1]
        return len(qubits) == 2 and any(gate_key(name, o) in self._in_layer for o in orders)

    def not_measured(self, estimates: Sequence[Estimate]) -> list[Estimate]:
        """Estimates without a signal of the leakage and seepage claimed of the gates in these
        estimates that no experiment measures."""
        found = {(each.quantity, each.gate, each.qubits) for each in estimates}
        results = []
        for each in estimates:
            gate = self._model.calibration(each.gate, each.qubits)
            if each.quantity not in _ERRORS or gate is None:
                continue
            results += [
                without_signal(name, each.qubits, gate=each.gate)
                for name, field in (_PAIR_LEAKS if each.quantity == "error_2q" else _LEAKS).items()
                if getattr(gate, field) and (name, each.gate, each.qubits) not in found
            ]
        return results

    def unresolved(self, estimate: Estimate, estimates: Sequence[Estimate]) -> tuple[str, bool]:
        """Return why the experiments cannot resolve a claim, or "", and whether other estimates
        confirm what the claim consists of."""
        if estimate.quantity in _ALL_LEAKS and not estimate.has_signal:
            return "no signal", False
        claimed = self.value(estimate) or 0.0
        if estimate.systematic and 3.0 * estimate.systematic > bound(estimate.quantity, claimed):
            return _DURING_TURNS, not claimed
        if estimate.quantity == "excited" and not estimate.has_signal:
            by_start = any(each.quantity == "preparation_error" and each.has_signal
                           and each.qubits == estimate.qubits for each in estimates)  # fmt: skip
            return (NO_EQUILIBRIUM if by_start else "no signal"), by_start
        gate = self._model.calibration(estimate.gate, estimate.qubits)
        if estimate.quantity != "error_2q" or gate is None or not _is_turned(gate, claimed):
            return "", False
        pair = tuple(sorted(estimate.qubits))
        angles = any(
            each.quantity == "zz_angle_rad" and each.has_signal and each.qubits == pair
            for each in estimates
        )
        by_parts = angles and all(set(each.pauli) <= _ABOUT_Z for each in gate.rotations)
        if gate.over_rotation_rad and estimate.gate not in amplification.DIAGONAL:
            by_parts = False
        return _TURNED, by_parts

    def stated(self, estimate: Estimate) -> float | None:
        """Gate error as the snapshot states it, if it is below the limit; else None."""
        if estimate.quantity not in _ERRORS:
            return None
        places = estimate.qubits if estimate.quantity == "error_2q" else estimate.qubits[:1]
        gate, claimed = self._model.calibration(estimate.gate, places), self.value(estimate)
        if gate is None or gate.error is None or claimed is None:
            return None
        stated = self._in_layers(gate.error, places)
        return stated if claimed > stated * (1.0 + _ROUNDING) else None

    def _transition(self, qubit: int, quantity: str) -> float | None:
        """Probability of a transition, at least that of relaxation during the readout."""
        if getattr(self._qubits[qubit], quantity) is None:
            return None
        own = [
            each.channel
            for each in self._model.after_gate("measure", (qubit,))
            if each.qubits == (qubit,)
        ]
        before = self._model.before_decision("measure", qubit)
        ptm = np.eye(4) if before is None else before.ptm
        for channel in own:
            ptm = channel.ptm @ ptm
        rise = 0.5 * (1.0 - float(ptm[3, 0]) - float(ptm[3, 3]))
        return rise if quantity == "measure_excitation" else 1.0 - rise - float(ptm[3, 3])

    def _gate_error(self, name: str, qubits: tuple[int, ...]) -> float | None:
        gate = self._model.calibration(name, qubits)
        if gate is None or gate.error is None:
            return None
        channels = self._model.after_gate(name, qubits)
        others = sum(each.channel.infidelity for each in channels)
        if len(qubits) <= 2:  # with the mean over the detunings
            others = max(others, self._model.gates.infidelity(gate, qubits))
        error = max(gate.error, others)
        if (name, qubits) not in self._leaks:
            error -= seen_leakage(gate.leakage or 0.0, len(qubits))
        return self._in_layers(error, qubits)

    def _in_layers(self, error: float, qubits: tuple[int, ...]) -> float:
        """Error of a gate by randomized benchmarking: a gate on two qubits is a layer."""
        if len(qubits) != 2:
            return error
        parts = [self._model.memory(qubit, 1) for qubit in qubits]
        return with_memory(error, [0.0 if each is None else each.infidelity for each in parts])

    def _read(self, qubit: int, quantity: str) -> float | None:
        confusion = self._qubits[qubit].confusion
        if confusion is None:
            return None
        p01, p10 = confusion
        gates = self._half_turn if quantity == "p10" else ()
        ones = self._prepared(qubit, gates)
        read_ones = ones * (1.0 - p10) + (1.0 - ones) * p01
        return read_ones if quantity == "p01" else 1.0 - read_ones

    def _prepared(self, qubit: int, gates: tuple[str, ...]) -> float:
        """Probability of |1> at the end of a half turn that consists of these gates."""
        state: NDArray[np.float64] = np.array(
            [1.0, 0.0, 0.0, 1.0 - 2.0 * self._model.preparation_error(qubit)]
        )
        turn = from_unitary(x_turn(2 // max(1, len(gates)))).ptm
        for name in gates:
            state = turn @ state
            if self._model.calibration(name, (qubit,)) is not None:
                for located in self._model.after_gate(name, (qubit,)):
                    state = located.channel.ptm @ state
        return 0.5 * float(1.0 - state[3])


def _is_turned(gate: calibration.GateCalibration, claimed: float) -> bool:
    """Return whether rotations are so much of the claimed error of a gate on two qubits that
    interleaved benchmarking sees another one than the average infidelity: they add up with
    those of the random elements (Magesan et al., Phys. Rev. Lett. 109, 080505)."""
    turn = coherent_error(gate, 2)
    return turn is not None and turn.infidelity > GATE_BOUND * claimed


def seen_leakage(leakage: float, num_qubits: int) -> float:
    """Part of the leakage of a gate that its error by randomized benchmarking lacks: a leaked shot
    survives a sequence as often as one in a random state."""
    return leakage / (1 << num_qubits)


def _leaked(
    measured: experiments_procedure.ExperimentResults,
) -> dict[tuple[str, tuple[int, ...]], Estimate]:
    """Measured leakage of gates, by name and qubits."""
    return {
        (each.gate, each.qubits): each
        for each in measured.estimates
        if _ALL_LEAKS.get(each.quantity) == "leakage" and each.has_signal
    }


def _with_leakage(
    estimate: Estimate, leaks: Mapping[tuple[str, tuple[int, ...]], Estimate]
) -> Estimate:
    """Error of a gate with the leakage that randomized benchmarking does not see."""
    leak = leaks.get((estimate.gate, estimate.qubits))
    if estimate.quantity not in _ERRORS or leak is None or not estimate.has_signal:
        return estimate
    return msgspec.structs.replace(
        estimate,
        value=estimate.value + seen_leakage(leak.value, len(leak.qubits)),
        std_error=math.hypot(estimate.std_error, seen_leakage(leak.std_error, len(leak.qubits))),
    )


def with_memory(error: float, memory_errors: Sequence[float]) -> float:
    """Error of a gate on two qubits with the memory errors of both, by randomized benchmarking: the
    depolarizing parameters (4^n F - 1) / (4^n - 1) by the process fidelity F multiply."""
    return 0.75 - (0.75 - error) * _left(memory_errors)


def _left(memory_errors: Sequence[float]) -> float:
    fidelity = math.prod(1.0 - 1.5 * each for each in memory_errors)
    return (16.0 * fidelity - 1.0) / 15.0


GATE_BOUND, TIME_BOUND, READOUT_BOUND = 0.10, 0.05, 0.01  # relative, relative, absolute
# Absolute, if that is larger: no interval is narrower than a tenth of a claimed error of 0.
LEAST_GATE_BOUND = 1e-6
LEAKAGE_2Q_BOUND = 0.2  # relative
DURATION_BOUND = 0.2  # relative
ZZ_BOUND, ZZ_BOUND_KHZ = 0.10, 0.2  # relative, or absolute if that is larger
ABSOLUTE_BOUNDS = {  # if they are larger than GATE_BOUND of the claim
    "leakage": 5e-5, "seepage": 2e-3, "leakage_2q": 2e-4, "seepage_2q": 0.01,
    "measure_decay": 0.005, "measure_excitation": 0.005,
    "measurement_crosstalk": 0.001, "measurement_angle_rad": 0.003,
    "preparation_error": 0.003, "reset_error": 0.003, "excited": 0.003,
    "zz_angle_rad": 0.003, "z_angle_rad": 0.003, "joint_flip": 0.003,
    "turn_angle_rad": 0.003, "axis_angle_rad": 0.003,
    "layer_decay": 3e-4, "pair_error": 1e-3,
}  # fmt: skip
# Of devices of neutral atoms: relative, or absolute if that is larger. T1, T2* or an error of
# detection of the bundled device that is wrong by a fifth is outside, and the default shots resolve
# it.
ATOM_BOUNDS = {
    "p_false_pos": (0.15, 0.001), "p_false_neg": (0.1, 0.003), "rydberg_t1_us": (0.15, 0.0),
    "rydberg_t2_star_us": (0.06, 0.0), "rabi_scale": (0.0, 0.01), "rabi_contrast": (0.0, 0.05),
}  # fmt: skip
LONGEST_US = 2e4  # longer claimed times are confirmed by a lower limit
DEAD_ERROR = 0.5  # gates with larger errors do not work
TIMES = ("t1_us", "t2_us", "t2_ramsey_us")
# Quantities without a claim in a snapshot; errors with a driven neighbour contain crosstalk.
UNCLAIMED = ("detuning_khz", "error_per_clifford", "error_1q_simultaneous")


class ClaimVerdict(enum.StrEnum):
    """Outcome of one comparison."""

    WITHIN = "within"
    OUTSIDE = "outside"
    UNRESOLVED = "unresolved"  # the interval is wider than the bound, or there is no signal
    LIMIT = "limit"  # longer than the longest delay, as claimed
    UNTESTED = "not tested"  # no experiment measures it
    UNCLAIMED = "unclaimed"


class ClaimComparison(msgspec.Struct, frozen=True):
    """One quantity of one qubit or pair."""

    quantity: str
    qubits: tuple[int, ...]
    gate: str
    claimed: float | None
    recovered: float  # infinite if there is no upper limit, or no signal
    low: float
    high: float
    bound: float  # largest deviation allowed, absolute
    verdict: ClaimVerdict
    stated: float | None = None  # gate error in the snapshot, if its T1 and T2 exclude it
    reason: str = ""  # why the experiments cannot resolve the claim
    by_parts: bool = False  # other comparisons confirm what an unresolved claim consists of

    @property
    def deviation(self) -> float:
        """Recovered minus claimed value; 0.0 without a claim. Without an upper limit, the lower
        limit minus the claim, at least 0.0."""
        if self.claimed is None:
            return 0.0
        if math.isinf(self.high):
            return max(self.low - self.claimed, 0.0)
        return self.recovered - self.claimed

    @property
    def contradicts_stated(self) -> bool:
        """True if the counts exclude the error that the snapshot states: no device with its own T1
        and T2 can have it."""
        if self.stated is None:
            return False
        return self.low > self.stated and self.recovered - self.stated > bound(
            self.quantity, self.stated
        )

    @property
    def relative_deviation(self) -> float:
        """Deviation divided by the bound: an absolute value above 1 is outside."""
        return self.deviation / self.bound if self.bound else 0.0


class FigureFit(msgspec.Struct, frozen=True):
    """A figure of a snapshot that explains all counts by itself if it has another value. `claimed`:
    None where the snapshot has none; `degrees`: of freedom of the chi-square."""

    name: str
    claimed: float | None
    value: float
    chi_square: float
    degrees: int

    @property
    def probability(self) -> float:
        """Probability of a larger chi-square, by the cube root of Wilson and Hilferty."""
        spread = 2.0 / (9.0 * self.degrees)
        normal = ((self.chi_square / self.degrees) ** (1.0 / 3.0) - 1.0 + spread) / spread**0.5
        return 1.0 - NormalDist().cdf(normal)


def bound(quantity: str, claimed: float) -> float:
    """Largest allowed deviation from a claim."""
    if quantity in TIMES:
        return TIME_BOUND * claimed
    if quantity in ("p01", "p10"):
        return READOUT_BOUND
    if quantity in ATOM_BOUNDS:
        relative, absolute = ATOM_BOUNDS[quantity]
        return max(relative * claimed, absolute)
    if quantity in ABSOLUTE_BOUNDS:
        relative = LEAKAGE_2Q_BOUND if quantity in _PAIR_LEAKS else GATE_BOUND
        return max(relative * abs(claimed), ABSOLUTE_BOUNDS[quantity])
    if quantity == "gate_time_ns":
        return DURATION_BOUND * claimed
    if quantity == "zz_khz":
        return max(ZZ_BOUND * abs(claimed), ZZ_BOUND_KHZ)
    return max(GATE_BOUND * claimed, LEAST_GATE_BOUND)


def compare(
    estimates: Sequence[Estimate],
    claim: Callable[[Estimate], float | None],
    confidence: float = 0.99,
    longest_us: float = LONGEST_US,
) -> list[ClaimComparison]:
    """Comparisons of all estimates; the intervals hold simultaneously at the confidence.
    `longest_us`: the longest delay of the experiments."""
    claims = [None if each.quantity in UNCLAIMED else claim(each) for each in estimates]
    z = simultaneous_z(sum(value is not None for value in claims), confidence)
    return [
        _compared(each, value, z, longest_us) for each, value in zip(estimates, claims, strict=True)
    ]


def _compared(
    estimate: Estimate, claimed: float | None, z: float, longest_us: float
) -> ClaimComparison:
    low, high = estimate.interval(z)
    allowed = 0.0 if claimed is None else bound(estimate.quantity, claimed)
    verdict = ClaimVerdict.UNCLAIMED
    if claimed is not None:
        verdict = _verdict(estimate, claimed, (low, high), allowed, longest_us)
    recovered = math.inf if math.isinf(high) else estimate.value
    return ClaimComparison(
        estimate.quantity, estimate.qubits, estimate.gate, claimed, recovered, low, high,
        allowed, verdict,
    )  # fmt: skip


def _verdict(
    estimate: Estimate,
    claimed: float,
    interval: tuple[float, float],
    allowed: float,
    longest_us: float,
) -> ClaimVerdict:
    if not estimate.has_signal:
        return ClaimVerdict.UNRESOLVED
    low, high = interval
    if estimate.quantity.startswith("error") and claimed >= DEAD_ERROR:
        return ClaimVerdict.WITHIN if estimate.value >= DEAD_ERROR else ClaimVerdict.OUTSIDE
    if math.isinf(high):
        if claimed < low:
            return ClaimVerdict.OUTSIDE
        return ClaimVerdict.LIMIT if low >= longest_us else ClaimVerdict.UNRESOLVED
    resolved = max(high - estimate.value, estimate.value - low) <= allowed
    if resolved and abs(estimate.value - claimed) <= allowed:
        return ClaimVerdict.WITHIN
    if not low <= claimed <= high and abs(estimate.value - claimed) > allowed:
        return ClaimVerdict.OUTSIDE
    is_longer = estimate.quantity in TIMES and low >= longest_us and low <= claimed
    return ClaimVerdict.LIMIT if is_longer else ClaimVerdict.UNRESOLVED


CONFIDENCE = 0.99


class Certificate(msgspec.Struct, frozen=True):
    """Result of all experiments on one device."""

    device: str
    claims: str  # digest of the snapshot whose claims were compared; "": none
    confidence: float
    comparisons: tuple[ClaimComparison, ...]
    circuits: int
    shots: int
    seconds: float
    measured: experiments_procedure.ExperimentResults
    device_s: float = 0.0  # time on the device; 0.0: unknown
    # Of a device of atoms that is not as claimed, best first; None: no figures were fitted.
    causes: tuple[FigureFit, ...] | None = None
    blind: tuple[str, ...] = ()  # what no circuit of the experiments shows

    @property
    def confirmed(self) -> float:
        """Part of the compared claims that the counts confirm; 1.0 if there are none."""
        verdicts = [each.verdict for each in self.comparisons]
        aside = sum(each.by_parts for each in self.untested)
        compared = len(verdicts) - verdicts.count(ClaimVerdict.UNCLAIMED) - aside
        good = verdicts.count(ClaimVerdict.WITHIN) + verdicts.count(ClaimVerdict.LIMIT)
        return good / compared if compared else 1.0

    @property
    def culprits(self) -> list[ClaimComparison]:
        """Quantities outside their bounds, the farthest first."""
        results = [each for each in self.comparisons if each.verdict is ClaimVerdict.OUTSIDE]
        return sorted(results, key=lambda each: -abs(each.relative_deviation))

    @property
    def contradicted(self) -> list[ClaimComparison]:
        """Gate errors below the limit by the snapshot's own T1 and T2 that the counts exclude: the
        limit was compared in their place."""
        return [each for each in self.comparisons if each.contradicts_stated]

    @property
    def unresolved(self) -> list[ClaimComparison]:
        """Quantities whose intervals are wider than their bounds."""
        return [each for each in self.comparisons if each.verdict is ClaimVerdict.UNRESOLVED]

    @property
    def untested(self) -> list[ClaimComparison]:
        """Claims that no experiment measures, each with the reason."""
        return [each for each in self.comparisons if each.verdict is ClaimVerdict.UNTESTED]

    @property
    def unclaimed(self) -> list[ClaimComparison]:
        """Quantities that a snapshot can claim and this one does not."""
        return [
            each
            for each in self.comparisons
            if each.claimed is None and each.quantity not in UNCLAIMED
        ]

    @property
    def passed(self) -> bool:
        """True if each claim was confirmed, itself or by its parts."""
        open_claims = [*self.unresolved, *self.untested]
        return not self.culprits and all(each.by_parts for each in open_claims)


def device_under_test(client: Client, name: str) -> tuple[DeviceInfo, dict[str, Any]]:
    """Device or pool of a name, and the options of a submit that run circuits on it verbatim.
    Raises NotFoundError, and OptionError for a pool without a device."""
    pool = client.devices().get(name)
    if pool is None or pool.problem:
        return client.device(name), {"device": name, "compile": "never"}
    if pool.kind is DeviceKind.HARDWARE:
        return pool, {"pool": name}
    if pool.kind is DeviceKind.EMULATED:
        return pool, {"pool": name, "compile": "never"}
    message = f"pool {name!r} is an ideal simulator"
    raise OptionError(message, hint="name a device: simenv devices lists them")


def certify(
    client: Client,
    name: str,
    claims: calibration.CalibrationSnapshot | None,
    *,
    qubits: Sequence[int] | None = None,
    seed: int = 0,
    effort: experiments_procedure.ExperimentShots | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Measure a device and compare it with the claims; None: no comparison. Raises NotFoundError,
    OptionError, InfeasibleError, and SimenvError of failed tasks."""
    begun = time.perf_counter()
    effort = effort or experiments_procedure.ExperimentShots()
    info, where = device_under_test(client, name)
    info = Availability(info).inside_modules
    tested = experiments_procedure.choose(info, qubits)
    runner = PoolRunner(client, where, info.max_shots, seed)
    procedure = experiments_procedure.Procedure(
        info, tested, runner, seed, effort, progress, stated=_stated(info, claims, tested)
    )
    measured = procedure.run()
    comparisons = compared(info, measured, claims, effort.longest_delay_ns / NS_PER_US)
    return Certificate(
        name, "" if claims is None else claims.digest.hex(), CONFIDENCE, tuple(comparisons),
        runner.circuits, runner.shots, time.perf_counter() - begun, measured, runner.device_s,
        blind=blind(native_set(info), _untimed(tested, measured.estimates), dynamic=info.dynamic),
    )  # fmt: skip


def _untimed(tested: TestLayout, estimates: Sequence[Estimate]) -> list[tuple[int, ...]]:
    """Gates whose durations no waiting qubit shows."""
    timed = {each.qubits for each in estimates if each.quantity == "gate_time_ns"}
    gates = [*tested.pairs, *((qubit,) for qubit in tested.qubits)]
    return [place for place in gates if place not in timed]


def _stated(
    info: DeviceInfo, claims: calibration.CalibrationSnapshot | None, tested: TestLayout
) -> experiments_procedure.StatedTerms:
    """Memory errors, transitions and crosstalk of measurements that a device states for its qubits,
    or that are claimed, and rotations of gates and correlated readout that are claimed of pairs.
    Where crosstalk holds for any two qubits, each qubit under test is measured
    beside the one before it."""
    stated = () if claims is None else claims.qubits
    memory = {k: each.memory_error for k, each in enumerate(info.qubits) if each.memory_error > 0.0}
    for k, each in enumerate(stated):
        if each.memory_error:
            memory.setdefault(k, each.memory_error)
    qubits = tested.qubits
    leakage, leaked_readout = _leaking(info, claims, tested)
    result = experiments_procedure.StatedTerms(
        memory,
        leakage=leakage,
        leaked_readout=leaked_readout,
        read_together=_read_together(claims, qubits),
        layers=() if claims is None else claims.layers,
    )
    if not info.dynamic:
        return result
    moving = {
        k
        for k, each in enumerate(info.qubits)
        if each.measure_decay > 0.0 or each.measure_excitation > 0.0
    }
    moving |= {k for k, each in enumerate(stated) if each.measure_decay or each.measure_excitation}
    terms = () if claims is None else claims.measurement_crosstalk
    crosstalk: dict[tuple[int, int], tuple[float, float]] = {}
    for term in terms:
        places = (
            [term.qubits] if term.qubits else zip(qubits, [*qubits[1:], qubits[0]], strict=True)
        )
        for first, second in places:
            if first != second and {first, second} <= set(qubits):
                values = term.error or 0.0, term.angle_rad or 0.0
                if term.qubits or (first, second) not in crosstalk:
                    crosstalk[first, second] = values
    return msgspec.structs.replace(
        result, transitions=frozenset(moving), crosstalk=crosstalk,
    )  # fmt: skip


def _leaking(
    info: DeviceInfo, claims: calibration.CalibrationSnapshot | None, tested: TestLayout
) -> tuple[dict[tuple[str, tuple[int, ...]], float], dict[int, float]]:
    """Rates of leakage and seepage that the device states or that are claimed of gates under test,
    by experiment and place, and the probabilities that a leaked qubit is read as 1."""
    gates = native_set(info)
    singles = [(qubit,) for qubit in tested.qubits]
    experiments: list[tuple[str, NativeOperation | None, Sequence[tuple[int, ...]]]] = [
        (experiments_procedure.LEAKAGE, gates.quarter, singles),
        (experiments_procedure.LEAKAGE_HALF, gates.half, singles),
        (experiments_procedure.LEAKAGE_2Q, gates.entangler, tested.pairs),
    ]
    rates: dict[tuple[str, tuple[int, ...]], float] = {}
    read: dict[int, float] = {}
    for snapshot in (published(info), claims):
        if snapshot is None or not snapshot.leaks:
            continue
        model = build(snapshot, NoiseOptions())
        for experiment, operation, places in experiments:
            for place in places:
                gate = None if operation is None else model.calibration(operation.name, place)
                if gate is not None and gate.leakage:
                    out = 0.5 * gate.leaks_from_one(len(place))
                    rates.setdefault((experiment, place), out + (gate.seepage or 0.0))
        read = read or {qubit: model.leaked_readout(qubit) for qubit in tested.qubits}
    return rates, read


def _read_together(
    claims: calibration.CalibrationSnapshot | None, qubits: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """Groups of tested qubits whose readout is claimed to be correlated."""
    groups = () if claims is None else claims.correlated_readout
    places = [each.qubits for each in groups if 2 <= len(each.qubits) <= WIDEST_GROUP]
    return tuple(tuple(sorted(place)) for place in places if set(place) <= set(qubits))


def compared(
    info: DeviceInfo,
    measured: experiments_procedure.ExperimentResults,
    claims: calibration.CalibrationSnapshot | None,
    longest_us: float = LONGEST_US,
) -> list[ClaimComparison]:
    """Compare all estimates with the claims, gates that do not work included."""
    leaks = _leaked(measured)
    estimates = [_with_leakage(each, leaks) for each in measured.estimates]
    estimates += [_dead(info, place) for place in measured.dead]
    if claims is None:
        return compare(estimates, lambda _: None, CONFIDENCE, longest_us)
    stated_claims = Claims(claims, _half_turn(info), leaks)
    estimates += stated_claims.not_measured(measured.estimates)
    result = compare(estimates, stated_claims.value, CONFIDENCE, longest_us)
    for number, (each, estimate) in enumerate(zip(result, estimates, strict=True)):
        reason, by_parts = stated_claims.unresolved(estimate, estimates)
        stated = stated_claims.stated(estimate)
        resolved = reason == _DURING_TURNS and each.verdict is not ClaimVerdict.UNRESOLVED
        if (
            reason
            and each.claimed is not None
            and each.qubits not in measured.dead
            and not resolved
        ):
            result[number] = msgspec.structs.replace(
                each, verdict=ClaimVerdict.UNRESOLVED, reason=reason, by_parts=by_parts,
                stated=stated,
            )  # fmt: skip
        else:
            result[number] = msgspec.structs.replace(each, stated=stated)
    scales = measured.scales
    tested = scales.t1_ns, list(scales.rate_2q)
    terms = untested(claims, native_set(info), estimates, tested, longest_us)
    return result + [not_tested(each) for each in terms]


def not_tested(term: UntestedTerm) -> ClaimComparison:
    """Return the comparison of a claim that no experiment measures."""
    return ClaimComparison(
        term.quantity, term.qubits, term.gate, term.claimed, math.inf, -math.inf, math.inf, 0.0,
        ClaimVerdict.UNTESTED, reason=term.reason, by_parts=term.by_parts,
    )  # fmt: skip


def _half_turn(info: DeviceInfo) -> tuple[str, ...]:
    gates = native_set(info)
    return (gates.half.name,) if gates.half else (gates.quarter.name,) * 2


def _dead(info: DeviceInfo, place: tuple[int, ...]) -> Estimate:
    gates = native_set(info)
    pair = len(place) == 2 and gates.entangler is not None
    name = gates.entangler.name if pair and gates.entangler else gates.quarter.name
    quantity = "error_2q" if pair else "error_1q"
    return Estimate(quantity, place, max(1.0, DEAD_ERROR), 0.0, gate=name)


_TECHNOLOGIES: tuple[calibration.Technology, ...] = (
    "superconducting", "trapped-ion", "neutral-atom", "simulator",
)  # fmt: skip
_SOURCE = "simenv certify"
_LEAST_ZZ_ERRORS = 4.0  # an interaction below this number of standard errors is taken as zero
_LIMIT_ERRORS = 3.0  # standard errors of the limit of a time that is too long to be measured
_GATES = {"error_1q": 1, "error_half": 1, "error_2q": 2}


def published(info: DeviceInfo) -> calibration.CalibrationSnapshot:
    """Snapshot of the figures that a device publishes; unknown ones are left out."""
    return calibration.CalibrationSnapshot(
        name=info.model or info.name,
        num_qubits=info.num_qubits,
        provider=info.provider,
        technology=next((t for t in _TECHNOLOGIES if t == info.technology), ""),
        version=info.version,
        calibrated=_moment(info.calibrated_s) if info.calibrated_s else "",
        dt_ns=_number(info.dt_ns) or 0.0,
        max_shots=info.max_shots,
        dynamic=info.dynamic,
        all_to_all=info.all_to_all,
        native_gates=_natives(info.gates),
        fractional_gates=_natives(info.fractional_gates),
        coupling=info.coupling,
        unusable=info.unusable,
        qubits=tuple(
            calibration.QubitCalibration(
                t1_us=_number(qubit.t1_us),
                t2_us=_number(qubit.t2_us),
                t2_star_us=_number(qubit.t2_star_us),
                memory_error=_number(qubit.memory_error),
                measure_decay=_number(qubit.measure_decay),
                measure_excitation=_number(qubit.measure_excitation),
                leaked_readout=_number(qubit.leaked_readout),
                frequency_ghz=_number(qubit.frequency_ghz),
                readout_ns=_number(qubit.readout_ns),
                readout_error=_number(qubit.readout_error),
            )
            for qubit in info.qubits
        ),
        gates=tuple(
            calibration.GateCalibration(
                each.name, each.qubits, error=_number(each.error),
                duration_ns=_number(each.duration_ns), leakage=_number(each.leakage),
                seepage=_number(each.seepage),
            )
            for each in info.operations
            if each.name not in ("measure", "reset", "delay")
        ),
    )  # fmt: skip


def _natives(gates: Iterable[GateInfo]) -> tuple[calibration.NativeGate, ...]:
    return tuple(
        calibration.NativeGate(gate.name, gate.qubits, gate.params)
        for gate in gates
        if gate.qubits > 0
    )


def recovered(
    base: calibration.CalibrationSnapshot,
    measured: experiments_procedure.ExperimentResults,
    now_s: float,
    name: str,
) -> calibration.CalibrationSnapshot:
    """Snapshot with the measured values in place of those of `base`, which supplies gates,
    couplings and durations. Values that were not measured are kept, and so are times that are too
    long to be measured where they are not below the measured limit."""
    estimates = [each for each in measured.estimates if each.has_signal]
    by_quantity: dict[str, dict[tuple[int, ...], Estimate]] = {}
    for estimate in estimates:
        by_quantity.setdefault(estimate.quantity, {})[estimate.qubits] = estimate
    return msgspec.structs.replace(
        base.with_gates(_gates(base, measured, by_quantity)),
        name=name,
        calibrated=_moment(now_s),
        qubits=_qubits(base, by_quantity),
        zz=_interactions(base, by_quantity.get("zz_khz", {})),
        zz_strength=None,
        measurement_crosstalk=_crosstalk(base, by_quantity),
        layers=_layers(base, estimates),
        fitted=None,
        correlated_readout=_correlated(base, measured.counts, by_quantity),
        dates={},
        source_format=_SOURCE,
        source_digest="",
    )


def _layers(
    base: calibration.CalibrationSnapshot, estimates: Sequence[Estimate]
) -> tuple[calibration.LayerCalibration, ...]:
    """Layers with the rates that the decays of their Paulis have, and those not measured."""
    found = [each for each in estimates if each.quantity == layers.QUANTITY]
    names = {each.gate.partition(" in ")[2] for each in found}
    return tuple(
        layers.recovered_rates(each, found) if layers.title(each) in names else each
        for each in base.layers
    )


def _qubits(
    base: calibration.CalibrationSnapshot,
    estimates: Mapping[str, Mapping[tuple[int, ...], Estimate]],
) -> tuple[calibration.QubitCalibration, ...]:
    """Measured times and readout. Readout errors include the preparation error, which becomes 0."""
    missing = base.num_qubits - len(base.qubits)
    qubits = []
    known = tuple(each.in_force for each in base.qubits)
    for number, qubit in enumerate(known + (calibration.QubitCalibration(),) * missing):
        values: dict[str, float | None] = {}
        for quantity in ("t1_us", "t2_us", "p01", "p10"):
            estimate = estimates.get(quantity, {}).get((number,))
            if estimate is None:
                continue
            low, high = estimate.interval(_LIMIT_ERRORS)
            if math.isfinite(high):
                values[quantity] = estimate.value
            elif (getattr(qubit, quantity) or math.inf) < low:
                values[quantity] = low
        layer = estimates.get("memory_error", {}).get((number,))
        if layer is not None:
            values["memory_error"] = max(layer.value, 0.0)
        for quantity in ("measure_decay", "measure_excitation", *POPULATIONS):
            if (left := estimates.get(quantity, {}).get((number,))) is not None:
                values[quantity] = min(max(left.value, 0.0), 1.0)
        star = estimates.get("t2_ramsey_us", {}).get((number,))
        if star is not None:  # a detuning from shot to shot, where it is resolved
            echo_us = msgspec.structs.replace(qubit, **values).t2_limited_us or math.inf
            is_detuned = star.interval(_LIMIT_ERRORS)[1] < echo_us
            values["t2_star_us"] = star.value if is_detuned else None
        if "p01" in values and "p10" in values:
            values["readout_error"] = 0.5 * ((values["p01"] or 0.0) + (values["p10"] or 0.0))
            values["preparation_error"] = 0.0
        qubits.append(msgspec.structs.replace(qubit, **values))
    return tuple(qubits)


def _gates(
    base: calibration.CalibrationSnapshot,
    measured: experiments_procedure.ExperimentResults,
    by_quantity: Mapping[str, Mapping[tuple[int, ...], Estimate]],
) -> tuple[calibration.GateCalibration, ...]:
    """Entries of measured gates; on pairs in both orders if the base has both."""
    memory = by_quantity.get("memory_error", {})
    table = {(gate.name, gate.qubits): gate for gate in base.gates}
    coupled = set(base.coupling)
    leaked = _leaked(measured)
    leaks: dict[tuple[str, tuple[int, ...]], dict[str, float]] = {}
    for each in measured.estimates:
        if each.quantity in _ALL_LEAKS and each.has_signal:
            values = leaks.setdefault((each.gate, each.qubits), {})
            values[_ALL_LEAKS[each.quantity]] = min(max(each.value, 0.0), 1.0)
    for estimate in measured.estimates:
        if estimate.quantity not in _GATES or not estimate.has_signal:
            continue
        out = leaks.get((estimate.gate, estimate.qubits))
        error = max(_with_leakage(estimate, leaked).value, 0.0)
        layers = [memory[each].value for each in zip(estimate.qubits) if each in memory]
        if estimate.quantity == "error_2q" and len(layers) == 2:  # that of the gate alone
            error = max(0.75 - (0.75 - error) / _left(layers), 0.0)
        orders = {estimate.qubits, estimate.qubits[::-1]}
        places = [place for place in orders if (estimate.gate, place) in table or place in coupled]
        for place in sorted(places) or [estimate.qubits]:
            key = estimate.gate, place
            entry = table.get(key) or table.get((estimate.gate, ()))
            entry = entry or calibration.GateCalibration(estimate.gate, place)
            known = msgspec.structs.replace(
                entry, qubits=place, rotations=_rotations(entry, place, by_quantity), **(out or {})
            )
            measured_zz = tuple(sorted(place)) in by_quantity.get("zz_angle_rad", {})
            if measured_zz and estimate.gate in amplification.DIAGONAL:
                known = msgspec.structs.replace(known, over_rotation_rad=None)
            is_turned = entry.error is not None and _is_turned(known, entry.error)
            if estimate.quantity != "error_2q" or not is_turned:
                known = msgspec.structs.replace(
                    known, error=error, over_rotation_rad=None, paulis=()
                )
            table[key] = known
    for link in base.links:
        made = table.get((calibration.LINK_GATE, link.pair))
        found = by_quantity.get("pair_error", {}).get(tuple(sorted(link.pair)))
        if made is not None and found is not None:
            table[made.name, made.qubits] = made.with_error(min(max(found.value, 0.0), 0.75))
    for place in measured.dead:
        if len(place) == 2:
            for key, entry in list(table.items()):
                if set(key[1]) == set(place):
                    table[key] = msgspec.structs.replace(entry, error=1.0)
    return tuple(table[key] for key in sorted(table))


def _rotations(
    entry: calibration.GateCalibration,
    place: tuple[int, ...],
    estimates: Mapping[str, Mapping[tuple[int, ...], Estimate]],
) -> tuple[calibration.PauliRotation, ...]:
    """Rotations of a gate with the measured angles; those about other Paulis stay."""
    measured = {
        "ZZ": estimates.get("zz_angle_rad", {}).get(tuple(sorted(place))),
        "ZI": estimates.get("z_angle_rad", {}).get(place),
        "IZ": estimates.get("z_angle_rad", {}).get(place[::-1]),
    }
    if len(place) != 2 or measured["ZZ"] is None:
        return entry.rotations
    found = [
        calibration.PauliRotation(name, each.value)
        for name, each in measured.items()
        if each is not None and abs(each.value) > _LEAST_ZZ_ERRORS * each.std_error
    ]
    return (*(each for each in entry.rotations if each.pauli not in measured), *found)


def _crosstalk(
    base: calibration.CalibrationSnapshot,
    estimates: Mapping[str, Mapping[tuple[int, ...], Estimate]],
) -> tuple[calibration.MeasurementCrosstalk, ...]:
    """Measured crosstalk of measurements, and that of pairs that were not measured."""
    table = {each.qubits: each for each in base.measurement_crosstalk}
    angles = estimates.get("measurement_angle_rad", {})
    for place, error in estimates.get("measurement_crosstalk", {}).items():
        angle = angles[place].value if place in angles else None
        table[place] = calibration.MeasurementCrosstalk(place, max(error.value, 0.0), angle)
    return tuple(table[place] for place in sorted(table))


def _correlated(
    base: calibration.CalibrationSnapshot,
    counts: Counts,
    estimates: Mapping[str, Mapping[tuple[int, ...], Estimate]],
) -> tuple[calibration.CorrelatedReadout, ...]:
    """Groups with measured joint flips: pairs with these and the measured errors of both qubits,
    which contain them, wider ones with the outcomes of all basis states. Groups whose qubits were
    measured alone are left out: their errors have changed."""
    groups = []
    for place, arms in sorted(tallies(counts, experiments_procedure.TOGETHER).items()):
        found = [estimates.get("joint_flip", {}).get(each) for each in subsets(place).values()]
        flips = [each for each in found if each is not None]
        if not any(each.value > _LEAST_ZZ_ERRORS * each.std_error for each in flips):
            continue
        both = confusion_of(next(iter(arms.values())))
        if len(place) == 2:
            joint = flips[0].value
            read = [
                [
                    max((values[(qubit,)].value - joint) / (1.0 - 2.0 * joint), 0.0)
                    for values in (estimates["p01"], estimates["p10"])
                ]
                for qubit in place
            ]
            alone = independent_confusion(np.array(read))
            both = (1.0 - joint) * alone + joint * alone[::-1]
        groups.append(calibration.CorrelatedReadout(place, tuple(map(tuple, both.tolist()))))
    measured = {qubit for (qubit,) in estimates.get("p01", {})}
    groups += [each for each in base.correlated_readout if measured.isdisjoint(each.qubits)]
    return tuple(groups)


def _interactions(
    base: calibration.CalibrationSnapshot, estimates: Mapping[tuple[int, ...], Estimate]
) -> tuple[calibration.ZZCoupling, ...]:
    """Measured interactions that differ from zero, and those of pairs that were not measured."""
    measured = {tuple(sorted(pair)) for pair in estimates}
    acting = base.acting_zz_khz.items()
    kept = [calibration.ZZCoupling(pair, rate) for pair, rate in acting if pair not in measured]
    for (a, b), estimate in sorted(estimates.items()):
        if abs(estimate.value) > _LEAST_ZZ_ERRORS * estimate.std_error:
            kept.append(calibration.ZZCoupling((a, b), estimate.value))
    return tuple(kept)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
