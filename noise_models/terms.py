"""Values of a calibration snapshot: the field, unit and title of each.

`simenv devices new` has an option for each value of VALUES. `devices show`, the gateway and the web
page list what `measured` finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from noise_models import atoms

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot

Kind = Literal["qubit", "jumps", "gate", "pair", "crosstalk", "device"]
Places = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A value that a device can be made with: one for all, or one for each qubit or pair. Values of
    gates hold for all gates on `size` qubits but rz."""

    name: str
    kind: Kind
    title: str
    unit: str = ""
    field: str = ""  # of the snapshot's object; "": `name`
    size: int = 0  # of a gate
    is_basic: bool = False  # has a field of its own in a description of a device

    @property
    def key(self) -> str:
        return self.field or self.name

    @property
    def help(self) -> str:
        """Title with the gates and the unit."""
        gates = ("", " (gates on one qubit but rz)", " (gates on two qubits)")[self.size]
        return f"{self.title}{gates}{f', in {self.unit}' if self.unit else ''}."


def _of_gates(field: str, title: str, unit: str = "", *, is_basic: bool = False) -> list[Value]:
    """The values of gates on one qubit and on two; the number of qubits stands before the unit."""
    stem = field.removesuffix(f"_{unit}") if unit else field
    ending = f"_{unit}" if unit else ""
    return [
        Value(f"{stem}_{size}q{ending}", "gate", title, unit, field, size, is_basic)
        for size in (1, 2)
    ]


