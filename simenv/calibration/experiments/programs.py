"""Circuits of characterization experiments: benchmarking, coherence and readout.

Circuits are flat arrays, built without a circuit object. A circuit is a list of pieces, one for
each qubit or pair that is measured (`CircuitPiece`). Pieces have no common operation, so they run
at the same time.

A sequence of randomized benchmarking, standard, interleaved or simultaneous, has random Clifford
elements, then the inverse of their product. Sequences are spread evenly over the basis states: X
gates on the first qubits are part of the first element, and the outcome that counts as survival is
the basis state. So the mean survival decays to exactly 1/d, whatever the readout error (Harper et
al., Phys. Rev. A 99, 052350). Elements of a pair are synchronized by barriers, so that an
interleaved gate changes no idle time (Magesan et al., Phys. Rev. Lett. 109, 080505).

Signals of relaxation, dephasing, ZZ interaction and readout are differences of two arms, in which
the offset of the decay cancels: preparation with and without a half turn for T1 and readout, and
two phases of the last quarter turn otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments import amplification, clifford
from simenv.model.link_use import LINK_GATE
from simenv.model.program import PROGRAM_FORMAT, Program

# Rows of the operation table, the same in all circuits.
Z, QUARTER, HALF, ENTANGLER, BARRIER, DELAY, MEASURE, RESET, LINK = range(9)


class CircuitPiece(msgspec.Struct, frozen=True, eq=False):
    """Operations on one qubit or pair; its qubits are numbered 0 and 1 until it is placed."""

    rows: NDArray[np.uint16]  # [operations]
    qubits: NDArray[np.int64]  # [operands]
    params: NDArray[np.float64]


class PlacedPiece(msgspec.Struct, frozen=True, eq=False):
    """A piece on qubits of the device. The first ones are measured at its end."""

    qubits: tuple[int, ...]
    piece: CircuitPiece
    measured: int = 0  # number of measured qubits; 0: all
    recorded: bool = False  # its measurement inside the circuit has a clbit after these

    @property
    def measured_qubits(self) -> tuple[int, ...]:
        """Qubits that are measured."""
        return self.qubits[: self.measured or None]


class NativeGateRows:
    """Native gates of a device as rows of the operation table."""

    def __init__(self, gates: clifford.NativeSet) -> None:
        half = gates.half or clifford.NativeOperation("x")
        entangler = gates.entangler or clifford.NativeOperation("cz")
        self.gates = gates
        self._named = {QUARTER: gates.quarter, HALF: half, ENTANGLER: entangler}
        self.names = (
            gates.z, gates.quarter.name, half.name, entangler.name, "barrier", "delay", "measure",
        )  # fmt: skip
        self.arities = np.array(
            [
                (1, 0, 1),
                (1, 0, len(gates.quarter.params)),
                (1, 0, len(half.params)),
                (2, 0, len(entangler.params)),
                (2, 0, 0),
                (1, 0, 1),
                (1, 1, 0),
            ],
            np.uint16,
        )
        self._groups: dict[int, _CliffordWords] = {}

    def z(self, angle_rad: float, qubit: int = 0) -> CircuitPiece:
        """Rotation about Z."""
        return _piece(Z, (qubit,), (angle_rad,))

    def quarter(self, qubit: int = 0) -> CircuitPiece:
        """Quarter turn about X."""
        return _piece(QUARTER, (qubit,), self._named[QUARTER].params)

    def half(self, qubit: int = 0) -> CircuitPiece:
        """Half turn about X; two quarter turns if the device has no half turn."""
        if self.gates.half is None:
            return joined([self.quarter(qubit), self.quarter(qubit)])
        return _piece(HALF, (qubit,), self._named[HALF].params)

    def entangler(self, first: int = 0) -> CircuitPiece:
        """The entangling gate on two qubits, a number and the next one."""
        return _piece(ENTANGLER, (first, first + 1), self._named[ENTANGLER].params)

    def barrier(self, second: int = 1) -> CircuitPiece:
        """Synchronization of the first qubit and another one."""
        return _piece(BARRIER, (0, second), ())

    def measurement(self, qubit: int = 0) -> CircuitPiece:
        """Measurement inside a circuit, whose outcome is left out of the counts."""
        return _piece(MEASURE, (qubit,), ())

    def reset(self, qubit: int = 0) -> CircuitPiece:
        """Reset to |0>."""
        return _piece(RESET, (qubit,), ())

    def bell_pair(self) -> CircuitPiece:
        """The state |00> + |11> of the ends of a link, after a reset of both."""
        made = _piece(LINK, (0, 1), (math.pi / 2.0,))
        return joined([self.reset(0), self.reset(1), made, self.z(math.pi / 2.0)])

    def delay(self, duration_ns: float, qubit: int = 0) -> CircuitPiece:
        """Idle time."""
        return _piece(DELAY, (qubit,), (duration_ns,))

    def sequences(
        self, group: clifford.CliffordGroup, elements: NDArray[np.int32], *, sync: bool
    ) -> CircuitPiece:
        """Group elements one after another; the number after the last element is the interleaved
        gate. `sync`: a barrier follows each."""
        key = 2 * group.num_qubits + sync
        if key not in self._groups:
            gate = ("half" if group.num_qubits == 1 else "entangler", 0, 0)
            self._groups[key] = _CliffordWords(
                [*group.sequences, (gate,)], self._steps(), sync=sync
            )
        return self._groups[key].piece(elements)

    def _steps(self) -> dict[clifford.Step, CircuitPiece]:
        entries = {
            ("z", qubit, turns): self.z(turns * math.pi / 2.0, qubit)
            for qubit in range(2)
            for turns in range(1, 4)
        }
        entries |= {("quarter", qubit, 0): self.quarter(qubit) for qubit in range(2)}
        return entries | {("entangler", 0, 0): self.entangler(), ("half", 0, 0): self.half()}

    def program(self, placed: Sequence[PlacedPiece], num_qubits: int) -> Program:
        """Build one circuit. Clbits are numbered in the order of the pieces and their qubits; after
        them, each piece with measurements inside that are not recorded has one for these."""
        measured = [qubit for each in placed for qubit in each.measured_qubits]
        qubits = [np.array(each.qubits)[each.piece.qubits] for each in placed]
        rows = [each.piece.rows for each in placed]
        params = [each.piece.params for each in placed]
        inside: list[int] = []
        ends: list[int] = []
        num_clbits = sum(len(each.measured_qubits) + each.recorded for each in placed)
        clbit = 0
        for each in placed:
            ends += range(clbit, clbit + len(each.measured_qubits))
            clbit += len(each.measured_qubits) + each.recorded
            count = int(np.count_nonzero(each.piece.rows == MEASURE))
            inside += [clbit - 1 if each.recorded else num_clbits] * count
            num_clbits += count > 0 and not each.recorded
        rows.append(np.full(len(measured), MEASURE, np.uint16))
        ops = np.concatenate(rows).astype(np.uint16)
        names: tuple[str, ...] = self.names
        arities = self.arities
        if (ops >= RESET).any():  # a device may have none
            names, arities = (*names, "reset"), np.vstack((arities, (1, 0, 0))).astype(np.uint16)
        if (ops == LINK).any():
            names, arities = (*names, LINK_GATE), np.vstack((arities, (2, 0, 1))).astype(np.uint16)
        return Program(
            format=PROGRAM_FORMAT,
            num_qubits=num_qubits,
            num_clbits=num_clbits,
            registers=(("c", num_clbits),),
            names=names,
            arities=arities.tobytes(),
            ops=ops.tobytes(),
            qubits=np.concatenate([*qubits, measured]).astype(np.uint16).tobytes(),
            clbits=np.array([*inside, *ends], np.uint16).tobytes(),
            params=np.concatenate([*params, []]).astype(np.float64).tobytes(),
        )


def joined(pieces: Sequence[CircuitPiece]) -> CircuitPiece:
    """Pieces one after another on the same qubits."""
    return CircuitPiece(
        np.concatenate([_EMPTY.rows, *(each.rows for each in pieces)]),
        np.concatenate([_EMPTY.qubits, *(each.qubits for each in pieces)]),
        np.concatenate([_EMPTY.params, *(each.params for each in pieces)]),
    )


def _piece(row: int, qubits: tuple[int, ...], params: tuple[float, ...]) -> CircuitPiece:
    return CircuitPiece(
        np.array([row], np.uint16), np.array(qubits, np.int64), np.array(params, np.float64)
    )


_EMPTY = CircuitPiece(np.zeros(0, np.uint16), np.zeros(0, np.int64), np.zeros(0))


class _CliffordWords:
    """Pieces of all elements of a group, concatenated for fast look-up of sequences."""

    def __init__(
        self,
        gate_words: Sequence[Sequence[clifford.Step]],
        steps: Mapping[clifford.Step, CircuitPiece],
        *,
        sync: bool,
    ) -> None:
        barrier = ((BARRIER,), (0, 1), ()) if sync else ((), (), ())
        parts = {
            step: (each.rows.tolist(), each.qubits.tolist(), each.params.tolist())
            for step, each in steps.items()
        }
        columns: list[list[list[float]]] = [[], [], []]
        for word in gate_words:
            for number, column in enumerate(columns):
                column.append(
                    [value for step in word for value in parts[step][number]]
                    + list(barrier[number])
                )
        self._rows = _RaggedArrays(columns[0], np.dtype(np.uint16))
        self._qubits = _RaggedArrays(columns[1], np.dtype(np.int64))
        self._params = _RaggedArrays(columns[2], np.dtype(np.float64))

    def piece(self, elements: NDArray[np.int32]) -> CircuitPiece:
        """Pieces of these elements, one after another."""
        return CircuitPiece(
            self._rows.taken(elements), self._qubits.taken(elements), self._params.taken(elements)
        )


class _RaggedArrays:
    """Arrays of different lengths, stored in one."""

    def __init__(self, lists: Sequence[Sequence[float]], dtype: np.dtype[Any]) -> None:
        self._sizes = np.array([len(values) for values in lists])
        self._begins = np.cumsum(self._sizes) - self._sizes
        self._values = np.fromiter(chain.from_iterable(lists), dtype)

    def taken(self, indices: NDArray[np.int32]) -> NDArray[Any]:
        """Arrays of these numbers, concatenated."""
        sizes = self._sizes[indices]
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if ends.size else 0
        offsets = np.repeat(self._begins[indices] - (ends - sizes), sizes)
        return np.asarray(self._values[np.arange(total) + offsets])


def sequence(
    alphabet: NativeGateRows,
    group: clifford.CliffordGroup,
    length: int,
    flips: int,
    rng: np.random.Generator,
    *,
    interleaved: bool = False,
) -> CircuitPiece:
    """`length` random elements and their inverse, from the basis state `flips` back to it.
    `interleaved`: the entangling gate (with one qubit: the half turn) follows each random
    element."""
    elements = rng.integers(len(group.sequences), size=length, dtype=np.int32)
    images = group.images[elements]
    if interleaved:
        gate = _interleaved_gate(alphabet, group)
        images = clifford.compose(images, np.broadcast_to(gate, images.shape))
    closing = group.find(clifford.inverse(product(images))[None])
    elements[:1] = _after_flips(group, elements[:1], flips)
    sync = group.num_qubits == 2
    if interleaved:
        elements = np.repeat(elements, 2)
        elements[1::2] = len(group.sequences)
    return alphabet.sequences(group, np.concatenate([elements, closing]), sync=sync)


def _after_flips(
    group: clifford.CliffordGroup, elements: NDArray[np.int32], flips: int
) -> NDArray[np.int32]:
    """Elements that act like these after X on the qubits of a mask."""
    images = group.images[elements]
    return group.find(clifford.compose(np.broadcast_to(group.pauli_x(flips), images.shape), images))


def _interleaved_gate(alphabet: NativeGateRows, group: clifford.CliffordGroup) -> NDArray[np.uint8]:
    entangler = alphabet.gates.entangler
    if group.num_qubits == 2 and entangler is not None:
        return clifford.conjugation(clifford.entangler_matrix(entangler))
    return clifford.conjugation(clifford.x_turn(2))


def product(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images under the product of all elements [length, 4^n], by halving."""
    while len(images) > 1:
        if len(images) % 2:
            identity = np.arange(images.shape[1], dtype=np.uint8)[None]
            images = np.concatenate([images, identity])
        images = clifford.compose(images[0::2], images[1::2])
    if not len(images):
        return np.arange(images.shape[1], dtype=np.uint8)
    return np.asarray(images[0])


