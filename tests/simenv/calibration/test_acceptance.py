"""A fit is given where its gain on circuits left out is significant, and as far as it is."""

import itertools
import math
import re
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from failing import fails
from msgspec.structs import replace

from noise_models import library
from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    MeasurementCalibration,
    MeasurementCrosstalk,
    NativeGate,
    PauliGenerator,
    PauliRotation,
    QubitCalibration,
    T1Jumps,
    ZZCoupling,
)
from noise_models.confusion import independent_confusion
from noise_models.device_model import reduced
from noise_models.snapshot import dump, load
from simenv.calibration import accept, interpolation
from simenv.calibration.accept import HeldOutGain as Gain
from simenv.calibration.data import CountsData
from simenv.calibration.fit import attempt, calibrate as fitting, components as fit_components
from simenv.calibration.fit.calibrate import AER, HOMOGENEOUS, SNAPSHOT, FitRefusedError, calibrate
from simenv.calibration.plausibility import implausible, implausible_values
from simenv.calibration.score import Predictor
from testbed.drawn_devices import PATH, measured, random_circuit, random_counts


def test_intervals_of_few_bodies_are_those_of_student() -> None:
    """Student's t with 5 degrees of freedom at 99.5 %: 4.0321 (Abramowitz, Stegun, 26.10)."""
    change = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = accept.interval(change, np.ones(6, np.int64), list("abcdef"))
    width = 4.0321 * np.std(change, ddof=1) / math.sqrt(6.0)
    assert (found.mean, found.high) == (3.5, pytest.approx(3.5 + width, rel=1e-3))


def test_intervals_of_gains_hold_and_count_each_body_once() -> None:
    rng = np.random.default_rng(4)
    outside = 0
    for _ in range(300):
        change = rng.normal(1.0, 1.0, size=12)
        found = accept.interval(change, np.ones(12, np.int64), [str(k) for k in range(12)])
        outside += not found.low < 1.0 < found.high
    assert outside <= 12  # 3 expected
    change = np.array([0.2, 0.03, 0.025, 0.02, 0.004, 0.001, 0.002, 0.002, 0.01])
    runs = np.ones(9, np.int64)
    assert accept.interval(change, runs, list("abcdefghi")).is_above
    assert not accept.interval(change, runs, list("aaaaefghi")).is_above
    alone = accept.interval(change, runs, ["a"] * 9)
    assert (alone.low, alone.high) == (-math.inf, math.inf)


def test_a_gain_is_that_of_the_mean_beyond_chance() -> None:
    before = np.array([0.5, 0.9, 0.9, 0.9, 0.9])
    runs, bodies = np.ones(5, np.int64), list("abcde")
    assert accept.gain(before + 0.05, before, runs, bodies).gain.is_above
    assert not accept.gain(before + accept.LEAST_GAIN / 2, before, runs, bodies).gain.is_above
    one = accept.gain(np.array([0.9, 0.899, 0.899, 0.899, 0.899]), before, runs, bodies).gain
    assert one.mean > 0.0
    assert not one.is_above
    assert not one.is_below
    assert accept.gain(before - 0.05, before, runs, bodies).gain.is_below


def test_the_third_level_between_two_calibrations_decays_as_on_its_technology() -> None:
    """Without a value: half of T1, of ions no decay."""
    ends = tuple(QubitCalibration(t1_us=40.0, leaked_t1_us=leaked_us) for leaked_us in (None, 5.0))
    devices = [CalibrationSnapshot("chip", 1, qubits=(each,)) for each in ends]
    assert interpolation.blended(*devices, 0.25).qubits[0].leaked_t1_us == pytest.approx(200**0.5)
    ions = [replace(each, technology="trapped-ion") for each in devices]
    assert interpolation.blended(*ions, 0.25).qubits[0].leaked_t1_us == pytest.approx(20.0)


