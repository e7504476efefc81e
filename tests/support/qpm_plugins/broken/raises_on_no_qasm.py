"""Defect: async_run raises where the text is no OpenQASM at all."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def async_run(self, info, *given, **named):
        if "OPENQASM" not in info.get("qasm", ""):
            raise self.error("this is no circuit")
        return super().async_run(info, *given, **named)
