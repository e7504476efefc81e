"""Trials of a matrix product state: actual growth of the bonds of a circuit.

The bound of the profile counts gates across a cut; repeated layers and small angles stay far below
it. A trial applies the gates in single precision, without measurements and noise, and counts
operations: it ends at a number of operations, of bytes, or at a bond, never by a clock. Free
parameters take fixed values in no simple ratio. A pure function of circuit and limits, up to the
rounding of LAPACK.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import DEFAULT_ENGINE, DENSE_QUBITS, SMALL_QUBITS, card, trial_operations
from simulators.catalog.cards import Options
from simulators.catalog.preference import (
    AUTO_BITS,
    EXACT_QUBITS,
    TRIAL_OPERATIONS,
    contraction_operations,
    statevector_operations,
)
from simulators.chain.right_canonical import Block, Matrix, RightCanonicalChain, gate_blocks
from simulators.circuit.analysis.active_width import active_size
from simulators.circuit.analysis.noise_profile import noise_profile
from simulators.circuit.analysis.profile import ChainTrial, Profile
from simulators.circuit.analysis.profiler import (
    chain_order,
    chain_part,
    chain_support,
    profile,
    traits,
)
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.engine import PauliSum, RunControl
from simulators.lines.size import sweep_size
from simulators.strings.size import strings_size
from simulators.trajectories.locations import locate

_CUTOFF = 1e-12  # weight; rounding in single precision is below it
_AUTO, _SWEEP, _PAULI, _MPS, _NEAR = "auto", "sweep", "pauli", "mps", "near_clifford"
_VALUES = ("expectation",)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
# Overheads, in arithmetic operations, of which a core does about ten in a nanosecond.
_GATE = 100_000  # a gate until it is in a block
_BLOCK = 100_000
_SPLIT = 100  # a split, for each of rows, columns and rank
_CALL = 1_500_000  # blocks of equal shape in one layer
_LEAST_PART = 1 / 3  # of the blocks: fewer are not representative
_MORE_DENSE = 1.25  # limit of the entanglement of the remaining blocks, per cut
_ROUNDING = 1e-9
_FAR_WITHIN = 0.8  # of the bond that would reach the limit at this rate


class TrialLimits(msgspec.Struct, frozen=True):
    operations: int
    bond: int  # largest bond
    enough: float = 0.0  # expected operations of all gates below which it ends early
    memory_bytes: int = 2**26  # of the tensors


class _Progress(msgspec.Struct):
    """Operations counted so far."""

    gates: int  # operations for all gates, before there are blocks
    applied: int = 0  # blocks
    calls: int = 0  # overheads, which grow with the blocks
    splits: int = 0  # operations that grow with the bonds cubed

    @property
    def spent(self) -> int:
        return self.gates + self.calls + self.splits

    def expected(self, part: float) -> tuple[int, int]:
        """Expected operations of all blocks, after a part of them; and those of the splits."""
        splits = int(self.splits / part**3)
        return int(self.gates + self.calls / part) + splits, splits


def chain_trial(circuit: Circuit, limits: TrialLimits) -> ChainTrial:
    """Apply gates of an admissible circuit whose measurements are final until a limit is reached,
    or until the remaining gates, which are no denser than the applied ones, are expected to stay
    far within the limits."""
    order = chain_order(circuit) or tuple(range(circuit.num_qubits - 1, -1, -1))
    # Gates, and the swaps of neighbours that bring distant qubits together and back; a gate on more
    # than two qubits counts those of its first and its last qubit for all but one.
    rows = circuit.table.rows[circuit.ops]
    counts = np.where(rows[:, 0] >= UNITARY, rows[:, 1], 0).astype(np.int64)
    begins = np.cumsum(rows[:, 1], dtype=np.int64) - rows[:, 1]
    sites = np.array(order, np.int64)[circuit.qubits]
    several = counts >= 2
    far = np.abs(sites[begins[several]] - sites[begins[several] + counts[several] - 1])
    swaps = 2 * (counts[several] - 1) * np.maximum(0, far - 1)
    progress = _Progress(_GATE * int(circuit.ops.size + swaps.sum()))
    if progress.spent > limits.operations:
        return ChainTrial(1, False, 0.0, progress.spent)
    layers = gate_blocks(circuit, trial_parameters(circuit), order).layers
    chain = RightCanonicalChain(len(order), bond=limits.bond + 1, cutoff=_CUTOFF, dtype="complex64")
    total, control = sum(map(len, layers)), RunControl()
    settled_at = _even_from(layers, len(order))
    for number, layer in enumerate(layers):
        _count(chain, layer, progress)
        full = 8 * chain.size > limits.memory_bytes or chain.widest > limits.bond
        part = progress.applied / total
        if full or progress.spent > limits.operations:
            return _ended(chain, False, part, (progress.spent, progress.splits), total)
        if number >= settled_at and chain.widest <= limits.bond**part * _FAR_WITHIN:
            expected = progress.expected(part)
            if expected[0] <= limits.enough:
                return _ended(chain, True, part, expected, total)
        chain.apply_layer(layer, control)
        progress.applied += len(layer)
    spent = progress.spent, progress.splits
    return _ended(chain, chain.widest <= limits.bond, 1.0, spent, total)


def _ended(
    chain: RightCanonicalChain, done: bool, part: float, operations: tuple[int, int], blocks: int
) -> ChainTrial:
    spent, splits = operations
    return ChainTrial(chain.widest, done, part, spent, 2 * 8 * chain.size, blocks, splits)


def _even_from(layers: list[list[Block]], num_sites: int) -> int:
    """First layer, after a third or more of all blocks, from which on no cut is entangled more, in
    proportion, than before; the number of layers if there is none."""
    crossed = np.zeros((len(layers) + 1, num_sites))
    count = np.cumsum([0, *map(len, layers)])
    ordinals = np.repeat(np.arange(1, len(layers) + 1), np.diff(count))
    blocks = [block for layer in layers for block in layer]
    pairs = np.array([block.count == 2 for block in blocks], bool)
    powers = np.ones(len(blocks))
    if pairs.any():
        powers[pairs] = _entangling([block.matrix for block in blocks if block.count == 2])
        firsts = np.array([block.first for block in blocks])
        np.add.at(crossed, (ordinals[pairs], firsts[pairs]), powers[pairs])
    for number, block in zip(ordinals[~pairs], np.flatnonzero(~pairs).tolist(), strict=True):
        first, wide = blocks[block].first, blocks[block].count
        crossed[number, first : first + wide - 1] += 1
    before = np.cumsum(crossed, axis=0)
    part = count / max(1, count[-1])
    even = (_MORE_DENSE * before >= before[-1] * part[:, None] - _ROUNDING).all(axis=1)
    places = np.flatnonzero(even & (part >= _LEAST_PART))
    return int(places[0]) if places.size else len(layers)


def _entangling(matrices: list[Matrix]) -> NDArray[np.float64]:
    """Weight of each matrix [4, 4] beyond the largest term of its operator Schmidt
    decomposition."""
    shaped = np.array(matrices).reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
    largest = np.linalg.svd(shaped, compute_uv=False)[:, 0].astype(np.float64)
    return np.asarray(1.0 - np.square(largest) / 4.0)


def _count(chain: RightCanonicalChain, layer: list[Block], progress: _Progress) -> None:
    """Add the operations of a layer: products with the tensors, and the splits of bonds."""
    calls = set()
    for block in layer:
        last = block.first + block.count - 1
        left, right = chain.tensors[block.first].shape[0], chain.tensors[last].shape[2]
        middle = max(chain.tensors[k].shape[2] for k in range(block.first, last))
        calls.add((left, middle, right, block.count))
        rows, columns = left << (block.count - 1), 2 * right
        rank = min(rows, columns, 2 * middle)
        progress.splits += (block.count - 1) * _SPLIT * rows * columns * rank
    progress.calls += _BLOCK * len(layer) + _CALL * len(calls)


def trial_parameters(circuit: Circuit) -> NDArray[np.float64]:
    """Circuit's parameters; free ones get different values in no ratio that cancels gates."""
    if not circuit.slots_data:
        return circuit.params
    params = circuit.params.copy()
    slots = circuit.slots[1::2].astype(np.float64)
    params[circuit.slots[0::2]] = 2.0 * math.pi * np.mod(_GOLDEN * (slots + 1.0), 1.0)
    return params


