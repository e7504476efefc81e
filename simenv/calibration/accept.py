"""Acceptance of fits: circuits that a fit did not see, gains, and tables of scores.

Fidelities of circuits that a fit did not see (`held_out_circuits`) are predicted like a submit to
the fitted device: the compiler chooses qubits by the fitted values.

A gain of fidelity (`gain`) counts if its mean over runs is above LEAST_GAIN and its interval of
CONFIDENCE (`interval`) above 0; what a device is below Aer's recipe counts by the same rule.

Scores become values for JSON (`as_values`) and cells for text and HTML (`cells`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration import score as calibration_score
from simenv.calibration.data import CountsRecord
from simenv.calibration.fit.acting_bodies import LEAST_BODIES as LEAST_BODIES
from simenv.calibration.fit.significance import LEAST_CHANCE
from simenv.worker.noise import gates_of


class HeldOutCircuit(msgspec.Struct, frozen=True, eq=False):
    """All runs of one circuit in one date window. `fold`: the fold whose fit did not see its
    body."""

    record: CountsRecord
    runs: int
    fold: int

    @property
    def has_gates(self) -> bool:
        """True if it has gates on several qubits."""
        return any(len(q) > 1 for _, q in gates_of(self.record.source.loaded.program))


def held_out_circuits(
    records: Sequence[CountsRecord], windows: Sequence[int], folds: Mapping[str, int]
) -> list[HeldOutCircuit]:
    """Circuits of the records. `folds`: fold of each body; no fit saw a body without a fold."""
    groups: dict[tuple[str, tuple[int, ...], int, int], list[CountsRecord]] = {}
    for record, window in zip(records, windows, strict=True):
        key = (record.source.text, record.layout, record.level, window)
        groups.setdefault(key, []).append(record)
    return [
        HeldOutCircuit(_merged(group), len(group), folds.get(group[0].body, 0))
        for group in groups.values()
    ]


def _merged(group: Sequence[CountsRecord]) -> CountsRecord:
    counts: Counter[int] = Counter()
    for record in group:
        counts.update(record.counts)
    shots = sum(record.shots for record in group)
    return msgspec.structs.replace(group[0], counts=dict(counts), shots=shots)


def fidelities(
    circuits: Sequence[HeldOutCircuit], devices: Sequence[calibration_score.Predictor]
) -> NDArray[np.float64]:
    """Fidelity (`judge`) of each circuit by the device of its fold; nan if it has no
    distribution."""
    results = []
    for each in circuits:
        prediction = devices[each.fold % len(devices)].prediction(each.record)
        results.append(
            np.nan if prediction is None else calibration_score.fidelity(prediction, each.record)
        )
    return np.array(results)


CONFIDENCE = 0.99  # of intervals, two-sided
LEAST_GAIN = 5e-5  # of fidelity: rounds to 0 in a score of four digits
DRAWS = 4000
SEED = 7
LIKELY = 0.8  # the same: 0.9 of the probability is above the lower end
# Of a gain on folds, and of the likelihood of all counts: of either, the tail outside CONFIDENCE.
MOST_CHANCE = (1.0 - CONFIDENCE) / 4.0
LEAST_ALONE = 0.5  # of a gain, on bodies that alone identify values
LEAST_FLIPPED = 8  # bodies: 2^-8 is less than the tails outside CONFIDENCE
_HALVINGS = 24
_GRID = 200_001  # points of an integral


def _signed(value: float) -> str:
    """Value with its sign; 0 has none."""
    text = f"{value:+z.5f}"
    return text if text.strip("+0.") else text[1:]


class Interval(msgspec.Struct, frozen=True):
    """Mean change of fidelity of a run, with its interval over circuit bodies (`interval`)."""

    mean: float
    low: float
    high: float

    @property
    def is_above(self) -> bool:
        """True if the change is above 0 beyond chance, and above LEAST_GAIN."""
        return self.low > 0.0 and self.mean > LEAST_GAIN

    @property
    def is_below(self) -> bool:
        """True if the change is below 0 beyond chance, and below -LEAST_GAIN."""
        return self.high < 0.0 and self.mean < -LEAST_GAIN

    @property
    def text(self) -> str:
        """Value and interval for people."""
        mean, low, high = (_signed(x) for x in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


class Levels(msgspec.Struct, frozen=True):
    """Statistics of the fidelities of runs."""

    median: float
    p10: float
    mean: float

    @staticmethod
    def of(values: NDArray[np.float64], runs: NDArray[np.int64]) -> Levels:
        """Statistics of circuits, each with its number of runs."""
        each = np.repeat(values, runs)
        median, p10 = np.quantile(each, (0.5, 0.1))
        return Levels(float(median), float(p10), float(each.mean()))


class LikeliestGain(msgspec.Struct, frozen=True):
    """Gain of the fit with the prior of the largest likelihood, where bodies may alone identify
    values: a fit without such a body says nothing about them, and shows no gain on it."""

    mean: float  # on the counts of the fit itself
    alone: float  # part of it on bodies that alone identify values
    bodies: int  # number of these
    others: Interval | None  # of LIKELY, on the other bodies, left out; None: there are none

    @property
    def lack(self) -> str:
        """Why circuits that were left out speak against the fit; "": they do not. They are to show
        its gain, or not a loss where most of the gain is on bodies that alone identify values."""
        if self.mean <= LEAST_GAIN:
            return f"the likeliest fit does not gain more than {LEAST_GAIN:.5f} on its own counts"
        if self.others is None or self.others.low > 0.0:
            return ""
        if self.others.high <= 0.0:
            return (
                f"circuit bodies that were left out show a loss of the likeliest fit ({LIKELY:.0%})"
            )
        if self.alone < LEAST_ALONE:
            return (
                "circuit bodies that were left out do not show a gain of the likeliest fit: its"
                f" interval of {LIKELY:.0%} contains 0"
            )
        return ""

    @property
    def text(self) -> str:
        """Gains for people."""
        parts = f"{self.mean:+.5f} on its own counts"
        if self.bodies:
            parts += f", {self.alone:.0%} of it on {self.bodies} bodies that alone identify values"
        if self.others is not None:
            parts += f", {self.others.text} ({LIKELY:.0%}) on the others"
        return parts


class HeldOutGain(msgspec.Struct, frozen=True):
    """Gain of a fitted device over its snapshot, on runs of circuits that were left out of the fit,
    and what both have above each form of Aer's recipe for the snapshot, with idle noise."""

    gain: Interval
    likely: Interval  # the gain with its interval of LIKELY
    above_aer: tuple[Interval, ...]
    snapshot_above_aer: tuple[Interval, ...]
    fitted: Levels
    snapshot: Levels
    aer: tuple[Levels, ...]
    circuits: int
    bodies: int
    # Probability of so good a fit of any prior and share if none helps; nan: not computed.
    chance: float = math.nan
    # The same of so large a likelihood of all counts for any prior.
    by_likelihood: float = math.nan
    likeliest: LikeliestGain | None = None  # only of the whole way to the likeliest fit
    # Gain on circuits with gates on several qubits alone; None: there are none, or all are.
    with_gates: Interval | None = None
    bodies_with_gates: int = 0

    def with_likeliest(self, gained: LikeliestGain) -> HeldOutGain:
        """The same for the whole way to the likeliest fit."""
        return msgspec.structs.replace(self, likeliest=gained)

    @property
    def is_used(self) -> bool:
        """True if the gain is beyond chance: by `chance`, and for bodies by its interval. Fewer
        than LEAST_BODIES show by their shots that the snapshot is wrong (`chance`); that the fit is
        better is to be LIKELY alone, since it then acts on alike circuits. Without a gain on folds,
        see `is_narrow`."""
        return not self.lack

    @property
    def refutes_snapshot(self) -> bool:
        """True if shots alone do not explain the likelihood of the likeliest fit."""
        return self.by_likelihood <= MOST_CHANCE

    @property
    def is_narrow(self) -> bool:
        """True if the likelihood refutes the snapshot, and circuits that were left out do not speak
        against its fit (`LikeliestGain`). The fit is then for alike circuits."""
        if self.loses_with_gates:
            return False
        return self.refutes_snapshot and self.likeliest is not None and not self.likeliest.lack

    @property
    def is_judged_by_own_counts(self) -> bool:
        """True if most of the gain of the likeliest fit is on bodies that alone identify values."""
        return self.likeliest is not None and self.likeliest.alone >= LEAST_ALONE

    @property
    def lack(self) -> str:
        """Why the gain is not used; "": it is."""
        if self.refutes_snapshot and self.likeliest is not None and self.likeliest.lack:
            return self.likeliest.lack
        if self.loses_with_gates:
            return (
                "circuits with gates on several qubits that were left out lose by a fit:"
                f" {self.with_gates_text}"
            )
        if self.gain.mean <= LEAST_GAIN:
            return f"the gain of a fit is not above {LEAST_GAIN:.5f}"
        if self.chance > MOST_CHANCE:
            return f"a fit gains as much by chance too often: p is above {MOST_CHANCE:.2g}"
        if self._deciding.low <= 0.0:
            percent = LIKELY if self._is_likely_enough else CONFIDENCE
            return (
                "circuit bodies that were left out do not show a gain of a fit: its interval of"
                f" {percent:.0%} contains 0"
            )
        return ""

    @property
    def loses_with_gates(self) -> bool:
        """True if the fit is a loss on circuits with gates on several qubits, such as where others
        prepare states and gain by their readout alone: beyond chance, and of fewer than
        LEAST_BODIES, whose interval tells little, by the mean."""
        if self.with_gates is None:
            return False
        if self.bodies_with_gates < LEAST_BODIES:
            return self.with_gates.mean < -LEAST_GAIN
        return self.with_gates.is_below

    @property
    def with_gates_text(self) -> str:
        """Gain on circuits with gates on several qubits, for people; "": there are no others."""
        if self.with_gates is None:
            return ""
        if not math.isfinite(self.with_gates.low):
            return f"{_signed(self.with_gates.mean)} on one body"
        return f"{self.with_gates.text} on {self.bodies_with_gates} bodies"

    @property
    def _is_likely_enough(self) -> bool:
        return not math.isnan(self.chance) and self.bodies < LEAST_BODIES

    @property
    def _deciding(self) -> Interval:
        return self.likely if self._is_likely_enough else self.gain

    @property
    def text(self) -> str:
        """Gain with its interval, the one that decides for few bodies, and chance, for people."""
        parts = [f"{self.gain.text} ({CONFIDENCE:.0%})"]
        if self._is_likely_enough:
            low, high = self.likely.low, self.likely.high
            parts.append(f"[{low:+.5f}, {high:+.5f}] ({LIKELY:.0%}, decides)")
        if self.with_gates is not None:
            parts.append(f"circuits with gates on several qubits {self.with_gates_text}")
        if not math.isnan(self.chance):
            parts.append(f"{_chance_text(self.chance)} of all candidates")
        if not math.isnan(self.by_likelihood):
            parts.append(f"{_chance_text(self.by_likelihood)} of the likelihood")
        if self.likeliest is not None:
            parts.append(self.likeliest.text)
        return ", ".join(parts)

    @property
    def is_below_aer(self) -> bool:
        """True if the device is below a form of Aer's recipe beyond chance."""
        return any(each.is_below for each in self.above_aer)

    @property
    def is_snapshot_below_aer(self) -> bool:
        """The same of the snapshot."""
        return any(each.is_below for each in self.snapshot_above_aer)


