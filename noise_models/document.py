"""Noise documents, and the models of channels that users define."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import custom, snapshot, strict_json
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.channel import Channel, Readout, product
from noise_models.confusion import scaled_readout
from noise_models.custom import aer
from noise_models.document_model import DocumentModel
from noise_models.model import LocatedChannel, NoiseModel, located
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError, SnapshotError

# Noise model of channels that the user defines.

_UNUSED = ("gate.depolarizing", "gate.coherent", "qubit.relaxation")
_Key = tuple[str, tuple[int, ...]]


class ChannelModel(DocumentModel):
    """Noise of a custom model; see `NoiseModel` for the methods. Factors of `gate`,
    `qubit.preparation` and `qubit.reset` are probabilities, 0 to 1, that a channel of the document
    acts. Factors of `qubit.idle`, `qubit.thermal`, `gate.crosstalk` and `qubit.readout` scale rates
    and probabilities."""

    VERSION = b"simenv channels 1"

    def __init__(self, document: custom.CustomModel, options: NoiseOptions) -> None:
        """Check the options. Raises NoiseError for options that a model of channels cannot
        apply."""
        _check_options(options)
        super().__init__(document, options, map(_relaxes, document.idle))
        self.document = document
        self._entries: dict[_Key, list[custom.ChannelEntry]] = {}
        for entry in document.channels:
            self._entries.setdefault((entry.gate, entry.qubits), []).append(entry)
        self._durations = {
            (each.gate, each.qubits): each.duration_ns for each in document.durations
        }
        self._times: dict[int | None, custom.IdleEntry] = {}
        for waiting in document.idle:
            for qubit in waiting.qubits or (None,):
                self._times[qubit] = waiting

    def preparation(self, qubit: int) -> Channel | None:
        """Return the channel on |0> at the start of a circuit."""
        return self._single(custom.PREPARATION, qubit, "qubit.preparation")

    def after_reset(self, qubit: int) -> Channel | None:
        """Return the channel after a reset."""
        return self._single("reset", qubit, "qubit.reset")

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the document's duration for a gate on these qubits, or else for the gate on all
        qubits."""
        result = self._durations.get((name, qubits))
        return self._durations.get((name, ()), 0.0) if result is None else result

    def _compute(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the document's channels for a gate on these qubits, or else for the gate on all
        qubits."""
        given = () if name == custom.PREPARATION else self._matching_entries(name, qubits)
        built = [self._located(entry, qubits, "gate") for entry in given]
        return tuple(each for part in built for each in part)

    def _relax(self, qubit: int, duration_ns: float) -> Channel | None:
        times = self._times.get(qubit) or self._times.get(None)
        if times is None or not _relaxes(times) or duration_ns <= 0.0:
            return None
        return custom.relaxed(self._heated(times), duration_ns)

    def _matching_entries(self, name: str, qubits: tuple[int, ...]) -> list[custom.ChannelEntry]:
        return self._entries.get((name, qubits)) or self._entries.get((name, ())) or []

    def _single(self, name: str, qubit: int, component: str) -> Channel | None:
        located = [
            each
            for entry in self._matching_entries(name, (qubit,))
            for each in self._located(entry, (qubit,), component)
        ]
        return product(*(each.channel for each in located))

    def _located(
        self, entry: custom.ChannelEntry, qubits: tuple[int, ...], component: str
    ) -> tuple[LocatedChannel, ...]:
        """Return an entry's channel on the qubits of a gate. Raises NoiseError for a wrong size or
        value, which names the gate."""
        acts = entry.device_qubits or tuple(
            qubits[k] for k in entry.operands or range(len(qubits)) if k < len(qubits)
        )
        size = custom.channel_size(entry) or len(acts)
        if size != len(acts) or size not in (1, 2):
            text = f"a channel of {size} qubits after {entry.gate} on {qubits}"
            raise NoiseError(text, hint="choose the operands that the channel acts on")
        duration = self.duration_ns(entry.gate, qubits)
        if entry.relaxation is not None:
            entry = msgspec.structs.replace(entry, relaxation=self._heated(entry.relaxation))
        try:
            built = custom.entry_channel(entry, size, duration)
        except NoiseError as error:
            text = f"a channel after {entry.gate} on {qubits}: {error.message}"
            raise NoiseError(text, hint=error.hint) from None
        share = self.options.factor(component)
        if share < 1.0:
            built = Channel((1.0 - share) * np.eye(4**size) + share * built.ptm)
        return located(acts, built)

    def _heated(self, times: custom.RelaxationTimes) -> custom.RelaxationTimes:
        """Return relaxation times with the factor of the thermal population applied."""
        excited = min(times.excited * self.options.factor("qubit.thermal"), 1.0)
        return custom.RelaxationTimes(t1_us=times.t1_us, t2_us=times.t2_us, excited=excited)

    def _compute_readout(self) -> Readout | None:
        """Return the confusion; the last entry of a model for any number of qubits holds for all
        that no entry names."""
        named = [qubit for entry in self.document.readout for qubit in entry.qubits]
        measured = np.zeros((self.num_qubits or max(named, default=-1) + 2, 2))
        together: list[tuple[tuple[int, ...], NDArray[np.float64]]] = []
        # The entry of all qubits first.
        for entry in sorted(self.document.readout, key=lambda each: len(each.qubits) > 0):
            confusion = np.array(entry.confusion, np.float64)
            if len(confusion) > 2:
                together.append((entry.qubits, confusion))
                continue
            single = (
                (confusion[1, 0], confusion[0, 1]) if len(confusion) else (entry.p01, entry.p10)
            )
            chosen = list(entry.qubits) if entry.qubits else slice(None)
            measured[chosen] = single
        return scaled_readout(measured, together, self.options)


def _relaxes(times: custom.RelaxationTimes) -> bool:
    return times.t1_us is not None or times.t2_us is not None


def _check_options(options: NoiseOptions) -> None:
    """Raise NoiseError for options that a model of channels cannot apply."""
    if options.recipe != "simenv":
        hint = "a recipe makes channels of a calibration snapshot; this model has its channels"
        raise NoiseError(f"recipe {options.recipe} of a custom noise model", hint=hint)
    unused = [name for name, _ in (*options.factors, *options.values) if name in _UNUSED]
    unused += [name for name, _ in options.values]
    if unused:
        hint = "scale its channels with gate, qubit.idle, qubit.thermal, qubit.readout"
        raise NoiseError(f"noise option {unused[0]} of a custom noise model", hint=hint)
    for component in ("gate", "qubit.preparation", "qubit.reset"):
        if options.factor(component) > 1.0:
            text = f"factor {options.factor(component)} of {component} in a custom noise model"
            raise NoiseError(text, hint="given channels act with a probability of 0 to 1")


# Noise documents: calibration snapshots and custom models, as the JSON that is stored and sent.

Document = CalibrationSnapshot | custom.CustomModel

_DEFAULT = NoiseOptions()


def load(data: bytes) -> Document:
    """Read a document from its JSON. Raises SnapshotError, which names the field."""
    return from_values(strict_json.parse(data))


def from_values(values: Any) -> Document:
    """Build a document from parsed JSON, or a custom model from that of Aer's
    `NoiseModel.to_dict(serializable=True)`. Raises SnapshotError."""
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind == "snapshot":
        return snapshot.from_values(values)
    if kind == "channels":
        result = strict_json.converted(values, custom.CustomModel)
        custom.check(result)
        return result
    if isinstance(values, dict) and kind is None and "errors" in values:
        return aer.from_aer(values)
    text = f"{strict_json.short_repr(kind)} is no kind of noise document"
    hint = "snapshot (calibration data) or channels (a custom noise model)"
    raise SnapshotError("kind", text, hint=hint)


def dump(document: Document) -> bytes:
    """Return the canonical JSON of a document: equal documents, equal bytes. Raises
    SnapshotError."""
    if isinstance(document, CalibrationSnapshot):
        return snapshot.dump(document)
    custom.check(document)
    return msgspec.json.encode(document, order="deterministic")


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of canonical JSON, 32 bytes; it identifies the document."""
    return hashlib.sha256(data).digest()


def model(document: Document, options: NoiseOptions = _DEFAULT) -> NoiseModel:
    """Build the noise model of a document with these options. Raises NoiseError."""
    if isinstance(document, custom.CustomModel):
        return ChannelModel(document, options)
    if document.analog is not None:
        hint = "a device of gates"
        text = f"device {document.name} runs pulse sequences, no circuits"
        raise NoiseError(text, hint=hint)
    return build(document, options)
