"""How the slots of a program depend on a circuit's parameters: the chain rule of a gradient.

A program has a slot for each distinct expression, and an engine derives by slots; `Chain` says how
much each parameter has to do with each of them.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

from simenv.client.circuits.bindings import Slots
from simenv.errors import OptionError, ProgramError
from simenv.model import Chain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def chain(slots: Slots, bindings: Any) -> Chain | None:
    """None where slot k is parameter k. `bindings`: as for `Slots.values`.

    OptionError where an expression is no sum of multiples of parameters, and there are several
    sets of values: each would have a chain of its own.
    """
    if slots.expressions is None or slots.expressions == slots.parameters:
        return None
    columns = {parameter: k for k, parameter in enumerate(slots.parameters)}
    table = slots.table(bindings)
    found: list[tuple[int, int, float]] = []
    for slot, expression in enumerate(slots.expressions):
        if expression in columns:
            found.append((slot, columns[expression], 1.0))
            continue
        for parameter, column in columns.items():
            if parameter in expression.parameters:
                found.append((slot, column, _factor(expression, parameter, columns, table)))
    return Chain(
        len(columns),
        array.array("i", [slot for slot, _, _ in found]).tobytes(),
        array.array("i", [column for _, column, _ in found]).tobytes(),
        array.array("d", [factor for _, _, factor in found]).tobytes(),
    )


def _factor(
    expression: Any, parameter: Any, columns: dict[Any, int], table: NDArray[np.float64]
) -> float:
    """The derivative of an expression by a parameter."""
    try:
        value = expression.gradient(parameter)
        used = getattr(value, "parameters", ())
        if used and len(table) > 1:
            raise OptionError(
                f"a gradient of several bindings by {parameter.name!r}, which is in"
                f" {str(expression)[:80]!r}",
                hint="submit them one by one; or let angles be sums of multiples of parameters",
            )
        if hasattr(value, "bind_all"):
            row = table[0].tolist()
            value = value.bind_all({each: row[columns[each]] for each in used})
    except (RuntimeError, ArithmeticError, TypeError, ValueError) as error:
        raise _none(expression, parameter, str(error)) from error
    if isinstance(value, complex) and value.imag == 0.0:
        value = value.real
    if isinstance(value, complex) or value - value:
        raise _none(expression, parameter, str(value))
    return float(value)


def _none(expression: Any, parameter: Any, value: str) -> ProgramError:
    return ProgramError(
        f"the expression {str(expression)[:80]!r} has no finite derivative by {parameter.name!r}"
        f" ({value})",
        hint="leave the gradient out, or take other values",
    )
