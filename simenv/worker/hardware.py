"""The hardware of a worker: one backend, created by its provider, and the backend's description.

Invariant: the provider's module is searched after all installed packages, so that no file of a
user replaces a module of ours.
"""

from __future__ import annotations

import importlib
import os
import traceback
from typing import TYPE_CHECKING, Any

from simenv.config.pools import QRMI
from simenv.errors import ConfigError
from simenv.model.devices import DeviceInfo, DeviceKind, GateInfo, OperationInfo, QubitInfo
from simenv.process import import_also_from, log_line
from simulators import registry
from simulators.engine import EngineContext
from simulators.errors import MachineFailed

if TYPE_CHECKING:
    from simulators.hardware.engine import HardwareEngine

_CHARS = 300  # of the error of a factory, which becomes the reason of the pool's state


class HardwareSession:
    """The machine of this worker, and its last description."""

    def __init__(self, engine: HardwareEngine, pool: str) -> None:
        self.engine = engine
        self._pool = pool
        self._reported: object | None = None  # the Target that was described

    @classmethod
    def of(cls, provider: str, folders: str, worker: str) -> HardwareSession:
        """Create the session of a provider's machine; see `create_engine`."""
        return cls(create_engine(provider, folders), worker.rpartition("-")[0])

    def changed_info(self) -> DeviceInfo | None:
        """Return the description of the machine at first and after each change of its Target; else
        None. Raises ConfigError if the first description fails."""
        try:
            target = self.engine.target
        except MachineFailed as error:
            if self._reported is None:
                raise ConfigError(error.message) from error
            log_line(error.message)
            return None
        if target is self._reported:
            return None
        self._reported = target
        return device_info(self.engine, self._pool)


def create_engine(provider: str, folders: str) -> HardwareEngine:
    """Create the engine for the backend that `module:factory` returns, or for the resource of
    QRMI that `qrmi:NAME` names. `folders`: folders to search
    for the module after the installed packages, as in PYTHONPATH. Raises ConfigError for any error
    of the factory, with a message of one line, which becomes the reason of the pool's state."""
    import_also_from(folders)
    module, _, factory = provider.partition(":")
    try:
        if module == QRMI:
            from simulators.hardware import qrmi_resource

            backend: Any = qrmi_resource.machine(factory)
        else:
            backend = getattr(importlib.import_module(module), factory)()
        if not callable(getattr(backend, "run", None)) or not hasattr(backend, "target"):
            raise TypeError(f"it returned a {type(backend).__name__}, no BackendV2 of Qiskit")
        engine: HardwareEngine = registry.create(  # type: ignore[assignment]
            "hardware", EngineContext(backend=backend)
        )
        engine.warm_up()
    except Exception as error:  # a provider may raise anything
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())[:_CHARS]
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            searched = ", ".join(filter(None, folders.split(os.pathsep)))
            message += f", neither in the packages nor in {searched or 'a folder of PYTHONPATH'}"
        raise ConfigError(f"provider {provider}: {message}") from error
    return engine


def device_info(engine: HardwareEngine, pool: str) -> DeviceInfo:
    """Return the description of the machine as a DeviceInfo."""
    from simulators.hardware.engine import describe

    output = describe(engine.backend, engine.target)
    target = output.target
    return DeviceInfo(
        name=pool,
        kind=DeviceKind.HARDWARE,
        provider=output.provider,
        model=output.model,
        version=output.version,
        technology=output.technology,
        num_qubits=target.num_qubits,
        max_shots=output.max_shots,
        gates=tuple(GateInfo(gate.name, gate.qubits, gate.params) for gate in target.gates),
        all_to_all=target.all_to_all,
        directed=target.directed,
        coupling=target.coupling,
        operations=tuple(
            OperationInfo(each.name, each.qubits, each.error, each.duration_ns)
            for each in target.operations
        ),
        qubits=tuple(
            QubitInfo(
                each.t1_us, each.t2_us, each.frequency_ghz, each.readout_error, each.readout_ns
            )
            for each in target.qubits
        ),
        dynamic=target.dynamic,
        calibration_id=output.calibration_id,
        calibrated_s=output.calibrated_s,
        dt_ns=target.dt_ns,
    )
