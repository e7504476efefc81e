"""Bodies of requests and answers of the native API.

Answers are the structs of `simenv.model` and of the messages. Those that travel as arrays on the
wire are repeated here as objects with the same fields, by inheritance: a new field of the original
is a new member of the object. Numbers that were not measured are null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from litestar.params import QueryParameter

from simenv.client.result_data import Stages
from simenv.model import Event, ProgressInfo, TaskInfo, Timing
from simenv.model.accounts import Account, Qos, Receipt, UsageRow, Used, explained_waits
from simenv.model.devices import (
    UNKNOWN,
    AnalogInfo,
    DeviceInfo,
    EngineInfo,
    GateInfo,
    LayerInfo,
    LinkInfo,
    LogicalInfo,
    ModuleInfo,
    OperationInfo,
    QubitInfo,
    TermInfo,
)
from simenv.model.logical_use import LogicalUse
from simenv.model.options import MAX_NAMES, OPTIONS, Name
from simenv.model.program import Text
from simenv.model.pulses import MAX_ATOMS
from simenv.model.task import LinkUse
from simenv.wire.messages.base import MAX_TIME_S
from simenv.wire.messages.explain import Choice, NoiseFigure, NoiseUse, Sizes
from simenv.wire.messages.history import LogRow, Spent

Moment = Annotated[float, QueryParameter(ge=0.0, le=MAX_TIME_S)]  # seconds since 1970
MAX_LIST = 1_000  # rows of one page
MAX_WAIT_S = 60.0  # that one request may wait for a result
MAX_TEXT_CHARS, MAX_PROGRAM_BYTES = 16 * 2**20, 16 * 2**20
MAX_SETS = 2**20  # of parameter values, and values of one set
Values = Annotated[list[float], msgspec.Meta(max_length=MAX_SETS)]
Traps = Annotated[dict[Name, int], msgspec.Meta(max_length=MAX_ATOMS)]  # of a mapped register
# Of a pulse sequence: a number, the numbers of an array, or the traps of its atoms.
Variable = float | Values | Traps
Column = Annotated[list[Variable], msgspec.Meta(max_length=MAX_SETS)]
Program = Annotated[bytes, msgspec.Meta(max_length=MAX_PROGRAM_BYTES)]
# NaN, which JSON has as null.
Measured = Annotated[float, msgspec.Meta(extra_json_schema={"type": ["number", "null"]})]


class ProgramSource(msgspec.Struct, frozen=True, kw_only=True):
    """A program, in one of three forms. `program`: text of OpenQASM 2 or 3, of QIR of the base
    profile, or the abstract representation of a pulse sequence (`pulser-abstract`), a JSON object
    as text. `qpy`: a QPY file, `packed`: a packed Program of simenv, both in base64."""

    program: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)] = ""
    qpy: Program = b""
    packed: Program = b""


if TYPE_CHECKING:
    Options = ProgramSource
else:  # with the options that HTTP has; one name stands for the list of it
    Options = msgspec.defstruct(
        "Options",
        [
            (name, row.json, row.default[0] if isinstance(row.default, tuple) else row.default)
            for name, row in OPTIONS.items()
            if row.json is not None
        ],
        bases=(ProgramSource,),
        frozen=True,
        kw_only=True,
    )


class ProgramRequest(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program, and the options of `Client.submit` by the same names."""


