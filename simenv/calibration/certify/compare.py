"""Verdict on each quantity: claimed against recovered, with simultaneous intervals. Pure."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence

import msgspec

from simenv.calibration.experiments.estimators.estimates import Estimate, simultaneous_z

GATE_BOUND, TIME_BOUND, READOUT_BOUND = 0.10, 0.05, 0.01  # relative, relative, absolute
# Absolute, if that is larger: no interval is narrower than a tenth of a claimed error of 0.
LEAST_GATE_BOUND = 1e-6
ZZ_BOUND, ZZ_BOUND_KHZ = 0.10, 0.2  # relative, or absolute if that is larger
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


def bound(quantity: str, claimed: float) -> float:
    """Largest allowed deviation from a claim."""
    if quantity in TIMES:
        return TIME_BOUND * claimed
    if quantity in ("p01", "p10"):
        return READOUT_BOUND
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

    `longest_us`: the longest delay of the experiments.
    """
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
