"""Detectors and observables of a circuit with noise, sampled by stim and decoded.

Shots run in whole blocks with seeds of their own: fewer shots are a prefix of more, and memory does
not grow with their number. A block's samples are decoded in the same process.
"""

from __future__ import annotations

import msgspec
import numpy as np
import stim
from numpy.typing import NDArray

from simulators.engine import SHOTS, RunControl
from simulators.execution.philox import block_seed
from simulators.stabilizer.decoders import Bits, SyndromeDecoder

SAMPLER = f"stim {stim.__version__}"
# (limit of the largest of qubits, measurements and detectors, shots of a block).
_BLOCKS = ((2**15, 8192), (2**20, 1024))
_LEAST_BLOCK = 256
_GROUP = 128  # rows whose bits are summed in one byte
_LOW_BITS = np.uint64(0x0101010101010101)


class DetectionSamples(msgspec.Struct, frozen=True, eq=False):
    """Sums over shots, and the shots' bits if they were requested; else empty."""

    errors: int  # shots with a wrong prediction of an observable
    observable_errors: NDArray[np.int64]  # [observables]; all 0 without a decoder
    detections: NDArray[np.int64]  # [detectors]
    flips: NDArray[np.int64]  # [observables]
    events: Bits
    observable_flips: Bits
    predictions: Bits


def block_shots(circuit: stim.Circuit) -> int:
    """Shots of a block: a function of the circuit alone."""
    largest = max(circuit.num_qubits, circuit.num_measurements, circuit.num_detectors)
    return next((shots for bound, shots in _BLOCKS if largest <= bound), _LEAST_BLOCK)


def sampled(
    circuit: stim.Circuit,
    decoder: SyndromeDecoder | None,
    shots: int,
    seed: int,
    control: RunControl,
    *,
    keep: bool = False,
) -> DetectionSamples:
    """Sample shots, and decode them if there is a decoder. `keep`: return the bits of each shot
    too. Raises Stopped."""
    errors, width = 0, circuit.num_observables
    wrong = np.zeros(width, np.int64)
    detections = np.zeros(circuit.num_detectors, np.int64)
    flips = np.zeros(width, np.int64)
    kept: list[tuple[Bits, Bits, Bits]] = []
    block = block_shots(circuit)
    control.expect(shots, SHOTS)
    for number, first in enumerate(range(0, shots, block)):
        control.check()
        own, wanted = block_seed(seed, 0, number), min(block, shots - first)
        # Always a full block: stim's random numbers depend on how many shots it makes.
        sampler = circuit.compile_detector_sampler(seed=own)
        events, flipped = sampler.sample(block, separate_observables=True, bit_packed=True)
        events, flipped = events[:wanted], flipped[:wanted]
        predicted = np.zeros((len(events), 0), np.uint8)
        detections += _ones(events, detections.size)
        flips += _ones(flipped, width)
        if decoder is not None:
            predicted = decoder.predictions(events, control)
            differ = predicted ^ flipped
            errors += int(np.count_nonzero(differ.any(axis=1)))
            wrong += _ones(differ, width)
        else:
            control.advance(SHOTS, wanted)
        if keep:
            kept.append((events, flipped, predicted))
    none = np.zeros((0, 0), np.uint8)
    bits = [np.concatenate(part) for part in zip(*kept, strict=True)] if keep else [none] * 3
    return DetectionSamples(errors, wrong, detections, flips, *bits)


def _ones(bits: Bits, width: int) -> NDArray[np.int64]:
    """Number of rows in which each bit is set: [width]. Eight columns are summed at once, in the
    bytes of a word, by groups of rows in which no byte overflows."""
    rows, columns = bits.shape
    groups, width_bytes = -(-rows // _GROUP), -(-columns // 8) * 8
    padded = np.zeros((groups * _GROUP, width_bytes), np.uint8)
    padded[:rows, :columns] = bits
    packed = padded.view("<u8").reshape(_GROUP, groups * width_bytes // 8)  # rows of many words
    ones = np.empty((width_bytes, 8), np.int64)
    for bit in range(8):
        sums = ((packed >> np.uint64(bit)) & _LOW_BITS).sum(axis=0, dtype="<u8")
        by_group = sums.view(np.uint8).reshape(groups, width_bytes)
        ones[:, bit] = by_group.sum(axis=0, dtype=np.int64)
    return ones.reshape(-1)[:width]
