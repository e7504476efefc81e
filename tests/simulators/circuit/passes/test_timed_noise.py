"""Relaxation while a ZZ interaction acts, against the integrated Lindblad equation."""

import copy
import functools
import itertools
import math

import numpy as np
import pytest
from arrays import Arrays
from engines import Runner
from noisy import Exact, p_value, program
from numpy.typing import NDArray
from reference import Operation
from scipy.linalg import expm

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
    ZZCoupling,
)
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.timed_noise import SPLIT_ERROR
from simulators.simulate import counts_of

Matrix = NDArray[np.complex128]
READOUT_NS = 4000.0


def device(
    rates_khz: dict[tuple[int, int], float], t1_us: float, t2_us: float, excited: float = 0.0
) -> CalibrationSnapshot:
    """Gates without errors and durations; a readout that takes its time."""
    num_qubits = 1 + max(map(max, rates_khz))
    qubit = QubitCalibration(
        t1_us=t1_us, t2_us=t2_us, excited=excited, preparation_error=0.0, readout_ns=READOUT_NS
    )
    return CalibrationSnapshot(
        name="pair", num_qubits=num_qubits, dynamic=True,
        native_gates=(NativeGate("sx", 1), NativeGate("x", 1), NativeGate("cx", 2)),
        coupling=tuple(rates_khz), qubits=(qubit,) * num_qubits, gates=(GateCalibration("sx", ()),),
        zz=tuple(ZZCoupling(pair, rate) for pair, rate in rates_khz.items()),
    )  # fmt: skip


def lowering(qubit: int, num_qubits: int) -> Matrix:
    parts = [np.eye(2)] * num_qubits
    parts[qubit] = np.array([[0.0, 1.0], [0.0, 0.0]])
    return functools.reduce(lambda built, part: np.kron(part, built), parts, np.eye(1))


def liouvillian(snapshot: CalibrationSnapshot) -> Matrix:
    """Generator per us, for vectors whose index has the bits of the ket below those of the bra:
    interaction |11><11|, decay and excitation, and the rest of the dephasing."""
    size = 1 << snapshot.num_qubits
    down = [lowering(qubit, snapshot.num_qubits) for qubit in range(snapshot.num_qubits)]
    excited = [each.T @ each for each in down]
    phases = np.zeros((size, size))
    for coupled in snapshot.zz:
        a, b = coupled.qubits
        phases += 2e-3 * np.pi * coupled.rate_khz * excited[a] @ excited[b]
    eye = np.eye(size)
    result = -1j * (np.kron(eye, phases) - np.kron(phases, eye))
    for calibration, low, number in zip(snapshot.qubits, down, excited, strict=True):
        t1_us, t2_us, p = calibration.t1_us, calibration.t2_us, calibration.excited
        assert t1_us
        assert t2_us
        assert p is not None
        pure = 1.0 / t2_us - 0.5 / t1_us
        for rate, jump in (((1.0 - p) / t1_us, low), (p / t1_us, low.T), (2.0 * pure, number)):
            square = jump.T @ jump
            result += rate * np.kron(jump, jump)
            result -= 0.5 * rate * (np.kron(eye, square) + np.kron(square, eye))
    return result


class Integrated(Exact):
    """Lindblad equation between the operations of a circuit, in which all qubits wait together."""

    def __init__(self, circuit: Circuit, snapshot: CalibrationSnapshot) -> None:
        self._generator, self._waited = liouvillian(snapshot), 0
        super().__init__(circuit, program([]))

    def _one(self, row: Operation, states: dict[int, Matrix]) -> dict[int, Matrix]:
        if row.name != "delay":
            return super()._one(row, states)
        self._waited += 1
        if self._waited % self.n:
            return states
        evolution = expm(1e-3 * row.params[0] * self._generator)
        return {record: evolution @ state for record, state in states.items()}


