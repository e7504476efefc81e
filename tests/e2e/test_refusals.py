"""Refusals and languages of programs, through a service."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from circuits import tangled
from failing import fails
from live import Live
from qiskit import QuantumCircuit, qasm2, qpy
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import UnitaryGate
from shell import Answer, shell_of

from simenv.client.client import Client
from simenv.errors import InfeasibleError, TaskFailedError

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'
REFUSE_S = 60.0  # that nothing hangs; the benchmark cold_start has the figure


@pytest.fixture
def submit(up: Live, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Answer]:
    """Submit a text as a file, and wait for its result."""

    def call(text: bytes, *options: str) -> Answer:
        path = tmp_path / "try.qasm"
        path.write_bytes(text)
        return shell_of(up.name, capfd)("submit", str(path), "--wait", *options)

    return call


CASES = {
    "too wide": (qasm2.dumps(tangled()).encode(), 3, "qubits"),
    "syntax": ((HEAD + "qreg q[2];\nh q[0]\nh q[1];").encode(), 2, ":5:1"),
    "unknown gate": ((HEAD + "qreg q[2];\nfoo q[0];").encode(), 2, "foo"),
    "million qubits": ((HEAD + "qreg q[1000000];\nh q[0];").encode(), 3, "1000000"),
    "NaN angle": ((HEAD + "qreg q[1];\nrz(0/0) q[0];").encode(), 2, ":4:"),
    "comment": ((HEAD + "// " + "x" * 50_000_000).encode(), 3, "16"),
    "nesting": (
        (HEAD + "qreg q[1];rz(" + "(" * 5000 + "1" + ")" * 5000 + ") q[0];").encode(), 2, "200",
    ),
    "include": (b'OPENQASM 2.0;\ninclude "/etc/passwd";\nqreg q[1];', 2, ":2:"),
    "noise": (os.urandom(3000), 2, ""),
    "counts of nothing": ((HEAD + "qreg q[1];h q[0];").encode(), 2, "measure"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_invalid_program_is_refused_in_words(case: str, submit: Callable[..., Answer]) -> None:
    text, code, word = CASES[case]
    begin = time.monotonic()
    answer = submit(text)
    assert time.monotonic() - begin < REFUSE_S
    assert (answer.code, answer.out) == (code, ""), answer.err
    # Before it, perhaps, that the first of its kind waits for kernels.
    assert any(line.startswith("error: ") for line in answer.err.splitlines())
    assert word in answer.err


def test_refusal_of_wide_circuit_names_the_most(env: Client, submit: Callable[..., Answer]) -> None:
    assert f"{env.status().max_qubits} qubits" in submit(CASES["too wide"][0]).err


def test_refusal_with_json_option_is_json_object(submit: Callable[..., Answer]) -> None:
    answer = submit(CASES["unknown gate"][0], "--json")
    assert (answer.code, answer.object["error"]["code"]) == (2, "program")
    assert answer.err


def test_service_is_up_with_empty_queue_after_refusals(env: Client) -> None:
    assert (env.status().queued, env.pools()["main"].state) == (0, "up")


TEXTS = Path(__file__).parents[1] / "simenv" / "client" / "circuits" / "qasm3"
SHOTS = 50


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
def test_qasm3_control_flow_gives_expected_counts(submit: Callable[..., Answer], name: str) -> None:
    text = (TEXTS / f"{name}.qasm").read_text()
    promised = json.loads(text.split("\n", 1)[0].removeprefix("// runs: "))
    answer = submit(text.encode(), "--json", "--shots", str(SHOTS))
    assert answer.object["counts"] == dict.fromkeys(promised, SHOTS)


def test_qpy_file_with_control_flow_gives_expected_counts(submit: Callable[..., Answer]) -> None:
    file = io.BytesIO()
    qpy.dump(looped(), file)
    answer = submit(file.getvalue(), "--json", "--shots", str(SHOTS))
    assert answer.object["counts"] == {"111": SHOTS}


def test_engine_without_loops_or_switch_refuses_them(env: Client) -> None:
    assert env.run(looped(), shots=SHOTS).counts == {"111": SHOTS}
    fails(InfeasibleError, "has no loops", env.run, looped(), shots=SHOTS, engine="aer")
    circuit = QuantumCircuit(40, 1)
    circuit.h(range(40))
    with circuit.switch(circuit.clbits[0]) as case, case(0):
        circuit.x(0)
    circuit.measure_all()
    fails(InfeasibleError, "has no switch", env.run, circuit, shots=SHOTS, engine="stabilizer")


def test_endless_loop_fails_at_max_steps(env: Client) -> None:
    circuit = QuantumCircuit(1, 1)
    with circuit.while_loop(expr.lift(True)):
        circuit.h(0)
    circuit.measure(0, 0)
    fails(TaskFailedError, "max_steps", env.run, circuit, shots=SHOTS)
