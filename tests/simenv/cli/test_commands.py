"""Every command against a real environment: what is printed, and the exit code."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import live
import numpy as np
import pytest
from busy_circuits import ENDLESS
from shell import Shell

import simenv
from simenv.cli import execute
from simenv.cli.app import run
from simenv.cli.demo_variational import run_s
from simenv.client.tasks.task import Task
from simenv.model import DeviceInfo, Event, PoolInfo, ServiceInfo, TaskInfo, WorkerInfo

EXAMPLES = Path(__file__).parents[3] / "examples"
BELL = str(EXAMPLES / "bell.qasm")
WAITED = {
    "task", "state", "counts", "shots", "seed", "engine", "route", "device", "snapshot", "node",
    "ranks", "attempts", "timing",
}  # fmt: skip


def test_submit_with_wait_prints_complete_result(shell: Shell) -> None:
    result = shell("submit", BELL, "--shots", "500", "--seed", "3", "--wait", "--json", code=0)
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
    result = shell("result", task, code=0)
    assert [line.split()[0] for line in result.out.splitlines()] == ["00", "11"]
    assert shell("submit", BELL, "--json").object["task"].startswith("t-")


def test_circuit_is_read_from_stdin(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(Path(BELL).read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert set(shell("submit", "-", "--wait", "--json").object["counts"]) == {"00", "11"}


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
    assert "theta" in shell("submit", str(file), *entries, code=2).err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("status",), ServiceInfo), (("pools",), PoolInfo), (("devices",), DeviceInfo),
        (("workers",), WorkerInfo), (("queue", "--done"), TaskInfo), (("events",), Event),
    ],
)  # fmt: skip
def test_json_keys_are_model_fields(shell: Shell, words: tuple[str, ...], kind: type[Any]) -> None:
    shell("submit", BELL, "--wait")
    result = shell(*words, "--json", code=0)
    assert result.objects
    assert all(tuple(each) == kind.__struct_fields__ for each in result.objects)
    assert shell(*words, code=0).out


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
    result = shell("submit", BELL, *words, code=2)
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
    assert "is up already" in shell("up", code=3).err


PROGRAM = """OPENQASM 3.0; include "stdgates.inc";
input float theta; qubit[1] q; bit[1] c;
rx(theta) q[0]; c[0] = measure q[0];
"""


@pytest.fixture(scope="module")
def sweep(environment: live.Live) -> str:
    """The id of one task with 3 bindings."""
    with simenv.connect(environment.name) as env:
        tasks = env.submit_many((PROGRAM, np.array([[0.0], [np.pi], [0.0]])), shots=10, seed=1)
        assert len({task.handle.id for task in tasks}) == 1
        results = [task.result(60) for task in tasks]
        assert run_s(results) == results[0].timing.run_s
        return tasks[0].handle.id


def test_result_of_sweep_shows_counts_with_id_of_each_binding(shell: Shell, sweep: str) -> None:
    result = shell("result", sweep, code=0)
    entries = [line.split()[:2] for line in result.out.splitlines()]
    assert entries == [
        [f"{sweep}.0"], ["0", "10"], [f"{sweep}.1"], ["1", "10"], [f"{sweep}.2"], ["0", "10"],
    ]  # fmt: skip
    objects = shell("result", sweep, "--json").objects
    assert [(each["task"], each["counts"]) for each in objects] == [
        (f"{sweep}.0", {"0": 10}), (f"{sweep}.1", {"1": 10}), (f"{sweep}.2", {"0": 10}),
    ]  # fmt: skip
    assert shell("result", f"{sweep}.1").out.split()[:2] == ["1", "10"]


def test_result_of_long_sweep_shows_first_32_bindings(environment: live.Live, shell: Shell) -> None:
    with simenv.connect(environment.name) as env:
        tasks = env.submit_many((PROGRAM, np.zeros((40, 1))), shots=1, seed=1)
        assert len({task.handle.id for task in tasks}) == 1
    result = shell("result", tasks[0].handle.id, code=0)
    assert len(result.out.splitlines()) == 2 * 32
    assert "the first 32 of 40" in result.err


def test_unknown_binding_ends_with_exit_code_4(shell: Shell, sweep: str, tmp_path: Path) -> None:
    for each in (("result", f"{sweep}.3"), ("trace", f"{sweep}.3")):
        result = shell(*each)
        assert result.code == 4, each
        assert "there is no number 3" in result.err
    assert shell("trace", f"{sweep}.2").out.split()[1] == f"{sweep}.2"
    outcome = shell("result", sweep, "--save", str(tmp_path / "all.h5"), code=2)
    assert f"simenv result {sweep}.0 --save" in outcome.err
    assert shell("result", f"{sweep}.1", "--save", str(tmp_path / "one.h5")).code == 0


def test_bundle_of_sweep_reproduces_all_counts(shell: Shell, sweep: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "bundle")
    first = shell("result", sweep, "--bundle", folder, "--json", code=0)
    again = shell("submit", folder, "--wait", "--json", code=0)
    assert [each["counts"] for each in again.objects] == [each["counts"] for each in first.objects]


def test_interrupted_wait_says(shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Task, "wait", interrupted)
    result = shell("result", sweep, code=130)
    assert result.err == f"{sweep} continues: simenv result {sweep}, or simenv cancel {sweep}\n"


def test_no_environment_is_started_for_missing_circuit_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def started(workers: int) -> None:
        raise AssertionError(workers)

    monkeypatch.setattr(execute, "started", started)
    assert run(["submit", str(tmp_path / "none.qasm"), "--wait"]) == 2
    assert "No such file" in capfd.readouterr().err
