"""Pulse sequences on machines of neutral atoms, by pulser: channels, registers and timings.

Clients do this to refuse what a machine cannot do, workers to run the sequence. Invariant: pulser
is imported by the first call alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simenv.errors import InfeasibleError, ProgramError, SimenvError
from simenv.model.pulse_parts import check_parts
from simenv.model.pulses import PulseCall, PulseSizes

_TEXT = 500  # characters of pulser's own messages
_CAUSES = 3


@contextmanager
def errors_of_pulser(
    text: str, kind: type[SimenvError] = ProgramError, *, hint: str = ""
) -> Iterator[None]:
    """Raise errors of pulser, which have many types, as this kind, with `text` before their own.
    Its warnings, about its versions and changed timings, are not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (SimenvError, MemoryError):
            raise
        except Exception as error:
            raise kind(f"{text}: {pulser_text(error)}", hint=hint) from error


def sizes_of(sequence: Any, *, modulation: bool) -> PulseSizes:
    """Return the sizes of a pulser.Sequence without open variables."""
    return PulseSizes(
        len(sequence.register.qubits),
        len(sequence.declared_channels),
        int(sequence.get_duration(include_fall_time=modulation)),
    )


def built_sequence(call: PulseCall) -> Any:
    """Return the sequence with values for its variables. Raises LimitExceededError, ProgramError,
    errors of pulser."""
    import pulser

    check_parts(call.sequence, dict(call.variables))
    sequence = pulser.Sequence.from_abstract_repr(call.sequence)
    if sequence.is_parametrized() or sequence.is_register_mappable():
        values = {name: value if len(value) > 1 else value[0] for name, value in call.variables}
        sequence = sequence.build(qubits=dict(call.mapping) or None, **values)
    check_measured(sequence)
    return sequence


def driven_bases(sequence: Any) -> set[str]:
    """Return the bases whose transitions a built sequence drives; those of its channels if it has
    no pulses."""
    declared = set(sequence.get_addressed_bases())
    if len(declared) < 2:
        return declared
    from pulser.sampler import sample

    return sample(sequence).used_bases or declared


def check_measured(sequence: Any) -> None:
    """Raise ProgramError for a built sequence that measures another basis than the driven one, as
    pulser-simulation does: the bits would not be those of its states."""
    measured = sequence._measurement if sequence.is_measured() else None
    if measured is not None and measured not in (driven := driven_bases(sequence)):
        names = ", ".join(sorted(driven))
        hint = "Sequence.measure of that basis, or none"
        raise ProgramError(f"the sequence measures {measured}, and drives {names}", hint=hint)


def machine_of(text: str) -> Any:
    """Return the device of pulser with this abstract representation. Raises errors of pulser."""
    from pulser.devices import Device, VirtualDevice

    is_virtual = bool(json.loads(text).get("is_virtual"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pulser, about its own versions
        return (VirtualDevice if is_virtual else Device).from_abstract_repr(text)


def on_machine(sequence: Any, text: str, *, strict: bool) -> Any:
    """Return a sequence on the machine with this abstract representation; `strict`: with pulses,
    delays and channels as they are. Raises InfeasibleError for what the machine cannot do."""
    name = "the device"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pulser, about its own versions and changed timings
        try:
            machine = machine_of(text)
            name = f"device {machine.name}"
            return sequence.with_new_device(machine, strict)
        except Exception as error:  # pulser raises many types
            said = pulser_text(error)
            hint = "a sequence within its limits: simenv devices show"
            if "layout" in said.lower():
                hint = "register.with_automatic_layout(device)"
            elif strict:
                hint = "compile='auto' lets timings follow the device's rules"
            raise InfeasibleError(f"{name} cannot run the sequence: {said}", hint=hint) from error


def pulser_text(error: Exception) -> str:
    """Return class and message of an error of pulser and of those that caused it, shortened and
    without the control characters of a sequence that they quote."""
    texts: list[str] = []
    each: BaseException | None = error
    while each is not None and len(texts) < _CAUSES:
        texts.append(" ".join(f"{type(each).__name__}: {each}".split()))
        each = each.__cause__
    text = "; ".join(texts)[:_TEXT]
    return "".join(char if char.isprintable() else "?" for char in text)
