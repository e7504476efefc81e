"""Measured counts of one circuit, and a set of them.

A row of a file is one run of one circuit. Runs of one circuit text share a `MeasuredCircuit`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from noise_models.drift import moment_s
from simenv.errors import SimenvError

if TYPE_CHECKING:
    from simenv.client.circuits import PackedCircuit

FORMAT = 1
KIND = "simenv-counts"


class DataError(SimenvError):
    """Measured counts cannot be read; the message names file, line and field."""

    code = "data"
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class MeasuredCircuit(msgspec.Struct, frozen=True, eq=False):
    """Circuit of one text."""

    text: str  # OpenQASM
    loaded: PackedCircuit
    num_clbits: int
    body: str  # hash of the circuit without its last gates on single qubits
    written_clbits: int = -1  # bit k for clbit k; the others stay 0


class CountsRecord(msgspec.Struct, frozen=True, eq=False):
    """Counts of one run; bit k of an outcome is clbit k."""

    source: MeasuredCircuit
    counts: dict[int, int]
    shots: int
    name: str = ""
    time_s: float = math.nan  # since 1970; nan: not known
    layout: tuple[int, ...] = ()  # the device's qubit of each qubit of the circuit; (): not known
    body: str = ""  # circuits of one body are never on both sides of a split
    job: str = ""
    is_test: bool = False  # never used by a fit
    level: int = -1  # of Qiskit's transpiler that compiled it for the device; -1: not known
    place: str = ""  # file and line
    family: str = ""  # circuits of one kind, such as those of one algorithm

    @property
    def label(self) -> str:
        """Text that names the row in an error."""
        name = f"circuit {self.name or self.source.body}"
        return f"{self.place}: {name}" if self.place else name


class CountsData(msgspec.Struct, frozen=True, eq=False):
    """All runs of a file."""

    records: tuple[CountsRecord, ...]
    device: str = ""  # named in the file
    digest: str = ""  # SHA-256 of the file, hexadecimal
    warnings: tuple[tuple[str, int], ...] = ()  # text, number of rows

    def part(self, *, test: bool) -> CountsData:
        """Rows of one side of the split that the file states."""
        rows = tuple(each for each in self.records if each.is_test == test)
        return msgspec.structs.replace(self, records=rows)

    def warned(self, text: str, rows: int) -> CountsData:
        """Copy of the data with one more warning, if it concerns any row."""
        if not rows:
            return self
        return msgspec.structs.replace(self, warnings=(*self.warnings, (text, rows)))


def dates_before(data: CountsData, calibrated: str) -> int:
    """Number of rows that were measured before the calibration; 0 if its time is unknown."""
    if not calibrated:
        return 0
    try:
        limit_s = moment_s(calibrated)
    except ValueError:
        return 0
    return sum(each.time_s < limit_s for each in data.records)


def dates_after(data: CountsData, now_s: float) -> int:
    """Number of rows that are dated after a time."""
    return sum(each.time_s > now_s for each in data.records)


def written_clbits(loaded: PackedCircuit) -> int:
    """Clbits that a circuit may write, bit k for clbit k; -1: all."""
    program = loaded.program
    if "store" in program.names:
        return -1
    return sum(1 << clbit for clbit in set(np.frombuffer(program.clbits, np.uint16).tolist()))


def body_of(loaded: PackedCircuit) -> str:
    """Hash of a circuit without the gates on single qubits that end it.

    Circuits that differ in the basis of their measurements have the same body: a split that
    separated them would train a model on its own test circuits.
    """
    program = loaded.program
    arities = np.frombuffer(program.arities, np.uint16).reshape(-1, 3).astype(np.int64)
    ops = np.frombuffer(program.ops, np.uint16)
    rows = arities[ops]
    begins = np.cumsum(rows, axis=0) - rows
    qubits = np.frombuffer(program.qubits, np.uint16)
    params = np.frombuffer(program.params, np.float64)
    open_ends = set(range(program.num_qubits))
    kept: list[bytes] = []
    for k in range(len(ops) - 1, -1, -1):
        name, count = program.names[ops[k]], int(rows[k, 0])
        mine = qubits[begins[k, 0] : begins[k, 0] + count].tolist()
        if name in ("measure", "barrier"):
            continue
        if count == 1 and mine[0] in open_ends:
            continue
        open_ends.difference_update(mine)
        angles = np.round(params[begins[k, 2] : begins[k, 2] + int(rows[k, 2])], 9)
        kept.append(f"{name}{mine}{angles.tolist()}".encode())
    return hashlib.sha256(b"\n".join(kept)).hexdigest()[:16]


def merged(counts: Mapping[int, int], more: Mapping[int, int]) -> dict[int, int]:
    """Sum of two counts."""
    return dict(Counter(counts) + Counter(more))
