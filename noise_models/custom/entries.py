"""Custom noise model as a document: channels per gate, defined by the user.

Matrices are lists of rows; an element is a number, or [real, imaginary]. Bit 0 of an index is the
first qubit that a matrix acts on.
"""

from __future__ import annotations

import hashlib

import msgspec

from noise_models.calibration import ZZCoupling, acting_zz_khz

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
