"""The table of supported versions."""

from __future__ import annotations

import importlib.util
import platform
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
    assert support_table.table().startswith("No run")
    support_table.record()
    support_table.record()
    (row,) = support_table.rows()
    assert (row["python"], row["qiskit"]) == (platform.python_version(), qiskit.__version__)
    assert f"| qiskit | {qiskit.__version__} |" in support_table.table().splitlines()
