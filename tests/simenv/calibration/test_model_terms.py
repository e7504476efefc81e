"""Terms of a device's noise that counts of a known device earn, and that others do not."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from changed_devices import changed_qubit, scaled_errors
from failing import fails
from msgspec.structs import replace

from noise_models import library
from noise_models.calibration import CalibrationSnapshot, PauliRotation, QubitCalibration
from noise_models.options import NoiseOptions
from simenv.calibration.data import CountsData, CountsRecord, DataError, MeasuredCircuit
from simenv.calibration.fit.attempt import MANY_BODIES, FitBase, score_of
from simenv.calibration.fit.calibrate import FittedDevice, calibrate
from simenv.calibration.fit.observations import GROUP_BITS, window_starts
from simenv.calibration.fit.solve import Prior, fit
from simenv.calibration.score import CEILING, IdealDistributions, Predictor, score
from simenv.cli.devices.calibrate import _saved
from simenv.client.circuits import load
from simenv.config.pools import DriftSpec
from simenv.service.devices import registry
from testbed.drawn_devices import PATH, device, measured, random_circuit

DAY_S = 86_400.0
ANGLE_RAD = 0.12  # of ZZ after cx 0, 1


def rotated(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """A device whose cx 0, 1 turns by ANGLE_RAD about ZZ too; its measured errors contain that."""
    turn = (PauliRotation("ZZ", ANGLE_RAD),)
    gates = tuple(
        replace(gate, rotations=turn, error=gate.error + 0.8 * math.sin(ANGLE_RAD / 2) ** 2)
        if gate.name == "cx" and gate.qubits == (0, 1) and gate.error
        else gate
        for gate in snapshot.gates
    )
    return replace(snapshot, gates=gates)


def many(truth: CalibrationSnapshot, seed: int) -> CountsData:
    rng = np.random.default_rng(seed)
    texts = [random_circuit(PATH[:2], rng) for _ in range(MANY_BODIES)]
    return CountsData(tuple(measured(texts, truth, rng)), "lima")


@pytest.fixture(scope="module")
def coherent() -> FittedDevice:
    lima = library.load("lima")
    return calibrate(many(rotated(lima), 5), lima, "fitted")


def test_an_angle_of_the_device_is_found(coherent: FittedDevice) -> None:
    assert coherent.prior.angle > 0.0
    place = coherent.columns.index("ZZ cx 0 1")
    value = coherent.latent[place] * coherent.widths[place]
    assert value == pytest.approx(ANGLE_RAD, abs=0.02)
    named = {each.name: each for each in coherent.identification.parameters}
    found = named["cx ZZ angle 0-1"]
    assert found.identified or "ZZ 0-1" in found.mixed_with  # of the waiting pair: as a whole
    assert found.low - 0.01 < ANGLE_RAD < found.high + 0.01
    turns = {
        each.pauli: each.angle_rad
        for gate in coherent.snapshot.gates
        if (gate.name, gate.qubits) == ("cx", (0, 1))
        for each in gate.rotations
    }
    assert turns["ZZ"] == pytest.approx(coherent.share * value)


@pytest.mark.slow
def test_angles_that_the_device_has_not_are_not_used() -> None:
    lima = library.load("lima")
    result = calibrate(many(changed_qubit(lima, 0, p01=0.06, p10=0.09), 6), lima, "fitted")
    assert any(each.prior.angle for each in result.scores)  # they were tried
    assert result.prior.angle == 0.0
    assert not any(gate.rotations for gate in result.snapshot.gates)


def test_a_qubit_far_worse_than_its_calibration_is_found_by_heavy_tails() -> None:
    lima = library.load("lima")
    truth = changed_qubit(lima, 1, t1_us=15.0, t2_us=15.0, p10=0.25)
    rng = np.random.default_rng(8)
    texts = [random_circuit(PATH[:3], rng) for _ in range(10)]
    data = CountsData(tuple(measured(texts, truth, rng, shots=500)), "lima")
    problem = FitBase.of("lima", lima, data).problem
    place = [(each.kind, each.qubits) for each in problem.components].index(("relaxation", (1,)))
    wanted = math.log((lima.qubits[1].t1_us or 0.0) / 15.0)
    table = {h: fit(problem, Prior(0.1, 0.3, heavy=h)).values[place] for h in (False, True)}
    assert abs(table[True] - wanted) < 0.25 * wanted
    assert abs(table[True] - wanted) < abs(table[False] - wanted)


def test_the_asymmetry_of_readout_is_found() -> None:
    """The device reads all qubits with a quarter of the calibrated difference p10 - p01."""
    lima = library.load("lima")

    def changed(qubit: QubitCalibration) -> QubitCalibration:
        p01, p10 = qubit.confusion or (0.0, 0.0)
        mean, half = (p01 + p10) / 2.0, (p10 - p01) / 8.0
        return replace(qubit, p01=mean - half, p10=mean + half)

    truth = replace(lima, qubits=tuple(map(changed, lima.qubits)))
    rng = np.random.default_rng(9)
    texts = [random_circuit(PATH[:3], rng) for _ in range(10)]
    data = CountsData(tuple(measured(texts, truth, rng)), "lima")
    problem = FitBase.of("lima", lima, data).problem
    place = [each.kind for each in problem.components].index("asymmetry")
    result = fit(problem, Prior(0.05, asymmetry=0.5))
    assert result.values[place] == pytest.approx(-0.75, abs=0.1)
    assert result.cost < fit(problem, Prior(0.05)).cost - 10.0


def test_what_is_added_to_the_readout_errors_is_found() -> None:
    """No factor of a calibrated p01 near 0 makes it as large as that of the device."""
    lima = library.load("lima")
    calibrated = tuple(replace(each, p01=2e-4) for each in lima.qubits)
    snapshot = replace(lima, qubits=calibrated)
    qubits = tuple(replace(each, p01=0.0302, p10=(each.p10 or 0.0) + 0.01) for each in calibrated)
    truth = replace(snapshot, qubits=qubits)
    rng = np.random.default_rng(9)
    texts = [random_circuit(PATH[:3], rng) for _ in range(10)]
    data = CountsData(tuple(measured(texts, truth, rng)), "lima")
    problem = FitBase.of("lima", snapshot, data).problem
    kinds = [each.kind for each in problem.components]
    result = fit(problem, Prior(0.05, added=0.02))
    found = [result.values[kinds.index(kind)] for kind in ("p01+", "p10+")]
    assert found == pytest.approx([0.03, 0.01], abs=0.003)
    without = fit(problem, Prior(0.05)).values
    assert problem.losses(result.values).sum() < 0.5 * problem.losses(without).sum()


def waiting(text: str, path: tuple[int, ...] = PATH) -> str:
    """A circuit in OpenQASM 3 whose qubits wait and turn once more before they are measured."""
    for old, new in (
        ("OPENQASM 2.0", "OPENQASM 3.0"), ("qelib1.inc", "stdgates.inc"),
        ("qreg q[5]", "qubit[5] q"), (f"creg c[{len(path)}]", f"bit[{len(path)}] c"),
    ):  # fmt: skip
        text = text.replace(old, new)
    before, mark, after = text.partition("measure")
    turns = "".join(f"sx q[{qubit}];\n" for qubit in path)
    return f"{before}barrier q;\ndelay[2000ns] q[{path[0]}];\nbarrier q;\n{turns}{mark}{after}"


def test_the_factor_of_zz_rates_is_found_and_leaves_relaxation_alone() -> None:
    """The calibration of lima has rates that do not act; on the device they act with factor 1."""
    lima = library.load("lima")
    assert lima.zz_factor == 0.0
    truth = replace(lima, zz_strength=1.0)
    rng = np.random.default_rng(9)
    texts = [waiting(random_circuit(PATH, rng)) for _ in range(12)]
    result = calibrate(CountsData(tuple(measured(texts, truth, rng)), "lima"), lima, "fitted")
    assert result.prior.zz > 0.0
    assert result.share > 0.5
    rates = result.snapshot.acting_zz_khz
    for pair, rate in truth.acting_zz_khz.items():
        if set(pair) <= set(PATH):
            assert rates[pair] == pytest.approx(rate, rel=0.15)
    for qubit in PATH:
        ratio = (result.snapshot.qubits[qubit].t1_us or 0.0) / (lima.qubits[qubit].t1_us or 1.0)
        assert 0.8 < ratio < 1.25


def dated(records: list[CountsRecord], day: float) -> list[CountsRecord]:
    return [replace(each, time_s=day * DAY_S) for each in records]


def prepared(flips: str) -> str:
    """A basis state, measured at once."""
    measures = "measure q[0] -> c[0]; measure q[1] -> c[1];"
    return f'OPENQASM 2.0; include "qelib1.inc"; qreg q[5]; creg c[2]; {flips} {measures}'


def test_readout_that_drifts_is_fitted_by_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lima = library.load("lima")
    rng = np.random.default_rng(9)
    texts = [random_circuit(PATH[:2], rng) for _ in range(8)]
    texts += [prepared(flips) for flips in ("", "x q[0];", "x q[1];", "x q[0]; x q[1];")]
    levels = (0.012, 0.04)
    rows: list[CountsRecord] = []
    for number, level in enumerate(levels):
        truth = lima
        for qubit in PATH[:2]:
            truth = changed_qubit(truth, qubit, p01=level, p10=2.0 * level)
        rows += dated(measured(texts, truth, rng), 20_000.0 + 10.0 * number)
    result = calibrate(CountsData(tuple(rows), "lima"), lima, "fitted")
    assert window_starts(rows) == [20_000.0 * DAY_S, 20_010.0 * DAY_S]
    assert len(result.series) == len(result.windows) == 2
    for each, level in zip(result.series, levels, strict=True):
        assert each.qubits[0].p01 == pytest.approx(level, rel=0.3)
    assert result.series[1].calibrated.startswith("2024-10-14")
    drifting = {each.name for each in result.day_tests if each.drifts}
    assert drifting
    assert all(name.startswith(("p01", "p10")) for name in drifting)
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    _saved("fitted", result)
    replay = registry.DeviceRegistry(tmp_path / "devices")
    drift = replay.drift("fitted", DriftSpec("replay"), tmp_path / "devices").result()
    assert tuple(drift.snapshot(k) for k in range(2)) == result.series
    replay.close()


def test_what_few_circuits_gain_counts_as_what_the_typical_one_does() -> None:
    """Four circuits of ten, whose date differs, gain half of their loss; the others lose 5 %."""
    snapshot = np.array([0.01] * 6 + [0.1] * 4)
    dated = score_of(Prior(0.3), np.array([0.0105] * 6 + [0.05] * 4), snapshot, Prior(0.3))
    undated = score_of(Prior(0.3), np.array([0.0095] * 6 + [0.1] * 4), snapshot)
    one_bad = score_of(Prior(0.3), np.array([0.04] * 9 + [0.0]), np.array([0.01] * 9 + [0.4]))
    assert dated.ratio < undated.ratio < 1.0
    assert one_bad.mean_loss < 0.049  # the mean loss of the snapshot
    assert one_bad.ratio > 1.0


def line(snapshot: CalibrationSnapshot, size: int) -> tuple[int, ...]:
    """Coupled qubits, one after the other."""
    beside: dict[int, list[int]] = {}
    for a, b in snapshot.coupling:
        beside.setdefault(a, []).append(b)
        beside.setdefault(b, []).append(a)
    paths: list[tuple[int, ...]] = [(qubit,) for qubit in beside]
    while len(paths[0]) < size:
        paths = [(*path, q) for path in paths for q in beside[path[-1]] if q not in path]
    return paths[0]


def ghz(path: tuple[int, ...], rng: np.random.Generator) -> str:
    """GHZ state in native gates, some qubits flipped first: circuits of different bodies."""
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', "qreg q[27];", f"creg c[{len(path)}];"]
    lines += [f"x q[{q}];" for q in path if rng.integers(2)]
    half = "rz(pi/2) q[{0}]; sx q[{0}]; rz(pi/2) q[{0}];"
    lines.append(half.format(path[0]))
    for one, two in itertools.pairwise(path):
        lines += [half.format(two), f"cz q[{one}],q[{two}];", half.format(two)]
    lines += [f"measure q[{q}] -> c[{k}];" for k, q in enumerate(path)]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_clifford_circuits_above_the_width_of_the_transfer_simulator_are_fitted() -> None:
    lattice = library.load("superconducting-lattice")
    truth = scaled_errors(lattice, 4.0, lambda gate: len(gate.qubits) == 2)
    rng = np.random.default_rng(10)
    path = line(lattice, 14)
    texts = [ghz(path[:size], rng) for size in (13, 14, 13, 14, 13, 14, 13, 14)]
    rows = measured(texts, truth, rng, shots=40_000)
    rows = [replace(each, is_test=k >= 6) for k, each in enumerate(rows)]
    data = CountsData(tuple(rows), lattice.name)
    outcome = calibrate(data, lattice, "fitted")
    assert outcome.observed.left_out == ()
    assert len(outcome.observed.observations) == 2 * 6  # groups of at most GROUP_BITS clbits
    assert all(len(each.frequencies) <= 2**GROUP_BITS for each in outcome.observed.observations)
    models = {"before": Predictor(lattice), "after": Predictor(outcome.snapshot)}
    result = score(data, models, IdealDistributions()).part(test=True)
    before, after, limit = (result.summary(name) for name in ("before", "after", CEILING))
    assert before.median.value < limit.median.value - 0.01
    assert after.median.value > limit.median.value - 0.003
    assert {row.how for row in result.rows} == {"Pauli twirl, exact"}


def test_predictions_are_the_mixture_over_detunings() -> None:
    lima = changed_qubit(library.load("lima"), PATH[0], t2_star_us=5.0)
    text = 'OPENQASM 2.0;include "qelib1.inc";qreg q[5];creg c[1];'
    text += f"sx q[{PATH[0]}];"
    text += f"id q[{PATH[0]}];" * 150
    text += f"sx q[{PATH[0]}];measure q[{PATH[0]}]->c[0];"
    rng = np.random.default_rng(1)
    (record, *_) = measured([text], lima, rng)
    found = Predictor(lima).prediction(record)
    markovian = Predictor(library.load("lima")).prediction(record)
    assert found.how == "exact"
    ones = dict(zip(found.outcomes.tolist(), found.probabilities.tolist(), strict=True))[1]
    shots = sum(record.counts.values())
    assert abs(ones - (record.counts.get(1, 0) / shots)) < 5.0 * math.sqrt(0.25 / shots)
    assert ones < dict(zip(markovian.outcomes, markovian.probabilities, strict=True))[1] - 0.1


def detuned(snapshot: CalibrationSnapshot, share: float) -> CalibrationSnapshot:
    """A device with T2* of this share of T2 at all qubits, whose ZZ rates do not act."""
    qubits = tuple(
        replace(each, t2_star_us=share * (each.t2_limited_us or 0.0)) for each in snapshot.qubits
    )
    return replace(snapshot, qubits=qubits)


def test_a_device_with_detunings_is_fitted_and_keeps_them() -> None:
    """T2* is a tenth of T2, and circuits wait. The calibration has wrong readout errors, T1 and
    gate errors; the fit is closer to the device, on other circuits too."""
    lima = detuned(library.load("lima"), 0.1)
    qubits = tuple(
        replace(each, p01=1.8 * (each.p01 or 0.0), p10=1.8 * (each.p10 or 0.0)).with_detuning(
            each.detuning_rad_us
        )
        for each in lima.qubits
    )
    truth = scaled_errors(replace(lima, qubits=qubits), 1.5)
    rng = np.random.default_rng(12)
    path = PATH[:2]
    texts = [waiting(random_circuit(path, rng), path) for _ in range(15)]
    rows = measured(texts[:11], truth, rng, shots=2_000)
    result = calibrate(CountsData(tuple(rows), "lima"), lima, "fitted")
    assert result.observed.left_out == ()
    assert result.share > 0.0
    for before, after in zip(lima.qubits, result.snapshot.qubits, strict=True):
        assert after.detuning_rad_us == pytest.approx(before.detuning_rad_us, rel=0.05)
    others = CountsData(tuple(measured(texts[11:], truth, rng, shots=200_000)), "lima")
    models = {
        "calibrated": Predictor(lima),
        "fitted": Predictor(replace(result.snapshot, outside=None)),
        "without": Predictor(lima, NoiseOptions.parse({"qubit.quasistatic": 0})),
        "truth": Predictor(truth),
    }
    summaries = score(others, models, IdealDistributions())
    lost = {name: 1.0 - summaries.summary(name).mean.value for name in models}
    assert lost["fitted"] < 0.3 * lost["calibrated"]
    assert lost["without"] > 2.0 * lost["calibrated"]  # the detunings act
    below = {name: summaries.summary(name, "kl_divergence").mean.value for name in models}
    assert max(abs(below["truth"]), abs(below["fitted"])) < 2e-4
    assert 2e-4 < below["calibrated"] < below["without"]


def test_the_factor_of_detunings_is_found() -> None:
    lima = detuned(library.load("lima"), 0.1)
    qubits = tuple(each.with_detuning(1.5 * each.detuning_rad_us) for each in lima.qubits)
    truth = replace(lima, qubits=qubits)
    rng = np.random.default_rng(13)
    path = PATH[:2]
    texts = [waiting(random_circuit(path, rng), path) for _ in range(9)]
    data = CountsData(tuple(measured(texts, truth, rng)), "lima")
    problem = FitBase.of("lima", lima, data).problem
    place = [each.kind for each in problem.components].index("quasistatic")
    alone = fit(problem, Prior(0.03, quasistatic=0.5))
    assert alone.values[place] == pytest.approx(math.log(1.5), abs=0.05)
    result = calibrate(data, lima, "fitted")
    assert result.prior.quasistatic > 0.0
    assert result.share > 0.5
    for qubit in path:
        found = result.snapshot.qubits[qubit].detuning_rad_us
        factor = math.exp(result.share * result.values[place])
        assert found == pytest.approx(factor * lima.qubits[qubit].detuning_rad_us, rel=0.03)


def test_a_step_of_a_fit_to_detunings_with_too_many_sets_is_that_to_the_strongest() -> None:
    lima = detuned(library.load("lima"), 0.1)
    rng = np.random.default_rng(13)
    path = PATH[:4]
    texts = [waiting(random_circuit(path, rng), path) for _ in range(2)]
    problem = FitBase.of(
        "lima", lima, CountsData(tuple(measured(texts, lima, rng)), "lima")
    ).problem
    place = [each.kind for each in problem.components].index("quasistatic")
    values = np.zeros(len(problem.components))
    losses = []
    for factor in (0.0, 5.0, 5.5):  # logarithms
        values[place] = factor
        losses.append(problem.losses(values))
        blocks = problem.blocks(values)
        assert np.allclose([each.loss for each in blocks], losses[-1], atol=1e-6)
    assert np.all(losses[1] > 2.0 * losses[0])
    assert np.allclose(losses[2], losses[1], atol=1e-3)


def test_too_many_sets_of_detunings_leave_a_circuit_out() -> None:
    lima = detuned(library.load("lima"), 0.01)
    rng = np.random.default_rng(11)
    path = PATH[:4]
    rows = [measured([waiting(random_circuit(path, rng), path)], library.load("lima"), rng)[0]]
    fails(
        DataError, r"no circuit can be fitted: rows 1: .*detunings \(T2\* beside T2\)",
        calibrate, CountsData(tuple(rows), "lima"), lima, "fitted", force=True,
    )  # fmt: skip


def test_predictions_of_narrow_circuits_that_leak_are_exact() -> None:
    """Of |11>, each qubit leaks with the same probability p in a cz: 1 - L1 = (1 - p / 2)^2. One
    that leaked is read as 1."""
    plain = replace(
        device(np.random.default_rng(1), 2), qubits=(QubitCalibration(), QubitCalibration())
    )
    leakage, p = 0.0975, 0.1
    gates = tuple(
        replace(g, error=0.0, leakage=leakage if g.name == "cz" else None) for g in plain.gates
    )
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2];'
    text += "x q[0]; x q[1]; cz q[0],q[1]; x q[0]; x q[1]; measure q -> c;"
    loaded = load(text)
    record = CountsRecord(MeasuredCircuit(text, loaded, 2, "body"), {0: 1}, 1, layout=(0, 1))
    leaking = replace(plain, gates=gates)
    found = Predictor(leaking).prediction(record)
    assert found.samples == 0
    table = dict(zip(found.outcomes.tolist(), found.probabilities.tolist(), strict=True))
    assert table[0] == pytest.approx((1.0 - p) ** 2, abs=1e-9)
    assert table[3] == pytest.approx(p**2, abs=1e-9)
