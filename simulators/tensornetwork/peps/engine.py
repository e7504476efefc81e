"""Engine `peps`: tensors on the graph of the gates, by simple update and belief propagation.

Results have an estimated error, which `result.truncation` reports, and a run whose estimate is
above the option `tolerance` ends with an error. For counts it is the total variation distance of
the distribution that is sampled from that of the state, by the mean of |1 - p/q| / 2 over shots
whose probability p is computed with loops, and q without; for means of Pauli strings, what the
loops change in the mean of a qubit. Both have the bound that follows from the discarded weight in
addition. Neither is certified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.chain.product_state import truncation_of
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit, num_words
from simulators.circuit.noise import NoiseProgram
from simulators.engine import (
    SHOTS,
    STRINGS,
    TRAJECTORIES,
    EngineResult,
    Plan,
    Request,
    RunControl,
    RunOptions,
)
from simulators.errors import TruncatedState
from simulators.execution import circuit_checks, outputs, packing, philox, requests
from simulators.tensornetwork.peps.amplitudes import Amplitudes
from simulators.tensornetwork.peps.evolution import GraphCircuit, GraphLimits
from simulators.tensornetwork.peps.loops import around_loops, loops_of
from simulators.tensornetwork.peps.means import PauliMeans
from simulators.tensornetwork.peps.sampling import SampleProgram, sample
from simulators.tensornetwork.peps.simple_update import GraphState
from simulators.trajectories import pattern_sampling, shot_blocks
from simulators.trajectories.bindings import NoisePlan, run_bindings
from simulators.trajectories.locations import NoisyCircuit

CARD = builtin_card("peps")
_FIRST_DRAW = 2**33  # qubit q has draw 2**33 + q
_CHECKED = 64  # shots by which the error of the counts is estimated
_CHECKED_STATES = 16  # trajectories, each with a shot of its own
_EXACT = 1e-10  # errors that are rounding


class PepsEngine(outputs.EngineBase):
    """Projected entangled pair states; a trajectory is a state."""

    card = CARD

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Keep the noise; `run` refuses mid-circuit operations, because only the support of its
        outputs counts."""
        circuit_checks.check_request(CARD, circuit, noise, options)
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
        run = requests.EngineRun(circuit, request, options, control)
        return run_bindings(CARD, plan.noise, run, _Samples, separate=True)

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:  # noqa: ARG002  # see `run`
        """Not called: `run` has its own states."""
        raise TypeError("the states of this engine depend on their noise")


