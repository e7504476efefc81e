"""The class DEFw offers, under the module name its clients look for."""

from __future__ import annotations

from simenv.frontends.qfw import served


class QPM(served.base()):  # type: ignore[misc]
    """Of the revision this DEFw speaks; see `simenv.frontends.qfw.served`."""
