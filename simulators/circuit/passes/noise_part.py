"""Noise of a part of a circuit."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes.noise_locations import renumber_channels


def noise_of_part(
    noise: NoiseProgram,
    locations: NDArray[np.int64],
    operations: NDArray[np.int64],
    qubits: NDArray[np.int64],
    *,
    readout: bool = True,
) -> NoiseProgram:
    """Noise by the numbers of a part.

    `locations` [n, 4]: those of `noise` that stay, on `qubits` alone; `operations`, `qubits`: of
    the part, by their numbers in the circuit of `noise`, ascending. A channel after an operation
    that the part lacks follows the one before it. `readout`: the part has the readout error too.
    """
    wires = np.full(int(qubits.max(initial=-1)) + 2, -1, np.int64)  # the last one is where -1 reads
    wires[qubits] = np.arange(qubits.size)
    moved = np.empty((len(locations), 4), np.int64)
    moved[:, AFTER_OP] = np.searchsorted(operations, locations[:, AFTER_OP], side="right") - 1
    moved[:, CHANNEL] = locations[:, CHANNEL]
    moved[:, Q0], moved[:, Q1] = wires[locations[:, Q0]], wires[locations[:, Q1]]
    used = np.empty(len(noise.channels), np.int64)
    used = used[: renumber_channels(moved, np.full(used.size, -1), used)]
    digest = hashlib.blake2b(noise.digest, digest_size=32)
    digest.update(qubits.tobytes() + moved.tobytes())
    return msgspec.structs.replace(
        noise,
        digest=digest.digest(),
        locations=moved,
        channels=tuple(noise.channels[k] for k in used.tolist()),
        readout=noise.readout.of(qubits) if readout and noise.readout is not None else None,
        known_facts=noise.facts.of(used),
    )
