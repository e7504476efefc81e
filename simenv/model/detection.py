"""Sampling of detectors as a call: stim's text of a circuit, and sums over its samples.

Invariant: a circuit travels as text and only workers parse it. The service relies on the sizes that
the client sent with it; a worker refuses a circuit whose sizes differ.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import msgspec

from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.text import size

DETECTORS = "detectors"  # the engine
PYMATCHING = "pymatching"
DECODERS = ("", PYMATCHING)  # "": none
MAX_TEXT_BYTES = 8 * 2**20
MAX_EVENT_BYTES = 48 * 2**20  # of the packed bits of all shots
MAX_REPEATS = 1_000  # REPEAT blocks in the text
MAX_DEPTH = 64  # of REPEAT blocks within one another
_LIMITS = {
    "qubits": 65_535,
    "measurements": 2**24,
    "detectors": 2**20,
    "observables": 1_024,
    "operations": 10**8,
}


class DetectionSizes(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Sizes of a circuit with unrolled REPEAT blocks. `operations`: instructions and targets."""

    qubits: int
    measurements: int
    detectors: int
    observables: int
    operations: int


class DetectionCall(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A circuit with detectors or observables; shots and seed are those of the task."""

    format: int
    circuit: str  # as stim writes it
    decoder: str  # of DECODERS
    events: bool  # whether the answer holds the bits of each shot
    sizes: DetectionSizes


class DetectionAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Sums over all shots, and the bits of each shot if the call has `events`.

    Arrays of numbers are uint64 [detectors] or [observables], little-endian; rows of bits are
    uint8 [shots, bytes], bit k in byte k // 8, lowest first. Without a decoder there are no errors.
    """

    format: int
    shots: int
    seed: int
    sizes: DetectionSizes
    sampler: str  # name and version
    decoder: str  # name and version; "": none
    errors: int  # shots in which the prediction of an observable or more was wrong
    observable_errors: bytes
    detections: bytes  # shots in which each detector fired
    flips: bytes  # shots in which each observable was flipped
    detection_events: bytes
    observable_flips: bytes
    predictions: bytes


def sizes_of(circuit: Any) -> DetectionSizes:
    """Return the sizes of a stim.Circuit."""
    return DetectionSizes(
        circuit.num_qubits,
        circuit.num_measurements,
        circuit.num_detectors,
        circuit.num_observables,
        _operations(circuit),
    )


def _operations(circuit: Any) -> int:
    """Count operations with unrolled blocks, up to one more than their limit: the number of a
    nested block may have thousands of digits."""
    total = 0
    for item in circuit:
        if item.name == "REPEAT":
            total += int(item.repeat_count) * _operations(item.body_copy())
        else:
            total += 1 + len(item.targets_copy())
    return min(total, _LIMITS["operations"] + 1)


def _depth(text: str) -> int:
    """Return how deep blocks are nested; braces in comments count too."""
    braces = (1 if brace == "{" else -1 for brace in re.findall(r"[{}]", text))
    return max(itertools.accumulate(braces), default=0)


def check_detection(call: DetectionCall) -> None:
    """Check a call as far as is possible without stim. Raises OptionError, LimitExceededError,
    ProgramError."""
    if call.decoder not in DECODERS:
        raise OptionError(
            f"decoder={call.decoder[:64]!r}", hint=f"{PYMATCHING!r}, or None for samples alone"
        )
    for name, limit in _LIMITS.items():
        value = getattr(call.sizes, name)
        if not 0 <= value <= limit:
            raise LimitExceededError(
                f"the circuit has {value} {name}; the limit is {limit}",
                hint="fewer rounds, or a smaller code, in each task",
            )
    if not call.sizes.detectors + call.sizes.observables:
        raise ProgramError(
            "the stim circuit has no DETECTOR and no OBSERVABLE_INCLUDE: nothing to sample",
            hint="for its measurements, write it as OpenQASM: circuit.to_qasm(open_qasm_version=2)",
        )
    if len(call.circuit) > MAX_TEXT_BYTES:
        raise LimitExceededError(
            f"the text of the circuit is {size(len(call.circuit))}; the limit is"
            f" {size(MAX_TEXT_BYTES)}",
            hint="write its rounds as a REPEAT block",
        )
    blocks = call.circuit.count("{")
    if blocks > MAX_REPEATS:
        raise LimitExceededError(f"{blocks} REPEAT blocks; the limit is {MAX_REPEATS}")
    depth = _depth(call.circuit)
    if depth > MAX_DEPTH:
        raise LimitExceededError(
            f"REPEAT blocks nested {depth} deep; the limit is {MAX_DEPTH}",
            hint="write inner blocks out, or as one block of more rounds",
        )


def check_events(call: DetectionCall, shots: int) -> None:
    """Check the number of shots. Raises OptionError for 0, LimitExceededError if the bits of all
    shots exceed the limit of a result."""
    if shots < 1:
        raise OptionError("detectors are sampled: they need shots", hint="shots=10_000")
    row = row_bytes(call)
    if call.events and row * shots > MAX_EVENT_BYTES:
        raise LimitExceededError(
            f"the bits of {shots} shots are {size(row * shots)}; the limit is"
            f" {size(MAX_EVENT_BYTES)}",
            hint=f"at most {MAX_EVENT_BYTES // row} shots a task, several with other seeds; or"
            " leave outputs= out: rates and numbers of errors take no memory by shots",
        )


def row_bytes(call: DetectionCall) -> int:
    """Bytes of the bits of one shot: events, flips, and predictions if there is a decoder."""
    flips = -(-call.sizes.observables // 8)
    return -(-call.sizes.detectors // 8) + flips * (2 if call.decoder else 1)
