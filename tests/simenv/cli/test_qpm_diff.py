"""`simenv qpm diff` over a real environment: an ideal pool and a machine's."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import Live
from shell import Shell

POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "examples.machine:fake"},
]
HEAD = 'OPENQASM 2.0; include "qelib1.inc"; '
BELL = f"{HEAD}qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q -> c;\n"
WIDE = f"{HEAD}qreg q[8]; creg c[8]; cx q[0],q[7]; measure q -> c;\n"


@pytest.fixture
def circuits(tmp_path: Path) -> Path:
    (tmp_path / "bell.qasm").write_text(BELL)
    (tmp_path / "three.qasm").write_text(
        'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nbit[2] c;\nh q[0];\nc = measure q;\n'
    )
    return tmp_path


def test_hardware_pool_behaves_like_simulator_pool(shell: Shell, circuits: Path) -> None:
    answer = shell("qpm", "diff", "main", "qpu", str(circuits), "--shots", "2000", "--json")
    outcome = answer.object
    assert [row for row in outcome["rows"] if row["finding"] in ("behaviour", "bound")] == []
    assert answer.code == 0
    assert outcome["alike"]
    ran = {row["what"] for row in outcome["rows"] if row["aspect"] == "states"}
    assert ran == {"bell.qasm", "three.qasm"}
    calls = {row["what"] for row in outcome["rows"] if row["aspect"] == "call"}
    assert {"a circuit's read_cq", "sync_run(num_shots=0)", "r1.sync_run"} <= calls
    kinds = [row for row in outcome["rows"] if row["what"] == "kind"]
    assert [(row["first"], row["second"]) for row in kinds] == [("ideal", "hardware")]
    far = [row["distance"] for row in outcome["rows"] if row["aspect"] == "counts"]
    assert len(far) == 2
    assert all(0 < each["total_variation"] < 0.5 for each in far)


def test_circuit_refused_by_one_pool_is_a_difference_in_behaviour(
    shell: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "wide.qasm"
    path.write_text(WIDE)
    answer = shell("qpm", "diff", "main", "qpu", str(path), "--shots", "50")
    assert answer.code == 1
    assert "do not behave alike" in answer.out
    assert "8 qubits" in answer.out


def test_pool_compared_with_itself_is_same(shell: Shell, circuits: Path) -> None:
    outcome = shell("qpm", "diff", "main", "main", str(circuits / "bell.qasm"), "--json").object
    assert {row["finding"] for row in outcome["rows"]} == {"same"}


def test_paused_pool_ends_comparison_at_timeout(
    shell: Shell, environment: Live, circuits: Path
) -> None:
    with environment.client() as client:
        qpm = client.qpm_with(pool="qpu")
        qpm.pause_execution_target()
        line = ("qpm", "diff", "main", "qpu", str(circuits / "bell.qasm"))
        answer = shell(*line, "--timeout", "5")
        qpm.resume_execution_target()
    assert answer.code == 124
    assert "pool qpu" in answer.err


def test_missing_pools_and_circuits_end_with_their_exit_code(shell: Shell, circuits: Path) -> None:
    assert shell("qpm", "diff", "main", "other", str(circuits)).code == 4
    assert shell("qpm", "diff", "main", "qpu", str(circuits / "none.qasm")).code == 4
    (circuits / "bad.qasm").write_text("OPENQASM 2.0; qreg q[1]; cx q[0],q[0];")
    assert shell("qpm", "diff", "main", "qpu", str(circuits / "bad.qasm")).code == 2
    (circuits / "empty").mkdir()
    assert shell("qpm", "diff", "main", "qpu", str(circuits / "empty")).code == 4
