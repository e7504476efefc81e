"""simenv's QPM as DEFw loads it: the folder is on DEFW_EXTERNAL_SERVICES_PATH (`simenv qfw path`).

DEFw imports this package by its bare name, `svc_simenv_qpm`; the implementation is in
`simenv.frontends.qfw`.
"""

from __future__ import annotations

from simenv.frontends.qfw import service
from simenv.frontends.qfw.service import instance_mode

from .svc_qpm import QPM

svc_info = {
    "name": "QPM",
    "module": __name__,
    "description": "simenv: an environment of resident simulators",
    "version": 1.0,
    "instance_mode": instance_mode(),
}
service_classes = [QPM]


def initialize() -> None:
    """Start the plugin while DEFw loads; slow work is done in a thread."""
    service.initialize(QPM)


def uninitialize() -> None:
    """End the plugin at DEFw's orderly exit."""
    service.uninitialize()