# Profile of a circuit for the choice of an engine, with a trial of its bonds if one is
# decisive.


def choice_profile(
    circuit: Circuit,
    outputs: tuple[str, ...] = (),
    observables: tuple[PauliSum, ...] = (),
    engine: str = _AUTO,
    settings: Options = (),
    noise: NoiseProgram | None = None,
) -> Profile:
    """Profile as `profiler.profile`, with that of the circuit's noise and with the sizes that price
    it, see `with_sizes`."""
    labels = tuple(label for item in observables for label in item.labels)
    result = profile(circuit, outputs, labels, networks=noise is None)
    if noise is not None:
        own = noise_profile(noise, circuit, outputs, labels)
        result = msgspec.structs.replace(result, noise=own)
    return with_sizes(result, circuit, outputs, observables, engine, settings, noise)


def with_sizes(
    result: Profile,
    circuit: Circuit,
    outputs: tuple[str, ...],
    observables: tuple[PauliSum, ...],
    engine: str,
    settings: Options,
    noise: NoiseProgram | None,
) -> Profile:
    """Profile of a circuit and of its noise with what prices the named engine, or those from which
    `auto` chooses: the size of sweeps, that of propagated strings, the active qubits of few gates
    that are no Clifford gates, and a trial of the bonds, of what runs. A trial may take a second,
    so no thread that others wait for may call this. `settings`: of the named engine. `noise`: of
    the circuit, as it runs."""
    labels = tuple(label for item in observables for label in item.labels)
    params, noisy = trial_parameters(circuit), noise is not None
    dense = card(DEFAULT_ENGINE)
    if engine == _SWEEP:
        size = sweep_size(circuit, params, outputs, labels, noise)
        return msgspec.structs.replace(result, sweep=size)
    if engine == _PAULI:
        strings = strings_size(circuit, params, noise, observables, settings)
        return msgspec.structs.replace(result, strings=strings)
    if engine == _NEAR:
        return msgspec.structs.replace(result, active=active_size(circuit, params, noise))
    narrow = SMALL_QUBITS if noisy else DENSE_QUBITS
    chain = card(_MPS)
    if engine == _MPS and chain is not None and result.num_qubits > narrow:
        bond = int(chain.value(settings, "bond"))
        result, run = _chain(result, circuit, outputs, labels, noise)
        return _tried(result, run, TrialLimits(TRIAL_OPERATIONS, bond))
    if dense is None or result.num_qubits <= SMALL_QUBITS or engine != _AUTO:
        return result
    width = dense.effective_profile(result, outputs).num_qubits
    if width > narrow:
        size = sweep_size(circuit, params, outputs, labels, noise)
        result = msgspec.structs.replace(result, sweep=size)
        near = card(_NEAR)
        is_taken = noise is None or near is None or noise.kinds <= near.noise.kinds
        if not result.clifford and (is_taken or dict(settings).get("twirl")):
            result = msgspec.structs.replace(result, active=active_size(circuit, params, noise))
    if outputs == _VALUES and width > (EXACT_QUBITS if noisy else DENSE_QUBITS):
        strings = strings_size(circuit, params, noise, observables, settings)
        result = msgspec.structs.replace(result, strings=strings)
    if width <= DENSE_QUBITS:  # no trial would decide
        return result
    result, run = _chain(result, circuit, outputs, labels, noise)
    operations = trial_operations(result, width, noisy=noisy)
    if not operations:
        return result
    enough = min(statevector_operations(result, width), contraction_operations(result)) / 4
    return _tried(result, run, TrialLimits(operations, 1 << AUTO_BITS, enough))


def _chain(
    result: Profile,
    circuit: Circuit,
    outputs: tuple[str, ...],
    labels: tuple[str, ...],
    noise: NoiseProgram | None,
) -> tuple[Profile, Circuit]:
    """Circuit that a matrix product state runs: the gates in the light cone of the outputs, with
    noise those that it lets matter, and its unitary parts; the profile with the bound of its
    bonds. Of a dynamic circuit, the gates of all its blocks."""
    if result.mid_circuit:
        return result, circuit
    if noise is None:
        support = chain_support(circuit, outputs, labels)
        return result, chain_part(circuit, support).circuit
    part, own = active_part(circuit, noise, output_support(outputs, labels, circuit))
    run = part.circuit
    if noise.leakage is None and (located := locate(run, own, local=True)) is not None:
        run = located.circuit
    found = traits(run)
    bits, longest = found.bond_bits, found.longest
    return msgspec.structs.replace(result, bond_bits=bits, longest=longest), run


def _tried(result: Profile, run: Circuit, limits: TrialLimits) -> Profile:
    """Profile with a trial of what runs."""
    return msgspec.structs.replace(result, trial=chain_trial(run, limits))
