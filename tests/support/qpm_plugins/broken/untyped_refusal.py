"""Defect: a field of a wrong type is met by a KeyError or TypeError, wherever it strikes."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def _read(self, info):
        return {
            "text": info["qasm"].strip(), "shots": int(info["num_shots"]),
            "amplitudes": bool(info.get("return_statevector")),
        }  # fmt: skip
