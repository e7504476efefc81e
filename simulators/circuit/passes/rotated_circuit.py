"""Rotations of detuned qubits as `p` gates of a circuit, each with a free parameter of its own: the
detunings of a shot are then a binding of these.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit, table_of
from simulators.circuit.noise import AFTER_OP, NoiseProgram

_ROTATION = "p"  # of the relative phase alone: one half of the amplitudes


class RotatedCircuit(msgspec.Struct, frozen=True, eq=False):
    """A circuit with its rotations as gates, and its other noise."""

    circuit: Circuit
    noise: NoiseProgram
    places: NDArray[np.int64]  # [rotations]: their operations in the new circuit
    params: NDArray[np.int64]  # [parameters]: those of the circuit that it was made of

    def of(self, circuit: Circuit) -> Circuit:
        """The rotated form of another circuit with the same structure."""
        values = np.zeros(self.circuit.params.size)
        values[self.params] = circuit.params
        return msgspec.structs.replace(self.circuit, params_data=values.tobytes())


def inserted(circuit: Circuit, noise: NoiseProgram) -> RotatedCircuit:
    """Insert the rotations of a noise program. Rotation j has slot `circuit.num_slots` + j."""
    found = noise.detunings
    assert found is not None
    rows, ops, before = circuit.table.rows, circuit.ops, found.before
    begins = np.zeros((4, ops.size + 1), np.int64)  # of qubits, clbits and parameters
    begins[1:, 1:] = rows[ops][:, 1:].T.cumsum(axis=1)
    arities = np.ascontiguousarray(rows[:, 1:], np.uint16).tobytes() + struct.pack("<3H", 1, 0, 1)
    at = begins[3][before]
    count = before.size
    kept = np.arange(circuit.params.size)
    kept += np.searchsorted(at, kept, side="right")
    own = at + np.arange(count)
    old = circuit.slots.reshape(-1, 2)
    slots = np.column_stack(
        (
            np.concatenate((kept[old[:, 0]], own)),
            np.concatenate((old[:, 1], circuit.num_slots + np.arange(count))),
        )
    )
    slots = slots[np.argsort(slots[:, 0], kind="stable")]
    params = np.zeros(kept.size + count)
    params[kept] = circuit.params
    built = msgspec.structs.replace(
        circuit,
        table=table_of((*circuit.table.names, _ROTATION), arities),
        ops_data=np.insert(ops, before, len(rows)).astype(np.uint16).tobytes(),
        qubits_data=np.insert(circuit.qubits, begins[1][before], found.qubits)
        .astype(np.uint16)
        .tobytes(),
        params_data=params.tobytes(),
        num_slots=circuit.num_slots + count,
        slots_data=slots.astype(np.int32).tobytes(),
        labels=(),
    )
    locations = noise.locations.copy()
    locations[:, AFTER_OP] += np.searchsorted(before, locations[:, AFTER_OP], side="right")
    readout = noise.readout
    if readout is not None and readout.own:
        moved = {
            k + int(np.searchsorted(before, k, side="right")): v for k, v in readout.own.items()
        }
        readout = msgspec.structs.replace(readout, own=moved)
    rest = msgspec.structs.replace(
        noise,
        digest=hashlib.blake2b(noise.digest + b"rotated", digest_size=32).digest(),
        kinds=noise.kinds - {"quasistatic"},
        locations=locations,
        readout=readout,
        detunings=None,
    )
    return RotatedCircuit(built, rest, before + np.arange(count), kept)
