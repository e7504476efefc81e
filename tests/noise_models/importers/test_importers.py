"""Importers, and damaged snapshots."""

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import calibration_samples as samples
import msgspec
import pytest
from arrays import Arrays
from failing import fails
from noise_references import attached, distribution

from noise_models import library, snapshot
from noise_models.calibration import (
    AngleBounds,
    CalibrationSnapshot,
    GateCalibration,
    MeasurementCalibration,
    MeasurementCrosstalk,
    NativeGate,
    QubitCalibration,
    leaked_infidelity,
)
from noise_models.importers import REGISTRY, ImportReport, import_snapshot
from noise_models.strict_json import SnapshotError


def imported(form: str, **options: Any) -> tuple[CalibrationSnapshot, ImportReport]:
    return import_snapshot(samples.files()[form], **options)


def gate(found: CalibrationSnapshot, name: str, *qubits: int) -> GateCalibration:
    return next(each for each in found.gates if each.name == name and each.qubits == qubits)


def notes(lines: Any) -> dict[str, str]:
    return {line.field: line.note for line in lines}


@pytest.mark.parametrize("name", sorted(samples.files()))
def test_each_format_is_detected_and_gives_a_valid_snapshot(name: str) -> None:
    value, report = imported(name)
    assert report.format == value.source_format == name
    assert (snapshot.load(snapshot.dump(value)), len(value.source_digest)) == (value, 64)
    assert report.used
    assert imported(name, source_format=name)[0] == value
    assert imported(name, name="mine")[0].name == "mine"


def test_every_registered_format_has_a_sample() -> None:
    assert {*samples.files(), "simenv"} == {*REGISTRY}


def test_ibm_properties_keep_values_units_dates_and_the_asymmetry_of_readout() -> None:
    value, report = imported("ibm-properties")
    assert (value.name, value.calibrated) == ("ibm_sample", samples.WHEN)
    assert (value.dt_ns, value.max_shots, value.dynamic) == (4.0, 100_000, True)
    assert value.qubits[0] == QubitCalibration(
        t1_us=100.5, t2_us=80.25, frequency_ghz=5.1, p01=0.01, p10=0.03, readout_ns=1500.0,
        readout_error=0.02, reset_ns=1000.0,
    )  # fmt: skip
    assert value.qubits[2].t1_us == 90.0
    assert gate(value, "cz", 0, 1) == GateCalibration("cz", (0, 1), 0.005, 68.0)
    assert (value.zz[0].qubits, value.zz[0].rate_khz) == ((0, 1), pytest.approx(-45.0))
    assert value.dates["qubits[0].t1_us"] == samples.EARLIER
    assert value.dates[f"gates[{value.gates.index(gate(value, 'sx', 1))}]"] == samples.EARLIER
    assert [each.name for each in value.native_gates] == ["cz", "rz", "sx", "x"]
    assert notes(report.ignored)["qubits[*].anharmonicity"]
    assert notes(report.defaulted)["qubits[*].excited"]
    assert report.clamped[0].field == "qubits[1].t2_us"
    assert len(report.clamped) == 3  # the gate with an error of 1, in both directions


def test_ibm_properties_alone_take_the_coupling_from_the_gates() -> None:
    files = {"props_sample.json": samples.encoded(samples.ibm_properties())}
    value, report = import_snapshot(files)
    assert set(value.coupling) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert notes(report.defaulted)["coupling"]
    assert {each.name for each in value.native_gates} == {"rz", "sx", "x", "cz"}


def test_ibm_qubits_and_gates_that_are_not_operational_are_reported() -> None:
    properties = samples.ibm_properties()
    properties["qubits"][2].append({"name": "operational", "unit": "", "value": 0})
    properties["gates"][9]["parameters"].append({"name": "operational", "unit": "", "value": 0})
    value, report = import_snapshot({"props.json": samples.encoded(properties)})
    assert (gate(value, "cz", 0, 1).error, value.unusable) == (1.0, (2,))
    assert "gates[9].operational" in {x.field for x in report.clamped}
    assert [line.note for line in report.missing[:1]] == ["2 unusable: not operational"]


def test_implausible_zz_rates_of_ibm_are_bounded_and_reported() -> None:
    files = dict(samples.files()["ibm-properties"])
    properties = samples.ibm_properties()
    properties["general"] = [
        {"name": "zz_01", "unit": "GHz", "value": -1.4e-3},
        {"name": "zz_12", "unit": "GHz", "value": 2.9e-4},
    ]
    files["props_sample.json"] = samples.encoded(properties)
    value, report = import_snapshot(files)
    assert [each.rate_khz for each in value.zz] == pytest.approx([-300.0, 290.0])
    (line,) = (each for each in report.clamped if each.field.startswith("general"))
    assert line.note == "-1400 kHz of [0, 1] is implausible; used: -300 kHz"


def test_ibm_zz_digits_that_fit_two_coupled_pairs_are_ignored_by_name() -> None:
    properties = samples.ibm_properties()
    qubit = properties["qubits"][2]
    properties["qubits"] += [qubit] * 110
    properties["general"] = [{"name": "zz_1112", "unit": "GHz", "value": 1e-5}]
    configuration = samples.ibm_configuration()
    configuration["n_qubits"] = 113
    del configuration["coords"]
    configuration["coupling_map"] = [[11, 12], [1, 112]]
    files = {"p": samples.encoded(properties), "c": samples.encoded(configuration)}
    value, report = import_snapshot(files)
    assert value.zz == ()
    assert "several" in notes(report.ignored)["general.zz_*"]
    configuration["coupling_map"] = [[12, 11]]
    files["c"] = samples.encoded(configuration)
    assert import_snapshot(files)[0].zz[0].qubits == (11, 12)


def test_ibm_csv_without_column_for_rz_has_frame_changes() -> None:
    table = b"Qubit,sx error,CZ error\n0,0.001,1:0.01\n1,0.002,0:0.01\n"
    value, report = import_snapshot({"a.csv": table})
    assert [each.name for each in value.native_gates] == ["sx", "cz", "rz"]
    assert "rz: a frame change without error and time" in {line.note for line in report.defaulted}
    with_rz, report = import_snapshot({"a.csv": table.replace(b"sx error", b"rz error")})
    assert [each.name for each in with_rz.native_gates] == ["rz", "cz"]


