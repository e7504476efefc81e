"""`qml.device("simenv")`: runs PennyLane's circuits on the workers of an environment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.devices import Device, ExecutionConfig, MCMConfig
from pennylane.devices.modifiers import simulator_tracking, single_tape_support
from pennylane.exceptions import DeviceError
from pennylane.measurements import SampleMeasurement

from simenv.client.client import Client, connect
from simenv.client.submission.options import (
    DEFAULTS,
    PlacementOptions,
    ProgramOptions,
    checked_options,
)
from simenv.frontends.pennylane.connection import shared_client
from simenv.frontends.pennylane.execution import BatchExecutor
from simenv.frontends.pennylane.measurements import SHADOWS
from simenv.frontends.pennylane.preprocessing import MID_MEASURE, NAME, has_adjoint, pipeline
from simenv.model.devices import DeviceKind

# Options of `Client.submit` that hold for all tapes of a device.
_OPTIONS = (ProgramOptions.__optional_keys__ | PlacementOptions.__optional_keys__ | {"options"}) - {
    *("after", "idempotency_key", "qubit_mapping")
}
_NATIVE = ("device", "one-shot", "tree-traversal")  # methods that one dynamic circuit serves


@simulator_tracking
@single_tape_support
class SimenvDevice(Device):  # type: ignore[misc]
    """Runs tapes in an environment of simenv.

    `wires`: number or labels; None: those of each tape. `shots`: None is exact; better set with
    `qml.set_shots`. `env`: a Client, or the name of an environment that is up; None: the one that
    SIMENV_SERVICE names, else `default`, else a private one that ends with this process. `device`:
    the name of an emulated device, whose noise the results then have; all further options are those
    of `Client.submit`. `seed`: whole number that determines all random numbers; "global": from
    NumPy's generator; None: from the system.

    A batch of tapes is one message; tapes that differ in their angles alone, such as those of a
    parameter shift and of broadcasting, are bindings of one program. Gradients of expectation
    values are exact by the adjoint method on an ideal device, by parameter shifts elsewhere.
    Mid-circuit measurements and conditions run as dynamic circuits. Raises OptionError,
    NoServiceError.
    """

    def __init__(
        self,
        wires: Any = None,
        shots: Any = None,
        *,
        env: Client | str | None = None,
        seed: Any = "global",
        **options: Any,
    ) -> None:
        super().__init__(wires=wires, shots=shots)
        if unknown := sorted(options.keys() - _OPTIONS):
            raise TypeError(f"there is no option {', '.join(unknown)}")
        self._options = {**{name: DEFAULTS[name] for name in _OPTIONS}, **options}
        checked_options(self._options)
        self._client = _client_of(env)
        rng = np.random.default_rng(np.random.randint(2**31 - 1) if seed == "global" else seed)
        labels = None if self.wires is None else self.wires.labels
        self._ideal = self._is_ideal()
        self._executor = BatchExecutor(self._client, self._options, labels, rng)

    @property
    def name(self) -> str:
        """Name of the device: simenv."""
        return NAME

    @property
    def client(self) -> Client:
        """Connection that sends the tapes."""
        return self._client

    def _is_ideal(self) -> bool:
        """Return whether the state is pure: the device has no noise and is no machine."""
        values = self._options
        if values["device"] or values["prefer"] or values["noise"] not in ("auto", "off"):
            return False
        if not values["pool"]:
            return True
        pool = self._client.devices().get(values["pool"])
        return pool is not None and pool.kind is DeviceKind.IDEAL

    # --- preparation of tapes -------------------------------------------------------------------

    def supports_derivatives(
        self, execution_config: ExecutionConfig | None = None, circuit: Any = None
    ) -> bool:
        """Return whether adjoint gradients are available: first order, exact, of expectation values
        of Pauli sums, without noise."""
        if execution_config is None:
            return True
        method, order = execution_config.gradient_method, execution_config.derivative_order
        if not self._ideal or method not in ("best", "adjoint", "device") or order != 1:
            return False
        if circuit is None:
            return True
        if execution_config.mcm_config.mcm_method in _NATIVE and _has_mid_measurements(circuit):
            return False  # adjoint gradients need deferred measurements
        return has_adjoint(circuit, self.wires)

    def setup_execution_config(
        self, config: ExecutionConfig | None = None, circuit: Any = None
    ) -> ExecutionConfig:
        """Fill in the open fields. Raises DeviceError for settings that the device does not
        support."""
        config = config or ExecutionConfig()
        if config.device_options:
            raise DeviceError(
                f"device options {sorted(config.device_options)} are not known to {NAME}: it takes"
                " options where it is made, qml.device('simenv', ...)"
            )
        method = config.gradient_method
        if method in ("best", "device"):
            method = "adjoint"
        adjoint = method == "adjoint"
        result: ExecutionConfig = replace(
            config,
            gradient_method=method,
            use_device_gradient=adjoint
            if config.use_device_gradient is None
            else config.use_device_gradient,
            use_device_jacobian_product=False,
            grad_on_execution=adjoint
            if config.grad_on_execution is None
            else config.grad_on_execution,
            mcm_config=_mid_measurements(config.mcm_config, circuit, adjoint),
        )
        return result

    def preprocess_transforms(
        self, execution_config: ExecutionConfig | None = None
    ) -> qml.CompilePipeline:
        """Transforms that turn a tape into one that a program can represent."""
        config = execution_config or ExecutionConfig()
        return pipeline(
            self.wires,
            deferred=config.mcm_config.mcm_method == "deferred",
            adjoint=config.gradient_method == "adjoint",
            ideal=self._ideal,
        )

    # --- running ------------------------------------------------------------------------------

    def execute(
        self,
        circuits: Any,
        execution_config: ExecutionConfig | None = None,  # noqa: ARG002 - PennyLane gives it
    ) -> Any:
        """Run tapes; one result each. Raises SimenvError."""
        return self._executor.execute(circuits)

    def compute_derivatives(
        self,
        circuits: Any,
        execution_config: ExecutionConfig | None = None,  # noqa: ARG002 - PennyLane gives it
    ) -> Any:
        """Jacobian of each tape by its trainable parameters. Raises SimenvError."""
        return self._executor.derivatives(circuits)[1]

    def execute_and_compute_derivatives(
        self,
        circuits: Any,
        execution_config: ExecutionConfig | None = None,  # noqa: ARG002 - PennyLane gives it
    ) -> Any:
        """Results and Jacobians of tapes in one message. Raises SimenvError."""
        return self._executor.derivatives(circuits)


def _client_of(env: Client | str | None) -> Client:
    if isinstance(env, Client):
        return env
    return shared_client() if env is None else connect(env)


def _mid_measurements(config: MCMConfig, tape: Any, adjoint: bool) -> MCMConfig:
    """Choose the method of mid-circuit measurements: native, or deferred to the end of the
    circuit."""
    method, mode = config.mcm_method, config.postselect_mode
    if mode not in (None, "hw-like") and (tape is None or _postselects(tape)):
        raise DeviceError(
            f"postselect_mode={str(mode)!r} is not there on {NAME}: postselection discards shots,"
            " postselect_mode='hw-like'"
        )
    if method is None:
        method = "deferred" if adjoint or _needs_pure_state(tape) else "device"
    if method not in (*_NATIVE, "deferred"):
        raise DeviceError(
            f"mcm_method={str(method)!r} is not there on {NAME}: {', '.join(_NATIVE)}, deferred"
        )
    if method == "one-shot" and tape is not None and not tape.shots:
        raise DeviceError("mcm_method='one-shot' needs shots; 'tree-traversal' is exact")
    result: MCMConfig = replace(config, mcm_method=method)
    return result


def _postselects(tape: Any) -> bool:
    return any(op.name == MID_MEASURE and op.postselect is not None for op in tape.operations)


def _has_mid_measurements(tape: Any) -> bool:
    return any(op.name == MID_MEASURE for op in tape.operations)


def _needs_pure_state(tape: Any) -> bool:
    """Return whether a tape with mid-circuit measurements requests the state."""
    if tape is None or not _has_mid_measurements(tape):
        return False
    return not all(isinstance(each, (SampleMeasurement, *SHADOWS)) for each in tape.measurements)
