"""Tasks as they are submitted, and their results in encoded form."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Annotated

import msgspec

from simenv.model.program import FEW, Text

MAX_BINDINGS = 4_096  # of one task
MAX_SHOTS = 2**31 - 1  # counts are uint32 with room to spare
MAX_LABEL_CHARS = 65_536  # more than a program has qubits
MAX_LABELS = 200_000  # of one observable; the rules allow fewer of all together
MAX_TASK_NUMBER = 2**63 - 1  # the journal keeps signed 64-bit numbers


class TaskState(enum.StrEnum):
    """QUEUED -> RUNNING -> one of FINAL_STATES; loss of its worker returns a task to QUEUED."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


FINAL_STATES = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


def joint_state(states: Iterable[TaskState]) -> TaskState:
    """Return the state of several tasks together: QUEUED until one has started, RUNNING until all
    have ended; then FAILED, EXPIRED or CANCELLED, the first of these that one of them has, else
    DONE. That of no tasks is DONE."""
    found = set(states)
    if found == {TaskState.QUEUED}:
        return TaskState.QUEUED
    if not found <= FINAL_STATES:
        return TaskState.RUNNING
    unsuccessful = TaskState.FAILED, TaskState.EXPIRED, TaskState.CANCELLED
    return next((state for state in unsuccessful if state in found), TaskState.DONE)


Label = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_CHARS)]


class Observable(msgspec.Struct, frozen=True, array_like=True):
    """A real-weighted Pauli sum. Labels are in Qiskit's order: qubit 0 is the last character. One
    without coefficients is no sum: its labels are bit strings, see `TaskOptions.bit_strings`."""

    labels: Annotated[tuple[Label, ...], msgspec.Meta(max_length=MAX_LABELS)]
    coefficients: bytes  # float64 [len(labels)]


# (name, value), by name; see an engine's card
EngineOptions = Annotated[tuple[tuple[Text, int | float], ...], FEW]


# (component, factor), by component; see `noise_models`
NoiseFactors = Annotated[tuple[tuple[Text, float], ...], FEW]


class Chain(msgspec.Struct, frozen=True, array_like=True):
    """Sparse Jacobian of a program's slots by the parameters of its circuit. It turns a gradient by
    slots into one by parameters. Entry k: d slots[k] / d columns[k] = factors[k]."""

    parameters: int
    slots: bytes  # int32
    columns: bytes  # int32: number of the parameter
    factors: bytes  # float64


DEPENDENCY = "dependency"  # the reason of a task that failed because a parent failed
MAX_PARENTS = 64  # of one task


MAX_PARTS = 256  # of one circuit
MAX_KEEP_S = 600.0


class TaskParts(msgspec.Struct, frozen=True, array_like=True):
    """Leading parts of a program. Each runs once for all shots, with the measurements of shot 0 of
    binding 0. The operations after the last part run for each shot, from the state after it."""

    # Part k ends before operation ends[k].
    ends: Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_PARTS)]
    keep_s: float  # seconds that the worker keeps the state after the last part; 0: it does not
    # Clbits after the first parts, as earlier tasks measured them: see `CircuitParts`.
    outcomes: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_PARTS)] = ()
    worker: Text = ""  # preferred: it may still have the state


class TaskSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One program, 1..MAX_BINDINGS bindings, `shots` shots each. 0 shots: exact, no sampling."""

    program: bytes  # a packed Program; only admission decodes it in the service
    shots: int
    seed: int  # unsigned 64-bit
    bindings: bytes = b""  # float64 [count, num_slots]
    binding: int = 0  # number of row 0 in the caller's whole sweep: part of the random key
    count: int = 1  # rows; row r has the random key (seed, binding + r)
    layout: bytes = b""  # uint16 [qubits before compilation]: the device's qubit of each at the end
    initial_layout: bytes = b""  # the same at the beginning


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no i, l, o, u


def task_name(number: int) -> str:
    """Return the id of a task as users type it: `t-` and the number in base 32."""
    text = ""
    while number or not text:
        number, digit = divmod(number, 32)
        text = _ALPHABET[digit] + text
    return "t-" + text


def task_number(name: str) -> int | None:
    """Return the number of a task id; None if the text is not an id."""
    body = name[2:] if name.startswith("t-") else ""
    if not body or len(body) > 13 or any(c not in _ALPHABET for c in body):
        return None
    number = 0
    for c in body:
        number = 32 * number + _ALPHABET.index(c)
    return number if number <= MAX_TASK_NUMBER else None


RESULT_FORMAT = 1


class StoredArray(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An array of a ResultData that lies in a file, contiguous and little-endian."""

    field: str  # of ResultData
    dtype: str  # numpy's: "<c16"
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file
    size_bytes: int
    checksum: int  # CRC-32


class ResultFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """File with the large arrays of a result. `name` is relative to the environment's results
    folder."""

    name: str
    size_bytes: int
    checksum: int  # CRC-32 of all bytes outside the arrays, in order
    arrays: tuple[StoredArray, ...]  # by offset


