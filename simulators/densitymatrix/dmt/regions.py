"""Measured error of truncated density operators: regions of the circuit that are run exactly, too.

A region is a set of connected qubits with all operations and noise among them; what joins it to
other qubits is left out. Of a dynamic circuit it has the operations of one history, and the
measurements, whose results nothing reads. It is run with the same truncation and by an exact
engine: the density matrix where it is narrow; else trajectories of state vectors, whose standard
error is stated. Where the graph has short cycles, regions hold one with its neighbours, since there
a cycle alone is harder than it is in the graph. The differences of values on one and two qubits,
and of random strings of Z on a subset of qubits, are an estimate of the errors of the circuit, and
no bound: a region has another edge than the circuit, and correlations of more qubits are not seen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators import registry
from simulators.circuit.analysis.measurements import TERMINAL
from simulators.circuit.gates import ELSE, END_BLOCK, IF, MEASURE
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, Q0, Q1, NoiseProgram
from simulators.circuit.passes.components import extract_part, noise_of_part
from simulators.densitymatrix.dmt.pair_maps import PairComponent, breadth_first, neighbours
from simulators.engine import ErrorEstimate, PauliSum, Request, RunControl, RunOptions

EXACT_QUBITS = 10  # of a region that is run as a density matrix
REGION_QUBITS = 18  # of one that is run by trajectories
TRAJECTORIES, LEAST_TRAJECTORIES = 200, 64
LAYERS = 2_000  # of all trajectories of a region, from which on it has fewer
SUBSET_BITS = 8  # of which the total variation distance is bounded
_STRINGS = 24  # random ones of a region
_LONGEST_CYCLE = 14
_TRIES = 12  # qubits through which a cycle is looked for
_REGIONS = 2

# Values of strings [Z on these qubits] in a truncated run of a circuit.
ZStrings = list[tuple[int, ...]]
Truncated = Callable[[Circuit, NoiseProgram, ZStrings], NDArray[np.float64]]


class Region(msgspec.Struct, frozen=True, eq=False):
    """A region as a circuit, and the strings that are compared: first those on one and two qubits,
    then random ones on the subset."""

    circuit: Circuit
    noise: NoiseProgram
    local: ZStrings
    random: ZStrings


def regions_of(
    circuit: Circuit, noise: NoiseProgram, component: PairComponent, acts: NDArray[np.bool_]
) -> tuple[Region, ...]:
    """Regions of a component. `circuit`: with bound parameters; `acts`: operations that regions
    have, see `acting`."""
    near = neighbours(circuit.num_qubits, list(component.edges))
    order = component.order
    circuit, noise = _reduced(circuit, noise, acts)
    if len(order) <= EXACT_QUBITS:
        return (_region(circuit, noise, near, list(order), 0),)
    chosen = []
    for k in range(_REGIONS):
        seed = order[(2 * k + 1) * len(order) // (2 * _REGIONS)]
        chosen.append(_region(circuit, noise, near, _members(near, seed), k))
    return tuple(chosen)


def acting(circuit: Circuit, roles: NDArray[np.int64], choices: Sequence[int]) -> NDArray[np.bool_]:
    """Operations [operations] of one history but the measurements at its end: those of the blocks
    that it chose. `choices`: values of the conditions that it met, in order."""
    codes = circuit.table.rows[circuit.ops, 0]
    result: NDArray[np.bool_] = ~((codes == MEASURE) & (roles == TERMINAL))
    if not circuit.conditions_data:
        return result
    met = iter(choices)
    open_blocks: list[tuple[bool, bool]] = []  # whether the block is reached, and its value
    for k, code in enumerate(codes.tolist()):
        reached = all(is_reached and value for is_reached, value in open_blocks)
        result[k] &= reached
        if code == IF:
            open_blocks.append((reached, bool(next(met, 0)) if reached else False))
        elif code == ELSE:
            is_reached, value = open_blocks.pop()
            open_blocks.append((is_reached, not value))
        elif code == END_BLOCK:
            open_blocks.pop()
    return result & ~np.isin(codes, (IF, ELSE, END_BLOCK))


def _reduced(
    circuit: Circuit, noise: NoiseProgram, acts: NDArray[np.bool_]
) -> tuple[Circuit, NoiseProgram]:
    """The circuit of these operations, with their noise."""
    if acts.all():
        return circuit, noise
    everyone = np.arange(circuit.num_qubits)
    piece = extract_part(circuit, acts, everyone)
    after = noise.locations[:, AFTER_OP]
    own = noise.locations[(after < 0) | acts[np.maximum(after, 0)]]
    return piece.circuit, noise_of_part(noise, own, piece.operations, everyone, readout=False)


def _members(near: list[list[int]], seed: int) -> list[int]:
    """Qubits of a region, the centre first."""
    for q in breadth_first(near, seed)[:_TRIES]:
        cycle = _cycle(near, q)
        if cycle:
            limit = EXACT_QUBITS if len(cycle) <= EXACT_QUBITS - 2 else REGION_QUBITS
            more = [c for q in cycle for c in near[q] if c not in cycle]
            return [*cycle, *dict.fromkeys(more)][:limit]
    return breadth_first(near, seed)[:EXACT_QUBITS]


def _cycle(near: list[list[int]], start: int) -> list[int]:
    """A shortest cycle through a qubit; empty if there is none of _LONGEST_CYCLE qubits at most."""
    branch = {start: -1}
    parent = {start: start}
    waiting = deque([start])
    while waiting:
        p = waiting.popleft()
        for q in near[p]:
            if q not in parent:
                parent[q], branch[q] = p, (q if p == start else branch[p])
                waiting.append(q)
            elif q not in (parent[p], start) and branch[q] != branch[p] and p != start:
                sides = []
                for end in (p, q):
                    side = [end]
                    while parent[side[-1]] != start:
                        side.append(parent[side[-1]])
                    sides.append(side)
                cycle = [start, *sides[0][::-1], *sides[1]]
                return cycle if len(cycle) <= _LONGEST_CYCLE else []
    return []


def _region(
    circuit: Circuit, noise: NoiseProgram, near: list[list[int]], members: list[int], number: int
) -> Region:
    qubits = np.array(sorted(members), np.int64)
    inside = np.zeros(circuit.num_qubits, np.bool_)
    inside[qubits] = True
    rows = circuit.table.rows[circuit.ops]
    owner = np.repeat(np.arange(len(rows)), rows[:, 1])
    outside = np.bincount(owner[~inside[circuit.qubits]], minlength=len(rows)) > 0
    kept = ~outside & (rows[:, 1] > 0)
    piece = extract_part(circuit, kept, qubits)
    places = noise.locations
    within = inside[places[:, Q0]] & ((places[:, Q1] < 0) | inside[places[:, Q1]])
    own = noise_of_part(noise, places[within], piece.operations, qubits, readout=False)
    new = {q: k for k, q in enumerate(qubits.tolist())}
    local: ZStrings = [(k,) for k in range(qubits.size)]
    local += [(new[p], new[q]) for p in new for q in near[p] if p < q and q in new]
    subset = [new[q] for q in members[:SUBSET_BITS]]
    random = np.random.default_rng(number)
    strings = [
        tuple(
            q for q, is_in in zip(subset, random.integers(0, 2, len(subset)), strict=True) if is_in
        )
        or (subset[0],)
        for _ in range(_STRINGS)
    ]
    return Region(piece.circuit, own, local, strings)


class _Difference(NamedTuple):
    values: NDArray[np.float64]
    errors: NDArray[np.float64]  # standard errors of the exact side


class RegionComparison(NamedTuple):
    """Differences of a region: of values on one and two qubits, and of random strings."""

    local: _Difference
    random: _Difference


def compared(
    region: Region, number: int, truncated: Truncated, control: RunControl
) -> RegionComparison:
    """Run a region both ways, in one thread. `number`: seed of its trajectories."""
    strings = region.local + region.random
    values, errors = _reference(region, strings, number, control)
    differences = truncated(region.circuit, region.noise, strings) - values
    first = len(region.local)
    return RegionComparison(
        _Difference(differences[:first], errors[:first]),
        _Difference(differences[first:], errors[first:]),
    )


def trajectories(region: Region) -> int:
    """Trajectories of a region; 0: it is run as a density matrix."""
    circuit = region.circuit
    if circuit.num_qubits <= EXACT_QUBITS:
        return 0
    pairs = int(np.count_nonzero(circuit.table.rows[circuit.ops, 1] == 2))
    layers = max(1, 2 * pairs // circuit.num_qubits)
    return max(LEAST_TRAJECTORIES, min(TRAJECTORIES, LAYERS // layers))


def measured_error(regions: Sequence[Region], found: Sequence[RegionComparison]) -> ErrorEstimate:
    """Error by the comparisons of all regions."""
    widest = max(region.circuit.num_qubits for region in regions)
    subset = max(len({q for string in region.random for q in string}) for region in regions)
    rms, error = _root_mean_square([each.local for each in found])
    string_rms, string_error = _root_mean_square([each.random for each in found])
    return ErrorEstimate(
        local_rms=rms,
        local_max=float(max(np.abs(each.local.values).max() for each in found)),
        local_standard_error=error,
        subset_bits=subset,
        subset_tvd=min(1.0, 0.5 * math.sqrt(2.0**subset) * (string_rms + string_error)),
        regions=len(regions),
        region_qubits=widest,
        trajectories=max(map(trajectories, regions)),
    )


def _root_mean_square(differences: Sequence[_Difference]) -> tuple[float, float]:
    """Root of the mean square without what the errors of the exact side add to it, and its
    standard error, which is that of the mean square where the root is small."""
    squares = np.concatenate([each.values**2 for each in differences])
    spread = np.concatenate([each.errors**2 for each in differences])
    mean = max(0.0, float(np.mean(squares - spread)))
    deviation = math.sqrt(2.0 * float(np.mean(spread**2)) / squares.size)
    return math.sqrt(mean), math.sqrt(mean + deviation) - math.sqrt(mean)


def _reference(
    region: Region, strings: ZStrings, number: int, control: RunControl
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of strings, and their standard errors, by an exact engine."""
    width, runs = region.circuit.num_qubits, trajectories(region)
    engine = registry.create("statevector" if runs else "densitymatrix")
    labels = [
        "".join("Z" if q in string else "I" for q in range(width - 1, -1, -1)) for string in strings
    ]
    observables = tuple(PauliSum((label,), np.ones(1)) for label in labels)
    request = Request(runs, number, ("expectation",), observables)
    options = RunOptions()
    plan = engine.plan(region.circuit, region.noise, options)
    result = engine.run(plan, region.circuit, request, options, control).row(0)
    table = np.array(result.expectations)
    return table[:, 0], table[:, 1]
