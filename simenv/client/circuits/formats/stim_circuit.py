"""Circuits of stim, told apart from others. Invariant: stim is not imported here."""

from __future__ import annotations

from typing import Any


def is_stim(circuit: Any) -> bool:
    """Whether it is a stim.Circuit."""
    kind = type(circuit)
    return kind.__name__ == "Circuit" and kind.__module__.partition(".")[0] in ("stim", "_stim")
