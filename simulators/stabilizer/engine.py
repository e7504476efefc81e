"""Stabilizer engine: Clifford circuits of any width, through stim.

Counts are sampled in blocks of shots with seeds of their own: they are the same on one version of
stim and one processor family. Probabilities and expectation values are exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import (
    TERMINAL,
    MeasurementLayout,
    MeasurementLayouts,
)
from simulators.circuit.analysis.noisy_measurements import noisy_layout
from simulators.circuit.examples import bell
from simulators.circuit.gates import MEASURE
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import SAMPLED, Plan, Request, RunOptions
from simulators.errors import Unsupported
from simulators.execution.base import BoundRun, EngineBase
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey
from simulators.execution.readout import ReadoutStage
from simulators.execution.requests import plan_layouts
from simulators.execution.rng import BLOCK_SHOTS, blocks
from simulators.execution.sampling import Distribution, select, select_bits, tally
from simulators.stabilizer import exact
from simulators.stabilizer.convert import NoiseLines, StimCircuit, convert
from simulators.stabilizer.noise import noise_lines, recorded_flip

CARD = builtin_card("stabilizer")


class StabilizerEngine(EngineBase):
    """Engine for Clifford circuits. Whether a binding's angles give Clifford gates is checked at
    the run."""

    card = CARD

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the layouts. Refuses noise that is no mixture of Paulis, unless the option
        `twirl` requests its twirl; non-Clifford gates are refused by `run`."""
        twirl = bool(CARD.value(options.settings, "twirl"))
        if noise is not None and twirl:
            channels = tuple(channel.twirled() for channel in noise.channels)
            kinds = noise.kinds - {"kraus"}
            noise = msgspec.structs.replace(noise, channels=channels, kinds=kinds, known_facts=None)
        layouts = plan_layouts(CARD, circuit, noise, options)
        if noise is None:
            return layouts
        return _noisy_plan(circuit, noise, layouts, twirl=twirl)

    def check(self, layouts: MeasurementLayouts, request: Request, options: RunOptions) -> None:
        """Refuse all but counts and memory with noise."""
        del options
        others = set(request.outputs) - SAMPLED
        if isinstance(layouts, _NoisyPlan) and others:
            raise Unsupported(
                f"{' and '.join(sorted(others))} of a circuit with noise, by engine 'stabilizer'",
                hint="it samples alone; engine='densitymatrix' or 'statevector' has the others,"
                " where the qubits fit into memory",
            )

    def final_state(self, run: BoundRun) -> FinalState:
        """See `EngineBase`."""
        return _StabilizerState(run)

    def warm_up(self) -> None:
        """Run a small circuit for every output."""
        options = RunOptions()
        request = Request(16, 1, CARD.outputs)
        self.run(self.plan(bell(), None, options), bell(), request, options, RunControl())


class _NoisyPlan(MeasurementLayouts, frozen=True, eq=False):
    """Layouts of a circuit with noise, and the noise as stim's instructions."""

    lines: NoiseLines
    readout: ReadoutStage | None
    twirled: bool

    @property
    def memory_bytes(self) -> int:
        """Approximate bytes of its arrays and lines."""
        texts = sum(len(line) for lines in self.lines.after.values() for line in lines)
        return super().memory_bytes + texts


def _noisy_plan(
    circuit: Circuit, noise: NoiseProgram, layouts: MeasurementLayouts, *, twirl: bool
) -> _NoisyPlan:
    clbits = noisy_layout(circuit, noise)
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1]) - rows[:, 1]
    recorded = np.flatnonzero((rows[:, 0] == MEASURE) & (clbits.roles != TERMINAL)).tolist()
    qubits = {k: int(circuit.qubits[begins[k]]) for k in recorded}
    flips = {k: recorded_flip(noise, qubit, twirl=twirl) for k, qubit in qubits.items()}
    return _NoisyPlan(
        clbits,
        layouts.state,
        NoiseLines(noise_lines(circuit, noise), flips),
        ReadoutStage.of(clbits, noise.readout),
        twirl,
    )


class _StabilizerState(FinalState):
    """One binding; each output converts the circuit to the form it needs."""

    def __init__(self, run: BoundRun) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._noise: NoiseLines | None = None
        if isinstance(run.layouts, _NoisyPlan):
            self._noise, self.readout = run.layouts.lines, run.layouts.readout
            self.remark = "noise twirled to Paulis" if run.layouts.twirled else ""
        self._layouts = run.layouts
        self._circuit = run.circuit
        self._params = run.params
        self._control = run.control

    def _deferred(self, layout: MeasurementLayout) -> StimCircuit:
        return convert(self._circuit, self._params, layout, deferred=True)

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """See `FinalState`."""
        layout = self._layouts.clbits
        converted = convert(self._circuit, self._params, layout, noise=self._noise)
        reference = converted.circuit.reference_sample()
        for seed, wanted in blocks(shots, *key, self._control):
            # Always a full block: stim's random numbers depend on how many shots it makes.
            sampler = converted.circuit.compile_sampler(seed=seed, reference_sample=reference)
            packed = sampler.sample(BLOCK_SHOTS, bit_packed=True)[:wanted]
            yield select(packed, converted.source, converted.identical), None

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        if self._layouts.clbits.measures:
            converted = self._deferred(self._layouts.clbits)
            source = converted.source
        else:
            converted = self._deferred(self._layouts.state)
            source = np.arange(self.num_qubits)
        bits = exact.distribution(exact.simulate(converted.circuit), source)
        records, counts = tally(select_bits(bits, np.arange(source.size)))
        return records, counts / len(bits)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        simulator = exact.simulate(self._deferred(self._layouts.state).circuit)
        return exact.means(simulator, strings, self.num_qubits)
