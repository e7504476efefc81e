"""Decoupling sequences on a device whose qubits have T2* below T2: what theory says that they gain.

An instantaneous half turn changes the sign of the rotation by the detuning of a shot, so that a
qubit that waits for t with half turns ends with the rotation s t_s, t_s the sum of its parts with
their signs (Viola and Lloyd, Phys. Rev. A 58, 2733). Its coherence is exp(-t / T2 - (s t_s)^2 / 2),
times what the errors of the half turns leave.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import XGate, YGate
from qiskit.transpiler import PassManager
from qiskit.transpiler.passes import (
    ALAPScheduleAnalysis,
    PadDynamicalDecoupling,
    TimeUnitConversion,
)

from noise_models import snapshot
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)
from simenv.client.client import Client
from simenv.frontends.qiskit import SimenvBackend

T2_US, STAR_US, ERROR, DT_NS, X_NS = 120.0, 15.0, 4e-4, 4.0, 40.0
S = math.sqrt(2.0 * (1.0 - STAR_US / T2_US)) / STAR_US  # rad per us
GATES = ("sx", "x", "y", "rz", "cz")


@pytest.fixture(scope="module")
def device(home: Path) -> str:
    qubit = QubitCalibration(t1_us=1e5, t2_us=T2_US, t2_star_us=STAR_US, readout_ns=1000.0)
    durations = {"sx": X_NS, "x": X_NS, "y": X_NS, "rz": 0.0, "cz": 200.0}
    values = CalibrationSnapshot(
        "decoupled", 3, dt_ns=DT_NS, coupling=((0, 1), (1, 0), (1, 2), (2, 1)),
        native_gates=tuple(NativeGate(g, 1 + (g == "cz"), int(g == "rz")) for g in GATES),
        qubits=(qubit,) * 3,
        gates=tuple(
            GateCalibration(name, (), 0.0 if name == "rz" else ERROR, durations[name])
            for name in GATES
        ),
    )  # fmt: skip
    (home / "devices" / "decoupled.json").write_bytes(snapshot.dump(values))
    return "decoupled"


def coherence(client: Client, device: str, circuit: QuantumCircuit, **options: object) -> float:
    """2 P(0) - 1 of the last qubit that a Ramsey sequence measures, exactly."""
    result = client.run(
        circuit, device=device, compile="never", shots=0, outputs=("probabilities",), **options
    )
    return 1.0 - 2.0 * sum(p for bits, p in result.probabilities.items() if "1" in str(bits))


def theory(time_us: float, signed_us: float, gates: int) -> float:
    """Coherence after a wait; each gate but the frame keeps 1 - 2 e of it (d = 2)."""
    return math.exp(-time_us / T2_US - 0.5 * (S * signed_us) ** 2) * (1.0 - 2.0 * ERROR) ** gates


def ramsey(time_us: float, places: tuple[float, ...] = (), names: str = "x") -> QuantumCircuit:
    """Ramsey sequence that ends in |0>, with half turns at these parts of the wait."""
    circuit = QuantumCircuit(3, 1)
    circuit.sx(1)
    last = 0.0
    for k, place in enumerate((*places, 1.0)):
        circuit.delay((place - last) * time_us, 1, unit="us")
        if k < len(places):
            getattr(circuit, names[k % len(names)])(1)
        last = place
    # Y turns keep the state along Y, X turns reverse it, as the second quarter turn needs.
    turned = sum(names[k % len(names)] == "x" for k in range(len(places))) % 2
    circuit.rz(0.0 if turned else math.pi, 1)
    circuit.sx(1)
    circuit.measure(1, 0)
    return circuit


def cpmg(count: int) -> tuple[float, ...]:
    return tuple((k + 0.5) / count for k in range(count))


SEQUENCES = {
    "echo": (cpmg(1), "x"), "X2": (cpmg(2), "x"), "XY4": (cpmg(4), "xy"), "CPMG8": (cpmg(8), "x"),
    "one third": ((1 / 3,), "x"), "off centre": ((0.2, 0.5), "x"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("time_us", [8.0, 25.0])
def test_a_sequence_gains_what_theory_says(
    client: Client, device: str, name: str, time_us: float
) -> None:
    places, names = SEQUENCES[name]
    signs = (-1.0) ** np.arange(len(places) + 1)
    signed = time_us * float(signs @ np.diff((0.0, *places, 1.0)))
    free = coherence(client, device, ramsey(time_us))
    result = coherence(client, device, ramsey(time_us, places, names))
    assert free == pytest.approx(theory(time_us, time_us, 2), rel=0.05)
    gain = theory(time_us, signed, 2 + len(places)) / theory(time_us, time_us, 2)
    assert result / free == pytest.approx(gain, rel=0.05)
    markovian = {"noise": {"qubit.quasistatic": 0}}
    lost = coherence(client, device, ramsey(time_us, places, names), **markovian)
    assert lost < coherence(client, device, ramsey(time_us), **markovian)


@pytest.mark.parametrize("sequence", [[XGate()] * 2, [XGate(), YGate()] * 2, [XGate()] * 8])
def test_the_pass_of_qiskit_gains_what_theory_says(
    client: Client, device: str, sequence: list
) -> None:
    """A qubit waits while its neighbours have gates on them."""
    circuit = QuantumCircuit(3, 1)
    circuit.sx(1)
    circuit.barrier()
    for _ in range(200):
        circuit.x(0)
    circuit.barrier()
    circuit.rz(math.pi, 1)
    circuit.sx(1)
    circuit.measure(1, 0)
    target = SimenvBackend(device, client).target
    padded = PassManager(
        [
            TimeUnitConversion(target=target),
            ALAPScheduleAnalysis(target=target),
            PadDynamicalDecoupling(target=target, dd_sequence=sequence, qubits=[1]),
        ]
    ).run(circuit)
    assert padded.count_ops()["delay"] > len(sequence)
    free, gained = coherence(client, device, circuit), coherence(client, device, padded)
    time_us = 200 * 1e-3 * X_NS
    waited_us = time_us - len(sequence) * 1e-3 * X_NS
    wanted = theory(waited_us, 0.0, 2 + len(sequence)) / theory(time_us, time_us, 2)
    assert gained / free == pytest.approx(wanted, rel=0.05)


def test_counts_of_trajectories_gain_as_much(client: Client, device: str) -> None:
    gains = []
    for circuit in (ramsey(12.0), ramsey(12.0, cpmg(2))):
        result = client.run(
            circuit, device=device, compile="never", shots=40_000, seed=3, engine="statevector"
        )
        gains.append(2.0 * result.counts.get("0", 0) / 40_000 - 1.0)
    wanted = theory(12.0, 0.0, 4) / theory(12.0, 12.0, 2)
    assert gains[1] / gains[0] == pytest.approx(wanted, rel=0.05)