class _Samples(outputs.FinalState):
    """Counts and means of one binding."""

    def __init__(
        self, located: NoisyCircuit, run: requests.BindingRun, layouts: MeasurementLayouts
    ) -> None:
        options = run.options
        self.num_qubits = located.circuit.num_qubits
        self._errors, self._inserts = located.errors, len(located.table.table)
        self._source = layouts.clbits.source
        self._control = run.control
        self._circuit = GraphCircuit(located.circuit, run.params, located.table)
        bond, cutoff, tolerance = (
            CARD.value(options.settings, name) for name in ("bond", "cutoff", "tolerance")
        )
        self._tolerance = float(tolerance)
        self._limits = GraphLimits(int(bond), float(cutoff), options.memory_bytes, options.dtype)
        self._bond = 1
        self._lost: list[float] = []  # of each state that was evolved
        near = GraphState(
            self.num_qubits, self._circuit.ends, bond=1, cutoff=0.0, dtype="complex64"
        )
        self._loops = loops_of(near.near, near.ends)

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        distances: list[float] = []  # of shots: |1 - p/q| / 2
        self._control.expect(shots, self._unit)
        for first, last in shot_blocks.shot_blocks(self._errors, shots):
            records = np.zeros((last - first, num_words(self._source.size)), np.uint64)
            classes = self._classes(first, last, key)
            half = 0.5 * (last - first) / len(classes)  # the evolution counts for as much
            for errors, own in classes.items():
                state = self._evolved(errors, self._progress(self._unit, half))
                program = SampleProgram.of(state)
                rows = program.rows(state)
                checked = 0 if self._inserts and len(distances) >= _CHECKED else _CHECKED
                if self._inserts:  # other states share the check
                    checked = min(checked, max(1, _CHECKED // _CHECKED_STATES))
                drawn = own
                if not self._inserts and shots < _CHECKED:  # and shots that are not asked for
                    drawn = np.arange(_CHECKED)
                for low in range(0, drawn.size, rows):
                    part = drawn[low : low + rows]
                    progress = self._progress(self._unit, half * part.size / drawn.size)
                    bits, logs = self._drawn(state, program, part, key, progress)
                    if self._loops and low < checked:
                        some = slice(0, checked - low)
                        distances += self._distances(state, bits[some], logs[some])
                        self._report_counts(distances)
                    kept = part < last
                    records[part[kept] - first] = packing.select_bits(bits[kept], self._source)
            yield records, None
        self._report_counts(distances)

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        self._control.expect(len(strings), STRINGS)
        half = self._progress(STRINGS, 0.5 * len(strings))  # the evolution counts for as much
        state = self._evolved((), half)
        values, errors = PauliMeans(state, self._control).values(strings, half)
        self._report_means(state, float(errors.max(initial=0.0)))
        return values

    def estimates(
        self, strings: outputs.PauliStrings, request: Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`; with errors means over trajectories."""
        if not self._inserts:
            return super().estimates(strings, request, key)
        owners, weights = outputs.owners_and_weights(request.observables)
        count = len(request.observables)
        moments = shot_blocks.Moments(count)
        worst = 0.0
        self._control.expect(request.shots, self._unit)
        for first, last in shot_blocks.shot_blocks(self._errors, request.shots):
            values = np.zeros((last - first, count))
            classes = self._classes(first, last, key)
            for inserted, own in classes.items():
                half = self._progress(self._unit, 0.5 * (last - first) / len(classes))
                state = self._evolved(inserted, half)
                means, errors = PauliMeans(state, self._control).values(strings, half)
                worst = max(worst, float(errors.max(initial=0.0)))
                values[own - first] = np.bincount(owners, weights * means, count)
                if len(self._lost) <= _CHECKED_STATES:
                    self._report_means(state, worst)
            moments.add(values)
        return moments.estimates()

    def _classes(
        self, first: int, last: int, key: outputs.SeedKey
    ) -> dict[tuple[int, ...], NDArray[np.int64]]:
        """Shots of each error pattern, as rows of the noise table."""
        if not self._inserts:
            return {(): np.arange(first, last)}
        places = np.arange(self._inserts)
        patterns = pattern_sampling.draw_patterns(self._errors, first, last, key, places)
        shots: dict[tuple[int, ...], list[int]] = {}
        for shot in range(last - first):
            own = patterns.entries[patterns.ends[shot] : patterns.ends[shot + 1]]
            shots.setdefault(tuple(own.tolist()), []).append(first + shot)
        return {errors: np.array(own) for errors, own in shots.items()}

    @property
    def _unit(self) -> str:
        return TRAJECTORIES if self._inserts else SHOTS

    def _progress(self, unit: str, size: float) -> Callable[[float], None]:
        """Return what counts parts of so many units as progress."""
        return lambda part: self._control.advance(unit, size * part)

    def _evolved(self, errors: tuple[int, ...], progress: Callable[[float], None]) -> GraphState:
        state = self._circuit.evolved(self._limits, self._control, errors, progress)
        self._bond = max(self._bond, state.bond)
        self._lost.append(truncation_of(state.fidelity))
        return state

    def _drawn(
        self,
        state: GraphState,
        program: SampleProgram,
        shots: NDArray[np.int64],
        key: outputs.SeedKey,
        progress: Callable[[float], None],
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        draws = np.empty(shots.size)

        def draw(site: int, ones: NDArray[np.float64]) -> NDArray[np.bool_]:
            philox.uniforms(*key, _FIRST_DRAW + site, shots, draws)
            return draws < ones

        return sample(state, program, shots.size, draw, self._control, progress)

    def _distances(
        self, state: GraphState, bits: NDArray[np.uint8], logs: NDArray[np.float64]
    ) -> list[float]:
        exact = Amplitudes(state, bits).logs(self._loops, self._control)
        ratios = np.exp(np.clip(exact - logs, -50.0, 50.0))
        distances: list[float] = (0.5 * np.abs(1.0 - ratios)).tolist()
        return distances

    def _report_counts(self, distances: list[float]) -> None:
        """Set what the result states of its counts, or refuse them. The distance of two states
        bounds that of their distributions."""
        error = float(np.mean(np.sqrt(self._lost)))
        if distances:
            error += float(np.mean(distances) + np.std(distances) / math.sqrt(len(distances)))
        self._report(error, "total variation distance of its counts")

    def _report_means(self, state: GraphState, second: float) -> None:
        """Set what the result states of its means, or refuse them; `second`: what second paths
        carry."""
        error = second + 2.0 * float(np.mean(np.sqrt(self._lost)))
        if self._closes_loop:
            error += around_loops(state, self._loops)
        self._report(error, "error of its expectation values")

    def _report(self, error: float, what: str) -> None:
        error = min(error, 1.0)
        if error > self._tolerance:
            raise TruncatedState(
                f"engine 'peps': the estimated {what} is {error:.1e} with bonds of up to"
                f" {self._bond}; {self._tolerance:.1e} is allowed",
                hint="a larger option bond where weight is cut off, a larger option tolerance, or"
                " fewer layers",
            )
        self.truncation = error if error > _EXACT else 0.0
        stated = f"{self.truncation:.1e}, not certified" if self.truncation else "0"
        self.remark = f"bond {self._bond}, estimated {what} {stated}"

    @cached_property
    def _closes_loop(self) -> bool:
        return bool(self._loops) and self._circuit.closes_loop()