def test_devices_between_two_change_by_logarithms() -> None:
    before = library.load("lima")
    qubit = replace(before.qubits[0], t1_us=4.0 * (before.qubits[0].t1_us or 1.0))
    after = replace(before, name="after", qubits=(qubit, *before.qubits[1:]))
    middle = interpolation.blended(before, after, 0.5)
    assert middle.name == "after"
    assert middle.qubits[0].t1_us == pytest.approx(2.0 * (before.qubits[0].t1_us or 0.0))
    assert middle.qubits[1] == before.qubits[1]
    assert interpolation.blended(before, after, 1.0) is after
    assert interpolation.between(0.0, 0.1, 0.5) == pytest.approx(0.05)
    assert interpolation.between(None, 0.1, 0.5) == pytest.approx(0.05)


EVERY_TERM = CalibrationSnapshot(
    "every term", 2, feed_forward_ns=200.0, zz_strength=1.0, coupling=((0, 1),),
    native_gates=(NativeGate("x", 1), NativeGate("cz", 2)),
    qubits=tuple(
        QubitCalibration(
            t1_us=40.0, t2_us=30.0, frequency_ghz=5.0, p01=0.02, p10=0.05, readout_ns=700.0,
            readout_error=0.03, excited=0.02, reset_error=0.03, reset_ns=900.0,
            preparation_error=0.04, t2_star_us=20.0, memory_error=0.0121, measure_decay=0.1,
            measure_excitation=0.05, leaked_readout=0.4, leaked_t1_us=15.0, readout_decided=0.3,
            t1_jumps=T1Jumps(1.0, 100.0, 0.2, low=True),
        )
        for _ in range(2)
    ),
    gates=(
        GateCalibration("x", (), 0.01, 40.0, 0.02, (PauliRotation("Z", 0.03),), 0.001, 0.2),
        GateCalibration(
            "cz", (0, 1), 0.03, 300.0, 0.05,
            (PauliRotation("ZZ", 0.04), PauliRotation("IZ", -0.06)), 0.01, 0.1,
        ),
    ),
    zz=(ZZCoupling((0, 1), 60.0),),
    correlated_readout=(
        CorrelatedReadout(
            (0, 1),
            ((0.9, 0.03, 0.02, 0.01), (0.04, 0.9, 0.01, 0.05), (0.03, 0.02, 0.94, 0.04),
             (0.03, 0.05, 0.03, 0.9)),
        ),
    ),
    measurements=(MeasurementCalibration("measure_2", 0, 0.02, 500.0),),
    measurement_crosstalk=(MeasurementCrosstalk((), 0.02, 0.1),),
    layers=(
        LayerCalibration(
            (LayerGate("cz", (0, 1)),), (0, 1),
            (PauliGenerator("X", (0,), 0.01), PauliGenerator("ZZ", (0, 1), 0.004)),
        ),
    ),
)  # fmt: skip
# Values of a device that say nothing about its noise, or that are those of the second one.
NOT_NOISE = ("format", "num_qubits", "dt_ns", "max_shots", "rep_delay_ns", "overhead_ns")
ONCE = {"num_qubits", "num_params", "qubit", "zz_strength", *NOT_NOISE}


def _flat(value: object, place: tuple[object, ...] = ()) -> dict[tuple[object, ...], float]:
    """All numbers of a snapshot. Times of relaxation are rates, T2* is the rate of its detuning,
    and what an absent value means takes its place."""
    if isinstance(value, QubitCalibration):
        means = {
            "leaked_readout": 1.0 if value.leaked_readout is None else value.leaked_readout,
            "preparation_error": (
                value.excited if value.preparation_error is None else value.preparation_error
            ),
            "leaked_t1_us": (
                (2.0 / value.t1_us if value.t1_us else 0.0)
                if value.leaked_t1_us is None
                else 1.0 / value.leaked_t1_us
            ),
            "t1_us": 1.0 / value.t1_us if value.t1_us else 0.0,
            "t2_us": 1.0 / value.t2_us if value.t2_us else 0.0,
            "t2_star_us": value.detuning_rad_us,
            "t1_jumps": value.jump_rate_per_us,
        }
        fields = {name: getattr(value, name) for name in value.__struct_fields__} | means
    elif isinstance(value, msgspec.Struct):
        fields = {k: getattr(value, k) for k in value.__struct_fields__ if k not in ONCE}
    elif isinstance(value, tuple):
        fields = {}
        for number, each in enumerate(value):
            named = isinstance(each, msgspec.Struct) and not isinstance(each, QubitCalibration)
            fields[_key(each) if named else number] = each
    elif isinstance(value, float):
        return {place: value}
    else:
        return {}
    results: dict[tuple[object, ...], float] = {}
    for name, each in fields.items():
        results |= _flat(each, (*place, name))
    return results


