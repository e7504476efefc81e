"""Outputs of a final state: counts, distributions, amplitudes and Pauli sums."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators import engine
from simulators.catalog import EngineCard
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit, bell, feed_forward
from simulators.circuit.noise import NoiseProgram
from simulators.errors import Unsupported
from simulators.execution import packing, philox, sampling
from simulators.execution.circuit_checks import plan_layouts
from simulators.execution.readout import ReadoutStage
from simulators.execution.requests import BindingRun, bind, open_run

# Pauli sums: validation, and values from the expectation values of the strings.
#
# A string is a pair of masks (x, z), bit q for qubit q; both bits set is Y.

FIRST_TERM = 2**32  # draw number of the first sampled term
_SHOTS_AT_ONCE = 1 << 20

_X = str.maketrans("IXYZ", "0110")
_Z = str.maketrans("IXYZ", "0011")


def masks(label: str, num_qubits: int) -> tuple[int, int]:
    """Masks (x, z) of a Pauli string in Qiskit's order. Raises Unsupported for an invalid
    string."""
    if len(label) != num_qubits or set(label) - set("IXYZ"):
        text = f"Pauli string {label[:64]!r} does not fit {num_qubits} qubits"
        hint = f"give {num_qubits} characters of I, X, Y, Z; the last one is qubit 0"
        raise Unsupported(text, hint=hint)
    return int(label.translate(_X) or "0", 2), int(label.translate(_Z) or "0", 2)


def terms(observables: tuple[engine.PauliSum, ...], num_qubits: int) -> list[tuple[int, int]]:
    """Masks (x, z) of every term of all observables in order; each observable has at least one."""
    for number, observable in enumerate(observables):
        values = observable.coefficients
        if not observable.labels:
            hint = "leave a sum of nothing out: it is 0, and so is its gradient"
            raise Unsupported(f"observable {number} has no Pauli string", hint=hint)
        if len(observable.labels) != len(values) or not np.isfinite(values).all():
            text = f"observable {number} has {len(observable.labels)} Pauli strings and"
            text += f" {len(values)} coefficients, or one that is not finite"
            raise Unsupported(text, hint="give one finite real coefficient a string")
    return [masks(label, num_qubits) for item in observables for label in item.labels]


def owners_and_weights(
    observables: tuple[engine.PauliSum, ...],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of the observable of each term of all observables, and its coefficient."""
    owners = np.repeat(np.arange(len(observables)), [len(item.labels) for item in observables])
    return owners, np.concatenate([np.zeros(0), *(item.coefficients for item in observables)])


def refuse_collapsed(
    observables: tuple[engine.PauliSum, ...], strings: list[tuple[int, int]], measured: int
) -> None:
    """Refuse X and Y on qubits that the circuit measures at its end; `measured`: their mask. For
    these the values before and after the measurement differ; diagonal strings have one value."""
    labels = [label for item in observables for label in item.labels]
    for label, (x, _) in zip(labels, strings, strict=True):
        if x & measured:
            qubit = (x & measured).bit_length() - 1
            raise Unsupported(
                f"Pauli string {label[:64]!r} asks for X or Y on qubit {qubit}, which the circuit"
                " measures at its end",
                hint="remove the final measurement",
            )


def sampled(means: NDArray[np.float64], shots: int, key: tuple[int, int]) -> NDArray[np.float64]:
    """Mean of `shots` samples of +1 or -1 of each string, drawn by the seed contract. `means`:
    exact, float64 [strings]; `key`: seed and binding."""
    ups = np.zeros(len(means), np.int64)
    for first in range(0, shots, _SHOTS_AT_ONCE):
        shot_ids = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
        draws = np.empty(shot_ids.size)
        for term, mean in enumerate(means.tolist()):
            philox.uniforms(*key, FIRST_TERM + term, shot_ids, draws)
            ups[term] += np.count_nonzero(draws < 0.5 * (1.0 + mean))
    return 2.0 * ups / shots - 1.0


def estimates(
    observables: tuple[engine.PauliSum, ...], means: NDArray[np.float64], shots: int
) -> tuple[tuple[float, float], ...]:
    """(value, standard error) of each observable from its strings' means; shots 0: exact."""
    results: list[tuple[float, float]] = []
    at = 0
    for item in observables:
        mean = means[at : at + len(item.labels)]
        at += len(item.labels)
        value = float(item.coefficients @ mean)
        error = 0.0
        if shots:
            spread = np.maximum(0.0, 1.0 - mean * mean) / max(1, shots - 1)
            error = math.sqrt(float(item.coefficients**2 @ spread))
        results.append((value, error))
    return tuple(results)


# Outputs of a final state: one collector of results for all engines.

SeedKey = tuple[int, int]  # seed and number of the binding
PauliStrings = list[tuple[int, int]]  # masks (x, z), see `pauli_sums`
Batch = tuple[NDArray[np.uint64], NDArray[np.int64] | None]  # see `FinalState.sample`


