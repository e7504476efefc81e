"""A pool of an external simulator in a real environment: counts, refusals, a killed worker."""

import re
import shutil
import signal
from pathlib import Path

import external_program
import psutil
import pytest
from failing import fails
from live import environment
from noisy import p_value
from qiskit import QuantumCircuit
from waiting import until

from simenv.errors import InfeasibleError, TaskFailedError
from simenv.model import TaskState

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(not external_program.compiler(), reason="no C compiler"),
]
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "external.md"


def _pool(name: str, command: str) -> dict[str, object]:
    return {"name": name, "engine": "external", "command": command}


def _circuit() -> QuantumCircuit:
    circuit = QuantumCircuit(4, 4)
    circuit.h(0)
    for qubit in range(3):
        circuit.cx(qubit, qubit + 1)
        circuit.ry(0.3 + qubit, qubit + 1)
    circuit.measure([0, 1, 2, 3], [3, 2, 1, 0])
    return circuit


def test_counts_agree_with_our_engine_and_a_missing_program_leaves_the_pool_up() -> None:
    pools = [
        {"name": "main"},
        _pool("sim", external_program.command()),
        _pool("none", "no-such-program {circuit} {shots}"),
        _pool("unseeded", external_program.command().replace("{seed}", "5")),
    ]
    with environment(pools=pools) as live, live.client() as env:
        exact = env.run(_circuit(), shots=None, outputs=("probabilities",)).probabilities
        odds = {int(bits, 2): value for bits, value in exact.items() if value > 1e-12}
        result = env.run(_circuit(), shots=20_000, seed=3, engine="external", pool="sim")
        counts = {int(bits, 2): count for bits, count in result.counts.items()}
        assert p_value(odds, counts) > 1e-3
        assert "by statevector" in result.remark
        again = env.run(_circuit(), shots=20_000, seed=3, pool="sim")  # its only engine
        assert again.counts == result.counts
        assert env.run(_circuit(), shots=20_000, seed=4, pool="sim").counts != result.counts
        assert "seed" not in result.remark
        unseeded = env.run(_circuit(), shots=10, pool="unseeded")
        assert unseeded.remark.endswith("{seed}: another attempt gives other counts")
        for _ in range(2):
            fails(TaskFailedError, "no-such-program", env.run, _circuit(), shots=10, pool="none")
        assert {name: pool.state for name, pool in env.pools().items()}["none"] == "up"
        with pytest.raises(InfeasibleError, match="external"):
            env.run(_circuit(), shots=None, outputs=("probabilities",), pool="sim")


def test_a_killed_worker_ends_its_program_and_the_task_runs_again(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = tmp_path / "slow"
    script.write_text(
        f"#!/bin/sh\n[ -e {note} ] || {{ echo $$ >{note}; exec sleep 600; }}\n"
        f'exec {external_program.binary()} "$@"\n'
    )
    script.chmod(0o700)
    pool = _pool("sim", f"{script} {{circuit}} {{shots}} {{seed}}")
    with environment(pools=[pool]) as live, live.client() as env:
        task = env.submit(_circuit(), shots=1_000, seed=9, pool="sim")
        until(lambda: note.exists() and note.read_text().strip())
        program = psutil.Process(int(note.read_text()))
        worker = next(p for p in program.parents() if "simenv.worker" in p.cmdline())
        worker.send_signal(signal.SIGKILL)
        result = task.result()
        assert not program.is_running() or program.status() == psutil.STATUS_ZOMBIE
        assert env.tasks([task.id])[0].state is TaskState.DONE
        assert result.counts == env.run(_circuit(), shots=1_000, seed=9, pool="sim").counts


@pytest.mark.skipif(not shutil.which("nwq_qasm"), reason="no nwq_qasm on PATH: make nwq-sim")
def test_documented_command_of_nwq_sim_repeats_its_counts_for_a_seed() -> None:
    (command,) = re.findall(r"engine=external,command=([^\"]+)", GUIDE.read_text())
    with environment(pools=[{"name": "main"}, _pool("nwq", command)]) as live, live.client() as env:
        exact = env.run(_circuit(), shots=None, outputs=("probabilities",)).probabilities
        odds = {int(bits, 2): value for bits, value in exact.items() if value > 1e-12}
        first, again, other = (
            env.run(_circuit(), shots=20_000, seed=seed, pool="nwq") for seed in (3, 3, 4)
        )
        counts = {int(bits, 2): count for bits, count in first.counts.items()}
        assert p_value(odds, counts) > 1e-3
        assert again.counts == first.counts != other.counts
        assert first.remark == "by nwq_qasm"
