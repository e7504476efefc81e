"""Waits for the pairs of links in a circuit: idle times that differ from shot to shot.

A pair is awaited where both qubits of a link that has a rate have a delay, then a reset, and then
the gate that makes the pair. The delay stands for the wait, whatever its length: that of a circuit
compiled for an earlier calibration may differ from the present mean wait. While a qubit is idle
during such a wait, its relaxation is that of the random wait, averaged
(`noise_models.link_waits`); the rest of the schedule is that of the delay. An idle time that has
only a part of the wait has the same part of the random one. Of waits that overlap in an idle time
the last to end counts; one that lies within another begins with it, whether the schedule is as late
or as soon as possible. The two qubits of the link do not age: they are reset when the pair is
there. Inside a block a wait takes its mean time.

The average is taken for each qubit and idle time by itself. In one shot all idle qubits wait for
the same time, which correlates their errors: of two qubits that keep exp(-g W) and exp(-h W), the
mean of the product is neglected beside the product of the means, to second order
g h (standard deviation of W)^2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import LINK_GATE, Link
from simulators.circuit import gates
from simulators.circuit.arrays import Operands
from simulators.circuit.schedule import Schedule
from simulators.errors import Unsupported

_LEAST_NS = 1e-6
_OPENS = (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH)
WaitKey = tuple[tuple[int, float, float], ...]  # number of a link, offset_ns and share of each part


class Awaited(msgspec.Struct, frozen=True):
    """Time in which the pair of a link is awaited, in the schedule of the mean waits."""

    link: int
    pair: tuple[int, int]
    begin_ns: float
    end_ns: float


_Part = tuple[float, float, Awaited]  # begin and end in an idle time, and the wait


def depths(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of blocks around each operation [operations + 1], and around what follows the last;
    that of the head of a block is of the blocks around it."""
    steps = np.isin(codes, _OPENS).astype(np.int64) - (codes == gates.END_BLOCK)
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(steps)))


def awaited(
    operands: Operands,
    start_ns: NDArray[np.float64],
    durations_ns: NDArray[np.float64],
    links: Sequence[Link],
) -> list[Awaited]:
    """Waits of a circuit, in the order of its operations. Raises Unsupported for the gate of a link
    on qubits that were not reset."""
    numbers: dict[tuple[int, ...], int] = {}
    numbers |= {link.pair: number for number, link in enumerate(links)}
    numbers |= {link.pair[::-1]: number for number, link in enumerate(links)}
    ends = np.zeros(int(operands.wires.max(initial=-1)) + 1, np.bool_)
    ends[[qubit for link in links for qubit in link.pair if qubit < ends.size]] = True
    owners = np.repeat(np.arange(operands.codes.size), operands.counts)
    mine = ends[operands.wires] & (operands.codes[owners] != gates.BARRIER)
    inside = depths(operands.codes) > 0
    before: dict[int, list[int]] = defaultdict(list)  # operations on a qubit
    results = []
    for k in dict.fromkeys(owners[mine].tolist()):
        qubits = operands.qubits(k)
        number = numbers.get(qubits) if operands.codes[k] >= gates.UNITARY else None
        if number is not None:
            pasts = [before[qubit][-2:] for qubit in qubits]
            found = _wait(operands, pasts, qubits, durations_ns, links[number])
            if found and not inside[[k, *found]].any():
                end = max(float(start_ns[delay] + durations_ns[delay]) for delay in found)
                begin = end - max(float(durations_ns[delay]) for delay in found)
                results.append(Awaited(number, links[number].pair, begin, end))
        for qubit in qubits:
            before[qubit].append(k)
    return results


def _wait(
    operands: Operands,
    pasts: Sequence[Sequence[int]],
    qubits: tuple[int, ...],
    durations_ns: NDArray[np.float64],
    link: Link,
) -> list[int]:
    """Delays of both qubits that await a pair; [] if they wait for no random time. `pasts`: the
    last two operations on each."""
    for past, qubit in zip(pasts, qubits, strict=True):
        if past and operands.codes[past[-1]] != gates.RESET:
            text = f"{LINK_GATE} on qubits {list(qubits)}, a link, while qubit {qubit} was not"
            hint = "a link makes pairs of two qubits that were reset: reset both right before"
            raise Unsupported(f"{text} reset", hint=hint)
    delays = [past[0] for past in pasts if len(past) == 2]
    if link.rate_hz is None or len(delays) < 2:
        return []
    waits = all(
        operands.codes[k] in (gates.DELAY, gates.DELAY_DT) and durations_ns[k] > _LEAST_NS
        for k in delays
    )
    return delays if waits else []


class IdleWaits(msgspec.Struct, frozen=True, eq=False):
    """Idle times of a circuit during waits."""

    idle_ns: NDArray[np.float64]  # [idle times]: what is left of each outside of waits
    rows: list[tuple[int, int, WaitKey]]  # the operation that each follows, its qubit, the waits


def idle_waits(timing: Schedule, codes: NDArray[np.int64], waits: Iterable[Awaited]) -> IdleWaits:
    """Take the parts during waits out of the idle times of a schedule, in which delays are idle
    times."""
    ends = timing.idle_end_ns
    begins = ends - timing.idle_ns
    outside = depths(codes)[timing.idle_after + 1] == 0
    parts: dict[int, list[_Part]] = defaultdict(list)
    for wait in waits:
        low, high = np.maximum(begins, wait.begin_ns), np.minimum(ends, wait.end_ns)
        for k in np.flatnonzero(outside & (high - low > _LEAST_NS)).tolist():
            parts[k].append((float(low[k]), float(high[k]), wait))
    idle_ns, rows = timing.idle_ns.copy(), []
    for k, own in sorted(parts.items()):
        qubit = int(timing.idle_qubit[k])
        for group in _overlapping(sorted(own, key=lambda part: part[:2])):
            first, until = group[0][0], max(high for _, high, _ in group)
            idle_ns[k] -= until - first
            if any(qubit in wait.pair for _, _, wait in group):
                continue  # of a pair that it will be a half of
            key = tuple(
                (wait.link, _offset(group[:place], part), _share(part[1] - part[0], wait))
                for place, part in enumerate(group)
                for wait in part[2:]
            )
            rows.append((int(timing.idle_after[k]), qubit, key))
    idle_ns[idle_ns < _LEAST_NS] = 0.0
    return IdleWaits(idle_ns, rows)


def _overlapping(parts: Sequence[_Part]) -> Iterable[list[_Part]]:
    """Groups of parts, each of which overlaps one before it."""
    group: list[_Part] = []
    until = 0.0
    for part in parts:
        if group and part[0] > until - _LEAST_NS:
            yield group
            group = []
        until = max(until, part[1]) if group else part[1]
        group.append(part)
    if group:
        yield group


def _offset(before: Sequence[_Part], part: _Part) -> float:
    """Begin of a part after that of the first one; 0.0 for one within the others."""
    if all(part[1] > high + _LEAST_NS for _, high, _ in before):
        return round(part[0] - before[0][0], 6) if before else 0.0
    return 0.0


def _share(length: float, wait: Awaited) -> float:
    """Part of a wait, rounded so that equal parts share a channel."""
    return round(length / (wait.end_ns - wait.begin_ns), 9)
