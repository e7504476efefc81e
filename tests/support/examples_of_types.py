"""An example value of any msgspec type, with every optional field set to another value than its
default.

Values depend on their place alone, never on names of fields or classes: renaming what is not sent
by name does not change the bytes of an example.
"""

import builtins
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect as introspect


def example(kind: Any) -> Any:
    """The same value for the same structure, always."""
    return _value(introspect.type_info(kind), itertools.count(1), msgspec.NODEFAULT)


def structs(kind: Any) -> dict[type[msgspec.Struct], None]:
    """All structs that values of this type hold, itself included, in their order."""
    table: dict[type[msgspec.Struct], None] = {}
    _collect(introspect.type_info(kind), table, {})
    return table


def enumerations(kind: Any) -> list[list[Any]]:
    """The values of each enumeration and literal that values of this type hold."""
    table: dict[tuple[Any, ...], None] = {}
    _collect(introspect.type_info(kind), {}, table)
    return [list(values) for values in table]


def _value(kind: introspect.Type, numbers: Iterator[int], default: Any) -> Any:
    for _ in range(16):  # a value that is the default's would hide the field
        value = _any_value(kind, numbers, default)
        if value != default or isinstance(kind, introspect.NoneType):
            return value
    raise AssertionError(f"no value of {kind} but the default {default!r}")


def _any_value(kind: introspect.Type, numbers: Iterator[int], default: Any) -> Any:
    number = next(numbers)
    match kind:
        case introspect.NoneType():
            return None
        case introspect.BoolType():
            return not default if isinstance(default, bool) else True
        case introspect.IntType():
            low = kind.ge if kind.ge is not None else 0
            span = kind.le - low + 1 if kind.le is not None else 2**63
            return int(low + number % span)
        case introspect.FloatType(ge=float(low), le=float(high)):
            return low + (high - low) / (1 << number % 16)
        case introspect.FloatType():
            return number + 0.5
        case introspect.StrType():
            return f"text {number}".ljust(kind.min_length or 0, ".")
        case introspect.BytesType() | introspect.ByteArrayType():
            return b"bytes %d" % number
        case introspect.EnumType():
            values = list(kind.cls)
            return values[number % len(values)]
        case introspect.LiteralType():
            return kind.values[number % len(kind.values)]
        case introspect.AnyType() | introspect.CustomType(cls=builtins.object):
            return f"anything {number}"
        case introspect.UnionType():
            parts = [part for part in kind.types if not isinstance(part, introspect.NoneType)]
            return _value(parts[0], numbers, default)
        case introspect.TupleType():
            return tuple(_value(part, numbers, msgspec.NODEFAULT) for part in kind.item_types)
        case introspect.VarTupleType():
            return tuple(_value(kind.item_type, numbers, msgspec.NODEFAULT) for _ in range(2))
        case introspect.ListType():
            return [_value(kind.item_type, numbers, msgspec.NODEFAULT) for _ in range(2)]
        case introspect.DictType():
            key = _value(kind.key_type, numbers, msgspec.NODEFAULT)
            return {key: _value(kind.value_type, numbers, msgspec.NODEFAULT)}
        case introspect.StructType() | introspect.DataclassType():
            return kind.cls(**{f.name: _value(f.type, numbers, f.default) for f in kind.fields})
    raise AssertionError(f"no example of {kind}: add it here")


def _collect(
    kind: Any, found: dict[type[msgspec.Struct], None], values: dict[tuple[Any, ...], None]
) -> None:
    if isinstance(kind, introspect.StructType):
        if kind.cls not in found:
            found[kind.cls] = None
            for each in kind.fields:
                _collect(each.type, found, values)
    elif isinstance(kind, introspect.EnumType):
        values[tuple(each.value for each in kind.cls)] = None
    elif isinstance(kind, introspect.LiteralType):
        values[tuple(kind.values)] = None
    elif isinstance(kind, tuple):
        for part in kind:
            _collect(part, found, values)
    elif isinstance(kind, introspect.Type):
        for name in kind.__struct_fields__:
            _collect(getattr(kind, name), found, values)
