"""IBM's quantum compute API over an environment: programs of qiskit-ibm-runtime and QRMI run here
unchanged.

`endpoints`: the routes; `service`: what they do; `backends`, `answers`: forms of that API, pure;
`options`: options of the primitives; `jobs`: jobs and sessions as the service stores them;
`processes`, `job_messages`, `job_process`, `programs`, `executor`: where jobs are decoded and run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

    from simenv.gateway.context import Gateway


def routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    """Return the routes. A job process, which imports this package too, does not load them."""
    from simenv.gateway.ibm.endpoints import routes as of_gateway

    return of_gateway(gateway)
