"""`simenv calibrate` and `simenv score` in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.calibration_data import random_counts
from noise_models import snapshot as snapshots
from simenv.calibration.data import writer
from simenv.cli.app import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("SIMENV_HOME", str(folder))
    return folder


def counts_file(folder: Path) -> Path:
    rows = []
    for number, record in enumerate(random_counts(10, 2)[0].records):
        counts = {format(outcome, "02b"): count for outcome, count in record.counts.items()}
        split = "test" if number % 5 == 0 else "train"
        rows.append(
            writer.row(record.source.text, counts, name=record.name, body=str(number), split=split)
        )
    path = folder / "counts.jsonl"
    writer.write(path, rows, "lima")
    return path


def test_a_fitted_device_is_stored_and_scored(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(counts_file(tmp_path))
    assert run(["calibrate", data, "--device", "lima", "--out", "mine", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    stored = snapshots.load((home / "devices" / "mine.json").read_bytes())
    assert document["digest"] == stored.digest.hex()
    assert document["circuits"] == 8
    assert (home / "devices" / "mine.h5").is_file()
    assert run(["score", data, "--device", "lima", "--device", "mine", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    median = {row["model"]: row["hf"]["median"]["value"] for row in rows if row["part"] == "test"}
    assert median["mine"] > median["lima"]
    assert median["mine"] > median["ceiling"] - 0.003


def test_wrong_data_leave_no_device(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"kind": "simenv-counts", "format": 1}\n{"qasm": "", "counts": {}}\n')
    assert run(["calibrate", str(path), "--device", "lima", "--out", "mine"]) == 2
    assert f"{path}:2: qasm" in capsys.readouterr().err
    assert not (home / "devices").exists()
    assert run(["calibrate", str(path), "--device", "lima", "--out", "lima"]) == 2
