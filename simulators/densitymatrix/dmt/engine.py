"""Engine `dmt`: counts and values of deep circuits with noise, by truncated density operators.

The density operator of the qubits is a tensor network in the Pauli basis: a matrix product operator
in canonical form where the pairs of the circuit lie on lines, and tensors on their graph with trace
messages elsewhere. Its bonds are cut by density matrix truncation, which keeps the trace and all
operators of the sites beside a cut. One evolution gives any number of counts and values.

What truncation and loops change is measured on regions of the circuit, which are run exactly, and
stated in the result; a run whose error is above the option `tolerance` ends with an error. Where
nothing is cut off and the graph has no loops, the results are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

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
from simulators.densitymatrix.dmt.graph import GraphOperator
from simulators.densitymatrix.dmt.line import LineOperator
from simulators.densitymatrix.dmt.pair_maps import Maps, PairComponent, components
from simulators.densitymatrix.dmt.regions import (
    Region,
    RegionComparison,
    ZStrings,
    compared,
    measured_error,
    regions_of,
)
from simulators.densitymatrix.dmt.truncation import LEAST_BOND, PROTECTED
from simulators.densitymatrix.program import Program, Segment, build_program
from simulators.engine import (
    OPERATIONS,
    EngineResult,
    Request,
    RunControl,
    RunOptions,
    ThreadPool,
)
from simulators.errors import OTHER_ENGINE, OutOfMemory, TruncatedState, Unsupported
from simulators.execution import circuit_checks, outputs, packing, part_caches, philox, requests
from simulators.execution.readout import ReadoutStage

CARD = builtin_card("dmt")
_FIRST_DRAW = 2**33  # qubit q has draw 2**33 + q
_SHOTS_OF_A_PART = 256  # that one thread draws
_SHOTS_AT_ONCE = 1_024
_EXACT = 1e-12  # relative squares that are rounding
_MOST_VALUES = 2**27  # of the tensors of a graph
_UNBOUNDED = 2**40  # values of a bond
_COPIES = 32  # bytes of memory for each of them
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
        self.program = program_of(own, noise, state)

    @property
    def memory_bytes(self) -> int:
        return self.part.memory_bytes + self.noise.memory_bytes + self.program.memory_bytes


def program_of(
    circuit: Circuit, noise: NoiseProgram, layout: measurements.MeasurementLayout
) -> Program:
    """Program of gates and channels alone. Raises Unsupported for mid-circuit operations."""
    program = build_program(circuit, noise, layout)
    if not all(isinstance(step, Segment) for step in program.steps):
        text = "engine 'dmt': a measurement or condition before the end of a circuit"
        raise Unsupported(text, hint=OTHER_ENGINE)
    return program


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


class DensityOperators:
    """Density operators of all components of a circuit after its last operation."""

    def __init__(
        self,
        maps: Maps,
        bond: int,
        pool: ThreadPool,
        control: RunControl,
        memory_bytes: int,
        lines: bool = True,
    ) -> None:
        """Evolve. `bond`: the largest, 0: the default; `lines`: False holds components on a line
        as graphs, too."""
        self.num_qubits = len(maps.last)
        self.components = components(self.num_qubits, maps)
        self._states: list[LineOperator | GraphOperator] = []

        def advance() -> None:
            control.check()
            control.advance(OPERATIONS)

        for component in self.components:
            state: LineOperator | GraphOperator
            if component.is_line and (lines or len(component.order) == 1):
                state = LineOperator(component, dmt_bond(bond, is_line=True))
                state.evolve(maps, advance)
            else:
                most = dmt_bond(bond, is_line=False)
                _check_room(component, most, maps, memory_bytes)
                state = GraphOperator(component, most, self.num_qubits)
                state.evolve(maps, pool, advance)
            self._states.append(state)

    @property
    def bond(self) -> int:
        """The largest bond."""
        return max((state.bond for state in self._states), default=1)

    @property
    def approximate(self) -> tuple[PairComponent, ...]:
        """Components with loops, or where something was cut off."""
        pairs = zip(self.components, self._states, strict=True)
        return tuple(
            component for component, state in pairs
            if state.lost > _EXACT or len(component.edges) >= len(component.order)
        )  # fmt: skip

    def value(self, x: int, z: int) -> float:
        """Expectation value of a Pauli string by its masks."""
        value, digits = 1.0, {}
        for q in range((x | z).bit_length()):
            if (x | z) >> q & 1:
                digits[q] = (0, 1, 3, 2)[(x >> q & 1) + 2 * (z >> q & 1)]
        for component, state in zip(self.components, self._states, strict=True):
            letters = {q: digits[q] for q in component.order if q in digits}
            if letters:
                value *= state.value(letters)
        return float(np.clip(value, -1.0, 1.0))

    def sample(
        self, first: int, last: int, key: outputs.SeedKey
    ) -> tuple[NDArray[np.uint8], float]:
        """Bits [shots, qubits] of some shots, and the sum of what was clipped."""
        shots, draws = np.arange(first, last), np.empty(last - first)

        def draw(qubit: int) -> NDArray[np.float64]:
            philox.uniforms(*key, _FIRST_DRAW + qubit, shots, draws)
            return draws

        bits = np.zeros((last - first, self.num_qubits), np.uint8)
        clipped = sum(float(state.sample(shots.size, draw, bits).sum()) for state in self._states)
        return bits, clipped


def _check_room(component: PairComponent, bond: int, maps: Maps, memory_bytes: int) -> None:
    """Raises OutOfMemory for tensors beyond the memory."""
    sizes = _bond_sizes(component, bond, maps)
    values = dict.fromkeys(component.order, 4.0)
    partners = dict.fromkeys(component.order, 0)
    for edge, size in sizes.items():
        for q in edge:
            values[q] *= size
            partners[q] += 1
    most = min(_MOST_VALUES, memory_bytes // _COPIES) if memory_bytes else _MOST_VALUES
    total = sum(values.values())
    if total > most:
        widest = max(values, key=values.__getitem__)
        raise OutOfMemory(
            f"engine 'dmt': tensors of {total:.1e} values, at most {most}: a qubit has pairs with"
            f" {partners[widest]} others, each a bond of up to {bond}",
            hint="compile the circuit for a device, whose qubits have few neighbours, or lower the"
            " option bond",
        )


def _may_be_cut(component: PairComponent, bond: int, maps: Maps) -> bool:
    """Return whether a component has loops, or bonds that may exceed their limit."""
    if len(component.edges) >= len(component.order):
        return True
    most = dmt_bond(bond, is_line=component.is_line)
    return any(size > most for size in _bond_sizes(component, _UNBOUNDED, maps).values())


def _bond_sizes(component: PairComponent, bond: int, maps: Maps) -> dict[tuple[int, int], float]:
    """Bounds of the bonds: by the option, by the terms of the maps, by the other bonds of a
    qubit."""
    sizes = dict.fromkeys(component.edges, 1.0)
    for pair in maps.pairs:
        edge = pair.low, pair.high
        if edge in sizes:
            sizes[edge] = min(float(bond), sizes[edge] * len(pair.first))
    changed = True
    while changed:
        changed = False
        around: dict[int, float] = dict.fromkeys(component.order, 4.0)
        for edge, size in sizes.items():
            for q in edge:
                around[q] *= size
        for edge, size in sizes.items():
            most = min(around[q] / size for q in edge)
            if most < size:
                sizes[edge], changed = most, True
                for q in edge:
                    around[q] *= most / size
    return sizes


class _Samples(outputs.FinalState):
    """Counts and values of one binding."""

    def __init__(self, part: _Part, run: requests.BindingRun, pool: ThreadPool) -> None:
        self.num_qubits = part.part.circuit.num_qubits
        self._part, self._run, self._pool = part, run, pool
        settings = run.options.settings
        self._bond = int(CARD.value(settings, "bond"))
        self._tolerance = float(CARD.value(settings, "tolerance"))

    @functools.cached_property
    def _operators(self) -> DensityOperators:
        """The operators. Raises TruncatedState where their error is above the tolerance."""
        run = self._run
        maps = Maps.of(self._part.program, run.params)
        run.control.expect(max(1, len(maps.pairs)), OPERATIONS)
        parts = [
            component for component in components(self.num_qubits, maps)
            if _may_be_cut(component, self._bond, maps)
        ]  # fmt: skip
        widest = max(parts, key=lambda each: len(each.order), default=None)
        regions = self._regions(widest)
        comparisons: dict[int, RegionComparison] = {}
        evolved: list[DensityOperators] = []

        def evolve(pool: ThreadPool) -> None:
            memory = run.options.memory_bytes
            evolved.append(DensityOperators(maps, self._bond, pool, run.control, memory))

        def work(first: int, last: int, _thread: int) -> None:
            for number in range(first, last):
                if number == len(regions):
                    with ThreadPool(1, run.control) as single:
                        evolve(single)
                else:
                    comparisons[number] = self._compared(regions[number], number, widest)

        # Along a line maps follow one another; on a graph threads share them.
        is_shared = any(not component.is_line for component in parts)
        if is_shared:
            evolve(self._pool)
        self._pool.run(work, len(regions) + (not is_shared), 1)
        found = evolved[0]
        self.remark = f"bond {found.bond}"
        if found.approximate:
            self.error = measured_error(regions, [comparisons[k] for k in range(len(regions))])
            self._check(found)
        return found

    def _regions(self, component: PairComponent | None) -> tuple[Region, ...]:
        """Regions that measure the error of a component."""
        if component is None:
            return ()
        bound = replace(
            self._part.part.circuit, params_data=self._run.params.tobytes(), num_slots=0,
            slots_data=b"",
        )  # fmt: skip
        return regions_of(bound, self._part.noise, component)

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
            maps = Maps.of(program_of(circuit, noise, layout), circuit.params)
            bond = dmt_bond(self._bond, is_line=is_line)
            with ThreadPool(1, control) as single:
                memory = self._run.options.memory_bytes
                own = DensityOperators(maps, bond, single, control, memory, is_line)
            return np.array([own.value(0, sum(1 << q for q in string)) for string in strings])

        return compared(region, number, truncated, control)

    def _check(self, found: DensityOperators) -> None:
        """Set what the result states of its error, or refuse it."""
        assert self.error is not None
        rms, deviation = self.error.local_rms, self.error.local_standard_error
        stated = f"{rms:.1e} +- {deviation:.1e}"
        self.truncation = rms + deviation
        if rms + deviation > self._tolerance:
            raise TruncatedState(
                f"engine 'dmt': values on one and two qubits have an error of {stated} in regions"
                f" of {self.error.region_qubits} qubits, with bonds of up to {found.bond};"
                f" {self._tolerance:.1e} is allowed",
                hint="a larger option bond or tolerance, or fewer layers",
            )
        self.remark += (
            f"; error of values on one and two qubits {stated}, measured on regions; nothing is"
            f" said about correlations of more than {self.error.subset_bits} bits"
        )

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        found, source = self._operators, self._part.layouts.clbits.source
        clipped = 0.0
        for first in range(0, shots, _SHOTS_AT_ONCE):
            size = min(_SHOTS_AT_ONCE, shots - first)
            bits, own = self._drawn(found, range(first, first + size), key)
            clipped += own
            records = np.zeros((size, num_words(source.size)), np.uint64)
            records |= packing.select_bits(bits, source)
            yield records, None
        if self.error is not None:
            self.error = replace(self.error, negative=clipped / shots)

    def _drawn(
        self, found: DensityOperators, shots: range, key: outputs.SeedKey
    ) -> tuple[NDArray[np.uint8], float]:
        """Bits [shots, qubits], and the sum of what was clipped. Threads draw parts of the shots,
        which are the same for any number of threads."""
        parts = [shots[k : k + _SHOTS_OF_A_PART] for k in range(0, len(shots), _SHOTS_OF_A_PART)]
        bits = np.empty((len(shots), self.num_qubits), np.uint8)
        clipped = np.zeros(len(parts))

        def work(begin: int, end: int, _thread: int) -> None:
            for number in range(begin, end):
                self._run.control.check()
                part = parts[number]
                rows = slice(part.start - shots.start, part.stop - shots.start)
                bits[rows], clipped[number] = found.sample(part.start, part.stop, key)

        self._pool.run(work, len(parts), 1)
        return bits, float(clipped.sum())

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        found = self._operators
        return np.array([found.value(x, z) for x, z in strings])
