"""A linear system solved by a variational loop: A |x> = |b> on three qubits.

A = 1 + 0.2 X0 Z1 + 0.2 X0, and b is flat. The angles of a small circuit V are moved until A V|0> is
along b, by the local cost of Bravo-Prieto et al., Variational Quantum Linear Solver,
arXiv:1909.05820. One value of the cost is 72 Hadamard tests (3 x 3 terms of A, 4 projections, real
and imaginary part), its gradient by parameter shifts six times as many; all of them are one circuit
whose angles switch its gates on and off, so that a step is one sweep.

    python examples/vqls.py                    # the gradient form, one sweep a step
    python examples/vqls.py --form cobyla      # 72 circuits an evaluation, no gradient
    python examples/vqls.py --way each         # the same circuits sent one by one
    simenv exec -- python examples/vqls.py     # in a running environment, for `simenv profile`
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.quantum_info import SparsePauliOp, Statevector
from scipy.optimize import minimize

import simenv

WIDTH = 3
ANCILLA = WIDTH
WEIGHTS = np.array([1.0, 0.2, 0.2])
TERMS = ("III", "IZX", "IIX")  # qubit 0 is the last letter; X on qubit 0, Z on qubit 1
ROWS = list(itertools.product(range(3), range(3), range(-1, WIDTH), ("re", "im")))
SHIFTS = np.concatenate([np.eye(WIDTH), -np.eye(WIDTH)]) * math.pi / 2
RATE, MOMENTUM = 1.0, 0.6
START = (1.9, -1.1, 0.8)

Array = NDArray[np.float64]


def ansatz(angles: ParameterVector | Array) -> QuantumCircuit:
    """V: a turn on each qubit out of the flat state."""
    circuit = QuantumCircuit(WIDTH)
    circuit.h(range(WIDTH))
    for qubit in range(WIDTH):
        circuit.ry(angles[qubit], qubit)
    return circuit


def hadamard_test() -> QuantumCircuit:
    """Every test in one circuit: an angle of pi puts a gate in, 0 leaves it out.

    Parameters, in order: the angles of V; X and Z of the first term of A; the projection on each
    qubit; X and Z of the second term; the phase that asks for the imaginary part.
    """
    angles, first = ParameterVector("a", WIDTH), ParameterVector("b", 2)
    on, second, part = ParameterVector("c", WIDTH), ParameterVector("d", 2), Parameter("e")
    circuit = QuantumCircuit(WIDTH + 1, 1)
    circuit.h(ANCILLA)
    circuit.p(part, ANCILLA)
    circuit.compose(ansatz(angles), range(WIDTH), inplace=True)
    _term(circuit, first)
    circuit.h(range(WIDTH))  # the inverse of what prepares b
    for qubit in range(WIDTH):
        circuit.cp(on[qubit], ANCILLA, qubit)
    circuit.h(range(WIDTH))
    _term(circuit, second)
    circuit.h(ANCILLA)
    circuit.measure(ANCILLA, 0)
    return circuit


def _term(circuit: QuantumCircuit, switch: ParameterVector) -> None:
    """Controlled X0 and Z1: a turn by pi is X up to a phase, which the ancilla gives back."""
    circuit.crx(switch[0], ANCILLA, 0)
    circuit.p(switch[0] / 2, ANCILLA)
    circuit.cp(switch[1], ANCILLA, 1)


def switches() -> Array:
    """float64 [72, 8]: the parameters after the angles of V, one row a test."""
    table = np.zeros((len(ROWS), 8))
    for row, (first, second, projection, part) in enumerate(ROWS):
        for place, term in ((0, TERMS[first]), (5, TERMS[second])):
            table[row, place] = math.pi * ("X" in term)
            table[row, place + 1] = math.pi * ("Z" in term)
        if projection >= 0:
            table[row, 2 + projection] = math.pi
        table[row, 7] = -math.pi / 2 * (part == "im")
    return table


def cost(means: Array) -> float:
    """From the 72 ancilla means of one set of angles."""
    numerator, norm = _parts(means)
    return 0.5 - 0.5 * numerator / (WIDTH * norm)


def gradient(at: Array, shifted: Array) -> Array:
    """The means are sinusoids of every angle: half of (mean at +pi/2 - mean at -pi/2) is exact."""
    numerator, norm = _parts(at)
    slopes = []
    for qubit in range(WIDTH):
        above, below = _parts(shifted[qubit]), _parts(shifted[WIDTH + qubit])
        d_numerator, d_norm = (above[0] - below[0]) / 2, (above[1] - below[1]) / 2
        slopes.append(-0.5 * (d_numerator * norm - numerator * d_norm) / (WIDTH * norm**2))
    return np.array(slopes)


def _parts(means: Array) -> tuple[float, float]:
    table = means.reshape(3, 3, WIDTH + 1, 2)
    values = table[..., 0] + 1j * table[..., 1]
    weighted = np.einsum("k,l,klj->j", WEIGHTS, WEIGHTS, values).real
    return float(weighted[1:].sum()), float(weighted[0])


def shifted(angles: Array) -> Array:
    """float64 [7, 3]: the angles, and those of the parameter shifts."""
    return np.concatenate([angles[None], angles + SHIFTS])


def bindings_of(angles: Array) -> Array:
    """float64 [72 K, 11]: the parameters of all tests of K sets of angles, float64 [K, 3]."""
    tests = np.tile(switches(), (len(angles), 1))
    return np.hstack([np.repeat(angles, len(ROWS), axis=0), tests])


def descend(step: Callable[[Array], tuple[float, Array]], steps: int) -> tuple[Array, list[float]]:
    """Gradient descent with momentum; the last angles, and the cost before each step. `step`: cost
    and gradient at some angles."""
    angles, speed, costs = np.array(START), np.zeros(WIDTH), []
    for _ in range(steps):
        value, slope = step(angles)
        costs.append(value)
        speed = MOMENTUM * speed - RATE * slope
        angles = angles + speed
    return angles, costs


class Solver:
    """The loop's questions to the environment, asked the one way or the other."""

    def __init__(self, client: simenv.Client, way: str, shots: int, seed: int) -> None:
        self.client = client
        self.way = way
        self.shots = shots
        self.seed = seed
        self.circuit = hadamard_test()
        self.circuits = 0
        self.costs: list[float] = []
        self.seconds: list[float] = []

    def means(self, angles: Array) -> Array:
        """float64 [K, 72]: the ancilla's means for K sets of angles, float64 [K, 3]."""
        begun = time.perf_counter()
        bindings = bindings_of(angles)
        self.seed += 1
        values = self._sweep(bindings) if self.way == "sweep" else self._each(bindings)
        self.circuits += len(bindings)
        self.seconds.append(time.perf_counter() - begun)
        return np.array(values).reshape(-1, len(ROWS))

    def _sweep(self, bindings: Array) -> list[float]:
        work = (self.circuit, bindings)
        tasks = self.client.submit_many(work, shots=self.shots, seed=self.seed)
        return [mean(task.result()) for task in tasks]

    def _each(self, bindings: Array) -> list[float]:
        return [
            mean(
                self.client.run(
                    self.circuit,
                    parameter_values=row,
                    shots=self.shots,
                    seed=self.seed,
                    binding_index=k,
                )
            )
            for k, row in enumerate(bindings)
        ]

    def evaluate(self, angles: Array) -> float:
        """One cost: 72 circuits."""
        self.costs.append(cost(self.means(np.array([angles]))[0]))
        return self.costs[-1]

    def cobyla(self, steps: int) -> Array:
        """The simplex method of Powell: a step is one evaluation."""
        options = {"maxiter": steps, "rhobeg": 0.5}
        optimum = minimize(self.evaluate, np.array(START), method="COBYLA", options=options)
        return np.array(optimum.x)

    def descend(self, steps: int) -> Array:
        """By gradients: a step is one cost and six shifted ones, 504 circuits."""
        angles, self.costs = descend(self._gradient_step, steps)
        return angles

    def _gradient_step(self, angles: Array) -> tuple[float, Array]:
        means = self.means(shifted(angles))
        return cost(means[0]), gradient(means[0], means[1:])


