"""One step of a variational linear solver: from the parameter vector to the gradient.

The loop is the example's (examples/vqls.py): seven sets of angles, 72 Hadamard tests each, 504
circuits of 4 qubits and 1,024 shots a step; times are scaled to 480 circuits. The clock includes
the whole formulation: the angles of the shifted circuits, binding, the whole path through the
service with accepts on disk, counts, means, cost and gradient. simenv runs it in two ways: one
sweep of bindings, and a bound QuantumCircuit for each test. Peers run in this process in the same
rounds, each with its own way to run one circuit with many angles; no service, no journal.

    python -m bench run vqls [--rounds 15]
"""

from __future__ import annotations

import collections
import functools
import statistics
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

import simenv
from bench.harness import Report, installed, rounds
from bench.harness.gradient_steps import SHOTS, Array, example, print_times, step, timed_steps
from bench.peers import aer as aer_peer
from simenv.client.client import Client

OPTIONS = (rounds(15, quick=3),)


def run(options: Namespace) -> Report:
    report = Report("vqls", "vqls: one gradient step of 504 circuits, given for 480")
    peers = (
        ("aer", "qiskit_aer", _aer),
        ("qulacs", "qulacs", _qulacs),
        ("lightning", "pennylane_lightning", _lightning),
    )
    with simenv.local(workers=2, durability="accepted") as client:
        ways = {
            "one sweep": functools.partial(_sweep, client),
            "bound circuits": functools.partial(_bound, client),
            **{name: means for name, module, means in peers if installed(module)},
        }
        steps = {name: step(means) for name, means in ways.items()}
        times = timed_steps(steps, options.rounds, _check)
    print_times(times)
    for name, label in (("one sweep", "one sweep"), ("bound circuits", "each bound")):
        seconds = statistics.median(times[name])
        report.at_most("step_s", seconds, f"a step of 480 circuits, {label}, s")
    return report


def _check(slopes: dict[str, Any]) -> None:
    """Assert that all results agree within shot noise."""
    assert np.all(np.ptp(list(slopes.values()), axis=0) < 1.0), slopes


def _sweep(client: Client, bindings: Array) -> list[float]:
    tasks = client.submit_many((example.hadamard_test(), bindings), shots=SHOTS)
    return [example.mean(task.result()) for task in tasks]


def _bound(client: Client, bindings: Array) -> list[float]:
    circuit = example.hadamard_test()
    circuits = [circuit.assign_parameters(row) for row in bindings]
    return [example.mean(task.result()) for task in client.submit_many(circuits, shots=SHOTS)]


def _aer(bindings: Array) -> list[float]:
    circuit = example.hadamard_test()
    binds = [{p: list(bindings[:, k]) for k, p in enumerate(circuit.parameters)}]
    # Binding at run time is Aer's fastest way for a sweep.
    simulator = aer_peer.simulator(runtime_parameter_bind_enable=True)
    result = simulator.run(circuit, parameter_binds=binds, shots=SHOTS).result()
    results = [result.get_counts(k) for k in range(len(bindings))]
    return [(c.get("0", 0) - c.get("1", 0)) / SHOTS for c in results]


def _qulacs(bindings: Array) -> list[float]:
    from qulacs import QuantumState
    from qulacs.gate import RX, RY, U1, H, to_matrix_gate

    def controlled(gate: Any, control: int) -> Any:
        matrix = to_matrix_gate(gate)
        matrix.add_control_qubit(control, 1)
        return matrix

    def crx(angle: float, control: int, target: int) -> Any:
        return controlled(RX(target, -angle), control)

    def cp(angle: float, control: int, target: int) -> Any:
        return controlled(U1(target, angle), control)

    means = []
    ancilla = example.ANCILLA
    for row in bindings:
        angles, first, on, second, part = row[:3], row[3:5], row[5:8], row[8:10], row[10]
        gates = [H(ancilla), U1(ancilla, part), *(H(q) for q in range(3))]
        gates += [RY(q, -angles[q]) for q in range(3)]
        gates += [crx(first[0], ancilla, 0), U1(ancilla, first[0] / 2), cp(first[1], ancilla, 1)]
        gates += [H(q) for q in range(3)]
        gates += [cp(on[q], ancilla, q) for q in range(3)]
        gates += [H(q) for q in range(3)]
        gates += [crx(second[0], ancilla, 0), U1(ancilla, second[0] / 2)]
        gates += [cp(second[1], ancilla, 1), H(ancilla)]
        state = QuantumState(4)
        for gate in gates:
            gate.update_quantum_state(state)
        counts = collections.Counter((o >> ancilla) & 1 for o in state.sampling(SHOTS))
        means.append((counts[0] - counts[1]) / SHOTS)
    return means


def _lightning(bindings: Array) -> list[float]:
    run = _lightning_node()
    return [float(run(row)) for row in bindings]


@functools.cache
def _lightning_node() -> Callable[[Array], float]:
    import pennylane as qml

    ancilla = example.ANCILLA
    device = qml.device("lightning.qubit", wires=4)

    def term(switch: Array) -> None:
        qml.CRX(switch[0], [ancilla, 0])
        qml.PhaseShift(switch[0] / 2, ancilla)
        qml.ControlledPhaseShift(switch[1], [ancilla, 1])

    @functools.partial(qml.set_shots, shots=SHOTS)
    @qml.qnode(device, diff_method=None)
    def run(row: Array) -> object:
        qml.Hadamard(ancilla)
        qml.PhaseShift(row[10], ancilla)
        for qubit in range(3):
            qml.Hadamard(qubit)
            qml.RY(row[qubit], qubit)
        term(row[3:5])
        for qubit in range(3):
            qml.Hadamard(qubit)
        for qubit in range(3):
            qml.ControlledPhaseShift(row[5 + qubit], [ancilla, qubit])
        for qubit in range(3):
            qml.Hadamard(qubit)
        term(row[8:10])
        qml.Hadamard(ancilla)
        return qml.expval(qml.PauliZ(ancilla))

    return run  # type: ignore[no-any-return]
