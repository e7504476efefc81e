"""The conformance kit and `simenv qpm diff` on the command line."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from failing import fails
from kit import assembled
from live import Live
from shell import Shell

from simenv.cli.admin import qpm
from simenv.cli.admin.qpm import Restartable
from simenv.cli.app import run
from simenv.client import launch
from simenv.errors import StartFailedError
from simenv.qpm_check import checks
from simenv.qpm_check.check import VerdictState
from simenv.qpm_check.circuits import FIRST_ATOM


def last_line(captured: pytest.CaptureFixture[str]) -> dict[str, object]:
    table: dict[str, object] = json.loads(captured.readouterr().out.splitlines()[-1])
    return table


def test_folder_without_plugin_is_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["qpm", "check", str(tmp_path), "--json"]) == 4
    assert "error" in last_line(capsys)
    (tmp_path / "services" / "svc_empty").mkdir(parents=True)
    assert (run(["qpm", "check", str(tmp_path)]), run(["qpm", "check"])) == (4, 2)
    assert run(["qpm", "check", str(tmp_path), "--revision", "3"]) == 2


@pytest.mark.parametrize(
    ("target", "option", "goes_with"),
    [
        ("inprocess", ("--restart", "true", "true"), "a folder"),
        ("hardware", ("--token-file", "token"), "a folder"),
        ("defw", ("--restart", "true", "true"), "a folder"),
        ("defw", ("--provider", "lab:one"), "hardware"),
        ("inprocess", ("--rpc-timeout", "30"), "defw or a folder"),
        ("some/folder", ("--provider", "lab:one"), "hardware"),
    ],
)
def test_option_that_does_not_apply_to_target_is_refused(
    target: str, option: tuple[str, ...], goes_with: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["qpm", "check", target, *option]) == 2
    output = capsys.readouterr().err
    assert f"{option[0]} has no effect with {target}" in output
    assert f"use it with {goes_with}" in output


def test_environment_that_fails_to_restart_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Restartable()
    home = environment.service.parent
    environment.begin()
    with monkeypatch.context() as patch:

        def refused(*_: object, **__: object) -> None:
            raise StartFailedError("no process to be had")

        patch.setattr(launch, "start", refused)
        fails(StartFailedError, "", environment.end)
    environment.close()
    assert not home.exists()


def test_failed_check_is_1_and_in_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = assembled(tmp_path, "slow_start")
    line = ["qpm", "check", str(folder), "--only", "load.start-false*", "--revision", "2"]
    assert run([*line, "--json", "--junit", str(tmp_path / "out.xml")]) == 1
    result = last_line(capsys)
    assert result["ok"] is False
    assert result["failed"] == 1
    assert ET.parse(tmp_path / "out.xml").getroot()[0].attrib["failures"] == "1"
    assert run(["qpm", "check", str(folder), "--only", "load.start-false-idle"]) == 0
    assert "2 passed, 0 failed" in capsys.readouterr().out


def test_import_error_is_failed_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = tmp_path / "services" / "svc_bad"
    service.mkdir(parents=True)
    (service / "__init__.py").write_text("raise RuntimeError('my own fault')\n")
    assert run(["qpm", "check", str(tmp_path), "--only", "load.import"]) == 1
    assert "my own fault" in capsys.readouterr().out


def test_list_holds_every_conformance_check(capsys: pytest.CaptureFixture[str]) -> None:
    from simenv.qpm_check.checks import rows

    assert run(["qpm", "check", "--list", "--json"]) == 0
    listed = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert listed == [row.id for row in rows()]


def test_documented_conformance_checks_are_those_that_exist() -> None:
    from simenv.qpm_check.checks import rows

    text = (Path(__file__).parents[3] / "docs" / "reference" / "qpm_check.md").read_text()
    for row in rows():
        assert f"| `{row.id}` |" in text, "write the list anew: see its head"
    assert text.partition("## Rows")[2].count("| `") == len(rows())


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


def test_circuit_refused_by_one_pool_is_a_difference(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "wide.qasm"
    path.write_text(WIDE)
    answer = shell("qpm", "diff", "main", "qpu", str(path), "--shots", "50", code=1)
    assert "do not behave alike" in answer.out
    assert "8 qubits" in answer.out


def test_pool_compared_with_itself_is_same(shell: Shell, circuits: Path) -> None:
    outcome = shell("qpm", "diff", "main", "main", str(circuits / "bell.qasm"), "--json").object
    assert {row["finding"] for row in outcome["rows"]} == {"same"}


def test_pulse_sequence_differs_where_a_pool_runs_none(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("pulser")
    path = tmp_path / "atoms.json"
    path.write_text(FIRST_ATOM["data"])
    answer = shell("qpm", "diff", "main", "main", str(path), "--json")
    assert {row["finding"] for row in answer.object["rows"]} == {"same"}
    answer = shell("qpm", "diff", "main", "qpu", str(path), "--json", code=1)
    (row,) = (r for r in answer.object["rows"] if r["what"] == "a circuit's async_run")
    assert row["first"] == "ACCEPTED"
    assert "FAILED (provider-submission-failed)" in row["second"]
    assert "runs circuits, no pulse sequences" in row["second"]


def test_paused_pool_ends_diff_at_timeout(shell: Shell, environment: Live, circuits: Path) -> None:
    with environment.client() as client:
        qpm = client.qpm_with(pool="qpu")
        qpm.pause_execution_target()
        line = ("qpm", "diff", "main", "qpu", str(circuits / "bell.qasm"))
        answer = shell(*line, "--timeout", "3")
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


def test_long_check_says_on_a_terminal_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(qpm, "SILENCE_S", 0.0)
    row = checks.rows()[0]
    announce = qpm._announcer(False)
    announce(row.verdict(1, VerdictState.PASSED, ""))
    announce(row.verdict(2, VerdictState.FAILED, "so"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"1 rows judged, the last: {row.id} (1)", f"failed  {row.id} (2)"]
    qpm._announcer(True)(row.verdict(1, VerdictState.PASSED, ""))
    assert not capsys.readouterr().err
