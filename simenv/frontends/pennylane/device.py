"""`qml.device("simenv")`, the preprocessing of its tapes, and its connection.

Shared connection of devices without an `env`: one client for each process. Invariant: a private
environment is started only if no environment is up, and ends with the process.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pennylane as qml
from pennylane.devices import Device, ExecutionConfig, MCMConfig, preprocess
from pennylane.devices.modifiers import simulator_tracking, single_tape_support
from pennylane.exceptions import DeviceError
from pennylane.measurements import ExpectationMP, SampleMeasurement
from pennylane.transforms import broadcast_expand, defer_measurements

import simenv
from simenv.client.client import Client, connect
from simenv.client.submission import options as submission_options
from simenv.errors import NoServiceError, OptionError
from simenv.frontends.pennylane.encoder import GATES, PREPARATIONS, is_carried, is_gate
from simenv.frontends.pennylane.execution import BatchExecutor
from simenv.frontends.pennylane.measurements import SHADOWS, is_exact, is_sampled, words_of
from simenv.model.devices import DeviceKind
from simenv.model.options import PlacementOptions, ProgramOptions

NAME = "simenv"
NO_ADJOINT = (
    f"{NAME} has adjoint gradients of ideal devices only: take diff_method='best' or"
    " 'parameter-shift', or a device without device=, pool=, prefer= and noise="
)
MID_MEASURE = "MidMeasureMP"
Batch = tuple[Sequence[Any], Callable[[Any], Any]]


def carried(op: Any) -> bool:
    """Return whether a program can hold this operator without decomposition."""
    name: str = op.name
    if name in GATES or name == MID_MEASURE:
        return True
    if name.startswith("Conditional("):
        return op.base.name != MID_MEASURE and is_carried(op.base)
    return is_carried(op)


def carried_deferred(op: Any) -> bool:
    """Return `carried` for tapes that measure at their end only."""
    return op.name != MID_MEASURE and carried(op)


def differentiable(op: Any) -> bool:
    """Return whether the engine has the derivatives by all trainable parameters of this
    operator."""
    if not carried_deferred(op):
        return False
    return is_gate(op) or not any(qml.math.requires_grad(value) for value in op.data)


@qml.transform  # type: ignore[untyped-decorator]
def expand_late_preparations(tape: Any) -> Batch:
    """Decompose each preparation of a state but one at the start of the tape. On qubits that are
    not in |0> the unitary matters, not only the state that it prepares: it is that of PennyLane's
    decomposition, whose inverse `Adjoint(StatePrep)` is."""
    if not any(map(_prepares, tape.operations[1:])):
        return (tape,), preprocess.null_postprocessing
    return preprocess.decompose(  # type: ignore[no-any-return]
        tape,
        stopping_condition=lambda op: carried(op) and not _prepares(op),
        target_gates=set(GATES) | {MID_MEASURE},
        name=NAME,
    )


def _prepares(op: Any) -> bool:
    name: str = op.name
    return name.removeprefix("Conditional(").removesuffix(")") in PREPARATIONS


@qml.transform  # type: ignore[untyped-decorator]
def expand_broadcast(tape: Any) -> Batch:
    """Keep broadcast angles, which are bindings of one program; expand every other broadcast."""
    if tape.batch_size is None:
        return (tape,), preprocess.null_postprocessing
    shadows = any(isinstance(each, SHADOWS) for each in tape.measurements)
    if shadows or not all(_takes_broadcast(op) for op in tape.operations):
        return broadcast_expand(tape)  # type: ignore[no-any-return]
    return (tape,), preprocess.null_postprocessing


def _takes_broadcast(op: Any) -> bool:
    base = op.base if op.name.startswith("Conditional(") else op
    return base.batch_size is None or is_gate(base)


@qml.transform  # type: ignore[untyped-decorator]
def validate_differentiable(tape: Any) -> Batch:
    """Raise DeviceError for measurements whose derivatives the engine does not have."""
    for measurement in tape.measurements:
        if not _has_gradient(measurement):
            text = f"{measurement} has no adjoint gradient on {NAME}: only expectation values of"
            text += " Pauli sums have, by the angles of gates; take diff_method='parameter-shift'"
            raise DeviceError(text)
    return (tape,), preprocess.null_postprocessing


def _has_gradient(measurement: Any) -> bool:
    return (
        type(measurement) is ExpectationMP
        and measurement.mv is None
        and measurement.obs is not None
        and not isinstance(measurement.obs, qml.SparseHamiltonian)
        and not any(map(_is_differentiated, measurement.obs.data))
        and words_of(measurement.obs) is not None
    )


def _is_differentiated(value: Any) -> bool:
    """Return whether an interface takes derivatives by this value. A trainable array of PennyLane
    is none of them: under `qml.grad` they are boxes."""
    return not isinstance(value, np.ndarray) and bool(qml.math.requires_grad(value))


def _refuse_differentiated_matrices(tape: Any) -> None:
    """Raise DeviceError for derivatives by the matrix of an observable: PennyLane's differences
    shift all of its elements alike, which is another derivative."""
    for measurement in () if tape is None else tape.measurements:
        values = () if measurement.obs is None else measurement.obs.data
        if any(_is_differentiated(value) and qml.math.ndim(value) for value in values):
            text = f"{NAME} has no derivatives by the matrix of {measurement.obs.name}: write the"
            text += " observable as a Hamiltonian, whose coefficients have them"
            raise DeviceError(text)


@qml.transform  # type: ignore[untyped-decorator]
def refuse_states(tape: Any) -> Batch:
    """Raise DeviceError for exact measurements of the state, which a device with noise, a pool of
    such devices and a machine do not have."""
    for measurement in tape.measurements:
        if not tape.shots and is_exact(measurement) and not _exact_of_noisy(measurement):
            text = f"{measurement} is a measurement of the state, which {NAME} has on ideal devices"
            text += " only: take expval, var or probs, or a device without device=, pool=, prefer="
            text += " and noise="
            raise DeviceError(text)
    return (tape,), preprocess.null_postprocessing


def pipeline(wires: Any, *, deferred: bool, adjoint: bool, ideal: bool) -> qml.CompilePipeline:
    """Transforms of a device. `ideal`: True if it has a pure state."""
    program = qml.CompilePipeline()
    if deferred:
        program.add_transform(defer_measurements, allow_postselect=False)
    condition = carried_deferred if deferred else carried
    program.add_transform(
        preprocess.decompose,
        stopping_condition=condition,
        skip_initial_state_prep=False,
        device_wires=wires,
        target_gates=set(GATES) | {MID_MEASURE},
        name=NAME,
    )
    program.add_transform(expand_late_preparations)
    resolve = preprocess.device_resolve_dynamic_wires
    program.add_transform(resolve, wires=wires, allow_resets=not deferred)
    program.add_transform(preprocess.validate_device_wires, wires, name=NAME)
    if not ideal:
        program.add_transform(refuse_states)
    program.add_transform(
        preprocess.validate_measurements,
        analytic_measurements=is_exact,
        sample_measurements=is_sampled,
        name=NAME,
    )
    if adjoint:
        _add_adjoint(program)
    program.add_transform(expand_broadcast)
    return program


def _add_adjoint(program: qml.CompilePipeline) -> None:
    program.add_transform(validate_differentiable)
    program.add_transform(
        preprocess.decompose,
        stopping_condition=differentiable,
        skip_initial_state_prep=False,
        target_gates=set(GATES),
        name=f"adjoint on {NAME}",
    )
    program.add_transform(preprocess.validate_adjoint_trainable_params)
    program.add_transform(broadcast_expand)


def _exact_of_noisy(measurement: Any) -> bool:
    """Return whether a device with noise gives this measurement exactly: a distribution or an
    expectation value, not a statevector."""
    return is_exact(measurement) and isinstance(measurement, SampleMeasurement)


def has_adjoint(tape: Any, wires: Any) -> bool:
    """Return whether the engine can differentiate this tape."""
    if tape.shots or not all(map(_has_gradient, tape.measurements)):
        return False
    if all(map(differentiable, tape.operations)):
        return True
    deferred = any(op.name == MID_MEASURE for op in tape.operations)
    try:
        pipeline(wires, deferred=deferred, adjoint=True, ideal=True)((tape,))
    except (DeviceError, ValueError, qml.exceptions.QuantumFunctionError):
        return False
    return True


_lock = threading.Lock()
_clients: dict[tuple[int, str, bool], Client] = {}


def shared_client(service: str = "", *, as_client: bool = False) -> Client:
    """Return the client of an environment. `service`: path of its connection file; "": the
    environment that SIMENV_SERVICE names, else `default`, else a private one that is started now.
    `as_client`: give up the rights of an admin. Raises SimenvError if the environment that
    `service` or SIMENV_SERVICE names does not answer."""
    named = service or os.environ.get("SIMENV_SERVICE", "")
    key = (os.getpid(), named, as_client)
    with _lock:
        result = _clients.get(key)
        if result is None:
            role = "client" if as_client else None
            opened = connect(service=service, role=role) if service else _opened(named)
            result = _clients[key] = opened
        return result


def _opened(named: str) -> Client:
    try:
        return simenv.connect()
    except NoServiceError:
        if named:
            raise
    sys.stderr.write(
        "simenv: no environment is up; starting a private one, which ends with this process\n"
    )
    return simenv.local()


# Options of `Client.submit` that hold for all tapes of a device.
_OPTIONS = (ProgramOptions.__optional_keys__ | PlacementOptions.__optional_keys__ | {"options"}) - {
    *("after", "idempotency_key", "qubit_mapping", "name")
}
_NAMED = ("wires", "shots", "env", "seed", "task_name")
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
    NumPy's generator; None: from the system. `task_name`: `name` of the tasks, which `qml.device`
    does not pass on.

    A batch of tapes is one message; tapes that differ in their angles alone, such as those of a
    parameter shift and of broadcasting, are bindings of one program. Gradients of expectation
    values are exact by the adjoint method on an ideal device, by parameter shifts elsewhere.
    Mid-circuit measurements and conditions run as dynamic circuits. A deep copy, or a pickle that
    is loaded in another process, connects anew to the same environment and has the same options and
    state of random numbers. Raises OptionError, NoServiceError.
    """

    def __init__(
        self,
        wires: Any = None,
        shots: Any = None,
        *,
        env: Client | str | None = None,
        seed: Any = "global",
        task_name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(wires=wires, shots=shots)
        if not options.keys() <= _OPTIONS:
            raise TypeError(submission_options.no_option(options, {*_OPTIONS, *_NAMED}))
        self._options = {
            **{name: submission_options.DEFAULTS[name] for name in _OPTIONS},
            **options,
            "name": submission_options.DEFAULTS["name"] if task_name is None else task_name,
        }
        submission_options.checked_options(self._options)
        self._rng = _generator(seed)
        self._connect(_client_of(env))
        self._ideal = self._is_ideal()

    def _connect(self, client: Client) -> None:
        self._client = client
        labels = None if self.wires is None else self.wires.labels
        self._executor = BatchExecutor(client, self._options, labels, self._rng)

    def __getstate__(self) -> dict[str, Any]:
        """Name the environment in place of the connection, which belongs to this process."""
        state = dict(vars(self))
        del state["_client"], state["_executor"]
        as_client = self._client.session.as_client
        return {**state, "service": self._client.service, "as_client": as_client}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect to the environment. Raises SimenvError if it does not answer."""
        client = shared_client(state.pop("service"), as_client=state.pop("as_client"))
        self.__dict__.update(state)
        self._connect(client)

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

    def supports_derivatives(
        self, execution_config: ExecutionConfig | None = None, circuit: Any = None
    ) -> bool:
        """Return whether adjoint gradients are available: first order, exact, of expectation values
        of Pauli sums, without noise."""
        if execution_config is None:
            return True
        method, order = execution_config.gradient_method, execution_config.derivative_order
        if method == "adjoint" and not self._ideal:
            warnings.warn(NO_ADJOINT, stacklevel=2)  # PennyLane's own error has no reason
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
        _refuse_differentiated_matrices(circuit)
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


def _generator(seed: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(np.random.randint(2**31 - 1) if seed == "global" else seed)
    except (TypeError, ValueError) as error:
        expected = 'a whole number from 0 on; None: drawn by the system; "global": by NumPy'
        raise OptionError(option="seed", value=seed, expected=expected) from error


def _client_of(env: Client | str | None) -> Client:
    if isinstance(env, Client):
        return env
    if not isinstance(env, str | None):
        expected = "a client, or the name of an environment that is up"
        raise OptionError(option="env", value=env, expected=expected)
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
        text = f"mcm_method={str(method)!r} is not there on {NAME}: {', '.join(_NATIVE)}, deferred"
        raise DeviceError(text)
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
