"""Engine `sweep`: exact counts of wide and shallow circuits, with noise and without."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit, num_words
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit
from simulators.engine import SHOTS, EngineResult, Plan, Request, RunControl, RunOptions
from simulators.execution import circuit_checks, outputs, packing, requests
from simulators.execution.ranks import Ranks, RanksEngine
from simulators.lines.lowering import lines_of
from simulators.tensornetwork.sweep.sampling import Sampler, Sweeps, ThreadSampler
from simulators.trajectories import pattern_sampling, shot_blocks
from simulators.trajectories.bindings import NoisePlan, run_bindings
from simulators.trajectories.locations import NoisyCircuit, locate_amid

CARD = builtin_card("sweep")


class SweepEngine(RanksEngine):
    """Gate-by-gate sampling as sweeps over the circuit's graph; ranks share the shots."""

    card = CARD

    def sampler(self, sweeps: Sweeps, options: RunOptions, control: RunControl) -> Sampler:
        """Sampler of one circuit. Raises OutOfMemory where its tensors have no room."""
        return ThreadSampler(sweeps, options, control)

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Keep the noise."""
        circuit_checks.check_request(self.card, circuit, noise, options)
        return NoisePlan.of(noise)

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        if not isinstance(plan, NoisePlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        ranks = Ranks(control, self._comm)
        run = requests.EngineRun(circuit, request, options, ranks.control)

        def state_of(
            located: NoisyCircuit, bound: requests.BindingRun, layouts: MeasurementLayouts
        ) -> outputs.FinalState:
            return _Samples(located, bound, layouts, ranks, self.sampler)

        @functools.cache  # all bindings have one part and one noise
        def located_amid(
            part: Subcircuit, noise: NoiseProgram, layouts: MeasurementLayouts
        ) -> NoisyCircuit:
            return locate_amid(part.circuit, noise, layouts.clbits, part.operations)

        def dynamic_state_of(
            part: Subcircuit,
            noise: NoiseProgram,
            bound: requests.BindingRun,
            layouts: MeasurementLayouts,
        ) -> outputs.FinalState:
            return _Samples(located_amid(part, noise, layouts), bound, layouts, ranks, self.sampler)

        result = run_bindings(
            self.card, plan.noise, run, state_of, separate=True, dynamic_state_of=dynamic_state_of
        )
        return result if self.is_root else None  # type: ignore[return-value]

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:  # noqa: ARG002  # see `run`
        """Not called: `run` has its own states."""
        raise TypeError("the states of this engine depend on their noise")


class _Samples(outputs.FinalState):
    """Counts of one binding."""

    def __init__(
        self,
        located: NoisyCircuit,
        run: requests.BindingRun,
        layouts: MeasurementLayouts,
        ranks: Ranks,
        sampler: Callable[[Sweeps, RunOptions, RunControl], Sampler],
    ) -> None:
        self.num_qubits = located.circuit.num_qubits
        self._errors, self._inserts = located.errors, len(located.table.table)
        self._ranks = ranks
        lines = lines_of(located.circuit, run.params, located.table, located.amid)
        source, columns = layouts.clbits.source, np.array(lines.column_of, np.int64)
        recorded = np.where(columns < 0, -1, self.num_qubits + columns)
        self._source = np.where(source < 0, recorded, source)
        sweeps = Sweeps.of(lines)
        self._sampler = sampler(sweeps, run.options, ranks.control)
        program = self._sampler.sweeps.program
        self.remark = f"tensors of 2^{program.widest} values, {len(program.layers)} layers"
        if program.slices:
            self.remark += f", {1 << program.slices} slices"

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        places = np.arange(self._inserts)
        blocks = list(shot_blocks.shot_blocks(self._errors, shots))
        self._ranks.expect([last - first for first, last in blocks], SHOTS)
        with self._sampler.opened() as sample:
            for first, last in blocks:
                own = self._ranks.part(last - first)
                records = np.zeros((last - first, num_words(self._source.size)), np.uint64)

                def fill(
                    first: int = first,
                    own: slice = own,
                    records: NDArray[np.uint64] = records,
                ) -> None:
                    begin, end = first + own.start, first + own.stop
                    patterns = pattern_sampling.draw_patterns(self._errors, begin, end, key, places)
                    bits = sample(patterns, begin, end, key)
                    records[own] = packing.select_bits(bits, self._source)

                self._ranks.summed(records, fill)
                yield records, None
