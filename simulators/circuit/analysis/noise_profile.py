"""Computation of the `NoiseProfile` that cost models of engines read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simulators.circuit.analysis.profile import NoiseProfile
from simulators.circuit.gates import BARRIER
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes.light_cone import (
    GATE_KINDS,
    join,
    light_cone,
    output_support,
    root_of,
    walk_cone,
)
from simulators.circuit.passes.noisy_components import PACKED_QUBITS, connect
from simulators.compiler.arrays import as_numbers
from simulators.compiler.kernel import I64, INT, INTS2, NAMES, REALS, U8, U16, kernel

_LOCATIONS, _PAIRS, _NEEDED, _TOUCHED, _WIDEST = range(5)  # of `found`


def noise_profile(
    program: NoiseProgram,
    circuit: Circuit | None = None,
    outputs: tuple[str, ...] = (),
    labels: Iterable[str] = (),
) -> NoiseProfile:
    """Profile of a noise program, restricted to the support of the outputs if they are given with
    the circuit. `labels`: of all Pauli strings."""
    if circuit is not None and outputs == ("counts",) and circuit.clbits_data:
        return _profile_of_counts(program, circuit)
    locations, width, touched = program.locations, 0, 0
    if circuit is not None:
        width, touched = circuit.num_qubits, _touched(circuit)
        support = output_support(outputs, labels, circuit) if outputs else None
        if support is not None:
            result = light_cone(circuit, support, program)
            locations, width = locations[result.acting], result.qubits.size
    facts, channels = program.facts, locations[:, CHANNEL]
    return NoiseProfile(
        frozenset(program.kinds),
        len(locations),
        int(np.count_nonzero(locations[:, Q1] >= 0)),
        float(facts.errors[channels].sum()),
        float(facts.drawn[channels].sum()),
        width,
        touched=touched,
    )


def _profile_of_counts(program: NoiseProgram, circuit: Circuit) -> NoiseProfile:
    """Profile of the support of counts, in one kernel call."""
    locations, facts, qubits = program.locations, program.facts, circuit.num_qubits
    room = (16 + 4) * qubits + circuit.num_clbits + circuit.ops.size
    room += len(locations) + facts.rows.size
    measured, weights = np.empty(5, np.int64), np.empty(2)
    _measure_counts(
        circuit.table.rows, GATE_KINDS, circuit.ops, circuit.qubits, circuit.clbits,
        circuit.num_clbits, qubits, int(bool(circuit.conditions_data)), locations, facts.rows,
        facts.all_traits, facts.all_errors, facts.all_drawn, np.empty(room, np.uint8), measured,
        weights,
    )  # fmt: skip
    acting, pairs, needed, touched, widest = measured.tolist()
    error_weight, drawn_weight = weights.tolist()
    return NoiseProfile(
        frozenset(program.kinds),
        acting,
        pairs,
        error_weight,
        drawn_weight,
        needed,
        touched=touched,
        widest=widest,
    )


@kernel(
    NAMES, NAMES, U16, U16, U16, INT, INT, INT, INTS2, I64, U8, REALS, REALS, U8, I64, REALS,
    group="attachment",
)  # fmt: skip
def _measure_counts(  # type: ignore[no-untyped-def]
    rows, kinds, ops, qubits, clbits, num_clbits, num_qubits, blocks, locations, channels,
    all_traits, all_errors, all_drawn, scratch, measured, weights,
):  # fmt: skip
    """Fill `measured` (by the names above) and `weights`: sum over all errors, and over those
    drawn.

    `channels`: row of each channel in `all_traits`, `all_errors` and `all_drawn`. Components of few
    qubits share a part: see `noisy_components`. `scratch`: bytes.
    """
    at = 16 * num_qubits
    parent, sizes = as_numbers(scratch, 0, num_qubits), as_numbers(scratch, at // 2, num_qubits)
    levels, needed = scratch[at : at + num_qubits], scratch[at + num_qubits : at + 2 * num_qubits]
    at += 2 * num_qubits
    touched, turned = scratch[at : at + num_qubits], scratch[at + num_qubits : at + 2 * num_qubits]
    at += 2 * num_qubits
    written = scratch[at : at + num_clbits]
    at += num_clbits
    kept = scratch[at : at + ops.size]
    at += ops.size
    acting = scratch[at : at + locations.shape[0]]
    at += locations.shape[0]
    traits = scratch[at : at + channels.size]
    for k in range(channels.size):
        traits[k] = all_traits[channels[k]]
    levels[:] = turned[:] = 0
    written[:] = 0
    walk_cone(
        rows, kinds, ops, qubits, clbits, 1, blocks, 1, locations, traits, levels, turned, written,
        kept, acting, needed,
    )  # fmt: skip
    measured[:] = 0
    weights[:] = 0.0
    connect(rows, ops, qubits, kept, locations[:0], parent)
    for place in range(locations.shape[0]):
        if acting[place]:
            row = channels[locations[place, CHANNEL]]
            measured[_LOCATIONS] += 1
            weights[0] += all_errors[row]
            weights[1] += all_drawn[row]
            if locations[place, Q1] >= 0:
                measured[_PAIRS] += 1
                join(parent, locations[place, Q0], locations[place, Q1])
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
            root = root_of(parent, q)
            groups += sizes[root] == 0
            sizes[root] += 1
            measured[_WIDEST] = max(measured[_WIDEST], sizes[root])
    measured[_WIDEST] = max(measured[_WIDEST], min(groups, PACKED_QUBITS))


def _touched(circuit: Circuit) -> int:
    """Number of qubits that operations other than barriers act on."""
    rows, qubits = circuit.table.rows, circuit.qubits
    if (rows[:, 0] == BARRIER).any():
        used = rows[circuit.ops]
        qubits = qubits[np.repeat(used[:, 0] != BARRIER, used[:, 1])]
    result = np.zeros(circuit.num_qubits, np.bool_)
    result[qubits] = True
    return int(result.sum())
