"""Schedule of a circuit on a device: start times, and the idle times of its qubits.

ALAP (as late as possible) and ASAP (as soon as possible) list scheduling over qubits and classical
bits (Murali et al., arXiv 2004.02500, section 2). Barriers and delays count as operations. A block
under a condition is scheduled as one operation on all qubits that it uses: its branches are
scheduled alone, from the block's start; other qubits wait for the longest branch, for all passes of
a `for`, and for one pass of a `while`. A block starts no earlier than the feed-forward latency
after the last measurement whose bit its condition reads; between modules of a device that is the
latency of the links from the bit's module to those of the block's qubits. A bit that one block has
waited for is there for each later one after what is left of its own latency. A qubit is not idle
before its first operation other than a barrier, since it is still being prepared, nor after a final
measurement.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.network import Network
from noise_models.strict_json import NoiseError
from simulators.circuit import gates, ir
from simulators.circuit.analysis.measurements import TERMINAL
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import Circuit, register_starts
from simulators.compiler.kernel import I64, REAL, REALS, device_function, kernel, record
from simulators.errors import Unsupported

Method = Literal["alap", "asap"]
METHODS: tuple[Method, ...] = ("alap", "asap")

_LEAST_NS = 1e-6  # shorter idle times are rounding errors of sums of durations
_DIGITS = 6  # digits of rounded idle times, so that equal ones share a channel
_SCALE = 10.0**_DIGITS
_ACTS, _WAITS, _ENDS = range(3)  # kinds of an item: an operation, a barrier, a measurement


@record
class Schedule(NamedTuple):
    """Start times of operations, and idle times in the order of their operations."""

    start_ns: REALS  # [operations]; inside a block: from the start of its branch
    length_ns: REALS  # [operations]; of the head of a block: that of the block
    idle_after: I64  # [idle times]: the operation right before the end of each
    idle_qubit: I64  # [idle times]
    idle_ns: REALS  # [idle times]
    idle_end_ns: REALS  # [idle times]; inside a block: see `start_ns`
    duration_ns: REAL

    def with_delays(
        self, operations: NDArray[np.int64], qubits: NDArray[np.int64], times: NDArray[np.float64]
    ) -> Schedule:
        """This schedule with the delays, whose qubits and durations are given, as idle times."""
        after = np.concatenate((operations, self.idle_after))
        order = np.argsort(after, kind="stable")
        return self._replace(
            idle_after=after[order],
            idle_qubit=np.concatenate((qubits, self.idle_qubit))[order],
            idle_ns=np.concatenate((times, self.idle_ns))[order],
            idle_end_ns=np.concatenate((self.start_ns[operations] + times, self.idle_end_ns))[
                order
            ],
        )


@device_function
def _place_items(  # type: ignore[no-untyped-def]
    first, wires, duration, kind, late, active, start, idle, end, used
):
    """Fill `start` [items] and `idle` [operands]; returns the end time of the last item. Operands
    of item k: `wires[first[k] : first[k + 1]]`. `late`: as late as possible. `active`: wires are
    idle before their first item as well. `end`, `used` [wires]: at the end of the call the end time
    of a wire's last item, and whether it may idle after that."""
    total = 0.0
    end[:] = 0.0
    count = start.size
    if late:
        for k in range(count - 1, -1, -1):
            at = 0.0
            for j in range(first[k], first[k + 1]):
                at = max(at, end[wires[j]])
            at += duration[k]
            start[k] = at
            total = max(total, at)
            for j in range(first[k], first[k + 1]):
                end[wires[j]] = at
        for k in range(count):
            start[k] = total - start[k]
    else:
        for k in range(count):
            at = 0.0
            for j in range(first[k], first[k + 1]):
                at = max(at, end[wires[j]])
            start[k] = at
            total = max(total, at + duration[k])
            for j in range(first[k], first[k + 1]):
                end[wires[j]] = at + duration[k]
    end[:] = 0.0
    used[:] = active
    for k in range(count):
        for j in range(first[k], first[k + 1]):
            wire = wires[j]
            idle[j] = start[k] - end[wire] if used[wire] else 0.0
            end[wire] = start[k] + duration[k]
            if kind[k] == _ACTS:
                used[wire] = 1
            elif kind[k] == _ENDS:
                used[wire] = 0
    return total