class TaskRequest(ProgramRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task. `parameter_values`: one binding of the program's free parameters, by name or in
    their order, or of a sequence's variables, by name, and the traps of a register that is mapped
    as `qubits`; `binding_index`: its index in a sweep."""

    parameter_values: (
        Values | Annotated[dict[Name, Variable], msgspec.Meta(max_length=MAX_NAMES)] | None
    ) = None
    binding_index: int = 0


class SweepRequest(ProgramRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program with K sets of parameter values: a list of K lists in the order of the parameters,
    or for each parameter K values, or one for all; of a pulse sequence: for each variable K
    values."""

    parameter_values: (
        Annotated[list[Values], msgspec.Meta(max_length=MAX_SETS)]
        | Annotated[dict[Name, Column | float], msgspec.Meta(max_length=MAX_NAMES)]
    )


class CalibrationDates(msgspec.Struct, frozen=True):
    """Times in seconds since 1970, the oldest first."""

    times_s: list[float]


class AcceptedTask(msgspec.Struct, frozen=True):
    """An accepted task."""

    id: str
    name: str = ""


class SweepPart(msgspec.Struct, frozen=True):
    """One task of a sweep. Binding k of the sweep is `ID.(k - first)` for the task with the largest
    `first` that is not above k."""

    id: str
    first: int
    bindings: int


class AcceptedSweep(msgspec.Struct, frozen=True):
    """An accepted sweep: few tasks, each with many bindings, which run and end together."""

    bindings: int
    tasks: list[SweepPart]


class Cancellation(msgspec.Struct, frozen=True):
    """What became of a request to cancel. `outcome`: cancelled; cancelling: a running task was
    asked to stop; final: it had ended before."""

    id: str
    outcome: str


class TimingRecord(Timing, frozen=True, array_like=False):
    """Microseconds in each stage of a task. `waits` of a task stand in its `waits_us`."""


class UsedRecord(Used, frozen=True, array_like=False):
    """What a task used, in microseconds times number."""


class SpentRecord(Spent, frozen=True, array_like=False):
    """Microseconds that the client spent between two submissions."""


class TaskDetails(LogRow, frozen=True, array_like=False, kw_only=True):
    """A task. The members from `progress` on are of tasks that have not ended."""

    timing: TimingRecord
    used: UsedRecord = UsedRecord()
    spent: SpentRecord = SpentRecord()
    # By reason: OWN_TASKS, SLOTS ...
    waits_us: dict[str, int] = msgspec.field(default_factory=dict)
    progress: ProgressInfo | None = None  # of a run of more than a second, if its engine reports it
    expected_start_s: float | None = None  # seconds since 1970
    wait_off_by: float = 0.0  # typical factor between expected and real waits; 0: not known
    wait_age_us: float = 0.0  # since the expected start was forecast
    parked: int = 0  # place among the tasks that wait for credits
    reservation: int = 0
    expected_end_s: float | None = None  # of its run, seconds since 1970
    outrun: float = 0.0  # run time relative to the forecast that it outran tenfold


class TaskPage(msgspec.Struct, frozen=True):
    """A page of tasks, newest first. `next`: the cursor of the next page; "": this is the last."""

    tasks: list[TaskDetails]
    next: str


class TaskCircuit(msgspec.Struct, frozen=True):
    """The circuit of a task as it was sent: for a device, the compiled one. `drawing` is text; ""
    if the circuit is too large to be readable. `openqasm3`: "" if it has no such form."""

    num_qubits: int
    num_clbits: int
    operations: int
    drawing: str
    openqasm3: str


class PulseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of a pulse sequence; an output that was not requested is null. Bit strings have the
    first atom first; 1 is the state r, h or d. Of the members see `simenv.PulseResult`."""

    atoms: list[str]
    basis: str
    shots: int
    seed: int
    duration_ns: int
    evaluation_times: list[float]
    occupations: list[float]
    counts: dict[str, int] | None
    memory: list[str] | None
    expectation: list[float] | None
    statevector: list[tuple[float, float]] | None
    counts_at: list[dict[str, int]] | None
    memory_at: list[list[str]] | None
    expectation_at: list[list[float]] | None
    statevector_at: list[list[tuple[float, float]]] | None
    occupation: list[list[float]] | None
    correlation: list[list[list[float]]] | None
    energy: list[float] | None
    energy_second_moment: list[float] | None
    standard_errors: dict[str, Any]  # over the trajectories of noise, by name
    error: Measured  # estimated bound on 1 - fidelity
    remark: str  # about the accuracy, where `error` has none
    steps: int
    trajectories: int
    simulator: str


class ResultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A result; an output that was not requested is null. Bit strings are in Qiskit's order,
    amplitudes are pairs of real and imaginary part. `pulses`: of a pulse sequence alone."""

    task: str
    name: str
    state: str
    counts: dict[str, int] | None
    probabilities: dict[str, float] | None
    statevector: list[tuple[float, float]] | None
    expectations: list[float] | None
    std_errors: list[float] | None
    gradients: list[list[float]] | None
    memory: list[str] | None
    amplitudes: dict[str, tuple[float, float]] | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, dict[str, float]] | msgspec.UnsetType = msgspec.UNSET  # see `Result.error`
    shots: int
    seed: int
    binding: int
    engine: str
    route: str
    precision: str
    options: dict[str, float]
    device: str | None
    snapshot: str | None
    calibrated: str | None
    snapshot_age_s: float | None
    noise: dict[str, float]
    compiled: str | None
    layout: list[int] | None
    initial_layout: list[int] | None
    gates: dict[str, int] | None
    modules: list[str] | None
    pairs: dict[str, int] | None
    wait_s: float | None
    calibration_stale: bool
    outside_fit: list[str]
    warnings: list[str]
    device_time_s: float | None
    node: str
    worker: str
    version: str
    ranks: int
    slots: int
    attempts: int
    num_qubits: int
    truncation: float | None
    remark: str
    timing: Stages
    pulses: PulseRecord | msgspec.UnsetType = msgspec.UNSET


