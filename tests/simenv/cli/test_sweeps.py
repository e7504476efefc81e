"""Commands about sweeps: a task that carries several bindings, and one of them by its id."""

from pathlib import Path

import live
import numpy as np
import pytest
from shell import Shell

import simenv
from simenv.cli import execute
from simenv.cli.app import run
from simenv.cli.demo_variational import run_s
from simenv.client.tasks.task import Task

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
    result = shell("result", sweep)
    assert result.code == 0, result.err
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
    result = shell("result", tasks[0].handle.id)
    assert result.code == 0
    assert len(result.out.splitlines()) == 2 * 32
    assert "the first 32 of 40" in result.err


def test_unknown_binding_ends_with_exit_code_4(shell: Shell, sweep: str, tmp_path: Path) -> None:
    for each in (("result", f"{sweep}.3"), ("trace", f"{sweep}.3")):
        result = shell(*each)
        assert result.code == 4, each
        assert "there is no number 3" in result.err
    assert shell("trace", f"{sweep}.2").out.split()[1] == f"{sweep}.2"
    outcome = shell("result", sweep, "--save", str(tmp_path / "all.h5"))
    assert outcome.code == 2
    assert f"simenv result {sweep}.0 --save" in outcome.err
    assert shell("result", f"{sweep}.1", "--save", str(tmp_path / "one.h5")).code == 0


def test_bundle_of_sweep_reproduces_all_counts(shell: Shell, sweep: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "bundle")
    first = shell("result", sweep, "--bundle", folder, "--json")
    assert first.code == 0
    again = shell("submit", folder, "--wait", "--json")
    assert again.code == 0
    assert [each["counts"] for each in again.objects] == [each["counts"] for each in first.objects]


def test_interrupted_wait_says(shell: Shell, sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Task, "wait", interrupted)
    result = shell("result", sweep)
    assert result.code == 130
    assert result.err == f"{sweep} continues: simenv result {sweep}, or simenv cancel {sweep}\n"


def test_no_environment_is_started_for_missing_circuit_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def started(workers: int) -> None:
        raise AssertionError(workers)

    monkeypatch.setattr(execute, "started", started)
    assert run(["submit", str(tmp_path / "none.qasm"), "--wait"]) == 2
    assert "No such file" in capfd.readouterr().err