def _chance_text(chance: float) -> str:
    return f"p {'<=' if chance < 1.01 * LEAST_CHANCE else '='} {max(chance, LEAST_CHANCE):.2g}"


def gain(
    fitted: NDArray[np.float64],
    snapshot: NDArray[np.float64],
    runs: NDArray[np.int64],
    bodies: Sequence[str],
    aer: Sequence[NDArray[np.float64]] = (),
    has_gates: Sequence[bool] = (),
) -> HeldOutGain:
    """Gain from the fidelities of circuits, each with its number of runs and its body. `aer`: those
    of the recipes `aer` and `aer-properties`; `has_gates`: whether each has gates on several
    qubits, (): not known."""
    wide = np.flatnonzero(has_gates)
    of_wide = [bodies[k] for k in wide.tolist()]
    apart = 0 < len(wide) < len(fitted)
    return HeldOutGain(
        interval(fitted - snapshot, runs, bodies),
        interval(fitted - snapshot, runs, bodies, LIKELY),
        tuple(interval(fitted - each, runs, bodies) for each in aer),
        tuple(interval(snapshot - each, runs, bodies) for each in aer),
        Levels.of(fitted, runs),
        Levels.of(snapshot, runs),
        tuple(Levels.of(each, runs) for each in aer),
        len(fitted),
        len(set(bodies)),
        with_gates=interval((fitted - snapshot)[wide], runs[wide], of_wide) if apart else None,
        bodies_with_gates=len(set(of_wide)),
    )