def _key(term: msgspec.Struct) -> object:
    texts = {k: v for k, v in msgspec.structs.asdict(term).items() if not isinstance(v, float)}
    return str({k: v for k, v in texts.items() if k in ("name", "qubit", "qubits", "pauli")})


def _scaled(value: object) -> object:
    """The same values times 0.9."""
    if isinstance(value, float):
        return 0.9 * value
    if isinstance(value, CorrelatedReadout):
        return value
    if isinstance(value, msgspec.Struct):
        changes = {k: _scaled(getattr(value, k)) for k in value.__struct_fields__ if k not in ONCE}
        return replace(value, **changes)
    return tuple(map(_scaled, value)) if isinstance(value, tuple) else value


def _structs(value: object) -> list[msgspec.Struct]:
    if isinstance(value, msgspec.Struct):
        parts = [getattr(value, name) for name in value.__struct_fields__]
        return [value, *(each for part in parts for each in _structs(part))]
    return [each for part in value for each in _structs(part)] if isinstance(value, tuple) else []


def test_snapshot_of_every_term_lacks_none() -> None:
    """A new field is to be added to EVERY_TERM, so that its interpolation is seen."""
    for struct in _structs(EVERY_TERM):
        for field in msgspec.structs.fields(type(struct)):
            if "float" in str(field.type) and field.name not in (*NOT_NOISE, "coordinates"):
                assert getattr(struct, field.name), f"{type(struct).__name__}.{field.name}"
    listed = {type(each).__name__ for each in _structs(EVERY_TERM)}
    # Those of machines and of logical qubits are of the later calibration: fits refuse them.
    others = {"AngleBounds", "FitScope", "Module", "Link", "LogicalOrigin"}
    for field in msgspec.structs.fields(CalibrationSnapshot):
        for name in re.findall(r"calibration\.(\w+)", str(field.type)):
            assert name in listed | others, field.name


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(
    "other", [reduced(EVERY_TERM, symmetric=True), _scaled(EVERY_TERM)], ids=["reduced", "scaled"]
)
def test_all_values_of_devices_between_two_lie_between(
    other: CalibrationSnapshot, is_reversed: bool
) -> None:
    """A value that stays that of one end, or a term that goes at any share, is not between."""
    before, after = (other, EVERY_TERM) if is_reversed else (EVERY_TERM, other)
    assert (
        interpolation.blended(before, after, 0.0),
        interpolation.blended(before, after, 1.0),
    ) == (before, after)
    flips = (
        np.array([(0.02, 0.05)] * 2) if other.correlated_readout else np.array([(0.03, 0.03)] * 2)
    )
    apart = CorrelatedReadout((0, 1), tuple(map(tuple, independent_confusion(flips).tolist())))
    ends = [
        _flat(
            replace(
                each,
                correlated_readout=each.correlated_readout or (apart,),
                layers=interpolation.with_same_layers(each, EVERY_TERM),
            )
        )
        for each in (before, after)
    ]
    middle = [
        _flat(interpolation.blended(before, after, share)) for share in (0.01, 0.3, 0.7, 0.99)
    ]
    places = {place for each in (*ends, *middle) for place in each}
    for place in places:
        values = [each.get(place, 0.0) for each in (ends[0], *middle, ends[1])]
        if values[0] == values[-1]:
            assert values == pytest.approx([values[0]] * 6), place
        else:
            steps = np.diff(values) * np.sign(values[-1] - values[0])
            assert (steps > 0.0).all(), (place, values)
            assert abs(values[1] - values[0]) < 0.05 * abs(values[-1] - values[0]), (place, values)
            assert abs(values[-2] - values[-1]) < 0.05 * abs(values[-1] - values[0]), (
                place,
                values,
            )


