"""Files of measured counts: what is read, and what is refused with file, line and field."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from failing import fails
from qiskit import qasm2

from noise_models import library
from simenv.calibration import accept, data
from simenv.calibration.data import MAX_ERRORS, MAX_ROWS, DataError, dates_before, read
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.score import with_repeats
from simenv.cli.app import run
from simenv.client.circuits import to_qiskit

BELL = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[2]; creg c[2];
h q[0]; cx q[0],q[1]; measure q -> c;
"""
WIDE = BELL.replace("q[2]", "q[9]").replace(
    "measure q -> c", "measure q[0] -> c[0]; measure q[1] -> c[1]"
)
HEADER = {"kind": "simenv-counts", "format": 1, "device": "lima"}


def written(folder: Path, *rows: Any, header: Any = HEADER) -> Path:
    path = folder / "counts.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def row(**changes: Any) -> dict[str, Any]:
    return {"qasm": BELL, "counts": {"00": 5, "11": 4}, **changes}


def test_rows_with_all_fields_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        row(date="2024-03-01T10:00:00Z", layout=[3, 1], name="bell", job="j1", split="test"),
        row(counts={"0x3": 2, "0x0": 1}, level=3, body="mine", extra=1),
    )
    data = read(path)
    first, second = data.records
    assert (data.device, len(data.digest), first.counts) == ("lima", 64, {0: 5, 3: 4})
    assert (first.shots, first.layout, first.name, first.job) == (9, (3, 1), "bell", "j1")
    assert first.is_test
    assert first.time_s == 1709287200.0
    assert (second.counts, second.level, second.body) == ({3: 2, 0: 1}, 3, "mine")
    assert second.source is first.source
    assert data.warnings == (("field 'extra' is not used", 1),)
    assert dates_before(data, "2024-03-02T00:00:00Z") == 1


def test_rows_of_several_devices_are_refused(tmp_path: Path) -> None:
    assert read(written(tmp_path, row(device="lima"), row())).device == "lima"
    other = written(tmp_path, row(), row(device="belem"))
    error = fails(DataError, "several devices: 'lima' .*'belem'", read, other)
    assert error.hint == "one file for each device"


def test_warnings_of_unknown_fields_are_bounded(tmp_path: Path) -> None:
    many = row(**{f"field{k}": 1 for k in range(5_000)})
    warnings = dict(read(written(tmp_path, many)).warnings)
    assert len(warnings) == data.MOST_IGNORED + 1
    assert "4,980 more fields are not used" in warnings


def test_an_object_with_a_list_of_circuits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    rows = [row(datetime="2021-02-14 13:06:47+01:00", optimization_level=2)]
    path.write_text(json.dumps({"device": "ibmq_lima", "circuits": rows}, indent=1))
    data = read(path)
    assert (data.device, data.records[0].level) == ("ibmq_lima", 2)
    assert data.records[0].time_s == 1613304407.0


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"counts": None}, "counts", "is missing"),
        ({"counts": {"000": 3}}, "counts", "is not 2 bits wide"),
        ({"counts": {"0x7": 3}}, "counts", "is not 2 bits wide"),
        ({"counts": {"0a": 3}}, "counts", "no bit string"),
        ({"counts": {"+1": 3}}, "counts", "no bit string"),
        ({"counts": {"": 3}}, "counts", "no bit string"),
        ({"counts": {"0x_1": 3}}, "counts", "no bit string"),
        ({"counts": {"00": -3}}, "counts", "-3"),
        ({"counts": {"00": 1.5}}, "counts", "1.5"),
        ({"counts": {"00": 2**53 + 1}}, "counts", "9007199254740993"),
        ({"shots": 10}, "shots", "add up to 9"),
        ({"counts": {"00": 1}, "shots": True}, "shots", "True"),
        ({"name": "n" * 10**6}, "name", "1,000,000 characters"),
        ({"body": "b" * 1_001}, "body", "1,001 characters"),
        ({"body": True}, "body", "True"),
        ({"device": ["lima"]}, "device", "lima"),
        ({"qasm": ""}, "qasm", "is missing"),
        ({"qasm": "OPENQASM 2.0; qreg q[1]; nonsense q[0];"}, "qasm", "nonsense"),
        ({"qasm": "OPENQASM 2.0; qreg q[1];"}, "qasm", "measures nothing"),
        ({"layout": [1]}, "layout", "each of 2 qubits"),
        ({"layout": [1, 1]}, "layout", "each of 2 qubits"),
        ({"date": "yesterday"}, "date", "yesterday"),
        ({"split": "dev"}, "split", "train or test"),
        ({"level": 7}, "level", "0, 1, 2 or 3"),
        ({"name": 3}, "name", "a text"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changes: dict[str, Any], field: str, text: str) -> None:
    path = written(tmp_path, row(), row(**changes))
    error = fails(DataError, "", read, path)
    assert str(error.message).startswith(f"{path}:3: {field}")
    assert text in f"{error.message} {error.hint}"


