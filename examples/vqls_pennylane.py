"""The linear system of examples/vqls.py by PennyLane: a device, a QNode, a gradient.

The same cost (Bravo-Prieto et al., arXiv:1909.05820) of 72 Hadamard tests, whose angles are
broadcast: one evaluation is one program with 72 bindings, and the six evaluations of a parameter
shift go out as one batch.

    python examples/vqls_pennylane.py                             # exact, by parameter shifts
    python examples/vqls_pennylane.py --shots 8192
    python examples/vqls_pennylane.py --device default.qubit      # PennyLane's own device
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pennylane as qml
import vqls
from pennylane import numpy as pnp

WIDTH, ANCILLA = vqls.WIDTH, vqls.ANCILLA
SWITCHES = vqls.switches()


def hadamard_tests(angles: Any, switches: Any) -> Any:
    """<Z> of the ancilla of every test. `angles`: float [3]; `switches`: float [tests, 8], the
    columns of `vqls.switches`."""
    first, on, second, part = switches[:, :2], switches[:, 2:5], switches[:, 5:7], switches[:, 7]
    qml.Hadamard(ANCILLA)
    qml.PhaseShift(part, ANCILLA)
    for qubit in range(WIDTH):
        qml.Hadamard(qubit)
        qml.RY(angles[qubit], qubit)
    _term(first)
    for qubit in range(WIDTH):
        qml.Hadamard(qubit)
    for qubit in range(WIDTH):
        qml.ControlledPhaseShift(on[:, qubit], [ANCILLA, qubit])
    for qubit in range(WIDTH):
        qml.Hadamard(qubit)
    _term(second)
    qml.Hadamard(ANCILLA)
    return qml.expval(qml.Z(ANCILLA))


def _term(switch: Any) -> None:
    qml.CRX(switch[:, 0], [ANCILLA, 0])
    qml.PhaseShift(switch[:, 0] / 2, ANCILLA)
    qml.ControlledPhaseShift(switch[:, 1], [ANCILLA, 1])


def cost_of(node: Any) -> Any:
    """The cost as a differentiable function of the angles."""
    weights = np.einsum("k,l->kl", vqls.WEIGHTS, vqls.WEIGHTS)

    def cost(angles: Any) -> Any:
        table = pnp.reshape(node(angles, SWITCHES), (3, 3, WIDTH + 1, 2))
        real = pnp.tensordot(weights, table[..., 0], axes=((0, 1), (0, 1)))
        return 0.5 - 0.5 * pnp.sum(real[1:]) / (WIDTH * real[0])

    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description="The linear system of vqls.py by PennyLane.")
    parser.add_argument("--device", default="simenv", help="a device of PennyLane")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--shots", type=int, default=0, help="0: exact")
    asked = parser.parse_args()
    device = qml.device(asked.device, wires=WIDTH + 1, seed=11)
    node = qml.QNode(hadamard_tests, device, diff_method="parameter-shift")
    cost = cost_of(qml.set_shots(node, asked.shots or None))
    optimizer = qml.MomentumOptimizer(stepsize=vqls.RATE, momentum=vqls.MOMENTUM)
    angles = pnp.array(vqls.START, requires_grad=True)
    begun = time.perf_counter()
    for step in range(asked.steps):
        angles, value = optimizer.step_and_cost(cost, angles)
        if step % max(1, asked.steps // 10) == 0:
            print(f"{step:4d}  {value:6.4f}")
    seconds = (time.perf_counter() - begun) / asked.steps
    found = vqls.Statevector(vqls.ansatz(np.array(angles))).probabilities()
    overlap = float(np.sum(np.sqrt(vqls.solution() * found))) ** 2
    print(f"\nfidelity {overlap:.4f}, cost {cost(angles):.4f}")
    print(f"{asked.steps} steps of {7 * len(SWITCHES)} circuits: {1e3 * seconds:.1f} ms a step")


if __name__ == "__main__":
    main()
