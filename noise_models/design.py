"""Devices of a few numbers and a lattice, as snapshots.

A value is one number for all qubits or coupled pairs, or one for each in their order; a value that
is not given is not measured. Lattices have a place in a drawing for each qubit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Literal, get_args

import msgspec

from noise_models import calibration, strict_json as checks, terms
from noise_models.importers import missing
from noise_models.importers.gate_names import SHAPES
from noise_models.importers.report import ImportReport, Recorder
from noise_models.snapshot import check, clamps
from noise_models.strict_json import MAX_QUBITS, SnapshotError

Pair = tuple[int, int]
Lattice = Literal["line", "ring", "grid", "heavy-hex", "all-to-all"]
LATTICES: tuple[str, ...] = get_args(Lattice)
_COLUMNS_PER_LINK = 4  # of a row of heavy-hex: one qubit links every fourth one to the next row
SOURCE = "simenv"

# Plausible values of superconducting qubits, which complete a template.
TEMPLATE = {
    "t1_us": 150.0, "t2_us": 100.0, "p01": 0.01, "p10": 0.02, "readout_ns": 1000.0,
    "error_1q": 3e-4, "error_2q": 5e-3, "duration_1q_ns": 32.0, "duration_2q_ns": 68.0,
    "dt_ns": 4.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeviceDesign:
    """Numbers of a device. A tuple has one value for all, one for each, or none: not measured."""

    name: str
    num_qubits: int
    couplings: tuple[Pair, ...] = ()
    all_to_all: bool = False
    coordinates: tuple[tuple[float, float], ...] = ()
    gates: tuple[str, ...] = ("rz", "sx", "x", "cz")  # Qiskit's names; rz is without error and time
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of `terms.VALUES`


@dataclass(frozen=True, slots=True)
class Layout:
    """Couplings of a lattice, each pair once, and a place for each qubit: x right, y down."""

    num_qubits: int
    couplings: tuple[Pair, ...]
    coordinates: tuple[tuple[float, float], ...] = ()
    all_to_all: bool = False


def lattice(text: str, num_qubits: int = 0) -> Layout:
    """Return the layout of a lattice: `line`, `ring`, `all-to-all`, `grid:ROWSxCOLUMNS` or
    `heavy-hex:ROWSxCOLUMNS`, where a size may be left out if `num_qubits` is not 0. Raises
    SnapshotError for an unknown lattice, and for a size that does not fit."""
    kind, _, size = text.partition(":")
    if kind not in LATTICES:
        hint = f"known: {', '.join(LATTICES)}"
        raise SnapshotError("lattice", f"{text[:60]!r} is unknown", hint=hint)
    if not 0 <= num_qubits <= MAX_QUBITS:
        raise SnapshotError("qubits", f"{num_qubits}", hint=f"1 to {MAX_QUBITS}")
    if kind in ("grid", "heavy-hex"):
        rows, columns = _size(kind, size, num_qubits)
        found = _grid(rows, columns) if kind == "grid" else _heavy_hex(rows, columns)
        if num_qubits not in (0, found.num_qubits):
            text = f"{num_qubits} qubits; {kind} of {rows}x{columns} has {found.num_qubits}"
            raise SnapshotError("lattice", text, hint="leave the number of qubits out")
        return found
    if size or not num_qubits:
        text = f"size {size[:40]!r}" if size else "no number of qubits"
        raise SnapshotError("lattice", f"{text} of {kind}", hint="give the number of qubits")
    line = tuple(pairwise(range(num_qubits)))
    if kind == "line":
        return Layout(num_qubits, line, tuple((float(q), 0.0) for q in range(num_qubits)))
    if kind == "ring":
        ends = ((0, num_qubits - 1),) if num_qubits > 2 else ()
        return Layout(num_qubits, line + ends)
    return Layout(num_qubits, (), all_to_all=True)


def _size(kind: str, size: str, num_qubits: int) -> tuple[int, int]:
    """Return rows and columns: as given, or the squarest with this number of qubits."""
    if size:
        rows, _, columns = size.partition("x")
        digits = [each if each.isascii() and each.isdigit() else "0" for each in (rows, columns)]
        sides = int(digits[0][:6]), int(digits[1][:6])
        if min(sides) < 1 or sides[0] * sides[1] > MAX_QUBITS:
            text = f"{size[:40]!r} is no size, or has more than {MAX_QUBITS} qubits"
            raise SnapshotError("lattice", text, hint=f"{kind}:3x4")
        if kind == "heavy-hex" and (sides[1] % _COLUMNS_PER_LINK or sides[0] < 2):
            hint = "two rows or more, of 4, 8, 12, ... columns: heavy-hex:3x8"
            raise SnapshotError("lattice", f"{size[:40]!r} of heavy-hex", hint=hint)
        return sides
    if not num_qubits:
        hint = f"{kind}:ROWSxCOLUMNS, or a number of qubits"
        raise SnapshotError("lattice", f"no size of {kind}", hint=hint)
    if kind == "grid":
        sizes = {rows * columns: (rows, columns) for rows, columns in _squarest(num_qubits)}
    else:
        sizes = {
            _heavy_hex_count(rows, columns): (rows, columns)
            for columns in range(_COLUMNS_PER_LINK, num_qubits + 1, _COLUMNS_PER_LINK)
            for rows in (round((num_qubits + columns // 4) / (columns + columns // 4)),)
            if rows > 1
        }
    if num_qubits not in sizes:
        near = sorted(sizes, key=lambda count: abs(count - num_qubits))[:3]
        shown = ", ".join(f"{count} ({kind}:{sizes[count][0]}x{sizes[count][1]})" for count in near)
        text = f"no {kind} has {num_qubits} qubits"
        raise SnapshotError("lattice", text, hint=f"near: {shown}" if near else "")
    return sizes[num_qubits]


def _squarest(num_qubits: int) -> list[tuple[int, int]]:
    """Sizes of grids near a number of qubits; of those with this number the squarest is last."""
    sizes = []
    for count in (num_qubits - 1, num_qubits + 1, num_qubits):
        sides = [(rows, count // rows) for rows in range(2, count) if count % rows == 0]
        sizes += [each for each in sides if each[0] <= each[1]]
    return sizes


def _grid(rows: int, columns: int) -> Layout:
    places = [(row, column) for row in range(rows) for column in range(columns)]
    number = {place: index for index, place in enumerate(places)}
    couplings = [
        (index, number[other])
        for (row, column), index in number.items()
        for other in ((row, column + 1), (row + 1, column))
        if other in number
    ]
    return Layout(len(places), tuple(couplings), tuple((float(c), float(r)) for r, c in places))


def _heavy_hex_count(rows: int, columns: int) -> int:
    return rows * columns + (rows - 1) * (columns // _COLUMNS_PER_LINK)


def _heavy_hex(rows: int, columns: int) -> Layout:
    """Heavy-hex lattice in the numbering of IBM's Heron processors, which are 8x16: rows, and
    between two rows the qubits that link them at columns 3, 7, ... or 1, 5, ... by turns."""
    places: list[tuple[float, float]] = []
    number: dict[tuple[int, int], int] = {}  # (row of the drawing, column): rows are even
    for row in range(2 * rows - 1):
        chosen = range(columns)[(3, 1)[row // 2 % 2] :: _COLUMNS_PER_LINK] if row % 2 else None
        for column in range(columns) if chosen is None else chosen:
            number[row, column] = len(places)
            places.append((float(column), float(row)))
    couplings = [
        tuple(sorted((index, number[other])))
        for (row, column), index in number.items()
        for other in (((row - 1, column), (row + 1, column)) if row % 2 else ((row, column + 1),))
        if other in number
    ]
    return Layout(len(places), tuple((a, b) for a, b in sorted(couplings)), tuple(places))


def snapshot_of(design: DeviceDesign) -> tuple[calibration.CalibrationSnapshot, ImportReport]:
    """Build and check the snapshot of a device, and report what it does not have. Raises
    SnapshotError."""
    design = _plain(design)
    _check(design)
    count = design.num_qubits
    result = calibration.CalibrationSnapshot(
        name=design.name,
        num_qubits=count,
        dt_ns=(_spread(design, "dt_ns", 1, "device") or (0.0,))[0],
        all_to_all=design.all_to_all,
        native_gates=tuple(calibration.NativeGate(name, *SHAPES[name]) for name in design.gates),
        coupling=_both_ways(design),
        qubits=_qubits(design),
        gates=tuple(_gates(design)),
        coordinates=design.coordinates,
        source_format=SOURCE,
        zz=tuple(
            calibration.ZZCoupling(pair, rate) for pair, rate in _of_pairs(design, "zz_khz").items()
        ),
        measurement_crosstalk=_measurement_crosstalk(design),
    )
    groups = _joint_flips(result, _of_pairs(design, "joint_flip"))
    result = msgspec.structs.replace(result, correlated_readout=groups)
    check(result)
    recorder = Recorder()
    missing.report(result, {}, recorder)
    for place, note in clamps(result):
        recorder.clamped(place, note)
    return result, recorder.report(SOURCE)


def _plain(design: DeviceDesign) -> DeviceDesign:
    """Return the design with numbers of Python; those of numpy are no JSON."""
    return replace(
        design,
        num_qubits=int(design.num_qubits),
        couplings=tuple(_pair(each) for each in design.couplings),
        all_to_all=bool(design.all_to_all),
        coordinates=tuple((float(x), float(y)) for x, y in design.coordinates),
        values={name: _numbers(name, own) for name, own in design.values.items()},
    )


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in values)
    except (TypeError, ValueError) as error:
        hint = "one number, or one for each"
        raise SnapshotError(name[:60], f"{values!r:.60} are no numbers", hint=hint) from error


def _pair(qubits: Sequence[int]) -> Pair:
    if len(qubits) != 2:
        text = f"{'-'.join(map(str, qubits)):.60} is no pair"
        raise SnapshotError("couplings", text, hint="two qubits for each")
    return int(qubits[0]), int(qubits[1])


def _of_kind(*kinds: str) -> list[terms.Value]:
    return [each for each in terms.VALUES if each.kind in kinds]


def _qubits(design: DeviceDesign) -> tuple[calibration.QubitCalibration, ...]:
    count = design.num_qubits
    columns: dict[str, dict[str, tuple[float, ...]]] = {"qubit": {}, "jumps": {}}
    for each in _of_kind(*columns):
        if values := _spread(design, each.name, count, "qubit"):
            columns[each.kind][each.key] = values
    own, jumps = columns.values()
    if lacking := [each.name for each in _of_kind("jumps") if each.key not in jumps and jumps]:
        hint = "give jumps_per_hour, jump_dwell_s and jump_factor, or none"
        raise SnapshotError(lacking[0], "jumps of T1 without it", hint=hint)
    return tuple(
        calibration.QubitCalibration(
            **{name: values[q] for name, values in own.items()},
            t1_jumps=calibration.T1Jumps(
                jumps["per_hour"][q], jumps["dwell_s"][q], jumps["factor"][q]
            )
            if jumps
            else None,
        )
        for q in range(count if own or jumps else 0)
    )


def _pairs(design: DeviceDesign) -> tuple[Pair, ...]:
    if design.all_to_all:
        return tuple(combinations(range(design.num_qubits), 2))
    return design.couplings


def _of_pairs(design: DeviceDesign, name: str) -> dict[Pair, float]:
    """A value of each pair."""
    pairs = _pairs(design)
    values = _spread(design, name, len(pairs), "pair")
    return dict(zip(pairs, values, strict=False))


def _measurement_crosstalk(design: DeviceDesign) -> tuple[calibration.MeasurementCrosstalk, ...]:
    """One term for any two qubits, or one for each direction of each pair."""
    given = {each.key: design.values.get(each.name, ()) for each in _of_kind("crosstalk")}
    if all(len(values) <= 1 for values in given.values()):
        own = {key: values[0] for key, values in given.items() if values}
        return (calibration.MeasurementCrosstalk((), **own),) if own else ()
    columns = {each.key: _of_pairs(design, each.name) for each in _of_kind("crosstalk")}
    return tuple(
        calibration.MeasurementCrosstalk(
            way, **{key: values[pair] for key, values in columns.items() if values}
        )
        for pair in _pairs(design)
        for way in (pair, pair[::-1])
    )


def _joint_flips(
    snapshot: calibration.CalibrationSnapshot, flips: Mapping[Pair, float]
) -> tuple[calibration.CorrelatedReadout, ...]:
    """Confusion of pairs: the errors of each record, then a flip of both."""
    results = []
    for pair, flip in flips.items():
        checks.check_range("joint_flip", flip, (0.0, 0.5))
        first, second = (
            (snapshot.qubits[q].confusion if snapshot.qubits else None) or (0.0, 0.0) for q in pair
        )
        confusion = tuple(
            tuple(
                (1.0 - flip) * _alone(read, true, first, second)
                + flip * _alone(3 - read, true, first, second)
                for true in range(4)
            )
            for read in range(4)
        )
        results.append(calibration.CorrelatedReadout(pair, confusion))
    return tuple(results)


def _alone(read: int, true: int, *flips: tuple[float, float]) -> float:
    """Probability of a record of two qubits with independent errors p01 and p10."""
    result = 1.0
    for bit, own in enumerate(flips):
        wrong = own[true >> bit & 1]
        result *= wrong if (read ^ true) >> bit & 1 else 1.0 - wrong
    return result


def _check(design: DeviceDesign) -> None:
    for name in design.values:
        if name not in terms.NAMES:
            hint = checks.known_names(name, tuple(terms.NAMES))
            raise SnapshotError(name[:60], "no value of a device", hint=hint)
    for name in design.gates:
        if SHAPES.get(name, (0, 0))[0] not in (1, 2):
            text = f"{name[:60]!r} is no gate of Qiskit on one or two qubits"
            raise SnapshotError("gates", text, hint="as rz,sx,x,cz")
    seen: set[frozenset[int]] = set()
    for pair in design.couplings:
        text = "-".join(map(str, pair))
        if len(set(pair)) < 2 or not all(0 <= qubit < design.num_qubits for qubit in pair):
            hint = f"two qubits from 0 to {design.num_qubits - 1}"
            raise SnapshotError("couplings", f"{text} is no pair", hint=hint)
        if frozenset(pair) in seen:
            raise SnapshotError("couplings", f"{text} a second time", hint="give each pair once")
        seen.add(frozenset(pair))
    wide = [name for name in design.gates if SHAPES[name][0] == 2]
    if (design.couplings or design.all_to_all) and not wide:
        raise SnapshotError("gates", "none on two qubits, and pairs", hint="as rz,sx,x,cz")
    for name in unused(design):
        hint = "add gates other than rz, and couplings for those on two qubits, or leave it out"
        raise SnapshotError(name, "no gate of the device takes this value", hint=hint)
    _check_readout(design)


def unused(design: DeviceDesign) -> tuple[str, ...]:
    """Return the fields with values of gates that the device does not have."""
    sizes = {SHAPES[name][0] for name in design.gates if name in SHAPES and name != "rz"}
    if not (design.couplings or design.all_to_all):
        sizes.discard(2)
    given = [each for each in terms.VALUES if design.values.get(each.name)]
    return tuple(
        each.name
        for each in given
        if (each.kind == "gate" and each.size not in sizes)
        or (each.kind == "pair" and not (design.couplings or design.all_to_all))
    )


def _check_readout(design: DeviceDesign) -> None:
    """Raise SnapshotError where `readout_error` is not the mean of p01 and p10."""
    mean, p01, p10 = (
        _spread(design, name, design.num_qubits, "qubit")
        for name in ("readout_error", "p01", "p10")
    )
    if not mean or not (p01 or p10):
        return
    for qubit, error in enumerate(mean):
        one = p01[qubit] if p01 else 2 * error - p10[qubit]
        other = p10[qubit] if p10 else 2 * error - p01[qubit]
        if abs(one + other - 2 * error) > 1e-9 or min(one, other) < 0 or max(one, other) > 1:
            text = f"{error:g} of qubit {qubit} is not the mean of p01 and p10"
            raise SnapshotError("readout_error", text, hint="give p01 and p10, or only this one")


def _spread(design: DeviceDesign, name: str, count: int, what: str) -> tuple[float, ...]:
    """Return one value for each of `count` from one or from as many; () for none."""
    values = design.values.get(name, ())
    if len(values) in (0, count):
        return tuple(values)
    if len(values) == 1:
        return tuple(values) * count
    text = f"{len(values)} values of {count} {what}s"
    raise SnapshotError(name, text, hint=f"give one for all, or one for each {what}")


def _both_ways(design: DeviceDesign) -> tuple[Pair, ...]:
    """Pairs in both directions where a gate is symmetric, else as given."""
    wide = [name for name in design.gates if SHAPES[name][0] == 2]
    if calibration.SYMMETRIC.isdisjoint(wide):
        return design.couplings
    return tuple(pair for a, b in design.couplings for pair in ((a, b), (b, a)))


def _gates(design: DeviceDesign) -> list[calibration.GateCalibration]:
    """Entries of each gate: for all qubits where one value holds everywhere."""
    results = []
    pairs = design.couplings
    for name in design.gates:
        size = SHAPES[name][0]
        places: Sequence[tuple[int, ...]] = [(q,) for q in range(design.num_qubits)]
        if size == 2:
            places = pairs
        if name == "rz":
            results.append(calibration.GateCalibration(name, (), 0.0, 0.0))
            continue
        if size == 2 and not pairs and not design.all_to_all:
            continue
        own = {
            each.key: (each.name, design.values[each.name])
            for each in _of_kind("gate")
            if each.size == size and design.values.get(each.name)
        }
        if all(len(values) == 1 for _, values in own.values()) and (size == 1 or design.all_to_all):
            if own:
                first = {key: values[0] for key, (_, values) in own.items()}
                results.append(_gate(name, (), first))
            continue
        what = "qubit" if size == 1 else "pair"
        spread = {key: _spread(design, value, len(places), what) for key, (value, _) in own.items()}
        for index, place in enumerate(places):
            ways = [place]
            if size == 2 and name in calibration.SYMMETRIC:
                ways.append(place[::-1])
            here = {key: each[index] for key, each in spread.items()}
            results += [_gate(name, way, here, is_reversed=way != place) for way in ways]
    return results


def _gate(
    name: str, place: tuple[int, ...], values: Mapping[str, float], *, is_reversed: bool = False
) -> calibration.GateCalibration:
    """Entry of a gate. `is_reversed`: the qubits are in the other order than a pair is given."""
    rotations = tuple(
        calibration.PauliRotation(pauli[::-1] if is_reversed else pauli, values[pauli])
        for pauli in _ANGLES
        if values.get(pauli)
    )
    own = {key: value for key, value in values.items() if key not in _ANGLES}
    result = calibration.GateCalibration(name, place, rotations=rotations)
    return msgspec.structs.replace(result, **own)


_ANGLES = ("ZZ", "IZ")