def test_all_wrong_rows_are_named_with_line_and_field(tmp_path: Path) -> None:
    path = written(tmp_path, row(counts=None), row(), "{oops", row(layout=[1]), "3")
    error = fails(DataError, "", read, path)
    lines = str(error.message).splitlines()
    expected = [f"{path}:2: counts", f"{path}:4: no JSON", f"{path}:5: layout", f"{path}:6: is not"]
    assert [line[: len(text)] for line, text in zip(lines, expected, strict=True)] == expected
    many = written(tmp_path, *[row(shots=-1) for _ in range(100)])
    error = fails(DataError, "", read, many)
    lines = str(error.message).splitlines()
    assert len(lines) == MAX_ERRORS + 1
    assert f"{many}:21: shots" in lines[-2]
    assert "more wrong rows follow" in lines[-1]


def test_odd_line_ends_are_read_and_compressed_files_refused(tmp_path: Path) -> None:
    path = written(tmp_path, row(), "", row())
    path.write_bytes(b"\xef\xbb\xbf\r\n" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read(path).records) == 2
    document = tmp_path / "counts.json"
    document.write_bytes(b"\xef\xbb\xbf" + json.dumps({"circuits": [row()]}).encode())
    assert len(read(document).records) == 1
    path = tmp_path / "counts.jsonl.gz"
    path.write_bytes(gzip.compress(written(tmp_path, row()).read_bytes()))
    assert fails(DataError, "is compressed", read, path).hint == "type: gunzip counts.jsonl.gz"
    data = read(written(tmp_path, row(), row(counts={}), row(counts={"00": 0})))
    assert (len(data.records), data.warnings) == (1, (("rows without shots are left out", 2),))
    fails(DataError, "no row with shots", read, written(tmp_path, row(counts={})))


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"kind": "simenv-counts", "format": 9}, "format"),
        ({"kind": "other"}, "kind"),
        ("{", "no JSON"),
        ([], "circuits"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, header: Any, text: str) -> None:
    fails(DataError, text, read, written(tmp_path, header=header))


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simenv.calibration.data.MAX_ROWS", 3)
    fails(DataError, r"counts.jsonl:5: more than 3 rows", read, written(tmp_path, *[row()] * 4))


def test_circuits_that_differ_in_their_last_rotations_have_one_body(tmp_path: Path) -> None:
    rotated = BELL.replace("measure", "h q[0]; sdg q[1]; h q[1]; measure")
    other = BELL.replace("h q[0];", "x q[0];")
    data = read(written(tmp_path, row(), row(qasm=rotated), row(qasm=other)))
    first, second, third = (each.body for each in data.records)
    assert first == second
    assert third != first


def test_preparations_without_entangling_gates_have_bodies_of_their_own(tmp_path: Path) -> None:
    """Circuits that measure readout errors are no twirled copies either."""
    states = ["", "x q[0];", "x q[1];", "x q[0]; x q[1];"]
    qasm = [BELL.replace("h q[0]; cx q[0],q[1];", each) for each in states]
    twirled = BELL.replace("h q[0];", "h q[0]; x q[0];").replace("measure", "x q[0]; measure")
    data = read(written(tmp_path, *(row(qasm=each) for each in (*qasm, BELL, twirled))))
    assert len({each.body for each in data.records}) == 6
    assert data.warnings == ()


def test_a_circuit_whose_texts_differ_by_comments_and_names_is_one_circuit(tmp_path: Path) -> None:
    named = BELL.replace("c[2]", "meas[2]").replace("-> c", "-> meas")
    texts = [BELL, f"{BELL}// run 2", f"// run 3\n{BELL}", BELL.replace("; ", ";  "), named]
    data = read(written(tmp_path, *(row(qasm=each) for each in texts)))
    assert len({id(each.source) for each in data.records}) == 1
    circuits = accept.held_out_circuits(data.records, [0] * 5, {})
    assert [(each.runs, each.record.shots) for each in circuits] == [(5, 45)]
    assert all(other is not None for _, other in with_repeats(data.records))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator

    circuit = QuantumCircuit(2, 2, name="bell")
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    result = AerSimulator(seed_simulator=1).run([circuit], shots=100).result()
    rows = data.rows_from_qiskit([circuit], result, date="2024-01-01", job="j")
    path = tmp_path / "made.jsonl"
    assert data.write(path, rows, "lima") == 1
    assert data.write(str(path), rows, "lima") == 1
    record = data.read(str(path)).records[0]
    assert (record.shots, set(record.counts), record.name, record.job) == (100, {0, 3}, "bell", "j")


