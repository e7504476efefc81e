"""Options of a submission: one table for all interfaces.

`OPTIONS` has a row for each: its default, its type in JSON, its words on the command line, and its
rule. The arguments of `Client.submit`, the options of commands, the members of HTTP requests and
the checks of client and service follow from it. The typed dicts say which tasks have an option, and
its type in Python; `TaskOptions` is the form that is sent and stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol, SupportsIndex, TypedDict

import msgspec

from simenv.errors import OptionError
from simenv.model.program import FEW, Text, check_printable
from simenv.model.task import Chain, EngineOptions, NoiseFactors, Observable, TaskParts
from simenv.model.task_rules import (
    MAX_NAME_CHARS,
    MAX_PRIORITY,
    check_bit_strings,
    check_sums,
    checked_engine_options,
    checked_integer,
    checked_outputs,
    checked_precision,
    checked_preferred,
    checked_ranks,
    checked_seconds,
)

MAX_COMPILER_CHARS = 256
_MAX_DECODED = 16_384  # observables of a message; the rules allow fewer
VALUE = "value"  # the only output of a call, see `simenv.model.calls`

# Types of JSON, with bounds of what is read before it is checked.
MAX_NAMES = 2**16  # of a list: bit strings, tasks to wait for
_MAX_SUM_TERMS = 2**17  # of observables, and of one of them
Name = Annotated[str, msgspec.Meta(max_length=4_096)]
Names = Annotated[list[Name], msgspec.Meta(max_length=MAX_NAMES)] | Name
Pauli = Annotated[str, msgspec.Meta(max_length=2**16)]  # one letter a qubit
Sum = Annotated[dict[Pauli, float], msgspec.Meta(max_length=_MAX_SUM_TERMS)]
Sums = Annotated[list[Pauli | Sum], msgspec.Meta(max_length=_MAX_SUM_TERMS)]
Factors = Annotated[dict[Name, Any], msgspec.Meta(max_length=1_000)]
OfEngine = Annotated[dict[Name, int | float], msgspec.Meta(max_length=64)]
Fractions = Annotated[list[float], msgspec.Meta(max_length=1_000)]
Qubits = Annotated[list[int], msgspec.Meta(max_length=MAX_NAMES)]


class Option(NamedTuple):
    """A row of the table. `json`: type in HTTP requests; None: they lack it. `help`: words on the
    command line; "": it lacks it. `check`: returns a given value as `TaskOptions` has it under the
    same name, or raises OptionError; the client applies it to given values, the service to values
    that differ from the default. None: the client converts it."""

    default: Any
    json: Any = None
    help: str = ""
    check: Callable[[Any], Any] | None = None


OPTIONS: dict[str, Option] = {
    "shots": Option(1024, int | None, "Number of shots; 0: exact results without sampling."),
    "seed": Option(None, int | None, "Seed; the same seed gives the same counts."),
    "outputs": Option(("counts",), Names, "Requested output; may be repeated.", checked_outputs),
    "observables": Option(
        None, Pauli | Sums | Sum | None, 'Pauli sum such as "ZZI:0.5,IXX:-1"; may be repeated.'
    ),
    "amplitudes": Option(
        None,
        Names | None,
        "Bit string whose amplitude is wanted, highest qubit first; may be repeated.",
    ),
    # HTTP has one or many bindings, by route.
    "parameter_values": Option(
        None, help="NAME=VALUE of a free parameter, in radians; may be repeated."
    ),
    "binding_index": Option(0),
    "engine": Option("auto", Name, "Engine; auto chooses one."),
    "precision": Option("double", Name, "Precision of the amplitudes.", checked_precision),
    "options": Option(
        None,
        OfEngine | None,
        "NAME=VALUE of an option of the engine, such as bond=64.",
        checked_engine_options,
    ),
    "ranks": Option(
        None,
        int | None,
        "MPI ranks, a power of two; default: as many as the memory needs.",
        checked_ranks,
    ),
    "pool": Option(None, Name | None, "Run on this pool."),
    "prefer": Option(
        None,
        Names | None,
        "Pools or kinds (hardware, emulator, simulator), with commas; the first that can run it"
        " now.",
        checked_preferred,
    ),
    "device": Option(None, Name | None, "Run on this emulated device; simenv devices lists them."),
    "noise": Option(
        "auto",
        Name | Factors,
        "auto (the device's), on, off, a recipe (aer), COMPONENT=FACTOR with commas, or a file"
        " with a noise model. All but auto, off and a file need a device.",
    ),
    "compile": Option(
        "auto",
        Name,
        "Compile for the device: auto where the circuit does not fit; never refuses it; fresh"
        " fails where the calibration has changed since; `run` compiles it again.",
    ),
    "qubit_mapping": Option(
        None,
        Qubits | None,
        "The device's qubit of each qubit of the circuit, with commas: 5,4,3.",
    ),
    "partition": Option(
        "auto",
        Names,
        "On a device of several QPUs, the module of each qubit, with commas: a,a,b; auto: with few"
        " Bell pairs.",
    ),
    "fractional_gates": Option(
        False,
        bool,
        "Compile to fractional gates too, such as rx and rzz of IBM's processors, where they are"
        " cheaper.",
    ),
    "priority": Option(
        0,
        int,
        "Priority; a higher number runs first.",
        partial(checked_integer, "priority", low=-MAX_PRIORITY, high=MAX_PRIORITY),
    ),
    "queue_timeout_s": Option(
        None,
        float | None,
        "Seconds of waiting after which the task is EXPIRED.",
        partial(checked_seconds, "queue_timeout_s", more="without it: no limit"),
    ),
    "run_timeout_s": Option(
        None,
        float | None,
        "Seconds of running after which the task is EXPIRED.",
        partial(checked_seconds, "run_timeout_s", more="without it: no limit"),
    ),
    "reservation": Option(
        None, int | None, "Number of a reservation to run under; default: SIMENV_RESERVATION."
    ),
    "account": Option(None, Name | None, "Account that is charged; default: SIMENV_ACCOUNT."),
    "qos": Option(None, Name | None, "Class of service; default: SIMENV_QOS."),
    "after": Option(
        None, Names | None, "Id of a task that must be DONE before; may be given several times."
    ),
    "name": Option(None, Name | None, "Name of the task in listings."),
    # Headers of HTTP.
    "idempotency_key": Option(
        None, help="A repeat of the same submission with this key is the same task."
    ),
    "trace": Option(None),
    # Of circuits of stim, which are Python objects.
    "decoder": Option(None),
    "interconnect": Option(None),
    "late_us": Option(None),
    # Of pulse sequences.
    "evaluation_times": Option(
        None,
        Fractions | None,
        "Times of the outputs of a pulse sequence, relative to its duration, with commas:"
        " 0.25,0.5.",
    ),
}
OF_STIM = ("decoder", "interconnect", "late_us")
OF_PULSES = ("evaluation_times",)


CHECKS = {name: row.check for name, row in OPTIONS.items() if row.check is not None}


class TaskLike(Protocol):
    """A `simenv.Task`."""

    @property
    def id(self) -> str: ...


class DeviceLike(Protocol):
    """A `simenv.Machine`."""

    def document(self) -> bytes: ...


class ReservationLike(Protocol):
    """A `simenv.Reservation`, or another object with the id and the pool of a reservation."""

    @property
    def id(self) -> int: ...
    @property
    def pool(self) -> str: ...


Parents = Iterable[TaskLike | str | int] | TaskLike | str | int | None
Seed = SupportsIndex
Seeds = Seed | Sequence[Seed] | None
Shots = SupportsIndex | float | None


class CallOptions(TypedDict, total=False):
    """Options of all tasks, also of calls; see `Client.submit` for the meaning of all options."""

    pool: str | None
    priority: SupportsIndex
    queue_timeout_s: float | None
    run_timeout_s: float | None
    reservation: ReservationLike | SupportsIndex | None
    account: str | None
    qos: str | None
    trace: str | None
    after: Parents
    name: str | None
    idempotency_key: str | None


class ProgramOptions(CallOptions, total=False):
    """Options of all circuits."""

    engine: str
    precision: str


class PartOptions(ProgramOptions, total=False):
    """Options of parts of circuits."""

    seed: Seed | None


class PlacementOptions(TypedDict, total=False):
    """Options of circuits without parts: devices, noise and ranks."""

    ranks: SupportsIndex | None
    prefer: Sequence[str] | str | None
    device: DeviceLike | str | None
    noise: Any
    compile: str
    # For circuits of stim also a dict, "auto", "draw" or "draw:2".
    qubit_mapping: Sequence[SupportsIndex] | Mapping[int, SupportsIndex] | str | None
    partition: Sequence[str] | str
    fractional_gates: bool


class SharedOptions(ProgramOptions, PlacementOptions, total=False):
    """Options that all tasks of a call share."""

    outputs: Sequence[str] | str
    observables: Any
    amplitudes: Sequence[str] | str | None
    options: Mapping[str, float] | None


class BatchOptions(SharedOptions, total=False):
    """Options of `Client.submit_many`."""

    shots: Shots | Sequence[Shots]
    seed: Seeds
    evaluation_times: Sequence[float] | None


class SubmitOptions(SharedOptions, total=False):
    """Options of `Client.submit`, `post`, `run` and `explain`."""

    shots: Shots
    seed: Seed | None
    parameter_values: Any
    binding_index: SupportsIndex
    decoder: str | None
    interconnect: str | None
    late_us: float | None
    evaluation_times: Sequence[float] | None


REFUSE = "refuse"  # a client's request for stale programs; STALE, REFUSED: set by the service
STALE, REFUSED = "stale", "refused"


class TaskOptions(msgspec.Struct, frozen=True, array_like=True):
    """Options of all tasks of one message; `engine` is resolved at acceptance, not later."""

    # Of counts, probabilities, statevector, expectation, gradient, memory, amplitudes.
    outputs: Annotated[tuple[Text, ...], FEW] = ("counts",)
    # Pauli sums, then the bit strings of amplitudes as an observable without coefficients: this
    # adds no field, so tasks without amplitudes have the same bytes as before.
    observables: Annotated[tuple[Observable, ...], msgspec.Meta(max_length=_MAX_DECODED)] = ()
    engine: Text = "auto"
    precision: Text = "double"  # double: complex128, single: complex64
    pool: Text = ""  # "": any
    priority: int = 0
    queue_timeout_s: float = 0.0  # 0: none
    run_timeout_s: float = 0.0  # 0: none
    name: Text = ""
    app: Text = ""  # the run of an application they belong to
    options: EngineOptions = ()  # the engine's own
    ranks: int = 0  # of the worker that runs it, a power of two; 0: as its memory needs
    reservation: int = 0  # that it runs under; 0: none
    # Pools, or kinds of devices, in order of preference: the first that can run the task is taken.
    prefer: Annotated[tuple[Text, ...], FEW] = ()
    chain: Chain | None = None  # of a gradient; None: slot k is parameter k
    device: Text = ""  # the emulated device; "": none
    # Factors of noise components, by name; (): the noise document as it is.
    noise: NoiseFactors = ()
    snapshot: Text = ""  # hex digest of the noise document; the service fills it at acceptance
    compiled: Text = ""  # compiler that compiled the programs for the device; "": none did
    # Gates of the circuits that compilation replaced, where the noise document is the caller's own.
    replaced_gates: Annotated[tuple[Text, ...], FEW] = ()
    compiled_for: Text = ""  # hex digest of the calibration that they were compiled for
    # Programs compiled for a calibration that is not in force: "": they run, and their results are
    # marked stale; REFUSE: they fail. The service writes STALE or REFUSED at the start.
    stale: Text = ""
    # Numbers of tasks: each must be DONE before these tasks run.
    after: Annotated[tuple[int, ...], FEW] = ()
    parts: TaskParts | None = None
    account: Text = ""  # "": the submitter's default one
    qos: Text = ""  # class of service; "": the account's default one
    # W3C traceparent of the submission; "": none. It changes nothing else.
    trace: Annotated[str, msgspec.Meta(max_length=55)] = ""

    @property
    def bit_strings(self) -> tuple[str, ...]:
        """Bit strings whose amplitudes are requested, highest qubit first."""
        last = self.observables[-1:]
        return last[0].labels if last and not last[0].coefficients else ()

    @property
    def pauli_sums(self) -> tuple[Observable, ...]:
        """Observables of the expectation values."""
        return self.observables[:-1] if self.bit_strings else self.observables

    @property
    def content(self) -> TaskOptions:
        """These options without `app`, `trace` and the preferred worker of `parts`, none of which
        changes a result. Two runs of an application with the same options have equal content."""
        parts = self.parts
        if parts is not None and parts.worker:
            parts = msgspec.structs.replace(parts, worker="")
        if not (self.app or self.trace) and parts is self.parts:
            return self
        return msgspec.structs.replace(self, app="", trace="", parts=parts)


_DEFAULT = TaskOptions()


def check_options(terms: TaskOptions) -> None:
    """Check the options that do not depend on a circuit. Raises SimenvError."""
    for name, check in CHECKS.items():
        value = getattr(terms, name)
        if value != getattr(_DEFAULT, name) and value != (VALUE,):
            check(value)
    if len(set(terms.outputs)) < len(terms.outputs):
        raise OptionError(option="outputs", value=terms.outputs, expected="each output once")
    if len(terms.name) > MAX_NAME_CHARS:
        hint = f"at most {MAX_NAME_CHARS}"
        raise OptionError(f"a task's name has {len(terms.name)} characters", hint=hint)
    check_printable("a task's name", terms.name)
    for text in (terms.compiled, terms.compiled_for, *terms.replaced_gates):
        if len(text) > MAX_COMPILER_CHARS:
            raise OptionError(
                f"a compiler, a calibration or a replaced gate of {len(text)} characters",
                hint=f"at most {MAX_COMPILER_CHARS}",
            )
        check_printable("a compiler, a calibration or a replaced gate", text)
    if terms.stale not in ("", REFUSE, STALE, REFUSED):
        raise OptionError(f"stale = {terms.stale[:64]!r} is not known", hint=f"'' or {REFUSE!r}")


def check_observables(terms: TaskOptions) -> None:
    """Check the observables and the bit strings of amplitudes. Raises SimenvError."""
    check_bit_strings(terms.bit_strings, "amplitudes" in terms.outputs)
    sums = terms.pauli_sums
    if ("expectation" in terms.outputs) != bool(sums):
        text = "the output 'expectation' and observables go together; only one was given"
        raise OptionError(text, hint='for example observables="ZZ:0.5"')
    check_sums(sums)
