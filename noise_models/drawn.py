"""Devices whose qubits and pairs have values drawn from those of another device.

For circuits whose couplings a device lacks, such as those of a code on a lattice that it has not:
what such a device would do, were it made as this one is. A drawn value is that of a whole qubit, or
of a whole pair with all gates on it. Draws are functions of their number and of the qubits alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from noise_models.calibration import CalibrationSnapshot, GateCalibration
from noise_models.strict_json import SnapshotError

Pair = tuple[int, int]
_T = TypeVar("_T")
_BROKEN = 1.0  # the error of a gate that does not work
_ALIKE = 0.45  # least mean error of a readout that hardly tells 0 from 1, as for compilation


def drawn(
    snapshot: CalibrationSnapshot, num_qubits: int, pairs: Iterable[Pair], number: int
) -> CalibrationSnapshot:
    """Return a device of `num_qubits` qubits, coupled in these pairs, whose values are drawn from
    the working qubits and pairs of `snapshot`. It has no links, and no noise of several pairs or
    qubits together: learned layers, correlated readout, crosstalk of measurements. Raises
    SnapshotError for a device without a working qubit or pair."""
    working = _working_qubits(snapshot)
    if not working:
        raise SnapshotError("qubits", f"device {snapshot.name} has no working qubit")
    ends = sorted({(min(pair), max(pair)) for pair in pairs})
    gates = [gate for gate in snapshot.gates if not gate.qubits]
    single, paired = dict[int, list[GateCalibration]](), dict[Pair, list[GateCalibration]]()
    for gate in snapshot.gates:
        if len(gate.qubits) == 1:
            single.setdefault(gate.qubits[0], []).append(gate)
        elif len(gate.qubits) == 2:
            paired.setdefault((min(gate.qubits), max(gate.qubits)), []).append(gate)
    sources = [_chosen(working, number, qubit) for qubit in range(num_qubits)]
    for qubit, source in enumerate(sources):
        gates += [msgspec.structs.replace(gate, qubits=(qubit,)) for gate in single.get(source, ())]
    rates = {(min(zz.qubits), max(zz.qubits)): zz for zz in snapshot.zz}
    coupled = frozenset(snapshot.coupled)
    candidates = _working_pairs(snapshot, paired)
    coupling: list[Pair] = []
    crosstalk = []
    for first, second in ends if candidates or not snapshot.all_to_all else ():
        if not candidates:
            raise SnapshotError("gates", f"device {snapshot.name} has no working pair")
        source_pair = _chosen(candidates, number, first, second)
        new = dict(zip(source_pair, (first, second), strict=True))
        gates += [
            msgspec.structs.replace(gate, qubits=tuple(new[q] for q in gate.qubits))
            for gate in paired.get(source_pair, ())
        ]
        orders = (source_pair, source_pair[::-1])
        coupling += [(new[a], new[b]) for a, b in orders if (a, b) in coupled]
        if source_pair in rates:
            zz = rates[source_pair]
            crosstalk.append(msgspec.structs.replace(zz, qubits=(first, second)))
    return msgspec.structs.replace(
        snapshot, num_qubits=num_qubits, gates=tuple(gates), coupling=tuple(coupling),
        qubits=tuple(snapshot.qubits[source] for source in sources) if snapshot.qubits else (),
        zz=tuple(crosstalk), correlated_readout=(), coordinates=(), fitted=None, outside=None,
        unusable=(), unmeasured=(), measurements=(), measurement_crosstalk=(), layers=(),
        modules=(), links=(), logical=None,
    )  # fmt: skip


def _working_qubits(snapshot: CalibrationSnapshot) -> list[int]:
    """Usable qubits with a measurement that tells 0 from 1, and each native gate on one qubit."""
    excluded = {*snapshot.unusable, *snapshot.unmeasured}
    excluded |= {
        gate.qubits[0]
        for gate in snapshot.gates
        if len(gate.qubits) == 1 and (gate.error or 0.0) >= _BROKEN
    }
    for native in snapshot.native_gates:
        places = {gate.qubits for gate in snapshot.gates if gate.name == native.name}
        if native.num_qubits == 1 and places and () not in places:
            excluded |= {q for q in range(snapshot.num_qubits) if (q,) not in places}
    for qubit, each in enumerate(snapshot.qubits):
        if sum(each.confusion or ()) >= 2 * _ALIKE:
            excluded.add(qubit)
    return [qubit for qubit in range(snapshot.num_qubits) if qubit not in excluded]


def _working_pairs(
    snapshot: CalibrationSnapshot, paired: dict[Pair, list[GateCalibration]]
) -> list[Pair]:
    """Pairs, the smaller number first, with a gate that works; none where all are alike."""
    coupled = {(min(pair), max(pair)) for pair in snapshot.coupled} or set(paired)
    usable = set(range(snapshot.num_qubits)).difference(snapshot.unusable)
    linked = {(min(link.pair), max(link.pair)) for link in snapshot.links}
    return sorted(
        pair
        for pair in coupled - linked
        if usable.issuperset(pair)
        and all((gate.error or 0.0) < _BROKEN for gate in paired.get(pair, ()))
    )


def _chosen(values: Sequence[_T], number: int, *key: int) -> _T:
    """Return one of the values by a hash of the number of the draw and the key."""
    text = " ".join(map(str, (number, *key)))
    found = hashlib.blake2b(text.encode(), digest_size=8, person=b"simenv draw").digest()
    return values[int.from_bytes(found, "little") % len(values)]
