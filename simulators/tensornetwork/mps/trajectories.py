"""Circuits with noise by trajectories of matrix product states: their outputs.

Trajectories are evolved together (`ensemble`). Each has its own truncation; the result's is their
mean.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.chain.product_state import MatrixProductState, sample_sites, truncation_of
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.profiler import chain_order
from simulators.circuit.ir import num_words
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit
from simulators.engine import TRAJECTORIES, EngineResult, Request
from simulators.execution import outputs, packing, requests
from simulators.execution.ranks import Ranks
from simulators.tensornetwork.mps.canonical_chain import ChainLimits, site_order
from simulators.tensornetwork.mps.ensemble import ChainEnsemble, ChainEvolution, Rows
from simulators.tensornetwork.mps.histories import DynamicMpsState, HistoryNoise
from simulators.trajectories import pattern_order, pattern_sampling, shot_blocks
from simulators.trajectories.bindings import run_bindings
from simulators.trajectories.locations import NoisyCircuit, located_errors
from simulators.trajectories.noise_table import SortedPatterns, row_work

CARD = builtin_card("mps")
ROWS_AT_ONCE = 1 << 14  # distinct trajectories
_SHOTS_AT_ONCE = 8_192
Records = NDArray[np.uint64]
Values = NDArray[np.float64]


class NoisyChainPlan(msgspec.Struct, frozen=True, eq=False):
    """Noise of a circuit."""

    noise: NoiseProgram

    @property
    def memory_bytes(self) -> int:
        return self.noise.locations.nbytes


def run_noisy(plan: NoisyChainPlan, run: requests.EngineRun, ranks: Ranks) -> EngineResult:
    """Run all bindings of a circuit with noise; ranks share trajectories. Raises Unsupported for
    outputs that trajectories cannot give."""

    def state_of(
        located: NoisyCircuit, bound: requests.BindingRun, layouts: MeasurementLayouts
    ) -> outputs.FinalState:
        return _Trajectories(located, bound, layouts, ranks)

    def dynamic_state_of(
        part: Subcircuit,
        noise: NoiseProgram,
        bound: requests.BindingRun,
        layouts: MeasurementLayouts,
    ) -> outputs.FinalState:
        errors = tuple(located_errors(noise))
        own = HistoryNoise(errors, noise.readout, part.operations)
        return DynamicMpsState(layouts, chain_order(part.circuit), bound, ranks, own)

    return run_bindings(CARD, plan.noise, run, state_of, dynamic_state_of=dynamic_state_of)


class _Trajectories(outputs.FinalState):
    """Trajectories of one binding."""

    def __init__(
        self,
        located: NoisyCircuit,
        run: requests.BindingRun,
        layouts: MeasurementLayouts,
        ranks: Ranks,
    ) -> None:
        self.num_qubits = located.circuit.num_qubits
        self._errors, self._drawn = located.errors, located.table.drawn
        self._source = layouts.clbits.source
        self._control, self._ranks = run.control, ranks
        self._sites = site_order(self.num_qubits, chain_order(located.circuit))
        limits = ChainLimits.of(run.options)
        self._evolution = ChainEvolution(located, run, limits, self._sites)
        self._lost = 0.0  # discarded weight, summed over shots
        self._shots = self._patterns = 0
        self._bond = 1

    def _ended(
        self, first: int, last: int, key: outputs.SeedKey
    ) -> Iterator[tuple[list[Rows], ChainEnsemble]]:
        """Final states of this rank's share of the trajectories of shots first .. last - 1, in
        parts: the shots of each row, counted from `first`, and the ensemble."""
        places = np.arange(self._drawn.size)
        patterns = pattern_sampling.draw_patterns(self._errors, first, last, key, places)
        rows = pattern_order.sort_places(patterns, places.size)
        errors, members = self._classes(rows)
        # Every n-th one: they are sorted, and those whose errors come first cost most.
        mine = slice(self._ranks.rank, None, self._ranks.size)
        errors, members = errors[mine], members[mine]
        self._shots += last - first
        share = (last - first) / max(1, len(errors))  # shots of each, for the progress

        def progress(done: float) -> None:
            self._ranks.control.advance(TRAJECTORIES, share * done)

        for begin in range(0, len(errors), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            own = members[part]
            shots = np.array([first + each[0] for each in own], np.int64)
            for numbers, ensemble in self._evolution.ended(errors[part], shots, progress):
                ended = [own[k] for k in numbers.tolist()]
                lost = map(truncation_of, ensemble.fidelity.tolist())
                self._lost += sum(
                    each.size * weight for each, weight in zip(ended, lost, strict=True)
                )
                self._bond = max(self._bond, ensemble.bond)
                yield ended, ensemble

    def _classes(self, rows: SortedPatterns) -> tuple[list[list[int]], list[Rows]]:
        """Errors and shots of each trajectory: one for each pattern, and one for each shot of which
        an operator is drawn."""
        errors: list[list[int]] = []
        begins: list[int] = []
        alone = False
        entries = rows.entries.tolist()
        new = row_work(rows, np.arange(1, rows.end + 2)) > 0
        self._patterns += int(np.count_nonzero(new))
        for number, (row, is_new) in enumerate(zip(rows.order.tolist(), new.tolist(), strict=True)):
            if is_new:
                at = end = int(rows.begins[row])
                while entries[end] != rows.end:
                    end += 1
                own = entries[at:end]
                alone = any(self._drawn[each] for each in own)
            if is_new or alone:
                errors.append(own)
                begins.append(number)
        return errors, [np.sort(each) for each in np.split(rows.order, begins[1:])]

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`; shots in ascending order."""
        self._ranks.control.expect(shots, TRAJECTORIES)
        for first, last in shot_blocks.shot_blocks(self._errors, shots):
            records = np.zeros((last - first, num_words(self._source.size)), np.uint64)

            def fill(first: int = first, last: int = last, records: Records = records) -> None:
                for members, ensemble in self._ended(first, last, key):
                    own = np.concatenate(members)
                    row_of = np.repeat(np.arange(len(members)), [each.size for each in members])
                    for low in range(0, own.size, _SHOTS_AT_ONCE):
                        batch = own[low : low + _SHOTS_AT_ONCE]
                        which = ensemble.which[0][:, row_of[low : low + _SHOTS_AT_ONCE]]
                        shot_ids = first + batch
                        bits = sample_sites(ensemble.tensors, which, shot_ids, key, self._control)
                        bits = np.ascontiguousarray(bits[list(self._sites)].T)
                        records[batch] = packing.select_bits(bits, self._source)

            self._ranks.summed(records, fill)
            yield records, None
        self._report()

    def estimates(
        self, strings: outputs.PauliStrings, request: Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`: means over trajectories."""
        count = len(request.observables)
        owners, weights = outputs.owners_and_weights(request.observables)
        moments = shot_blocks.Moments(count)
        self._ranks.control.expect(request.shots, TRAJECTORIES)
        for first, last in shot_blocks.shot_blocks(self._errors, request.shots):
            values = np.zeros((last - first, count))

            def fill(first: int = first, last: int = last, values: Values = values) -> None:
                for members, ensemble in self._ended(first, last, key):
                    known: dict[bytes, Values] = {}
                    for row, own in enumerate(members):
                        state = ensemble.which[0, :, row].tobytes()
                        if state not in known:
                            tensors = tuple(ensemble.state(row)[0])
                            chain = MatrixProductState(tensors, self._sites, 0.0)
                            each = weights * chain.means(strings, self._control)
                            known[state] = np.bincount(owners, each, count).astype(np.float64)
                        values[own] = known[state]

            self._ranks.summed(values, fill)
            moments.add(values)
        self._report()
        return moments.estimates()

    def _report(self) -> None:
        """Set the truncation and the remark, from those of all ranks."""
        self.truncation = sum(self._ranks.values(self._lost)) / max(1, self._shots)
        bond = int(max(self._ranks.values(self._bond)))
        self.remark = f"bond {bond}, {self._patterns} error patterns"
