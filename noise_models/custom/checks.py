"""Ranges and consistency of a custom model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from noise_models.custom.channels import channel_size, entry_channel
from noise_models.custom.entries import (
    FORMAT,
    PREPARATION,
    ChannelEntry,
    CustomModel,
    ReadoutEntry,
    RelaxationTimes,
)
from noise_models.errors import NoiseError, SnapshotError
from noise_models.strict_json import short_repr

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
