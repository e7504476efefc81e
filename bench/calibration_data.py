"""Counts of random circuits on an emulated device whose noise differs from its snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from noise_models import library
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.data import CountsData, CountsRecord, MeasuredCircuit, body_of
from simenv.calibration.score import Predictor
from simenv.client.circuits import load

DEVICE = "lima"
SHOTS = 8_000
PATH = (0, 1, 3, 4)  # coupled qubits
LAYERS = 6


def random_counts(
    circuits: int, num_qubits: int, seed: int = 1, snapshot: CalibrationSnapshot | None = None
) -> tuple[CountsData, CalibrationSnapshot]:
    """Return measured counts of random circuits, and the snapshot they are to be compared with. The
    circuits use native gates of DEVICE. The noise of the device that gave the counts differs from
    the snapshot, which is by default that of DEVICE."""
    name = DEVICE if snapshot is None else snapshot.name
    snapshot = snapshot or library.load(name)
    truth = changed(snapshot, np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    texts = [random_circuit(PATH[:num_qubits], rng) for _ in range(circuits)]
    return CountsData(tuple(measured(texts, truth, rng)), name), snapshot


def measured(
    texts: Sequence[str], truth: CalibrationSnapshot, rng: np.random.Generator, shots: int = SHOTS
) -> list[CountsRecord]:
    """Return counts of circuits (OpenQASM) on a device, drawn from its exact distributions."""
    predictor = Predictor(truth)
    records = []
    for number, text in enumerate(texts):
        loaded = load(text)
        source = MeasuredCircuit(text, loaded, loaded.program.num_clbits, body_of(loaded))
        record = CountsRecord(source, {0: 1}, 1, f"circuit-{number}", body=source.body)
        result = predictor.prediction(record)
        assert result is not None
        drawn = rng.multinomial(shots, result.probabilities / result.probabilities.sum())
        counts = {
            int(outcome): int(count)
            for outcome, count in zip(result.outcomes, drawn, strict=True)
            if count
        }
        records.append(msgspec.structs.replace(record, counts=counts, shots=shots))
    return records


def changed(snapshot: CalibrationSnapshot, rng: np.random.Generator) -> CalibrationSnapshot:
    """Return the snapshot with each value multiplied by a random factor between about 0.5 and 2."""

    def factor() -> float:
        return float(np.exp(rng.normal(0.0, 0.3)))

    qubits = tuple(
        msgspec.structs.replace(
            qubit,
            t1_us=(qubit.t1_us or 100.0) * factor(),
            t2_us=(qubit.t2_us or 100.0) * factor(),
            p01=min((qubit.p01 or 0.01) * factor(), 0.4),
            p10=min((qubit.p10 or 0.01) * factor(), 0.4),
        )
        for qubit in snapshot.qubits
    )
    scales: dict[tuple[int, ...], float] = {}
    gates = tuple(
        msgspec.structs.replace(
            gate,
            error=gate.error * scales.setdefault(tuple(sorted(gate.qubits)), factor())
            if gate.error
            else gate.error,
        )
        for gate in snapshot.gates
    )
    return msgspec.structs.replace(snapshot, qubits=qubits, gates=gates)


def random_circuit(path: tuple[int, ...], rng: np.random.Generator) -> str:
    """Return layers of random one-qubit gates and one cx on neighbours of DEVICE, as OpenQASM 2."""
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', "qreg q[5];", f"creg c[{len(path)}];"]
    for _ in range(LAYERS):
        for qubit in path:
            lines.append(f"rz({rng.uniform(0, 6.28):.4f}) q[{qubit}];")
            lines.append(f"sx q[{qubit}];")
        first = int(rng.integers(len(path) - 1))
        lines.append(f"cx q[{path[first]}],q[{path[first + 1]}];")
    lines += [f"measure q[{qubit}] -> c[{k}];" for k, qubit in enumerate(path)]
    return "\n".join(lines) + "\n"
