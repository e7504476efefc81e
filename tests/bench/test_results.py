"""Result files: written by a run, compared with one another, refused where they are damaged."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import __main__ as command
from bench import record
from bench.figures import goals
from bench.harness import results
from bench.harness.report import Figure

LATENCY = Figure("latency", "accepted_p50_ms", "p50, ms", 0.5, 0.6)
RATE = Figure("throughput", "circuits_4", "circuits a second", 20_000.0, 30_000.0, at_least=True)
UNMEASURED = Figure("small", "of_aer", "of Aer", None, 0.02)


def test_goal_is_met_only_by_measured_value_on_required_side_of_limit() -> None:
    assert LATENCY.met
    assert not RATE.met
    assert not UNMEASURED.met


def test_appended_figures_are_read_back_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results.append(file, [LATENCY], quick=False)
    results.append(file, [RATE, UNMEASURED], quick=True)
    read = results.read(file)
    assert [(r.benchmark, r.key, r.value, r.goal, r.met) for r in read] == [
        ("latency", "accepted_p50_ms", 0.5, 0.6, True),
        ("throughput", "circuits_4", 20_000.0, 30_000.0, False),
        ("small", "of_aer", None, 0.02, False),
    ]
    assert [r.quick for r in read] == [False, True, True]
    assert all(r.machine and r.cores and r.format == results.FORMAT for r in read)


def test_comparison_gives_ratios_of_the_newest_figures_in_both_files(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    results.append(before, [LATENCY, UNMEASURED], quick=False)
    slower = msgspec.structs.replace(LATENCY, value=1.0)
    results.append(after, [LATENCY, slower, RATE], quick=False)
    _, line, rest = results.compare(results.read(before), results.read(after))
    assert line.split()[:3] == ["0.5", "1", "2.000"]
    assert line.endswith("latency: p50, ms")
    assert rest == "2 figures are in one of the files only"


@pytest.mark.parametrize("text", [b"{}", b"no JSON", b'[{"format": 1}]'])
def test_file_without_results_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(text)
    with pytest.raises(SystemExit, match=r"other\.json is no result file"):
        results.read(file)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results.append(file, [LATENCY], quick=False)
    file.write_bytes(file.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(SystemExit, match="has format 2; this version reads 1"):
        results.read(file)


def test_recorded_runs_cover_every_goal_and_can_be_replaced() -> None:
    runs = record.planned(goals(), [["qfw_host", "--qfw", "a"], ["qfw_host", "--qfw", "b"]])
    assert set(runs) == set(goals())
    assert runs["latency_tcp"] == [["latency", "--tcp"]]
    assert runs["qfw_host"] == [["qfw_host", "--qfw", "a"], ["qfw_host", "--qfw", "b"]]
    assert next(iter(runs)) == "throughput"
    with pytest.raises(SystemExit, match="nothing"):
        record.planned(goals(), [["nothing"]])


def test_recording_keeps_one_commit_and_stores_goals_without_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.jsonl"
    monkeypatch.setattr(results, "commit", lambda: "old")
    results.append(file, [LATENCY], quick=False)
    monkeypatch.setattr(results, "commit", lambda: "new")
    monkeypatch.setattr(record, "_measured", lambda run, limit_s: [RATE])
    assert command.main(["record", "throughput", "--file", str(file)]) == 1
    read = results.read(file)
    assert {each.commit for each in read} == {"new"}
    assert {each.key for each in read} == set(goals()["throughput"])
    assert [each.key for each in read if each.value is not None] == ["circuits_4"]
    assert (
        "MISSED throughput circuits_8: no figure of this run: not measured"
        in capsys.readouterr().out
    )
    command.main(["record", "throughput", "--file", str(file)])
    assert "recorded already at new" in capsys.readouterr().out
    monkeypatch.setattr(results, "commit", lambda: "new+")
    with pytest.raises(SystemExit, match="commit the changes first"):
        command.main(["record", "--all", "--file", str(file)])


def test_a_run_over_its_limit_is_ended_and_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "QUIET_PERCENT", 100.0)
    assert record._measured(["vqls"], 0.05) == []
