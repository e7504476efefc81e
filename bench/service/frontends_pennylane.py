"""One step of a variational linear solver through PennyLane: 480 circuits, written in three ways.

The step is that of `bench/service/vqls.py`: seven sets of angles with 72 Hadamard tests each; times
are scaled to 480 circuits. `batch` writes out 504 tapes and gives them to `qml.execute`, including
the time in which PennyLane makes them; `broadcast` is one QNode whose angles are arrays; `gradient`
is `qml.grad` by parameter shifts of a QNode whose tests are broadcast (examples/vqls_frontends.py).
PennyLane's default.qubit runs the same in the same rounds; simenv accepts tasks on disk.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from functools import partial
from typing import Any

import numpy as np

import simenv
from bench.harness import Report, gradient_steps as g, installed, rounds

WIRES = 4
OPTIONS = (rounds(7, quick=2),)


def run(options: Namespace) -> Report:
    report = Report("frontends_pennylane", "frontends_pennylane: a VQLS step, for 480 circuits")
    if not installed("pennylane"):
        report.not_measured("batch_s", "a step of 480 circuits", "PennyLane is not installed")
        return report
    import pennylane as qml

    with simenv.local(workers=2, durability="accepted") as client:
        devices = {
            "simenv": qml.device("simenv", wires=WIRES, env=client, seed=1),
            "default.qubit": qml.device("default.qubit", wires=WIRES, seed=1),
        }
        steps = {
            f"{name} {way}": partial(method, device)
            for name, device in devices.items()
            for way, method in WAYS.items()
        }
        times = g.timed_steps(steps, options.rounds, _check)
    g.print_times(times)
    for way in WAYS:
        seconds = statistics.median(times[f"simenv {way}"])
        report.at_most(f"{way}_s", seconds, f"a step of 480 circuits, {way}, s")
    return report


def _check(results: dict[str, Any]) -> None:
    """Assert that the results of each way agree within shot noise."""
    for way in WAYS:
        sums = [float(np.sum(each)) for name, each in results.items() if name.endswith(way)]
        assert np.ptp(sums) < 5 * np.sqrt(2 * 504 / g.SHOTS), (way, sums)


def _batch(device: Any, angles: g.Array) -> Any:
    import pennylane as qml
    from vqls_frontends import hadamard_tests

    make = qml.tape.make_qscript(hadamard_tests, shots=g.SHOTS)
    tapes = [make(row) for row in g.bindings_at(angles)]
    return qml.execute(tapes, device, diff_method=None)


def _broadcast(device: Any, angles: g.Array) -> Any:
    import pennylane as qml
    from vqls_frontends import hadamard_tests

    node = qml.set_shots(qml.QNode(hadamard_tests, device, diff_method=None), g.SHOTS)
    return node(list(g.bindings_at(angles).T))


def _gradient(device: Any, angles: g.Array) -> Any:
    import pennylane as qml
    from vqls_frontends import hadamard_tests

    switches = g.example.switches()

    def tests(values: Any) -> Any:
        columns = [values[0], values[1], values[2], *switches.T]
        return hadamard_tests(columns)

    node = qml.set_shots(qml.QNode(tests, device, diff_method="parameter-shift"), g.SHOTS)
    at = qml.numpy.array(angles, requires_grad=True)
    return qml.jacobian(node)(at)


WAYS = {"batch": _batch, "broadcast": _broadcast, "gradient": _gradient}
