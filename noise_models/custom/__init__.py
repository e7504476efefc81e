"""Custom noise model as a document: channels per gate, defined by the user.

Matrices are lists of rows; an element is a number, or [real, imaginary]. Bit 0 of an index is the
first qubit that a matrix acts on.
"""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import channel, strict_json as checks
from noise_models.calibration import ZZCoupling, acting_zz_khz, is_named_measurement
from noise_models.strict_json import MAX_QUBITS, NS, UNIT, US, NoiseError, Range, SnapshotError

FORMAT = 1
PREPARATION = "preparation"  # as the name of a gate: channels at the start of a circuit

Number = float | tuple[float, float]
Matrix = tuple[tuple[Number, ...], ...]


class _Entry(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """Base of the entries."""


class RelaxationTimes(_Entry, frozen=True):
    """T1 and T2 of a qubit; None: infinite. T2 is limited to 2 T1."""

    t1_us: float | None = None
    t2_us: float | None = None
    excited: float = 0.0  # population of |1> in equilibrium


class ChannelEntry(_Entry, frozen=True):
    """Channel after a gate, after a `reset`, or at `preparation`; one of the last five fields gives
    it.

    `qubits=()`: the entry holds for all qubits that have no entry of their own for the gate.
    Entries of one gate on the same qubits act one after another. `operands`: the operands of the
    gate that the channel acts on, (0, 1) or (1,); (): all, in their order. `device_qubits`: the
    channel acts on these qubits of the device instead, such as a neighbour.
    """

    gate: str
    qubits: tuple[int, ...] = ()
    operands: tuple[int, ...] = ()
    device_qubits: tuple[int, ...] = ()
    kraus: tuple[Matrix, ...] = ()
    paulis: dict[str, float] = {}  # "XI": probability; the last letter acts on the first qubit
    unitary: Matrix = ()
    depolarizing: float | None = None  # parameter p of (1 - p) rho + p 1 / 2^n
    relaxation: RelaxationTimes | None = None  # of each qubit, for the duration of the gate


class IdleEntry(RelaxationTimes, frozen=True):
    """Relaxation of an idle qubit; `qubits=()`: of all qubits without an entry of their own."""

    qubits: tuple[int, ...] = ()


class ReadoutEntry(_Entry, frozen=True):
    """Readout error of single qubits, or of qubits that are read together. `confusion`: [2^k][2^k],
    row read, column true; it replaces p01 and p10. `qubits=()`: one entry for all qubits without an
    entry of their own."""

    qubits: tuple[int, ...] = ()
    p01: float = 0.0  # probability that |0> is read as 1
    p10: float = 0.0
    confusion: tuple[tuple[float, ...], ...] = ()


class DurationEntry(_Entry, frozen=True):
    """Duration of a gate, `measure` or `reset`; `qubits=()`: on all qubits without an entry of
    their own."""

    gate: str
    duration_ns: float
    qubits: tuple[int, ...] = ()


class CustomModel(_Entry, frozen=True, tag_field="kind", tag="channels"):
    """Noise of a device as described by a user; `load` and `dump` convert it to JSON."""

    name: str
    num_qubits: int = 0  # 0: any number
    format: int = FORMAT
    channels: tuple[ChannelEntry, ...] = ()
    idle: tuple[IdleEntry, ...] = ()
    readout: tuple[ReadoutEntry, ...] = ()
    durations: tuple[DurationEntry, ...] = ()
    zz: tuple[ZZCoupling, ...] = ()
    dt_ns: float = 0.0  # resolution of the device's clock; 0.0: not known
    feed_forward_ns: float = 0.0

    @property
    def acting_zz_khz(self) -> dict[tuple[int, int], float]:
        """ZZ rates by pair, the smaller number first; those of 0 left out."""
        return acting_zz_khz(self.zz)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON, 32 bytes."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).digest()


# Channels of the entries of a custom model.

_SUM_TOLERANCE = 1e-9
FIELDS = ("kraus", "paulis", "unitary", "depolarizing", "relaxation")


def given_fields(entry: ChannelEntry) -> list[str]:
    """Return the names of the fields that give the channel; a valid entry has one."""
    return [name for name in FIELDS if getattr(entry, name) not in ((), {}, None)]


def entry_channel(entry: ChannelEntry, num_qubits: int, duration_ns: float) -> channel.Channel:
    """Build the channel of an entry on 1 or 2 qubits. Raises NoiseError."""
    fields = given_fields(entry)
    if len(fields) != 1:
        result = " and ".join(fields) if fields else "none"
        raise NoiseError(f"{result} given", hint=f"give one of {', '.join(FIELDS)}")
    if entry.depolarizing is not None:
        return channel.depolarizing(entry.depolarizing, num_qubits)
    if entry.relaxation is not None:
        single = relaxed(entry.relaxation, duration_ns)
        return single if num_qubits == 1 else channel.tensor(single, single)
    if entry.paulis:
        built = _pauli_mixture(entry.paulis)
    elif entry.unitary:
        built = channel.from_unitary(matrix(entry.unitary))
    else:
        built = channel.from_kraus([matrix(each) for each in entry.kraus])
    if built.num_qubits != num_qubits:
        hint = "name the operands or qubits that the channel acts on"
        raise NoiseError(f"{fields[0]} of {built.num_qubits} qubits for {num_qubits}", hint=hint)
    return built


def channel_size(entry: ChannelEntry) -> int:
    """Return the number of qubits of an entry's channel; 0: any number. Raises NoiseError."""
    if entry.paulis:
        return len(next(iter(entry.paulis)))
    values = entry.unitary or (entry.kraus[0] if entry.kraus else ())
    return {0: 0, 2: 1, 4: 2}.get(len(values), -1)


def relaxed(times: RelaxationTimes, duration_ns: float) -> channel.Channel:
    """Build the relaxation over a duration. Raises NoiseError."""
    t1_us = math.inf if times.t1_us is None else times.t1_us
    t2_us = min(math.inf if times.t2_us is None else times.t2_us, 2.0 * t1_us)
    return (
        channel.relaxation(duration_ns, t1_us, t2_us, times.excited)
        if duration_ns
        else channel.identity(1)
    )


def matrix(rows: Matrix) -> NDArray[np.complex128]:
    """Convert a matrix in rows to an array. Raises NoiseError."""
    if any(len(row) != len(rows) for row in rows):
        raise NoiseError("a matrix that is not square", hint="give 2x2 or 4x4 matrices")
    return np.array(
        [[complex(*each) if isinstance(each, tuple) else each for each in row] for row in rows],
        np.complex128,
    )


def _pauli_mixture(probabilities: dict[str, float]) -> channel.Channel:
    letters = "IXYZ"
    size = len(next(iter(probabilities)))
    weights = np.zeros(4 ** min(size, 3))
    for name, probability in probabilities.items():
        if len(name) != size or size not in (1, 2) or any(each not in letters for each in name):
            hint = "names of one length: X on one qubit, XI on two"
            raise NoiseError(f"Pauli {name[:20]!r}", hint=hint)
        # The last letter acts on the first qubit, the low base-4 digit.
        weights[sum(letters.index(each) * 4**k for k, each in enumerate(reversed(name)))] = (
            probability
        )
    if not (weights >= 0.0).all() or abs(weights.sum() - 1.0) > _SUM_TOLERANCE:
        hint = "probabilities >= 0 whose sum is 1, that of I included"
        raise NoiseError(f"Pauli probabilities of sum {weights.sum():.12g}", hint=hint)
    return channel.from_paulis(weights / weights.sum())


# Ranges and consistency of a custom model.

MAX_ENTRIES = 1_000_000
_TOLERANCE = 1e-9
_TIMES: dict[str, Range] = {"t1_us": US, "t2_us": US, "excited": UNIT}
_MODEL: dict[str, Range] = {"num_qubits": (0, MAX_QUBITS), "dt_ns": NS, "feed_forward_ns": NS}


def check(model: CustomModel) -> None:
    """Raise SnapshotError at the first value that is wrong."""
    if model.format != FORMAT:
        raise SnapshotError("format", f"{model.format} is not supported", hint=f"it is {FORMAT}")
    checks.check_text("name", model.name)
    if not model.name:
        raise SnapshotError("name", "empty", hint="give the model a name")
    checks.check_ranges("", model, _MODEL)
    size = model.num_qubits
    for field in ("channels", "idle", "readout", "durations", "zz"):
        checks.check_entries(field, getattr(model, field), MAX_ENTRIES)
        once: set[tuple[int, ...]] = set()
        for index, entry in enumerate(getattr(model, field)):
            checks.check_qubits(f"{field}[{index}].qubits", entry.qubits, size)
            if field in ("idle", "readout"):
                checks.check_once(f"{field}[{index}].qubits", entry.qubits, once)
            if isinstance(entry, ChannelEntry | DurationEntry):
                checks.check_gate_name(f"{field}[{index}].gate", entry.gate)
    for index, channel_entry in enumerate(model.channels):
        _channel(f"channels[{index}]", channel_entry, size)
    for index, waiting in enumerate(model.idle):
        checks.check_ranges(f"idle[{index}].", waiting, _TIMES)
    for index, reading in enumerate(model.readout):
        checks.check_ranges(f"readout[{index}].", reading, {"p01": UNIT, "p10": UNIT})
        if reading.confusion:
            num = len(reading.qubits) or 1
            checks.check_confusion(f"readout[{index}]", reading.confusion, num, _TOLERANCE)
    for index, duration in enumerate(model.durations):
        checks.check_ranges(f"durations[{index}].", duration, {"duration_ns": NS})
    for index, zz in enumerate(model.zz):
        checks.check_ranges(f"zz[{index}].", zz, {"rate_khz": checks.KHZ})


def _channel(field: str, entry: ChannelEntry, num_qubits: int) -> None:
    if entry.gate == "measure" or is_named_measurement(entry.gate):
        hint = "give the error of a measurement in `readout`"
        raise SnapshotError(f"{field}.gate", "a channel at a measurement", hint=hint)
    checks.check_qubits(f"{field}.device_qubits", entry.device_qubits, num_qubits)
    checks.check_qubits(f"{field}.operands", entry.operands, len(entry.qubits))
    if entry.operands and entry.device_qubits:
        raise SnapshotError(f"{field}.operands", "given with device_qubits", hint="give one")
    if entry.relaxation is not None:
        checks.check_ranges(f"{field}.relaxation.", entry.relaxation, _TIMES)
    try:
        size = max(channel_size(entry), 0)
        acts = entry.device_qubits or entry.operands or entry.qubits
        if size == 0 or len(acts) > 2:
            size = len(acts) or 1
        if size > 2 or (acts and len(acts) != size):
            hint = "a channel acts on 1 or 2 qubits; choose them with operands"
            raise NoiseError(f"a channel of {size} qubits on {len(acts)}", hint=hint)
        entry_channel(entry, size, 0.0)
    except NoiseError as error:
        raise SnapshotError(field, error.message, hint=error.hint) from None
    if entry.gate in (PREPARATION, "reset") and size != 1:
        raise SnapshotError(f"{field}.gate", f"a channel of {size} qubits", hint="1 qubit")
