"""Commands that read, when the service is down: they answer from its journal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from circuits import bell, faulty
from failing import fails
from live import Live, environment
from qiskit import QuantumCircuit
from shell import Answer, shell_of

from simenv.client import environments
from simenv.errors import TaskFailedError
from simulators.fault import engine as fault

POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "broken", "engine": "fault", "min": 1, "max": 1},
]
LARGE = 17  # qubits: 2 MiB of amplitudes, in a file of their own


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda live, *words: shell_of(live.name, capfd)(*words)


def superposition(num_qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(num_qubits)
    circuit.h(range(num_qubits))
    return circuit


def stop_regularly(live: Live) -> None:
    environments.down(live.name, now=True)


def stop_by_kill(live: Live) -> None:
    pid = live.service().pid
    live.kill_service()
    live.wait_dead(pid)


@pytest.mark.parametrize("stop", [stop_regularly, stop_by_kill])
@pytest.mark.usefixtures("no_leaks")
def test_results_and_history_are_readable_when_the_service_is_down(
    stop: Callable[[Live], None], call: Callable[..., Answer], tmp_path: Path
) -> None:
    with environment(pools=POOLS) as live:
        with live.client() as env:
            done = env.submit(bell(), shots=77, seed=5, name="kept")
            large = env.submit(superposition(LARGE), shots=None, outputs="statevector")
            failed = env.submit(faulty(fault.RAISE), engine="fault")
            counts = done.result(60).counts
            amplitude = large.result(60).statevector[0]
            fails(TaskFailedError, "", failed.result, 60)
            waiting = env.submit(faulty(fault.HANG), engine="fault").id
        rows: dict[str, Any] = {}
        for state in ("up", "down"):
            answer = call(live, "history", "--json")
            assert answer.code == 0, answer.err
            rows[state] = {row["id"]: row for row in answer.objects}
            ended = call(live, "queue", "--done", "--json").objects
            assert {row["id"] for row in ended} == {failed.id, large.id, done.id}
            if state == "up":
                stop(live)
        assert (rows["down"][waiting]["state"], set(rows["down"])) == ("QUEUED", set(rows["up"]))
        for each in (done, large, failed):
            assert rows["down"][each.id] == rows["up"][each.id]

        answer = call(live, "result", done.id, "--json")
        assert (answer.code, answer.object["counts"]) == (0, counts)
        assert "no service is up: read from" in answer.err
        saved = tmp_path / "large.npz"
        assert call(live, "result", large.id, "--save", str(saved)).code == 0
        assert _first_amplitude(saved) == amplitude
        assert call(live, "result", failed.id).code == 1
        answer = call(live, "result", waiting)
        assert (answer.code, answer.out) == (5, "")
        assert f"task {waiting} has not ended, and the service is down" in answer.err
        assert "simenv up" in answer.err
        assert [row["id"] for row in call(live, "queue", "--json").objects] == [waiting]
        assert (call(live, "trace", done.id).code, call(live, "events", "--json").code) == (0, 0)
        assert call(live, "result", done.id, "--bundle", str(tmp_path / "kept.zip")).code == 0
        for item in (("cancel", waiting), ("pools",), ("events", "--follow")):
            assert call(live, *item).code == 5


def test_log_of_environment_never_started_has_exit_code_5(call: Callable[..., Answer]) -> None:
    answer = call(Live(), "history")
    assert (answer.code, answer.out) == (5, "")
    assert "is up" in answer.err


def _first_amplitude(path: Path) -> complex:
    import numpy as np

    with np.load(path) as document:
        return complex(document["statevector"][0])