_schedule_items = kernel(
    "I64 I64 REALS I64 INT INT REALS REALS REALS I64 -> REAL", group="attachment"
)(_place_items)


@record
class ScheduledTimes(NamedTuple):
    """What `_schedule_operations` fills, and its scratch memory."""

    start: REALS  # [operations]
    after: I64  # of each idle time [operands + qubits], the operation before its end
    qubit: I64
    idle: REALS
    idle_end: REALS
    total: REALS  # [1]
    end: REALS  # [qubits], scratch
    used: I64  # [qubits], scratch


@kernel("Operands I64 REALS INT ScheduledTimes -> INT", group="attachment")
def _schedule_operations(operands, roles, duration, late, found):  # type: ignore[no-untyped-def]
    """Schedule operations without blocks; returns the number of idle times. `roles`: see
    `classify`."""
    codes, wires, first = operands.codes, operands.wires, operands.first
    start, idle, after = found.start, found.idle, found.after
    for k in range(codes.size):
        after[k] = _WAITS if codes[k] == gates.BARRIER else _ENDS if roles[k] == TERMINAL else _ACTS
    total = _place_items(first, wires, duration, after, late, 0, start, idle, found.end, found.used)
    count = 0
    for k in range(codes.size):
        for j in range(first[k], first[k + 1]):
            if idle[j] > _LEAST_NS:  # writes stay at or before the reads
                idle[count] = np.rint(idle[j] * _SCALE) / _SCALE
                after[count], found.qubit[count], found.idle_end[count] = k - 1, wires[j], start[k]
                count += 1
    for q in range(found.end.size):
        left = total - found.end[q]
        if found.used[q] and left > _LEAST_NS:
            idle[count] = np.rint(left * _SCALE) / _SCALE
            after[count], found.qubit[count], found.idle_end[count] = codes.size - 1, q, total
            count += 1
    found.total[0] = total
    return count


def schedule(
    circuit: Circuit,
    durations_ns: NDArray[np.float64],
    method: Method = "alap",
    *,
    feed_forward_ns: float = 0.0,
    network: Network | None = None,
    roles: NDArray[np.int64] | None = None,
    operands: Operands | None = None,
) -> Schedule:
    """Schedule an admissible circuit. `durations_ns` [operations]; `network`: modules of the
    device; `roles` [operations]: see `classify`, None: no measurement is final; `operands`: if
    known."""
    wiring = Operands.of(circuit) if operands is None else operands
    size, num_qubits = circuit.ops.size, circuit.num_qubits
    if roles is None:
        roles = np.zeros(size, np.int64)
    if circuit.conditions_data:
        kinds = np.where(wiring.codes == gates.BARRIER, _WAITS, _ACTS)
        kinds[roles == TERMINAL] = _ENDS
        latency = feed_forward_ns, network
        return _Blocks(circuit, durations_ns, method, latency, kinds, wiring).schedule()
    room = size + wiring.wires.size + num_qubits
    found = ScheduledTimes(
        np.empty(size), np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room),
        np.empty(room), np.empty(1), np.empty(num_qubits), np.empty(num_qubits, np.int64),
    )  # fmt: skip
    count = _schedule_operations(wiring, roles, durations_ns, int(method == "alap"), found)
    return Schedule(
        found.start, durations_ns, found.after[:count], found.qubit[:count], found.idle[:count],
        found.idle_end[:count], float(found.total[0]),
    )  # fmt: skip