def simultaneous(
    alphabet: NativeGateRows,
    group: clifford.CliffordGroup,
    length: int,
    flips: int,
    rng: np.random.Generator,
) -> CircuitPiece:
    """One-qubit sequences on both qubits of a pair at the same time (Gambetta et al., Phys. Rev.
    Lett. 109, 240504). `group`: of two qubits, whose first 576 elements are local."""
    group_1q = clifford.one_qubit_group()
    elements = rng.integers(24, size=(2, length), dtype=np.int32)
    closing = [
        group_1q.find(clifford.inverse(product(group_1q.images[row]))[None]) for row in elements
    ]
    for k in range(2):
        elements[k, :1] = _after_flips(group_1q, elements[k, :1], flips >> k & 1)
    first, second = np.concatenate([elements, closing], axis=1)
    return alphabet.sequences(group, second * np.int32(24) + first, sync=False)


# By duration in ns and number of the arm.
Arm = Callable[[NativeGateRows, float, int], CircuitPiece]


def relaxation(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Inversion recovery; arm 1 begins in |1>."""
    prepared = [alphabet.half()] if arm else []
    return joined([*prepared, alphabet.delay(duration_ns)])


def echo(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Hahn echo over two halves of the duration; arms end in |0> and |1> without noise."""
    half = alphabet.delay(duration_ns / 2.0)
    return joined(
        [
            alphabet.quarter(), half, alphabet.half(), half,
            alphabet.z(math.pi * arm), alphabet.quarter(),
        ]
    )  # fmt: skip


def ramsey(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Ramsey sequence with the phase arm * pi / 2 before the last quarter turn."""
    return joined(
        [
            alphabet.quarter(), alphabet.delay(duration_ns),
            alphabet.z(math.pi / 2.0 * arm), alphabet.quarter(),
        ]
    )  # fmt: skip


def conditional_ramsey(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Ramsey sequence on qubit 0 while qubit 1 is in |0> (arms 0-3) or |1> (arms 4-7). The
    difference of both frequencies is the ZZ interaction (Takita et al., Phys. Rev. Lett. 119,
    180501, supplement)."""
    prepared = [alphabet.half(1)] if arm >= 4 else []
    return joined(
        [
            *prepared, alphabet.quarter(), alphabet.barrier(),
            alphabet.delay(duration_ns), alphabet.delay(duration_ns, 1), alphabet.barrier(),
            alphabet.z(math.pi / 2.0 * (arm % 4)), alphabet.quarter(),
        ]
    )  # fmt: skip


def layers(
    alphabet: NativeGateRows, number: int, duration_ns: float, *, gates: bool, arm: int
) -> CircuitPiece:
    """Ramsey sequence on qubit 0 while qubits 1 and 2 have a number of entangling gates, or,
    without `gates`, during a delay as long as these; arms end in |0> and |1> without noise."""
    waiting = [alphabet.delay(number * duration_ns)]
    if gates:
        together = [alphabet.barrier(1), alphabet.barrier(2)]
        waiting = [*together, *[alphabet.entangler(1)] * number, *together]
    return joined(
        [alphabet.quarter(), *waiting, alphabet.z(math.pi * (1 - arm)), alphabet.quarter()]
    )


def measured(
    alphabet: NativeGateRows, number: int, duration_ns: float, *, gates: bool, arm: int
) -> CircuitPiece:
    """Ramsey sequence with the phase arm * pi / 2 on qubit 0, while qubit 1 is measured a number of
    times, or, without `gates`, during a delay as long as that. A gate after the measurements keeps
    them inside the circuit."""
    waiting = [alphabet.delay(number * duration_ns)]
    if gates:
        together = alphabet.barrier()
        inside = [alphabet.measurement(1)] * number
        waiting = [together, *inside, alphabet.quarter(1), together]
    turned = alphabet.z(math.pi / 2.0 * arm)
    return joined([alphabet.quarter(), *waiting, turned, alphabet.quarter()])


def measured_twice(alphabet: NativeGateRows, _duration_ns: float, arm: int) -> CircuitPiece:
    """Measurement of |0>, or of |1> (arm 1), before the one that counts."""
    return joined([*([alphabet.half()] if arm else []), alphabet.measurement()])


def populations(alphabet: NativeGateRows, duration_ns: float, arm: int) -> CircuitPiece:
    """Measurement twice of |0>, of |1> (arm 1), of |1> after a reset (arm 2), and of |0> after a
    delay (arm 3)."""
    prepared = [alphabet.half()] if arm in (1, 2) else []
    if arm == 2:
        prepared.append(alphabet.reset())
    if arm == 3:
        prepared.append(alphabet.delay(duration_ns))
    return joined([*prepared, alphabet.measurement()])


def rotations(alphabet: NativeGateRows, number: float, arm: int) -> CircuitPiece:
    """Ramsey sequence with a number of entangling gates between its quarter turns, with the phase
    (arm mod 4) * pi / 2: on qubit 0 (arms 0-7) or 1 (arms 8-15), while the other one is in |0> or
    |1> (arms 4-7 and 12-15). Arms from 16 on: the same for each other sequence of
    `amplification.sequences`, which the gates are part of."""
    assert alphabet.gates.entangler is not None
    kind, arm = divmod(arm, 16)
    target = arm // 8
    prepared = [alphabet.half(1 - target)] if arm % 8 >= 4 else []
    turn = alphabet.quarter(target)
    steps = amplification.sequences(alphabet.gates.entangler)[kind]
    gates = [joined([_step(alphabet, each) for each in steps])]
    gates *= round(number) // amplification.GATES
    phase = alphabet.z(math.pi / 2.0 * (arm % 4), target)
    return joined([*prepared, turn, alphabet.barrier(), *gates, alphabet.barrier(), phase, turn])


def _step(alphabet: NativeGateRows, step: clifford.Step) -> CircuitPiece:
    kind, qubit, turns = step
    if kind == "entangler":
        return alphabet.entangler()
    if kind == "quarter":
        return alphabet.quarter(qubit)
    if kind == "z":
        return alphabet.z(turns * math.pi / 2.0, qubit)
    around = [alphabet.z(math.pi, qubit)] * turns
    return joined([*around, alphabet.half(qubit), *around])


def turns(alphabet: NativeGateRows, number: float, arm: int) -> CircuitPiece:
    """A number of quarter turns that is the identity, in which their errors add up, then a quarter
    turn in one direction or (odd arms) the other. Arms 0 and 1: all in one direction, whose
    over-rotations add up. Arms 2 and 3: in both directions by turns, whose rotations about Y and Z
    add up; only their difference is one, as a turn about Z around each gate is none."""
    pair = [alphabet.quarter()] * 2
    if arm >= 2:
        pair = [alphabet.quarter(), alphabet.z(math.pi), alphabet.quarter(), alphabet.z(math.pi)]
    gates = [joined(pair)] * (round(number) // 2)
    read = math.pi / 2.0 * (arm // 2) + math.pi * (arm % 2)
    return joined([*gates, alphabet.z(read), alphabet.quarter()])


def half_turns(alphabet: NativeGateRows, number: float, arm: int) -> CircuitPiece:
    """An even number of half turns, whose over-rotations add up, then a quarter turn in one
    direction or (arm 1) the other."""
    gates = [alphabet.half()] * round(number)
    return joined([*gates, alphabet.z(math.pi * arm), alphabet.quarter()])


def waiting(
    alphabet: NativeGateRows, number: int, duration_ns: float, *, gates: bool, arm: int
) -> CircuitPiece:
    """Relaxation of qubit 0 from |0>, or from |1> (arm 1), while qubits 1 and 2 have a number of
    entangling gates, or, without `gates`, during a delay as long as these."""
    together = [alphabet.barrier(1), alphabet.barrier(2)]
    operations = [*together, *[alphabet.entangler(1)] * number, *together]
    if not gates:
        operations = [alphabet.delay(number * duration_ns)]
    return joined([*([alphabet.half()] if arm else []), *operations])


def waiting_for_turns(
    alphabet: NativeGateRows, number: int, duration_ns: float, *, gates: bool, arm: int
) -> CircuitPiece:
    """The same while qubit 1 has quarter turns."""
    operations = [alphabet.barrier(), *[alphabet.quarter(1)] * number, alphabet.barrier()]
    if not gates:
        operations = [alphabet.delay(number * duration_ns)]
    return joined([*([alphabet.half()] if arm else []), *operations])


def leaking_half(alphabet: NativeGateRows, number: float, arm: int) -> CircuitPiece:
    """A number of half turns from |0>, or from |1> (arms 1 and 3), and one more (arms 2 and 3).
    Random phases between them keep amplitudes of leakage from adding up."""
    unit = joined([alphabet.half(), alphabet.z(0.0)])
    return _leaking(alphabet, (0,), arm, unit, round(number))


def leaking_pair(alphabet: NativeGateRows, number: float, arm: int) -> CircuitPiece:
    """A number of entangling gates from the basis state arm mod 4, with random phases between them
    and half turns on both qubits after every 16, and then half turns on both (arms 4-7).
    Populations without leakage are 1/2 in the mean of the states, as in benchmarking (Wood and
    Gambetta, arXiv 1704.03081), and whatever they are, both endings have the sum 1."""
    gate = joined([alphabet.entangler(), alphabet.z(0.0), alphabet.z(0.0, 1)])
    flips = [alphabet.half(0), alphabet.half(1), alphabet.barrier()]
    unit = joined([*[gate] * FLIPS_APART, alphabet.barrier(), *flips])
    count, rest = divmod(round(number), FLIPS_APART)
    return _leaking(alphabet, (0, 1), arm, unit, count, [gate] * rest)


FLIPS_APART = 16  # entangling gates between half turns, see `leaking_pair`


def _leaking(
    alphabet: NativeGateRows,
    qubits: Sequence[int],
    arm: int,
    unit: CircuitPiece,
    count: int,
    rest: Sequence[CircuitPiece] = (),
) -> CircuitPiece:
    """A unit many times and the rest, with random multiples of pi / 2 as the angles of rotations
    about Z, between half turns on the qubits of the first bits of `arm` and, with the bit after
    them, on all."""
    middle = joined([*[unit] * count, *rest])
    widths = alphabet.arities[middle.rows, 2].astype(np.int64)
    places = (np.cumsum(widths) - widths)[middle.rows == Z]
    rng = np.random.default_rng(middle.rows.size)  # the same for all arms
    middle.params[places] = rng.integers(4, size=places.size) * (math.pi / 2.0)
    prepared = [alphabet.half(qubit) for qubit in qubits if arm >> qubit & 1]
    together = [alphabet.barrier()] if len(qubits) == 2 else []
    ending = [alphabet.half(qubit) for qubit in qubits if arm >> len(qubits) & 1]
    return joined([*prepared, *together, middle, *together, *ending])


def read_together(alphabet: NativeGateRows, _duration_ns: float, arm: int) -> CircuitPiece:
    """Measurement of all qubits in the basis state of number `arm`."""
    return joined([alphabet.half(qubit) for qubit in range(arm.bit_length()) if arm >> qubit & 1])


def bell_pair(alphabet: NativeGateRows, _duration_ns: float, arm: int) -> CircuitPiece:
    """Measurement of the pair of a link in the basis of Z, of X (arm 1) and of Y (arm 2)."""
    turns = [alphabet.z(math.pi / 2.0, qubit) for qubit in range(2)] if arm == 1 else []
    quarters = [alphabet.quarter(qubit) for qubit in range(2)] if arm else []
    return joined([alphabet.bell_pair(), *turns, *quarters])


def readout(alphabet: NativeGateRows, _duration_ns: float, arm: int) -> CircuitPiece:
    """Measurement of |0>, or of |1> (arm 1)."""
    return joined([alphabet.half()] if arm else [])