def mean(result: simenv.Result) -> float:
    """<Z> of the ancilla, from its counts."""
    return (result.counts.get("0", 0) - result.counts.get("1", 0)) / result.shots


def solution() -> Array:
    """|<basis|x>|^2 of the solved system, from linear algebra: float64 [8]."""
    matrix = SparsePauliOp(TERMS, WEIGHTS).to_matrix()
    amplitudes = np.linalg.solve(matrix, np.full(1 << WIDTH, (1 << WIDTH) ** -0.5))
    return np.abs(amplitudes / np.linalg.norm(amplitudes)) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(description="A linear system solved by a variational loop.")
    parser.add_argument("--form", choices=("gradient", "cobyla"), default="gradient")
    parser.add_argument("--way", choices=("sweep", "each"), default="sweep")
    parser.add_argument("--steps", type=int, default=0, help="0: 30 of the gradient, 80 of COBYLA")
    parser.add_argument("--shots", type=int, default=8192)
    args = parser.parse_args()
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as client:
        solver = Solver(client, args.way, args.shots, seed=11)
        if args.form == "gradient":
            angles = solver.descend(args.steps or 30)
        else:
            angles = solver.cobyla(args.steps or 80)
    print("step   cost")
    for step in range(0, len(solver.costs), max(1, len(solver.costs) // 10)):
        print(f"{step:4d}  {solver.costs[step]:6.4f}")
    print("\nbasis  solved  found")
    probabilities = Statevector(ansatz(angles)).probabilities()
    for k, (wanted, got) in enumerate(zip(solution(), probabilities, strict=True)):
        print(f"{k:03b}    {wanted:.3f}   {got:.3f}")
    overlap = float(np.sum(np.sqrt(solution() * probabilities))) ** 2
    print(f"\nfidelity {overlap:.4f}, cost {solver.costs[-1]:.4f}")
    steady = sorted(solver.seconds[1:] or solver.seconds)
    each = solver.circuits // len(solver.seconds)
    print(
        f"{len(solver.seconds)} steps of {each} circuits, sent "
        f"{'as one sweep' if args.way == 'sweep' else 'one by one'}: "
        f"{1e3 * steady[len(steady) // 2]:.1f} ms a step"
    )


if __name__ == "__main__":
    main()
