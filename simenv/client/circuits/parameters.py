"""Parameters of circuits: their values, the chain rule of gradients, packed circuits.

A program has one slot for each distinct parameter expression. Invariant: a binding gives the same
slot values, bit for bit, alone and among thousands of others: everything is computed element by
element, in the order of the circuit's parameters. An engine differentiates by slots; `Chain` has
the derivative of each slot by each parameter.

A PackedCircuit has as fields the properties that a batch reads of each of thousands of circuits;
the others are decoded from the bytes on demand.
"""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from simenv.errors import OptionError, ProgramError
from simenv.model import Chain, Program, decode_program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PROBE = 0.7390851332151607  # value at which an expression is tested for linearity
_SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True)
class ParameterSlots:
    """Parameters (Qiskit's, or names), and the expression of each slot. Without expressions slot k
    is the k-th parameter."""

    parameters: tuple[Any, ...]
    expressions: tuple[Any, ...] | None

    def values(self, parameter_values: Any) -> NDArray[np.float64]:
        """Return the values of the slots, float64 [K, slots]; see `PackedCircuit.bind`."""
        import numpy as np

        table = self.table(parameter_values)
        finite = np.isfinite(table)
        if not finite.all():
            row, column = (int(k) for k in np.argwhere(~finite)[0])
            message = f"binding {row}: parameter {self._names()[column]!r} is {table[row, column]}"
            raise OptionError(message, hint="parameter values must be finite numbers")
        if self.expressions is None:
            return table
        columns = {parameter: k for k, parameter in enumerate(self.parameters)}
        plain = [columns.get(expression, -1) for expression in self.expressions]
        if plain == [*range(table.shape[1])]:  # slot k is parameter k
            return table
        result = np.empty((len(table), len(self.expressions)), np.float64)
        for slot, expression in enumerate(self.expressions):
            result[:, slot] = _evaluated(expression, table, columns)
        return result

    def _names(self) -> list[str]:
        return [getattr(parameter, "name", parameter) for parameter in self.parameters]

    def table(self, parameter_values: Any) -> NDArray[np.float64]:
        """Return the values of the parameters, float64 [K, parameters]."""
        import numpy as np

        count = len(self.parameters)
        if parameter_values is None:
            if count:
                hint = "give parameter_values=, or bind them"
                raise OptionError(f"no value for {_listed(self._names())}", hint=hint)
            return np.zeros((1, 0))
        if isinstance(parameter_values, Mapping):
            return self._of_mapping(parameter_values)
        table = _floats(parameter_values, "parameter_values")
        if table.ndim == 1:
            table = table[np.newaxis, :]
        if table.ndim != 2 or table.shape[1] != count or not len(table):
            order = f", in the order {_listed(self._names())}" if count else ""
            raise OptionError(
                f"parameter_values have the shape {np.shape(parameter_values)}; the circuit has "
                f"{count} parameters",
                hint=f"give (K, {count}) numbers or ({count},){order}",
            )
        return table

    def _of_mapping(self, parameter_values: Mapping[Any, Any]) -> NDArray[np.float64]:
        import numpy as np

        names = self._names()
        columns = {name: k for k, name in enumerate(names)}
        inputs: dict[int, NDArray[np.float64]] = {}
        for key, value in parameter_values.items():
            for name, values in _columns_of(key, value):
                column = columns.get(name)
                if column is None:
                    _refuse_unknown(name, names)
                if column in inputs:
                    raise OptionError(f"parameter {name!r} is given twice")
                inputs[column] = values
        missing = [name for k, name in enumerate(names) if k not in inputs]
        if missing:
            hint = "give parameter_values= for each"
            raise OptionError(f"no value for {_listed(missing)}", hint=hint)
        lengths = {len(values): names[k] for k, values in inputs.items() if values.ndim}
        if len(lengths) > 1 or 0 in lengths:
            settings = ", ".join(f"{name!r} has {length}" for length, name in lengths.items())
            hint = "one value, or K of them, for each parameter"
            raise OptionError(f"the numbers of values differ or are 0: {settings}", hint=hint)
        table = np.empty((next(iter(lengths), 1), len(names)), np.float64)
        for column, values in inputs.items():
            table[:, column] = values
        return table


