"""Qubits that leak in trajectories by error patterns; against the density matrix:
tests/simulators/execution/test_leakage.py."""

import numpy as np
import pytest
from arrays import Arrays
from noise_references import attached, chip

from noise_models.calibration import GateCalibration, QubitCalibration
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import BindingResult, PauliSum, Request, RunControl, RunOptions
from simulators.statevector.engine import StatevectorEngine

QUBITS, SHOTS = 9, 600


def leaking(num_qubits: int, *, star: bool = False) -> tuple[Circuit, NoiseProgram]:
    """Four layers of gates that leak and come back; `star`: the qubits have detunings, too."""
    gates = [
        GateCalibration("sx", (), 0.01, 35.0, leakage=0.01, seepage=0.2),
        GateCalibration("cx", (), 0.03, 300.0, leakage=0.02, seepage=0.1),
    ]
    star_us = 5.0 if star else None
    qubit = QubitCalibration(
        t1_us=60.0, t2_us=50.0, t2_star_us=star_us, p01=0.01, p10=0.02, leaked_readout=0.7
    )
    pairs = tuple((k, k + 1) for k in range(num_qubits - 1))
    circuit = Arrays(num_qubits, num_qubits)
    for layer in range(4):
        for q in range(num_qubits):
            circuit.add("sx", [q])
        for q in range(layer % 2, num_qubits - 1, 2):
            circuit.add("cx", [q, q + 1])
    built = circuit.measure(range(num_qubits)).circuit()
    return built, attached(built, chip(gates, [qubit] * num_qubits, coupling=pairs))


def result(
    circuit: Circuit, noise: NoiseProgram, *, small: bool = True, threads: int = 1,
    shots: int = SHOTS,
) -> BindingResult:  # fmt: skip
    engine, options = StatevectorEngine(small=small), RunOptions(threads=threads)
    plan = engine.plan(circuit, noise, options)
    request = Request(shots, 7, ("memory",))
    return engine.run(plan, circuit, request, options, RunControl()).row(0)


@pytest.mark.parametrize("star", [False, True])
def test_a_shot_depends_on_neither_threads_nor_shots_nor_the_way_states_advance(star: bool) -> None:
    circuit, noise = leaking(QUBITS, star=star)
    memory = result(circuit, noise).memory
    assert len(set(np.frombuffer(memory, np.uint16).tolist())) > 50
    assert result(circuit, noise, threads=3).memory == memory
    assert result(circuit, noise, small=False).memory == memory
    if not star:  # detunings of all shots are drawn at once
        assert result(circuit, noise, shots=SHOTS // 2).memory == memory[: len(memory) // 2]


def test_shots_that_leak_are_drawn_before_the_run() -> None:
    """As patterns of errors: a run by splitting branches has hundreds of states at once."""
    assert result(*leaking(3)).remark.endswith("error patterns")


def test_a_leaked_qubit_mixes_its_partner_and_is_read_by_its_own_probability() -> None:
    """Qubit 0 leaks from |1> but for 2 %, does not come back, and is read as |1> with 0.7. Its gate
    after the interaction does not tell whether its partner is flipped."""
    gates = [
        GateCalibration("x", (), 0.5, 35.0, leakage=0.49),
        GateCalibration("sx", (), 0.0, 35.0),
        GateCalibration("cx", (), 0.0, 300.0),
    ]
    qubits = [QubitCalibration(leaked_readout=0.7), QubitCalibration()]
    circuit = Arrays(2, 2).add("x", [0]).add("sx", [0]).add("cx", [0, 1]).add("x", [0])
    built = circuit.measure(range(2)).circuit()
    noise = attached(built, chip(gates, qubits, coupling=((0, 1),)))
    shots = 20_000
    bits = np.frombuffer(result(built, noise, shots=shots).memory, np.uint8)
    spread = 5.0 * 0.5 / np.sqrt(shots)
    # The gate's own error is a part of its leakage: none is left.
    late = 0.5 * (0.98 * 0.7 + 0.02)
    assert abs((bits & 1).mean() - (0.98 * 0.7 + 0.02 * late)) < spread
    assert abs((bits >> 1).mean() - 0.5) < spread


def test_means_of_shots_that_leak_have_the_exact_value() -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("x", [1]).circuit()
    gates = [GateCalibration("x", (), 0.2, 35.0, leakage=0.2, seepage=0.1)]
    noise = attached(circuit, chip(gates, [QubitCalibration()] * 2, coupling=((0, 1),)))
    engine, options = StatevectorEngine(), RunOptions()
    sums = tuple(PauliSum((each,), np.ones(1)) for each in ("IZ", "ZZ"))
    request = Request(20_000, 3, ("expectation",), sums)
    plan = engine.plan(circuit, noise, options)
    found = engine.run(plan, circuit, request, options, RunControl()).row(0).expectations
    stays = 1.0 - 0.4
    for (mean, error), wanted in zip(found, (-stays, stays**2), strict=True):
        assert abs(mean - wanted) < 5.0 * error
