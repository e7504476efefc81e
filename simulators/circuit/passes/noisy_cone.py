"""Backward light cone of a circuit with noise: operations and noise locations that affect the
outputs.

A location is dropped only if all its qubits are unused there, so an operation may be dropped while
its noise stays: a diagonal gate before a measurement changes no outcome, and its noise may. Levels
of qubits are those of `light_cone`; a channel leaves a qubit at Z_BASIS if its Z-diagonal part is
closed, and leaves the second qubit unused if the first one's part does not depend on it. Locations
inside blocks are kept. Only for circuits that `admission.validation_error` admitted.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.channel_facts import CLOSED, FIRST_ALONE, SECOND_ALONE
from simulators.circuit.gates import (
    END_BLOCK,
    FOR,
    GATES,
    IF,
    MEASURE,
    RESET,
    SWITCH,
    UNITARY,
    WHILE,
)
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes.components import Subcircuit, extract_part
from simulators.circuit.passes.light_cone import (
    FULL,
    GATE_KINDS,
    UNUSED,
    Z_BASIS,
    OutputSupport,
    gate_levels,
)
from simulators.circuit.passes.noise_part import noise_of_part
from simulators.compiler.kernel import INT, INTS2, NAMES, U8, U16, device_function, kernel

_ID, _GLOBAL = GATES["id"].code, GATES["global_phase"].code


@device_function
def noisy_cone(  # type: ignore[no-untyped-def]
    rows, kinds, ops, qubits, clbits, bits_seen, blocks, places, traits, levels, written, kept,
    acting, needed,
):  # fmt: skip
    """Fill `kept` [operations], `acting` [locations] and `needed` [qubits].

    `levels` [qubits]: levels at the end. `bits_seen`: clbits are outputs. `blocks`: there are
    conditions. `traits` [channels]; `written` [clbits]: zeros.
    """
    at = qubits.size
    bit = clbits.size
    depth = 0
    place = places.shape[0] - 1
    for q in range(levels.size):
        needed[q] = levels[q] != UNUSED
    for k in range(ops.size - 1, -2, -1):
        while place >= 0 and places[place, AFTER_OP] >= k:
            a, b = places[place, Q0], places[place, Q1]
            trait = traits[places[place, CHANNEL]]
            low = levels[a]
            high = levels[b] if b >= 0 else np.uint8(UNUSED)
            acting[place] = depth > 0 or low > UNUSED or high > UNUSED
            if acting[place]:
                after = np.uint8(FULL)
                if depth == 0 and trait & CLOSED and max(low, high) <= Z_BASIS:
                    after = np.uint8(Z_BASIS)
                if depth > 0 or low > UNUSED or not trait & SECOND_ALONE:
                    levels[a] = after
                    needed[a] = 1
                if b >= 0 and (depth > 0 or high > UNUSED or not trait & FIRST_ALONE):
                    levels[b] = after
                    needed[b] = 1
                if b >= 0:
                    needed[a] = needed[b] = 1
            place -= 1
        if k < 0:
            break
        code, count = rows[ops[k], 0], rows[ops[k], 1]
        at -= count
        bit -= rows[ops[k], 2]
        kept[k] = 1
        if code == END_BLOCK:
            depth += 1
        elif code in (IF, WHILE, FOR, SWITCH):
            depth -= 1
        elif code in (_ID, _GLOBAL) or code < MEASURE:
            kept[k] = 0
        elif depth:
            for j in range(at, at + count):
                levels[qubits[j]] = FULL
        elif code == MEASURE:
            q = qubits[at]
            wanted = blocks or (bits_seen and not written[clbits[bit]])
            written[clbits[bit]] = 1
            if wanted or levels[q] == FULL:
                levels[q] = Z_BASIS
            else:
                kept[k] = 0
        elif code == RESET:
            if levels[qubits[at]] == UNUSED:
                kept[k] = 0
            levels[qubits[at]] = UNUSED
        elif code >= UNITARY and gate_levels(kinds[code], qubits, at, count, levels):
            kept[k] = 0
        if kept[k]:
            for j in range(at, at + count):
                needed[qubits[j]] = 1


_noisy_cone_kernel = kernel(
    NAMES, NAMES, U16, U16, U16, INT, INT, INTS2, U8, U8, U8, U8, U8, U8, group="attachment"
)(noisy_cone)


class ActiveSupport(msgspec.Struct, frozen=True, eq=False):
    """Operations, noise locations and qubits that the outputs depend on."""

    kept: NDArray[np.bool_]  # [operations]
    acting: NDArray[np.bool_]  # [locations]
    needed: NDArray[np.bool_]  # [qubits]


def active_support(circuit: Circuit, noise: NoiseProgram, support: OutputSupport) -> ActiveSupport:
    """Operations, noise and qubits in the light cone of the outputs."""
    levels = np.zeros(circuit.num_qubits, np.uint8)
    if support.levels:
        levels[:] = np.frombuffer(support.levels, np.uint8)
    kept = np.empty(circuit.ops.size, np.uint8)
    acting = np.zeros(len(noise.locations), np.uint8)
    needed = np.zeros(circuit.num_qubits, np.uint8)
    _noisy_cone_kernel(
        circuit.table.rows,
        GATE_KINDS,
        circuit.ops,
        circuit.qubits,
        circuit.clbits,
        int(support.clbits),
        int(bool(circuit.conditions_data)),
        noise.locations,
        noise.facts.traits,
        levels,
        np.zeros(circuit.num_clbits, np.uint8),
        kept,
        acting,
        needed,
    )
    if not needed.any():
        needed[:1] = 1
    return ActiveSupport(kept.view(np.bool_), acting.view(np.bool_), needed.view(np.bool_))


def active_part(
    circuit: Circuit, noise: NoiseProgram, support: OutputSupport | None
) -> tuple[Subcircuit, NoiseProgram]:
    """Part of a circuit that its outputs depend on, and its noise; all of it without `support`.

    Qubits and operations are renumbered; `Subcircuit` has their
    numbers in the whole circuit. Barriers and delays are dropped, their noise stays.
    """
    if support is None:
        operations, params = np.arange(circuit.ops.size), np.arange(circuit.params.size)
        return Subcircuit(circuit, np.arange(circuit.num_qubits), operations, params), noise
    result = active_support(circuit, noise, support)
    part = extract_part(circuit, result.kept, np.flatnonzero(result.needed))
    return part, noise_of_part(noise, noise.locations[result.acting], part.operations, part.qubits)