def test_half_of_a_readout_that_the_table_lacks_is_named_with_what_replaces_it() -> None:
    head = "Qubit,Readout assignment error,Prob meas0 prep1,Prob meas1 prep0,sx error\n"
    rows = "0,0.0071,0.0095,,0.001\n1,0.02,,,0.001\n"
    value, report = import_snapshot({"a.csv": (head + rows).encode()})
    assert value.qubits[0].confusion == pytest.approx((0.0047, 0.0095))
    notes = {line.note for line in report.defaulted if "p01" in line.field}
    assert notes == {"readout_error: twice it, less p10", "readout_error: p01 = p10"}
    value, report = import_snapshot({"a.csv": (head + "0,,0.0095,,0.001\n").encode()})
    assert "no p01 on 0: 0 is read exactly" in {line.note for line in report.missing}


@pytest.mark.parametrize(("separator", "part"), [(";", "by ';'"), ("\t", "by tabs"), ("|", "'|'")])
def test_table_with_another_separator_is_refused_by_its_name(separator: str, part: str) -> None:
    table = "Qubit,T1 (us),sx error\n0,100,0.001\n".replace(",", separator).encode()
    with pytest.raises(SnapshotError, match="header: cells are separated") as caught:
        import_snapshot({"a.csv": table})
    assert part in str(caught.value)
    assert "commas" in caught.value.hint


def test_ibm_csv_reads_both_forms_of_two_qubit_cells() -> None:
    value, report = imported("ibm-csv")
    assert (value.name, value.calibrated) == ("ibm_sample", "2026-01-02T03:04:05+00:00")
    assert value.qubits[0].confusion == (0.01, 0.03)
    assert gate(value, "ecr", 1, 0) == GateCalibration("ecr", (1, 0), 0.0137, 533.3)
    assert (gate(value, "rz", 0).duration_ns, gate(value, "sx", 0).duration_ns) == (0.0, 60.0)
    assert value.unusable == (2,)
    assert "rzz" not in {each.name for each in value.native_gates}
    assert value.fractional_gates == (NativeGate("rzz", 2, 1),)
    assert "not operational" in report.missing[0].note
    text = samples.IBM_CSV.replace("1_0:", "0:").replace("1_2:", "2:")
    other, _ = import_snapshot({"other.csv": text.encode()})
    assert other.gates == value.gates
    assert other.coupling == value.coupling == ((1, 0), (1, 2))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Our Lab_5.csv", "our-lab_5"), ("2026-01-02 chip.v2.csv", "chip.v2"),
        ("/tmp/x.csv", "x"), ("5.csv", "ibm-csv"), (f"{'q' * 90}.csv", "q" * 64),
    ],
)  # fmt: skip
def test_device_without_a_name_has_that_of_its_file(file: str, name: str) -> None:
    (table,) = samples.files()["ibm-csv"].values()
    value, report = import_snapshot({file: table})
    assert (value.name, [line.field for line in report.defaulted].count("name")) == (name, 1)


def test_cunqa_turns_fidelities_into_errors_with_and_without_a_space_in_the_key() -> None:
    value, _ = imported("cunqa")
    assert value.qubits[0].readout_error == pytest.approx(0.187)
    assert value.qubits[1].readout_error == pytest.approx(0.08)
    assert value.qubits[0].t1_us == pytest.approx(41.0)
    assert (gate(value, "ecr", 1, 0).error, value.coupling) == (pytest.approx(0.034), ((1, 0),))


def test_qhw_uses_the_unit_of_its_extension_and_all_three_records() -> None:
    value, _ = imported("qhw")
    assert (value.technology, value.qubits[0].t1_us) == ("trapped-ion", pytest.approx(100.5))
    assert value.qubits[2].readout_ns == pytest.approx(120_000.0)
    assert gate(value, "rzz", 0, 1).error == pytest.approx(0.005)
    assert (gate(value, "r", 0).duration_ns, value.max_shots) == (pytest.approx(10_000.0), 5000)
    assert (2, 1) in value.coupling
    alone = {"calibration.json": samples.encoded(samples.qhw()[0])}
    assert set(import_snapshot(alone)[0].coupling) == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_qdmi_applies_defaults_overrides_and_the_scale_of_its_unit() -> None:
    value, _ = imported("qdmi")
    assert [qubit.t1_us for qubit in value.qubits] == [100.0, 95.0, 100.0]
    assert gate(value, "cz", 0, 1) == GateCalibration("cz", (0, 1), 0.01, 80.0)
    assert gate(value, "cz", 1, 0) == GateCalibration("cz", (1, 0), 0.01, 80.0)
    assert gate(value, "cz").duration_ns == 100.0
    assert gate(value, "r") == GateCalibration("r", (), 0.001, 40.0)
    assert [qubit.readout_error for qubit in value.qubits] == [0.02, 0.02, 0.03]


def test_iqm_prefers_echo_t2_and_interleaved_benchmarks_and_skips_invalid_ones() -> None:
    value, report = imported("iqm")
    assert value.qubits[0].t2_us == pytest.approx(15.0)
    assert value.qubits[0].t2_star_us == pytest.approx(8.0)
    assert value.qubits[0].confusion == (0.02, 0.04)
    assert value.qubits[1].t2_us is None
    assert gate(value, "r", 1).error == pytest.approx(0.0015)
    assert gate(value, "cz", 0, 1).error == pytest.approx(0.008)
    assert gate(value, "cz", 1, 0).error == pytest.approx(0.008)
    assert "marked as invalid" in {line.note for line in report.ignored}
    document = samples.iqm()
    metrics = {
        each["dut_field"]: {"value": str(each["value"]), "unit": each.get("unit", "")}
        for each in document["observations"][:-1]
    }
    other, _ = import_snapshot({"m.json": samples.encoded({"metrics": metrics})})
    assert other.qubits == value.qubits


def test_iqm_takes_a_t2_without_an_echo_for_t2() -> None:
    document = samples.iqm()
    document["observations"] = [
        each for each in document["observations"] if "t2_echo" not in each["dut_field"]
    ]
    value, _ = import_snapshot({"m.json": samples.encoded(document)})
    assert value.qubits[0].t2_us == pytest.approx(8.0)
    assert value.qubits[0].t2_star_us is None


def test_iqm_reads_times_of_components_in_calibration_sets() -> None:
    document = samples.iqm()
    for each in document["observations"]:
        each["dut_field"] = each["dut_field"].removeprefix("characterization.model.")
    assert "QB1.t1_time" in {each["dut_field"] for each in document["observations"]}
    value, _ = import_snapshot({"m.json": samples.encoded(document)})
    assert value.qubits == imported("iqm")[0].qubits
    document["observations"][0]["dut_field"] = "QB1.t3_time"
    _, report = import_snapshot({"m.json": samples.encoded(document)})
    assert "observations.QB1.t3_time" in {line.field for line in report.ignored}