class FinalState:
    """State of a circuit after its last operation, for one binding. Base class: an engine overrides
    the methods that the outputs of its card need. A method is called at most once, and only for an
    output of the request, so the evolution may wait for the first call."""

    num_qubits: int
    truncation: float = 0.0
    error: engine.ErrorEstimate | None = None
    remark: str = ""
    readout: ReadoutStage | None = None  # error of the terminal measurements

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:  # noqa: ARG002  # an interface
        """Classical records of the shots, in batches: uint64 [n, words], and the number of shots of
        each record (None: one each). The records are in the order of the shots if the request has
        the output `memory`, and with a readout error if the engine has an order."""
        raise _missing("counts")

    def probabilities(self) -> sampling.Distribution:
        """Exact distribution over the clbits; over the qubits if the circuit measures nothing."""
        raise _missing("probabilities")

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:  # noqa: ARG002  # as above
        """Exact expectation value of each Pauli string: float64 [strings]."""
        raise _missing("expectation")

    def sampled_expectations(
        self, strings: PauliStrings, shots: int, key: SeedKey
    ) -> NDArray[np.float64]:
        """Mean of `shots` samples of each Pauli string: float64 [strings]."""
        return sampled(self.expectations(strings), shots, key)

    def estimates(
        self, strings: PauliStrings, request: engine.Request, key: SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Value and standard error of each observable; `strings`: of all of them."""
        if request.shots:
            means = self.sampled_expectations(strings, request.shots, key)
        else:
            means = self.expectations(strings)
        return estimates(request.observables, means, request.shots)

    def statevector(self) -> NDArray[np.complexfloating] | None:
        """All amplitudes, [2**num_qubits]; None in ranks other than the root."""
        raise _missing("statevector")

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating] | None:
        """Amplitude of each basis state: [strings]; None in ranks other than the root. `bits`:
        uint8 [strings, qubits], the bit of qubit q in column q."""
        state = self.statevector()
        return None if state is None else state[basis_indices(bits)]

    def gradients(self) -> NDArray[np.float64]:
        """Gradient of each observable by each slot: float64 [observables, slots]."""
        raise _missing("gradient")


def basis_indices(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index of each basis state in a state vector: int64 [strings]."""
    indices: NDArray[np.int64] = bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))
    return indices


def _missing(output: str) -> Unsupported:
    return Unsupported(f"this engine computes no output {output!r}", hint="its card lists others")


class DenseState(FinalState):
    """Amplitudes in one array, of a circuit whose measurements can wait for its end."""

    def __init__(
        self,
        layouts: MeasurementLayouts,
        num_qubits: int,
        evolve: Callable[[], NDArray[np.complexfloating]],
    ) -> None:
        """Set up. `evolve` returns the normalised state [2**num_qubits]; it is called at the first
        need."""
        self.num_qubits = num_qubits
        self._layout = layouts.clbits
        self._evolve = evolve

    @cached_property
    def _amplitudes(self) -> NDArray[np.complexfloating]:
        return self._evolve()

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        for records in sampling.sample(self._amplitudes, self._layout.source, shots, key):
            yield records, None

    def probabilities(self) -> sampling.Distribution:
        source = self._layout.source if self._layout.measures else None
        return sampling.distribution(self._amplitudes, source)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        return sampling.means(self._amplitudes, strings)

    def statevector(self) -> NDArray[np.complexfloating]:
        return self._amplitudes


class RecordedState(FinalState):
    """Records of the shots in order, made by a library."""

    def __init__(self, num_qubits: int, records: NDArray[np.uint64], remark: str = "") -> None:
        """Set up. `records`: uint64 [shots, words]."""
        self.num_qubits = num_qubits
        self._records = records
        self.remark = remark

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:  # noqa: ARG002  # see `FinalState`
        yield self._records, None


class CountedState(FinalState):
    """Outcomes of shots that a device or a library has counted."""

    def __init__(self, circuit: Circuit, counts: Mapping[int, int], remark: str = "") -> None:
        self._batch = packing.outcome_records(counts, circuit.num_clbits)
        self.num_qubits = circuit.num_qubits
        self.remark = remark

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:  # noqa: ARG002  # see `FinalState`
        yield self._batch


