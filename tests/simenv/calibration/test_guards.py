"""Counts that cannot be those of the circuits on the device are refused before a fit."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from failing import fails
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models import snapshot as snapshots
from noise_models.calibration import (
    CalibrationSnapshot,
    LayerCalibration,
    LayerGate,
    NativeGate,
    PauliGenerator,
    QubitCalibration,
)
from simenv.calibration import guards, mixtures
from simenv.calibration.data import CountsData, MeasuredCircuit, body_of, read, row, write
from simenv.calibration.fit import solve
from simenv.calibration.fit.attempt import FitBase
from simenv.calibration.fit.calibrate import MOST_CHECK_WORK, FitRefusedError, calibrate
from simenv.calibration.fit.identify import LikelihoodFit
from simenv.calibration.fit.solve import Prior
from simenv.client.circuits import load
from testbed import drawn_devices as drawn
from testbed.drawn_devices import (
    aged,
    changed,
    circuits,
    coherent,
    counts_of,
    device,
    read_together,
    spoiled,
)

Measured = tuple[CountsData, CalibrationSnapshot]
SIZE = 4
KINDS = {
    "first bit is 0": "clbit 0 is never 1",
    "first bit in place": "clbits 0 and 1 never differ",
    "bits": "better with their bits",
    "two bits": "",  # exchanged or inverted
    "first bit": "",
    "last bit": "",
    "all outcomes": "clbit 0 is never",
    "rows": "do not tell the circuits apart",
    "uniform": "do not tell the circuits apart",
    "ten shots": "140 shots in all are too few",
    "qubits of the wrong couplings": "pairs of qubits that drawn does not couple: 0-2",
    "qubits numbered from the other end": r"other numbers of the qubits \(0 as 3",
}


@pytest.fixture(scope="module")
def right() -> Measured:
    random = np.random.default_rng(2)
    calibration = device(random, SIZE)
    truth = changed(calibration, random)
    return counts_of(truth, circuits(random, SIZE, 14), 2_000, random), calibration


def problem(data: CountsData, snapshot: CalibrationSnapshot) -> str:
    return guards.problem(data.records, snapshot, MOST_CHECK_WORK)


def test_every_kind_of_wrong_counts_is_refused_with_its_reason(right: Measured) -> None:
    data, snapshot = right
    names = []
    for name, wrong in spoiled(data, SIZE, np.random.default_rng(5)):
        names.append(name)
        found = problem(wrong, snapshot) or _after_a_fit(wrong, snapshot)
        assert found, name
        for kind, words in KINDS.items():
            if name.startswith(kind) and words:
                assert re.search(words, found), (name, found)
    assert len(names) >= 30


def test_wrong_counts_are_fitted_by_force_alone(right: Measured) -> None:
    data, snapshot = right
    wrong = dict(spoiled(data, SIZE, np.random.default_rng(5)))
    few = wrong["qubits numbered from the other end"]
    words = "other numbers of the qubits"
    assert "force=True" in fails(FitRefusedError, words, calibrate, few, snapshot, "fitted").hint
    forced = calibrate(few, snapshot, "fitted", force=True)
    assert words in forced.scope.refused
    for each in (forced.snapshot, *forced.series):
        assert each.fitted.refused == forced.scope.refused


def test_renumbered_qubits_keep_their_layers() -> None:
    learned = LayerCalibration(
        (LayerGate("cz", (0, 1)),), (0, 1, 2), (PauliGenerator("XZ", (1, 2), 1e-3),)
    )
    device = CalibrationSnapshot(
        "line", 3, native_gates=(NativeGate("cz", 2),), coupling=((0, 1), (1, 2), (2, 0)),
        qubits=(QubitCalibration(),) * 3, layers=(learned,),
    )  # fmt: skip
    moved = guards._renumbered(device, {0: 1, 1: 2, 2: 0})
    (layer,) = moved.layers
    assert ([set(gate.qubits) for gate in layer.gates], layer.qubits) == ([{2, 0}], (2, 0, 1))
    assert layer.generators == (PauliGenerator("XZ", (0, 1), 1e-3),)
    snapshots.check(moved)


@pytest.mark.parametrize("bodies", [3, 20])
def test_right_counts_of_a_calibration_that_is_wrong_by_factors_up_to_five_pass(
    bodies: int,
) -> None:
    random = np.random.default_rng(bodies)
    for _ in range(5):
        calibration = device(random, SIZE)
        truth = aged(calibration, random)
        data = counts_of(truth, circuits(random, SIZE, bodies), 1_000, random)
        assert problem(data, calibration) == ""


@pytest.mark.parametrize("bodies", [2, 3, 4])
def test_mistakes_in_the_counts_of_few_bodies_are_seen(bodies: int) -> None:
    """All that concern all rows."""
    random = np.random.default_rng(11)
    calibration = device(random, SIZE)
    data = counts_of(changed(calibration, random), circuits(random, SIZE, bodies), 2_000, random)
    assert problem(data, calibration) == ""
    words = ("bits", "all", "first bit is", "last bit is", "rows shifted", "uniform")
    for name, wrong in spoiled(data, SIZE, random):
        if name.startswith(words):
            assert problem(wrong, calibration), name


def test_qubits_numbered_from_the_other_end_are_seen_on_most_devices() -> None:
    """On all that are not alike from both ends: 7 of 8 at least, and no right counts."""
    random, seen = np.random.default_rng(8), 0
    for _ in range(8):
        calibration = device(random, 5)
        data = counts_of(changed(calibration, random), circuits(random, 5, 16), 2_000, random)
        numbered = dict(spoiled(data, 5, random))["qubits numbered from the other end"]
        seen += "other numbers of the qubits" in problem(numbered, calibration)
        assert problem(data, calibration) == ""
    assert seen >= 7


@pytest.mark.parametrize("seed", [50, 51])
def test_an_old_calibration_is_no_reason_for_other_numbers_of_the_qubits(seed: int) -> None:
    """Of values that are wrong by factors of 1/5 to 5, those of other qubits fit better by
    chance: with seed 50, twice the logarithm of the likelihood ratio is 22."""
    random = np.random.default_rng(seed)
    calibration = device(random, SIZE)
    data = counts_of(aged(calibration, random), circuits(random, SIZE, 24), 2_000, random)
    assert problem(data, calibration) == ""


def test_order_of_the_bits_of_wide_circuits_is_seen() -> None:
    """12 bits: exact distributions of Clifford circuits, samples of others."""
    random, size = np.random.default_rng(4), 12
    calibration = device(random, size)
    for angle in ("pi/2", "0.3"):
        sources = []
        for _ in range(3):
            ones = np.flatnonzero(random.random(size) < 0.5).tolist()
            lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{size}]; creg c[{size}];"]
            lines += [f"x q[{k}];" for k in ones]
            lines += [f"sx q[0]; rz({angle}) q[0]; sx q[0]; cz q[0],q[1];", "measure q -> c;"]
            text = "\n".join(lines) + "\n"
            loaded = load(text)
            sources.append(MeasuredCircuit(text, loaded, size, body_of(loaded)))
        data = counts_of(calibration, sources, 1_000, random, samples=4_000)
        assert problem(data, calibration) == ""
        spoilt = dict(spoiled(data, size, random))
        assert "in reverse order" in problem(spoilt["bits reversed"], calibration)
        assert "inverted" in problem(spoilt["all bits inverted"], calibration)


def test_fit_that_lacks_much_to_its_ceiling_says_by_how_much(right: Measured) -> None:
    data, snapshot = right
    wrong = dict(spoiled(data, SIZE, np.random.default_rng(5)))["counts of random distributions"]
    fitted = calibrate(wrong, snapshot, "fitted", force=True)
    refused = fitted.scope.refused
    assert "do not tell the circuits apart" in refused
    assert re.search(r"no values of the model .* it lacks \+0\.\d+ \[\+0\.[1-9]", refused)


def _counted(
    data: CountsData, change: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> CountsData:
    """Counts with another table of each circuit, [outcomes]."""
    records = []
    for each in data.records:
        table = np.zeros(1 << each.source.num_clbits, np.int64)
        table[list(each.counts)] = list(each.counts.values())
        counts = {k: n for k, n in enumerate(change(table).tolist()) if n}
        records.append(replace(each, counts=counts, shots=sum(counts.values())))
    return replace(data, records=tuple(records))


def garbage(bodies: int, kind: str) -> Measured:
    random = np.random.default_rng(11)
    snapshot = device(random, 3)
    sources = circuits(random, 3, bodies)
    data = counts_of(changed(snapshot, random), sources, 2_000, random)
    if kind == "ideal":
        better = {"t1_us": 1e6, "t2_us": 1e6, "p01": 0.0, "p10": 0.0}
        ideal = replace(
            snapshot, qubits=tuple(replace(q, **better) for q in snapshot.qubits),
            gates=tuple(replace(g, error=0.0) for g in snapshot.gates),
        )  # fmt: skip
        return counts_of(ideal, sources, 2_000, random), snapshot
    if kind == "multiples":
        return _counted(data, lambda table: table * 1_000), snapshot
    if kind == "coin":

        def tossed(table: NDArray[np.int64]) -> NDArray[np.int64]:
            either = table + table[np.arange(8) ^ 1]
            return random.multinomial(table.sum(), either / either.sum())

        return _counted(data, tossed), snapshot
    part = float(kind)
    return _counted(
        data, lambda t: np.rint((1.0 - part) * t + part * t.sum() / 8).astype(np.int64)
    ), snapshot


@pytest.mark.parametrize("bodies", [4, 16])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ideal", "fit the circuits without noise better"),
        ("coin", "clbit 0 is 0 as often as 1|fit another circuit"),
        ("multiples", "multiples of 1,000"),
        ("0.3", "not plausible|uniform over all outcomes"),
        ("0.5", "not plausible|uniform over all outcomes"),
    ],
)
def test_garbage_is_not_stored(bodies: int, kind: str, words: str) -> None:
    data, snapshot = garbage(bodies, kind)
    fails(FitRefusedError, words, calibrate, data, snapshot, "fitted")


def likelihood(data: CountsData, snapshot: CalibrationSnapshot) -> LikelihoodFit:
    problem = FitBase.of("snapshot", snapshot, data).problem
    prior = Prior(0.5, 0.3)
    return LikelihoodFit.of(problem, solve.fit(problem, prior).values, prior)


def test_copied_rows_are_no_further_measurements(right: Measured) -> None:
    """A tenth of the rows twice; runs of one circuit with as many shots are no copies."""
    data, snapshot = right
    copied = replace(data, records=(*data.records, data.records[3]))
    assert "2 rows have equal counts of all" in problem(copied, snapshot)
    random = np.random.default_rng(4)
    sources = [each.source for each in data.records[:2]] * 20
    runs = counts_of(changed(snapshot, random), sources, 100, random)
    assert "equal counts" not in problem(runs, snapshot)


def test_copied_rows_whose_texts_differ_by_a_comment_are_no_further_measurements(
    right: Measured, tmp_path: Path
) -> None:
    data, snapshot = right
    rows = [
        row(
            f"{each.source.text}\n// run {k}",
            {f"{outcome:0{SIZE}b}": count for outcome, count in each.counts.items()},
        )
        for k in range(3)
        for each in data.records
    ]
    write(tmp_path / "copies.jsonl", rows)
    assert "3 rows have equal counts of all" in problem(read(tmp_path / "copies.jsonl"), snapshot)


@pytest.mark.parametrize("seed", range(3))
def test_better_readout_of_an_idle_qubit_is_no_constant_bit(seed: int) -> None:
    """Readout errors alone, of .03 by the calibration and far less now, expect 108 shots."""
    random = np.random.default_rng(seed)
    calibration = device(random, SIZE)
    idle = SIZE - 1

    def read_with(p01: float) -> CalibrationSnapshot:
        qubits = list(calibration.qubits)
        qubits[idle] = replace(qubits[idle], p01=p01)
        return replace(calibration, qubits=tuple(qubits))

    sources = []
    for each in circuits(random, SIZE - 1, 12):
        text = each.text.replace(f"q[{SIZE - 1}]", f"q[{SIZE}]")
        text = text.replace(f"c[{SIZE - 1}]", f"c[{SIZE}]")
        text += f"measure q[{idle}] -> c[{idle}];\n"
        loaded = load(text)
        sources.append(MeasuredCircuit(text, loaded, SIZE, body_of(loaded)))
    data = counts_of(read_with(1e-5), sources, 300, random)
    assert not any(outcome >> idle & 1 for each in data.records for outcome in each.counts)
    assert problem(data, read_with(0.03)) == ""


def mixed_with_noise(data: CountsData, part: float, random: np.random.Generator) -> CountsData:
    """Data with a part of the shots exchanged for uniform ones."""

    def change(table: NDArray[np.int64]) -> NDArray[np.int64]:
        shots = int(table.sum())
        noise = int(random.binomial(shots, part))
        left = random.multivariate_hypergeometric(table, shots - noise)
        return left + random.multinomial(noise, np.full(len(table), 1.0 / len(table)))

    return _counted(data, change)


def test_a_uniform_part_of_all_counts_is_seen_beside_all_errors_of_the_device() -> None:
    """15 % of the shots, on devices whose errors of gates and readout are wrong by 30 %, with
    coherent errors or joint flips of records; and none of the right counts."""
    seen = 0
    for seed in range(6):
        random = np.random.default_rng([41, seed])
        snapshot = device(random, SIZE)
        truth = (changed, coherent, read_together)[seed % 3](changed(snapshot, random), random)
        data = counts_of(truth, circuits(random, SIZE, 8), 2_000, random)
        assert guards.uniform(likelihood(data, snapshot)) == "", seed
        wrong = mixed_with_noise(data, 0.15, random)
        seen += "uniform over all outcomes" in guards.uniform(likelihood(wrong, snapshot))
    assert seen >= 5


def test_a_device_that_is_old_or_better_than_calibrated_is_not_refused() -> None:
    """Values up to five times worse or better, and all of them four times better."""
    for seed in range(4):
        random = np.random.default_rng(30 + seed)
        snapshot = device(random, 3)
        truth = aged(snapshot, random)
        data = counts_of(truth, circuits(random, 3, 12), 1_000, random)
        calibrate(data, snapshot, "fitted")
    better = replace(
        snapshot, gates=tuple(
            replace(each, error=(each.error or 0.0) / 4) for each in snapshot.gates
        ),
        qubits=tuple(
            replace(
                each, t1_us=4 * (each.t1_us or 0.0), t2_us=4 * (each.t2_us or 0.0),
                p01=(each.p01 or 0.0) / 4, p10=(each.p10 or 0.0) / 4,
            )
            for each in snapshot.qubits
        ),
    )  # fmt: skip
    data = counts_of(better, circuits(random, 3, 12), 2_000, random)
    calibrate(data, snapshot, "fitted")


def test_qubits_that_no_circuit_had_keep_their_calibration() -> None:
    """Readout of qubits 0 to 2 is 2.5 times worse, and that of 3 to 6 is as calibrated."""
    random = np.random.default_rng(1)
    snapshot = device(random, 7)
    qubits = tuple(
        replace(each, p01=min(2.5 * (each.p01 or 0.0), 0.3), p10=min(2.5 * (each.p10 or 0.0), 0.3))
        if k < 3
        else each
        for k, each in enumerate(snapshot.qubits)
    )
    truth = replace(snapshot, qubits=qubits)
    data = counts_of(truth, circuits(random, 3, 12), 3_000, random)
    fitted = calibrate(data, snapshot, "fitted")
    assert fitted.share
    assert fitted.snapshot.qubits[0].p01 != snapshot.qubits[0].p01
    for one, other in zip(fitted.snapshot.qubits[3:], snapshot.qubits[3:], strict=True):
        for field in ("t1_us", "t2_us", "p01", "p10"):
            assert getattr(one, field) == pytest.approx(getattr(other, field))
    errors = {(each.name, each.qubits): each.error for each in fitted.snapshot.gates}
    for each in snapshot.gates:
        if set(each.qubits) - {0, 1, 2}:
            assert errors[each.name, each.qubits] == each.error


def _readout(snapshot: CalibrationSnapshot, *factors: float) -> CalibrationSnapshot:
    """Snapshot with readout errors multiplied by a factor of each qubit."""
    qubits = tuple(
        replace(each, p01=(each.p01 or 0.0) * k, p10=(each.p10 or 0.0) * k)
        for each, k in zip(snapshot.qubits, factors, strict=True)
    )
    return replace(snapshot, qubits=qubits)


@pytest.mark.parametrize("seed", range(3))
def test_counts_without_readout_errors_are_refused_and_a_better_readout_is_not(seed: int) -> None:
    """Mitigated counts have the errors of gates; a readout that improved has a part of its own, or
    it is that of one qubit alone, also where this one had the most errors."""
    random = np.random.default_rng([62, seed])
    snapshot = _readout(device(random, 4), 4.0, 1.0, 1.0, 1.0)
    sources = circuits(random, 4, 20)
    for factors, words in (
        ((0.0, 0.0, 0.0, 0.0), "of the readout errors that the calibration predicts"),
        ((0.3, 0.3, 0.3, 0.3), ""),
        ((0.02, 0.7, 0.7, 0.7), ""),
    ):
        truth = _readout(changed(snapshot, random), *factors)
        found = problem(counts_of(truth, sources, 4_000, random), snapshot)
        assert bool(found) == bool(words), (factors, found)
        assert words in found


def _after_a_fit(data: CountsData, device: CalibrationSnapshot) -> str:
    """What the checks of counts about a fit name."""
    problem, prior = FitBase.of("snapshot", device, data).problem, Prior(0.5, 0.3)
    found = solve.fit(problem, prior)
    shots = np.array([each.shots for each in problem.observations])
    unknowns = len(problem.columns(prior).columns)
    return (
        mixtures.mixed(data.records, problem, found.values)
        or guards.incomplete(problem, found.values)
        or guards.smooth(found.blocks, shots, unknowns)
    )


def test_rows_of_two_devices_and_counts_without_scatter_are_named() -> None:
    random = np.random.default_rng(2)
    device = drawn.device(random, 3)
    truth = drawn.changed(device, random)
    sources = drawn.circuits(random, 3, 24)
    right = drawn.counts_of(truth, sources, 2_000, random)
    assert _after_a_fit(right, device) == ""
    for name, data in drawn.two_devices(truth, sources, 2_000, random):
        assert "rows are not of one device: errors of gates" in _after_a_fit(data, device), name
    jobs = [
        replace(each, job="monday" if k < 24 else "tuesday") for k, each in enumerate(data.records)
    ]
    assert "(jobs tuesday)" in _after_a_fit(CountsData(tuple(jobs), "drawn"), device)
    rounded = drawn.incomplete(right, random)["a fifth of the counts, rounded"]
    assert "scatter less than shots" in _after_a_fit(CountsData(tuple(rounded), "drawn"), device)


def test_missing_outcomes_with_few_shots_are_named() -> None:
    random = np.random.default_rng(4)
    device = drawn.device(random, 4)
    truth = drawn.changed(device, random)
    data = drawn.counts_of(truth, drawn.circuits(random, 4, 20), 2_000, random)
    assert _after_a_fit(data, device) == ""
    worse = drawn.counts_of(drawn.scaled(device, 3.0), drawn.circuits(random, 4, 20), 2_000, random)
    assert _after_a_fit(worse, device) == ""
    assert "multiples" not in guards._divisor(data.records)
    for name, records in drawn.incomplete(data, random).items():
        if "times" in name:
            assert "multiples of about 3.7" in guards._divisor(records)
        elif "rounded" not in name:
            found = _after_a_fit(CountsData(tuple(records), "drawn"), device)
            assert "outcomes with few shots are missing" in found, name
