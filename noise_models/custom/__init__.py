"""Noise models that users describe by channels: strict reading, and export as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from noise_models import strict_json
from noise_models.custom.aer import from_aer
from noise_models.custom.entries import (
    PREPARATION,
    ChannelEntry,
    CustomModel,
    DurationEntry,
    IdleEntry,
    ReadoutEntry,
    RelaxationTimes,
    check,
)
from noise_models.strict_json import SnapshotError

__all__ = [
    "PREPARATION",
    "ChannelEntry",
    "CustomModel",
    "DurationEntry",
    "IdleEntry",
    "ReadoutEntry",
    "RelaxationTimes",
    "check",
    "dump",
    "from_aer",
    "from_values",
    "load",
]


def load(data: bytes) -> CustomModel:
    """Read a model from its JSON, or from the JSON of Aer's
    `NoiseModel.to_dict(serializable=True)`.

    Raises SnapshotError, which names the field.
    """
    return from_values(strict_json.parse(data))


def from_values(values: Any) -> CustomModel:
    """Build a model from parsed JSON. Raises SnapshotError."""
    if isinstance(values, dict) and "kind" not in values and "errors" in values:
        return from_aer(values)
    if not isinstance(values, dict) or values.get("kind") != "channels":
        raise SnapshotError(
            "kind", "the document is not a noise model", hint='it has "kind": "channels"'
        )
    try:
        result = msgspec.convert(values, CustomModel)
    except msgspec.ValidationError as error:
        raise strict_json.type_error(error, CustomModel) from None
    check(result)
    return result


def dump(model: CustomModel) -> bytes:
    """Check a model and return its canonical JSON. Raises SnapshotError."""
    check(model)
    return msgspec.json.encode(model, order="deterministic")