class ResultPage(msgspec.Struct, frozen=True):
    """Results of bindings `first` and on of a task that carries `bindings` of them."""

    task: str
    bindings: int
    first: int
    results: list[ResultRecord]


class QubitRecord(QubitInfo, frozen=True, array_like=False):
    """Measured properties of one qubit; null: not measured."""

    t1_us: Measured = UNKNOWN
    t2_us: Measured = UNKNOWN
    frequency_ghz: Measured = UNKNOWN
    readout_error: Measured = UNKNOWN
    readout_ns: Measured = UNKNOWN
    t2_star_us: Measured = UNKNOWN
    memory_error: Measured = UNKNOWN
    measure_decay: Measured = UNKNOWN
    measure_excitation: Measured = UNKNOWN
    leaked_readout: Measured = UNKNOWN


class OperationRecord(OperationInfo, frozen=True, array_like=False):
    """One gate on an ordered tuple of qubits; null: not measured."""

    error: Measured = UNKNOWN
    duration_ns: Measured = UNKNOWN
    leakage: Measured = UNKNOWN
    seepage: Measured = UNKNOWN


class GateRecord(GateInfo, frozen=True, array_like=False):
    """A gate by its name; `qubits` -1: any number."""


class LayerRecord(LayerInfo, frozen=True, array_like=False):
    """Two-qubit gates that act at the same time and have an error together."""


class TermRecord(TermInfo, frozen=True, array_like=False):
    """A further calibrated quantity, wherever it was measured; a place (): all others."""


class ModuleRecord(ModuleInfo, frozen=True, array_like=False):
    """A QPU of a device that consists of several."""


class LinkRecord(LinkInfo, frozen=True, array_like=False):
    """A link, which makes Bell pairs of communication qubits of two modules."""


class LogicalRecord(LogicalInfo, frozen=True, array_like=False):
    """Code and chip of a device of logical qubits."""


class AnalogRecord(AnalogInfo, frozen=True, array_like=False):
    """What a device runs pulse sequences with."""


class DeviceDetails(DeviceInfo, frozen=True):
    """A pool, or an emulated device, with its present calibration."""

    gates: tuple[GateRecord, ...]
    operations: tuple[OperationRecord, ...] = ()
    qubits: tuple[QubitRecord, ...] = ()
    layers: tuple[LayerRecord, ...] = ()
    terms: tuple[TermRecord, ...] = ()
    modules: tuple[ModuleRecord, ...] = ()
    links: tuple[LinkRecord, ...] = ()
    logical: LogicalRecord | None = None
    analog: AnalogRecord | None = None
    dt_ns: Measured = UNKNOWN


