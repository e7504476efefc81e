"""Engine `near_clifford`: circuits of Clifford gates and few others, through ticit.

ticit holds amplitudes of the active qubits alone (`circuit.analysis.active_width`), shot by shot,
with Pauli errors and the outcomes of measurements as signs (SymFT, arXiv:2607.28600). Counts are
sampled in blocks of shots with seeds of their own, which threads share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import ticit
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.catalog.costs import NearCliffordCost
from simulators.circuit.analysis.active_width import active_size, measured_early
from simulators.circuit.analysis.measurements import (
    ORDINARY,
    TERMINAL,
    MeasurementLayout,
    MeasurementLayouts,
)
from simulators.circuit.analysis.profile import ActiveSize
from simulators.circuit.ir import Circuit, Operation
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.pauli_rotations import Rotation, rotations_of
from simulators.engine import SHOTS, Plan, Request, RunControl, RunOptions, ThreadPool, ThreadWork
from simulators.errors import OTHER_ENGINE, Unsupported
from simulators.execution import outputs, packing, philox
from simulators.stabilizer.convert import Instruction, NoiseLines, Writer
from simulators.stabilizer.engine import PauliNoisePlan, StabilizerEngine
from simulators.trajectories.shot_blocks import Moments

CARD, COSTS = builtin_card("near_clifford"), NearCliffordCost()
BLOCK_WORK = 2**24  # amplitudes that a block of shots passes over, at most, if it can be divided
_TOGETHER = 64  # blocks of each thread between two batches
_SEEN_AS_Z = {"X": "H", "Y": "H_YZ"}  # gates that exchange a letter and Z
_TURNS = {
    "X": ("SQRT_X", "X", "SQRT_X_DAG"),
    "Y": ("SQRT_Y", "Y", "SQRT_Y_DAG"),
    "Z": ("S", "Z", "S_DAG"),
}


class TicitCircuit(msgspec.Struct, frozen=True, eq=False):
    """Circuit for ticit, without what only outputs ask for, and the source of each clbit."""

    text: str
    source: NDArray[np.int64]  # [num_clbits]: index of a record, or -1
    identical: bool


def convert(
    circuit: Circuit, given: Iterable[Operation], end: MeasurementLayout, noise: NoiseLines
) -> TicitCircuit:
    """Convert a circuit's operations. Raises Unsupported for gates that have no rotations, and
    for conditions that are no parity."""
    writer = _RotationWriter(circuit, end, False, noise.flips)
    # Measured at their places, qubits are not active up to the end.
    writer.roles = [ORDINARY if role == TERMINAL else role for role in writer.roles]
    writer.final = np.full_like(writer.final, -1)
    writer.take_all(given, noise)
    source, identical = writer.finish()
    return TicitCircuit("\n".join([*writer.lines, ""]), source, identical)


class _RotationWriter(Writer):
    """Writer of ticit's lines: gates that are no Clifford gates, and gates under a condition, as
    Pauli rotations."""

    engine = CARD.name
    clifford_alone = "write it as gates on one and two qubits"

    def other_gate(self, operation: Operation, why: str) -> tuple[Instruction, ...]:
        found = rotations_of(self.circuit, operation)
        if found is None:
            raise self.refusal(operation, f"{why}, and no product of rotations here")
        return tuple(step for rotation in found for step in _turned(rotation, rotation.angle))

    def under_condition(self, operation: Operation, instructions: tuple[Instruction, ...]) -> None:
        """Write the rotations where the condition holds: half of the angle, and the other half
        with the sign that the condition gives it."""
        found = rotations_of(self.circuit, operation)
        if found is None:
            super().under_condition(operation, instructions)
            return
        for rotation in found:
            string = [(letter, operation.qubits[j]) for letter, j in _letters(rotation)]
            if rotation.quarters == 2:
                for letter, qubit in string:
                    self.controlled(letter, qubit)
                continue
            half = [
                f"{name} {' '.join(str(operation.qubits[k]) for k in targets)}"
                for name, targets in _turned(rotation, 0.5 * rotation.angle)
            ]
            letter, qubit = string[0]
            opposite = "Z" if letter == "X" else "X"
            self.append(half)
            self.controlled(opposite, qubit, negated=True)
            self.append(half)
            self.controlled(opposite, qubit, negated=True)


def _letters(rotation: Rotation) -> list[tuple[str, int]]:
    """Letters of a rotation's string with their qubits."""
    both = rotation.x | rotation.z
    return [
        ("IXZY"[(rotation.x >> j & 1) + 2 * (rotation.z >> j & 1)], j)
        for j in range(both.bit_length())
        if both >> j & 1
    ]


