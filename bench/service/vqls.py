"""One step of a variational linear solver: from the parameter vector to the gradient.

The loop is the example's (examples/vqls.py): seven sets of angles, 72 Hadamard tests each, 504
circuits of 4 qubits and 1,024 shots a step; times are scaled to 480 circuits. The clock includes
the whole formulation: the angles of the shifted circuits, binding, the whole path through the
service with accepts on disk, counts, means, cost and gradient. simenv runs it in two ways: one
sweep of bindings, and a bound QuantumCircuit for each test. Aer runs in this process in the same
rounds, with the angles bound at run time; no service, no journal.
"""

from __future__ import annotations

import functools
import statistics
from argparse import Namespace
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
    with simenv.local(workers=2, durability="accepted") as client:
        ways = {
            "one sweep": functools.partial(_sweep, client),
            "bound circuits": functools.partial(_bound, client),
        }
        if installed("qiskit_aer"):
            ways["aer"] = _aer
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
