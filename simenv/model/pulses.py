"""Pulse sequences of neutral atoms as calls: their text, their sizes and the answer.

A program beside circuits: the abstract representation of a sequence of `pulser-core`, a JSON text
with the register, the channels and the device. Invariant: it travels as text, and no process reads
it before the bounds of this module hold; the service reads its sizes alone, which the client sent
with it. A worker refuses a sequence that is larger than its sizes.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

import msgspec

from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.model.program import Text, check_printable
from simenv.model.task import Observable
from simenv.model.task_rules import MAX_OBSERVABLES
from simenv.text import size

RYDBERG = "rydberg"  # the engine
MAX_SEQUENCE_BYTES = 2**20
MAX_NESTING = 32  # of objects and lists in the text
MAX_NUMBERS = 8_000_000  # samples of all atoms: atoms * nanoseconds
MAX_VARIABLES = 256
MAX_VARIABLE_VALUES = 4_096  # of all variables
MAX_NAME_CHARS = 256
MAX_STATE_ATOMS = 21  # whose state vector fits into a result
MAX_MEMORY_SHOTS = 2**22  # whose bits do
MAX_TRAJECTORIES = 100_000
LEAST_TOLERANCE = 1e-12
_LIMITS = {"atoms": (1, 28), "channels": (1, 64), "duration_ns": (4, 1_000_000)}
OUTPUTS = ("counts", "memory", "statevector", "expectation")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")

Values = Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_VARIABLE_VALUES)]
Variable = tuple[Text, Values]


class PulseSizes(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Sizes of a sequence with values for its variables. `duration_ns`: with modulation."""

    atoms: int
    channels: int
    duration_ns: int


class PulseCall(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A pulse sequence and what is asked of it; shots and seed are those of the task."""

    format: int
    sequence: str  # abstract representation of pulser-core
    sizes: PulseSizes
    outputs: Annotated[tuple[Text, ...], msgspec.Meta(max_length=len(OUTPUTS))]
    variables: Annotated[tuple[Variable, ...], msgspec.Meta(max_length=MAX_VARIABLES)] = ()
    binding: int = 0  # index in a sweep, a part of the random key
    observables: Annotated[tuple[Observable, ...], msgspec.Meta(max_length=MAX_OBSERVABLES)] = ()
    tolerance: float = 1e-6  # of 1 - fidelity
    modulation: bool = False  # whether the channels' bandwidths act on the pulses
    noise: str = ""  # abstract representation of a NoiseModel; "": none
    trajectories: int = 1  # draws of the noise


class PulseAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Outcomes of a sequence. An outcome is a number whose binary digits, highest first, are the
    atoms in the register's order. Arrays are little-endian; those not asked for are empty."""

    format: int
    shots: int
    seed: int
    atoms: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]  # names, in order
    basis: str
    simulator: str  # name and version of the engine and of pulser-core
    error: float  # estimated bound on 1 - fidelity of the evolution
    steps: int
    trajectories: int
    occupations: bytes  # float64 [atoms]: probability of 1
    outcomes: bytes = b""  # uint64: distinct ones, ascending
    counts: bytes = b""  # uint64: shots of each
    memory: bytes = b""  # uint64 [shots]
    statevector: bytes = b""  # complex128 [2**atoms]
    expectation: bytes = b""  # float64 [observables]


