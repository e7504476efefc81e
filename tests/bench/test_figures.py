"""Tables of measured figures for README.md and docs/performance.md."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import figures
from bench.harness import results
from bench.harness.report import Figure


def test_every_goal_has_a_text_and_a_unit() -> None:
    texts = figures.catalogue()
    described = {name: set(entry) - {"title"} for name, entry in texts.items() if name != "readme"}
    assert described == {name: set(keys) for name, keys in figures.goals().items()}
    assert all(name in texts and key in texts[name] for name, key, _ in texts["readme"])


def test_readme_has_the_table_of_the_stored_figures() -> None:
    table = figures.README.read_text().partition(figures.BEGIN)[2].partition(figures.END)[0]
    assert table == figures.readme_table(), "type: python -m bench chart"
    assert len(table.splitlines()) == 7


def test_a_new_measurement_replaces_all_cases_of_its_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.jsonl"
    shutil.copyfile(figures.STORED, file)
    monkeypatch.setattr(results, "commit", lambda: "new")
    results.append(file, [Figure("small", "of_aer", "3 qubits", 0.5, 0.02)], quick=False)
    results.append(file, [Figure("small", "of_qulacs", "3 qubits", 0.5, 0.02)], quick=True)
    newest = figures.latest(results.read(file))
    assert [each.value for each in newest["small", "of_aer"]] == [0.5]
    assert all(each.commit != "new" for each in newest["small", "of_qulacs"])


def test_tables_show_goals_that_were_not_measured(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results.append(file, [Figure("vqls", "step_s", "case", 0.5, 0.1)], quick=False)
    table = figures.performance_tables(file)
    assert "| case | s | <= 0.1 | 0.5 | **no** |" in table
    goals = sum(len(keys) for keys in figures.goals().values())
    assert table.count("| not measured |") == goals - 1


def test_every_cell_of_the_tables_has_at_most_one_figure() -> None:
    for line in figures.performance_tables().splitlines():
        if line.startswith("|") and "---" not in line:
            measured = line.split("|")[-4].replace("**", "").strip()
            assert " to " not in measured
            assert ";" not in measured