def _columns_of(key: Any, value: Any) -> list[tuple[str, NDArray[np.float64]]]:
    """Return names and values of one item of a mapping; several for a vector of parameters."""
    if not isinstance(key, str) and hasattr(key, "params"):  # a ParameterVector
        values = _floats(value, key.name)
        elements: Sequence[Any] = key.params
        if values.ndim not in (1, 2) or values.shape[-1] != len(elements):
            message = f"{key.name!r} has {len(elements)} elements; its values have {values.shape}"
            raise OptionError(message)
        return [(element.name, values[..., k]) for k, element in enumerate(elements)]
    name = key if isinstance(key, str) else getattr(key, "name", None)
    if not isinstance(name, str):
        raise OptionError(f"parameter_values for {key!r}, which is neither a parameter nor a name")
    values = _floats(value, name)
    if values.ndim > 1:
        raise OptionError(f"the values of {name!r} have the shape {values.shape}; want (K,)")
    return [(name, values)]


def _floats(value: Any, name: str) -> NDArray[np.float64]:
    import numpy as np

    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            array = np.asarray(value, dtype=object)
            return np.array([float(x) for x in array.flat], np.float64).reshape(array.shape)
        return np.ascontiguousarray(array, np.float64).reshape(array.shape)
    except (TypeError, ValueError, OverflowError) as error:
        hint = "complex values are not carried"
        raise OptionError(f"{name}: not an array of real numbers ({error})", hint=hint) from error


def _evaluated(
    expression: Any, table: NDArray[np.float64], columns: dict[Any, int]
) -> NDArray[np.float64]:
    column = columns.get(expression)
    if column is not None:
        return table[:, column]
    used = [parameter for parameter in columns if parameter in expression.parameters]
    if len(used) != len(expression.parameters):
        hidden = [p.name for p in expression.parameters if p not in columns]
        message = f"{_listed(hidden)} in a gate's definition is no parameter of the circuit"
        hint = "give the gate the parameter (Gate.params), so that it can be bound"
        raise ProgramError(message, hint=hint)
    result = _as_sum(expression, table, used, columns)
    return _evaluate_rows(expression, table, used, columns) if result is None else result


def _as_sum(
    expression: Any, table: NDArray[np.float64], used: list[Any], columns: dict[Any, int]
) -> NDArray[np.float64] | None:
    """Return the values of a linear expression; None if the expression is not linear."""
    import numpy as np

    try:
        factors = [expression.gradient(parameter) for parameter in used]
        if not all(isinstance(factor, int | float) for factor in factors):
            return None
        constant = expression.bind_all(dict.fromkeys(used, 0.0))
        tried = expression.bind_all(dict.fromkeys(used, _PROBE))
        expected = constant + sum(factor * _PROBE for factor in factors)
        if not abs(tried - expected) <= 1e-9 * (1 + abs(tried)):
            return None
        result = np.full(len(table), float(constant))
    except (RuntimeError, ArithmeticError, TypeError, ValueError):
        return None
    for parameter, factor in zip(used, factors, strict=True):
        result += float(factor) * table[:, columns[parameter]]
    return result


def _evaluate_rows(
    expression: Any, table: NDArray[np.float64], used: list[Any], columns: dict[Any, int]
) -> NDArray[np.float64]:
    import numpy as np

    result = np.empty(len(table), np.float64)
    picked = table[:, [columns[parameter] for parameter in used]].tolist()
    for row, values in enumerate(picked):
        try:
            value = expression.bind_all(dict(zip(used, values, strict=True)))
        except (RuntimeError, ArithmeticError, TypeError, ValueError) as error:
            _refuse_value(expression, row, str(error), error)
        if isinstance(value, complex) and value.imag == 0.0:
            value = value.real
        if isinstance(value, complex) or value - value:
            _refuse_value(expression, row, str(value), None)
        result[row] = value
    return result