class _Item(msgspec.Struct):
    """An operation, a whole block, or the latency of a classical bit."""

    first: int  # operation, or the head of a block
    wires: list[int]
    duration_ns: float
    kind: int


class _Blocks:
    """Schedule of a circuit with blocks. Wires are its qubits, then its clbits, then its
    variables."""

    def __init__(
        self,
        circuit: Circuit,
        durations_ns: NDArray[np.float64],
        method: Method,
        latency: tuple[float, Network | None],
        kinds: NDArray[np.int64],
        operands: Operands,
    ) -> None:
        self._circuit = circuit
        self._durations = durations_ns.tolist()
        self._late = int(method == "alap")
        self._latency, self._network = latency
        self._kinds = kinds.tolist()
        rows = circuit.table.rows[circuit.ops]
        self._codes = rows[:, 0].tolist()
        clbits, first = np.cumsum(rows[:, 2]), operands.first
        spans = np.column_stack((first[:-1], first[1:], clbits - rows[:, 2], clbits))
        self._wires = [
            circuit.qubits[a:b].tolist() + (circuit.num_qubits + circuit.clbits[c:d]).tolist()
            for a, b, c, d in spans.tolist()
        ]
        self._expressions = _expressions(circuit)
        self._owner = -1  # expressions come in the order of their operations
        self._num_wires = circuit.num_qubits + circuit.num_clbits + len(circuit.variables)
        # Classical wires that were written since a block read them, or are not known everywhere,
        # with the latency that blocks have waited.
        self._fresh: dict[int, float] = {}
        self._origins: dict[int, frozenset[int]] = {}  # modules that a wire's bits come from
        self._start = np.zeros(circuit.ops.size)
        self._idle: list[tuple[int, int, float]] = []
        self._at = 0

    def schedule(self) -> Schedule:
        total, _ = self._body(active=0)
        self._idle.sort(key=lambda row: row[0])
        after, qubit, idle = np.array(self._idle, np.float64).reshape(-1, 3).T
        before = after.astype(np.int64)
        return Schedule(
            self._start, np.array(self._durations), before, qubit.astype(np.int64),
            np.round(idle, _DIGITS), np.append(self._start, total)[before + 1], total,
        )  # fmt: skip

    def _body(self, active: int) -> tuple[float, set[int]]:
        """Schedule operations up to the end of a branch; returns its duration and its wires."""
        items: list[_Item] = []
        while self._at < len(self._codes):
            k = self._at
            code = self._codes[k]
            if code in (gates.ELSE, gates.CASE, gates.DEFAULT, gates.END_BLOCK):
                break
            if code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
                items += self._block()
                continue
            wires = self._wires[k]
            if code == gates.STORE:
                wires, _ = self._expression()
            if code in (gates.MEASURE, gates.STORE):
                self._written(wires)
            items.append(_Item(k, wires, self._durations[k], self._kinds[k]))
            self._at += 1
        return self._place(items, active), {wire for item in items for wire in item.wires}

    def _block(self) -> list[_Item]:
        """Schedule a block as one item, after the latency of the bits that it reads."""
        head, code = self._at, self._codes[self._at]
        reads, values = self._expression()
        waits = {wire: self._fresh.pop(wire) for wire in reads if wire in self._fresh}
        wires, longest = set(reads), 0.0
        self._at += 1
        while self._codes[self._at] != gates.END_BLOCK:
            if self._codes[self._at] in (gates.ELSE, gates.CASE, gates.DEFAULT):
                if self._codes[self._at] == gates.CASE:
                    self._expression()
                self._at += 1
                continue
            length, used = self._body(active=1)
            longest = max(longest, length)
            wires |= used
        self._at += 1
        if code == gates.FOR:
            longest *= values[0]
        self._durations[head] = longest
        items = []
        for wire, waited in waits.items():
            latency = self._latency_ns(wire, wires)
            if latency > waited:
                items.append(_Item(-1, [wire], latency - waited, _ACTS))
            if self._network is not None:  # the bit may be on its way to another module
                self._fresh.setdefault(wire, max(latency, waited))
        return [*items, _Item(head, sorted(wires), longest, _ACTS)]

    def _written(self, wires: list[int]) -> None:
        """Note that a measurement or a `store` writes classical wires."""
        n = self._circuit.num_qubits
        bits = [wire for wire in wires if wire >= n]
        self._fresh.update(dict.fromkeys(bits, 0.0))
        if self._network is not None:
            origins = frozenset(self._network.module[wire] for wire in wires if wire < n)
            known = (self._origins.get(bit, frozenset()) for bit in bits)
            self._origins.update(dict.fromkeys(bits, origins or frozenset().union(*known)))

    def _latency_ns(self, wire: int, wires: set[int]) -> float:
        """Time from the end of the measurement of a bit to a block on these wires."""
        if self._network is None:
            return self._latency
        module = self._network.module
        places = {module[each] for each in wires if each < self._circuit.num_qubits}
        origins = self._origins.get(wire, frozenset())
        try:
            return max(self._network.latency_ns(origins, places), self._latency)
        except NoiseError as error:
            raise Unsupported(error.message, hint=error.hint) from None

    def _expression(self) -> tuple[list[int], tuple[int, ...]]:
        """Wires and constants of the next expression."""
        self._owner += 1
        return self._expressions[self._owner]

    def _place(self, items: list[_Item], active: int) -> float:
        """Set start times and idle times of the items of one branch; returns its duration."""
        first = np.zeros(len(items) + 1, np.int64)
        first[1:] = np.cumsum([len(item.wires) for item in items])
        wires = np.array([wire for item in items for wire in item.wires], np.int64)
        start, idle = np.empty(len(items)), np.empty(wires.size)
        end, used = np.empty(self._num_wires), np.empty(self._num_wires, np.int64)
        total: float = _schedule_items(
            first, wires, np.array([item.duration_ns for item in items], np.float64),
            np.array([item.kind for item in items], np.int64), self._late, active, start, idle, end,
            used,
        )  # fmt: skip
        n = self._circuit.num_qubits
        for k, item in enumerate(items):
            if item.first < 0:
                continue
            self._start[item.first] = start[k]
            for j in range(first[k], first[k + 1]):
                if wires[j] < n and idle[j] > _LEAST_NS:
                    self._idle.append((item.first - 1, int(wires[j]), float(idle[j])))
        own = np.zeros(self._num_wires, np.bool_)
        own[wires] = True
        for qubit in np.flatnonzero(own[:n] & (used[:n] == 1)).tolist():
            if total - end[qubit] > _LEAST_NS:
                self._idle.append((self._at - 1, qubit, float(total - end[qubit])))
        return total


def _expressions(circuit: Circuit) -> list[tuple[list[int], tuple[int, ...]]]:
    """Wires that each expression reads or stores, and its constants."""
    registers = register_starts(circuit).tolist()
    base, variables = circuit.num_qubits, circuit.num_qubits + circuit.num_clbits
    results: list[tuple[list[int], tuple[int, ...]]] = []
    wires: list[int] = []
    values: list[int] = []
    flat = circuit.conditions.tolist()
    for at in range(0, len(flat), 3):
        token, operand = flat[at], flat[at + 1]
        if token == ir.END:
            results.append((sorted(set(wires)), tuple(values)))
            wires, values = [], []
        elif token in (ir.CLBIT, ir.SET_CLBIT):
            wires.append(base + operand)
        elif token in (ir.REGISTER, ir.SET_REGISTER):
            wires += range(base + registers[operand], base + registers[operand + 1])
        elif token in (ir.VARIABLE, ir.SET_VARIABLE):
            wires.append(variables + operand)
        elif token == ir.VALUE:
            values.append(int.from_bytes(circuit.constants[operand], "little"))
    return results
