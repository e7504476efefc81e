"""Program of a circuit with noise for the transfer simulator: steps on pairs of qubits.

The operations on one qubit between two steps are a chain; a step is the chains of its two qubits
followed by the operations on the pair. Chains are tuples of numbers, so that equal chains, in one
circuit or in many, are multiplied once. Only the qubits that a circuit uses are included.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import from_unitary
from simulators.circuit.analysis.measurements import TERMINAL, has_mid_circuit_ops
from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, GATES, MEASURE, UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.operations import Operation, matrix, operations
from simulators.errors import Unsupported
from simulators.transfer.dual import DualMatrix, constant

Chain = tuple[int, ...]  # channels by number, constants by ~number, in order of action
_ID, _PHASE = GATES["id"].code, GATES["global_phase"].code


class ConstantTable:
    """Distinct transfer matrices of gates; shared by programs."""

    def __init__(self) -> None:
        self.matrices: list[DualMatrix] = []
        self._numbers: dict[bytes, int] = {}

    def number_of(self, ptm: NDArray[np.float64]) -> int:
        """Number of a matrix."""
        key = np.round(ptm, 14).tobytes()
        result = self._numbers.get(key)
        if result is None:
            result = self._numbers[key] = len(self.matrices)
            self.matrices.append(constant(ptm))
        return result

    def product(self, second: int, first: int) -> int:
        """Number of the product of two matrices of the table."""
        return self.number_of(self.matrices[second].values[0] @ self.matrices[first].values[0])


class PairStep(msgspec.Struct, frozen=True):
    """Step on qubits `low` and `high`, whose matrices have index 4 * high + low."""

    low: int
    high: int
    low_chain: Chain
    high_chain: Chain
    pair_chain: Chain


class TransferProgram(msgspec.Struct, frozen=True):
    """Steps of one circuit. Qubits are numbered from 0; `qubits` are their numbers in the
    circuit."""

    qubits: tuple[int, ...]
    steps: tuple[PairStep, ...]
    final: tuple[Chain, ...]  # final chain of each qubit
    measured: tuple[int, ...]  # qubit of each measured clbit
    clbits: tuple[int, ...]  # ascending; bit k of an outcome is clbits[k]

    @property
    def num_qubits(self) -> int:
        """Qubits of the state: 4^n real numbers."""
        return len(self.qubits)

    @property
    def work(self) -> int:
        """Cost: 4^qubits for each step."""
        return int(4**self.num_qubits * max(len(self.steps), 1))

    def channel_numbers(self) -> set[int]:
        """Numbers of its channels."""
        chains = [*self.final]
        for step in self.steps:
            chains += [step.low_chain, step.high_chain, step.pair_chain]
        return {number for chain in chains for number in chain if number >= 0}


def build(
    circuit: Circuit,
    noise: NoiseProgram,
    table: ConstantTable,
    channel_ids: list[int] | None = None,
) -> TransferProgram:
    """Make the program of an admissible circuit.

    `channel_ids`: number of each channel of `noise` in chains; by default its own number. Raises
    Unsupported for mid-circuit measurements, resets, conditions, free parameters, gates on more
    than two qubits and correlated readout.
    """
    return _Builder(circuit, noise, table, channel_ids).program()


class _Builder:
    def __init__(
        self,
        circuit: Circuit,
        noise: NoiseProgram,
        table: ConstantTable,
        channel_ids: list[int] | None,
    ) -> None:
        self._circuit = circuit
        self._table = table
        self._numbers = channel_ids if channel_ids is not None else list(range(len(noise.channels)))
        rows = circuit.table.rows[circuit.ops]
        self._codes, self._counts = rows[:, 0], rows[:, 1]
        self._refuse(noise)
        acts = np.repeat(self._codes != BARRIER, self._counts)
        used = np.unique(circuit.qubits[acts].astype(np.int64))
        self._place = {int(qubit): k for k, qubit in enumerate(used.tolist())}
        self._pending: list[Chain] = [()] * len(self._place)
        self._steps: list[PairStep] = []
        self._last: list[int] = [-1] * len(self._place)  # last step on each qubit
        self._locations = noise.locations[np.argsort(noise.locations[:, AFTER_OP], kind="stable")]

    def _refuse(self, noise: NoiseProgram) -> None:
        circuit, codes = self._circuit, self._codes
        roles = np.empty(circuit.ops.size, np.int64)
        mid = has_mid_circuit_ops(circuit, roles, keep=True)
        measures = codes == MEASURE
        gates = (codes >= UNITARY) & (self._counts > 2)
        other = (codes < MEASURE) & ~np.isin(codes, (BARRIER, DELAY, DELAY_DT))
        twice = np.unique(circuit.clbits).size < circuit.clbits.size
        for wrong, text in (
            (bool(circuit.conditions_data) or other.any(), "conditions or stored values"),
            (mid or (roles[measures] != TERMINAL).any(), "resets or mid-circuit measurements"),
            (twice, "a clbit that is measured twice"),
            (circuit.num_slots > 0, "free parameters"),
            (gates.any(), "gates on more than two qubits"),
            (noise.readout is not None and noise.readout.groups, "correlated readout"),
        ):
            if wrong:
                raise Unsupported(
                    f"the transfer simulator and {text}", hint="run it on another engine"
                )

    def program(self) -> TransferProgram:
        """See `build`."""
        measured: dict[int, int] = {}
        location = self._add_noise(0, -1)
        for operation in operations(self._circuit, self._circuit.params):
            self._operation(operation, measured)
            location = self._add_noise(location, operation.place)
        clbits = tuple(sorted(measured))
        return TransferProgram(
            tuple(self._place),
            tuple(self._steps),
            tuple(self._pending),
            tuple(measured[clbit] for clbit in clbits),
            clbits,
        )

    def _add_noise(self, location: int, place: int) -> int:
        """Add the channels from a location on up to those after an operation; returns the next
        location."""
        while location < len(self._locations) and self._locations[location, AFTER_OP] <= place:
            row = self._locations[location]
            qubits = (int(row[Q0]),) if row[Q1] < 0 else (int(row[Q0]), int(row[Q1]))
            self._act(self._numbers[int(row[CHANNEL])], qubits)
            location += 1
        return location

    def _operation(self, operation: Operation, measured: dict[int, int]) -> None:
        qubits = operation.qubits
        if operation.code == MEASURE:
            measured[operation.clbits[0]] = self._place[qubits[0]]
        elif operation.is_gate and qubits and operation.code not in (_ID, _PHASE):
            ptm = from_unitary(matrix(self._circuit, operation)).ptm
            self._act(~self._table.number_of(ptm), qubits)

    def _act(self, number: int, qubits: tuple[int, ...]) -> None:
        """Add a channel or a constant (~number) after the earlier operations on its qubits."""
        places = [self._place[qubit] for qubit in qubits]
        if len(places) == 1:
            self._pending[places[0]] = self._joined(self._pending[places[0]], number)
            return
        low, high = places
        last = self._last[low]
        if last >= 0 and last == self._last[high]:
            step = self._steps[last]
            if (step.low, step.high) == (low, high) and not (
                self._pending[low] or self._pending[high]
            ):
                chain = self._joined(step.pair_chain, number)
                self._steps[last] = msgspec.structs.replace(step, pair_chain=chain)
                return
        chains = self._pending[low], self._pending[high]
        self._last[low] = self._last[high] = len(self._steps)
        self._steps.append(PairStep(low, high, *chains, (number,)))
        self._pending[low] = self._pending[high] = ()

    def _joined(self, chain: Chain, number: int) -> Chain:
        """Chain with one more number; two consecutive constants are multiplied."""
        if number < 0 and chain and chain[-1] < 0:
            return (*chain[:-1], ~self._table.product(~number, ~chain[-1]))
        return (*chain, number)
