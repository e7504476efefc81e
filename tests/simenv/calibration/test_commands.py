"""`simenv calibrate` and `simenv score` in this process, and plots of scores."""

import importlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noise_models import library, snapshot as snapshots
from noise_models.calibration import FitScope
from simenv.calibration import data, device_files
from simenv.calibration.accept import below
from simenv.calibration.fit.identify import (
    EFFECTIVE,
    HEADER,
    NOT_IDENTIFIED,
    ParameterEstimate,
    cells,
)
from simenv.calibration.score import IdealDistributions, Predictor, Score, ScoreRow, score
from simenv.cli.app import run
from simenv.cli.devices import details, overview
from simenv.errors import StoreError
from testbed.drawn_devices import random_counts


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("SIMENV_HOME", str(folder))
    return folder


def counts_file(folder: Path) -> Path:
    rows = []
    for number, row in enumerate(random_counts(16, 2)[0].records):
        counts = {format(outcome, "02b"): count for outcome, count in row.counts.items()}
        split = "test" if number % 5 == 0 else "train"
        rows.append(data.row(row.source.text, counts, name=row.name, body=str(number), split=split))
    path = folder / "counts.jsonl"
    data.write(path, rows, "lima")
    return path


def test_fit_is_stored(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(counts_file(tmp_path))
    program = tmp_path / "probes.py"
    command = ["calibrate", data, "--device", "lima", "--out", "mine", "--suggest", str(program)]
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    named = {each["name"]: each for each in document["parameters"]}
    assert named["p01 0"]["unit"] == ""
    assert not named["T1 0"]["identified"]  # circuits of microseconds
    suggested = document["suggested"]
    assert "T1 0" in suggested["identified"]
    assert program.read_text().count('"qasm"') == suggested["circuits"] + 2
    device = snapshots.load((home / "devices" / "mine.json").read_bytes())
    assert (document["digest"], document["circuits"]) == (device.digest.hex(), 12)
    assert document["scope"]["qubits"] == [0, 1]
    assert device.fitted is not None
    assert (home / "devices" / "mine.h5").is_file()
    zz = "gate.zz_strength=0.5"
    command = ["score", data, "--device", "lima", "--device", "mine", "--json"]
    assert run([*command, "--noise", "gate.nothing=1"]) == 2
    assert "gate.nothing" in capsys.readouterr().err
    assert run([*command, "--noise", zz]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    median = {row["model"]: row["hf"]["median"]["value"] for row in rows if row["part"] == "test"}
    assert median["mine"] > median["lima"]
    assert median["mine"] > max(median["lima, aer"], median["lima, aer-properties"])
    assert {f"lima, {zz}", f"mine, {zz}"} <= median.keys()
    assert "mine, aer" not in median  # Aer's recipe is that of the calibration
    assert median["mine"] > median["ceiling"] - 0.003


def test_a_device_below_the_recipe_of_aer_is_named() -> None:
    def row(mine: float, aer: float, *, is_test: bool) -> ScoreRow:
        hf = {"mine": mine, "aer": aer}
        return ScoreRow("", str(mine), is_test, 0.0, 1, 1, 1, 0, 0, "exact", hf, {}, {}, {}, {}, {})

    lower = [row(0.9 - 0.001 * k, 0.91, is_test=True) for k in range(8)]
    unclear = [row(0.9 + 0.01 * k, 0.95, is_test=False) for k in range(8)]
    result = Score(("mine", "aer"), (*lower, *unclear), {}, 0)
    (text,) = below(result, "mine", "aer")
    assert text.startswith("mine is below aer: test mean by -0.01350 [")


def test_bad_data_are_kept(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"kind": "simenv-counts", "format": 1}\n{"qasm": "", "counts": {}}\n')
    assert run(["calibrate", str(path), "--device", "lima", "--out", "mine"]) == 2
    assert f"{path}:2: qasm" in capsys.readouterr().err
    assert not (home / "devices").exists()
    assert run(["calibrate", str(path), "--device", "lima", "--out", "lima"]) == 2


@pytest.mark.parametrize("option", ["--suggest", "--report"])
def test_a_folder_that_is_missing_is_named_before_the_fit(
    option: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if option == "--report":
        pytest.importorskip("matplotlib")
    path = tmp_path / "none" / "a.py"
    command = ["calibrate", str(counts_file(tmp_path)), "--device", "lima", "--out", "mine"]
    assert run([*command, option, str(path)]) == 2
    assert f"{option} {path}: the folder {path.parent} does not exist" in capsys.readouterr().err
    assert not (home / "devices").exists()


def test_control_characters_of_a_file_are_escaped(tmp_path: Path) -> None:
    red = "x\x1b[31m"
    path = counts_file(tmp_path)
    header, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"name": red, "body": red} for row in rows]
    lines = [json.dumps(each) for each in (header | {"device": red}, *rows)]
    path.write_text("\n".join(lines))
    read = data.read(path)
    texts = {read.device, *(each.name for each in read.records), *(e.body for e in read.records)}
    assert texts == {"x\\x1b[31m"}


def test_a_device_that_is_replaced_or_removed_leaves_no_fit(home: Path) -> None:
    folder = home / "devices"
    data = snapshots.dump(library.load("lima"))

    def with_fit() -> None:
        overview.save("mine", data)
        (folder / "mine").mkdir()
        (folder / "mine" / "2024-03-01.json").write_bytes(data)
        (folder / "mine.h5").write_bytes(b"")

    with_fit()
    overview.save("mine", data)
    assert [path.name for path in folder.iterdir()] == ["mine.json"]
    with_fit()
    device_files.remove("mine")
    assert not list(folder.iterdir())


def test_failed_write_keeps(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(counts_file(tmp_path))
    before = snapshots.dump(library.load("belem"))
    overview.save("mine", before)
    (home / "devices" / "mine.h5").write_bytes(b"earlier")

    def full(*_: object, **__: object) -> None:
        raise StoreError("mine.h5: No space left on device")

    monkeypatch.setattr("simenv.calibration.fit.calibrate.save", full)
    assert run(["calibrate", data, "--device", "lima", "--out", "mine"]) != 0
    assert (home / "devices" / "mine.json").read_bytes() == before
    assert (home / "devices" / "mine.h5").read_bytes() == b"earlier"
    assert len(list((home / "devices").iterdir())) == 2


@pytest.fixture
def report() -> Any:
    pytest.importorskip("matplotlib")
    return importlib.import_module("simenv.calibration.report")


def test_comparison_limits(report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, snapshot = random_counts(2, 2)
    result = score(counts, {"chip": Predictor(snapshot)}, IdealDistributions())
    axes = []

    def keep(figure: object, *_: object, **__: object) -> None:
        axes.extend(figure.axes)  # type: ignore[attr-defined]

    monkeypatch.setattr(report.Figure, "savefig", keep)
    report.comparison("chip", result, tmp_path / "chip.png")
    labels = {text.get_text() for text in axes[0].get_yticklabels()}
    assert (labels, axes[0].get_xscale()) == ({"chip", "uniform", "ideal", "ceiling"}, "log")


def test_one_circuit_is_drawn(report: Any, tmp_path: Path) -> None:
    counts, snapshot = random_counts(1, 2)
    result = score(counts, {"chip": Predictor(snapshot)}, IdealDistributions())
    paths = report.draw("a chip", result, tmp_path)
    assert [path.name for path in paths] == [
        f"a-chip-{name}.png" for name in ("comparison", "parity", "volumetric")
    ]


@pytest.mark.parametrize(
    ("days", "labelled"),
    [
        ([1.0], [1.0]),
        ([1.0, 11.0, 21.0], [1.0, 11.0, 21.0]),
        ([0.0, 1.0, 70.0], [0.0, 70.0]),
        ([float(day) for day in range(71)], [10.0 * k for k in range(8)]),
    ],
)
def test_days_do_not_overlap(report: Any, days: list[float], labelled: list[float]) -> None:
    assert report._spread(days) == labelled


def test_a_page_has_the_table_of_values(report: Any, tmp_path: Path) -> None:
    found = ParameterEstimate(
        name="T1 3", kind="T1", qubits=(3,), gate="", unit="us", calibrated=100.0, fitted=90.0,
        low=12.5, high=None, identified=False, mark=NOT_IDENTIFIED,
    )  # fmt: skip
    page = tmp_path / "page.html"
    tables = [("Values", HEADER, cells([found]))]
    report.write(page, "mine, fitted from lima", (), [EFFECTIVE], tables=tables)
    text = page.read_text()
    row = "<td>3</td><td>T1 us</td><td>100</td><td>90</td><td>&gt; 12.5</td><td>not identified</td>"
    assert row in text
    assert "<th>95 % interval</th>" in text
    assert "simenv certify" in text


def test_a_fitted_device_says_what_it_was_fitted_to(capsys: pytest.CaptureFixture[str]) -> None:
    lima = library.load("lima")
    scope = FitScope("lima", (0, 2), 7, 3, 4, first="2024-03-01", last="2024-03-04")
    fitted = msgspec.structs.replace(lima, fitted=scope, outside=lima, source_format="counts")
    text = (
        "lima, to 7 different circuits; measured 2024-03-01 to 2024-03-04; qubits 0, 2; in force"
        " for circuits of at most 3 qubits, 6 gates on two qubits; others have the calibration"
        " before"
    )
    assert details.as_object("mine", fitted, "imported", None)["fit"] == text
    details.show("mine", fitted, "imported")
    assert f"fitted from {text}" in " ".join(capsys.readouterr().out.split())
    kept = msgspec.structs.replace(lima, source_format="counts")
    assert "the calibration is kept" in details.as_object("mine", kept, "imported", None)["fit"]
    assert details.as_object("lima", lima, "bundled", None)["fit"] == ""
