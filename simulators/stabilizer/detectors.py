"""Detectors and observables of a circuit with noise, sampled by stim and decoded by PyMatching.

Shots run in whole blocks with seeds of their own: fewer shots are a prefix of more, and memory does
not grow with their number. A block's samples are decoded in the same process.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import stim
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.execution.philox import blocks

SAMPLER = f"stim {stim.__version__}"
DECODE_SHOTS = 1024  # between two reads of the control flag
# (limit of the largest of qubits, measurements and detectors, shots of a block).
_BLOCKS = ((2**15, 8192), (2**20, 1024))
_LEAST_BLOCK = 256
_TEXT = 400  # characters of stim's own message
_GROUP = 128  # rows whose bits are summed in one byte
_LOW_BITS = np.uint64(0x0101010101010101)
Bits = NDArray[np.uint8]  # [shots, bytes], bit k in byte k // 8, lowest first


class DetectionSamples(msgspec.Struct, frozen=True, eq=False):
    """Sums over shots, and the shots' bits if they were requested; else empty."""

    errors: int  # shots with a wrong prediction of an observable
    observable_errors: NDArray[np.int64]  # [observables]; all 0 without a decoder
    detections: NDArray[np.int64]  # [detectors]
    flips: NDArray[np.int64]  # [observables]
    events: Bits
    observable_flips: Bits
    predictions: Bits


class MatchingDecoder:
    """Minimum-weight perfect matching on the circuit's own error model. Correlated errors are split
    into parts that flip one or two detectors each; channels of disjoint errors count as independent
    ones, for the weights."""

    def __init__(self, circuit: stim.Circuit) -> None:
        """Build the decoder. Raises Unsupported for a circuit whose errors cannot be matched, or if
        PyMatching is not installed."""
        try:
            import pymatching
        except ImportError as error:
            hint = "pip install 'simenv[qec]'"
            raise Unsupported("this worker has no PyMatching", hint=hint) from error
        self.name = f"pymatching {pymatching.__version__}"
        try:
            model = circuit.detector_error_model(
                decompose_errors=True, approximate_disjoint_errors=True
            )
            self._matching: Any = pymatching.Matching.from_detector_error_model(model)
        except ValueError as error:
            why = " ".join(str(error).partition("\n\n")[0].split())[:_TEXT]
            raise Unsupported(
                f"the circuit cannot be decoded by matching: {why}",
                hint="detectors must be deterministic without noise, and errors split into parts"
                " that flip at most two of them; decoder=None with outputs='memory' gives the"
                " events for a decoder of your own",
            ) from error
        self._matching.ensure_num_fault_ids(circuit.num_observables)

    def predictions(self, events: Bits, control: RunControl) -> Bits:
        """Predicted flips of the observables of each shot. Raises Stopped."""
        predicted = []
        for first in range(0, len(events), DECODE_SHOTS):
            control.check()
            part = events[first : first + DECODE_SHOTS]
            predicted.append(
                self._matching.decode_batch(
                    part, bit_packed_shots=True, bit_packed_predictions=True
                )
            )
        return np.concatenate(predicted)


def block_shots(circuit: stim.Circuit) -> int:
    """Shots of a block: a function of the circuit alone."""
    largest = max(circuit.num_qubits, circuit.num_measurements, circuit.num_detectors)
    return next((shots for bound, shots in _BLOCKS if largest <= bound), _LEAST_BLOCK)


def sampled(
    circuit: stim.Circuit,
    decoder: MatchingDecoder | None,
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
    for own, wanted in blocks(shots, seed, 0, control, block):
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
