"""Load admission and its kernels in a thread while workers start.

Invariant: no module with kernels is imported before `warmup.prepare` has set the kernel folder. The
event loop runs meanwhile; submits wait for admission.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.compiler import warmup

if TYPE_CHECKING:
    from simenv.config import Config
    from simenv.scheduler.routing.capacity import Capacity
    from simenv.scheduler.routing.engine_support import RoutingSnapshot
    from simenv.service.admission.controller import AdmissionController
    from simenv.service.devices.resolve import EmulatedDevices


log = logging.getLogger("simenv.service")


class Warmup:
    """Thread that loads admission and its kernels. `cold`: kernels are not compiled yet.

    The kernels for wide circuits are loaded last. Where they are not compiled yet, the first wide
    circuits are checked outside the loop, see `RunningChecks`.
    """

    def __init__(self, kernels: Path) -> None:
        self.cold = False
        self._kernels = kernels
        self._error: BaseException | None = None
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loading", daemon=True)
        self._thread.start()

    def over(self) -> bool:
        """Return whether admission is loaded. Raises the error of the thread."""
        if not self._loaded.is_set():
            return False
        if self._error is not None:
            raise self._error
        return True

    def _run(self) -> None:
        try:
            warmup.prepare(self._kernels)
            self.cold = not warmup.is_compiled(self._kernels)
            warmup.compile_groups(self._kernels, "admission")
            from simenv.service.queries import engines  # noqa: F401 - loads admission
        except BaseException as error:  # noqa: BLE001 - the loop's thread raises it
            self._error = error
        self._loaded.set()
        if self._error is None:
            try:
                warmup.load_stored("light_cone")
            except Exception as error:  # noqa: BLE001 - the first wide circuit tries again
                log.warning("kernels for wide circuits are not loaded: %s", error)


def admission(
    config: Config,
    capacity: Callable[[], Capacity],
    snapshot: Callable[[], RoutingSnapshot],
    devices: EmulatedDevices | None,
) -> AdmissionController:
    """Create the admission controller, after all is loaded. `capacity`, `snapshot` (take_snapshot),
    `devices`: as for `AdmissionController`."""
    from simenv.service.admission.controller import AdmissionController

    return AdmissionController(config.pools, capacity, snapshot, devices)


def load_noise_checks() -> None:
    """Load the compiled kernels that the first circuit for a device needs, and let helpers compile
    those of its worker."""
    warmup.want("noise")
    warmup.load_stored("attachment")
    from simenv.service.devices import context  # noqa: F401 - loads the checks