def collect(
    state: FinalState,
    layouts: MeasurementLayouts,
    request: engine.Request,
    key: SeedKey,
    readout: ReadoutStage | None = None,
) -> engine.BindingResult:
    """Compute all outputs of a request for one binding. `readout`: error of the terminal
    measurements. Raises Unsupported for Pauli strings that do not fit the qubits, or have X or Y on
    a qubit that is measured at the end."""
    outputs, layout = request.outputs, layouts.clbits
    strings = terms(request.observables, state.num_qubits)
    expectations: tuple[tuple[float, float], ...] = ()
    if "expectation" in outputs:
        refuse_collapsed(request.observables, strings, layouts.state.measured)
        expectations = state.estimates(strings, request, key)
    width, outcomes, counts, memory = 0, b"", b"", b""
    if not engine.SAMPLED.isdisjoint(outputs):
        width, outcomes, counts, memory = _sampled(state, layout.source.size, request, key, readout)
    values, value_width, probabilities = b"", 0, b""
    if "probabilities" in outputs:
        distribution = state.probabilities()
        if readout is not None:
            distribution = readout.confuse(distribution)
        records, probs = distribution
        num_bits = layout.source.size if layout.measures else state.num_qubits
        values, value_width = packing.pack(records, num_bits)
        probabilities = probs.tobytes()
    amplitudes = state.statevector() if "statevector" in outputs else None
    chosen = state.amplitudes(_bits(request, state)) if "amplitudes" in outputs else None
    gradients = state.gradients() if "gradient" in outputs else None
    return engine.BindingResult(
        width, outcomes, counts, values, value_width, probabilities, amplitudes, expectations,
        state.truncation, state.remark, gradients, memory, chosen, state.error,
    )  # fmt: skip


def _bits(request: engine.Request, state: FinalState) -> NDArray[np.uint8]:
    """Bits of the requested amplitudes. Raises Unsupported for those of another width."""
    bits = request.amplitudes
    if bits is None or bits.shape[1] != state.num_qubits:
        raise Unsupported(
            f"amplitudes of {0 if bits is None else bits.shape[1]} qubits were asked for, and the"
            f" circuit has {state.num_qubits}",
            hint="give a bit for each qubit",
        )
    return bits


def _sampled(
    state: FinalState,
    num_clbits: int,
    request: engine.Request,
    key: SeedKey,
    readout: ReadoutStage | None,
) -> tuple[int, bytes, bytes, bytes]:
    """Width, outcomes and numbers of the counts, and the memory; empty if not requested."""
    counts = packing.Counts(num_clbits) if "counts" in request.outputs else None
    memory = packing.Memory(num_clbits) if "memory" in request.outputs else None
    first = 0
    for records, multiplicities in state.sample(request.shots, key):
        read, repeats = records, multiplicities
        if memory is not None and repeats is not None:
            text = "the output 'memory' of outcomes that were counted: their shots have no order"
            raise Unsupported(text, hint="ask for counts, or for another engine")
        if readout is not None:
            read = records.copy() if repeats is None else np.repeat(records, repeats, 0)
            repeats = None
            readout.flip(read, first, key)
            first += len(read)
        if counts is not None:
            counts.add(read, repeats)
        if memory is not None:
            memory.add(read)
    width, outcomes, tallies = (0, b"", b"") if counts is None else counts.packed()
    return width, outcomes, tallies, b"" if memory is None else memory.packed()


# Base class of engines whose plans are the measurement layouts alone: a state for each binding.


class BoundRun(BindingRun, frozen=True, eq=False):
    """One binding of a run, with the circuit's measurements."""

    layouts: MeasurementLayouts


class EngineBase(abc.ABC):
    """Engine that overrides `final_state`, and `check` for what its card cannot tell."""

    card: EngineCard
    is_root: bool = True  # False: the results are those of another rank

    @property
    def name(self) -> str:
        return self.card.name

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        """Return False: a plan is two compiled passes."""
        return False

    def plan(
        self, circuit: Circuit, noise: NoiseProgram | None, options: engine.RunOptions
    ) -> engine.Plan:
        """Prepare the layouts. Refuses what the card lacks."""
        return plan_layouts(self.card, circuit, noise, options)

    def run(
        self,
        plan: engine.Plan,
        circuit: Circuit,
        request: engine.Request,
        options: engine.RunOptions,
        control: engine.RunControl,
    ) -> engine.EngineResult:
        layouts, number = open_run(self.card, plan, circuit, request, options)
        self.check(layouts, request, options)
        results = []
        for row in control.divide(number, engine.BINDINGS):
            self.check_stop(control)
            control.row = row
            params, key = bind(circuit, request, row), (request.seed, request.binding + row)
            run = BoundRun(circuit, params, request, key, options, control, layouts)
            state = self.final_state(run)
            results.append(collect(state, layouts, request, key, state.readout))
            self.check_stop(control)
        return engine.EngineResult.joined(results) if self.is_root else None  # type: ignore[return-value]

    def check(  # noqa: B027  # most engines refuse nothing more
        self, layouts: MeasurementLayouts, request: engine.Request, options: engine.RunOptions
    ) -> None:
        """Raise Unsupported for a request that the engine cannot run."""

    def check_stop(self, control: engine.RunControl) -> None:
        """Raise Stopped if the run was asked to stop."""
        control.check()

    @abc.abstractmethod
    def final_state(self, run: BoundRun) -> FinalState:
        """State of a circuit after its last operation."""

    def warm_up(self) -> None:
        """Run small circuits, a dynamic one too if the engine has such."""
        options, request = engine.RunOptions(), engine.Request(16, 1)
        for circuit in (bell(), feed_forward())[: 1 + self.card.control.dynamic]:
            plan = self.plan(circuit, None, options)
            self.run(plan, circuit, request, options, engine.RunControl())
