"""Classical record of a shot: its columns, and what conditions and stores write to them.

A column is a bit: of a clbit or a variable that the circuit writes, or a flag, which says whether a
shot runs a block. An event reads some columns and writes others by a table. Events act in the order
of the circuit wherever one of them reads or writes what the other writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from simulators.circuit import gates
from simulators.circuit.expressions import Expression, expressions_of
from simulators.circuit.ir import Circuit
from simulators.errors import OTHER_ENGINE, Unsupported

MOST_READ = 14  # bits that a condition or a stored value depends on
_MOST_EVALUATED = 2**17  # settings of such bits of a circuit
WORD = 60  # bits of an integer of a table
_OWNERS = (gates.IF, gates.SWITCH, gates.CASE, gates.STORE, gates.WHILE, gates.FOR)
_OPENERS = (gates.IF, gates.SWITCH, gates.WHILE, gates.FOR)


class RecordColumns:
    """Columns of a record, with the layer after whose draws each was last read or written."""

    def __init__(self) -> None:
        self.of_bit: dict[int, int] = {}  # column of each bit of the record that is written
        self._layers: list[int] = []

    @property
    def count(self) -> int:
        return len(self._layers)

    def new(self) -> int:
        self._layers.append(0)
        return len(self._layers) - 1

    def of(self, bit: int) -> int:
        """Column of a bit of the record, which is written."""
        if bit not in self.of_bit:
            self.of_bit[bit] = self.new()
        return self.of_bit[bit]

    def layer(self, column: int) -> int:
        return 0 if column < 0 else self._layers[column]

    def use(self, columns: Iterable[int], layer: int = 0) -> int:
        """Layer after whose draws an event on these columns acts, `layer` at least; -1 is none."""
        used = [column for column in columns if column >= 0]
        layer = max([layer, *(self._layers[column] for column in used)])
        for column in used:
            self._layers[column] = layer
        return layer


class Event(msgspec.Struct, frozen=True, gc=False):
    """Write `table[i]` (bits of `writes`, WORD of them in an integer) if the columns `reads` hold
    the bits of i, in shots whose flag is 1; -1: in all."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    table: tuple[int, ...]
    flag: int

    @property
    def integers(self) -> tuple[int, ...]:
        """The event as the kernel reads it."""
        return len(self.reads), *self.reads, len(self.writes), *self.writes, *self.table


class _Block(msgspec.Struct):
    """Open block: the flag around it, and those of its next branches."""

    outer: int
    flags: list[int]


class Flow:
    """Flag of the operations, while a circuit is read."""

    def __init__(self, circuit: Circuit, columns: RecordColumns) -> None:
        self.flag = -1
        self._evaluated = 0
        self._columns = columns
        self._open: list[_Block] = []
        self._expressions: dict[int, Expression] = {}  # by operation
        self._labels: dict[int, list[tuple[int, ...] | None]] = {}  # of the cases of each switch
        if circuit.conditions_data:
            self._scan(circuit)

    def _scan(self, circuit: Circuit) -> None:
        expressions = iter(expressions_of(circuit))
        stack: list[int] = []
        for k, code in enumerate(circuit.table.rows[circuit.ops, 0].tolist()):
            if code in _OWNERS:
                self._expressions[k] = next(expressions)
            if code == gates.SWITCH:
                self._labels[k] = []
            elif code in (gates.CASE, gates.DEFAULT):
                labels = self._expressions[k].labels if code == gates.CASE else None
                self._labels[stack[-1]].append(labels)
            if code in _OPENERS:
                stack.append(k)
            elif code == gates.END_BLOCK:
                stack.pop()

    def operation(self, place: int, code: int) -> Event | None:
        """Read an operation that is no gate; returns what it writes. Raises Unsupported for loops,
        and for what depends on too many bits."""
        if code == gates.IF:
            flags = [self._columns.new(), self._columns.new()]
            event = self._event(place, flags, lambda value: 1 if value else 2)
            self._open.append(_Block(self.flag, flags))
            self._next()
            return event
        if code == gates.SWITCH:
            labels = self._labels[place]
            chosen: dict[int, int] = {}
            for number, values in enumerate(labels):
                for value in values or ():
                    chosen.setdefault(value, number)
            last = 1 << len(labels) - 1 if labels and labels[-1] is None else 0  # the default
            flags = [self._columns.new() for _ in labels]
            event = self._event(
                place, flags, lambda value: 1 << chosen[value] if value in chosen else last
            )
            self._open.append(_Block(self.flag, flags))
            return event
        if code in (gates.ELSE, gates.CASE, gates.DEFAULT):
            self._next()
        elif code == gates.END_BLOCK:
            self.flag = self._open.pop().outer
        elif code == gates.STORE:
            target = self._expressions[place].target
            assert target is not None  # of a `store`
            first, width = target
            return self._event(place, range(first, first + width), int, stores=True)
        elif code in (gates.WHILE, gates.FOR):
            raise Unsupported("engine 'sweep' has no loops", hint=f"unroll them, or {OTHER_ENGINE}")
        return None

    def _next(self) -> None:
        self.flag = self._open[-1].flags.pop(0)

    def _event(
        self,
        place: int,
        writes: Iterable[int],
        result: Callable[[int], int],
        *,
        stores: bool = False,
    ) -> Event:
        """Event that writes a function of an expression's value to columns, or (`stores`) to bits
        of the record."""
        expression = self._expressions[place]
        known = self._columns.of_bit
        read = [bit for bit in sorted(known) if expression.reads >> bit & 1]  # others are 0
        if len(read) > MOST_READ:
            raise Unsupported(
                f"a condition or stored value that depends on {len(read)} measured bits; engine"
                f" 'sweep' takes {MOST_READ}",
                hint=f"divide it into conditions on fewer bits; {OTHER_ENGINE}",
            )
        self._evaluated += 1 << len(read)
        if self._evaluated > _MOST_EVALUATED:
            raise Unsupported(
                f"conditions and stored values that have more than {_MOST_EVALUATED} settings of"
                " measured bits in all, which engine 'sweep' takes",
                hint=f"divide them into conditions on fewer bits; {OTHER_ENGINE}",
            )
        reads = tuple(known[bit] for bit in read)
        columns = tuple(self._columns.of(bit) for bit in writes) if stores else tuple(writes)
        table: list[int] = []
        for setting in range(1 << len(read)):
            bits = sum((setting >> j & 1) << bit for j, bit in enumerate(read))
            value = result(expression.evaluate(bits))
            for at in range(0, len(columns), WORD):
                table.append(value >> at & (1 << WORD) - 1)
        return Event(reads, columns, tuple(table), self.flag)
