"""The table of supported versions."""

from __future__ import annotations

import importlib.util
import platform
import re
from pathlib import Path

import pytest
import qiskit

SCRIPT = Path(__file__).parents[2] / "scripts" / "support_table.py"
specification = importlib.util.spec_from_file_location("support_table", SCRIPT)
assert specification is not None
assert specification.loader is not None
support_table = importlib.util.module_from_spec(specification)
specification.loader.exec_module(support_table)


def test_a_run_replaces_that_of_the_same_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support_table, "FILE", tmp_path / "support.jsonl")
    assert "Python 3." not in support_table.table().splitlines()[0]
    support_table.record()
    support_table.record()
    (row,) = support_table.rows()
    assert (row["python"], row["qiskit"]) == (platform.python_version(), qiskit.__version__)
    row = next(line for line in support_table.table().splitlines() if line.startswith("| qiskit |"))
    assert row.endswith(f" | {qiskit.__version__} |")
    assert not support_table.record("tests/noise_models: 9 passed")
    assert [row["tests"] for row in support_table.rows()] == [support_table.ALL]
    monkeypatch.setattr(support_table, "FILE", tmp_path / "other.jsonl")
    assert support_table.record("tests/noise_models: 9 passed")
    assert support_table.record()
    assert [row["tests"] for row in support_table.rows()] == [support_table.ALL]


def test_some_tests_are_run_and_recorded_by_their_paths() -> None:
    path = "tests/project_rules/test_exports.py"
    assert re.fullmatch(rf"{path}: \d+ passed", support_table.passed([path]))
    with pytest.raises(SystemExit, match="nothing is recorded"):
        support_table.passed(["tests/no_such_file.py"])


def test_repository_has_a_recorded_run_in_its_table() -> None:
    (row, *_) = support_table.rows()
    assert row["qiskit"] in support_table.locked()["qiskit"]
    assert f"Python {row['python']}" in support_table.table().splitlines()[0]
    assert any(row["tests"] in line for line in support_table.table().splitlines())


def test_table_of_a_commit_without_a_recorded_run_has_the_locked_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support_table, "FILE", tmp_path / "support.jsonl")
    locked = support_table.locked()
    assert sorted(locked) == sorted(support_table.PACKAGES)
    table = support_table.table().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [
        f"| {n}" for n in support_table.PACKAGES
    ]
    assert f"| stim | {locked['stim']} |" in table
