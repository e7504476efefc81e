"""What a schedule is made of: stretches of gates, and what happens between them."""

from __future__ import annotations

import msgspec

from simulators.circuit.expressions import Expression
from simulators.statevector.dense import Dense
from simulators.statevector.passes import Passes
from simulators.statevector.planning.stretch import Stretch


class Gates(msgspec.Struct, frozen=True, eq=False):
    """Gates without anything between them; `number` counts the stretches of a schedule."""

    number: int
    passes: Passes | Stretch


class Unitary(msgspec.Struct, frozen=True, eq=False):
    """A matrix on some qubits."""

    dense: Dense


class Measure(msgspec.Struct, frozen=True):
    """A measurement that cannot wait for the end."""

    op: int  # its number in the circuit: part of the random key
    qubit: int
    clbit: int
    clear: bool  # the qubit is not used again, and may be put back to |0>


class Reset(msgspec.Struct, frozen=True):
    """A reset that changes something."""

    op: int
    qubit: int


class Store(msgspec.Struct, frozen=True, eq=False):
    """A value to be stored in clbits or a variable."""

    expression: Expression


class If(msgspec.Struct, frozen=True, eq=False):
    """Two blocks and what decides between them."""

    condition: Expression
    then: tuple[Item, ...]
    otherwise: tuple[Item, ...]


class Switch(msgspec.Struct, frozen=True, eq=False):
    """Blocks, and which of them a value means; any other value the last block."""

    target: Expression
    chosen: dict[int, int]  # number of the block
    blocks: tuple[tuple[Item, ...], ...]


class While(msgspec.Struct, frozen=True, eq=False):
    """A block that is repeated as long as the condition holds."""

    condition: Expression
    body: tuple[Item, ...]


class For(msgspec.Struct, frozen=True, eq=False):
    """A block that is repeated so many times."""

    count: int
    body: tuple[Item, ...]


class Break(msgspec.Struct, frozen=True):
    """The end of the innermost loop."""


class Continue(msgspec.Struct, frozen=True):
    """The end of this pass of the innermost loop."""


Item = Gates | Unitary | Measure | Reset | Store | If | Switch | While | For | Break | Continue
