"""Look-up of simenv's QPM by an application of either revision."""

from typing import Any


def connect() -> tuple[Any, bool]:
    """Connect to the QPM, in revision 2 to its binding `execution`; return it, and whether this is
    revision 1."""
    try:
        from qfw_qiskit.qfw_lookup_service import get_qpm
    except ImportError:
        from defw_app_util import defw_connect_service_by_name, defw_get_directory_service

        directory = defw_get_directory_service()
        settings = {"service_type": "qfw.qpm", "binding_name": "execution"}
        return defw_connect_service_by_name(directory, "QPM", **settings)[0], False
    return get_qpm(), True