def test_braket_prefers_simultaneous_benchmarks_and_keeps_qubit_numbers() -> None:
    value, report = imported("braket")
    assert (value.num_qubits, value.qubits[1]) == (3, QubitCalibration())
    assert value.qubits[0].t1_us == pytest.approx(20.0)
    assert value.qubits[0].t2_us == pytest.approx(20.0)
    assert gate(value, "r", 2).error == pytest.approx(0.003)
    assert (gate(value, "cz", 2, 0).error, value.provider) == (pytest.approx(0.02), "vendor")
    assert "the fidelity of no single gate" in {line.note for line in report.ignored}


def test_trapped_ion_parameters_become_an_all_to_all_device() -> None:
    value, report = imported("trapped-ion")
    assert value.all_to_all
    assert gate(value, "rzz").error == pytest.approx(8e-4)  # p2 * 4 / 5
    assert gate(value, "r").error == pytest.approx(2e-5)  # p1 * 2 / 3
    assert value.qubits[2].confusion == (0.001, 0.003)
    assert value.qubits[2].preparation_error == pytest.approx(4e-5)
    assert value.qubits[0].t2_us == pytest.approx(2e6)
    assert value.measurement_crosstalk == (MeasurementCrosstalk((), pytest.approx(1e-5 * 2 / 3)),)
    nested = {
        "n_qubits": 20,
        "noise_specs": {
            "spam_error": {"p_meas_0": 0.001, "p_meas_1": 0.004, "p_meas_0_unc": 1e-5},
            "1q_gate_error": {"p1": 2e-5},
            "2q_gate_error": {"p2": 9e-4, "p2_unc": 3e-5},
            "memory_error": {"memory_error": 2e-4, "memory_error_unc": 3e-5},
            "crosstalk_error": {"p_crosstalk_meas": 7.4e-6, "p_crosstalk_meas_unc": 8e-7},
        },
    }
    machine, report = import_snapshot({"machine.json": samples.encoded(nested)})
    assert (machine.num_qubits, machine.qubits[0].confusion) == (20, (0.001, 0.004))
    assert not report.unread
    assert {each.memory_error for each in machine.qubits} == {2e-4}
    assert gate(machine, "rzz").error == 9e-4, "by randomized benchmarking: an infidelity"
    assert gate(machine, "r").error == 2e-5
    assert machine.measurement_crosstalk == (MeasurementCrosstalk((), 7.4e-6),)


def test_a_memory_error_of_trapped_ions_stands_for_their_dephasing_rate() -> None:
    values = {**samples.trapped_ion(), "dephasing_error": 3e-4}
    value, report = import_snapshot({"ions.json": samples.encoded(values)})
    assert (value.qubits[1].memory_error, value.qubits[1].t2_us) == (3e-4, None)
    assert notes(report.ignored)["linear_dephasing_rate"] == "part of the memory error"
    assert gate(value, "rzz").error == 1e-3, "a data sheet has average infidelities"
    assert value.measurement_crosstalk[0].error == 1e-5
    for wrong in (-1e-4, 1.4, "x", [1e-4]):
        with pytest.raises(SnapshotError, match=r"(memory|dephasing)_error"):
            import_snapshot({"ions.json": samples.encoded({**values, "dephasing_error": wrong})})
    twice = {**values, "memory_error": 3e-4}
    with pytest.raises(SnapshotError, match="beside"):
        import_snapshot({"ions.json": samples.encoded(twice)})


EMULATOR = {
    "n_qubits": 2, "p1": 0.02, "p2": 0.04, "p1_emission_ratio": 0.5, "p2_emission_ratio": 0.3,
    "p1_seepage_prob": 0.4, "linear_dephasing_rate": 0.3, "quadratic_dephasing_rate": 2.0,
    "coherent_to_incoherent_factor": 1.5, "duration_1q_s": 0.0, "duration_2q_s": 0.0,
}  # fmt: skip


def ions(**changes: object) -> tuple[CalibrationSnapshot, ImportReport]:
    return import_snapshot({"ions.json": samples.encoded({**EMULATOR, **changes})})


def test_emissions_of_ions_are_leakage_and_seepage() -> None:
    value, report = ions()
    one, two = gate(value, "r"), gate(value, "rzz")
    assert (one.leakage, one.seepage) == (pytest.approx(0.005), pytest.approx(0.004))
    assert (two.leakage, two.seepage) == (pytest.approx(0.006), None)
    for each, size, fault in ((one, 1, 0.02), (two, 2, 0.04)):
        rest = (fault - each.leakage) * 2**size / (2**size + 1)
        assert each.error == pytest.approx(rest + leaked_infidelity(each, size))
    assert "stabilizer" in notes(report.ignored)["coherent_to_incoherent_factor"]
    model = {"L": 0.2, "X": 0.8}
    assert gate(ions(p1_emission_model=model)[0], "r").leakage == pytest.approx(0.002)
    for none in ({"leakage_scale": 0.0}, {"leak2depolar": True}, {"emission_scale": 0}):
        value, _ = ions(**none)
        assert gate(value, "r").leakage is None
        assert gate(value, "r").error == pytest.approx(0.02 * 2 / 3)


def test_dephasing_of_ions_that_is_quadratic_in_the_time_is_a_detuning() -> None:
    """The probability of Z is r t + (f t / 2)^2 while both are small, as in the emulator; at T2*
    the contrast is 1/e."""
    value, _ = ions(p1=0.0, p2=0.0)
    assert value.qubits[0].detuning_rad_us == pytest.approx(2e-6)

    def flipped(time_s: float) -> float:
        circuit = Arrays(1, 1).add("sx", [0]).add("delay", [0], params=[1e9 * time_s])
        built = circuit.add("sx", [0]).measure([0]).circuit()
        return 1.0 - float(distribution(built, attached(built, value))[1])

    assert flipped(0.01) == pytest.approx(0.3 * 0.01 + (2.0 * 0.01 / 2) ** 2, rel=0.01)
    star_s = 1e-6 * value.qubits[0].t2_star_us
    assert flipped(star_s) == pytest.approx(0.5 - 0.5 / math.e, abs=1e-4)


def test_ions_that_have_leaked_do_not_decay() -> None:
    value, report = ions(t1_s=1.0)
    assert value.qubits[0].t1_us == 1e6
    assert value.leaked_t1_us(value.qubits[0]) is None
    assert "no decay" in notes(report.defaulted)["qubits[*].leaked_t1_us"]
    assert "qubits[*].leaked_t1_us" not in notes(ions(leakage_scale=0)[1].defaulted)


