"""The linear system of examples/vqls.py through each interface, from one script.

The same loop (gradient descent on the cost of Bravo-Prieto et al., arXiv:1909.05820) with 504
Hadamard tests a step asks its questions of

    client            the plain client: one sweep of parameter values
    qpm               the QPM, as a host such as QFw uses it: a circuit with its statevector each
    estimator         Qiskit's EstimatorV2, `SimenvEstimator`: one PUB
    pennylane         PennyLane's `qml.device("simenv")`: qml.jacobian by parameter shifts
    pennylane-qiskit  PennyLane's `qml.device("qiskit.remote")` over `SimenvBackend`, with shots

Exact values of one loop are equal, whichever way they come. A way whose packages are not installed
is named, and left out.

    python examples/vqls_frontends.py
    python examples/vqls_frontends.py --ways estimator pennylane --steps 30
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import vqls
from numpy.typing import NDArray

import simenv
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator

WIRES = vqls.WIDTH + 1
OBSERVABLE = "Z" + "I" * vqls.WIDTH  # of the ancilla; qubit 0 is the last letter
SHOTS = 4096  # of a way that has no exact values
SHOT_STEPS = 1  # a circuit a message, compiled one by one: a step takes many seconds

Array = NDArray[np.float64]
Step = Callable[[Array], tuple[float, Array]]  # cost and gradient at some angles


def _by_means(means: Callable[[Array], Any]) -> Step:
    """A step of a way that gives <Z> of the ancilla for float64 [504, 11], the bindings of
    `vqls.hadamard_test`."""

    def step(angles: Array) -> tuple[float, Array]:
        values = np.array(means(vqls.bindings_of(vqls.shifted(angles)))).reshape(-1, len(vqls.ROWS))
        return vqls.cost(values[0]), vqls.gradient(values[0], values[1:])

    return step


def client_step(client: simenv.Client) -> Step:
    circuit = vqls.hadamard_test().remove_final_measurements(inplace=False)

    def means(bindings: Array) -> list[float]:
        tasks = client.submit_many((circuit, bindings), shots=None, observables=OBSERVABLE)
        return [task.result().expectations[0] for task in tasks]

    return _by_means(means)


def qpm_step(client: simenv.Client) -> Step:
    circuit, qpm = vqls.hadamard_test(), client.qpm

    def means(bindings: Array) -> list[float]:
        return [_ancilla(record) for record in _run_all(qpm, [_info(row) for row in bindings])]

    def _info(row: Array) -> dict[str, Any]:
        bound = circuit.assign_parameters(row)
        return {"circuit": bound, "num_shots": 1, "return_statevector": True}

    return _by_means(means)


def _run_all(qpm: Any, infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of circuits that run at once, in their order."""
    waiting = [qpm.async_run(info)["cid"] for info in infos]
    results = []
    for cid in waiting:
        completion = qpm.read_cq(cid)
        while not completion["completion_ready"]:
            time.sleep(0.001)
            completion = qpm.read_cq(cid)
        results.append(completion["result"])
    return results


def _ancilla(result: dict[str, Any]) -> float:
    """<Z> of the ancilla, the highest qubit, from amplitudes as pairs of real and imaginary."""
    weights = np.square(np.array(result["statevector"]["data"])).sum(axis=1)
    p0, p1 = weights.reshape(2, -1).sum(axis=1)
    return float(p0 - p1)


def estimator_step(client: simenv.Client) -> Step:
    estimator = SimenvEstimator(SimenvBackend(env=client))
    circuit = vqls.hadamard_test().remove_final_measurements(inplace=False)

    def means(bindings: Array) -> Any:
        return estimator.run([(circuit, OBSERVABLE, bindings)]).result()[0].data.evs

    return _by_means(means)