def distance(circuit: Arrays, snapshot: CalibrationSnapshot) -> float:
    """Total variation distance of the model and the equation."""
    built = circuit.circuit()
    expected = Integrated(built, snapshot).probs
    result = Exact(built, attach_noise(built, build(snapshot))).probs
    keys = expected.keys() | result.keys()
    return 0.5 * sum(abs(expected.get(key, 0.0) - result.get(key, 0.0)) for key in keys)


def wait(circuit: Arrays, time_us: float) -> Arrays:
    for qubit in range(circuit.num_qubits):
        circuit.add("delay", [qubit], params=[1e3 * time_us])
    return circuit


CASES = [
    (5.0, 100.0, 50.0, 70.0, 0.0),
    (5.0, 100.0, 50.0, 30.0, 0.1),
    (1.0, 100.0, 50.0, 70.0, 0.0),
    (20.0, 100.0, 50.0, 100.0, 0.02),
    (50.0, 20.0, 100.0, 80.0, 0.0),
    (0.5, 400.0, 10.0, 15.0, 0.0),
    (100.0, -60.0, 40.0, 60.0, 0.5),
    (0.3, 50.0, 80.0, 90.0, 0.01),
]


@pytest.mark.parametrize(("time_us", "rate_khz", "t1_us", "t2_us", "excited"), CASES)
def test_a_pair_that_relaxes_and_interacts_follows_the_lindblad_equation(
    time_us: float, rate_khz: float, t1_us: float, t2_us: float, excited: float
) -> None:
    """Relaxation first and then the whole phase is off by .043 in the first case."""
    snapshot = device({(0, 1): rate_khz}, t1_us, t2_us, excited)
    for first, second in itertools.product(("h", "x"), ("h", "x")):
        circuit = wait(Arrays(2, 2).add(first, [0]).add(second, [1]), time_us)
        circuit.add("h", [0]).add("sx", [1]).measure(range(2))
        assert distance(circuit, snapshot) < 2.0 * SPLIT_ERROR < 1e-3


def test_gates_of_neighbours_do_not_widen_the_error() -> None:
    """Three qubits of a chain, of which some have gates while the others wait."""
    snapshot = device({(0, 1): 100.0, (1, 2): 60.0}, 50.0, 60.0, 0.02)
    rng = np.random.default_rng(5)
    for _ in range(4):
        circuit = Arrays(3, 3)
        for qubit in range(3):
            circuit.add("h", [qubit])
        for _ in range(6):
            wait(circuit, float(rng.choice([0.1, 0.4, 1.5])))
            for qubit in rng.permutation(3)[:2].tolist():
                circuit.add(str(rng.choice(["h", "sx", "x", "s"])), [qubit])
        circuit.add("h", [0]).add("h", [1]).add("h", [2]).measure(range(3))
        assert distance(circuit, snapshot) < 3.0 * SPLIT_ERROR


def test_an_echo_amid_a_long_time_is_resolved() -> None:
    snapshot = device({(0, 1): 100.0}, 50.0, 60.0)
    circuit = wait(Arrays(2, 2).add("h", [0]).add("h", [1]), 2.6)
    circuit = wait(circuit.add("x", [0]), 2.4).add("h", [0]).add("h", [1]).measure(range(2))
    assert distance(circuit, snapshot) < 2.0 * SPLIT_ERROR


@pytest.mark.parametrize("name", ["densitymatrix", "statevector", "mps"])
def test_pair_decoupled_at_the_same_times_is_independent_of_the_listing(name: str) -> None:
    """Half turns of both qubits leave their interaction. Listed by qubit, those of the first came
    before all of the second, and the interaction was refocused."""
    snapshot = device({(0, 1): 40.0}, 200.0, 150.0)
    together = Arrays(2, 2).add("h", [0]).add("x", [1]).add("barrier", [0, 1])
    listed = copy.deepcopy(together)
    for time_us in (2.0, 4.0, 2.0):
        wait(together, time_us).add("x", [0]).add("x", [1])
    for qubit in range(2):
        for time_us in (2.0, 4.0, 2.0):
            listed.add("delay", [qubit], params=[1e3 * time_us]).add("x", [qubit])
    for circuit in (together, listed):
        circuit.add("barrier", [0, 1]).add("h", [0]).measure(range(2))
    expected = Integrated(together.circuit(), snapshot).probs
    # Without relaxation 0.5 (1 + cos(w t / 2)) of qubit 0 are where they began: 0.77.
    assert 0.70 < sum(p for bits, p in expected.items() if not bits & 1) < 0.80
    built = listed.circuit()
    noise = attach_noise(built, build(snapshot))
    assert noise.ordered is not None
    found = Exact(built, noise).probs
    keys = expected.keys() | found.keys()
    assert 0.5 * sum(abs(expected.get(k, 0.0) - found.get(k, 0.0)) for k in keys) < 1e-3
    result = Runner(name)(built, shots=20_000, noise=noise)
    assert p_value(expected, counts_of(result)) > 1e-6


