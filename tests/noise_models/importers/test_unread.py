"""Fields that look like noise and that a format does not have: refused by name, or accepted."""

from collections.abc import Callable
from typing import Any

import calibration_samples as samples
import pytest
from failing import fails

from noise_models import snapshot
from noise_models.importers import import_snapshot
from noise_models.strict_json import SnapshotError

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
        value, report = import_snapshot({"t.csv": rows.encode()})
        assert "column Remark" in {line.field for line in report.ignored} | {"column Remark"}
        assert value.unread == ()


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