def test_factors_and_switches_of_ions_that_change_nothing_are_ignored() -> None:
    silent = {"p1_emission_ratio": None, "p2_emission_ratio": None, "p1_seepage_prob": None}
    still = {"linear_dephasing_rate": None, "quadratic_dephasing_rate": None}
    scales = ("crosstalk_scale", "init_scale", "meas_scale", "memory_scale", "emission_scale")
    switches = {"coherent_dephasing": False, "idle_dephasing": False, "leak2depolar": True}
    model = {"p1_emission_model": {"L": 1.0}}
    everything = dict.fromkeys((*scales, "leakage_scale"), 5.0) | switches | model
    report = ions(**silent, **still, **everything)[1]
    ignored = notes(report.ignored)
    assert {ignored[each] for each in (*scales, "leakage_scale")} == {"nothing that it scales"}
    assert {ignored[each] for each in switches} == {"nothing that it switches"}
    assert ignored["p1_emission_model"] == "no emissions"
    assert notes(report.used).keys().isdisjoint(everything)
    value, report = ions(**still, memory_error=1e-4, memory_scale=3.0, scale=2.0)
    assert value.qubits[0].memory_error == pytest.approx(6e-4)
    assert {"memory_scale", "scale"} <= notes(report.used).keys()


@pytest.mark.parametrize("rate", ["linear_dephasing_rate", "quadratic_dephasing_rate"])
def test_rates_of_ions_that_no_time_has_are_none(rate: str) -> None:
    others = dict.fromkeys(("linear_dephasing_rate", "quadratic_dephasing_rate"), None)
    value, report = ions(**{**others, rate: 1e-10})
    assert (value.qubits, notes(report.ignored)[rate]) == ((), "none of this noise")
    assert ions(**{**others, rate: 1e-3})[0].qubits[0].t2_ramsey_us > 1e8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quadratic_dephasing_rate", 1e12), ("t1_s", 1e10), ("t2_s", -1.0), ("measure_s", 1e4),
        ("duration_2q_s", -1.0), ("memory_error", 1.5), ("max_n_shots", -1), ("reset_s", 1e300),
        ("date", "noon"),
    ],
)  # fmt: skip
def test_ranges_of_ions_are_refused_by_the_name_in_the_file(key: str, value: object) -> None:
    assert fails(SnapshotError, "", ions, **{key: value}).field == key


def test_factors_and_switches_of_ions_act_on_what_they_name() -> None:
    plain, _ = ions(p1_emission_ratio=0, p2_emission_ratio=0, p_meas=[0.01, 0.02])
    value, _ = ions(
        p1_emission_ratio=0, p2_emission_ratio=0, p_meas=[0.01, 0.02],
        scale=2.0, p1_scale=1.5, meas_scale=0.5, memory_scale=2.0,
    )  # fmt: skip
    assert gate(value, "r").error == pytest.approx(3.0 * gate(plain, "r").error)
    assert gate(value, "rzz").error == pytest.approx(2.0 * gate(plain, "rzz").error)
    assert value.qubits[0].confusion == (0.01, 0.02)
    assert value.qubits[0].t2_us == pytest.approx(plain.qubits[0].t2_us / 4.0)
    found = value.qubits[0].detuning_rad_us
    assert found == pytest.approx(2.0 * plain.qubits[0].detuning_rad_us), "4 times the probability"
    still, report = ions(idle_dephasing=False)
    assert still.qubits == ()
    assert notes(report.ignored)["linear_dephasing_rate"] == "idle_dephasing is false"
    assert ions(p_prep=0.01)[0].qubits[1].preparation_error == 0.01, "the name of Helios"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"coherent_dephasing": False}, "quadratic_dephasing_rate"),
        ({"p2_pauli_model": {"ZZ": 1.0}}, "p2_pauli_model"),
        ({"p_idle_linear_model": {"X": 1.0}}, "p_idle_linear_model"),
        ({"p_prep_leak_ratio": 0.5}, "p_prep_leak_ratio"),
        ({"noiseless_gates": ["rz"]}, "noiseless_gates"),
        ({"p2_idle": 1e-3}, "p2_idle"),
    ],
)
def test_noise_of_ions_without_a_component_is_refused_by_name(
    changes: dict[str, object], field: str
) -> None:
    fails(SnapshotError, field, ions, **changes)
    none = {"p2_pauli_model": {}, "p_idle_linear_model": {}, "p_prep_leak_ratio": 0.0}
    value, report = ions(**none, noiseless_gates=[], p2_idle=0)
    assert (value.unread, notes(report.ignored)["p2_idle"]) == ((), "none of this noise")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", -1.0), ("p1_scale", "x"), ("coherent_dephasing", 1), ("leak2depolar", "no"),
        ("p1_emission_ratio", 1.5), ("p1_emission_model", {"L": 2.0}), ("p1_seepage_prob", -0.1),
        ("p1_emission_model", [1]), ("quadratic_dephasing_rate", -1.0), ("p1_scale", 1e3),
    ],
)  # fmt: skip
def test_wrong_values_of_ions_are_refused_by_name(key: str, value: object) -> None:
    fails(SnapshotError, "p1" if key == "p1_scale" else key, ions, **{key: value})


def test_what_a_measurement_of_iqm_leaves_is_read() -> None:
    document = samples.iqm()
    for metric, number in (("qndness_0", 0.99), ("qndness_1", 0.95)):
        name = f"metrics.qndness.measure.constant.QB2.{metric}"
        document["observations"].append({"dut_field": name, "value": number})
    value, _ = import_snapshot({"qms.json": samples.encoded(document)})
    assert value.qubits[1].measure_excitation == pytest.approx(0.01)
    assert value.qubits[1].measure_decay == pytest.approx(0.05)
    document["observations"][-1]["value"] = 1.2
    with pytest.raises(SnapshotError, match="observations"):
        import_snapshot({"qms.json": samples.encoded(document)})