VALUES = (
    Value("t1_us", "qubit", "T1", "us", is_basic=True),
    Value("t2_us", "qubit", "T2 (echo)", "us", is_basic=True),
    Value("t2_star_us", "qubit", "T2* (Ramsey)", "us"),
    Value("frequency_ghz", "qubit", "Frequency", "GHz", is_basic=True),
    Value("readout_error", "qubit", "Readout error, the mean of p01 and p10", is_basic=True),
    Value("p01", "qubit", "Probability that 0 is read as 1"),
    Value("p10", "qubit", "Probability that 1 is read as 0"),
    Value("readout_ns", "qubit", "Duration of a measurement", "ns", is_basic=True),
    Value("excited", "qubit", "Population of 1 in thermal equilibrium"),
    Value("reset_error", "qubit", "Probability of 1 after a reset"),
    Value("reset_ns", "qubit", "Duration of a reset", "ns"),
    Value("preparation_error", "qubit", "Probability of 1 at the start"),
    Value("memory_error", "qubit", "Average infidelity of a qubit by a layer of two-qubit gates"),
    Value("measure_decay", "qubit", "Probability that a measurement leaves 1 in 0"),
    Value("measure_excitation", "qubit", "Probability that a measurement leaves 0 in 1"),
    Value("leaked_readout", "qubit", "Probability that a leaked qubit is read as 1"),
    Value("leaked_t1_us", "qubit", "T1 of the third level", "us"),
    Value("readout_decided", "qubit", "Part of a readout after which its outcome is decided"),
    Value("jumps_per_hour", "jumps", "Jumps of T1 to its low value", "1/h", "per_hour"),
    Value("jump_dwell_s", "jumps", "Mean time at the low T1", "s", "dwell_s"),
    Value("jump_factor", "jumps", "Low T1 relative to T1", "", "factor"),
    *_of_gates("error", "Average infidelity", is_basic=True),
    *_of_gates("duration_ns", "Duration", "ns", is_basic=True),
    *_of_gates("over_rotation_rad", "Over-rotation", "rad"),
    *_of_gates("leakage", "Mean probability of leakage"),
    *_of_gates("seepage", "Probability that a leaked qubit comes back"),
    Value("zz_angle_rad", "gate", "Rotation about ZZ", "rad", "ZZ", 2),
    Value("iz_angle_rad", "gate", "Rotation about Z of the second qubit", "rad", "IZ", 2),
    Value("zz_khz", "pair", "ZZ interaction", "kHz"),
    Value("joint_flip", "pair", "Probability that both records of a pair are flipped together"),
    Value(
        "measurement_crosstalk_error", "crosstalk",
        "Average infidelity of a qubit by a measurement of another one", "", "error",
    ),
    Value(
        "measurement_crosstalk_rad", "crosstalk",
        "Rotation of a qubit by a measurement of another one", "rad", "angle_rad",
    ),
    Value("dt_ns", "device", "Resolution of the clock", "ns"),
)  # fmt: skip
NAMES = {each.name: each for each in VALUES}
_OPERATION = (
    ("error", "error", "", True), ("duration", "duration_ns", "ns", True),
    ("leakage", "leakage", "", False), ("seepage", "seepage", "", False),
    ("over-rotation", "over_rotation_rad", "rad", False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """A quantity wherever it was measured. A place is a qubit, the qubits of a gate or pair, or the
    measured qubit and another one; (): all without a place of their own."""

    name: str
    title: str
    unit: str
    places: Places
    values: tuple[float, ...]
    is_basic: bool = False

    def at(self, qubit: int) -> Iterator[tuple[tuple[int, ...], float]]:
        """Iterate over the places with a qubit, and their values."""
        for place, value in zip(self.places, self.values, strict=True):
            if not place or qubit in place:
                yield place, value


def measured(snapshot: CalibrationSnapshot) -> list[Measured]:
    """Return all quantities that a snapshot has a value of, but those of layers: of qubits, then of
    each gate and each measurement with a name of its own, then of pairs."""
    found: dict[str, tuple[str, str, bool, dict[tuple[int, ...], float]]] = {}

    def put(key: tuple[str, str, str, bool], place: tuple[int, ...], value: float | None) -> None:
        if value is not None:
            name, title, unit, is_basic = key
            found.setdefault(name, (title, unit, is_basic, {}))[3][place] = value

    for each in VALUES:
        if each.kind not in ("qubit", "jumps"):
            continue
        key = each.name, each.title, each.unit, each.is_basic
        for number, qubit in enumerate(snapshot.qubits):
            owner = qubit if each.kind == "qubit" else qubit.t1_jumps
            put(key, (number,), getattr(owner, each.key, None))
    for gate in snapshot.gates:
        for word, field, unit, is_basic in _OPERATION:
            name = f"{gate.name} {word}"
            put((name, name, unit, is_basic), gate.qubits, getattr(gate, field))
        angles: dict[str, float] = {}
        for each_turn in gate.rotations:
            angles[each_turn.pauli] = angles.get(each_turn.pauli, 0.0) + each_turn.angle_rad
        for pauli, angle in angles.items():
            name = f"{gate.name} rotation {pauli}"
            put((name, name, "rad", False), gate.qubits, angle)
    for measurement in snapshot.measurements:
        for word, field, unit, is_basic in _OPERATION[:2]:
            name = f"{measurement.name} {word}"
            put((name, name, unit, is_basic), (measurement.qubit,), getattr(measurement, field))
    pairs = {name: (name, NAMES[name].title, NAMES[name].unit, False) for name in _OF_PAIRS}
    for term in snapshot.zz:
        put(pairs["zz_khz"], term.qubits, term.rate_khz)
    for group in snapshot.correlated_readout:
        if len(group.qubits) == 2:
            put(pairs["joint_flip"], group.qubits, group.joint_flip)
        right = sum(row[k] for k, row in enumerate(group.confusion)) / len(group.confusion)
        key = "read_together", "Wrong record of qubits read together", "", False
        put(key, group.qubits, 1.0 - right)
    for each_term in snapshot.measurement_crosstalk:
        for name in ("measurement_crosstalk_error", "measurement_crosstalk_rad"):
            put(pairs[name], each_term.qubits, getattr(each_term, NAMES[name].key))
    if snapshot.analog is not None:
        for parameter, value in atoms.measured(snapshot.analog):
            put((parameter.name, parameter.title, parameter.unit, False), (), value)
    return [
        Measured(name, title, unit, tuple(values), tuple(values.values()), is_basic)
        for name, (title, unit, is_basic, values) in found.items()
    ]


_OF_PAIRS = tuple(each.name for each in VALUES if each.kind in ("pair", "crosstalk"))
