"""Preprocessing of a tape before it is sent: decomposition, expansion and refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pennylane as qml
from pennylane.devices.preprocess import (
    decompose,
    device_resolve_dynamic_wires,
    null_postprocessing,
    validate_adjoint_trainable_params,
    validate_device_wires,
    validate_measurements,
)
from pennylane.exceptions import DeviceError
from pennylane.measurements import ExpectationMP, SampleMeasurement
from pennylane.transforms import broadcast_expand, defer_measurements

from simenv.frontends.pennylane.gates import GATES, PREPARATIONS, is_carried, is_gate
from simenv.frontends.pennylane.measurements import SHADOWS, is_exact, is_sampled
from simenv.frontends.pennylane.pauli_sums import words_of

NAME = "simenv"
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
    """Decompose each preparation of a state but one at the start of the tape.

    On qubits that are not in |0> the unitary matters, not only the state that it prepares: it is
    that of PennyLane's decomposition, whose inverse `Adjoint(StatePrep)` is.
    """
    if not any(map(_prepares, tape.operations[1:])):
        return (tape,), null_postprocessing
    return decompose(  # type: ignore[no-any-return]
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
        return (tape,), null_postprocessing
    shadows = any(isinstance(each, SHADOWS) for each in tape.measurements)
    if shadows or not all(_takes_broadcast(op) for op in tape.operations):
        return broadcast_expand(tape)  # type: ignore[no-any-return]
    return (tape,), null_postprocessing


def _takes_broadcast(op: Any) -> bool:
    base = op.base if op.name.startswith("Conditional(") else op
    return base.batch_size is None or is_gate(base)


@qml.transform  # type: ignore[untyped-decorator]
def validate_differentiable(tape: Any) -> Batch:
    """Raise DeviceError for measurements whose derivatives the engine does not have."""
    for measurement in tape.measurements:
        if not _has_gradient(measurement):
            raise DeviceError(
                f"{measurement} has no adjoint gradient on {NAME}: only expectation values of"
                " Pauli sums have; take diff_method='parameter-shift'"
            )
    return (tape,), null_postprocessing


def _has_gradient(measurement: Any) -> bool:
    return (
        type(measurement) is ExpectationMP
        and measurement.mv is None
        and measurement.obs is not None
        and not isinstance(measurement.obs, qml.SparseHamiltonian)
        and words_of(measurement.obs) is not None
    )


def pipeline(wires: Any, *, deferred: bool, adjoint: bool, ideal: bool) -> qml.CompilePipeline:
    """Transforms of a device. `ideal`: True if it has a pure state."""
    program = qml.CompilePipeline()
    if deferred:
        program.add_transform(defer_measurements, allow_postselect=False)
    condition = carried_deferred if deferred else carried
    program.add_transform(
        decompose,
        stopping_condition=condition,
        skip_initial_state_prep=False,
        device_wires=wires,
        target_gates=set(GATES) | {MID_MEASURE},
        name=NAME,
    )
    program.add_transform(expand_late_preparations)
    program.add_transform(device_resolve_dynamic_wires, wires=wires, allow_resets=not deferred)
    program.add_transform(validate_device_wires, wires, name=NAME)
    program.add_transform(
        validate_measurements,
        analytic_measurements=is_exact if ideal else _exact_of_noisy,
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
        decompose,
        stopping_condition=differentiable,
        skip_initial_state_prep=False,
        target_gates=set(GATES),
        name=f"adjoint on {NAME}",
    )
    program.add_transform(validate_adjoint_trainable_params)
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