def test_a_layer_that_one_calibration_lacks_becomes_the_errors_of_its_gates() -> None:
    """Near the end without the layer, it acts as the gates and the waiting qubit do there."""
    own = replace(
        EVERY_TERM,
        num_qubits=3, layers=(), zz=(), correlated_readout=(), measurements=(),
        measurement_crosstalk=(), coupling=((0, 1), (1, 2)),
        qubits=tuple(QubitCalibration(t1_us=t1_us, t2_us=1.5 * t1_us) for t1_us in (40, 30, 20)),
        gates=(GateCalibration("cz", (0, 1), 0.03, 300.0),),
    )  # fmt: skip
    layer = LayerCalibration(
        (LayerGate("cz", (0, 1)),), (0, 1, 2), (PauliGenerator("ZZ", (1, 2), 0.02),)
    )
    learned = replace(own, layers=(layer,))
    model = build(own)
    wanted = {part.qubits: part.channel.ptm for part in model.after_gate("cz", (0, 1))}
    wanted[2,] = model.idle(2, 300.0).ptm
    for share, sides in ((1e-9, (own, learned)), (1.0 - 1e-9, (learned, own))):
        [acting] = build(interpolation.blended(*sides, share)).layers
        near = {part.qubits: np.diag(part.channel.ptm) for part in acting.channels}
        middle, last = near[1, 2][:4], near[1, 2][::4]
        assert near[0, 1] * np.repeat(middle, 4) == pytest.approx(np.diag(wanted[0, 1]), abs=1e-7)
        assert last == pytest.approx(np.diag(wanted[2,]), abs=1e-7)


def test_counts_of_the_calibrated_device_keep_its_calibration() -> None:
    snapshot = library.load("lima")
    rng = np.random.default_rng(11)
    texts = [random_circuit(PATH[:2], rng) for _ in range(10)]
    counts = CountsData(tuple(measured(texts, snapshot, rng, shots=1000)), "lima")
    try:
        result = calibrate(counts, snapshot, "same")
    except FitRefusedError:
        return
    assert (result.share, result.snapshot.gates) == (0.0, snapshot.gates)
    assert result.snapshot.fitted is None
    assert result.snapshot.qubits == snapshot.qubits
    assert not result.held_out.is_used


def test_a_fit_that_is_worse_at_every_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, snapshot = random_counts(10, 2)
    result = itertools.chain([0.9] * 3, itertools.repeat(0.89))  # snapshot, Aer's recipes, fits

    def fidelities(circuits: list[object], _: list[Predictor]) -> np.ndarray:
        return np.full(len(circuits), next(result))

    monkeypatch.setattr(fitting.accept, "fidelities", fidelities)
    fails(FitRefusedError, r"its snapshot on 10 circuits", calibrate, counts, snapshot, "fitted")


def test_share_with_larger_but_uncertain_gain_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """At share 0.5 all circuits gain; at 1 most gain more and one loses much."""
    counts, snapshot = random_counts(10, 2)
    even = np.full(10, 0.01)
    mixed = np.array([0.04] * 9 + [-0.15])
    fits = itertools.cycle([0.5 * even, even, 0.5 * mixed, mixed])
    gains = itertools.chain([np.zeros(10)] * 3, fits)
    monkeypatch.setattr(fitting.accept, "fidelities", lambda *_: 0.9 + next(gains))
    result = calibrate(counts, snapshot, "fitted")
    assert result.share == 0.5
    before = fit_components.with_gates_of_each_set(snapshot)
    device = fit_components.DeviceChannels(snapshot)
    whole = fit_components.fitted_snapshot(device, result.components, result.values)
    half = interpolation.blended(before, whole, 0.5)
    expected, values = (
        [value for each in device.qubits for value in (each.t1_us, each.p01, each.p10)]
        for device in (half, result.snapshot)
    )
    np.testing.assert_allclose(np.array(values), np.array(expected))


