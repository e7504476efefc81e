"""Engine `dmt`: counts and values of deep circuits with noise, by truncated density operators.

The density operator of the qubits is a tensor network in the Pauli basis: a matrix product operator
in canonical form where the pairs of the circuit lie on lines, and tensors on their graph with trace
messages elsewhere. Its bonds are cut by density matrix truncation, which keeps the trace and all
operators of the sites beside a cut. One evolution gives any number of counts and values.

What truncation and loops change is measured on regions of the circuit, which are run exactly, and
stated in the result; a run whose error is above the option `tolerance` ends with an error. Where
nothing is cut off and the graph has no loops, the results are exact. Measurements and conditions
before the end give a set of operators for each history of outcomes; regions have the operations of
the most frequent one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators import engine
from simulators.catalog import builtin_card
from simulators.catalog.costs import dmt_bond
from simulators.circuit.analysis import measurements
from simulators.circuit.ir import Circuit, num_words
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit, active_part
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.densitymatrix.dmt.histories import DmtHistories, DmtHistory, OutcomeDraw, Shots
from simulators.densitymatrix.dmt.operators import DensityOperators, may_be_cut
from simulators.densitymatrix.dmt.pair_maps import PairComponent, components
from simulators.densitymatrix.dmt.regions import (
    Region,
    RegionComparison,
    ZStrings,
    acting,
    compared,
    measured_error,
    regions_of,
)
from simulators.densitymatrix.dmt.truncation import LEAST_BOND, PROTECTED
from simulators.densitymatrix.program import Measurement, Program, Segment, build_program
from simulators.dynamic.liveness import output_mask
from simulators.engine import (
    OPERATIONS,
    EngineResult,
    Request,
    RunControl,
    RunOptions,
    ThreadPool,
)
from simulators.errors import TruncatedState, Unsupported
from simulators.execution import circuit_checks, outputs, packing, part_caches, philox, requests
from simulators.execution.readout import ReadoutStage

CARD = builtin_card("dmt")
_FIRST_MEASUREMENT = 2**34  # operation k has draw 2**34 + k
_SHOTS_OF_A_PART = 256  # that one thread draws
_SHOTS_AT_ONCE = 1_024
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))


class _Part:
    """Part of a circuit that the outputs depend on."""

    def __init__(self, part: Subcircuit, noise: NoiseProgram, outputs: tuple[str, ...]) -> None:
        self.part, self.noise = part, noise
        own = part.circuit
        clbits = measurements.measurement_layout(own, noise)
        state = clbits
        if "expectation" in outputs:
            state = measurements.measurement_layout(own, noise, keep=True)
        self.layouts = measurements.MeasurementLayouts(clbits, state)
        self.readout = ReadoutStage.of(clbits, noise.readout, part.operations)
        self._programs: dict[bool, Program] = {}

    def program(self, *, keep: bool) -> Program:
        """The program for outputs of clbits, or (`keep`) of the final state."""
        if keep not in self._programs:
            own, layout = self.part.circuit, self.layouts.state if keep else self.layouts.clbits
            earlier = np.flatnonzero(layout.source < 0).tolist()  # others are read at the end
            live = 0 if keep else output_mask(own) & sum(1 << clbit for clbit in earlier)
            self._programs[keep] = build_program(own, self.noise, layout, live)
        return self._programs[keep]

    @property
    def memory_bytes(self) -> int:
        programs = sum(program.memory_bytes for program in self._programs.values())
        return self.part.memory_bytes + self.noise.memory_bytes + programs


class DmtPlan:
    """Plan of a structure with its noise: a part for each set of outputs."""

    def __init__(self, noise: NoiseProgram) -> None:
        self._noise = noise
        self._parts: part_caches.SupportCache[_Part] = part_caches.SupportCache()

    @property
    def memory_bytes(self) -> int:
        return self._noise.memory_bytes + sum(part.memory_bytes for part in self._parts.values())

    def part(self, circuit: Circuit, request: Request) -> _Part:
        def make(support: OutputSupport | None) -> _Part:
            return _Part(*active_part(circuit, self._noise, support), request.outputs)

        return self._parts.of(circuit, request, make, "expectation" in request.outputs)


class DmtEngine(outputs.EngineBase):
    """Density matrix truncation; threads share the maps of a layer on a graph."""

    card = CARD

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        return True

    def plan(
        self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions
    ) -> engine.Plan:
        circuit_checks.check_request(CARD, circuit, noise, options)
        if 0 < CARD.value(options.settings, "bond") < LEAST_BOND:
            text = f"engine 'dmt': option bond = {CARD.value(options.settings, 'bond')}, of which"
            text += f" truncation protects {PROTECTED} values"
            raise Unsupported(text, hint=f"at least {LEAST_BOND}, or 0 for the default")
        return DmtPlan(_NO_NOISE if noise is None else noise)

    def run(
        self,
        plan: engine.Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        if not isinstance(plan, DmtPlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        requests.check_run(circuit, options)
        rows = requests.EngineRun(circuit, request, options, control).rows()
        requests.check_outputs(CARD, request, bool(circuit.clbits_data))
        outputs.terms(request.observables, circuit.num_qubits)
        part = plan.part(circuit, request)
        own = part_caches.part_request(part.part, request, circuit.num_qubits)
        results = []
        with ThreadPool(options.threads, control) as pool:
            for row in rows:
                bound = replace(row, params=row.params[part.part.params], request=own)
                state = _Samples(part, bound, pool)
                results.append(outputs.collect(state, part.layouts, own, row.key, part.readout))
        return EngineResult.joined(results)

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:  # noqa: ARG002  # see `run`
        """Not called: `run` has its own states."""
        raise TypeError("the states of this engine depend on their noise")


class _Samples(outputs.FinalState):
    """Counts and values of one binding."""

    def __init__(self, part: _Part, run: requests.BindingRun, pool: ThreadPool) -> None:
        self.num_qubits = part.part.circuit.num_qubits
        self._part, self._run, self._pool = part, run, pool
        settings = run.options.settings
        self._bond = int(CARD.value(settings, "bond"))
        self._tolerance = float(CARD.value(settings, "tolerance"))
        self._is_valued = "expectation" in run.request.outputs
        self._negative = 0.0  # mean mass below zero that was clipped in a shot

    @functools.cached_property
    def _operators(self) -> DensityOperators:
        """The operators of a circuit without histories. Raises TruncatedState where their error is
        above the tolerance."""
        ended: list[DmtHistory] = []
        self._follow(self._is_valued, None, self._no_draw, ended.append)
        return ended[0].operators

    def _no_draw(self, _operation: int, _shots: Shots) -> NDArray[np.float64]:
        raise AssertionError("no shots")

    def _divides(self, *, keep: bool) -> bool:
        """Return whether the program has histories."""
        return not all(
            isinstance(step, Segment) or (isinstance(step, Measurement) and step.clbit < 0)
            for step in self._part.program(keep=keep).steps
        )

    def _follow(
        self,
        keep: bool,
        shots: Shots | None,
        draw: OutcomeDraw,
        ended: Callable[[DmtHistory], None],
    ) -> None:
        """Run all histories, and measure their error beside them. `ended`: called with each at its
        end, by any thread. Raises TruncatedState where the error is above the tolerance."""
        run = self._run
        program = self._part.program(keep=keep)
        histories = DmtHistories(program, run.params, run.options, run.control, draw)
        maps = histories.maps
        run.control.expect(max(1, len(maps.pairs)), OPERATIONS)
        parts = [
            component for component in components(self.num_qubits, maps)
            if may_be_cut(component, self._bond, maps)
        ]  # fmt: skip
        widest = max(parts, key=lambda each: len(each.order), default=None)
        divides = self._divides(keep=keep)
        regions = () if divides else self._regions(widest, ())
        comparisons: dict[int, RegionComparison] = {}
        found: list[tuple[tuple[float, tuple[int, ...]], tuple[int, ...], int, bool]] = []

        def at_end(history: DmtHistory) -> None:
            cut = history.operators.approximate
            found.append((history.rank, history.choices, history.operators.bond, bool(cut)))
            ended(history)

        def evolve(pool: ThreadPool) -> None:
            memory = run.options.memory_bytes
            first = DensityOperators(maps, self._bond, run.control, memory)
            histories.run(DmtHistory(first, shots=shots), pool, at_end)

        def work(first: int, last: int, _thread: int) -> None:
            for number in range(first, last):
                if number == len(regions):
                    with ThreadPool(1, run.control) as single:
                        evolve(single)
                else:
                    comparisons[number] = self._compared(regions[number], number, widest)

        # Along a line maps follow one another; on a graph, and by histories, threads share them.
        is_shared = divides or any(not component.is_line for component in parts)
        if is_shared:
            evolve(self._pool)
            if divides:
                regions = self._regions(widest, min(found)[1])
        self._pool.run(work, len(regions) + (not is_shared), 1)
        bond = max(each[2] for each in found)
        self.remark = f"bond {bond}"
        if len(found) > 1:
            self.remark += f", {len(found)} histories of outcomes"
        if any(each[3] for each in found):
            if not regions:  # the bound of the bonds was one of exact ranks
                everyone = components(self.num_qubits, maps)
                widest = max(everyone, key=lambda each: len(each.order))
                regions = self._regions(widest, min(found)[1])
                self._pool.run(work, len(regions), 1)
            error = measured_error(regions, [comparisons[k] for k in range(len(regions))])
            self.error = replace(error, negative=self._negative)
            self._check(bond)

    def _regions(
        self, component: PairComponent | None, choices: Sequence[int]
    ) -> tuple[Region, ...]:
        """Regions that measure the error of a component, in a history with these choices."""
        if component is None:
            return ()
        bound = replace(
            self._part.part.circuit, params_data=self._run.params.tobytes(), num_slots=0,
            slots_data=b"",
        )  # fmt: skip
        acts = acting(bound, self._part.layouts.clbits.roles, choices)
        return regions_of(bound, self._part.noise, component, acts)

    def _compared(
        self, region: Region, number: int, component: PairComponent | None
    ) -> RegionComparison:
        is_line = component is not None and component.is_line
        control = RunControl()  # what it does is no progress of the run
        control.flag = self._run.control.flag

        def truncated(
            circuit: Circuit, noise: NoiseProgram, strings: ZStrings
        ) -> NDArray[np.float64]:
            layout = measurements.measurement_layout(circuit, noise, keep=True)
            program = build_program(circuit, noise, layout, 0)
            options = self._run.options
            histories = DmtHistories(program, circuit.params, options, control, self._no_draw)
            bond, ended = dmt_bond(self._bond, is_line=is_line), list[DmtHistory]()
            first = DensityOperators(histories.maps, bond, control, options.memory_bytes, is_line)
            with ThreadPool(1, control) as single:
                histories.run(DmtHistory(first), single, ended.append)
            own = ended[0].operators
            return np.array([own.value(0, sum(1 << q for q in string)) for string in strings])

        return compared(region, number, truncated, control)

    def _check(self, bond: int) -> None:
        """Set what the result states of its error, or refuse it."""
        assert self.error is not None
        rms, deviation = self.error.local_rms, self.error.local_standard_error
        stated = f"{rms:.1e} +- {deviation:.1e}"
        self.truncation = rms + deviation
        if rms + deviation > self._tolerance:
            raise TruncatedState(
                f"engine 'dmt': values on one and two qubits have an error of {stated} in regions"
                f" of {self.error.region_qubits} qubits, with bonds of up to {bond};"
                f" {self._tolerance:.1e} is allowed",
                hint="a larger option bond or tolerance, or fewer layers",
            )
        self.remark += (
            f"; error of values on one and two qubits {stated}, measured on regions; nothing is"
            f" said about correlations of more than {self.error.subset_bits} bits"
        )

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        source, clipped = self._part.layouts.clbits.source, 0.0
        bits, earlier = self._bits_of_histories(shots, key)
        for first in range(0, shots, _SHOTS_AT_ONCE):
            size = min(_SHOTS_AT_ONCE, shots - first)
            if bits is None:
                part, own = self._drawn(self._operators, range(first, first + size), key)
                clipped += own
            else:
                part = bits[first : first + size]
            records = np.zeros((size, num_words(source.size)), np.uint64)
            if earlier is not None:
                records |= earlier[first : first + size]
            records |= packing.select_bits(part, source)
            yield records, None
        if bits is None:
            self._negative = clipped / shots
        if self.error is not None:
            self.error = replace(self.error, negative=self._negative)

    def _bits_of_histories(
        self, shots: int, key: outputs.SeedKey
    ) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint64] | None]:
        """Final bits [shots, qubits], and records of the bits before [shots, words], of a circuit
        with histories; None of another one."""
        if not self._divides(keep=False):
            return None, None
        source = self._part.layouts.clbits.source
        width = self._part.program(keep=False).num_qubits
        bits, words = np.zeros((shots, width), np.uint8), num_words(source.size)
        earlier = sum(1 << clbit for clbit in np.flatnonzero(source < 0).tolist())
        records = np.zeros((shots, words), np.uint64)
        clipped: list[tuple[tuple[int, ...], float]] = []

        def draw(operation: int, numbers: Shots) -> NDArray[np.float64]:
            result = np.empty(numbers.size)
            philox.uniforms(*key, _FIRST_MEASUREMENT + operation, numbers, result)
            return result

        def ended(history: DmtHistory) -> None:
            assert history.shots is not None
            own = 0.0
            for first in range(0, history.shots.size, _SHOTS_OF_A_PART):
                self._run.control.check()
                numbers = history.shots[first : first + _SHOTS_OF_A_PART]
                bits[numbers], more = history.operators.sample(numbers, key)
                own += more
            data = (history.record & earlier).to_bytes(8 * words, "little")
            records[history.shots] = np.frombuffer(data, "<u8")
            clipped.append((history.outcomes, own))

        self._follow(False, np.arange(shots), draw, ended)
        self._negative = sum(own for _, own in sorted(clipped)) / shots
        return bits, records

    def _drawn(
        self, found: DensityOperators, shots: range, key: outputs.SeedKey
    ) -> tuple[NDArray[np.uint8], float]:
        """Bits [shots, qubits], and the sum of what was clipped. Threads draw parts of the shots,
        which are the same for any number of threads."""
        parts = [shots[k : k + _SHOTS_OF_A_PART] for k in range(0, len(shots), _SHOTS_OF_A_PART)]
        bits = np.empty((len(shots), found.num_qubits), np.uint8)
        clipped = np.zeros(len(parts))

        def work(begin: int, end: int, _thread: int) -> None:
            for number in range(begin, end):
                self._run.control.check()
                part = parts[number]
                rows = slice(part.start - shots.start, part.stop - shots.start)
                numbers = np.arange(part.start, part.stop)
                bits[rows], clipped[number] = found.sample(numbers, key)

        self._pool.run(work, len(parts), 1)
        return bits, float(clipped.sum())

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        if not self._divides(keep=True):
            found = self._operators
            return np.array([found.value(x, z) for x, z in strings])
        weighted: list[tuple[tuple[int, ...], float, NDArray[np.float64]]] = []

        def ended(history: DmtHistory) -> None:
            own = np.array([history.operators.value(x, z) for x, z in strings])
            weighted.append((history.outcomes, history.weight, own))

        self._follow(True, None, self._no_draw, ended)
        total, weight = np.zeros(len(strings)), 0.0
        for _, own_weight, own in sorted(weighted, key=lambda each: each[0]):  # for any threads
            total += own_weight * own
            weight += own_weight
        return total / weight