class EngineRecord(EngineInfo, frozen=True):
    """Capabilities of an engine in this environment."""

    gates: tuple[GateRecord, ...]


class QueuePage(msgspec.Struct, frozen=True):
    """The length of the queue, and its first tasks."""

    total: int
    tasks: list[TaskInfo]


class AccountList(msgspec.Struct, frozen=True):
    """Accounts and classes of service, by name."""

    accounts: dict[str, Account]
    qos: dict[str, Qos]


class DeviceName(msgspec.Struct, frozen=True):
    """A name that `device` of a task accepts. `source`: imported, bundled or qiskit-ibm-runtime."""

    name: str
    source: str


class UsageRecord(UsageRow, frozen=True):
    """Sums over ended tasks. `key`: values of the names asked for, in their order."""

    used: UsedRecord


class UsageReport(msgspec.Struct, frozen=True):
    """Sums and the time that they cover, which is widened to whole hours, days or months."""

    by: list[str]
    rows: list[UsageRecord]
    from_s: float
    to_s: float


class ReceiptRecord(Receipt, frozen=True):
    """The account of one ended task; it never changes."""

    used: UsedRecord
    # By reason; they add up to `waited_us`.
    waits_us: dict[str, int] = msgspec.field(default_factory=dict)


class ChoiceRecord(Choice, frozen=True, array_like=False):
    """One engine that was considered."""


class SizesRecord(Sizes, frozen=True, array_like=False):
    """Sizes of the program on which the choice of the engine depends."""


class LinkUseRecord(LinkUse, frozen=True, array_like=False):
    """Bell pairs that a circuit makes on a link."""


class LogicalUseRecord(LogicalUse, frozen=True, array_like=False):
    """Costs of one shot on a device of logical qubits."""


class NoiseFigureRecord(NoiseFigure, frozen=True, array_like=False):
    """A parameter of pulser's NoiseModel."""


class NoiseUseRecord(NoiseUse, frozen=True, array_like=False):
    """The noise of a pulse sequence, and what its device has no figure of."""

    figures: tuple[NoiseFigureRecord, ...] = ()


class ExplanationRecord(msgspec.Struct, frozen=True):
    """The engines considered, the chosen one first; `engine` "": none can run the program."""

    engine: str
    sizes: SizesRecord
    engines: list[ChoiceRecord]
    links: list[LinkUseRecord]
    remote_gates: int
    logical: LogicalUseRecord | None
    noise: NoiseUseRecord | None  # of a pulse sequence


class ReservationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reservation, for `count` circuits of the given size each; see `Client.reserve`."""

    pool: Text | None = None
    workers: int = 0
    for_s: float = 600.0
    bound_s: float | None = None
    count: int = 1
    qubits: int = 0
    depth: int = 0
    gates_1q: int = 0
    gates_2q: int = 0
    measurements: int = 0
    shots: int = 0
    account: Text = ""


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """New time until the expiry of a reservation."""

    for_s: float


class EndedReservation(msgspec.Struct, frozen=True):
    """An ended reservation, and those of its tasks that still run."""

    running: list[str]


class EventPage(msgspec.Struct, frozen=True):
    """Events above the number `since`. `last`: the number to go on from; `newest`: the newest
    there is."""

    events: list[Event]
    last: int
    newest: int


T = TypeVar("T", bound=msgspec.Struct)


def record(value: Any, kind: type[T], **changes: Any) -> T:
    """Return a struct of the wire as the record of the same fields; `changes`: of other fields."""
    result = msgspec.convert(value, kind, from_attributes=True)
    return msgspec.structs.replace(result, **changes) if changes else result


def waits_of(waits: tuple[tuple[int, int], ...], waited_us: int) -> dict[str, int]:
    """Return the parts of a wait by their reasons, in microseconds."""
    return {reason.name: us for reason, us in explained_waits(waits, waited_us).items()}
