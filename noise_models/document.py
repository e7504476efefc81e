"""Noise documents: calibration snapshots and custom models, as the JSON that is stored and sent."""

from __future__ import annotations

import hashlib
from typing import Any

from noise_models import custom, snapshot, strict_json
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.custom import CustomModel
from noise_models.custom.model import ChannelModel
from noise_models.errors import SnapshotError
from noise_models.model import NoiseModel
from noise_models.options import NoiseOptions

Document = CalibrationSnapshot | CustomModel

_DEFAULT = NoiseOptions()


def load(data: bytes) -> Document:
    """Read a document from its JSON, or from the JSON of an Aer noise model (see `custom.load`).

    Raises SnapshotError, which names the field.
    """
    return from_values(strict_json.parse(data))


def from_values(values: Any) -> Document:
    """Build a document from parsed JSON. Raises SnapshotError."""
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind == "snapshot":
        return snapshot.from_values(values)
    if kind == "channels" or (kind is None and isinstance(values, dict) and "errors" in values):
        return custom.from_values(values)
    raise SnapshotError(
        "kind",
        f"{strict_json.short_repr(kind)} is no kind of noise document",
        hint="snapshot (calibration data) or channels (a custom noise model)",
    )


def dump(document: Document) -> bytes:
    """Return the canonical JSON of a document: equal documents, equal bytes. Raises
    SnapshotError."""
    if isinstance(document, CustomModel):
        return custom.dump(document)
    return snapshot.dump(document)


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of canonical JSON, 32 bytes; it identifies the document."""
    return hashlib.sha256(data).digest()


def model(document: Document, options: NoiseOptions = _DEFAULT) -> NoiseModel:
    """Build the noise model of a document with these options. Raises NoiseError."""
    if isinstance(document, CustomModel):
        return ChannelModel(document, options)
    return build(document, options)
