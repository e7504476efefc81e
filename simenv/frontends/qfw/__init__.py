"""QPM of QFw over an environment: implementation of the service package `services/svc_simenv_qpm`.

An import loads no other module. DEFw's own modules are reached through `defw` alone, and only where
they are needed, so that all modules can be imported outside a DEFw too.
"""

from __future__ import annotations

from pathlib import Path

PLUGIN = Path(__file__).parent
SERVICES = PLUGIN / "services"  # entry for DEFW_EXTERNAL_SERVICES_PATH
STARTUP = PLUGIN / "startup"  # entry for PYTHONPATH: the send lock in all processes