def held_out(mean: float, low: float, high: float = math.inf, above_aer: float = 0.1) -> Gain:
    """A gain over a snapshot of 0.9, and the upper end of what the fit is above Aer's recipe."""
    fitted = accept.Levels(0.9 + mean, 0.8, 0.9 + mean)
    before = accept.Levels(0.9, 0.8, 0.9)
    aer = (accept.Interval(0.0, -0.1, 0.1), accept.Interval(above_aer, -1.0, above_aer))
    gain = accept.Interval(mean, low, high)
    return Gain(gain, gain, aer, aer[:1], fitted, before, (before, before), 12, 12)


def choice(base: str, gained: Gain, after: np.ndarray | None = None) -> fitting._Choice:
    attempt = SimpleNamespace(base=SimpleNamespace(name=base))
    circuits = [
        SimpleNamespace(runs=1, record=SimpleNamespace(body=str(k)), has_gates=True)
        for k in range(12)
    ]
    return fitting._Choice(attempt, None, 1.0, 1.0, gained, circuits, after)  # type: ignore[arg-type]


def test_a_homogeneous_device_needs_a_gain_of_the_snapshot_too() -> None:
    better = choice(HOMOGENEOUS, held_out(0.02, 0.01))
    assert fitting._accepted([choice(SNAPSHOT, held_out(0.01, 0.005)), better]) is better
    kept = fitting._accepted([choice(SNAPSHOT, held_out(0.01, -0.005)), better])
    assert (kept.attempt.base.name, kept.share, kept.undated_share) == (SNAPSHOT, 0.0, 0.0)
    worse = choice(SNAPSHOT, held_out(-0.01, -0.02, -0.005))
    assert fitting._accepted([worse, better]).share == 0.0
    assert fitting._accepted([choice(SNAPSHOT, held_out(-0.01, -0.02, 0.005))]).share == 0.0
    both = [worse, choice(HOMOGENEOUS, held_out(-0.02, -0.03, -0.01))]
    fails(FitRefusedError, "worse than its snapshot on 12 circuits", fitting._accepted, both)


def test_no_fit_is_used_that_is_below_a_form_of_the_recipe_of_aer() -> None:
    low = choice(SNAPSHOT, held_out(0.03, 0.01, above_aer=-0.01))
    high = choice(SNAPSHOT, held_out(0.01, 0.005))
    assert fitting._accepted([low, high]) is high
    kept = fitting._accepted([low])
    assert (kept.share, kept.reason) == (0.0, "the fit is below Aer's recipe for the calibration")


def test_a_homogeneous_device_must_gain_beyond_chance_on_a_fit_that_keeps_the_spread() -> None:
    even = np.full(12, 0.91)
    some = even + np.array([0.05] + [-0.001] * 11)
    kept = choice(SNAPSHOT, held_out(0.01, 0.005), even)
    assert fitting._accepted([kept, choice(HOMOGENEOUS, held_out(0.013, 0.005), some)]) is kept
    better = choice(HOMOGENEOUS, held_out(0.02, 0.005), even + 0.01)
    assert fitting._accepted([kept, better]) is better


@pytest.fixture(scope="module")
def few() -> tuple[CountsData, CalibrationSnapshot]:
    return random_counts(9, 2)


