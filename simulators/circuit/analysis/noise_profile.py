"""Profiles of noise programs: numbers that cost models of engines read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.analysis.profile import NoiseProfile
from simulators.circuit.analysis.quadrature import grid_size
from simulators.circuit.arrays import CircuitArrays, Operands
from simulators.circuit.gates import BARRIER, MEASURE, RESET
from simulators.circuit.ir import Circuit, shown_clbits, used_qubits
from simulators.circuit.noise import CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes import light_cone as cones
from simulators.circuit.passes.components import PACKED_QUBITS, active_part, connect
from simulators.circuit.passes.wire_reuse import with_shared_wires
from simulators.compiler.kernel import I64, REALS, U8, kernel, record
from simulators.compiler.simd import take_bytes, take_numbers

_LOCATIONS, _PAIRS, _NEEDED, _TOUCHED, _WIDEST = range(5)  # of `measured`


def noise_profile(
    program: NoiseProgram,
    circuit: Circuit,
    outputs: tuple[str, ...] = (),
    labels: Iterable[str] = (),
) -> NoiseProfile:
    """Profile of the noise program of a circuit, restricted to the support of the outputs if they
    are given. `labels`: of all Pauli strings."""
    support = cones.output_support(outputs, labels, circuit) if outputs else None
    if support is None:
        facts, channels = program.facts, program.locations[:, CHANNEL]
        counts = [
            len(channels), int(np.count_nonzero(program.locations[:, Q1] >= 0)),
            circuit.num_qubits, used_qubits(circuit).size, 0,
        ]  # fmt: skip
        weights = [float(facts.errors[channels].sum()), float(facts.drawn[channels].sum())]
    else:
        counts, weights = _of_support(program, circuit, support)
        if not support.levels and shown_clbits(circuit) is not None:
            part, _ = with_shared_wires(*active_part(circuit, program, support))
            for size in (_NEEDED, _WIDEST):
                counts[size] = min(counts[size], part.circuit.num_qubits)
    acting, pairs, needed, touched, widest = counts
    sampled = {"counts", "memory"}.issuperset(outputs)
    return NoiseProfile(
        frozenset(program.kinds), acting, pairs, weights[0] + _leaked_weight(program), weights[1],
        needed, touched=touched, widest=widest if sampled else 0, detunings=_sets(program),
        flags=_flags(program),
    )  # fmt: skip


def needs_branching(
    program: NoiseProgram, circuit: Circuit, outputs: tuple[str, ...], labels: Iterable[str] = ()
) -> bool:
    """Return whether a circuit that needs no branching without noise needs it with its noise: a
    measurement or a reset between which noise acts. `outputs`, `labels`: see `noise_profile`."""
    codes, first = circuit.table.rows[circuit.ops, 0], Operands.of(circuit).first[:-1]
    measured = circuit.qubits[first[codes == MEASURE]]
    if not (codes == RESET).any() and np.unique(measured).size == measured.size:
        return False
    support = cones.output_support(outputs, labels, circuit)
    part, noise = active_part(circuit, program, support)
    keep = support is not None and bool(support.levels)
    return measurement_layout(part.circuit, noise, keep=keep).branching


def _of_support(
    program: NoiseProgram, circuit: Circuit, support: cones.OutputSupport
) -> tuple[list[int], list[float]]:
    """Sizes by the names above, and error weights, of what the outputs depend on."""
    locations, facts, qubits = program.locations, program.facts, circuit.num_qubits
    room = (16 + 1) * qubits + cones.cone_bytes(circuit, len(locations)) + facts.rows.size
    measured, weights = np.empty(5, np.int64), np.empty(2)
    _measure_support(
        CircuitArrays.of(circuit), np.frombuffer(bytearray(support.levels or qubits), np.uint8),
        int(support.clbits), int(bool(circuit.conditions_data)), locations,
        ChannelArrays(facts.rows, facts.all_traits, facts.all_errors, facts.all_drawn),
        np.empty(room, np.uint8), measured, weights,
    )  # fmt: skip
    return measured.tolist(), weights.tolist()


def _flags(program: NoiseProgram) -> int:
    return 0 if program.leakage is None else program.leakage.num_flags


def _leaked_weight(program: NoiseProgram) -> float:
    """Expected number of leaks of a shot whose qubits are in |1> half of the time."""
    return 0.0 if program.leakage is None else 0.5 * float(program.leakage.leak.sum())


def _sets(program: NoiseProgram) -> float:
    return 0.0 if program.detunings is None else grid_size(program.detunings)


@record
class ChannelArrays(NamedTuple):
    """Of `ChannelFacts`."""

    rows: I64
    traits: U8
    errors: REALS
    drawn: REALS


@kernel("CircuitArrays U8 INT INT INTS2 ChannelArrays U8 I64 REALS", group="attachment")
def _measure_support(  # type: ignore[no-untyped-def]
    circuit, support, bits_seen, blocks, locations, channels, scratch, measured, weights
):
    """Fill `measured` (by the names above) and `weights`: sum over all errors, and over those
    drawn. `support` [qubits]: levels at the end. Components of few qubits share a part: see
    `components`. `scratch`: bytes."""
    rows, ops, qubits, num_qubits = circuit.rows, circuit.ops, circuit.qubits, support.size
    parent, scratch = take_numbers(scratch, num_qubits)
    sizes, scratch = take_numbers(scratch, num_qubits)
    touched, scratch = take_bytes(scratch, num_qubits)
    cone, scratch = cones.take_cone(scratch, circuit, locations.shape[0])
    traits, _ = take_bytes(scratch, channels.rows.size)
    for k in range(channels.rows.size):
        traits[k] = channels.traits[channels.rows[k]]
    for q in range(num_qubits):
        cone.levels[q] = support[q]
    cones.walk_cone(circuit, bits_seen, blocks, 1, locations, traits, cone)
    kept, acting, needed = cone.kept, cone.acting, cone.needed
    measured[:] = 0
    weights[:] = 0.0
    connect(rows, ops, qubits, kept, locations[:0], parent)
    for place in range(locations.shape[0]):
        if acting[place]:
            row = channels.rows[locations[place, CHANNEL]]
            measured[_LOCATIONS] += 1
            weights[0] += channels.errors[row]
            weights[1] += channels.drawn[row]
            if locations[place, Q1] >= 0:
                measured[_PAIRS] += 1
                cones.join(parent, locations[place, Q0], locations[place, Q1])
    touched[:] = 0
    wire = 0
    for k in range(ops.size):
        for j in range(wire, wire + rows[ops[k], 1]):
            if rows[ops[k], 0] != BARRIER:
                touched[qubits[j]] = 1
        wire += rows[ops[k], 1]
    for q in range(num_qubits):
        measured[_TOUCHED] += touched[q]
        measured[_NEEDED] += needed[q]
        sizes[q] = 0
    if measured[_NEEDED] == 0:
        measured[_NEEDED] = needed[0] = 1
    groups = 0
    for q in range(num_qubits):
        if needed[q]:
            root = cones.root_of(parent, q)
            groups += sizes[root] == 0
            sizes[root] += 1
            measured[_WIDEST] = max(measured[_WIDEST], sizes[root])
    measured[_WIDEST] = max(measured[_WIDEST], min(groups, PACKED_QUBITS))
