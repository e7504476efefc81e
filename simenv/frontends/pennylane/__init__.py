"""PennyLane: the device `qml.device("simenv")`, registered by its entry point."""

from simenv.frontends.pennylane.device import SimenvDevice

__all__ = ["SimenvDevice"]
