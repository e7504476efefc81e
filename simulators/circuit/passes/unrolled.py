"""Control flow that every engine with conditions runs: `switch` as nested `if`, loops unrolled.

A `switch` becomes a chain of conditions, each in the `else` branch of the one before. A `for` has
a constant number of passes, which are written one after the other. What follows a `break` or a
`continue` moves into the branches that do not jump, so that neither is left. A `while` stays, and
so does a circuit that would become too long or too deeply nested. Noise keeps its places: channels
after an operation follow each of its copies.

Only for circuits that `admission.validation_error` admitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import card
from simulators.circuit import gates, ir
from simulators.circuit.gates import BREAK, CASE, CONTINUE, DEFAULT, ELSE, END_BLOCK, FOR, SWITCH
from simulators.circuit.ir import Circuit, CircuitData
from simulators.circuit.noise import AFTER_OP, NoiseProgram

MOST_OPERATIONS = 1 << 13  # of a circuit that is written out: the event loop waits for it
_OPENERS = (gates.IF, gates.WHILE, FOR, SWITCH)
_OWNERS = (*_OPENERS, CASE, gates.STORE)  # each has one expression, in order
_MARKERS = ("if", "else", "end")
Token = tuple[int, int, int]
_Tokens = tuple[Token, ...]


class _Operation(msgspec.Struct, frozen=True):
    place: int
    code: int
    tokens: _Tokens = ()


class _Branch(msgspec.Struct, frozen=True):
    place: int  # the head of the block, or ELSE, CASE, DEFAULT
    code: int
    labels: _Tokens
    nodes: list[_Node]


class _Block(msgspec.Struct, frozen=True):
    code: int
    tokens: _Tokens
    branches: list[_Branch]
    end: int
    jumps: bool  # has a `break` or a `continue` of a loop around it


class _Joined(msgspec.Struct, frozen=True):
    """The end of a block whose rest moved into its branches."""

    end: int


_Node = _Operation | _Block | _Joined


class _TooLong(Exception):
    """The circuit would become too long, or too deeply nested."""


def for_engine(
    circuit: Circuit, noise: NoiseProgram | None, engine: str
) -> tuple[Circuit, NoiseProgram | None]:
    """Circuit and noise for an engine by name: unrolled if its card lacks loops or `switch`."""
    if not circuit.conditions_data:
        return circuit, noise
    found = card(engine)
    if found is None or (found.control.loops and found.control.switches):
        return circuit, noise
    return unrolled(circuit, noise)


def unrolled(
    circuit: Circuit, noise: NoiseProgram | None = None
) -> tuple[Circuit, NoiseProgram | None]:
    """The circuit without `switch` and `for`, and its noise; both as they are if it has neither,
    or is too long, or has noise that is not located after operations alone."""
    codes = circuit.table.rows[circuit.ops, 0]
    if not np.isin(codes, (FOR, SWITCH)).any():
        return circuit, noise
    if noise is not None and (noise.leakage is not None or noise.detunings is not None):
        return circuit, noise
    try:
        written = _Writer(circuit, noise)
        written.nodes(_Reader(circuit).nodes())
    except _TooLong:
        return circuit, noise
    return written.circuit(), written.noise()


def blocks_left(circuit: Circuit) -> int:
    """Number of loops and `switch` of a circuit, which engines without them refuse."""
    codes = circuit.table.rows[circuit.ops, 0]
    return int(np.isin(codes, (gates.WHILE, FOR, SWITCH)).sum())


class _Reader:
    """Blocks of a circuit as a tree."""

    def __init__(self, circuit: Circuit) -> None:
        self._codes = circuit.table.rows[circuit.ops, 0].tolist()
        expressions: list[list[Token]] = [[]]
        for token, operand, width in circuit.conditions.reshape(-1, 3).tolist():
            if token == ir.END:
                expressions.append([])
            else:
                expressions[-1].append((token, operand, width))
        self._expressions = map(tuple, expressions)
        self._at = 0

    def nodes(self) -> list[_Node]:
        """Operations up to the end of the branch."""
        results: list[_Node] = []
        while self._at < len(self._codes):
            code = self._codes[self._at]
            if code in (ELSE, CASE, DEFAULT, END_BLOCK):
                break
            if code in _OPENERS:
                results.append(self._block())
                continue
            tokens = next(self._expressions) if code in _OWNERS else ()
            results.append(_Operation(self._at, code, tokens))
            self._at += 1
        return results

    def _block(self) -> _Block:
        code, tokens, branches = self._codes[self._at], next(self._expressions), list[_Branch]()
        while self._codes[self._at] != END_BLOCK:
            place, kind = self._at, self._codes[self._at]
            self._at += 1
            labels = next(self._expressions) if kind == CASE else ()
            branches.append(_Branch(place, kind, labels, self.nodes()))
        end, self._at = self._at, self._at + 1
        jumps = code in (gates.IF, SWITCH) and any(map(_jumps, (b.nodes for b in branches)))
        return _Block(code, tokens, branches, end, jumps)


def _jumps(nodes: Sequence[_Node]) -> bool:
    return any(
        node.jumps if isinstance(node, _Block) else node.code in (BREAK, CONTINUE)
        for node in nodes
        if not isinstance(node, _Joined)
    )


_Rest = Callable[[], None]


class _Writer:
    def __init__(self, circuit: Circuit, noise: NoiseProgram | None) -> None:
        self._circuit, self._noise = circuit, noise
        table = circuit.table
        self._names = list(table.names)
        self._row = {}
        for name in _MARKERS:
            if name not in self._names:
                self._names.append(name)
            self._row[name] = self._names.index(name)
        rows = table.rows[circuit.ops]
        ends = np.cumsum(rows[:, 1:4], axis=0)
        self._spans = np.stack((ends - rows[:, 1:4], ends), axis=2)  # [operations, 3, 2]
        self._ops: list[int] = []
        self._origin: list[int] = []  # operation of the circuit; -1: a marker
        self._tokens: list[Token] = []
        self._after: list[tuple[int, int]] = [(-1, -1)]  # operation, and that of the circuit
        self._depth = self._steps = 0

    def nodes(self, nodes: Sequence[_Node], rest: _Rest | None = None) -> None:
        """Write nodes. `rest`: the other passes of the loop around them, which a jump leaves out or
        begins at once; None: they are in no loop that is written out."""
        self._steps += 1  # also those that write nothing, such as passes of an empty loop
        if self._steps > MOST_OPERATIONS:
            raise _TooLong
        for k, node in enumerate(nodes):
            if isinstance(node, _Joined):
                self._note(node.end)
            elif isinstance(node, _Block):
                if rest is not None and node.jumps:
                    self._if(node, [_Joined(node.end), *nodes[k + 1 :]], rest)
                    return
                self._block(node)
            elif rest is not None and node.code == BREAK:
                return
            elif rest is not None and node.code == CONTINUE:
                break
            else:
                self._operation(node)
        if rest is not None:
            rest()

    def _block(self, block: _Block) -> None:
        if block.code == FOR:
            (_, constant, _), (body,) = block.tokens[0], block.branches
            count = int.from_bytes(self._circuit.constants[constant], "little")
            self._passes(body, count)
            self._note(block.end)
        elif block.code == gates.WHILE:
            self._opened(self._head(block), block.tokens)
            self._note(block.branches[0].place)
            self.nodes(block.branches[0].nodes)
            self._closed()
            self._note(block.end)
        else:
            self._if(block, [], None)
            self._note(block.end)

    def _passes(self, body: _Branch, left: int) -> None:
        """Write the passes of a loop one after the other."""
        if not _jumps(body.nodes):
            for _ in range(left):
                self._note(body.place)
                self.nodes(body.nodes)
                if not body.nodes:
                    break
        elif left > ir.MAX_NESTING:
            raise _TooLong
        elif left:
            self._note(body.place)
            self.nodes(body.nodes, lambda: self._passes(body, left - 1))

    def _if(self, block: _Block, more: list[_Node], rest: _Rest | None) -> None:
        """Write an `if` or a `switch`. `more`: nodes that follow each branch."""
        cases = [(block.branches[0], block.tokens)]
        if block.code == SWITCH:
            cases = [
                (each, _equal_to(block.tokens, each.labels))
                for each in block.branches
                if each.code == CASE
            ]
        others = [each for each in block.branches if each.code in (ELSE, DEFAULT)]
        for number, (branch, condition) in enumerate(cases):
            if number:
                self._marker("else")
            self._opened(self._row["if"], condition)
            self._note(branch.place)
            self.nodes([*branch.nodes, *more], rest)
        if cases and (others or more or rest is not None):
            self._marker("else")
        for branch in others:
            self._note(branch.place)
        self.nodes([node for branch in others for node in branch.nodes] + more, rest)
        for _ in cases:
            self._closed()

    def _head(self, block: _Block) -> int:
        return int(self._circuit.ops[block.branches[0].place])

    def _operation(self, node: _Operation) -> None:
        self._add(int(self._circuit.ops[node.place]), node.place)
        self._write_tokens(node.tokens)
        self._note(node.place)

    def _opened(self, row: int, tokens: _Tokens) -> None:
        self._depth += 1
        if self._depth > ir.MAX_NESTING:
            raise _TooLong
        self._add(row, -1)
        self._write_tokens(tokens)

    def _closed(self) -> None:
        self._depth -= 1
        self._marker("end")

    def _marker(self, name: str) -> None:
        self._add(self._row[name], -1)

    def _add(self, row: int, place: int) -> None:
        if len(self._ops) >= MOST_OPERATIONS:
            raise _TooLong
        self._ops.append(row)
        self._origin.append(place)

    def _write_tokens(self, tokens: _Tokens) -> None:
        if tokens:
            self._tokens += [*tokens, (ir.END, 0, 0)]

    def _note(self, place: int) -> None:
        """The channels after an operation of the circuit act here."""
        if self._noise is not None:
            self._after.append((len(self._ops) - 1, place))

    def circuit(self) -> Circuit:
        circuit, table = self._circuit, self._circuit.table
        added = len(self._names) - len(table.names)
        arities = np.concatenate((table.rows[:, 1:4], np.zeros((added, 3), np.int64)))
        places = [k for k in self._origin if k >= 0]
        spans = self._spans[places]
        qubits, clbits, params = (_flat(spans[:, kind]) for kind in range(3))
        slots = circuit.slots.reshape(-1, 2)
        slot_of = np.full(circuit.params.size, -1)
        slot_of[slots[:, 0]] = slots[:, 1]
        own = slot_of[params]
        free = np.flatnonzero(own >= 0)
        return CircuitData(
            circuit.num_qubits, circuit.num_clbits, circuit.registers, tuple(self._names),
            arities.astype(np.uint16).tobytes(), np.array(self._ops, np.uint16).tobytes(),
            circuit.qubits[qubits].tobytes(), circuit.clbits[clbits].tobytes(),
            circuit.params[params].tobytes(), circuit.num_slots,
            np.stack((free, own[free]), axis=1).astype(np.int32).tobytes(),
            np.array(self._tokens, np.int32).tobytes(), circuit.constants, circuit.variables,
            circuit.matrices, (*circuit.labels, *[""] * added) if circuit.labels else (),
        ).circuit()  # fmt: skip

    def noise(self) -> NoiseProgram | None:
        noise = self._noise
        if noise is None:
            return None
        size = self._circuit.ops.size
        ends = np.searchsorted(noise.locations[:, AFTER_OP], np.arange(-1, size + 1))
        places = np.array([place for _, place in self._after])
        chosen = _flat(np.stack((ends[places + 1], ends[places + 2]), axis=1))
        counts = ends[places + 2] - ends[places + 1]
        locations = noise.locations[chosen].copy()
        locations[:, AFTER_OP] = np.repeat([after for after, _ in self._after], counts)
        readout = noise.readout
        if readout is not None and readout.own:
            own = {k: readout.own[p] for k, p in enumerate(self._origin) if p in readout.own}
            readout = msgspec.structs.replace(readout, own=own)
        digest = hashlib.blake2b(noise.digest + b"unrolled", digest_size=32).digest()
        return msgspec.structs.replace(noise, digest=digest, locations=locations, readout=readout)


def _equal_to(target: _Tokens, labels: _Tokens) -> _Tokens:
    """Whether a target has one of some values."""
    result: list[Token] = []
    for number, label in enumerate(labels):
        result += [*target, label, (ir.EQUAL, 0, 0)]
        if number:
            result.append((ir.LOGIC_OR, 0, 0))
    return tuple(result)


def _flat(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers within spans [n, 2], one span after the other."""
    sizes = spans[:, 1] - spans[:, 0]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    result: NDArray[np.int64] = np.repeat(spans[:, 0], sizes) + within
    return result
