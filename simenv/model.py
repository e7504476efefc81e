"""The frozen values that travel between client, service and worker, and what users read.

Invariant: nothing here does I/O, holds a lock or imports more than msgspec, so a command such as
`simenv status` starts without numpy and qiskit. Arrays travel as little-endian bytes; the dtype and
shape of each stand beside the field.
"""

from __future__ import annotations

import enum
import hashlib

import msgspec

PROGRAM_FORMAT = 2
READ_FORMATS = (1, 2)  # formats of programs that are read; a field that came later has a default
RESULT_FORMAT = 2
MAX_QUBITS = 65_535  # qubit numbers are uint16
MAX_CLBITS = 65_535
MAX_BINDINGS = 4_096  # of one task
MAX_SHOTS = 2**31 - 1  # counts are uint32 with room to spare
MAX_TASK_NUMBER = 2**63 - 1  # the journal keeps signed 64-bit numbers
MAX_VARIABLES = 4096
MAX_UNITARY_QUBITS = 10  # of one matrix: 16 MiB
MAX_MATRIX_BYTES = 32 * 2**20  # of all matrices of a program
# Block markers: no qubits, clbits or parameters.
MARKERS = (
    "if", "else", "end", "while", "for", "switch", "case", "default", "break", "continue",
)  # fmt: skip
OWNERS = ("if", "while", "for", "switch", "case", "store")  # each owns one expression, in order