def test_counts_of_clbits_that_are_never_written_are_refused(tmp_path: Path) -> None:
    text = BELL.replace("creg c[2]", "creg c[3]").replace("q -> c", "q[0] -> c[2]")
    assert read(written(tmp_path, row(qasm=text, counts={"100": 1}))).records[0].counts == {4: 1}
    with pytest.raises(DataError, match=r"counts.jsonl:2: counts\['001'\]: is 1 at clbit 0"):
        read(written(tmp_path, row(qasm=text, counts={"100": 1, "001": 1})))


@pytest.mark.parametrize("name", ["kyiv", "fez"])
def test_a_compiled_circuit_that_is_written_keeps_its_qubits(name: str, tmp_path: Path) -> None:
    """OpenQASM has no `ecr`: Qiskit writes a definition. It is still the device's native gate."""
    compiler = DeviceCompiler(library.load(name))
    first, second = compiler.snapshot.coupling[20]
    compiled = compiler.run_of(read(written(tmp_path, row(layout=[first, second]))).records[0])
    circuit = to_qiskit(compiled.loaded.program)
    assert "global_phase" in circuit.count_ops()
    plain = circuit.copy_empty_like()
    plain.data = [each for each in circuit.data if each.operation.name != "global_phase"]
    for text in (data.qasm_of(circuit), qasm2.dumps(plain)):
        run_again = compiler.run_of(read(written(tmp_path, row(qasm=text))).records[0])
        assert not run_again.was_placed
        assert set(run_again.circuit.qubits.tolist()) == {first, second}


def test_nothing_is_written_after_an_error(tmp_path: Path) -> None:
    def rows() -> Any:
        yield row()
        raise KeyError("gone")

    fails(KeyError, "", data.write, tmp_path / "counts.jsonl", rows())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_wrong_row_of_a_million_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row MAX_ROWS is wrong: file, line and field. A row more than that is refused as well."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("SIMENV_HOME", str(home))
    path = tmp_path / "million.jsonl"
    good = json.dumps(row()) + "\n"
    with path.open("w") as file:
        file.write(json.dumps(HEADER) + "\n")
        for _ in range(MAX_ROWS - 1):
            file.write(good)
        file.write(json.dumps(row(counts={"00": 5, "111": 4})) + "\n")
    assert run(["calibrate", str(path), "--device", "lima", "--out", "mine"]) == 2
    assert f"{path}:{MAX_ROWS + 1}: counts['111']: is not 2 bits wide" in capsys.readouterr().err
    assert not (home / "devices").exists()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], good, good]))
    fails(DataError, r"1000002: more than 1,000,000 rows", read, path)


@pytest.mark.parametrize(
    ("changes", "problem"), [({"qasm": WIDE}, "9 qubits"), ({"layout": [0, 9]}, "qubit_mapping")]
)
def test_circuit_not_run_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = written(tmp_path, row(), row(**changes))
    compiler = DeviceCompiler(library.load("lima"))
    with pytest.raises(DataError, match=problem) as caught:
        [compiler.run_of(record) for record in read(path).records]
    assert caught.value.message.startswith(f"{path}:3: circuit ")


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "counts.jsonl"
    path.write_text("\n")
    fails(DataError, f"{path}: is empty", read, path)


def test_one_circuit_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, row(date="2999-01-01T00:00:00Z"), row())
    assert run(["score", str(path), "--device", "lima", "--json"]) == 0
    shown = capsys.readouterr()
    assert "rows are dated in the future (1 row)" in shown.err
    median = json.loads(shown.out.splitlines()[0])["hf"]["median"]
    assert median["value"] > 0.9
    assert (median["low"], median["high"]) == (None, None)
    assert run(["score", str(path), "--device", "lima"]) == 0
    assert "[" not in capsys.readouterr().out


def test_tables_of_scores_are_at_most_80_columns_wide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = BELL.replace("h q[0];", "h q[0]; x q[1];")
    path = written(tmp_path, row(), row(qasm=other, counts={"01": 5, "10": 4}))
    assert run(["score", str(path), "--device", "lima"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    headers = [each for each in lines if each.startswith("PART")]
    assert all(any(name in each for each in headers) for name in ("MEDIAN HF", "TVD", "KL"))
    assert any("[" in each for each in lines)
