"""Errors of noise models and calibration data."""

from __future__ import annotations


class NoiseError(ValueError):
    """Invalid channel, noise model or calibration; `hint` says what is valid."""

    code = "noise"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SnapshotError(NoiseError):
    """Invalid calibration data; `field` names the place, such as `qubits[3].T1`."""

    code = "calibration"

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, hint=hint)
        self.field = field
