"""The pool as a QPM of QFw's: what stands behind the service package `services/svc_simenv_qpm`.

Importing this loads nothing. DEFw's own modules are reached through `host` alone, and only where
they are needed, so that everything here can be imported outside a DEFw too.
"""

from __future__ import annotations

from pathlib import Path

PLUGIN = Path(__file__).parent
SERVICES = PLUGIN / "services"  # belongs on DEFW_EXTERNAL_SERVICES_PATH
