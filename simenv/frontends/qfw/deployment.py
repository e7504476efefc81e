"""Settings of QFw's launcher for this process: reads QFW_* variables from a mapping. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

_YES, _NO = ("1", "true", "yes", "on", "y"), ("0", "false", "no", "off", "n")


class Deployment(msgspec.Struct, frozen=True):
    """Settings of a deployment; "" means not given. `registers`: True if the QPM registers with
    DEFw's directory. `serves`: True if the process is a service; QFw's launcher and applications
    load every service on the path and are none."""

    service_id: str = ""
    device_id: str = ""
    target_id: str = ""
    registers: bool = True
    serves: bool = True
    ready_file: Path | None = None
    site_config: Path | None = None


def read(environ: Mapping[str, str]) -> Deployment:
    """Read the variables. Never raises: an invalid value is ignored where it would be used."""
    ready, site = environ.get("QFW_SERVICE_READY_FILE"), environ.get("QFW_SITE_CONFIG")
    return Deployment(
        service_id=environ.get("QFW_QPM_SERVICE_ID", ""),
        device_id=environ.get("QFW_QPU_DEVICE_ID", ""),
        target_id=environ.get("QFW_QPM_TARGET_ID", ""),
        registers=_registers(environ),
        serves=environ.get("DEFW_AGENT_TYPE", "") in ("", "service"),
        ready_file=Path(ready) if ready else None,
        site_config=Path(site) if site else None,
    )


def _registers(environ: Mapping[str, str]) -> bool:
    """Return the explicit setting; else False if clients come without a directory, and False for a
    long-running QPM without a site's directory."""
    said = environ.get("QFW_QPM_REGISTER_WITH_DIRSVC", "").strip().lower()
    if said in (*_YES, *_NO):
        return said in _YES
    if environ.get("QFW_QPM_DIRECT_ENDPOINT_FALLBACK", "").strip().lower() in _YES:
        return False
    is_long = environ.get("QFW_QPM_OPERATION_MODE", "").strip().lower() == "long-running"
    return bool(environ.get("QFW_SITE_DIRSVC_ENDPOINTS", "").strip(" ,;")) if is_long else True
