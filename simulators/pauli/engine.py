"""Engine `pauli`: expectation values by Pauli propagation, with noise and without."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators import engine
from simulators.catalog import builtin_card
from simulators.catalog.costs import PAULI_BYTES, pauli_string_bytes
from simulators.circuit.analysis import measurements
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit, active_part
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.engine import STRINGS, EngineResult, Request, RunControl, RunOptions, ThreadPool
from simulators.errors import OutOfMemory, TruncatedState
from simulators.execution import circuit_checks, outputs, part_caches, requests
from simulators.execution.ranks import Ranks, RanksEngine
from simulators.strings.certification import (
    BOUND,
    UNBIASED,
    UNKNOWN,
    ErrorTarget,
    Stated,
    StringLimits,
    certified,
    targets,
)
from simulators.strings.program import Program, program_of
from simulators.strings.propagation import Propagation

CARD = builtin_card("pauli")
_OF_SHOTS = 0.25  # error that values may have, relative to that of the shots
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))


class _Part:
    """Part of a circuit that some observables depend on."""

    def __init__(self, part: Subcircuit, noise: NoiseProgram) -> None:
        self.part, self.noise = part, noise
        state = measurements.measurement_layout(part.circuit, noise, keep=True)
        self.layouts = measurements.MeasurementLayouts(state, state)
        self._program: tuple[bytes, Program] | None = None  # of the last parameters

    @property
    def memory_bytes(self) -> int:
        return self.part.memory_bytes + self.noise.memory_bytes

    def program(self, params: NDArray[np.float64]) -> Program:
        """Program for parameters of the part."""
        key = params.tobytes()
        if self._program is None or self._program[0] != key:
            self._program = key, program_of(self.part.circuit, params, self.noise)
        return self._program[1]


class PauliPlan:
    """Plan of a structure with its noise: a part for each set of observables."""

    def __init__(self, noise: NoiseProgram) -> None:
        self._noise = noise
        self._parts: part_caches.SupportCache[_Part] = part_caches.SupportCache()

    @property
    def memory_bytes(self) -> int:
        return self._noise.memory_bytes + sum(part.memory_bytes for part in self._parts.values())

    def part(self, circuit: Circuit, request: Request) -> _Part:
        def make(support: OutputSupport | None) -> _Part:
            return _Part(*active_part(circuit, self._noise, support))

        return self._parts.of(circuit, request, make)


class PauliEngine(RanksEngine):
    """Pauli propagation; threads and ranks share the strings of the observables."""

    card = CARD

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        return True

    def plan(
        self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions
    ) -> engine.Plan:
        circuit_checks.check_request(CARD, circuit, noise, options)
        return PauliPlan(_NO_NOISE if noise is None else noise)

    def run(
        self,
        plan: engine.Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        if not isinstance(plan, PauliPlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        requests.check_run(circuit, options)
        ranks = Ranks(control, self._comm)
        run = requests.EngineRun(circuit, request, options, ranks.control)
        rows = run.rows()
        requests.check_outputs(CARD, request, bool(circuit.clbits_data))
        outputs.terms(request.observables, circuit.num_qubits)
        part = plan.part(circuit, request)
        own = part_caches.part_request(part.part, request, circuit.num_qubits)
        results = []
        for row in rows:
            bound = replace(row, params=row.params[part.part.params], request=own)
            state = _Values(part, bound, ranks)
            results.append(outputs.collect(state, part.layouts, own, row.key))
        return EngineResult.joined(results) if self.is_root else None  # type: ignore[return-value]

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:  # noqa: ARG002  # see `run`
        """Not called: `run` has its own states."""
        raise TypeError("the values of this engine depend on their observables")

    def warm_up(self) -> None:
        """Nothing to do: the first task loads the kernel."""


class _Values(outputs.FinalState):
    """Expectation values of one binding."""

    def __init__(self, part: _Part, run: requests.BindingRun, ranks: Ranks) -> None:
        self.num_qubits = part.part.circuit.num_qubits
        self._run, self._ranks = run, ranks
        self._program = part.program(run.params)
        self._qubits = part.part.qubits.tolist()
        settings = run.options.settings
        self._limits = StringLimits.of(settings)
        self._uncertified = bool(CARD.value(settings, "uncertified"))
        each = 2 * self._limits.strings * pauli_string_bytes(self.num_qubits)
        self._threads = min(run.options.threads, PAULI_BYTES // each)
        if not self._threads:
            raise OutOfMemory(
                f"{self._limits.strings} strings of {self.num_qubits} qubits take up to"
                f" {each >> 20} MiB; all have {PAULI_BYTES >> 20} MiB",
                hint="lower the option strings",
            )

    def estimates(
        self, strings: outputs.PauliStrings, request: Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Value and error of each observable: see `certification`; of shots, with their own."""
        owners, weights = outputs.owners_and_weights(request.observables)
        tolerance = self._limits.tolerance
        if request.shots:
            tolerance = max(tolerance, _OF_SHOTS / math.sqrt(request.shots))
        wanted = targets(strings, owners, weights, tolerance)
        stated = dict(zip(wanted, self._stated(wanted, key), strict=True))
        self._summarise(stated)
        means = np.array([stated[string].value for string in strings])
        if request.shots:
            means = outputs.sampled(np.clip(means, -1.0, 1.0), request.shots, key)
        drawn = outputs.estimates(request.observables, means, request.shots)
        squares, bounds = np.zeros(len(drawn)), np.zeros(len(drawn))
        for string, owner, weight in zip(strings, owners, np.abs(weights), strict=True):
            found = stated[string]
            if found.basis == UNBIASED:
                squares[owner] += (weight * found.error) ** 2
            else:
                bounds[owner] += weight * found.error
        return tuple(
            (value, math.sqrt(error * error + square) + bound)
            for (value, error), square, bound in zip(
                drawn, squares.tolist(), bounds.tolist(), strict=True
            )
        )

    def _stated(
        self, wanted: dict[tuple[int, int], ErrorTarget], key: outputs.SeedKey
    ) -> list[Stated]:
        """Value of each string; ranks share them, then threads."""
        strings, most = list(wanted), self._limits.strings
        table = np.zeros((len(strings), len(Stated.__struct_fields__)))
        control, program = self._ranks.control, self._program
        mine = range(self._ranks.rank, len(strings), self._ranks.size)
        control.expect(len(mine), STRINGS)
        arrays: dict[int, Propagation] = {}  # of each thread
        refused: list[TruncatedState] = []

        def work(first: int, last: int, thread: int) -> None:
            if thread not in arrays:
                arrays[thread] = Propagation(program.num_qubits)
            for number in mine[first:last]:
                if refused:
                    return
                string = strings[number]
                found = certified(
                    arrays[thread], program, string, (*key, number), wanted[string], most, control
                )
                if found.basis == UNKNOWN and not self._uncertified:
                    refused.append(self._refusal(string, found))
                table[number] = msgspec.structs.astuple(found)

        def fill() -> None:
            with ThreadPool(self._threads, control) as pool:
                pool.run(work, len(mine), 1, STRINGS)
            if refused:
                raise refused[0]

        self._ranks.summed(table, fill)
        return [Stated.of(row) for row in table.tolist()]

    def _summarise(self, stated: dict[tuple[int, int], Stated]) -> None:
        """Set the remark and the truncation: the largest bound."""
        by_basis = {
            basis: [each for each in stated.values() if each.basis == basis]
            for basis in (BOUND, UNBIASED, UNKNOWN)
        }
        parts = []
        bounds = [each.error for each in by_basis[BOUND] + by_basis[UNKNOWN]]
        self.truncation = max(bounds, default=0.0)
        if by_basis[BOUND]:
            largest = max(each.error for each in by_basis[BOUND])
            count = len(by_basis[BOUND])
            parts.append(f"{count} strings with a bound of at most {largest:.2g}")
        if by_basis[UNBIASED]:
            count, eps = len(by_basis[UNBIASED]), min(each.eps for each in by_basis[UNBIASED])
            parts.append(f"{count} strings by 8 unbiased runs, cut below {eps:.2g}")
        for string, each in stated.items():
            if each.basis == UNKNOWN:
                parts.append(f"converged: unknown: {self._unknown(string, each)}")
                count = len(by_basis[UNKNOWN]) - 1
                if count:
                    parts[-1] += f"; so are {count} others"
                break
        self.remark = "; ".join(parts)

    def _unknown(self, string: tuple[int, int], found: Stated) -> str:
        """Description of a value that is not certified."""
        x, z = string
        label = "".join(
            f"{'IXZY'[(x >> q & 1) + 2 * (z >> q & 1)]}{self._qubits[q]}"
            for q in range(self.num_qubits)
            if (x | z) >> q & 1
        )
        text = f"{label}: {found.value:.6g} at eps {found.eps:.2g}"
        for eps, value in (
            (found.second_eps, found.second_value), (found.third_eps, found.third_value)
        ):  # fmt: skip
            text += f", {value:.6g} at {eps:.2g}"
        if not found.diagonal:
            text += "; no contribution: no string of I and Z was left, which is no evidence of 0"
        return text

    def _refusal(self, string: tuple[int, int], found: Stated) -> TruncatedState:
        limits = self._limits
        return TruncatedState(
            f"no error of {limits.tolerance:g} can be stated with {limits.strings} strings:"
            f" {self._unknown(string, found)}",
            hint="raise the options tolerance or strings; option uncertified=1 gives the value"
            " so far, with 'converged: unknown'",
        )