def _turned(rotation: Rotation, angle: float) -> list[Instruction]:
    """Instructions of a rotation about its string by this angle, which is turned to a Z."""
    letters = _letters(rotation)
    quarters = rotation._replace(angle=angle).quarters
    letter, last = letters[-1]
    before: list[Instruction] = []
    if len(letters) > 1:
        before = [(_SEEN_AS_Z[own], (j,)) for own, j in letters if own != "Z"]
        before += [("CX", (j, last)) for _, j in letters[:-1]]
        letter = "Z"
    # ticit counts angles in half turns.
    name = f"R_{letter}({angle / math.pi!r})" if quarters < 0 else _TURNS[letter][quarters - 1]
    return [*before, *([(name, (last,))] if quarters else []), *reversed(before)]


class NearCliffordEngine(StabilizerEngine):
    """Engine for Clifford circuits with few other gates. How many qubits are active follows from
    a binding's angles, and is checked at the run."""

    card = CARD

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare as `StabilizerEngine`; refuses noise under a condition."""
        result = super().plan(circuit, noise, options)
        if noise is None or not isinstance(result, PauliNoisePlan):
            return result
        if result.paulis.under:
            text = "noise under a condition, by engine 'near_clifford'"
            raise Unsupported(text, hint=f"leave the noise out; {OTHER_ENGINE}")
        return _LocatedPlan(
            result.clbits, result.state, result.paulis, result.readout, result.twirled, noise
        )

    def check(self, layouts: MeasurementLayouts, request: Request, options: RunOptions) -> None:
        """Refuse exact values of what is sampled."""
        del options
        is_mixed = isinstance(layouts, PauliNoisePlan) or layouts.state.branching
        if "expectation" in request.outputs and is_mixed and not request.shots:
            text = "exact values of a circuit with noise, or with measurements or conditions before"
            text += " its end, by engine 'near_clifford'"
            raise Unsupported(text, hint=f"it takes means over shots: give shots; {OTHER_ENGINE}")

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:
        return _SampledState(run)


class _LocatedPlan(PauliNoisePlan, frozen=True, eq=False):
    """Plan of a circuit with noise, and where the noise is."""

    noise: NoiseProgram


class _SampledState(outputs.FinalState):
    """One binding: its circuit as text, which each thread compiles."""

    def __init__(self, run: outputs.BoundRun) -> None:
        self.num_qubits = run.circuit.num_qubits
        located = run.layouts.noise if isinstance(run.layouts, _LocatedPlan) else None
        self._size = _size_of(run.circuit, run.params, located)
        self.remark = f"{self._size.qubits} active qubits"
        noise = NoiseLines({}, {})
        self._is_mixed = run.layouts.state.branching
        if isinstance(run.layouts, PauliNoisePlan):
            noise, self.readout = run.layouts.paulis.lines, run.layouts.readout
            self._is_mixed = True
            if run.layouts.twirled:
                self.remark += ", noise twirled to Paulis"
        given = measured_early(run.circuit, run.params, located)
        self._converted = convert(run.circuit, given, run.layouts.clbits, noise)
        self._control, self._threads = run.control, run.options.threads

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        converted = self._converted
        if not (converted.source >= 0).any():
            yield packing.select(np.zeros((shots, 1), np.uint8), converted.source, False), None
            return
        for result in self._blocks(converted.text, self._size.work, shots, key):
            packed = np.concatenate([each.measurements[:wanted] for each, wanted in result])
            yield packing.select(packed, converted.source, converted.identical), None

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        """Values of the state, which is pure."""
        program = ticit.Circuit(self._observed(strings)).compile()
        row: NDArray[np.float64] = _values(program.sample(1, 0), strings)[0]
        return row

    def estimates(
        self, strings: outputs.PauliStrings, request: Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`; of a mixed state means over shots, each of which has
        the values of its own errors and outcomes."""
        if not self._is_mixed:
            return super().estimates(strings, request, key)
        owners, weights = outputs.owners_and_weights(request.observables)
        moments = Moments(len(request.observables))
        mixed = np.zeros((len(strings), len(request.observables)))
        mixed[np.arange(len(strings)), owners] = weights
        work = self._size.work + len(strings) * 2.0**self._size.qubits
        for result in self._blocks(self._observed(strings), work, request.shots, key):
            values = [_values(each, strings)[:wanted] for each, wanted in result]
            moments.add(np.concatenate(values) @ mixed)
        return moments.estimates()

    def _observed(self, strings: outputs.PauliStrings) -> str:
        """Text of the circuit with the values of the strings at its end."""
        lines = []
        for x, z in strings:
            letters = _letters(Rotation(x, z, 0.0))
            if letters:
                lines.append(f"EXP_VAL {'*'.join(f'{letter}{q}' for letter, q in letters)}")
        return self._converted.text + "\n".join(lines)

    def _blocks(
        self, text: str, work: float, shots: int, key: outputs.SeedKey
    ) -> Iterator[list[tuple[ticit.SampleResult, int]]]:
        """Results of blocks of shots in their order, each with its number of wanted shots. Shots of
        a block depend on one another's random numbers, so all of it is run."""
        size = philox.BLOCK_SHOTS
        while size > 1 and size * work > BLOCK_WORK:
            size //= 2
        count = -(-shots // size)
        self._control.expect(shots, SHOTS)
        with ThreadPool(self._threads, self._control) as pool:
            blocks = _Blocks(text, size, shots, key, self._control)
            for start in range(0, count, _TOGETHER):
                pool.run(blocks.starting(start), min(_TOGETHER, count - start), 1)
                yield blocks.taken()


class _Blocks:
    """Blocks of shots that threads run, each with its own compiled circuit."""

    def __init__(
        self, text: str, size: int, shots: int, key: outputs.SeedKey, control: RunControl
    ) -> None:
        self._text, self._size, self._shots = text, size, shots
        self._key, self._control = key, control
        self._programs: dict[int, ticit.Program] = {}
        self._results: dict[int, tuple[ticit.SampleResult, int]] = {}

    def starting(self, start: int) -> ThreadWork:
        """Return what runs blocks from number `start` on."""

        def run(first: int, last: int, thread: int) -> None:
            if thread not in self._programs:
                self._programs[thread] = ticit.Circuit(self._text).compile()
            for number in range(start + first, start + last):
                seed = philox.block_seed(*self._key, number)
                wanted = min(self._size, self._shots - number * self._size)
                result = self._programs[thread].sample(self._size, seed, bit_packed=True)
                self._results[number] = result, wanted
                self._control.advance(SHOTS, wanted)

        return run

    def taken(self) -> list[tuple[ticit.SampleResult, int]]:
        """Return the results so far in the order of the shots, and forget them."""
        results, self._results = self._results, {}
        return [results[number] for number in sorted(results)]


def _values(result: ticit.SampleResult, strings: outputs.PauliStrings) -> NDArray[np.float64]:
    """Values [shots, strings]; those of the identity are 1."""
    values = np.ones((result.shots, len(strings)))
    values[:, [k for k, string in enumerate(strings) if any(string)]] = result.exp_vals
    return values


def _size_of(
    circuit: Circuit, params: NDArray[np.float64], noise: NoiseProgram | None
) -> ActiveSize:
    """Size of a circuit that is run. Raises Unsupported for one that is too large."""
    size = active_size(circuit, params, noise)
    if size is None:
        text = "the active qubits of this circuit are not known to engine 'near_clifford'"
        hint = "it takes 20,000 operations and gates on at most four qubits, matrices on two"
        raise Unsupported(text, hint=f"{hint}; {OTHER_ENGINE}")
    if text := COSTS.active_refusal(size):
        raise Unsupported(f"engine 'near_clifford': {text}", hint=OTHER_ENGINE)
    return size