class Program(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A circuit as a table of operation names and flat arrays.

    Operation k is row `ops[k]` of the tables `names` and `arities`; its qubits, clbits and
    parameters are the next ones of the flat arrays, as many as its row of `arities` says. Two rows
    of the table may have the same name (`barrier` on 2 and on 3 qubits); each row `unitary` has a
    matrix of its own: the j-th such row is `matrices[j]`. Clbit 0 is the rightmost character of a
    counts key.

    Control flow is flat: `if` block [`else` block] `end`, `while` block `end`, `for` block `end`,
    `switch` (`case` block)* [`default` block] `end`; `break` and `continue` mean the innermost
    loop. The k-th operation that is one of OWNERS owns the k-th expression of `conditions`: `if`
    and `while` a Bool; `for` a constant Uint, how often; `switch` a Bool or a Uint, `case` one or
    more constants of that type (the first case that has the value is taken, else `default`);
    `store` a value and the token that stores it. All bits and variables begin as 0.
    """

    format: int
    num_qubits: int
    num_clbits: int
    # Classical registers (name, size), laid out one after the other from clbit 0; loose bits come
    # last, as one register without a name.
    registers: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    arities: bytes  # uint16 [len(names), 3]: qubits, clbits, parameters
    ops: bytes  # uint16 [operations]
    qubits: bytes  # uint16
    clbits: bytes  # uint16
    params: bytes  # float64, radians (`delay`: ns, `delay_dt`: dt); 0.0 where a slot fills it
    num_slots: int = 0  # number of distinct parameter expressions
    slots: bytes = b""  # int32 [free parameters, 2]: position in `params`, slot number
    conditions: bytes = b""  # int32 [tokens, 3]: postfix (Token, operand, width); END closes each
    constants: tuple[bytes, ...] = ()  # unsigned, little-endian, any width; VALUE's operand
    # Since format 2.
    variables: tuple[int, ...] = ()  # width in bits of each classical variable; 0: a Bool
    matrices: tuple[bytes, ...] = ()  # complex128 [2**q, 2**q], row by row, in Qiskit's order

    def packed(self) -> bytes:
        """The wire form."""
        return _ENCODER.encode(self)

    @property
    def structure(self) -> bytes:
        """16 bytes that name the shape: everything but parameter values (BLAKE2b)."""
        return digest(
            _ENCODER.encode(
                (
                    self.format,
                    self.num_qubits,
                    self.num_clbits,
                    self.registers,
                    self.names,
                    self.arities,
                    self.ops,
                    self.qubits,
                    self.clbits,
                    self.num_slots,
                    self.slots,
                    self.conditions,
                    self.constants,
                    self.variables,
                    self.matrices,
                )
            )
        )

    @property
    def digest(self) -> bytes:
        """16 bytes that name the program: BLAKE2b of its wire form."""
        return digest(self.packed())


class Token(enum.IntEnum):
    """Postfix tokens of an expression; widths are bits, a Bool has width 0."""

    END = 0  # closes one expression
    CLBIT = 1  # operand: clbit number; pushes a Bool
    REGISTER = 2  # operand: register number; pushes a Uint of the register's size
    VALUE = 3  # operand: index into `constants`; width 0: a Bool
    CAST = 4  # to `width`: 0 = Bool (non-zero), else Uint cut or extended
    BIT_NOT = 5
    LOGIC_NOT = 6
    BIT_AND = 7
    BIT_OR = 8
    BIT_XOR = 9
    LOGIC_AND = 10
    LOGIC_OR = 11
    EQUAL = 12
    NOT_EQUAL = 13
    LESS = 14
    LESS_EQUAL = 15
    GREATER = 16
    GREATER_EQUAL = 17
    SHIFT_LEFT = 18
    SHIFT_RIGHT = 19
    ADD = 20
    SUB = 21
    MUL = 22
    DIV = 23
    INDEX = 24  # (value, index) -> Bool
    VARIABLE = 25  # operand: variable number; pushes it
    # The last token of a `store`: takes the value, of the target's width, and leaves nothing.
    SET_CLBIT = 26
    SET_REGISTER = 27
    SET_VARIABLE = 28


class TaskState(enum.StrEnum):
    """QUEUED -> RUNNING -> one of FINAL_STATES; a lost worker takes a task back to QUEUED."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


FINAL_STATES = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


class WorkerState(enum.StrEnum):
    """STARTING -> IDLE <-> BUSY -> DRAINING -> GONE; LOST from any."""

    STARTING = "STARTING"
    IDLE = "IDLE"
    BUSY = "BUSY"
    DRAINING = "DRAINING"
    GONE = "GONE"
    LOST = "LOST"


class Observable(msgspec.Struct, frozen=True, array_like=True):
    """A real-weighted Pauli sum. Labels are in Qiskit's order: qubit 0 is the last character."""

    labels: tuple[str, ...]
    coefficients: bytes  # float64 [len(labels)]


EngineOptions = tuple[tuple[str, int | float], ...]  # (name, value), by name; see an engine's card


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """What all tasks of one message share; `engine` is resolved at acceptance, never later."""

    outputs: tuple[str, ...] = ("counts",)  # counts, probabilities, statevector, expectation
    observables: tuple[Observable, ...] = ()
    engine: str = "auto"
    precision: str = "double"  # double: complex128, single: complex64
    pool: str = ""  # "": any
    priority: int = 0
    queue_timeout_s: float = 0.0  # 0: none
    run_timeout_s: float = 0.0  # 0: none
    name: str = ""
    app: str = ""  # the run of an application they belong to
    options: EngineOptions = ()  # the engine's own

    @property
    def content(self) -> Terms:
        """What makes them these terms: another run of the application may ask for the same."""
        return msgspec.structs.replace(self, app="") if self.app else self


class TaskSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One program, 1..MAX_BINDINGS bindings, so many shots each. 0 shots: exact (no sampling)."""

    program: bytes  # a packed Program; opaque to the service but for admission
    shots: int
    seed: int  # unsigned 64-bit
    bindings: bytes = b""  # float64 [count, num_slots]
    binding: int = 0  # number of row 0 in the caller's whole sweep: part of the random key
    count: int = 1  # rows; row r has the random key (seed, binding + r)


class StoredArray(msgspec.Struct, frozen=True, array_like=True):
    """An array of a ResultData that lies in a file, contiguous and little-endian."""

    field: str  # of ResultData
    dtype: str  # numpy's: "<c16"
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file
    size_bytes: int
    checksum: int  # CRC-32


class ResultFile(msgspec.Struct, frozen=True, array_like=True):
    """Where the large arrays of a result are; `name` is below the environment's results folder."""

    name: str
    size_bytes: int
    checksum: int  # CRC-32 of all that is not in an array, in order
    arrays: tuple[StoredArray, ...]  # by offset


class ResultData(msgspec.Struct, frozen=True, array_like=True):
    """What an engine found for all rows of a task, packed by the worker and forwarded unread.

    Row r belongs to binding number `binding` + r. An outcome is one row of `outcome_width` bytes,
    little-endian, clbit 0 in bit 0 of byte 0. Rows differ in how many distinct outcomes they have:
    their parts of `outcomes` and `counts` follow one another, as long as `rows` says.
    """

    format: int
    registers: tuple[tuple[str, int], ...]  # of the program; (): it measures nothing
    num_qubits: int
    shots: int  # of each row
    seed: int
    outcome_width: int = 0  # 1, 2, 4, 8, or ceil(clbits / 8) beyond 64 clbits
    outcomes: bytes = b""  # each row's distinct outcomes, ascending
    counts: bytes = b""  # uint32, as many
    # Exact distribution over the clbits, or over the qubits if the circuit measures nothing.
    probability_outcomes: bytes = b""  # as above, of `probability_width` bytes
    probability_width: int = 0
    probabilities: bytes = b""  # float64, as many
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
    options: EngineOptions = ()  # those given; the engine's defaults else


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Who computed a result; shared by all results of one message."""

    worker: str
    node: str
    pid: int
    version: str
    ranks: int = 1


class Timing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Microseconds spent in each stage of one task, as the service and worker measured them."""

    queued_us: int  # accepted -> sent to a worker
    sent_us: int  # at the worker -> begun: behind the others of its chunk
    run_us: int  # in the worker's hands: the four below, and what little is between them
    decode_us: int = 0  # bytes to circuit
    plan_us: int = 0  # finding or making the engine's plan; loading the engine, where it is new
    engine_us: int = 0  # inside the engine: evolving and sampling
    encode_us: int = 0  # result to bytes
    returned_us: int = 0  # the ways there and back, and waiting for the rest of its message


class Event(msgspec.Struct, frozen=True):
    """One line of the environment's history. `seq` grows by one; resume with `since=seq`."""

    seq: int
    time_s: float  # wall clock, seconds since 1970, for display only
    kind: str  # "worker.lost", "task.requeued" ...
    subject: str
    message: str


class WorkerInfo(msgspec.Struct, frozen=True):
    """One resident simulator."""

    name: str
    pool: str
    state: WorkerState
    node: str
    pid: int
    ranks: int
    slots: int  # granted to what it runs now
    task: str  # id of the running task, or ""
    tasks: int  # finished by it
    restarts: int
    memory_bytes: int


class PoolSpec(msgspec.Struct, frozen=True):
    """What was asked for: workers of one kind and size."""

    name: str = "main"
    engine: str = "any"
    min: int = 1
    max: int = 1
    idle_s: float = 60.0  # a worker above `min` ends after so long without work


class PoolInfo(msgspec.Struct, frozen=True):
    """What there is now."""

    name: str
    engine: str
    workers: int  # ready
    target: int  # wanted
    busy: int
    waiting: int
    state: str  # "up", "starting", "degraded", "quarantined"
    reason: str
    backlog_us: float = 0.0  # expected work that waits
    held_us: float = 0.0  # expected work that workers hold


class GateInfo(msgspec.Struct, frozen=True, array_like=True):
    """A gate by its name; `qubits` -1: any number."""

    name: str
    qubits: int
    params: int


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine can do in this environment."""

    name: str
    summary: str
    outputs: tuple[str, ...]
    precisions: tuple[str, ...]
    dynamic: bool  # mid-circuit measurement, reset, if
    clifford: bool  # Clifford circuits alone
    max_qubits: int  # in this environment's memory, double precision
    missing: str  # "" or the line to type to install it
    gates: tuple[GateInfo, ...]


class TaskInfo(msgspec.Struct, frozen=True):
    """A task as `queue` and `status` show it; `reason` says why it waits, or why it failed."""

    id: str
    name: str
    pool: str
    state: TaskState
    attempt: int
    time_s: float  # since accepted; of a final task, until its end
    num_qubits: int
    shots: int
    worker: str
    reason: str
    owner: str = ""  # the name of the key it came with; "": the environment's own user


class ServiceInfo(msgspec.Struct, frozen=True):
    """The `status` screen."""

    name: str
    version: str
    pid: int
    node: str
    epoch: int
    up_s: float
    durability: str
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int
    expired: int
    lost_attempts: int
    unread: int  # completions not yet acknowledged by the slowest cursor
    oldest_s: float
    slots: int
    slots_granted: int
    memory_bytes: int
    max_qubits: int
    rss_bytes: int
    loop_lag_p99_ms: float
    pools: tuple[PoolInfo, ...]
    warnings: tuple[str, ...]
    resumed: str = ""  # from which journal it started, where that had to be said


def digest(data: bytes) -> bytes:
    """BLAKE2b, 16 bytes: the one hash of the house."""
    return hashlib.blake2b(data, digest_size=16).digest()


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no i, l, o, u


def task_name(number: int) -> str:
    """A task's id as people type it: `t-` and the number in base 32."""
    text = ""
    while number or not text:
        number, digit = divmod(number, 32)
        text = _ALPHABET[digit] + text
    return "t-" + text


def task_number(name: str) -> int | None:
    """The number behind an id; None if it is not one."""
    body = name[2:] if name.startswith("t-") else ""
    if not body or len(body) > 13 or any(c not in _ALPHABET for c in body):
        return None
    number = 0
    for c in body:
        number = 32 * number + _ALPHABET.index(c)
    return number if number <= MAX_TASK_NUMBER else None


_ENCODER = msgspec.msgpack.Encoder()
_PROGRAM = msgspec.msgpack.Decoder(Program)


def decode_program(packed: bytes) -> Program:
    """The inverse of `Program.packed`; msgspec.DecodeError on anything else."""
    return _PROGRAM.decode(packed)
