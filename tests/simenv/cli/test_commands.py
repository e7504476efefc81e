"""Every command against a real environment: what is printed, and the exit code."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from busy_circuits import ENDLESS
from shell import Shell

from simenv.model import DeviceInfo, Event, PoolInfo, ServiceInfo, TaskInfo, WorkerInfo

EXAMPLES = Path(__file__).parents[3] / "examples"
BELL = str(EXAMPLES / "bell.qasm")
WAITED = {
    "task", "state", "counts", "shots", "seed", "engine", "route", "device", "snapshot", "node",
    "ranks", "attempts", "timing",
}  # fmt: skip


def test_submit_with_wait_prints_complete_result(shell: Shell) -> None:
    result = shell("submit", BELL, "--shots", "500", "--seed", "3", "--wait", "--json")
    assert result.code == 0, result.err
    outcome = result.object
    assert set(outcome) >= WAITED
    assert (outcome["state"], outcome["shots"], outcome["seed"]) == ("DONE", 500, 3)
    assert outcome["device"] is None
    assert outcome["snapshot"] is None
    assert sum(outcome["counts"].values()) == 500
    assert set(outcome["counts"]) == {"00", "11"}


def test_prefer_accepts_only_device_kinds_that_devices_lists(shell: Shell) -> None:
    rows = shell("devices", "-o", "source,kind", "--no-header").out.splitlines()
    [kind] = [kind for source, kind in (row.split("\t") for row in rows) if source == "pool"]
    assert kind == "simulator"
    assert shell("submit", BELL, "--prefer", kind, "--wait").code == 0
    assert shell("submit", BELL, "--prefer", f"emulator,{kind}", "--wait").code == 0
    result = shell("submit", BELL, "--prefer", "hardwre,simulator", "--wait")
    assert (result.code, result.out) == (2, "")
    assert "error: --prefer 'hardwre'" in result.err
    assert "kinds: hardware, emulator, simulator" in result.err


def test_shown_results_name_seed_and_repeat_with_it(shell: Shell) -> None:
    outcome = shell("submit", BELL, "--shots", "500", "--seed", "3", "--wait")
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["00", "11"]
    text = r"(t-\w+): statevector, 2 qubits, 500 shots, seed 3, [0-9.]+ ms on main-\d\n"
    result = re.fullmatch(text, outcome.err)
    assert result is not None, outcome.err
    assert re.fullmatch(text, shell("result", result[1]).err) is not None
    line = ("submit", BELL, "--seed", "11", "--wait", "--json")
    assert shell(*line).object["counts"] == shell(*line).object["counts"]


def test_submit_prints_only_task_id(shell: Shell) -> None:
    outcome = shell("submit", BELL)
    assert (outcome.code, outcome.err) == (0, "")
    task = outcome.out.strip()
    assert task.startswith("t-")
    result = shell("result", task)
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == ["00", "11"]
    assert shell("submit", BELL, "--json").object["task"].startswith("t-")


def test_circuit_is_read_from_stdin(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(Path(BELL).read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert set(shell("submit", "-", "--wait", "--json").object["counts"]) == {"00", "11"}


def test_feed_forward_of_openqasm_3_is_executed(shell: Shell) -> None:
    result = shell("submit", str(EXAMPLES / "teleport.qasm"), "--wait", "--json")
    assert result.code == 0, result.err
    assert {key[0] for key in result.object["counts"]} == {"0"}


def test_states_probabilities_and_expectations_are_returned(shell: Shell, tmp_path: Path) -> None:
    plain = tmp_path / "plain.qasm"
    plain.write_text('OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; h q[0]; cx q[0],q[1];')
    entries = ("--shots", "0", "--output", "statevector", "--output", "probabilities")
    outcome = shell("submit", str(plain), *entries, "--wait", "--json").object
    assert outcome["counts"] is None
    assert outcome["probabilities"] == pytest.approx({"00": 0.5, "11": 0.5})
    assert [re for re, _ in outcome["statevector"]] == pytest.approx([0.5**0.5, 0, 0, 0.5**0.5])
    exact = ("--shots", "0", "--observable", "ZZ:0.5,XX:2", "--observable", "ZI", "--wait")
    result = shell("submit", str(plain), *exact)
    assert result.out.splitlines() == ["ZZ:0.5,XX:2 = 2.5", "ZI = 0"]
    assert shell("result", result.err.partition(":")[0]).out == result.out
    assert shell("submit", str(plain), *exact, "--json").object["expectations"] == pytest.approx(
        [2.5, 0.0]
    )


def test_parameter_is_bound_by_option_and_required(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "turn.qasm"
    file.write_text(
        'OPENQASM 3.0; include "stdgates.inc"; input float theta; qubit q; bit c;'
        "rx(theta) q; c = measure q;"
    )
    entries = ("--shots", "100", "--wait", "--json")
    turned = shell("submit", str(file), "--param", "theta=3.141592653589793", *entries)
    assert turned.object["counts"] == {"1": 100}
    unbound = shell("submit", str(file), *entries)
    assert unbound.code == 2
    assert "theta" in unbound.err


def test_syntax_error_has_file_line_and_column(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "bad.qasm"
    file.write_text('OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\nnonsense q[0];\n')
    result = shell("submit", str(file), "--json")
    assert result.code == 2
    assert f"  at {file}:4:1   nonsense q[0];" in result.err.splitlines()
    assert result.object["error"]["line"] == 4


def test_missing_circuit_file_is_a_usage_error(shell: Shell, tmp_path: Path) -> None:
    result = shell("submit", str(tmp_path / "none.qasm"))
    assert result.code == 2
    assert "none.qasm" in result.err


def test_circuit_too_wide_for_engine_is_infeasible(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "wide.qasm"
    chain = "".join(f"cx q[{k}],q[{k + 1}];" for k in range(59))
    file.write_text(
        'OPENQASM 2.0; include "qelib1.inc"; qreg q[60]; creg c[60];'
        f" h q[0]; {chain} measure q -> c;"
    )
    result = shell("submit", str(file), "--engine", "statevector", "--wait", "--json")
    assert (result.code, result.object["error"]["code"]) == (3, "infeasible")
    assert "60 qubits" in result.err


def test_unknown_engine_pool_and_invalid_task_name_are_refused(shell: Shell) -> None:
    assert shell("submit", BELL, "--engine", "magic").code == 2
    assert shell("submit", BELL, "--pool", "nowhere").code == 2
    assert shell("submit", BELL, "--task-name", "Not A Name").code == 2


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("status",), ServiceInfo), (("pools",), PoolInfo), (("devices",), DeviceInfo),
        (("workers",), WorkerInfo), (("queue", "--done"), TaskInfo), (("events",), Event),
    ],
)  # fmt: skip
def test_json_keys_are_model_fields(shell: Shell, words: tuple[str, ...], kind: type[Any]) -> None:
    shell("submit", BELL, "--wait")
    result = shell(*words, "--json")
    assert result.code == 0, result.err
    assert result.objects
    assert all(tuple(each) == kind.__struct_fields__ for each in result.objects)
    plain = shell(*words)
    assert plain.code == 0
    assert plain.out


def test_completed_tasks_are_listed_and_final_unknown_ones_refused(shell: Shell) -> None:
    task = shell("submit", BELL, "--task-name", "bell", "--wait", "--json").object["task"]
    rows = shell("queue", "--done", "-o", "task,name,state", "--no-header").out.splitlines()
    assert f"{task}\tbell\tDONE" in rows
    assert shell("queue", "--done", "--limit", "1").out.count("\n") == 2
    task = shell("submit", BELL, "--wait", "--json").object["task"]
    result = shell("cancel", task, "--json")
    assert (result.code, result.object["outcome"]) == (0, "final")
    assert (shell("result", "t-zzzzzz").code, shell("result", "nonsense").code) == (4, 4)
    assert (shell("cancel", "t-zzzzzz").code, shell("logs", "nobody").code) == (4, 4)
    assert shell("workers", "--pool", "nobody").code == 4
    assert shell("status", name="nowhere").code == 5
    assert shell("submit", BELL, name="nowhere").code == 5


def test_result_is_saved_completely_as_json(shell: Shell, tmp_path: Path) -> None:
    task = shell("submit", BELL, "--seed", "5", "--wait", "--json").object["task"]
    result = shell("result", task, "--save", str(tmp_path / "out.json"))
    assert (result.code, result.out) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text())["seed"] == 5
    result = shell("result", task, "--save", str(tmp_path / "again.json"), "--json")
    assert result.object == json.loads((tmp_path / "again.json").read_text())
    result = shell("result", task, "--save", str(tmp_path / "none" / "out.json"))
    assert (result.code, "cannot save" in result.err) == (2, True)


def test_wait_timeout_names_task_that_can_still_be_cancelled(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "wide.qasm"
    file.write_text(ENDLESS)
    result = shell("submit", str(file), "--wait", "--timeout", "0", "--json")
    assert (result.code, result.object["error"]["code"]) == (124, "timeout")
    assert shell("cancel", result.object["error"]["task"]).code == 0


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--shots", "0"), "--output probabilities"),
        (("--output", "expectation"), "--observable ZZ"),
        (("--task-name", "No"), "--task-name"),
        (("--param", "x"), "NAME=VALUE"),
    ],
)
def test_hints_name_command_line_options(shell: Shell, words: tuple[str, ...], option: str) -> None:
    result = shell("submit", BELL, *words)
    assert result.code == 2
    assert option in result.err
    assert not re.search(r"shots=|outputs=|observables=|bindings=|\bname=", result.err)


def test_service_and_worker_logs_are_shown(shell: Shell, tmp_path: Path) -> None:
    assert "replayed" in shell("logs").out
    worker = shell("workers", "-o", "worker", "--no-header").out.splitlines()[0]
    assert shell("logs", worker, "-n", "5").code == 0
    assert "log" in shell("logs", "-n", "1", "--json").object
    key = tmp_path / "ana.simenv"
    key.write_text('{"secret_key": ""}')
    remote = shell("logs", "--service", str(key))
    assert (remote.code, "ana.simenv is a key file" in remote.err) == (4, True)


def test_second_service_of_same_name_is_refused(shell: Shell) -> None:
    result = shell("up")
    assert result.code == 3
    assert "is up already" in result.err
