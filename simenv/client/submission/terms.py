"""The options that are sent with circuits, and refusals of outputs that a circuit cannot have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from simenv.client.circuits import PackedCircuit, load_observables
from simenv.client.circuits.common.parameters import chain
from simenv.client.submission.options import SAMPLED, CheckedOptions
from simenv.errors import OptionError, ProgramError, SimenvError
from simenv.model import Observable, TaskOptions
from simenv.model.task_rules import check_observables, check_widths, checked_list, unmeasured


def terms_of(
    loaded: PackedCircuit, requested: Mapping[str, Any], options: CheckedOptions
) -> TaskOptions:
    """Return the options that are sent with one circuit. `requested`: with `observables` and
    `amplitudes`, if any. Raises OptionError, LimitExceededError, ProgramError."""
    measures, observables = loaded.measures, requested.get("observables")
    pauli = None if observables is None else load_observables(observables, loaded.num_qubits)
    terms = options.task_options(measures, pauli)
    terms = _checked(terms, requested.get("amplitudes"), loaded.num_qubits)
    error = _contradiction(terms, measures, -1)
    if error is not None:
        raise error
    return terms


def with_chain(terms: TaskOptions, loaded: PackedCircuit, parameter_values: Any) -> TaskOptions:
    """Return the options with the chain rule of a gradient. Raises OptionError, ProgramError."""
    if "gradient" not in terms.outputs:
        return terms
    if not loaded.parameters:
        raise OptionError(
            "a gradient was asked of a circuit without free parameters",
            hint="leave parameters free, and give parameter_values",
        )
    jacobian = chain(loaded.slots, parameter_values)
    return terms if jacobian is None else msgspec.structs.replace(terms, chain=jacobian)


def common_terms(
    programs: Sequence[PackedCircuit],
    requested: Mapping[str, Any],
    options: CheckedOptions,
    errors: list[SimenvError],
) -> TaskOptions:
    """Return the options that are sent with several circuits; append contradictions to `errors`.
    `requested`: see `terms_of`."""
    measures = [loaded.measures for loaded in programs]
    width, observables = programs[0].num_qubits, requested.get("observables")
    pauli = None if observables is None else load_observables(observables, width)
    for name in ("observables", "amplitudes"):
        errors += [
            OptionError(
                f"the {name} are for {width} qubits, this has {loaded.num_qubits}",
                hint="circuits of one width in one call",
                index=index,
            )
            for index, loaded in enumerate(programs)
            if loaded.num_qubits != width and requested.get(name) is not None
        ]
    terms = options.task_options(any(measures), pauli)
    terms = _checked(terms, requested.get("amplitudes"), width)
    contradicted = [measured for measured in (True, False) if _contradiction(terms, measured, -1)]
    for index, measured in enumerate(measures if contradicted else ()):
        error = _contradiction(terms, measured, index)
        if error is not None:
            errors.append(error)
    return terms


def _checked(terms: TaskOptions, amplitudes: Any, num_qubits: int) -> TaskOptions:
    """Return the options with the bit strings of the output `amplitudes`, by the rules that the
    service applies. Raises OptionError, LimitExceededError."""
    if amplitudes is not None or "amplitudes" in terms.outputs:
        values = (amplitudes,) if isinstance(amplitudes, str) else amplitudes or ()
        strings = checked_list("amplitudes", values, 'a list of bit strings, such as ["0101"]')
        if any(not isinstance(text, str) for text in strings):
            raise OptionError(f"amplitudes={strings!r:.80}", hint='bit strings, such as ["0101"]')
        observables = (*terms.observables, Observable(strings, b""))
        terms = msgspec.structs.replace(terms, observables=observables)
    check_observables(terms)
    check_widths(terms.bit_strings, num_qubits)
    return terms


def _contradiction(terms: TaskOptions, measures: bool, index: int) -> ProgramError | None:
    """Return the error for an output that needs, or excludes, a measurement; else None."""
    sampled = [output for output in terms.outputs if output in SAMPLED]
    if sampled and not measures:
        return unmeasured(sampled[0], index)
    for output in ("statevector", "amplitudes") if measures else ():
        if output in terms.outputs:
            return ProgramError(
                f"output {output!r} was asked of a circuit that measures",
                hint="remove the measurements, or ask for probabilities",
                index=index,
            )
    return None


def unbound(loaded: PackedCircuit) -> str:
    """Return the message about free parameters without values."""
    names = ", ".join(str(name) for name in loaded.parameters[:5])
    return f"the circuit has {len(loaded.parameters)} parameters without a value: {names}"


def of_item(error: SimenvError, index: int) -> SimenvError:
    """Return the error with the index of an item of a batch."""
    error.index = index
    return error.with_traceback(None)
