"""Numbers of parts of a pulse sequence, and of its samples, before pulser reads it.

pulser makes a sample of each waveform for each nanosecond, so some bytes may stand for gigabytes.
Durations may be formulas of the sequence's variables, which are computed here when these have
values. Invariant: what this module reads has passed `check_text`, so that it is small and flat;
what pulser will refuse anyway counts as nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simenv.errors import LimitExceededError, ProgramError
from simenv.model.pulses import MAX_ATOMS, MAX_CHANNELS, MAX_DURATION_NS, MAX_VARIABLES

_PARTS = {
    "register": MAX_ATOMS, "channels": MAX_CHANNELS, "operations": 10_000,
    "variables": MAX_VARIABLES,
}  # fmt: skip
_WAVEFORMS = 4  # of a pulse: amplitude, detuning and phase; and of a detuning map
_SAID = 200  # characters of the parser's own message
_MOST = 1e18  # ns
# Waveforms whose duration follows from their area, and that of 1 us with the largest value 1.
_BY_AREA = {"blackman_max": 0.42, "kaiser_max": 0.42}
# Operations of formulas, by pulser's names, and their functions in numpy.
_BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "truediv": "divide",
    "pow": "power", "mod": "mod",
}  # fmt: skip
_UNARY = {
    "neg": "negative", "abs": "abs", "ceil": "ceil", "floor": "floor", "sqrt": "sqrt", "exp": "exp",
    "log2": "log2", "log": "log", "sin": "sin", "cos": "cos", "tan": "tan", "tanh": "tanh",
}  # fmt: skip
Variables = Mapping[str, Sequence[float]]
_NONE: Variables = {}


def check_parts(text: str, variables: Variables = _NONE) -> None:
    """Check the numbers of parts of a sequence, and the samples of its waveforms. `variables`:
    their values; formulas of others count as nothing. Raises LimitExceededError, ProgramError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of too many digits, too
        said = str(error)[:_SAID]
        hint = "Sequence.to_abstract_repr() of pulser-core writes one"
        raise ProgramError(f"the pulse sequence is no JSON object: {said}", hint=hint) from error
    for name, most in _PARTS.items():
        part = document.get(name)
        if isinstance(part, dict | list) and len(part) > most:
            raise LimitExceededError(
                f"the sequence has {len(part)} {name}; the limit is {most}",
                hint="a smaller sequence, or several",
            )
    channels = document.get("channels")
    most = _WAVEFORMS * MAX_DURATION_NS * (len(channels) if isinstance(channels, dict) else 1)
    total = sum(_durations(document.get("operations"), variables))
    if total > most:
        raise LimitExceededError(
            f"the pulses of the sequence have waveforms of {total:.3g} ns; the limit is {most}",
            hint="a shorter sequence",
        )


def _durations(operations: Any, variables: Variables) -> Iterable[float]:
    """Iterate over the durations of all waveforms and pulses, in ns."""
    left = [operations]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            found = _value(each.get("duration"), variables)
            if (mean := _BY_AREA.get(str(each.get("kind")))) is not None:
                area, largest = (_value(each.get(name), variables) for name in ("area", "max_val"))
                found = abs(1e3 * area / (mean * largest)) if largest else 0.0
            if found > 0.0:  # not NaN
                yield min(found, _MOST)
            left += each.values()
        elif isinstance(each, list):
            left += each


def _value(given: Any, variables: Variables) -> float:
    """Return the value of a number or a formula; 0.0 for what is neither."""
    if isinstance(given, dict):
        import numpy as np

        try:
            with np.errstate(all="ignore"):
                values = np.ravel(_computed(given, variables))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            return 0.0
        return float(values[0]) if values.size == 1 else 0.0
    if isinstance(given, int | float):
        return float(min(given, _MOST))
    return 0.0


def _computed(formula: Any, variables: Variables) -> Any:
    """Return the value of a formula: a number, or an array of those of a variable."""
    import numpy as np

    if not isinstance(formula, dict):
        return np.asarray(formula, np.float64)
    if "variable" in formula:
        return np.asarray(variables[formula["variable"]], np.float64)
    name, left = formula["expression"], _computed(formula["lhs"], variables)
    if name in _UNARY:
        return getattr(np, _UNARY[name])(left)
    right = _computed(formula["rhs"], variables)
    if name == "index":
        return np.ravel(left)[int(right)]
    return getattr(np, _BINARY[name])(left, right)
