"""Custom noise model as a document: channels per gate, defined by the user.

Matrices are lists of rows; an element is a number, or [real, imaginary]. Bit 0 of an index is the
first qubit that a matrix acts on.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import channel
from noise_models.calibration import ZZCoupling, acting_zz_khz
from noise_models.strict_json import NoiseError, SnapshotError, short_repr

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
    """Readout error of single qubits, or of qubits that are read together.

    `confusion`: [2^k][2^k], row read, column true; it replaces p01 and p10. `qubits=()`: one entry
    for all qubits without an entry of their own.
    """

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
        raise NoiseError(
            f"{fields[0]} of {built.num_qubits} qubits for {num_qubits}",
            hint="name the operands or qubits that the channel acts on",
        )
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
            raise NoiseError(
                f"Pauli {name[:20]!r}", hint="names of one length: X on one qubit, XI on two"
            )
        # The last letter acts on the first qubit, the low base-4 digit.
        weights[sum(letters.index(each) * 4**k for k, each in enumerate(reversed(name)))] = (
            probability
        )
    if not (weights >= 0.0).all() or abs(weights.sum() - 1.0) > _SUM_TOLERANCE:
        raise NoiseError(
            f"Pauli probabilities of sum {weights.sum():.12g}",
            hint="probabilities >= 0 whose sum is 1, that of I included",
        )
    return channel.from_paulis(weights / weights.sum())


# Ranges and consistency of a custom model.

MAX_QUBITS = 10_000
MAX_ENTRIES = 1_000_000
MAX_READ_TOGETHER = 8
_MAX_NS = 1e12
_TOLERANCE = 1e-9
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def check(model: CustomModel) -> None:
    """Raise SnapshotError at the first value that is wrong."""
    if model.format != FORMAT:
        raise SnapshotError("format", f"{model.format} is not supported", hint=f"it is {FORMAT}")
    if not (0 < len(model.name) <= 100 and model.name.isprintable()):
        raise SnapshotError("name", short_repr(model.name), hint="1 to 100 printable characters")
    if not 0 <= model.num_qubits <= MAX_QUBITS:
        raise SnapshotError("num_qubits", short_repr(model.num_qubits), hint=f"0 to {MAX_QUBITS}")
    _number("dt_ns", model.dt_ns, _MAX_NS)
    _number("feed_forward_ns", model.feed_forward_ns, _MAX_NS)
    for field in ("channels", "idle", "readout", "durations", "zz"):
        entries: Sequence[object] = getattr(model, field)
        if len(entries) > MAX_ENTRIES:
            raise SnapshotError(field, f"{len(entries)} entries", hint=f"at most {MAX_ENTRIES}")
    for index, entry in enumerate(model.channels):
        _channel(f"channels[{index}]", entry, model.num_qubits)
    seen: set[tuple[int, ...]] = set()
    for index, waiting in enumerate(model.idle):
        _qubits(f"idle[{index}].qubits", waiting.qubits, model.num_qubits)
        _times(f"idle[{index}]", waiting)
        _once(f"idle[{index}].qubits", waiting.qubits, seen)
    seen = set()
    for index, reading in enumerate(model.readout):
        _readout(f"readout[{index}]", reading, model.num_qubits)
        _once(f"readout[{index}].qubits", reading.qubits, seen)
    for index, duration in enumerate(model.durations):
        _gate(f"durations[{index}].gate", duration.gate)
        _qubits(f"durations[{index}].qubits", duration.qubits, model.num_qubits)
        _number(f"durations[{index}].duration_ns", duration.duration_ns, _MAX_NS)
    for index, zz in enumerate(model.zz):
        _qubits(f"zz[{index}].qubits", zz.qubits, model.num_qubits)
        if not abs(zz.rate_khz) <= 1e6:
            raise SnapshotError(
                f"zz[{index}].rate_khz", short_repr(zz.rate_khz), hint="at most 1e6"
            )


def _channel(field: str, entry: ChannelEntry, num_qubits: int) -> None:
    _gate(f"{field}.gate", entry.gate)
    if entry.gate == "measure":
        raise SnapshotError(
            f"{field}.gate",
            "a channel at a measurement",
            hint="give the error of a measurement in `readout`",
        )
    _qubits(f"{field}.qubits", entry.qubits, num_qubits)
    _qubits(f"{field}.device_qubits", entry.device_qubits, num_qubits)
    _qubits(f"{field}.operands", entry.operands, len(entry.qubits))
    if entry.operands and entry.device_qubits:
        raise SnapshotError(f"{field}.operands", "given with device_qubits", hint="give one")
    if entry.relaxation is not None:
        _times(f"{field}.relaxation", entry.relaxation)
    try:
        size = max(channel_size(entry), 0)
        acts = entry.device_qubits or entry.operands or entry.qubits
        if size == 0 or len(acts) > 2:
            size = len(acts) or 1
        if size > 2 or (acts and len(acts) != size):
            raise NoiseError(
                f"a channel of {size} qubits on {len(acts)}",
                hint="a channel acts on 1 or 2 qubits; choose them with operands",
            )
        entry_channel(entry, size, 0.0)
    except NoiseError as error:
        raise SnapshotError(field, error.message, hint=error.hint) from None
    if entry.gate in (PREPARATION, "reset") and size != 1:
        raise SnapshotError(f"{field}.gate", f"a channel of {size} qubits", hint="1 qubit")


def _readout(field: str, entry: ReadoutEntry, num_qubits: int) -> None:
    _qubits(f"{field}.qubits", entry.qubits, num_qubits)
    _number(f"{field}.p01", entry.p01, 1.0)
    _number(f"{field}.p10", entry.p10, 1.0)
    if not entry.confusion:
        return
    size = len(entry.confusion)
    width = len(entry.qubits) or 1
    if size != 1 << width or width > MAX_READ_TOGETHER:
        raise SnapshotError(
            f"{field}.confusion",
            f"{size} rows for {width} qubits",
            hint=f"2^k rows for k <= {MAX_READ_TOGETHER} qubits",
        )
    if any(len(row) != size for row in entry.confusion):
        raise SnapshotError(f"{field}.confusion", "not square", hint="rows of one length")
    values = np.array(entry.confusion, np.float64)
    if not ((values >= 0.0).all() and (np.abs(values.sum(axis=0) - 1.0) <= _TOLERANCE).all()):
        raise SnapshotError(
            f"{field}.confusion",
            "a column that is no distribution",
            hint="probabilities >= 0; each column, the true outcome, sums to 1",
        )


def _times(field: str, times: RelaxationTimes) -> None:
    for name in ("t1_us", "t2_us"):
        value = getattr(times, name)
        if value is not None and not 0.0 < value <= 1e15:
            raise SnapshotError(f"{field}.{name}", short_repr(value), hint="a time > 0, or null")
    _number(f"{field}.excited", times.excited, 1.0)


def _number(field: str, value: float, largest: float) -> None:
    if not (math.isfinite(value) and 0.0 <= value <= largest):
        raise SnapshotError(field, short_repr(value), hint=f"a number from 0 to {largest:g}")


def _gate(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SnapshotError(field, short_repr(name), hint="a gate's name as Qiskit has it")


def _qubits(field: str, qubits: tuple[int, ...], num_qubits: int) -> None:
    limit = num_qubits or MAX_QUBITS
    if len(set(qubits)) != len(qubits) or any(not 0 <= qubit < limit for qubit in qubits):
        raise SnapshotError(field, str(qubits)[:60], hint=f"different numbers below {limit}")


def _once(field: str, qubits: tuple[int, ...], seen: set[tuple[int, ...]]) -> None:
    if qubits in seen:
        raise SnapshotError(field, f"{str(qubits)[:60]} a second time", hint="one entry each")
    seen.add(qubits)
