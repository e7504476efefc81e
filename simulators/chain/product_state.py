"""Matrix product state after evolution, and its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.engine import OPERATIONS, SAMPLED, Request, RunControl
from simulators.errors import OutOfMemory
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey
from simulators.execution.packing import select_bits
from simulators.execution.philox import uniforms
from simulators.execution.sampling import Distribution, distribution

# Matrix product state after evolution: samples, expectation values, amplitudes.
#
# Tensors have shape [left, 2, right], one a site. All but the first are right-canonical, up to
# truncation, so the tensors at and right of a site contract to the identity. Sites are sampled from
# the first one on.

Tensor = NDArray[np.complexfloating]
SiteString = tuple[int, tuple[tuple[int, int], ...]]  # first site, and letters from it on

_VALUES_AT_ONCE = 1 << 22  # of the vectors of amplitudes
LEAST_CUTOFF = {"complex128": 0.0, "complex64": 1e-12}  # smaller: rounding, fills bonds
ROUNDING = 1e-12  # a smaller deviation of the norm is no truncation
SITES_A_DRAW = 32  # qubits per uniform number: of its 53 bits, 21 are left for the rarest outcome
_LATER_DRAWS = 2**33  # group g of qubits has draw 2**33 + g; the first group has draw 0
_PAULIS = {
    (0, 0): np.eye(2, dtype=complex),
    (1, 0): np.array([[0, 1], [1, 0]], complex),
    (0, 1): np.array([[1, 0], [0, -1]], complex),
    (1, 1): np.array([[0, -1j], [1j, 0]]),
}


def truncation_of(fidelity: float) -> float:
    """Loss of fidelity that a result reports."""
    lost = 1.0 - fidelity
    return lost if lost > ROUNDING else 0.0


def check_memory(engine: str, need: int, limit_bytes: int) -> None:
    """Raise OutOfMemory if tensors exceed the memory of the run; 0: not known."""
    if 0 < limit_bytes < need:
        text = f"engine {engine!r}: its tensors and what they are split in take {need} bytes,"
        text += f" {limit_bytes} are allowed"
        hint = "a smaller option bond, precision='single', or workers with more memory"
        raise OutOfMemory(text, hint=hint)


class MatrixProductState(msgspec.Struct, frozen=True, eq=False):
    """A state of `len(tensors)` qubits."""

    tensors: tuple[Tensor, ...]
    sites: tuple[int, ...]  # site of each qubit
    truncation: float  # 1 - the estimated fidelity with the exact state
    phase: complex = 1.0  # global phase

    @property
    def bond(self) -> int:
        return max((tensor.shape[2] for tensor in self.tensors), default=1)

    def sample(
        self, shots: NDArray[np.int64], key: tuple[int, int], control: RunControl
    ) -> NDArray[np.uint8]:
        """Bits of these shots: uint8 [shots, qubits].

        Each shot is sampled site by site by its own uniform numbers (Ferris and Vidal, Phys. Rev. B
        85, 165146, 2012); shots with equal bits so far share one vector, so the work grows with
        distinct prefixes, not with shots. Up to `SITES_A_DRAW` qubits in their own order this is
        the inverse sampling of the statevector engine.
        """
        bits = sample_sites([[tensor] for tensor in self.tensors], None, shots, key, control)
        return np.ascontiguousarray(bits[list(self.sites)].T)

    def means(self, strings: list[tuple[int, int]], control: RunControl) -> NDArray[np.float64]:
        """Expectation value of each Pauli string (x, z). Environments are contracted once from each
        end. Strings are processed in the order of their letters, and share their common prefixes
        from their first site on."""
        spelled = sorted((self._spell(x, z), number) for number, (x, z) in enumerate(strings))
        lefts, rights = self._environments(control)
        norm = rights[0].ravel()[0].real
        result = np.empty(len(strings))
        path: list[Tensor] = []  # environments after each letter of the previous string
        before: SiteString = (-1, ())
        for (first, letters), number in spelled:
            control.check()
            control.advance(OPERATIONS)
            same = 0
            if first == before[0]:
                while same < min(len(letters), len(before[1])) and (
                    letters[same] == before[1][same]
                ):
                    same += 1
            del path[same:]
            for place in range(same, len(letters)):
                left = path[-1] if path else lefts[first]
                path.append(_carry(left, self.tensors[first + place], _PAULIS[letters[place]]))
            last = path[-1] if path else lefts[0]
            result[number] = np.sum(last * rights[first + len(letters)]).real / norm
            before = first, letters
        return result

    def amplitudes(
        self, bits: NDArray[np.uint8], control: RunControl
    ) -> NDArray[np.complexfloating]:
        """Amplitude of each basis state, of the normalised state: [strings]. `bits`: uint8
        [strings, qubits]. Bit strings with equal bits on the first sites share one vector up to
        there."""
        result = np.empty(len(bits), self.tensors[0].dtype if self.tensors else complex)
        columns = np.empty((len(self.tensors), len(bits)), np.uint8)
        columns[list(self.sites)] = bits.T
        order = np.lexsort(columns[::-1]) if len(columns) else np.arange(len(bits))
        step = max(1, _VALUES_AT_ONCE // self.bond)
        for first in range(0, len(bits), step):
            part = order[first : first + step]
            begins = np.zeros(part.size, bool)  # strings that differ from the one before
            begins[0] = True
            vectors = np.ones((1, 1), result.dtype)
            for tensor, column in zip(self.tensors, columns[:, part], strict=True):
                control.check()
                before = np.cumsum(begins) - 1
                begins[1:] |= column[1:] != column[:-1]
                heads = np.flatnonzero(begins)
                both = np.tensordot(vectors, tensor, (1, 0))
                vectors = both[before[heads], column[heads]]
            result[part] = vectors[np.cumsum(begins) - 1, 0]
        norm = np.sqrt(self._environments(control)[1][0].ravel()[0].real)
        result *= np.asarray(self.phase / norm, result.dtype)
        return result

    def state(self) -> NDArray[np.complexfloating]:
        """All amplitudes, normalised: [2**qubits], qubit 0 the lowest bit."""
        result = np.ones((1, 1), self.tensors[0].dtype if self.tensors else complex)
        for tensor in self.tensors:
            result = np.tensordot(result, tensor, (1, 0)).reshape(-1, tensor.shape[2])
        count = len(self.tensors)
        shaped = result.reshape((2,) * count)
        axes = [self.sites[qubit] for qubit in range(count - 1, -1, -1)]
        amplitudes = shaped.transpose(axes).reshape(-1) * np.asarray(self.phase, result.dtype)
        normal: NDArray[np.complexfloating] = amplitudes / np.linalg.norm(amplitudes)
        return normal

    def _spell(self, x: int, z: int) -> SiteString:
        """First site of a string, and its letters from there to its last one."""
        support = x | z
        letters: dict[int, tuple[int, int]] = {}
        while support:
            qubit = (support & -support).bit_length() - 1
            support &= support - 1
            letters[self.sites[qubit]] = x >> qubit & 1, z >> qubit & 1
        if not letters:
            return 0, ()
        first, last = min(letters), max(letters)
        return first, tuple(letters.get(site, (0, 0)) for site in range(first, last + 1))

    def _environments(self, control: RunControl) -> tuple[list[Tensor], list[Tensor]]:
        """Left environment of each site, [right*, right], and right environment with the site
        itself: two lists of [sites + 1]."""
        lefts: list[Tensor] = [np.ones((1, 1), complex)]
        for tensor in self.tensors:
            control.check()
            lefts.append(_carry(lefts[-1], tensor, None))
        rights: list[Tensor] = [np.ones((1, 1), complex)]
        for tensor in reversed(self.tensors):
            control.check()
            half = np.tensordot(tensor, rights[-1], (2, 1))  # [l, p, r*]
            rights.append(np.tensordot(tensor.conj(), half, ((1, 2), (1, 2))))
        return lefts, rights[::-1]


def _carry(left: Tensor, tensor: Tensor, pauli: NDArray[np.complex128] | None) -> Tensor:
    """Contract one further site into a left environment: [right*, right]."""
    turned = tensor.transpose(1, 0, 2) if pauli is None else np.tensordot(pauli, tensor, (1, 1))
    half = np.matmul(left, turned)  # [p, l*, r]
    carried: Tensor = np.tensordot(tensor.conj(), half, ((1, 0), (0, 1)))
    return carried


def sample_sites(
    versions: Sequence[Sequence[Tensor]],
    which: Sequence[NDArray[np.int64]] | None,
    shots: NDArray[np.int64],
    key: tuple[int, int],
    control: RunControl,
) -> NDArray[np.uint8]:
    """Bits of these shots, site by site: uint8 [sites, shots]. Shots may have different states:
    which[site][k] is the number of the tensor in versions[site] that shot k has there; None: there
    is one of each. See `MatrixProductState.sample`."""
    bits = np.zeros((len(versions), shots.size), np.uint8)
    draws = np.empty(shots.size)
    group = np.zeros(shots.size, np.int64)  # group of shots with equal bits and tensors so far
    vectors = np.ones((1, 1), versions[0][0].dtype) if versions else np.ones((1, 1))
    low, weight = np.zeros(1), np.ones(1)
    for site, tensors in enumerate(versions):
        control.check()
        control.advance(OPERATIONS)
        if site % SITES_A_DRAW == 0:
            number = site // SITES_A_DRAW
            uniforms(*key, _LATER_DRAWS + number if number else 0, shots, draws)
            low, weight = np.zeros(len(vectors)), np.ones(len(vectors))
        pieces: list[NDArray[np.intp] | slice] = [slice(None)]
        if len(tensors) > 1 and which is not None:
            pairs, group = np.unique(group * len(tensors) + which[site], return_inverse=True)
            before, chosen = np.divmod(pairs, len(tensors))
            vectors, low, weight = vectors[before], low[before], weight[before]
            ends = np.cumsum(np.bincount(chosen, minlength=len(tensors)))
            pieces = [*np.split(np.argsort(chosen, kind="stable"), ends[:-1])]
        right = max(tensor.shape[2] for tensor in tensors)
        if len(tensors) > 1:
            both = np.zeros((len(vectors), 2, right), vectors.dtype)
            probs = np.empty((len(vectors), 2))
        for tensor, piece in zip(tensors, pieces, strict=True):
            left, _, width = tensor.shape
            part = (vectors[piece, :left] @ tensor.reshape(left, 2 * width)).reshape(-1, 2, width)
            flat = np.ascontiguousarray(part).view(part.real.dtype)
            squares = np.einsum("npr,npr->np", flat, flat)
            if len(tensors) == 1:
                both, probs = part, squares.astype(np.float64, copy=False)
            else:
                both[piece, :, :width], probs[piece] = part, squares
        total = probs[:, 0] + probs[:, 1]
        share = weight * (probs[:, 0] / total)
        edge = low + share
        bit = draws >= edge[group]
        bits[site] = bit
        child = 2 * group + bit
        present = np.zeros(2 * len(vectors), bool)
        present[child] = True
        number_of = np.cumsum(present) - 1
        group = number_of[child]
        kept = np.flatnonzero(present)
        parent = kept >> 1
        vectors = both.reshape(-1, right)[kept]
        vectors *= (1.0 / np.sqrt(probs.reshape(-1)[kept]))[:, None].astype(vectors.real.dtype)
        is_one = (kept & 1).astype(bool)
        above = (low + weight)[parent]
        low = np.where(is_one, edge[parent], low[parent])
        weight = np.where(is_one, above - low, share[parent])
    return bits


# Outputs of a matrix product state, for the engines that make one.

_SHOTS_AT_ONCE = 8_192
_BITS_AT_ONCE = 1 << 24


def _shots_at_once(num_qubits: int) -> int:
    return max(1, min(_SHOTS_AT_ONCE, _BITS_AT_ONCE // max(1, num_qubits)))


def expect_outputs(num_qubits: int, request: Request, shots: int, control: RunControl) -> None:
    """Expect the operations of a chain's outputs, for the progress: a site of each batch of shots,
    and a Pauli string. `shots`: those of this process."""
    if not SAMPLED.isdisjoint(request.outputs):
        control.expect(num_qubits * -(-shots // _shots_at_once(num_qubits)), OPERATIONS)
    if "expectation" in request.outputs:
        control.expect(sum(len(item.labels) for item in request.observables), OPERATIONS)


class ChainState(FinalState):
    """Matrix product state of one binding."""

    def __init__(
        self, layouts: MeasurementLayouts, chain: MatrixProductState, control: RunControl
    ) -> None:
        self.num_qubits = len(chain.tensors)
        self._layout = layouts.clbits
        self._control = control
        self._chain = chain
        self.truncation = chain.truncation
        self.remark = f"bond {chain.bond}"

    @cached_property
    def _amplitudes(self) -> NDArray[np.complexfloating]:
        return self._chain.state()

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        for records in self.records(np.arange(shots), key):
            yield records, None

    def records(self, shots: NDArray[np.int64], key: SeedKey) -> Iterator[NDArray[np.uint64]]:
        """Classical records of these shots, in batches."""
        step = _shots_at_once(self.num_qubits)
        for first in range(0, shots.size, step):
            bits = self._chain.sample(shots[first : first + step], key, self._control)
            yield select_bits(bits, self._layout.source)

    def probabilities(self) -> Distribution:
        source = self._layout.source if self._layout.measures else None
        return distribution(self._amplitudes, source)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        return self._chain.means(strings, self._control)

    def statevector(self) -> NDArray[np.complexfloating]:
        return self._amplitudes

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating]:
        return self._chain.amplitudes(bits, self._control)
