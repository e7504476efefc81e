"""Options that several commands about a circuit share."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell

BELL = str(Path(__file__).parents[4] / "examples" / "bell.qasm")


@pytest.mark.parametrize(("text", "shots"), [("1e3", 1000), ("64", 64), ("2.5e2", 250)])
def test_shots_are_read_in_scientific_notation(shell: Shell, text: str, shots: int) -> None:
    result = shell("submit", BELL, "--shots", text, "--wait", "--json")
    assert result.code == 0, result.err
    assert result.object["shots"] == sum(result.object["counts"].values()) == shots


@pytest.mark.parametrize("text", ["1.5", "-1", "many", "1e999", "nan", ""])
def test_shots_that_are_not_integer_are_refused(shell: Shell, text: str) -> None:
    result = shell("submit", BELL, "--shots", text, "--wait")
    assert result.code == 2
    assert "--shots" in result.err
    assert "such as 1024 or 1e6" in result.err
