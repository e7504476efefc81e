"""Noise of a part of a circuit."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.compiler.kernel import I64, INT, INTS2, kernel


def noise_of_part(
    noise: NoiseProgram,
    locations: NDArray[np.int64],
    operations: NDArray[np.int64],
    qubits: NDArray[np.int64],
    *,
    readout: bool = True,
) -> NoiseProgram:
    """Noise program in the numbering of a part.

    `locations` [n, 4]: kept locations of `noise`, on `qubits` alone; `operations`, `qubits`: of the
    part, by their numbers in the circuit of `noise`, ascending. A channel after an operation that
    the part lacks follows the last earlier one of the part. `readout`: True if the part has the
    readout error too.
    """
    wires = np.empty(int(qubits.max(initial=-1)) + 1, np.int64)
    wires[qubits] = np.arange(qubits.size)
    moved = np.empty((len(locations), 4), np.int64)
    used, marks = np.empty(len(noise.channels), np.int64), np.full(len(noise.channels), -1)
    used = used[: _move_locations(locations, operations, wires, marks, used, moved)]
    digest = hashlib.blake2b(noise.digest, digest_size=32)
    digest.update(qubits.tobytes() + operations.tobytes() + moved[:, CHANNEL].tobytes())
    return msgspec.structs.replace(
        noise,
        digest=digest.digest(),
        locations=moved,
        channels=tuple([noise.channels[k] for k in used.tolist()]),
        readout=noise.readout.of(qubits) if readout and noise.readout is not None else None,
        known_facts=noise.facts.of(used),
    )


@kernel(INTS2, I64, I64, I64, I64, INTS2, returns=INT, group="attachment")
def _move_locations(locations, operations, wires, marks, used, moved):  # type: ignore[no-untyped-def]
    """Fill `moved` with locations in the numbering of a part, and `used` with the channels in the
    order of their first location; returns the number of channels.

    `wires`: new number of each qubit; `marks` [channels]: all -1.
    """
    channels = before = 0
    for place in range(locations.shape[0]):
        while before < operations.size and operations[before] <= locations[place, AFTER_OP]:
            before += 1
        channel, second = locations[place, CHANNEL], locations[place, Q1]
        if marks[channel] < 0:
            marks[channel] = channels
            used[channels] = channel
            channels += 1
        moved[place, AFTER_OP] = before - 1
        moved[place, CHANNEL] = marks[channel]
        moved[place, Q0] = wires[locations[place, Q0]]
        moved[place, Q1] = wires[second] if second >= 0 else np.int64(-1)
    return channels