def test_a_qubit_that_is_read_relaxes_beside_its_interaction() -> None:
    """The phase of the neighbour tells when the measured qubit decayed."""
    snapshot = device({(0, 1): 100.0}, 20.0, 30.0)
    begin = Arrays(2, 3).add("x", [0]).add("h", [1]).add("measure", [0], [0])
    waits = wait(copy.deepcopy(begin), 1e-3 * READOUT_NS)
    timed = begin.add("delay", [1], params=[READOUT_NS])
    for circuit in (timed, waits):
        circuit.add("x", [0]).add("h", [1]).add("measure", [0], [1]).add("measure", [1], [2])
    expected = Integrated(waits.circuit(), snapshot).probs
    built = timed.circuit()
    result = Exact(built, attach_noise(built, build(snapshot))).probs
    keys = expected.keys() | result.keys()
    error = 0.5 * sum(abs(expected.get(key, 0.0) - result.get(key, 0.0)) for key in keys)
    assert error < 2.0 * SPLIT_ERROR


def test_a_time_below_the_bound_has_one_channel_and_one_piece() -> None:
    snapshot = device({(0, 1): 20.0}, 100.0, 100.0)
    circuit = wait(Arrays(2, 2).add("h", [0]).add("h", [1]), 0.1)
    circuit.add("h", [0]).add("h", [1]).measure(range(2))
    noise = attach_noise(circuit.circuit(), build(snapshot))
    assert len(noise.locations) == 4, "one of them a piece during the readout"
    assert distance(circuit, snapshot) < 2.0 * SPLIT_ERROR


@pytest.mark.parametrize("name", ["densitymatrix", "statevector", "mps"])
def test_engines_agree_with_the_equation(name: str) -> None:
    snapshot = device({(0, 1): 100.0, (1, 2): 80.0}, 50.0, 70.0)
    circuit = Arrays(3, 3).add("h", [0]).add("h", [1]).add("h", [2])
    wait(circuit, 5.0).add("h", [0]).add("h", [1]).add("h", [2])
    built = circuit.measure(range(3)).circuit()
    result = Runner(name)(built, shots=20_000, noise=attach_noise(built, build(snapshot)))
    assert p_value(Integrated(built, snapshot).probs, counts_of(result)) > 1e-6


@pytest.mark.parametrize("name", ["densitymatrix", "statevector", "statevector-dense", "mps"])
@pytest.mark.parametrize("wait_us", [0.0, 10.0])
def test_a_qubit_relaxes_between_two_measurements(name: str, wait_us: float) -> None:
    """The second outcome is that of the first readout's end, or of the wait behind it."""
    t1_us = 20.0
    snapshot = device({(0, 1): 0.0}, t1_us, t1_us)
    circuit = Arrays(2, 2).add("x", [0]).add("measure", [0], [0])
    if wait_us:
        circuit.add("delay", [0], params=[1e3 * wait_us])
    built = circuit.add("measure", [0], [1]).circuit()
    left = math.exp(-(1e-3 * READOUT_NS + wait_us) / t1_us)
    noise = attach_noise(built, build(snapshot))
    result = Runner(name)(built, shots=20_000, noise=noise)
    assert p_value({1: 1.0 - left, 3: left}, counts_of(result)) > 1e-6
