"""A circuit as a table of operations and flat arrays: its encoding and its digests.

Bounds on the length of values from outside, applied while decoding. The bounds stop the decoder
before it builds values that a rule would refuse afterwards. They are wider than the rules, whose
errors name the effective limit. Bytes need no bound of their own: the size of a message is bounded.
"""

from __future__ import annotations

import enum
import hashlib
import re
from functools import cached_property
from typing import Annotated

import msgspec

from simenv.errors import OptionError

Text = Annotated[str, msgspec.Meta(max_length=16_384)]
FEW = msgspec.Meta(max_length=256)  # length of lists of names: outputs, options, preferences


def check_printable(name: str, text: str) -> None:
    """Check a text that other users read. Raises OptionError for control characters, which a
    terminal or a log would obey."""
    if not text.isprintable():
        escaped = text.encode("unicode_escape").decode()[:80]
        hint = "letters, digits, spaces and signs, in any script; no line ends, no escapes"
        raise OptionError(f"{name} '{escaped}' has characters that cannot be printed", hint=hint)


PROGRAM_FORMAT = 1
MAX_QUBITS = 65_535  # qubit numbers are uint16
MAX_CLBITS = 65_535
MAX_VARIABLES = 4096
MAX_ROWS = 65_536  # of any table of a program: operations name their row in 16 bits
MAX_UNITARY_QUBITS = 10  # of one matrix: 16 MiB
MAX_MATRIX_BYTES = 32 * 2**20  # of all matrices of a program
# Name of a classical register that outputs leave out, such as the bits of corrections between QPUs:
# see `simulators.execution.hidden_bits`.
HIDDEN_REGISTER = "simenv_hidden"
_TABLE = msgspec.Meta(max_length=MAX_ROWS)
_CONSTANTS = msgspec.Meta(max_length=2**20)
# Block markers: no qubits, clbits or parameters.
MARKERS = (
    "if", "else", "end", "while", "for", "switch", "case", "default", "break", "continue",
)  # fmt: skip
# Operations that are no gates.
NO_GATES = frozenset(
    {"measure", "reset", "barrier", "delay", "delay_dt", "global_phase", "store", *MARKERS}
)
OWNERS = ("if", "while", "for", "switch", "case", "store")  # each owns one expression, in order


_NAMED_MEASUREMENT = re.compile(r"measure_[A-Za-z0-9_]{1,56}", re.ASCII)


def is_measurement(name: str) -> bool:
    """Return whether an operation is `measure`, or a measurement instruction with a name of its
    own, such as IBM's `measure_2`: one qubit, one clbit, with its own error and duration on devices
    that have it."""
    return name == "measure" or _NAMED_MEASUREMENT.fullmatch(name) is not None


def is_gate(name: str) -> bool:
    """Return whether an operation is a gate."""
    return name not in NO_GATES and not is_measurement(name)


class Program(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, dict=True):
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
    registers: Annotated[tuple[tuple[Text, int], ...], _TABLE]
    names: Annotated[tuple[Text, ...], _TABLE]
    arities: bytes  # uint16 [len(names), 3]: qubits, clbits, parameters
    ops: bytes  # uint16 [operations]
    qubits: bytes  # uint16
    clbits: bytes  # uint16
    params: bytes  # float64, radians (`delay`: ns, `delay_dt`: dt); 0.0 where a slot fills it
    num_slots: int = 0  # number of distinct parameter expressions
    slots: bytes = b""  # int32 [free parameters, 2]: position in `params`, slot number
    conditions: bytes = b""  # int32 [tokens, 3]: postfix (Token, operand, width); END closes each
    # Unsigned, little-endian, any width; VALUE's operand.
    constants: Annotated[tuple[bytes, ...], _CONSTANTS] = ()
    # Width in bits of each classical variable; 0: a Bool.
    variables: Annotated[tuple[int, ...], _TABLE] = ()
    # complex128 [2**q, 2**q], row by row, in Qiskit's order
    matrices: Annotated[tuple[bytes, ...], _TABLE] = ()
    # Name of each row in a noise model of channels: the label of the operation if
    # it has one; "": no channel acts on it; (): the names.
    labels: Annotated[tuple[Text, ...], _TABLE] = ()

    @property
    def noise_names(self) -> tuple[str, ...]:
        """The name of each row in a noise model of channels."""
        return self.labels or self.names

    @property
    def shown_registers(self) -> tuple[tuple[str, int], ...]:
        """The classical registers of outputs: all but the hidden one."""
        return tuple(each for each in self.registers if each[0] != HIDDEN_REGISTER)

    @property
    def measures(self) -> bool:
        """True if an operation of the table is a measurement."""
        return any(map(is_measurement, self.names))

    def packed(self) -> bytes:
        """Return the encoded program, as it is sent and stored."""
        return _ENCODER.encode(self)

    @cached_property
    def structure(self) -> bytes:
        """Digest of the circuit structure, that is of all fields but the parameter values: BLAKE2b,
        16 bytes."""
        fields = msgspec.structs.astuple(self)
        params = self.__struct_fields__.index("params")
        return digest(_ENCODER.encode(fields[:params] + fields[params + 1 :]))

    @property
    def digest(self) -> bytes:
        """Digest of the encoded program: BLAKE2b, 16 bytes."""
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


def digest(data: bytes) -> bytes:
    """Return the BLAKE2b digest of 16 bytes, the hash of all programs."""
    return hashlib.blake2b(data, digest_size=16).digest()


_ENCODER = msgspec.msgpack.Encoder()
_PROGRAM = msgspec.msgpack.Decoder(Program)


class _ProgramWidth(msgspec.Struct, frozen=True, array_like=True):
    """The leading fields of a packed Program, up to `num_qubits`."""

    format: int
    num_qubits: int


class _ProgramQubits(_ProgramWidth, frozen=True, array_like=True):
    """The leading fields of a packed Program, up to `qubits`."""

    num_clbits: int
    registers: msgspec.Raw
    names: msgspec.Raw
    arities: msgspec.Raw
    ops: msgspec.Raw
    qubits: bytes


_WIDTH = msgspec.msgpack.Decoder(_ProgramWidth)
_QUBITS = msgspec.msgpack.Decoder(_ProgramQubits)


def declared_qubits(packed: bytes) -> int:
    """Return the number of qubits of a packed program. Raises DECODE_ERRORS."""
    return _WIDTH.decode(packed).num_qubits


def qubits_of(packed: bytes) -> tuple[int, int]:
    """Return the number of qubits of a packed program, and the number of qubits that its operations
    name. Raises DECODE_ERRORS or TypeError on anything else."""
    head = _QUBITS.decode(packed)
    return head.num_qubits, len(set(memoryview(head.qubits).cast("H")))


def decode_program(packed: bytes) -> Program:
    """Decode the bytes of `Program.packed`. Raises DECODE_ERRORS on anything else."""
    return _PROGRAM.decode(packed)
