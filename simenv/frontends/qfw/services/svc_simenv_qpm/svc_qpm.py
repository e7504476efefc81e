"""The class DEFw offers, under the module name its clients look for."""

from __future__ import annotations

from simenv.frontends.qfw import service_classes


class QPM(service_classes.base()):  # type: ignore[misc]
    """Of the revision this DEFw speaks; see `simenv.frontends.qfw.service_classes`."""
