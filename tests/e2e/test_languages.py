"""Loops, switches, variables, matrices and QPY through the command line and a real environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import Live, environment
from qiskit import QuantumCircuit, qpy
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import UnitaryGate

from simenv.errors import InfeasibleError, TaskFailedError

TEXTS = Path(__file__).parents[1] / "simenv" / "client" / "circuits" / "qasm3"
SHOTS = 50


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment() as result:
        yield result


def submitted(live: Live, path: Path) -> dict[str, int]:
    simenv = Path(sys.executable).with_name("simenv")
    argv = [simenv, "submit", path, "--wait", "--json", "--shots", str(SHOTS), "--seed", "3"]
    done = subprocess.run(
        [*argv, "--name", live.name], capture_output=True, text=True, check=True, timeout=60
    )
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])["counts"]
    return counts


def looped() -> QuantumCircuit:
    """Until a 1 is found; then a switch, a variable and a matrix say so."""
    circuit = QuantumCircuit(3, 3)
    number = circuit.add_var("number", expr.lift(0, types.Uint(4)))
    with circuit.while_loop((circuit.clbits[0], False)):
        circuit.h(0)
        circuit.measure(0, 0)
    with circuit.switch(circuit.clbits[0]) as case, case(True):
        circuit.store(number, expr.lift(9, types.Uint(4)))
        circuit.append(UnitaryGate(np.eye(2)[::-1]), [1])
    with circuit.if_test(expr.equal(number, 9)):
        circuit.x(2)
    circuit.measure([1, 2], [1, 2])
    return circuit


@pytest.mark.parametrize("name", ["while", "switch", "for_break", "casts"])
def test_qasm3_control_flow_gives_expected_counts(live: Live, name: str) -> None:
    path = TEXTS / f"{name}.qasm"
    promised = json.loads(path.read_text().split("\n", 1)[0].removeprefix("// runs: "))
    assert submitted(live, path) == dict.fromkeys(promised, SHOTS)


def test_qpy_file_with_control_flow_gives_expected_counts(live: Live, tmp_path: Path) -> None:
    path = tmp_path / "looped.qpy"
    with path.open("wb") as file:
        qpy.dump(looped(), file)
    assert submitted(live, path) == {"111": SHOTS}


def test_engine_without_loops_or_switch_refuses_them(live: Live) -> None:
    with live.client() as env:
        assert env.run(looped(), shots=SHOTS).counts == {"111": SHOTS}
        with pytest.raises(InfeasibleError, match="has no loops"):
            env.run(looped(), shots=SHOTS, engine="aer")
        circuit = QuantumCircuit(40, 1)
        circuit.h(range(40))
        with circuit.switch(circuit.clbits[0]) as case, case(0):
            circuit.x(0)
        with pytest.raises(InfeasibleError, match="has no switch"):
            env.run(circuit.measure_all(inplace=False), shots=SHOTS, engine="stabilizer")


def test_endless_loop_fails_at_max_steps(live: Live) -> None:
    circuit = QuantumCircuit(1, 1)
    with circuit.while_loop(expr.lift(True)):
        circuit.h(0)
    circuit.measure(0, 0)
    with live.client() as env, pytest.raises(TaskFailedError, match="max_steps"):
        env.run(circuit, shots=SHOTS)