def test_a_fit_to_few_different_circuits_acts_on_alike_ones(
    few: tuple[CountsData, CalibrationSnapshot],
) -> None:
    counts, snapshot = few
    result = calibrate(counts, snapshot, "fitted")
    assert result.share > 0.0
    assert not any(each.prior.asymmetry for each in result.scores)
    scope, outside = result.snapshot.fitted, result.snapshot.outside
    assert (scope.device, scope.qubits, scope.widest, scope.bodies) == ("lima", (0, 1), 2, 9)
    assert (scope.placed, scope.pairs, outside) == (False, ((0, 1),), snapshot)
    assert load(dump(result.snapshot)) == result.snapshot
    wider, _ = random_counts(1, 3)
    fitted, before = Predictor(result.snapshot), Predictor(snapshot)
    for record, is_alike in ((counts.records[0], True), (wider.records[0], False)):
        one, other = (each.prediction(record).probabilities for each in (fitted, before))
        assert np.array_equal(one, other) != is_alike


def test_one_body_leaves_no_circuit_to_judge_a_fit_by() -> None:
    """Counts of one circuit, in any basis, keep the calibration."""
    counts, snapshot = random_counts(1, 2)
    result = calibrate(counts, snapshot, "fitted")
    assert (result.share, result.snapshot.qubits) == (0.0, snapshot.qubits)
    assert "at least two bodies" in result.reason