@pytest.mark.parametrize(
    ("name", "path", "value", "field"),
    [
        ("ibm-properties", ("qubits", 0, 0, "unit"), "fortnight", "qubits[0].T1.unit"),
        ("ibm-properties", ("qubits", 0, 0, "value"), "x", "qubits[0].T1"),
        ("ibm-properties", ("qubits", 0, 0, "value"), -3.0, "qubits[0].T1"),
        ("ibm-properties", ("qubits", 0, 1, "name"), "T1", "qubits[0].T1"),
        ("ibm-properties", ("gates", 3, "qubits"), [7], "gates[3].qubits"),
        ("ibm-properties", ("gates", 4, "qubits"), [0], "gates[4].qubits"),
        ("ibm-properties", ("last_update_date",), "noon", "last_update_date"),
        ("qiskit-target", ("operations", 1, "error"), 2, "operations[1].error"),
        ("cunqa", ("Qubits", "q[0]", "T1 (s)"), "x", "Qubits.q[0].T1 (s)"),
        ("qdmi", ("couplings", 0), [0, 0], "couplings[0]"),
        ("qdmi", ("durationUnit", "unit"), "h", "durationUnit.unit"),
        ("iqm", ("observations", 0, "value"), "x", "observations[0].value"),
        (
            "braket",
            ("standardized", "oneQubitProperties", "0", "T1", "unit"),
            "min",
            "oneQubitProperties.0.T1.unit",
        ),
        ("trapped-ion", ("p_meas",), [0.1, 0.2, 0.3], "p_meas"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_place(
    name: str, path: tuple[str | int, ...], value: object, field: str
) -> None:
    files = dict(samples.files()[name])
    file = next(iter(files))
    tree: Any = json.loads(files[file])
    at = tree
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    files[file] = json.dumps(tree).encode()
    assert fails(SnapshotError, "", import_snapshot, files).field == field


@pytest.mark.parametrize(
    ("files", "options", "field"),
    [
        ({}, {}, "files"),
        ({"a.json": b"{}"}, {}, "a.json"),
        ({"a.json": b"{}"}, {"source_format": "abacus"}, "format"),
        ({"a.json": b"[1,"}, {}, "a.json"),
        ({"a.csv": b"\xff\xfe"}, {}, "a.csv"),
        ({"a.csv": b""}, {}, "a.csv"),
        ({"a.csv": b"Qubit,T1 (us),T1  (us)\n0,1,2\n"}, {}, "a.csv: header"),
        ({"a.csv": b"Qubit,T1 (us)\n0,1,2\n"}, {}, "a.csv: row 2"),
        ({"a.csv": b"Qubit,T1 (us)\n0,1\n0,2\n"}, {}, "Qubit"),
        ({"a.csv": b"Qubit,CZ error\n0,1_x:2\n"}, {}, "row 2: CZ error"),
    ],
)
def test_files_of_no_known_form_are_refused_by_name(
    files: dict[str, bytes], options: dict[str, Any], field: str
) -> None:
    assert fails(SnapshotError, "", import_snapshot, files, **options).field == field


@pytest.mark.parametrize("extra", [("z.json", b"[1]"), ("z.json", b"{}"), ("z.csv", b"a,b\n1,2\n")])
@pytest.mark.parametrize("name", sorted(samples.files()))
def test_no_file_of_another_kind_is_skipped(name: str, extra: tuple[str, bytes]) -> None:
    files = {**samples.files()[name], extra[0]: extra[1]}
    fails(SnapshotError, "", import_snapshot, files, source_format=name)


def test_a_noise_model_without_a_device_is_refused_with_the_way_to_use_it() -> None:
    for document in ({"errors": []}, {"kind": "channels"}):
        with pytest.raises(SnapshotError, match="a noise model without a device") as caught:
            import_snapshot({"model.json": samples.encoded(document)})
        assert caught.value.hint.endswith("noise=")


MUTATIONS = 5_000
FORMS = (*sorted(samples.files()), "simenv")
EACH = MUTATIONS // len(FORMS)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "\x00", "\ud800", "\u0661", "1e5", "9" * 500, "a" * 20_000),
    *(0, -1, 1, 2**31, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e-320, 1e308, -1e308),
    *(math.nan, math.inf, -math.inf, [], {}, [[]], [0, 0], {"a": 1}, [None], "2026-13-45"),
)


def forms() -> dict[str, dict[str, bytes]]:
    files = samples.files()
    files["simenv"] = {"snapshot.json": snapshot.dump(library.load("superconducting-lattice"))}
    return files


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in a JSON tree."""
    entries: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        at = stack.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at))
        for key in keys:
            entries.append((at, key))
            if isinstance(at[key], dict | list):
                stack.append(at[key])
    return entries


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def mutated_tree(tree: Any, chance: random.Random) -> tuple[bytes, bool]:
    """JSON with one change; True where the change is a value that no field allows."""
    tree = copy.deepcopy(tree)
    at, key = chance.choice(nodes(tree))
    kind = chance.randrange(8)
    forbidden = False
    if kind <= 2:
        value = chance.choice(VALUES)
        at[key] = value
        forbidden = isinstance(value, float) and not math.isfinite(value)
    elif kind == 3:
        del at[key]
    elif kind == 4 and isinstance(at[key], int | float) and not isinstance(at[key], bool):
        at[key] = at[key] * chance.choice((-1, 1e6, 1e30, 0))
    elif kind == 5:
        at[key] = deep(chance.choice((1, 3, 500)))
    elif kind == 6 and isinstance(at, dict):
        name = chance.choice(("\u2603", "x" * 5_000, "", "\x1b[31m", str(key).upper()))
        at[name] = at.pop(key)
    elif isinstance(at, list):
        at.append(copy.deepcopy(at[key]))
    else:
        other, name = chance.choice(nodes(tree))
        at[key] = copy.deepcopy(other[name])
    return json.dumps(tree).encode(), forbidden


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    """Truncated, overwritten or repeated bytes."""
    kind = chance.randrange(5)
    at = chance.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + chance.choice((b"\xff", b"\x00", b'"', b",", b"NaN", b"-")) + data[at:]
    if kind == 3:
        return data[:at] + data[max(0, at - 20) :]
    return b"[" * 50_000 if chance.random() < 0.1 else data[at:]


def outcome(
    files: dict[str, bytes], form: str
) -> tuple[CalibrationSnapshot, ImportReport] | SnapshotError:
    """Result of an import, or its error."""
    try:
        return import_snapshot(files, form)
    except SnapshotError as error:
        return error


@pytest.mark.parametrize("form", FORMS)
def test_a_mutated_file_gives_an_error_with_its_field_or_a_valid_snapshot(form: str) -> None:
    originals = forms()[form]
    original = import_snapshot(originals, form)
    trees = {name: json.loads(data) for name, data in originals.items() if data[:1] in (b"{", b"[")}
    refused = unchanged = 0
    for seed in range(EACH):
        chance = random.Random(f"{form} {seed}")
        name = chance.choice(sorted(originals))
        forbidden = False
        if name in trees and chance.random() < 0.75:
            data, forbidden = mutated_tree(trees[name], chance)
        else:
            data = mutated_bytes(originals[name], chance)
        result = outcome({**originals, name: data}, form)
        if isinstance(result, SnapshotError):
            assert result.field.isprintable(), seed
            assert result.field, seed
            assert str(result).startswith(result.field), seed
            assert str(result).isprintable(), seed
            assert len(str(result)) < 2_000, seed
            refused += 1
            continue
        value, report = result
        assert snapshot.load(snapshot.dump(value)) == value, seed
        assert {field for field, _ in snapshot.clamps(value)} <= {
            line.field for line in report.clamped
        }, seed
        if forbidden:  # it may stand in a field that nothing reads, which the report then lists
            assert report.ignored, seed
        unchanged += (value, report) == original
    assert refused >= EACH // 4
    assert unchanged < EACH // 2


@pytest.mark.parametrize("text", ["null", "NaN", "Infinity"])
def test_value_of_ibm_that_was_not_measured_is_left_out_with_a_line(text: str) -> None:
    properties = samples.ibm_properties()
    properties["qubits"][0][0]["value"] = "HOLE"
    properties["gates"][9]["parameters"][0]["value"] = "HOLE"
    data = samples.encoded(properties).replace(b'"HOLE"', text.encode())
    value, report = import_snapshot({"props.json": data})
    assert value.qubits[0].t1_us is None
    assert any("not measured" in line.note for line in report.ignored)


def test_time_of_zero_is_not_measured() -> None:
    properties = samples.ibm_properties()
    for entry in properties["qubits"][0]:
        if entry["name"] == "T2":
            entry["value"] = 0.0
    value, _ = import_snapshot({"props.json": samples.encoded(properties)})
    assert value.qubits[0].t2_us is None


def test_json_text_inside_a_json_text_is_read() -> None:
    (name, data), *_ = samples.files()["braket"].items()
    value, _ = import_snapshot({name: json.dumps(data.decode()).encode()})
    assert value.gates == import_snapshot({name: data})[0].gates


@pytest.mark.parametrize(
    "row", ["2,,,,,,,,No", "2,100,90,5.0,0.02,0.02,0.02,700,No"], ids=["empty", "not operational"]
)
def test_csv_row_of_a_dead_qubit_is_no_qubit(row: str) -> None:
    header = (
        "Qubit,T1 (us),T2 (us),Frequency (GHz),Readout assignment error,Prob meas0 prep1,"
        "Prob meas1 prep0,Readout length (ns),Operational,Pauli-X error"
    )
    rows = [f"{q},100,90,5.0,0.02,0.02,0.02,700,Yes,0.001" for q in (0, 1)]
    value, report = import_snapshot({"t.csv": "\n".join([header, *rows, row]).encode()})
    assert value.unusable == (2,)
    assert report.missing[0].note.startswith("2 unusable")


MEASUREMENT = {"gate": "measure_2", "qubits": [0], "name": "measure_20"}
SIGNATURE = {"name": "measure_2", "num_qubits": 1, "num_clbits": 1, "parameters": []}


def ibm(**configuration: object) -> tuple[CalibrationSnapshot, ImportReport]:
    """IBM's sample with a measurement of another name on qubit 0."""
    properties = samples.ibm_properties()
    figures = [("gate_error", "", 0.25), ("gate_length", "us", 1.76)]
    parameters = [{"name": name, "unit": unit, "value": value} for name, unit, value in figures]
    properties["gates"].append({**MEASUREMENT, "parameters": parameters})
    conf = samples.ibm_configuration() | configuration
    return import_snapshot({"p.json": samples.encoded(properties), "c.json": samples.encoded(conf)})


def test_ibm_measurement_of_its_own_name_is_no_gate_and_has_its_error_and_duration() -> None:
    found, report = ibm(instruction_signatures=[SIGNATURE])
    assert found.measurements == (MeasurementCalibration("measure_2", 0, 0.25, 1760.0),)
    assert all(each.name != "measure_2" for each in (*found.native_gates, *found.gates))
    assert snapshot.load(snapshot.dump(found)) == found
    assert notes(report.used)["gates[*].gate_error"]


def test_ibm_signature_lists_a_measurement_that_was_not_measured_and_names_others() -> None:
    fast, other = {**SIGNATURE, "name": "measure_3"}, {"name": "reset_2", "num_qubits": 1}
    found, report = ibm(instruction_signatures=[SIGNATURE, fast, other])
    listed = [(each.name, each.qubit) for each in found.measurements]
    assert listed == [("measure_2", 0), *(("measure_3", qubit) for qubit in range(3))]
    assert "gates.reset_2" in {line.field for line in report.missing}


def test_target_and_qdmi_list_measurements_of_other_names() -> None:
    target = samples.qiskit_target()
    entry = {"name": "measure_2", "gate": False, "num_qubits": 1, "num_params": 0}
    target["operations"].append({**entry, "qubits": [1], "error": 0.1, "duration_s": 1e-6})
    found, _ = import_snapshot({"t.json": samples.encoded(target)})
    assert found.measurements == (MeasurementCalibration("measure_2", 1, 0.1, 1000.0),)
    device = samples.qdmi()
    device["operations"].append({"name": "measure_2", "numQubits": 1, "fidelity": 0.75})
    found, _ = import_snapshot({"d.json": samples.encoded(device)})
    assert {each.qubit for each in found.measurements} == set(range(found.num_qubits))
    assert {each.error for each in found.measurements} == {0.25}


def test_second_error_of_a_measurement_is_refused_by_its_place() -> None:
    properties = samples.ibm_properties()
    value = {"name": "gate_error", "unit": "", "value": 0.1}
    properties["gates"] += [{**MEASUREMENT, "parameters": [value]}] * 2
    fails(SnapshotError, "a second time", import_snapshot, {"p.json": samples.encoded(properties)})


def test_number_that_no_observation_names_is_no_qubit() -> None:
    value = samples.iqm()
    for each in value["observations"]:
        each["dut_field"] = each["dut_field"].replace("QB2", "QB3")
    found, report = import_snapshot({"metrics.json": samples.encoded(value)})
    assert (found.num_qubits, found.unusable) == (3, (1,))
    assert report.missing[0].note == "1 unusable: the source has no data of it"


def test_qubit_without_values_of_its_measurement_is_not_measured() -> None:
    value = samples.iqm()
    value["observations"] = [
        each
        for each in value["observations"]
        if ".QB2." not in each["dut_field"] or "ssro" not in each["dut_field"]
    ]
    found, report = import_snapshot({"metrics.json": samples.encoded(value)})
    assert (found.unusable, found.unmeasured) == ((), (1,))
    assert "1: no measurement" in {line.note for line in report.missing}


def test_ibm_rzz_has_its_limits_of_the_angle() -> None:
    conf = samples.ibm_configuration()
    conf["basis_gates"].append("rzz")
    properties = samples.encoded(samples.ibm_properties())
    found, _ = import_snapshot({"p.json": properties, "c.json": samples.encoded(conf)})
    assert found.angle_bounds == (AngleBounds("rzz", ((0.0, math.pi / 2),)),)


FRACTIONAL = (NativeGate("rx", 1, 1), NativeGate("rzz", 2, 1))


@pytest.mark.parametrize("listed", ["in the basis", "measured", "without a configuration"])
def test_ibm_rx_and_rzz_are_fractional_beside_the_native_gates(listed: str) -> None:
    properties, conf = samples.ibm_properties(), samples.ibm_configuration()
    figures = {"gate_error": (0.004, ""), "gate_length": (68.0, "ns")}
    values = [{"name": k, "value": v, "unit": unit} for k, (v, unit) in figures.items()]
    for name, qubits in (("rx", [1]), ("rzz", [0, 1])):
        properties["gates"].append({"gate": name, "qubits": qubits, "parameters": values})
    if listed == "in the basis":
        conf["basis_gates"] += ["rx", "rzz"]
    files = {"p.json": samples.encoded(properties), "c.json": samples.encoded(conf)}
    if listed == "without a configuration":
        del files["c.json"]
    found, report = import_snapshot(files)
    assert {each.name for each in found.native_gates} == {"rz", "sx", "x", "cz"}
    assert found.fractional_gates == FRACTIONAL
    assert found.angle_bounds == (AngleBounds("rzz", ((0.0, math.pi / 2),)),)
    for entry in (gate(found, "rx", 1), gate(found, "rzz", 0, 1), gate(found, "rzz", 1, 0)):
        assert (entry.error, entry.duration_ns) == (0.004, 68.0)
    assert notes(report.missing)["gates.rx"] == "not on 0, 2"
    assert snapshot.load(snapshot.dump(found)) == found


def test_ibm_gates_without_which_the_others_do_not_make_every_circuit_are_native() -> None:
    table = "Qubit,RX error,RZ error,RZZ error\n0,1e-3,0,1:5e-3\n1,1e-3,0,0:5e-3\n"
    found, _ = import_snapshot({"x.csv": table.encode()})
    assert {each.name for each in found.native_gates} == {"rx", "rz", "rzz"}
    assert found.fractional_gates == ()


def test_fractional_gate_is_no_native_gate_under_its_name() -> None:
    value, _ = imported("ibm-csv")
    changes = {"fractional_gates": (NativeGate("sx", 1),)}
    with pytest.raises(SnapshotError, match="sx"):
        snapshot.check(msgspec.structs.replace(value, **changes))


@pytest.mark.parametrize("fixed", [False, True])
def test_gate_of_a_name_or_angle_of_its_own_is_left_out_with_a_line(fixed: bool) -> None:
    target = samples.qiskit_target()
    name = "rx" if fixed else "rx_half"
    more = {"gate": True, "num_qubits": 1, "num_params": 1, "fixed": fixed, "qubits": [0]}
    target["operations"].append({"name": name, **more})
    found, report = import_snapshot({"t.json": samples.encoded(target)})
    assert name not in {each.name for each in found.native_gates}
    lines = {line.field: line.note for line in report.missing}
    assert lines[f"gates.{name}"].startswith("left out: ")


HOMEMADE = (
    "qubit,t1_us,t2_us,readout_error,sx_error,cz_error\n"
    "0,120,80,0.01,0.0003,1:0.006\n1,110,90,0.012,0.0004,0:0.006\n"
)
COLUMNS = [column.strip() for column in samples.IBM_CSV.splitlines()[0].split(",")]


def renamed(column: str, name: str) -> dict[str, bytes]:
    """IBM's table with one renamed column."""
    header, rest = samples.IBM_CSV.split("\n", 1)
    names = [name if each.strip() == column else each for each in header.split(",")]
    return {"table.csv": "\n".join((",".join(names), rest)).encode()}


@pytest.mark.parametrize("column", [each for each in COLUMNS if each != "Qubit"])
@pytest.mark.parametrize("name", ["{} (new)", "Kennzahl"])
def test_table_with_one_renamed_column_is_refused_by_name(column: str, name: str) -> None:
    files = renamed(column, name.format(column))
    error = fails(SnapshotError, "looks? like noise", import_snapshot, files)
    assert name.format(column.split("\u221a")[-1]) in error.message
    assert "allow_ignored=True" in error.hint


def test_name_of_the_column_that_was_meant_is_in_the_error() -> None:
    files = renamed("Readout assignment error", "Readout error")
    fails(SnapshotError, "'Readout assignment error' is a column", import_snapshot, files)


@pytest.mark.parametrize("name", ["Readout err", "Readout assignment eror", "Kennzahl"])
@pytest.mark.parametrize("cell", ["1.2%", '"0,012"', "0.01 \u00b1 0.002", "(1) 0.01", "1->0.01"])
def test_values_in_another_notation_are_refused_by_the_name_of_their_column(
    name: str, cell: str
) -> None:
    table = f"Qubit,T1 (us),{name}\n0,100,{cell}\n1,90,{cell}\n"
    fails(
        SnapshotError,
        f"column {name}.*looks like noise",
        import_snapshot,
        {"t.csv": table.encode()},
    )


def test_accepted_loss_is_in_the_report_and_in_the_snapshot() -> None:
    value, report = import_snapshot(renamed("T2 (us)", "Echo"), allow_ignored=True)
    assert value.unread == ("column Echo",)
    assert [line.field for line in report.unread] == ["column Echo"]
    assert {line.field for line in report.missing} >= {"T2"}
    assert snapshot.load(snapshot.dump(value)) == value


def test_table_without_columns_of_ibm_has_no_format() -> None:
    files = {"home.csv": HOMEMADE.encode()}
    error = fails(SnapshotError, "none of the columns t1_us", import_snapshot, files)
    assert "devices new" in error.hint
    fails(SnapshotError, "column t1_us.*column cz_error", import_snapshot, files, "ibm-csv")


def test_column_of_text_and_an_empty_column_are_no_noise() -> None:
    for old, new in (("0,100.5", "0,a b"), ("0,100.5", "0,")):
        table = samples.IBM_CSV.replace("T1 (us)", "Remark").replace(old, new)
        rows = table.replace("1,50,", f"1,{new[2:]},").replace("2,90,", f"2,{new[2:]},")
        assert import_snapshot({"t.csv": rows.encode()})[0].unread == ()


def test_measurements_with_names_of_their_own_are_read_from_a_table() -> None:
    table = samples.IBM_CSV.replace("MEASURE error", "MEASURE_2 error")
    value, _ = import_snapshot({"t.csv": table.encode()})
    assert [(each.name, each.qubit, each.error) for each in value.measurements][:2] == [
        ("measure_2", 0, 0.02),
        ("measure_2", 1, 0.04),
    ]


def test_error_of_measure_replaces_a_readout_error_that_is_not_there() -> None:
    table = samples.IBM_CSV.replace("0,100.5,80.25,5.1,0.02,", "0,100.5,80.25,5.1,,")
    value, _ = import_snapshot({"t.csv": table.encode()})
    assert value.qubits[0].readout_error == 0.02


def _in_braket(document: Any) -> None:
    document["standardized"]["singleQubitFidelity"] = 0.99


def _in_iqm(document: Any) -> None:
    document["observations"].append({"dut_field": "lab.ssro.QB1.readout_error", "value": 0.1})


EXTRA: dict[str, Callable[[Any], object]] = {
    "ibm-properties": lambda value: value["qubits"][0].append(
        {"name": "T1_echo", "unit": "us", "value": 50.0}
    ),
    "qiskit-target": lambda value: value["qubits"][0].update(t1_us=80.0),
    "cunqa": lambda value: value["Qubits"]["q[0]"].update({"T1 (us)": 80.0}),
    "qhw": lambda value: value["extensions"]["vendor"]["qubit_metrics"][0].update(t1_us=80.0),
    "qdmi": lambda value: value["qubitProperties"]["overrides"][0].update(readoutError=0.1),
    "iqm": _in_iqm,
    "braket": _in_braket,
    "ionq": lambda value: value["fidelity"].update({"3q": {"mean": 0.9}}),
    "trapped-ion": lambda value: value.update(p_leakage=0.01),
}


@pytest.mark.parametrize("form", sorted(EXTRA))
def test_noise_that_a_format_does_not_have_is_refused_by_name(form: str) -> None:
    import json

    name, body = next(iter(samples.files()[form].items()))
    if form == "ibm-properties":
        name, body = "props_sample.json", samples.files()[form]["props_sample.json"]
    document = json.loads(body)
    EXTRA[form](document)
    files = {**samples.files()[form], name: samples.encoded(document)}
    error = fails(SnapshotError, "looks like noise", import_snapshot, files)
    value, report = import_snapshot(files, allow_ignored=True)
    assert report.unread[0].field in error.message
    assert value.unread == (report.unread[0].field,)


def test_ionq_characterization_has_the_values_of_all_ions() -> None:
    value, report = import_snapshot(samples.files()["ionq"])
    assert (value.num_qubits, value.all_to_all, value.coupling) == (3, True, ())
    assert (value.name, value.provider, value.calibrated) == ("qpu.aria-1", "IonQ", samples.WHEN)
    assert [gate.name for gate in value.native_gates] == ["rz", "r", "rxx"]
    assert [(gate.name, gate.qubits, gate.error, gate.duration_ns) for gate in value.gates] == [
        ("rz", (), 0.0, 0.0),
        ("r", (), 0.0002, pytest.approx(135_000.0)),
        ("rxx", (), 0.01, pytest.approx(600_000.0)),
    ]
    qubit = value.qubits[2]
    assert (qubit.t1_us, qubit.t2_us, qubit.readout_error) == (1e8, 1e6, 0.0063)
    assert (qubit.readout_ns, qubit.reset_ns) == (pytest.approx(3e5), pytest.approx(2e4))
    assert report.missing == ()


def test_ionq_pairs_that_are_not_all_are_the_couplings() -> None:
    document = {**samples.ionq(), "connectivity": [[0, 1], [1, 2]], "date": 1_750_000_000}
    value, _ = import_snapshot({"c.json": samples.encoded(document)})
    assert (value.all_to_all, set(value.coupling)) == (False, {(0, 1), (1, 0), (1, 2), (2, 1)})
    assert {gate.qubits for gate in value.gates if gate.name == "rxx"} == set(value.coupling)
    assert value.calibrated.startswith("2025-06-15")


def test_ionq_properties_of_braket_are_read_alone_and_in_the_capabilities() -> None:
    document = samples.braket_ionq()
    value, report = import_snapshot({"device.json": samples.encoded(document)})
    assert (value.source_format, value.num_qubits, value.max_shots) == ("ionq", 25, 5000)
    errors = {gate.name: gate.error for gate in value.gates}
    assert errors == {"rz": 0.0, "r": pytest.approx(0.00283), "rxx": pytest.approx(0.0304)}
    assert value.qubits[0].t2_us == 500_000.0  # the schema's own example is in microseconds
    assert {line.field for line in report.clamped} == {"provider.timing.T1", "provider.timing.T2"}
    alone = {**document["provider"], "qubits": 11}
    assert import_snapshot({"p.json": samples.encoded(alone)})[0].num_qubits == 11
    fails(
        SnapshotError,
        "no machine of a known size",
        import_snapshot,
        {"p.json": samples.encoded(document["provider"])},
    )


def _timed(**values: float) -> dict[str, bytes]:
    document = samples.ionq()
    document["timing"].update(values)
    return {"c.json": samples.encoded(document)}


@pytest.mark.parametrize("times", [{"t1": 5e4, "t2": 2e4}, {"t2": 500}, {"t1": 1e5}])
def test_ionq_coherence_times_whose_unit_cannot_be_known_are_refused(
    times: dict[str, float],
) -> None:
    fails(SnapshotError, "implausible in seconds", import_snapshot, _timed(**times))


def test_ionq_coherence_times_have_one_unit() -> None:
    value, report = import_snapshot(_timed(t1=1e10, t2=50_000))
    assert (value.qubits[0].t1_us, value.qubits[0].t2_us) == (1e10, 50_000.0)
    assert {line.field for line in report.clamped} == {"timing.t1", "timing.t2"}


@pytest.mark.parametrize(("key", "value"), [("1q", 135), ("2q", 600), ("readout", 300)])
def test_ionq_duration_in_another_unit_is_refused_by_name(key: str, value: float) -> None:
    fails(SnapshotError, f"timing.{key}.*implausible", import_snapshot, _timed(**{key: value}))
