"""PennyLane: the device `qml.device("simenv")`, which its entry point names."""

from __future__ import annotations

from simenv.frontends.pennylane.device import SimenvDevice

__all__ = ["SimenvDevice"]
