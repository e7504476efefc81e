"""Checks of programs: large ones run in separate threads, so that the event loop continues.

The kernels of a check release the interpreter lock. Each owner has one thread at a time. Invariant:
the event loop spends no more than a small program's time here. A check that was started is repeated
by its requester until its result has been taken, or forgotten when the requester has left.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from simenv import model
from simenv.errors import DECODE_ERRORS, ProgramError, VersionMismatchError
from simenv.model.calls import is_call
from simenv.scheduler.routing import engine_choice, engine_support
from simenv.service import program_rules
from simenv.service.fair_queue import CHECKS
from simulators.catalog import DENSE_QUBITS, SMALL_QUBITS
from simulators.chain.trial import choice_profile
from simulators.circuit.analysis import profiler
from simulators.circuit.analysis.profile import Profile
from simulators.circuit.analysis.profiler import non_clifford_gates
from simulators.circuit.gates import SWITCH
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.unrolled import blocks_left, unrolled
from simulators.circuit.validation import admission

if TYPE_CHECKING:
    from simenv.service.devices.context import DeviceContext


BESIDE_BYTES = 2**18  # packed programs of this size or more are checked in a thread

Looked = tuple[model.Program, Profile]


class CheckPending(Exception):
    """A check continues in a thread: repeat the call when `future` is done."""

    def __init__(self, future: Future[Looked]) -> None:
        self.future = future


class RunningChecks:
    """Checks that have begun, by owner and key. Used from the loop's thread."""

    def __init__(self) -> None:
        self._begun: dict[object, Future[Looked]] = {}

    def look(
        self,
        key: Callable[[], object],
        packed: bytes,
        terms: model.TaskOptions,
        owner: str,
        device: DeviceContext | None = None,
    ) -> Looked:
        """Check and profile a program of this owner. Raises SimenvError if it is not admissible,
        CheckPending while the check continues in a thread. `key()` identifies the check; it is
        called only if checks continue in the thread or this one will."""
        is_short = not _takes_long(packed, terms, noisy=device is not None)
        is_short = is_short and (device is None or device.is_loaded)
        if is_short and not self._begun:
            return look(packed, terms, device)
        place = owner, key()
        future = self._begun.get(place)
        if future is None:
            if is_short:
                return look(packed, terms, device)
            check = partial(look, packed, terms, device)
            is_large = len(packed) >= BESIDE_BYTES
            future = self._begun[place] = CHECKS.submit(owner, check, counted=is_large)
        if not future.done():
            raise CheckPending(future)
        del self._begun[place]
        return future.result()

    def forget(self, check: Future[Any] | None) -> None:
        """Forget a check whose requester has left: it is not run if it has not begun. Another
        requester of the same one begins it anew."""
        for place, future in list(self._begun.items()):
            if future is check:
                del self._begun[place]
                future.cancel()


# Engines for which the size of a wide circuit's networks, sweeps or strings, or a trial, is found.
_SIZED = {engine_choice.AUTO, "contraction", "sweep", "pauli", "mps", "near_clifford"}


def _takes_long(packed: bytes, terms: model.TaskOptions, *, noisy: bool) -> bool:
    """Return whether the check takes too long for the event loop: the program is large, it is the
    first wide one, which loads or compiles kernels, or it is so wide that a trial, or the size of
    sweeps or strings, chooses its engine."""
    if len(packed) >= BESIDE_BYTES or is_call(terms):
        return len(packed) >= BESIDE_BYTES
    is_loaded = profiler.is_loaded()
    if is_loaded and terms.engine not in _SIZED:
        return False
    try:
        declared = model.declared_qubits(packed)
        if not is_loaded:
            return declared > SMALL_QUBITS
        widest = SMALL_QUBITS if noisy else DENSE_QUBITS
        return declared > widest and model.qubits_of(packed)[1] > SMALL_QUBITS
    except (*DECODE_ERRORS, TypeError):
        return False  # the check raises the error


def look(packed: bytes, terms: model.TaskOptions, device: DeviceContext | None = None) -> Looked:
    """Decode and profile a program. Raises SimenvError if no engine can run it with these options,
    or if the device cannot execute it. A call is profiled as a program without operations."""
    if is_call(terms):
        program, profile = program_rules.examined_call(packed, terms)
        return program, profile if device is None else device.timed(profile)
    program = open_program(packed)
    circuit = Circuit.from_program(program)
    wrong = admission.validation_error(circuit)
    if wrong:
        raise ProgramError(f"the program is not valid: {wrong}")
    engine_choice.check_option_values(terms)
    written_out, _ = unrolled(circuit)  # as engines without loops and `switch` run it
    if device is None:
        sums = program_rules.pauli_sums(terms)
        result = choice_profile(written_out, terms.outputs, sums, terms.engine, terms.options)
    else:  # which prices it with its noise
        labels = program_rules.labels(terms)
        result = profiler.profile(written_out, terms.outputs, labels, networks=False)
    if circuit.conditions_data:
        switches = int((circuit.table.rows[circuit.ops, 0] == SWITCH).sum())
        result = msgspec.structs.replace(result, loops=blocks_left(written_out), switches=switches)
    if terms.engine == engine_choice.AUTO:
        # Beyond the width of statevectors it may be refused, with this cost.
        is_counted = circuit.num_qubits > DENSE_QUBITS
    else:
        is_counted = engine_support.takes_clifford_alone(terms.engine)
    if is_counted and not result.may_be_clifford:
        result = msgspec.structs.replace(result, non_clifford=non_clifford_gates(circuit))
    if terms.parts is not None:
        return program, program_rules.examined(circuit, terms.parts, terms, result)
    program_rules.check_final_state(terms, circuit, result)
    return program, result if device is None else device.examined(circuit, result, terms)


def open_program(packed: bytes) -> model.Program:
    """Decode a packed program and check its format; the content of its arrays is not checked yet.
    Raises ProgramError, VersionMismatchError."""
    try:
        program = model.decode_program(packed)
    except DECODE_ERRORS as error:
        raise ProgramError(f"the program cannot be read: {error}") from error
    if program.format != model.PROGRAM_FORMAT:
        reads = f"this service reads {model.PROGRAM_FORMAT}"
        text = f"the program has format {program.format}, {reads}"
        raise VersionMismatchError(text, hint="client and service should be of one version")
    return program