def _refuse_value(expression: Any, row: int, value: str, cause: Exception | None) -> NoReturn:
    raise ProgramError(
        f"binding {row}: the expression {str(expression)[:80]!r} has no finite value ({value})",
        hint="angles must be finite real numbers",
    ) from cause


def _refuse_unknown(name: str, names: list[str]) -> NoReturn:
    hint = f"it has {_listed(names)}" if names else "it has none"
    raise OptionError(f"the circuit has no parameter {name!r}", hint=hint)


def _listed(names: list[str]) -> str:
    listed = ", ".join(map(repr, names[:_SHOWN]))
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN} more"


def chain(slots: ParameterSlots, parameter_values: Any) -> Chain | None:
    """Return the derivatives of slots by parameters; None if slot k is parameter k.

    `parameter_values`: as for `ParameterSlots.values`. Raises OptionError if an expression is not
    linear and there are several bindings, because each would need its own derivatives; ProgramError
    for a derivative that is not finite.
    """
    if slots.expressions is None or slots.expressions == slots.parameters:
        return None
    columns = {parameter: k for k, parameter in enumerate(slots.parameters)}
    table = slots.table(parameter_values)
    results: list[tuple[int, int, float]] = []
    for slot, expression in enumerate(slots.expressions):
        if expression in columns:
            results.append((slot, columns[expression], 1.0))
            continue
        for parameter, column in columns.items():
            if parameter in expression.parameters:
                results.append((slot, column, _factor(expression, parameter, columns, table)))
    return Chain(
        len(columns),
        array.array("i", [slot for slot, _, _ in results]).tobytes(),
        array.array("i", [column for _, column, _ in results]).tobytes(),
        array.array("d", [factor for _, _, factor in results]).tobytes(),
    )


def _factor(
    expression: Any, parameter: Any, columns: dict[Any, int], table: NDArray[np.float64]
) -> float:
    """Return the derivative of an expression by a parameter."""
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
        raise _no_derivative(expression, parameter, str(error)) from error
    if isinstance(value, complex) and value.imag == 0.0:
        value = value.real
    if isinstance(value, complex) or value - value:
        raise _no_derivative(expression, parameter, str(value))
    return float(value)


def _no_derivative(expression: Any, parameter: Any, value: str) -> ProgramError:
    return ProgramError(
        f"the expression {str(expression)[:80]!r} has no finite derivative by {parameter.name!r}"
        f" ({value})",
        hint="leave the gradient out, or take other values",
    )


_NO_SLOTS = ParameterSlots((), ())


class PackedCircuit(msgspec.Struct, frozen=True, gc=False):
    """A program in its wire form. It holds no reference cycle, so `gc=False` is safe."""

    packed: bytes
    num_qubits: int
    measures: bool
    parameters: tuple[str, ...] = ()  # in the order of `circuit.parameters`
    slots: ParameterSlots = _NO_SLOTS

    @property
    def program(self) -> Program:
        """The decoded program."""
        return decode_program(self.packed)

    def bind(self, parameter_values: Any = None) -> NDArray[np.float64]:
        """Return the values of all slots: float64 [K, num_slots], row k for binding k.

        `parameter_values`: an array (K, P) or (P,), columns in the order of `parameters`; or a
        mapping from parameter (object, name, or a vector with its elements as last axis) to a value
        or K values; None for a circuit without parameters. Raises OptionError for a parameter that
        is missing, unknown or not finite; ProgramError for an expression without a finite value.
        """
        return self.slots.values(parameter_values)

    def bound(self, row: NDArray[np.float64]) -> PackedCircuit:
        """Return the circuit with numbers in place of its slots. `row`: one of `bind`."""
        import numpy as np

        program = self.program
        params = np.frombuffer(program.params, np.float64).copy()
        places, slots = np.frombuffer(program.slots, np.int32).reshape(-1, 2).T
        params[places] = row[slots]
        changed = msgspec.structs.replace(program, params=params.tobytes(), num_slots=0, slots=b"")
        return PackedCircuit(changed.packed(), self.num_qubits, self.measures)
