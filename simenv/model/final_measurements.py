"""Observables of circuits that measure at their end: the same check in the client, for circuits
that it compiles for a device, and in the service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from simenv.errors import OptionError

SHOWN = 40  # letters of an observable in an error


def measured_last(
    names: Sequence[str], sizes: Sequence[int], ops: Iterable[int], qubits: Sequence[int]
) -> set[int]:
    """Return the qubits whose last operation is a measurement. `names`, `sizes`: name and number
    of qubits of each row of a program's table; `ops`, `qubits`: its arrays."""
    measured: set[int] = set()
    place = 0
    for op in ops:
        acted = qubits[place : place + sizes[op]]
        place += sizes[op]
        if names[op] == "measure":
            measured.update(acted)
        elif names[op] not in ("barrier", "delay", "delay_dt"):
            measured.difference_update(acted)
    return measured


def refuse_collapsed(labels: Iterable[str], measured: Set[int]) -> None:
    """Raise OptionError for X or Y on a measured qubit: its values before and after the measurement
    differ."""
    for label in labels:
        for qubit, letter in enumerate(reversed(label)):
            if letter in "XY" and qubit in measured:
                width = len(label)
                name = (
                    f"observable {label!r}"
                    if width <= SHOWN
                    else f"an observable of {width} qubits"
                )
                raise OptionError(
                    f"{name} asks for {letter} on qubit {qubit}, which the circuit measures at its"
                    " end",
                    hint="remove the final measurement",
                )
