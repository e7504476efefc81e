"""Service class for DEFw, under the module name that its clients expect."""

from __future__ import annotations

from simenv.frontends.qfw import service


class QPM(service.base()):  # type: ignore[misc]
    """Class of the revision that this DEFw uses; see `simenv.frontends.qfw.service`."""