class LinkUse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Bell pairs that a circuit makes on a link."""

    link: str  # its qubits, by module: "a.0-b.0"
    pairs: int  # in a shot, operations in blocks once
    wait_ns: float = 0.0  # mean, until a pair is there
    fidelity: float = 1.0  # of a pair


class DeviceRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The emulated device that a result is of, and how the program was compiled for it."""

    name: str  # "": a noise model of the caller's own, without a device
    snapshot: str  # hex digest of the noise document
    calibrated_s: float = 0.0  # wall clock of the calibration, seconds since 1970; 0: not known
    noise: tuple[tuple[str, float], ...] = ()  # factors of components; (): all as calibrated
    compiled: str = ""  # compiler, level and seed; "": the program ran as it was written
    layout: bytes = b""  # uint16: the device's qubit of each at the circuit's end; b"": the same
    gates: tuple[tuple[str, int], ...] = ()  # gates of the program that ran, by name
    initial_layout: bytes = b""  # as `layout`, at its beginning
    warnings: tuple[str, ...] = ()  # noise that does not act as asked, or was fitted to others
    stale: bool = False  # compiled for another calibration than the one in force at the start
    # Of a device of several QPUs: the module of each qubit of the circuit, and links with pairs.
    modules: tuple[str, ...] = ()
    links: tuple[LinkUse, ...] = ()
    # What the circuit has that no circuit of the device's fit had: the calibration before it acted.
    outside_fit: tuple[str, ...] = ()


class ResultData(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Output of an engine for all rows of a task. The worker packs it; the service forwards it
    without decoding.

    Row r belongs to binding number `binding` + r. An outcome is one row of `outcome_width` bytes,
    little-endian, clbit 0 in bit 0 of byte 0. Rows differ in their numbers of distinct outcomes:
    their parts of `outcomes` and `counts` follow one another, with the lengths in `rows`.
    """

    format: int
    registers: tuple[tuple[str, int], ...]  # of the program; (): it measures nothing
    num_qubits: int
    shots: int  # of each row
    seed: int
    outcome_width: int = 0  # 1, 2, 4, 8, or ceil(clbits / 8) beyond 64 clbits
    outcomes: bytes = b""  # each row's distinct outcomes, ascending
    counts: bytes = b""  # uint32, one for each outcome
    # Exact distribution over the clbits, or over the qubits if the circuit measures nothing.
    probability_outcomes: bytes = b""  # as above, of `probability_width` bytes
    probability_width: int = 0
    probabilities: bytes = b""  # float64, one for each outcome
    # complex128 or complex64 [count, 2**num_qubits], qubit 0 = lowest index bit
    statevector: bytes = b""
    expectations: bytes = b""  # float64 [count, observables, 2]: value, standard error
    truncation: float = 0.0  # the largest of the rows
    remark: str = ""  # e.g. "12 branches"
    precision: str = "double"
    binding: int = 0  # number of row 0 in the caller's sweep: part of the random key
    count: int = 1  # rows
    rows: bytes = b""  # uint32 [count]: distinct outcomes of each row; b"": one row has them all
    probability_rows: bytes = b""  # the same of `probability_outcomes`
    file: ResultFile | None = None  # holds the arrays too large for a message, which are b"" here
    options: EngineOptions = ()  # as submitted; all others have the engine's defaults
    gradients: bytes = b""  # float64 [count, observables, parameters]
    device: DeviceRecord | None = None  # None: an ideal one
    # uint8 [count, shots, ceil(clbits / 8)]: clbit c of a shot in bit c % 8 of byte c // 8
    memory: bytes = b""
    value: bytes = b""  # of a call: see `simenv.model.calls`


class MeasuredError(msgspec.Struct, frozen=True, array_like=True):
    """Error of an engine that truncates, measured on regions of the circuit that were run exactly,
    too: of values on one and two qubits, and of the distribution of `subset_bits` bits."""

    local_rms: float  # root of the mean square
    local_max: float
    local_standard_error: float  # of `local_rms`
    subset_bits: int
    subset_tvd: float  # bound of their total variation distance, by random strings of Z
    regions: int
    region_qubits: int  # of the widest
    trajectories: int = 0  # of the exact side; 0: density matrices
    negative: float = 0.0  # probability below zero that was clipped, mean of the shots


class AmplitudeResultData(ResultData, frozen=True, array_like=True, gc=False):
    """ResultData with the output `amplitudes`, or with a measured error. Results without them are
    encoded as a ResultData, and decoded as this with empty arrays."""

    bit_strings: bytes = b""  # ASCII 0 and 1 [strings, num_qubits], highest qubit first
    amplitudes: bytes = b""  # complex128 or complex64 [count, strings]
    error: MeasuredError | None = None  # of the row with the largest


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """The worker that computed a result; shared by all results of one message."""

    worker: str
    node: str  # where its ranks were, each node once: "node1,node2"
    pid: int  # of its first rank
    version: str
    ranks: int = 1


class Timing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Microseconds spent in each stage of one task, as the service and worker measured them."""

    queued_us: int  # accepted -> sent to a worker
    sent_us: int  # at the worker -> begun: behind the others of its chunk
    run_us: int  # in the worker: the next four stages, and the short times between them
    decode_us: int = 0  # bytes to circuit
    plan_us: int = 0  # the engine's plan, cached or new
    engine_us: int = 0  # inside the engine: evolving and sampling
    encode_us: int = 0  # result to bytes
    returned_us: int = 0  # transport in both directions, and waiting for the rest of its message
    # The engine and kernels compiled or loaded, once in a worker; not a part of `run_us`.
    compile_us: int = 0
    device_ns: int = 0  # on the emulated device, by its calibration; 0: on none, or not known
    begun_ns: int = 0  # on a paced device: wall clock of its begin there, since 1970; 0: not paced
    # Why it waited, (WaitReason, microseconds): see `simenv.model.accounts.explained_waits`.
    waits: tuple[tuple[int, int], ...] = ()

    @property
    def total_us(self) -> int:
        """From the acceptance of the task to its end."""
        before_us = self.queued_us + self.sent_us + self.compile_us
        return before_us + self.run_us + self.returned_us
