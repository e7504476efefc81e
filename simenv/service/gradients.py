"""What a task must meet that asks for a gradient; each breach is an error with its way out."""

from __future__ import annotations

import numpy as np

from simenv.errors import LimitExceeded, OptionError
from simenv.model import Chain, TaskSpec, Terms
from simenv.scheduler.routing import size

MAX_PARAMETERS = 2**20
VALUE_BYTES = 8  # float64
_WIDTHS = {"slots": 4, "columns": 4, "factors": 8}


def check_terms(terms: Terms) -> None:
    """What does not depend on the program."""
    if "gradient" not in terms.outputs:
        if terms.chain is not None:
            raise OptionError("a chain rule came without the output 'gradient'")
        return
    if "expectation" not in terms.outputs:
        raise OptionError(
            "the output 'gradient' is of expectation values, and none were asked for",
            hint='outputs=("expectation", "gradient")',
        )
    if terms.ranks != 1:
        raise OptionError(
            f"a gradient was asked for over ranks = {terms.ranks}", hint="ranks=1: of one rank"
        )
    chain = terms.chain
    if chain is None:
        return
    entries = {len(getattr(chain, name)) / width for name, width in _WIDTHS.items()}
    if len(entries) > 1 or not entries.pop().is_integer():
        raise OptionError("the parts of a chain rule have different lengths")
    if not 0 < chain.parameters <= MAX_PARAMETERS:
        raise LimitExceeded(
            f"a gradient by {chain.parameters} parameters; the limit is {MAX_PARAMETERS}"
        )
    columns = np.frombuffer(chain.columns, "<i4")
    if columns.size and not (columns.min() >= 0 and columns.max() < chain.parameters):
        raise OptionError("a chain rule names a parameter that does not exist")
    if not np.isfinite(np.frombuffer(chain.factors, "<f8")).all():
        raise OptionError("a factor of a chain rule is not a finite number")


def check_task(spec: TaskSpec, terms: Terms, num_slots: int, most_bytes: int) -> None:
    """A task that asks for a gradient, of a program with so many slots."""
    if spec.shots:
        raise OptionError(
            f"a gradient was asked for with {spec.shots} shots",
            hint="shots=None: gradients are exact",
        )
    if not num_slots:
        raise OptionError(
            "a gradient was asked of a program without free parameters",
            hint="leave parameters free, and give bindings",
        )
    chain = terms.chain or Chain(num_slots, b"", b"", b"")
    slots = np.frombuffer(chain.slots, "<i4")
    if slots.size and not (slots.min() >= 0 and slots.max() < num_slots):
        raise OptionError("a chain rule names a slot that the program does not have")
    widest = max(num_slots, chain.parameters)
    total = VALUE_BYTES * spec.count * len(terms.observables) * widest
    if total > most_bytes:
        raise LimitExceeded(
            f"gradients of {len(terms.observables)} observables by {widest} parameters, for"
            f" {spec.count} bindings, are {size(total)}; a result may be {size(most_bytes)}",
            hint="fewer bindings or observables a task",
        )
