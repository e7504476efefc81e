"""QPM of this process, and the functions that DEFw calls when it loads and ends the package.

Invariant: no connection is made before `initialize` or the first QPM that is to start; `initialize`
returns at once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from simenv.config.qpm import QPMConfig, read
from simenv.errors import ConfigError
from simenv.frontends.qfw import defw, deployment, send_lock, service_record
from simenv.frontends.qfw.environment import EnvironmentConnection
from simenv.frontends.qfw.event_endpoints import ClientEventQueues
from simenv.frontends.qfw.registration import LOOK_S, DirectoryRegistration, say_ready
from simenv.frontends.qfw.sessions import Sessions
from simenv.qpm.errors import NotReadyError, QPMError
from simenv.qpm.service import ServiceRecord

REACH_S = 60.0
log = logging.getLogger("simenv.qfw")


class Plugin:
    """QPM of one process. Thread-safe. `revision`: of the contract."""

    def __init__(self, environ: Mapping[str, str], revision: int) -> None:
        self.revision = revision
        self.deployed = deployment.read(environ)
        try:
            self.settings = read(environ)
        except ConfigError as error:
            log.error("%s", error)
            self.settings = QPMConfig(private=False, service_named=True)
            self.trouble = str(error)
        else:
            self.trouble = ""
        if self.settings.token_file is not None and revision == 1:
            self.trouble = (
                "SIMENV_QPM_TOKEN_FILE is set, but calls of revision 1 carry no token: nothing is "
                "served; unset it, or use a DEFw of revision 2"
            )
            log.error("%s", self.trouble)
        self.hub = EnvironmentConnection(self.settings, self.deployed.site_config)
        self.hub.why = self.trouble or self.hub.why
        self.ears = ClientEventQueues()
        self.sessions = Sessions(self.hub)
        self.registration = DirectoryRegistration(self._to_register, self.deployed.ready_file)
        self._kind: type | None = None
        self._ended = threading.Event()
        self._last: ServiceRecord | None = None

    @property
    def registers(self) -> bool:
        return self.revision == 2 and self.deployed.registers

    def initialize(self, kind: type) -> None:
        """Start in a thread, because DEFw is still being loaded; no effect in a process that is no
        service."""
        self._kind = kind
        if not self.deployed.serves:
            return
        threading.Thread(target=self._begin, name="simenv-qfw", daemon=True).start()

    def begin(self) -> None:
        """Start to connect; idempotent. Raises QPMError if a variable is invalid."""
        send_lock.install()
        self._begin_hub()

    def close(self) -> None:
        """Leave the directory and close the connection."""
        self._ended.set()
        self.registration.leave()
        self.hub.close()

    def record(self, kind: type) -> ServiceRecord:
        """Service record of this class, also before the connection."""
        return service_record.completed(
            self._service_record(), kind, self.settings, self.deployed, self.revision
        )

    def is_registered(self) -> bool:
        """Return whether the QPM is in the directory, or must not be there."""
        return not self.registers or self.registration.done

    def _begin(self) -> None:
        while not self._ended.wait(LOOK_S) and not defw.is_up():
            pass
        try:
            self._begin_hub()
            if self.registers:
                self.registration.serve()
            else:
                self._say_ready()
        except QPMError as error:
            log.error("%s", error)
        except Exception:
            log.exception("the QPM cannot be begun")

    def _say_ready(self) -> None:
        """Write the ready file once the environment is connected, however long that takes."""
        while not self._ended.is_set():
            try:
                self.hub.wait(REACH_S)
            except NotReadyError as error:
                log.warning("%s", error)
            else:
                say_ready(self.deployed.ready_file)
                return

    def _begin_hub(self) -> None:
        if self.trouble:
            raise QPMError(self.trouble)
        if not self.deployed.serves:
            raise QPMError(
                "this process is not a DEFw service",
                hint="DEFW_AGENT_TYPE=service",
            )
        self.hub.begin()

    def _to_register(self) -> ServiceRecord | None:
        if self._kind is None or self.hub.qpm is None:
            return None
        record = self.record(self._kind)
        width = (record.properties or {}).get("num_qubits", 0)
        return record if width else None  # None: a machine whose description has not arrived

    def _service_record(self) -> ServiceRecord | None:
        """Service record from the environment; the last one if the environment does not answer."""
        qpm = self.hub.qpm
        if qpm is not None:
            try:
                self._last = qpm.query()
            except QPMError as error:
                log.info("the environment does not answer: %s", error)
        return self._last


_making = threading.Lock()
_plugin: Plugin | None = None


def the_plugin() -> Plugin:
    """Plugin of this process; made at the first call."""
    global _plugin
    with _making:
        if _plugin is None:
            _plugin = Plugin(os.environ, defw.revision())
        return _plugin


def initialize(kind: type) -> None:
    """Start the plugin; DEFw calls it after the import of the package."""
    the_plugin().initialize(kind)


def uninitialize() -> None:
    """End the plugin; DEFw calls it at an orderly exit."""
    the_plugin().close()
