"""Outputs of a final state: one collector of results for all engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import Circuit
from simulators.engine import SAMPLED, Request
from simulators.errors import Unsupported
from simulators.execution import pauli_sums, sampling
from simulators.execution.readout import ReadoutStage
from simulators.execution.sampling import Counts, Distribution, Memory, outcome_records, pack
from simulators.results import BindingResult

SeedKey = tuple[int, int]  # seed and number of the binding
PauliStrings = list[tuple[int, int]]  # masks (x, z), see `pauli_sums`
Batch = tuple[NDArray[np.uint64], NDArray[np.int64] | None]  # see `FinalState.sample`


class FinalState:
    """State of a circuit after its last operation, for one binding.

    Base class: an engine overrides the methods that the outputs of its card need. A method is
    called at most once, and only for an output of the request, so the evolution may wait for the
    first call.
    """

    num_qubits: int
    truncation: float = 0.0
    remark: str = ""
    readout: ReadoutStage | None = None  # error of the terminal measurements

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:  # noqa: ARG002  # an interface
        """Classical records of the shots, in batches: uint64 [n, words], and the number of shots of
        each record (None: one each). The records are in the order of the shots if the request has
        the output `memory`, and with a readout error if the engine has an order."""
        raise _missing("counts")

    def probabilities(self) -> Distribution:
        """Exact distribution over the clbits; over the qubits if the circuit measures nothing."""
        raise _missing("probabilities")

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:  # noqa: ARG002  # as above
        """Exact expectation value of each Pauli string: float64 [strings]."""
        raise _missing("expectation")

    def sampled_expectations(
        self, strings: PauliStrings, shots: int, key: SeedKey
    ) -> NDArray[np.float64]:
        """Mean of `shots` samples of each Pauli string: float64 [strings]."""
        return pauli_sums.sampled(self.expectations(strings), shots, key)

    def estimates(
        self, strings: PauliStrings, request: Request, key: SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Value and standard error of each observable; `strings`: of all of them."""
        if request.shots:
            means = self.sampled_expectations(strings, request.shots, key)
        else:
            means = self.expectations(strings)
        return pauli_sums.estimates(request.observables, means, request.shots)

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
        """See `FinalState`."""
        for records in sampling.sample(self._amplitudes, self._layout.source, shots, key):
            yield records, None

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        source = self._layout.source if self._layout.measures else None
        return sampling.distribution(self._amplitudes, source)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        return sampling.means(self._amplitudes, strings)

    def statevector(self) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        return self._amplitudes


class RecordedState(FinalState):
    """Records of the shots in order, made by a library."""

    def __init__(self, num_qubits: int, records: NDArray[np.uint64], remark: str = "") -> None:
        """Set up. `records`: uint64 [shots, words]."""
        self.num_qubits = num_qubits
        self._records = records
        self.remark = remark

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:  # noqa: ARG002  # see `FinalState`
        """See `FinalState`."""
        yield self._records, None


class CountedState(FinalState):
    """Outcomes of shots that a device or a library has counted."""

    def __init__(self, circuit: Circuit, counts: Mapping[int, int], remark: str = "") -> None:
        self._batch = outcome_records(counts, circuit.num_clbits)
        self.num_qubits = circuit.num_qubits
        self.remark = remark

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:  # noqa: ARG002  # see `FinalState`
        """See `FinalState`."""
        yield self._batch


def collect(
    state: FinalState,
    layouts: MeasurementLayouts,
    request: Request,
    key: SeedKey,
    readout: ReadoutStage | None = None,
) -> BindingResult:
    """Compute all outputs of a request for one binding. `readout`: error of the terminal
    measurements.

    Raises Unsupported for Pauli strings that do not fit the qubits, or have X or Y on a qubit that
    is measured at the end.
    """
    outputs, layout = request.outputs, layouts.clbits
    strings = pauli_sums.terms(request.observables, state.num_qubits)
    expectations: tuple[tuple[float, float], ...] = ()
    if "expectation" in outputs:
        pauli_sums.refuse_collapsed(request.observables, strings, layouts.state.measured)
        expectations = state.estimates(strings, request, key)
    width, outcomes, counts, memory = 0, b"", b"", b""
    if not SAMPLED.isdisjoint(outputs):
        width, outcomes, counts, memory = _sampled(state, layout.source.size, request, key, readout)
    values, value_width, probabilities = b"", 0, b""
    if "probabilities" in outputs:
        distribution = state.probabilities()
        if readout is not None:
            distribution = readout.confuse(distribution)
        records, probs = distribution
        num_bits = layout.source.size if layout.measures else state.num_qubits
        values, value_width = pack(records, num_bits)
        probabilities = probs.tobytes()
    amplitudes = state.statevector() if "statevector" in outputs else None
    chosen = state.amplitudes(_bits(request, state)) if "amplitudes" in outputs else None
    gradients = state.gradients() if "gradient" in outputs else None
    return BindingResult(
        width,
        outcomes,
        counts,
        values,
        value_width,
        probabilities,
        amplitudes,
        expectations,
        state.truncation,
        state.remark,
        gradients,
        memory,
        chosen,
    )


def _bits(request: Request, state: FinalState) -> NDArray[np.uint8]:
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
    request: Request,
    key: SeedKey,
    readout: ReadoutStage | None,
) -> tuple[int, bytes, bytes, bytes]:
    """Width, outcomes and numbers of the counts, and the memory; empty if not requested."""
    counts = Counts(num_clbits) if "counts" in request.outputs else None
    memory = Memory(num_clbits) if "memory" in request.outputs else None
    first = 0
    for records, multiplicities in state.sample(request.shots, key):
        read, repeats = records, multiplicities
        if memory is not None and repeats is not None:
            raise Unsupported(
                "the output 'memory' of outcomes that were counted: their shots have no order",
                hint="ask for counts, or for another engine",
            )
        if readout is not None:
            read, repeats = (
                records.copy() if repeats is None else np.repeat(records, repeats, 0),
                None,
            )
            readout.flip(read, first, key)
            first += len(read)
        if counts is not None:
            counts.add(read, repeats)
        if memory is not None:
            memory.add(read)
    width, outcomes, tallies = (0, b"", b"") if counts is None else counts.packed()
    return width, outcomes, tallies, b"" if memory is None else memory.packed()