def hadamard_tests(row: Any) -> Any:
    """`vqls.hadamard_test` in PennyLane: one, or many where the elements of `row` are arrays."""
    import pennylane as qml

    angles, first, on, second, part = row[:3], row[3:5], row[5:8], row[8:10], row[10]
    qml.Hadamard(vqls.ANCILLA)
    qml.PhaseShift(part, vqls.ANCILLA)
    for qubit in range(vqls.WIDTH):
        qml.Hadamard(qubit)
        qml.RY(angles[qubit], qubit)
    _term(*first)
    for qubit in range(vqls.WIDTH):
        qml.Hadamard(qubit)
    for qubit in range(vqls.WIDTH):
        qml.ControlledPhaseShift(on[qubit], [vqls.ANCILLA, qubit])
    for qubit in range(vqls.WIDTH):
        qml.Hadamard(qubit)
    _term(*second)
    qml.Hadamard(vqls.ANCILLA)
    return qml.expval(qml.Z(vqls.ANCILLA))


def _term(x: Any, z: Any) -> None:
    import pennylane as qml

    qml.CRX(x, [vqls.ANCILLA, 0])
    qml.PhaseShift(x / 2, vqls.ANCILLA)
    qml.ControlledPhaseShift(z, [vqls.ANCILLA, 1])


def pennylane_step(client: simenv.Client) -> Step:
    import pennylane as qml

    device = qml.device("simenv", wires=WIRES, env=client)
    columns = list(vqls.switches().T)

    def tests(angles: Any) -> Any:
        return hadamard_tests([*angles, *columns])

    node = qml.QNode(tests, device, diff_method="parameter-shift")
    slopes = qml.jacobian(node)

    def step(angles: Array) -> tuple[float, Array]:
        at = qml.numpy.array(angles, requires_grad=True)
        means, slope = np.array(node(at)), np.array(slopes(at)).T
        return vqls.cost(means), vqls.gradient(means, np.concatenate([slope, -slope]))

    return step


def remote_step(client: simenv.Client) -> Step:
    import pennylane as qml

    # Its optimization_level, 2, takes a quarter of a second for each circuit.
    backend = SimenvBackend(env=client)
    device = qml.device("qiskit.remote", wires=WIRES, backend=backend, optimization_level=0)
    node = qml.set_shots(qml.QNode(hadamard_tests, device, diff_method=None), SHOTS)
    return _by_means(lambda bindings: node(list(bindings.T)))


class Way(NamedTuple):
    """`packages`: what it needs; `hint`: how they are installed."""

    step: Callable[[simenv.Client], Step]
    packages: tuple[str, ...] = ()
    hint: str = ""
    exact: bool = True


WAYS = {
    "client": Way(client_step),
    "qpm": Way(qpm_step),
    "estimator": Way(estimator_step),
    "pennylane": Way(pennylane_step, ("pennylane",), "pip install 'simenv[pennylane]'"),
    "pennylane-qiskit": Way(
        remote_step,
        ("pennylane", "pennylane_qiskit"),
        "pip install pennylane-qiskit, in an environment with qiskit <= 2.3",
        exact=False,
    ),
}


def main() -> int:
    """Exit status: 1 where exact costs differ."""
    parser = argparse.ArgumentParser(description="One linear system through each interface.")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    costs: dict[str, float] = {}
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as client:
        print(f"{'way':<18}{'steps':>6}{'ms a step':>11}{'first cost':>12}{'last cost':>16}")
        for name in args.ways:
            way = WAYS[name]
            if missing := [each for each in way.packages if find_spec(each) is None]:
                print(f"{name:<18}left out: {', '.join(missing)} is not installed ({way.hint})")
                continue
            steps = args.steps if way.exact else min(args.steps, SHOT_STEPS)
            step = way.step(client)
            if way.exact:
                step(np.array(vqls.START))  # the first one loads and compiles
            begun = time.perf_counter()
            _, trace = vqls.descend(step, steps)
            milliseconds = 1e3 * (time.perf_counter() - begun) / steps
            remark = "" if way.exact else f"  {SHOTS} shots"
            print(
                f"{name:<18}{steps:>6}{milliseconds:>11.1f}{trace[0]:>12.6f}"
                f"{trace[-1]:>16.12f}{remark}"
            )
            if way.exact:
                costs[name] = trace[-1]
    if len(costs) < 2:
        return 0
    spread = max(costs.values()) - min(costs.values())
    print(f"\nexact costs after {args.steps} steps agree to {spread:.1e}")
    return int(spread > 1e-9)


if __name__ == "__main__":
    sys.exit(main())