def interval(
    change: NDArray[np.float64],
    runs: NDArray[np.int64],
    bodies: Sequence[str],
    confidence: float = CONFIDENCE,
) -> Interval:
    """Mean change of a run with its two-sided interval of `confidence`; without ends for
    fewer than two bodies.

    The interval has the means that a permutation test does not reject: the differences of bodies
    from such a mean are as large with random signs as with their own. (Fisher, The Design of
    Experiments, section 21.) Below LEAST_FLIPPED bodies it is that of Student."""
    _, number = np.unique(np.array(bodies, str), return_inverse=True)
    sums = np.bincount(number, change * runs)
    weights = np.bincount(number, runs)
    count, mean = len(sums), float(np.average(change, weights=runs))
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    rest = sums - mean * weights
    error = math.sqrt(count / (count - 1.0) * float(rest @ rest)) / float(weights.sum())
    tail = (1.0 - confidence) / 2.0
    width = _student_quantile(1.0 - tail, count - 1) * error
    if count < LEAST_FLIPPED or not error:
        return Interval(mean, mean - width, mean + width)
    signs = np.random.default_rng(SEED).choice((-1.0, 1.0), size=(DRAWS, count))
    of_sums, of_weights = signs @ sums, signs @ weights

    def end(side: float) -> float:
        """Mean at a distance of at most 3 widths that is just not rejected."""
        near, far = 0.0, 3.0 * width
        for _ in range(_HALVINGS):
            middle = 0.5 * (near + far)
            value = mean + side * middle
            drawn = side * (of_sums - value * of_weights)
            own = side * float((sums - value * weights).sum())
            extreme = (1.0 + np.count_nonzero(drawn <= own + 1e-15)) / (DRAWS + 1.0)
            near, far = (near, middle) if extreme <= tail else (middle, far)
        return mean + side * far

    return Interval(mean, end(-1.0), end(1.0))


