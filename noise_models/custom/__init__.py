"""Noise models that users describe by channels: strict reading."""

from __future__ import annotations

from typing import Any

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
    "from_aer",
    "from_values",
]


def from_values(values: Any) -> CustomModel:
    """Build a model from parsed JSON, or from that of Aer's
    `NoiseModel.to_dict(serializable=True)`. Raises SnapshotError, which names the field."""
    if isinstance(values, dict) and "kind" not in values and "errors" in values:
        return from_aer(values)
    if not isinstance(values, dict) or values.get("kind") != "channels":
        raise SnapshotError(
            "kind", "the document is not a noise model", hint='it has "kind": "channels"'
        )
    result = strict_json.converted(values, CustomModel)
    check(result)
    return result
