"""Pulse sequences of neutral atoms as calls: their text, their sizes and the answer.

A program beside circuits: the abstract representation of a sequence of `pulser-core`, a JSON text
with the register, the channels and the device. Invariant: it travels as text, and no process reads
it before the bounds of this module hold; the service reads its sizes alone, which the client sent
with it. A worker refuses a sequence that is larger than its sizes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec

from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.model.program import Text, check_printable
from simenv.model.task import Observable
from simenv.model.task_rules import MAX_OBSERVABLES, check_sums
from simenv.text import size

RYDBERG = "rydberg"  # the engine of this project
EMULATORS = ("emu-mps", "emu-sv", "pulser-simulation")  # engines that are packages of others
PULSE_ENGINES = (RYDBERG, *EMULATORS)
BASES = {"ground-rydberg": ("g", "r"), "digital": ("g", "h"), "XY": ("u", "d")}  # states 0 and 1
MAX_SEQUENCE_BYTES = 2**20
MAX_NESTING = 32  # of objects and lists in the text
MAX_NUMBERS = 8_000_000  # samples of all atoms, or channels: atoms * nanoseconds
MAX_VARIABLES = 256
MAX_VARIABLE_VALUES = 4_096  # of all variables
MAX_NAME_CHARS = 256
MAX_STATE_ATOMS = 21  # whose state vector fits into a result
MAX_MEMORY_SHOTS = 2**22  # whose bits do
MAX_TRAJECTORIES = 100_000
MAX_TIMES = 1_000  # at which a sequence is evaluated, beside its end
MAX_ANSWER_BYTES = 60 * 2**20
LEAST_TOLERANCE = 1e-12
# Defaults of what a call leaves open.
TOLERANCE = 1e-6  # without noise
NOISY_TOLERANCE = 1e-4  # of each trajectory
TRAJECTORIES = 200  # at most one for each shot
# Engine `rydberg` draws the noise of each shot where that takes seconds: few atoms, and this
# product of shots and nanoseconds.
SMALL_ATOMS, SMALL_WORK = 8, 40_000_000
MAX_RATE = 1e12  # rad/us: more than atoms at a distance have
MAX_ATOMS = 256  # engines take fewer
MAX_CHANNELS = 64
MAX_DURATION_NS = 1_000_000
_LIMITS = {
    "atoms": (1, MAX_ATOMS), "channels": (1, MAX_CHANNELS), "duration_ns": (4, MAX_DURATION_NS),
}  # fmt: skip
# Sampled, exact, and means of operators; the latter are in the order of an answer's values.
OUTPUTS = (
    *("counts", "memory", "statevector"),
    *("occupation", "correlation", "energy", "expectation"),
)
# A string without an end reaches to that of the text: a search that went on behind each quote would
# take the square of the text's length.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
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
    tolerance: float = 0.0  # of 1 - fidelity; 0: by default, with or without noise
    # Whether the channels' bandwidths act on the pulses; None: on a device.
    modulation: bool | None = None
    noise: str = ""  # abstract representation of a NoiseModel; "": none, or that of the device
    trajectories: int = 0  # draws of the noise; 0: by default
    # Times relative to the duration, ascending, without the end, at which there are outputs too.
    evaluation_times: Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_TIMES)] = ()
    # Atoms of a register that is mapped, and the trap of each in its layout.
    mapping: Annotated[tuple[tuple[Text, int], ...], msgspec.Meta(max_length=MAX_ATOMS)] = ()
    # Whether the device of the task must run the pulses, delays and channels as they are.
    strict: bool = False
    # What predicts the steps, for forecasts alone: `simulators.catalog.cards.pulse_steps`.
    rate_rad_us: float = 0.0
    jumps: int = 0
    evolutions: int = 0  # of the trajectories, as equal draws may share one; 0: all

    @property
    def times(self) -> tuple[float, ...]:
        """All relative times with outputs; the end is the last one."""
        return (*self.evaluation_times, 1.0)

    @property
    def widths(self) -> dict[str, int]:
        """Number of values of each output that is a mean of operators, at one time, in order."""
        atoms = self.sizes.atoms
        of_all = {
            "occupation": atoms,
            "correlation": atoms**2 if "correlation" in self.outputs else 0,
            "energy": 2 if "energy" in self.outputs else 0,
            "expectation": len(self.observables),
        }
        return {name: width for name, width in of_all.items() if width}


class PulseAnswer(msgspec.Struct, frozen=True, array_like=True):
    """Outcomes of a sequence. An outcome is a number whose binary digits, highest first, are the
    atoms in the register's order: one word for each 64 atoms, highest first. Arrays are
    little-endian; those not asked for are empty. Their first axis is that of `times`, whose last is
    the end."""

    format: int
    shots: int
    seed: int
    atoms: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_ATOMS)]  # names, in order
    basis: str
    simulator: str  # name and version of the engine and of pulser-core
    # Estimated bound on 1 - fidelity of the evolution, with noise of those between two jumps; NaN:
    # none is known.
    error: float
    steps: int
    trajectories: int
    duration_ns: int
    times: Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_TIMES + 1)]  # relative
    occupation: bytes  # float64 [times, atoms]: probability of 1
    correlation: bytes = b""  # float64 [times, atoms, atoms]: probability of 1 of both
    energy: bytes = b""  # float64 [times, 2]: <H> in rad/us, and <H^2>
    expectation: bytes = b""  # float64 [times, observables]
    # float64 [times, values of the four above]: standard errors over the trajectories; empty
    # without noise.
    standard_errors: bytes = b""
    outcomes: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_TIMES + 1)] = ()
    # Of each time: uint64 [outcomes, words], distinct, ascending; and shots of each.
    counts: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_TIMES + 1)] = ()
    memory: bytes = b""  # uint64 [times, shots, words]
    statevector: bytes = b""  # complex128 [times, 2**atoms]
    remark: str = ""  # about the accuracy, where `error` has none


def default_trajectories(shots: int, sizes: PulseSizes | None = None) -> int:
    """Number of draws of the noise for so many shots; 0 shots: exact. `sizes`: of a sequence that
    the engine `rydberg` runs, by which each shot of a small one has a draw of its own."""
    most = TRAJECTORIES
    if sizes is not None and sizes.atoms <= SMALL_ATOMS and shots:
        most = max(most, min(SMALL_WORK // max(1, sizes.duration_ns), MAX_TRAJECTORIES))
    return min(most, shots or most)


def shared_draws(shots: int, trajectories: int) -> str:
    """Warning about shots that share draws of the noise; "": each has its own, or none is drawn."""
    if not 1 < trajectories < shots:
        return ""
    return (
        f"{shots} shots share {trajectories} draws of the noise: where the noise decides, they are"
        f" {trajectories} effective samples; options={{'trajectories':"
        f" {min(shots, MAX_TRAJECTORIES)}}} draws more"
    )


def settled(call: PulseCall, shots: int, *, on_device: bool) -> PulseCall:
    """Return the call with its noise known and nothing left open, as engines take it."""
    trajectories = call.trajectories or default_trajectories(shots)
    return msgspec.structs.replace(
        call,
        tolerance=call.tolerance or (NOISY_TOLERANCE if call.noise else TOLERANCE),
        modulation=on_device if call.modulation is None else call.modulation,
        trajectories=trajectories if call.noise else 1,
    )


def check_pulses(call: PulseCall) -> None:
    """Check a call as far as is possible without reading the sequence. Raises LimitExceededError,
    OptionError, ProgramError."""
    check_text("the pulse sequence", call.sequence)
    if call.noise:
        check_text("the noise model", call.noise)
    for name, (least, most) in _LIMITS.items():
        value = getattr(call.sizes, name)
        if not least <= value <= most:
            hint = "a shorter sequence, or one of fewer atoms"
            if value < least:
                hint = "a register, a channel, and a pulse"
            raise LimitExceededError(
                f"the sequence has {name} = {value}; the limits are {least} and {most}", hint=hint
            )
    _check_samples(call.sizes)
    names = [("a variable", name) for name, _ in call.variables]
    for what, name in names + [("an atom", name) for name, _ in call.mapping]:
        if len(name) > MAX_NAME_CHARS:
            raise OptionError(f"the name of {what} has {len(name)} characters")
        check_printable(f"the name of {what}", name)
    values = [value for _, many in call.variables for value in many]
    if len(values) > MAX_VARIABLE_VALUES or not all(map(math.isfinite, values)):
        hint = f"at most {MAX_VARIABLE_VALUES} finite numbers"
        raise OptionError(f"{len(values)} values of variables", hint=hint)
    if call.tolerance != 0.0 and not LEAST_TOLERANCE <= call.tolerance <= 1.0:  # NaN too
        hint = f"{LEAST_TOLERANCE:g} to 1: 1 - fidelity"
        raise OptionError(f"tolerance={call.tolerance!r}", hint=hint)
    if not 0.0 <= call.rate_rad_us <= MAX_RATE or not 0 <= call.jumps <= MAX_DURATION_NS:  # NaN too
        text = f"a forecast from {call.rate_rad_us!r} rad/us and {call.jumps} jumps of the drive"
        raise OptionError(text, hint=f"0 to {MAX_RATE:g} rad/us, and a jump each nanosecond")
    for name in ("trajectories", "evolutions"):
        if not 0 <= getattr(call, name) <= MAX_TRAJECTORIES:
            text = f"{name}={getattr(call, name)}"
            raise OptionError(text, hint=f"1 to {MAX_TRAJECTORIES}")
    if not 0 <= call.binding < 2**53:
        raise OptionError(f"binding {call.binding}", hint="0 or more")
    check_times(call.evaluation_times)
    _check_outputs(call)


def _check_samples(sizes: PulseSizes) -> None:
    for what, number in (("atoms", sizes.atoms), ("channels", sizes.channels)):
        if number * sizes.duration_ns > MAX_NUMBERS:
            raise LimitExceededError(
                f"{number} {what} for {sizes.duration_ns} ns; {what} times nanoseconds may be"
                f" {MAX_NUMBERS}",
                hint="a shorter sequence",
            )


def check_times(times: Sequence[float]) -> None:
    """Check the relative times before the end. Raises LimitExceededError, OptionError."""
    if len(times) > MAX_TIMES:
        text = f"evaluation_times has {len(times)} times; the limit is {MAX_TIMES}"
        raise LimitExceededError(text, hint="fewer times")
    ends = (*times, 1.0)
    if not all(0.0 <= time < after for time, after in pairwise(ends)):  # NaN too
        wrong = next(time for time, after in pairwise(ends) if not 0.0 <= time < after)
        raise OptionError(
            f"evaluation_times has {wrong!r}",
            hint="ascending numbers from 0 to 1: times relative to the duration",
        )


def _check_outputs(call: PulseCall) -> None:
    for output in call.outputs:
        if output not in OUTPUTS:
            hint = f"of: {', '.join(OUTPUTS)}"
            raise OptionError(f"output {output[:64]!r} of a pulse sequence", hint=hint)
    if ("expectation" in call.outputs) != bool(call.observables):
        raise OptionError("expectation values need observables, and observables give them")
    atoms = call.sizes.atoms
    check_sums(call.observables)
    for observable in call.observables:
        if any(len(label) != atoms for label in observable.labels):
            hint = f"{atoms} letters of IXYZ, the first of them for the register's first atom"
            raise OptionError("an observable of a pulse sequence", hint=hint)
    if "statevector" in call.outputs:
        if call.noise:
            hint = "noise='off', or counts and expectation values"
            raise OptionError("a noisy sequence has no state vector", hint=hint)
        if atoms > MAX_STATE_ATOMS:
            raise LimitExceededError(
                f"the state vector of {atoms} atoms; a result has those of {MAX_STATE_ATOMS}",
                hint="counts, or expectation values",
            )


def words(atoms: int) -> int:
    """Number of 64-bit words of an outcome."""
    return -(-atoms // 64)


def answer_bytes(call: PulseCall, shots: int) -> int:
    """Bytes of the answer with this number of shots, at most."""
    states = 1 << call.sizes.atoms
    outcome = 8 * words(call.sizes.atoms)
    each = 8 * sum(call.widths.values()) * (2 if call.noise else 1)
    if "counts" in call.outputs:
        each += (outcome + 8) * min(shots, states)
    if "memory" in call.outputs:
        each += outcome * shots
    if "statevector" in call.outputs:
        each += 16 * states
    return len(call.times) * each


def check_shots(call: PulseCall, shots: int) -> None:
    """Check the number of shots, and the size of the answer. Raises OptionError,
    LimitExceededError."""
    sampled = [output for output in call.outputs if output in ("counts", "memory")]
    if sampled and not shots:
        raise OptionError(f"output {sampled[0]!r} without shots", hint="shots=1024")
    if "memory" in sampled and shots > MAX_MEMORY_SHOTS:
        raise LimitExceededError(
            f"the bits of {shots} shots; a result has those of {MAX_MEMORY_SHOTS}",
            hint="counts, or several tasks with other seeds",
        )
    need = answer_bytes(call, shots)
    if need > MAX_ANSWER_BYTES:
        raise LimitExceededError(
            f"outputs {', '.join(call.outputs)} of {call.sizes.atoms} atoms with {shots} shots at"
            f" {len(call.times)} times take {size(need)}; the limit is {size(MAX_ANSWER_BYTES)}",
            hint="fewer evaluation_times, outputs or shots",
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


def check_atoms(names: Iterable[object]) -> None:
    """Check the names of a register's atoms. Raises LimitExceededError, OptionError."""
    for name in map(str, names):
        if len(name) > MAX_NAME_CHARS:
            raise LimitExceededError(
                f"the name of an atom has {len(name)} characters; the limit is {MAX_NAME_CHARS}",
                hint="a shorter name",
            )
        check_printable("the name of an atom", name)
