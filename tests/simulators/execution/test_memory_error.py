"""Memory error of qubits in each layer of a circuit, against density matrices in numpy."""

import functools
import json
import math

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from engines import Runner
from noise_references import (
    DeviceReference,
    Probabilities,
    all_engines,
    assert_counts,
    assert_exact,
    attached,
    chip,
    distribution,
    size_of,
)

from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot, GateCalibration, QubitCalibration
from noise_models.importers import import_snapshot
from noise_models.options import NoiseOptions
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import counts_of

Operation = tuple[str, tuple[int, ...]]
QUBITS = 4


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """All-to-all device with a random memory error of each qubit."""
    gates = [
        GateCalibration(name, (), float(rng.uniform(0.0, 0.03 if name == "cx" else 0.01)))
        for name in ("sx", "h", "t", "cx", "cz")
    ]
    errors = rng.uniform(0.0, 0.1, QUBITS).tolist()
    return chip(gates, [QubitCalibration(memory_error=each) for each in errors])


class Reference(DeviceReference):
    """Density matrix of a list of operations."""

    def dephase(self, qubit: int, layers: int) -> None:
        for _ in range(layers):
            self.pauli("Z", 1.5 * self.snapshot.qubits[qubit].memory_error, [qubit])

    def run(self, operations: list[Operation]) -> Probabilities:
        """Operations as late as possible: the layers after each are counted from the end."""
        left = [0] * QUBITS
        starts = []
        for name, qubits in reversed(operations):
            after = max(left[q] for q in qubits)
            steps = size_of(name) - 1
            starts.append(after + steps)
            for q in qubits:
                left[q] = after + steps
        begun: dict[int, int] = {}  # layers that are left after the last operation of a qubit
        for (name, qubits), start in zip(operations, reversed(starts), strict=True):
            for q in qubits:
                if q in begun:
                    self.dephase(q, begun[q] - start)
                    begun[q] = start
            if name == "barrier":
                continue
            self.gate(name, qubits)
            for q in qubits:
                begun[q] = start
                if len(qubits) == 2:
                    self.dephase(q, 1)
                    begun[q] = start - 1
        return self.populations()


@functools.cache
def random_case(seed: int) -> tuple[Circuit, CalibrationSnapshot, Probabilities]:
    """A random circuit with idle qubits and barriers, its device, and the probabilities of its
    outcomes."""
    rng = np.random.default_rng(seed)
    snapshot = device(rng)
    operations: list[Operation] = []
    for _ in range(18):
        order = rng.permutation(QUBITS).tolist()
        draw = rng.random()
        if draw < 0.45:
            operations.append((str(rng.choice(["cx", "cz"])), tuple(order[:2])))
        elif draw < 0.9:
            operations.append((str(rng.choice(["sx", "h", "t"])), (order[0],)))
        else:
            operations.append(("barrier", tuple(order[: int(rng.integers(2, QUBITS + 1))])))
    operations += [("h", (q,)) for q in range(QUBITS)]
    circuit = Arrays(QUBITS, QUBITS)
    for name, qubits in operations:
        circuit.add(name, qubits)
    return circuit.measure(range(QUBITS)).circuit(), snapshot, Reference(snapshot).run(operations)


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_has_the_memory_error_of_each_layer(seed: int) -> None:
    assert_exact(*random_case(seed))


@all_engines
@pytest.mark.parametrize("seed", range(3))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, wanted = random_case(100 + seed)
    assert_counts(engine, circuit, attached(circuit, snapshot), wanted, seed=seed)


def test_its_factor_takes_the_term_out_and_idle_noise_off_too() -> None:
    changes = []
    for seed in range(8):
        circuit, snapshot, expected = random_case(seed)
        none = tuple(msgspec.structs.replace(q, memory_error=None) for q in snapshot.qubits)
        without = msgspec.structs.replace(snapshot, qubits=none)
        wanted = distribution(circuit, attached(circuit, without))
        for off in ({"qubit.memory": 0}, {"qubit": 0}, {"idle": False}):
            noise = attached(circuit, snapshot, off)
            assert np.abs(distribution(circuit, noise) - wanted).max() < 1e-12
        changes.append(np.abs(expected - wanted).max())
    assert np.sum(np.array(changes) > 1e-3) >= 6


def test_a_factor_multiplies_the_error_of_a_layer() -> None:
    circuit, snapshot, _ = random_case(3)
    half = tuple(
        msgspec.structs.replace(q, memory_error=0.5 * q.memory_error) for q in snapshot.qubits
    )
    wanted = attached(circuit, msgspec.structs.replace(snapshot, qubits=half))
    scaled = attached(circuit, snapshot, {"qubit.memory": 0.5})
    probs = [distribution(circuit, each) for each in (wanted, scaled)]
    assert np.abs(probs[0] - probs[1]).max() < 1e-12
    same = build(snapshot, NoiseOptions.parse({"qubit.memory_error": 0.02}))
    assert same.memory(2, 3).infidelity == pytest.approx((1.0 - (1.0 - 0.06) ** 3) / 3.0)