def test_snapshot_below_aer_recipe_is_kept(
    few: tuple[CountsData, CalibrationSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hardware reads 0 and 1 wrongly as often as each other; the fits change nothing."""
    counts, snapshot = few
    fixed = attempt.Prior(1e-6, 1e-6), attempt.Prior(1e-6)
    monkeypatch.setattr(attempt, "CANDIDATES", fixed)
    monkeypatch.setattr(attempt, "LIKELIEST", fixed)
    monkeypatch.setattr(attempt, "_further_unknowns", lambda _: [])
    rng = np.random.default_rng(3)
    texts = [each.source.text for each in counts.records]
    truth = reduced(snapshot, symmetric=True)
    data = CountsData(tuple(measured(texts, truth, rng, shots=100_000)), "lima")
    result = calibrate(data, snapshot, "fitted")
    assert (result.base, result.share) == (AER, 0.0)
    assert result.held_out.is_snapshot_below_aer
    confusion = [each.confusion for each in result.snapshot.qubits]
    assert confusion == [(each.readout_error,) * 2 for each in snapshot.qubits]


def test_what_is_kept_is_the_least_below_both_forms_of_the_recipe_of_aer(
    few: tuple[CountsData, CalibrationSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal readout errors lack 0.02 to the recipe with p01 and p10, the calibration 0.01 to that
    without: it stays."""
    counts, snapshot = few
    levels = itertools.chain([0.89, 0.9, 0.89], itertools.repeat(0.88))

    def fidelities(circuits: list[object], _: list[Predictor]) -> np.ndarray:
        return np.full(len(circuits), next(levels))

    monkeypatch.setattr(fitting.accept, "fidelities", fidelities)
    result = calibrate(counts, snapshot, "fitted")
    assert (result.base, result.share, result.snapshot.qubits) == (SNAPSHOT, 0.0, snapshot.qubits)


def test_changes_outside_the_plausible_range_are_named() -> None:
    lima = library.load("lima")
    names = ("relaxation 4", "zz", "zz 0 1", "asymmetry")
    assert implausible(lima, lima, zip(names, (9.0, 0.6, -0.2, -1.0), strict=True), range(5)) == ()
    texts = implausible(lima, lima, zip(names, (9.0, 2.0, -0.6, -2.0), strict=True), range(5))
    assert (texts[0], len(texts)) == ("change of zz +2, outside -0.5 to 1.5", 3)


@pytest.mark.parametrize(
    ("calibrated", "found", "is_named"),
    [
        ({"p01": 0.0005}, {"p01": 0.0134}, False),  # as ibm_fez a year after its calibration
        ({"p01": 0.0005}, {"p01": 0.2}, True),
        ({"p10": 0.02}, {"p10": 0.09}, False),
        ({"t1_us": 300.0}, {"t1_us": 50.0}, False),
        ({"t1_us": 300.0}, {"t1_us": 20.0}, True),
        ({"t2_star_us": 50.0}, {"t2_star_us": 2.0}, True),
    ],
)
def test_values_far_from_calibrated_ones_are_named_where_devices_do_not_change_so_much(
    calibrated: dict[str, float], found: dict[str, float], is_named: bool
) -> None:
    snapshot = library.load("lima")
    before, after = (
        replace(snapshot, qubits=(replace(snapshot.qubits[0], **values), *snapshot.qubits[1:]))
        for values in (calibrated, found)
    )
    texts = implausible_values(before, after, range(5))
    assert [text.partition(" ")[0] for text in texts] == list(found) * is_named


@pytest.mark.parametrize(
    ("qubits", "error", "is_named"),
    [(1, 0.009, False), (1, 0.03, True), (2, 0.05, False), (2, 0.2, True)],
)
def test_gates_far_from_calibrated_ones_are_named(
    qubits: int, error: float, is_named: bool
) -> None:
    before = library.load("lima")
    places = [k for k, gate in enumerate(before.gates) if len(gate.qubits) == qubits and gate.error]
    gates = list(before.gates)
    gates[places[0]] = replace(gates[places[0]], error=error / 20.0)
    before = replace(before, gates=tuple(gates))
    gates[places[0]] = replace(gates[places[0]], error=error)
    after = replace(before, gates=tuple(gates))
    assert len(implausible_values(before, after, range(5))) == is_named


def test_few_bodies_need_a_gain_that_is_likely_and_shots_that_refute_the_snapshot() -> None:
    levels = accept.Levels(0.9, 0.8, 0.9)
    unclear, likely, unlikely = (accept.Interval(0.01, low, 0.03) for low in (-0.02, 0.001, -0.001))
    for by_body, chance, bodies, is_used in (
        (likely, 0.001, 5, True),
        (unlikely, 0.001, 5, False),
        (likely, 0.02, 5, False),
        (likely, 0.001, 10, False),  # used for all circuits: the gain itself beyond chance
    ):
        found = Gain(unclear, by_body, (), (), levels, levels, (), bodies, bodies, chance)
        assert found.is_used == is_used


def test_texts_say_why_a_gain_is_not_used_and_which_interval_decides() -> None:
    levels = accept.Levels(0.9, 0.8, 0.9)

    def gained(mean: float, low: float, chance: float, bodies: int = 12) -> Gain:
        interval = accept.Interval(mean, low, 0.03)
        likely = accept.Interval(mean, low + 0.001, 0.02)
        return Gain(interval, likely, (), (), levels, levels, (), bodies, bodies, chance)

    assert gained(0.01, 0.001, 0.001).lack == ""
    assert "not above 0.00005" in gained(0.00002, 0.00001, 0.001).lack
    assert "p is above 0.0025" in gained(0.01, 0.001, 0.02).lack
    assert "interval of 99% contains 0" in gained(0.01, -0.002, 0.001).lack
    assert "interval of 80% contains 0" in gained(0.01, -0.002, 0.001, bodies=5).lack
    text = gained(0.01, -0.0005, 1.0 / 1001.0, bodies=5).text
    assert text.endswith("(99%), [+0.00050, +0.02000] (80%, decides), p <= 0.001 of all candidates")
    assert gained(0.01, 0.001, 2.0 / 1001.0).text.endswith("(99%), p = 0.002 of all candidates")


def test_a_plausible_fit_is_taken_in_place_of_one_that_is_not() -> None:
    whole, half = choice(SNAPSHOT, held_out(0.02, 0.01)), choice(SNAPSHOT, held_out(0.01, 0.005))
    wild = replace(whole, implausible=("p10 of qubit 0",))
    assert fitting._accepted([half, wild]) is half
    assert fitting._accepted([wild]) is wild


def test_a_gain_that_rounds_to_zero_has_no_sign() -> None:
    assert accept.Interval(-1e-9, -1e-8, 2e-5).text == "0.00000 [0.00000, +0.00002]"
