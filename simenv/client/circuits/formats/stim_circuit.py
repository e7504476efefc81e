"""Recognition of stim circuits. Invariant: this module does not import stim."""

from __future__ import annotations

from typing import Any


def is_stim(circuit: Any) -> bool:
    """Return whether an object is a stim.Circuit."""
    kind = type(circuit)
    return kind.__name__ == "Circuit" and kind.__module__.partition(".")[0] in ("stim", "_stim")