def _student_quantile(level: float, freedom: int) -> float:
    """Quantile of Student's distribution. With x = sqrt(f) tan(a), its density is cos(a)^(f - 1) in
    a."""
    angles = np.linspace(-math.pi / 2.0, math.pi / 2.0, _GRID)
    density = np.cos(angles) ** (freedom - 1)
    sums = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return math.sqrt(freedom) * math.tan(float(np.interp(level, sums / sums[-1], angles)))


HEADER = (
    "part", "model", "runs", "median HF", "p10", "mean", "median TVD", "log-lik.", "KL",
    "marginal HF",
)  # fmt: skip
PARTS = (("train", False), ("test", True))


def as_values(score: calibration_score.Score) -> list[dict[str, Any]]:
    """One object for each part of the split and model, with all statistics and intervals."""
    models = (
        *score.models,
        *(calibration_score.UNIFORM, calibration_score.IDEAL),
        *(calibration_score.REPEAT, calibration_score.CEILING),
    )
    return [
        {
            "part": part,
            "model": model,
            "runs": fidelity.runs,
            "bodies": fidelity.bodies,
            "hf": msgspec.to_builtins(fidelity),
            **{
                field: msgspec.to_builtins(rows.summary(model, field))
                for field in ("tvd", "log_likelihood", "expected", "marginal_hf", "kl_divergence")
            },
        }
        for part, is_test in PARTS
        for rows in [score.part(test=is_test)]
        for model in models
        if (fidelity := rows.summary(model)) is not None
    ]


def below(score: calibration_score.Score, model: str, reference: str) -> list[str]:
    """Texts for the parts of the split in which the mean fidelity of a model is below that of
    another one beyond chance."""
    results = []
    for part, is_test in PARTS:
        rows = [
            row
            for row in score.part(test=is_test).rows
            if math.isfinite(row.hf.get(model, math.nan) - row.hf.get(reference, math.nan))
        ]
        change = np.array([row.hf[model] - row.hf[reference] for row in rows])
        if rows:
            bodies = [row.body for row in rows]
            found = interval(change, np.ones(len(rows), np.int64), bodies)
            if found.is_below:
                results.append(f"{model} is below {reference}: {part} mean by {found.text}")
    return results


def cells(values: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of text with the columns of HEADER."""
    return [
        (
            row["part"],
            row["model"],
            str(row["runs"]),
            *(_text(row["hf"][name]) for name in ("median", "p10", "mean")),
            *(
                "" if row[field] is None else _text(row[field]["median"])
                for field in ("tvd", "log_likelihood", "kl_divergence", "marginal_hf")
            ),
        )
        for row in values
    ]


def _text(value: dict[str, Any]) -> str:
    statistic = msgspec.convert(value, calibration_score.Statistic)
    if math.isnan(statistic.low):
        return f"{statistic.value:.4f}"
    return f"{statistic.value:.4f} [{statistic.low:.4f}, {statistic.high:.4f}]"