def check_pulses(call: PulseCall) -> None:
    """Check a call as far as is possible without reading the sequence. Raises LimitExceededError,
    OptionError, ProgramError."""
    check_text("the pulse sequence", call.sequence)
    if call.noise:
        check_text("the noise model", call.noise)
    for name, (least, most) in _LIMITS.items():
        value = getattr(call.sizes, name)
        if not least <= value <= most:
            raise LimitExceededError(
                f"the sequence has {name} = {value}; the limits are {least} and {most}",
                hint="a shorter sequence, or one of fewer atoms",
            )
    if call.sizes.atoms * call.sizes.duration_ns > MAX_NUMBERS:
        raise LimitExceededError(
            f"{call.sizes.atoms} atoms for {call.sizes.duration_ns} ns; atoms times nanoseconds"
            f" may be {MAX_NUMBERS}",
            hint="a shorter sequence",
        )
    for name, _ in call.variables:
        if len(name) > MAX_NAME_CHARS:
            raise OptionError(f"the name of a variable has {len(name)} characters")
        check_printable("the name of a variable", name)
    values = [value for _, many in call.variables for value in many]
    if len(values) > MAX_VARIABLE_VALUES or not all(map(math.isfinite, values)):
        hint = f"at most {MAX_VARIABLE_VALUES} finite numbers"
        raise OptionError(f"{len(values)} values of variables", hint=hint)
    if not LEAST_TOLERANCE <= call.tolerance <= 1.0:  # NaN too
        hint = f"{LEAST_TOLERANCE:g} to 1: 1 - fidelity"
        raise OptionError(f"tolerance={call.tolerance!r}", hint=hint)
    if not 1 <= call.trajectories <= MAX_TRAJECTORIES:
        raise OptionError(f"trajectories={call.trajectories}", hint=f"1 to {MAX_TRAJECTORIES}")
    if not 0 <= call.binding < 2**53:
        raise OptionError(f"binding {call.binding}", hint="0 or more")
    _check_outputs(call)


def _check_outputs(call: PulseCall) -> None:
    for output in call.outputs:
        if output not in OUTPUTS:
            hint = f"of: {', '.join(OUTPUTS)}"
            raise OptionError(f"output {output[:64]!r} of a pulse sequence", hint=hint)
    if ("expectation" in call.outputs) != bool(call.observables):
        raise OptionError("expectation values need observables, and observables give them")
    atoms = call.sizes.atoms
    for observable in call.observables:
        if any(len(label) != atoms or label.strip("IXYZ") for label in observable.labels):
            hint = f"{atoms} letters of IXYZ, the first of them for the register's first atom"
            raise OptionError("an observable of a pulse sequence", hint=hint)
        if len(observable.coefficients) != 8 * len(observable.labels):
            raise OptionError("an observable whose coefficients are not one for each label")
    if "statevector" in call.outputs:
        if call.noise:
            hint = "noise='off', or counts and expectation values"
            raise OptionError("a noisy sequence has no state vector", hint=hint)
        if atoms > MAX_STATE_ATOMS:
            raise LimitExceededError(
                f"the state vector of {atoms} atoms; a result has those of {MAX_STATE_ATOMS}",
                hint="counts, or expectation values",
            )


def check_shots(call: PulseCall, shots: int) -> None:
    """Check the number of shots. Raises OptionError, LimitExceededError."""
    sampled = [output for output in call.outputs if output in ("counts", "memory")]
    if sampled and not shots:
        raise OptionError(f"output {sampled[0]!r} without shots", hint="shots=1024")
    if "memory" in sampled and shots > MAX_MEMORY_SHOTS:
        raise LimitExceededError(
            f"the bits of {shots} shots; a result has those of {MAX_MEMORY_SHOTS}",
            hint="counts, or several tasks with other seeds",
        )


def check_text(what: str, text: str) -> None:
    """Check bytes and nesting of a JSON text without reading it. Raises LimitExceededError,
    ProgramError."""
    length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if length > MAX_SEQUENCE_BYTES:
        text = f"{what} is {size(length)}; the limit is {size(MAX_SEQUENCE_BYTES)}"
        raise LimitExceededError(text, hint="fewer pulses, or waveforms of fewer samples")
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
        if depth < 0:
            break
    if depth or not text.lstrip().startswith("{"):
        hint = "Sequence.to_abstract_repr() of pulser-core writes one"
        raise ProgramError(f"{what} is no JSON object", hint=hint)
    if deepest > MAX_NESTING:
        text = f"{what} is nested {deepest} deep; the limit is {MAX_NESTING}"
        raise LimitExceededError(text, hint="formulas of fewer operations in its variables")
