"""The ground state of the hydrogen molecule by a variational loop, in three stages.

H2 at its bond length of 0.735 Angstrom in the STO-3G basis, on two qubits: parity mapping, the two
symmetries taken out. The coefficients (hartree) are those used by Kandala et al., Nature 549, 242
(2017), to the digits that Qiskit's chemistry tutorials print. Exact diagonalisation, done beside
the loop, gives the full configuration interaction energy of -1.137306 hartree.

1. ideal: without noise, to chemical accuracy.
2. noisy: energies from the counts of an emulated device.
3. mitigated: the same device, with Pauli twirling (Wallman, Emerson, arXiv 1512.01098), readout
   mitigation, and extrapolation to zero noise by repeated CX gates (Temme et al., arXiv
   1612.02058). Each circuit is one template; bases and twirls are its parameters, so that all of
   them travel as bindings. The inversion and the fit are those of mitiq.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.quantum_info import SparsePauliOp

import simenv

HAMILTONIAN = SparsePauliOp.from_list(
    [
        ("II", -1.052373245772859),
        ("IZ", 0.39793742484318045),
        ("ZI", -0.39793742484318045),
        ("ZZ", -0.01128010425623538),
        ("XX", 0.18093119978423156),
    ]
)
REPULSION = 0.7199689944489797  # of the two nuclei: 0.529177 / 0.735 hartree
ACCURACY = 1.6e-3  # hartree: one kilocalorie a mole
RATE = 1.2
STAGES = ("ideal", "noisy", "mitigated")
FOLDS = (1, 3, 5)  # CX gates in place of one: the scales of the noise
TWIRLS = 24
PLACE = [0, 1]  # coupled qubits of the device


def ansatz() -> QuantumCircuit:
    """The Hartree-Fock state |01>, mixed with |10>, its double excitation, by one angle."""
    angle = Parameter("angle")
    circuit = QuantumCircuit(2)
    circuit.x(0)
    circuit.ry(angle, 1)
    circuit.cx(1, 0)
    return circuit


def descend(client: simenv.Client, steps: int, shots: int | None, seed: int) -> list[float]:
    """The angles of a gradient descent; a step is one sweep of the two shifted circuits."""
    circuit, angle, angles = ansatz(), 0.0, [0.0]
    for step in range(steps):
        shifted = [[angle + math.pi / 2], [angle - math.pi / 2]]
        tasks = client.submit_many(
            (circuit, shifted), observables=[HAMILTONIAN], shots=shots, seed=seed + step
        )
        above, below = (task.result().expectation for task in tasks)
        angle -= RATE * (above - below) / 2
        angles.append(angle)
    return angles


def ideal(client: simenv.Client, steps: int, shots: int | None, exact: float) -> float:
    """The descent without noise, printed; its last angle."""
    angles = descend(client, steps, shots, seed=3)
    sweep = (ansatz(), [[angle] for angle in angles])
    tasks = client.submit_many(sweep, observables=[HAMILTONIAN], shots=shots, seed=99)
    print(f"shots ({shots:,} a term)" if shots else "exact expectation values")
    print("step   energy / hartree   error / mHa")
    for step, task in enumerate(tasks):
        energy = task.result().expectation + REPULSION
        print(f"{step:4d}   {energy:+.6f}          {1e3 * (energy - exact):+8.3f}")
    best = client.run(
        ansatz(), parameter_values=[angles[-1]], observables=[HAMILTONIAN], shots=None
    )
    error = best.expectation + REPULSION - exact
    verdict = "within" if abs(error) < ACCURACY else "NOT within"
    print(f"at the last angle, exactly: {best.expectation + REPULSION:+.6f} hartree")
    print(f"exact diagonalisation:      {exact:+.6f} hartree")
    print(f"apart by {abs(1e3 * error):.3f} mHa: {verdict} 1.6 mHa\n")
    return angles[-1]


# --- on a device ---------------------------------------------------------------------------------


def template(folds: int) -> QuantumCircuit:
    """The ansatz with `folds` CX gates, each between two layers of Pauli gates, and a basis. The
    Pauli X^x Z^z of a qubit is rz(pi z), rx(pi x). Free: the angle, the basis, then z and x of
    qubit 0 and 1, before and after each CX."""
    angle, basis = Parameter("a"), Parameter("b")
    layers = [ParameterVector(f"p{k:02d}", 4) for k in range(2 * folds)]
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.ry(angle, 1)
    for before, after in zip(layers[0::2], layers[1::2], strict=True):
        for layer in (before, after):
            for qubit in (0, 1):
                circuit.rz(layer[2 * qubit], qubit)
                circuit.rx(layer[2 * qubit + 1], qubit)
            if layer is before:
                circuit.cx(1, 0)
    circuit.ry(basis, [0, 1])
    circuit.measure([0, 1], [0, 1])
    return circuit


def twirl(bits: NDArray[np.int64]) -> list[float]:
    """Angles of the layers around one CX, control 1: Paulis `bits` (z0, x0, z1, x1) before it, and
    after it those to which it takes them: X1 to X1 X0, Z0 to Z0 Z1."""
    z0, x0, z1, x1 = bits.tolist()
    return [math.pi * bit for bit in (z0, x0, z1, x1, z0, x0 ^ x1, z1 ^ z0, x1)]


def energy(in_z: NDArray[np.float64], in_x: NDArray[np.float64]) -> float:
    """From the probabilities [4] in the bases Z and X; qubit 0 is the lowest bit."""
    terms = dict(HAMILTONIAN.to_list())
    first, second = np.array([1, -1, 1, -1]), np.array([1, 1, -1, -1])
    value = terms["II"] + in_z @ (terms["IZ"] * first + terms["ZI"] * second)
    value += terms["ZZ"] * (in_z @ (first * second)) + terms["XX"] * (in_x @ (first * second))
    return float(value.real) + REPULSION


def measured(
    client: simenv.Client, folds: int, angle: float, device: str, shots: int, twirls: int
) -> NDArray[np.float64]:
    """Probabilities [bases, 4] on the device; the mean of so many twirls, 0: none."""
    rng = np.random.default_rng(folds)
    rows = [
        [angle, basis, *itertools.chain.from_iterable(map(twirl, layers))]
        for basis in (0.0, -math.pi / 2)
        for layers in (rng.integers(0, 2 if twirls else 1, (max(1, twirls), folds, 4)))
    ]
    each = shots // max(1, twirls)
    return probabilities(client, template(folds), rows, device, each).reshape(2, -1, 4).mean(1)


def probabilities(
    client: simenv.Client, circuit: QuantumCircuit, rows: list[list[float]], device: str, shots: int
) -> NDArray[np.float64]:
    """Frequencies [rows, 4] of all bindings of one template on the device."""
    tasks = client.submit_many(
        (circuit, rows), device=device, qubit_mapping=PLACE, shots=shots, seed=11
    )
    counts = [task.result().counts for task in tasks]
    return np.array([[each.get(f"{k:02b}", 0) / shots for k in range(4)] for each in counts])


def confusion(client: simenv.Client, device: str, shots: int) -> NDArray[np.float64]:
    """Confusion matrix [read, prepared] of both qubits: four bindings of one template."""
    flips = ParameterVector("p", 2)
    circuit = QuantumCircuit(2, 2)
    for qubit in (0, 1):
        circuit.rx(flips[qubit], qubit)
    circuit.measure([0, 1], [0, 1])
    rows = [[math.pi * (state & 1), math.pi * (state >> 1)] for state in range(4)]
    return probabilities(client, circuit, rows, device, shots).T


def noisy(client: simenv.Client, angle: float, device: str, shots: int, exact: float) -> float:
    """The energy from counts of the device, printed."""
    value = energy(*measured(client, 1, angle, device, shots, 0))
    print(f"noisy, {device}: {value:+.6f} hartree, error {1e3 * (value - exact):+.3f} mHa")
    return value


def mitigated(client: simenv.Client, angle: float, device: str, shots: int, exact: float) -> float:
    """The energy at zero noise, printed."""
    from mitiq.rem.inverse_confusion_matrix import closest_positive_distribution
    from mitiq.zne.inference import LinearFactory

    inverse = np.linalg.inv(confusion(client, device, shots))
    energies = []
    for folds in FOLDS:
        rows = measured(client, folds, angle, device, shots, TWIRLS)
        corrected = [closest_positive_distribution(inverse @ row) for row in rows]
        energies.append(energy(*corrected))
        print(f"  {folds} CX: {energies[-1]:+.6f} hartree with twirling and readout mitigation")
    best = float(LinearFactory.extrapolate(FOLDS, energies))  # type: ignore[arg-type]
    print(f"mitigated, {device}: {best:+.6f} hartree, error {1e3 * (best - exact):+.3f} mHa")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="H2 by a variational loop.")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--shots", type=int, default=100_000)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--device", default="superconducting-lattice")
    args = parser.parse_args()
    exact = float(np.linalg.eigvalsh(HAMILTONIAN.to_matrix())[0]) + REPULSION
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as client:
        if "ideal" in args.stages:
            for shots in (None, args.shots):
                ideal(client, args.steps, shots, exact)
        angle = descend(client, args.steps, None, seed=3)[-1]
        if "noisy" in args.stages:
            noisy(client, angle, args.device, args.shots, exact)
        if "mitigated" in args.stages:
            if importlib.util.find_spec("mitiq") is None:
                print("mitigated: skipped, mitiq is not installed (pip install mitiq)")
            else:
                mitigated(client, angle, args.device, args.shots, exact)


if __name__ == "__main__":
    main()
