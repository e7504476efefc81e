"""Printed results of tasks on an emulated device."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Shell

BELL = """OPENQASM 2.0; include "qelib1.inc";
qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q -> c;
"""


@pytest.fixture
def bell(tmp_path: Path) -> str:
    file = tmp_path / "bell.qasm"
    file.write_text(BELL)
    return str(file)


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_observables_are_named_by_the_qubits_of_the_circuit(
    shell: Shell, bell: str, command: tuple[str, ...]
) -> None:
    words = ["--device", "superconducting-lattice", "--shots", "0"]
    result = shell(*command, bell, *words, "--observable", "ZI:0.5,IZ", "--observable", "ZZ")
    assert result.code == 0, result.err
    names = [line.partition(" = ")[0] for line in result.out.splitlines()]
    assert names == ["ZI:0.5,IZ", "ZZ"]


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_a_twirl_is_stated(shell: Shell, bell: str, command: tuple[str, ...]) -> None:
    words = ["--device", "superconducting-lattice", "--engine", "stabilizer"]
    result = shell(*command, bell, *words, "--engine-option", "twirl=1", "--shots", "100")
    assert result.code == 0, result.err
    assert "noise twirled to Paulis" in result.err


def test_simulate_gives_the_time_on_the_device_as_submit_does(shell: Shell, bell: str) -> None:
    words = [bell, "--device", "superconducting-lattice", "--shots", "100", "--json"]
    seconds = shell("simulate", *words).object["device_time_s"]
    assert seconds > 0.0
    assert seconds == shell("submit", *words, "--wait").object["device_time_s"]


@pytest.mark.parametrize("command", [("submit", "--wait"), ("simulate",)])
def test_more_shots_than_the_device_takes_are_refused(
    shell: Shell, bell: str, command: tuple[str, ...]
) -> None:
    result = shell(*command, bell, "--device", "neutral-atoms", "--shots", "10001")
    assert result.code == 2
    assert "10001 shots; device neutral-atoms takes 10000 of one circuit" in result.err