def layered(*body: str) -> Circuit:
    """Qubit 0 in |+> while qubits 1 and 2 have gates; then it is read in its own basis."""
    circuit = Arrays(QUBITS, 1).add("h", [0]).add("h", [1]).add("h", [2])
    circuit.add("barrier", [0, 1, 2])
    for name in body:
        if name == "loop":
            circuit.repeat(3).add("cz", [1, 2]).add("end")
        else:
            circuit.add(name, [1, 2] if name == "cz" else [1])
    return circuit.add("barrier", [0, 1, 2]).add("h", [0]).add("measure", [0], [0]).circuit()


@pytest.mark.parametrize(
    ("body", "layers"),
    [((), 0), (("sx", "sx"), 0), (("cz",), 1), (("cz", "sx", "cz"), 2)],
)
def test_a_waiting_qubit_has_the_error_of_each_layer_of_the_others(
    body: tuple[str, ...], layers: int
) -> None:
    snapshot = msgspec.structs.replace(
        device(np.random.default_rng(1)),
        gates=(),
        qubits=(QubitCalibration(memory_error=0.04),) * QUBITS,
    )
    circuit = layered(*body)
    probs = distribution(circuit, attached(circuit, snapshot))
    assert probs[0] - probs[1] == pytest.approx((1.0 - 0.12) ** layers, abs=1e-12)


def test_a_qubit_waits_for_each_pass_of_a_loop() -> None:
    ions = QubitCalibration(memory_error=0.04)
    snapshot = msgspec.structs.replace(
        device(np.random.default_rng(1)), gates=(), qubits=(ions,) * QUBITS
    )
    circuit = layered("cz", "loop")
    noise = attached(circuit, snapshot)
    zeros = counts_of(Runner("statevector")(circuit, shots=20_000, seed=5, noise=noise))[0]
    wanted = 0.5 + 0.5 * (1.0 - 0.12) ** 4
    assert abs(zeros / 20_000 - wanted) < 5.0 * math.sqrt(wanted * (1.0 - wanted) / 20_000)


# Quantinuum's Helios, 98 ions, as published (arXiv 2511.05465): errors of its components, and the
# process fidelity of a layer of random Clifford circuits with a gate on each pair of a random
# pairing, .883(16) (table A7).
HELIOS = {
    "name": "Helios", "n_qubits": 98,
    "noise_specs": {
        "1q_gate_error": {"p1": 2.5e-5}, "2q_gate_error": {"p2": 7.9e-4},
        "memory_error": {"memory_error": 6.0e-4},
    },
}  # fmt: skip
PUBLISHED = 0.883


def mirror(rng: np.random.Generator, num_qubits: int, layers: int) -> Circuit:
    """Mirror circuit: layers of random Cliffords and pairings, then their inverses."""
    circuit = Arrays(num_qubits, num_qubits)
    turns = [[(float(rng.integers(4)), float(rng.integers(4))) for _ in range(num_qubits)]
             for _ in range(layers)]  # fmt: skip
    pairs = [rng.permutation(num_qubits).reshape(-1, 2).tolist() for _ in range(layers)]
    for turn, pairing in zip(turns, pairs, strict=True):
        for q, (angle, phase) in enumerate(turn):
            circuit.add("r", [q], params=[angle * math.pi / 2, phase * math.pi / 2])
        for pair in pairing:
            circuit.add("rzz", pair, params=[math.pi / 2])
    for turn, pairing in zip(reversed(turns), reversed(pairs), strict=True):
        for pair in pairing:
            circuit.add("rzz", pair, params=[-math.pi / 2])
        for q, (angle, phase) in enumerate(turn):
            circuit.add("r", [q], params=[-angle * math.pi / 2, phase * math.pi / 2])
    return circuit.measure(range(num_qubits)).circuit()


def test_a_layer_of_98_ions_has_the_published_fidelity() -> None:
    snapshot, _ = import_snapshot({"helios.json": json.dumps(HELIOS).encode()})

    def fidelity(**options: float) -> float:
        """Process fidelity of a layer: survival of longer mirror circuits by that of shorter
        ones."""
        model = build(snapshot, NoiseOptions.parse({f"qubit.{k}": v for k, v in options.items()}))
        survived = {}
        for half in (1, 3):
            survived[half] = 0
            for seed in range(4):
                circuit = mirror(np.random.default_rng(seed), 98, half)
                result = Runner("stabilizer")(
                    circuit, shots=2_000, seed=seed, noise=attach_noise(circuit, model)
                )
                survived[half] += counts_of(result)[0]
        return (survived[3] / survived[1]) ** 0.25

    assert abs(fidelity() - PUBLISHED) < 0.03
    assert fidelity(memory=0) > PUBLISHED + 0.05, "the errors of the gates alone"
