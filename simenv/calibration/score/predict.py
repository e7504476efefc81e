"""Predictions: distributions of a device model for measured circuits.

A circuit is compiled as `Client.submit` compiles it. Distributions are exact up to EXACT_QUBITS
used qubits. Wider Clifford circuits are exact for the Pauli twirl of their noise up to
`parity.MAX_BITS` bits, and sampled by the stabilizer engine beyond; other circuits are sampled by
trajectories; circuits that are too wide for that have no distribution.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.build import build as noise_model
from noise_models.calibration import CalibrationSnapshot
from noise_models.options import NoiseOptions
from simenv.calibration.data.records import CountsRecord
from simenv.calibration.fit.compile import CompiledRun, DeviceCompiler
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.circuit.passes.components import extract_part
from simulators.circuit.passes.noise_part import noise_of_part
from simulators.errors import EngineError, Unsupported
from simulators.simulate import counts_of, simulate
from simulators.transfer.dual import constant
from simulators.transfer.evaluate import ChannelSet, OutcomeDistribution, outcomes
from simulators.transfer.parity import parity_outcomes, parity_program
from simulators.transfer.program import ConstantTable, TransferProgram, build

EXACT_QUBITS = 11
SAMPLED_QUBITS = 20  # limit of trajectories
SAMPLES = 2**17
SEED = 7
_DEFAULT = NoiseOptions()


class Prediction(msgspec.Struct, frozen=True, eq=False):
    """Probabilities by outcome of the circuit's clbits. `samples`: 0 for exact ones."""

    outcomes: NDArray[np.object_]  # [k] int
    probabilities: NDArray[np.float64]  # [k]
    num_bits: int  # measured
    num_qubits: int  # used
    two_qubit_gates: int
    depth: int  # two-qubit gates on the longest path
    samples: int
    how: str


class Predictor:
    """Predictions of one snapshot with noise options; equal circuits are predicted once."""

    def __init__(
        self,
        snapshot: CalibrationSnapshot,
        options: NoiseOptions = _DEFAULT,
        compiler: DeviceCompiler | None = None,
        most_work: int = 0,
    ) -> None:
        """Set up. `compiler`: of another snapshot of the device, to compare noise on equal
        circuits. `most_work`: circuits with more than this number of 4^qubits steps have no
        distribution, nor those that must be sampled; 0: no limit."""
        self._most_work = most_work
        self._compiler = compiler or DeviceCompiler(snapshot)
        self._noise = NoiseAttachment(noise_model(snapshot, options))
        self._known: dict[int, Prediction | None] = {}

    def prediction(self, record: CountsRecord) -> Prediction | None:
        """Prediction for a record's circuit; None if it is too wide. Raises DataError."""
        run = self._compiler.run_of(record)
        key = id(run)
        if key not in self._known:
            self._known[key] = self._predicted(run)
        return self._known[key]

    def _predicted(self, run: CompiledRun) -> Prediction | None:
        noise = self._noise.attach(run.circuit)
        table = ConstantTable()
        try:
            program = build(run.circuit, noise, table)
            if program.num_qubits <= EXACT_QUBITS and 0 < self._most_work < program.work:
                return None
            result, how = _exact(program, noise, table)
        except Unsupported:
            return None if self._most_work else _sampled(run.circuit, noise)
        return Prediction(
            _spread(len(result.probabilities), program.clbits),
            np.maximum(result.probabilities, 0.0),
            len(program.clbits),
            program.num_qubits,
            *two_qubit_gates(run.circuit),
            0,
            how,
        )


def _exact(
    program: TransferProgram, noise: NoiseProgram, table: ConstantTable
) -> tuple[OutcomeDistribution, str]:
    """Distribution without sampling, with the name of the method. Raises Unsupported."""
    read = noise.readout
    confusion = {}
    for qubit in program.qubits if read is not None else ():
        up, down = float(read.p01[qubit]), float(read.p10[qubit])  # type: ignore[union-attr]
        confusion[qubit] = constant(np.array([[1.0 - up, down], [up, 1.0 - down]]))
    channels = ChannelSet([constant(channel.ptm) for channel in noise.channels], confusion, table)
    if program.num_qubits <= EXACT_QUBITS:
        return outcomes(program, channels), "exact"
    return parity_outcomes(parity_program(program, table), channels), "Pauli twirl, exact"


def _spread(size: int, clbits: tuple[int, ...]) -> NDArray[np.object_]:
    """Outcome over all clbits for each outcome of the measured ones."""
    return np.array(
        [sum((x >> k & 1) << clbit for k, clbit in enumerate(clbits)) for x in range(size)], object
    )


def _sampled(circuit: Circuit, noise: NoiseProgram) -> Prediction | None:
    used = np.unique(circuit.qubits.astype(np.int64))
    part = extract_part(circuit, np.ones(circuit.ops.size, np.bool_), used)
    moved = noise_of_part(noise, noise.locations, part.operations, used)
    attempts: list[tuple[str, str, tuple[tuple[str, int | float], ...]]]
    attempts = [("stabilizer", "Pauli twirl, sampled", (("twirl", 1),))]
    if used.size <= SAMPLED_QUBITS:
        attempts.append(("statevector", "trajectories, sampled", ()))
    for engine, how, settings in attempts:
        try:
            result = simulate(
                part.circuit,
                engine=engine,
                noise=moved,
                shots=SAMPLES,
                seed=SEED,
                settings=settings,
            )
        except EngineError:
            continue
        counts = counts_of(result.row(0))
        return Prediction(
            np.array(list(counts), object),
            np.array(list(counts.values()), np.float64) / SAMPLES,
            int(np.unique(circuit.clbits).size),
            int(used.size),
            *two_qubit_gates(circuit),
            SAMPLES,
            how,
        )
    return None


def two_qubit_gates(circuit: Circuit) -> tuple[int, int]:
    """Number of two-qubit gates, and of those on the longest path."""
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1]) - rows[:, 1]
    depth = np.zeros(circuit.num_qubits, np.int64)
    places = np.flatnonzero((rows[:, 1] == 2) & (rows[:, 0] >= UNITARY)).tolist()
    for k in places:
        pair = circuit.qubits[begins[k] : begins[k] + 2].astype(np.int64)
        depth[pair] = depth[pair].max() + 1
    return len(places), int(depth.max(initial=0))
