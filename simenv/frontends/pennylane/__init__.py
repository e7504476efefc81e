"""PennyLane: the device `qml.device("simenv")`, registered by its entry point."""

from __future__ import annotations

from simenv.frontends.pennylane.device import SimenvDevice

__all__ = ["SimenvDevice"]
