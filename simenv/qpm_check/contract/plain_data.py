"""Test whether a value is plain data: exactly dict, list, str, int, float, bool or None."""

from __future__ import annotations

from typing import Any

_LEAVES = (str, int, float, bool, type(None))
_MOST = 5  # reported places of one value


def impurities(value: Any, place: str = "answer") -> list[str]:
    """First _MOST places that are not plain data, with their types. Subclasses count as impure:
    they are sent as objects of their class."""
    results: list[str] = []
    _find_impure(value, place, results)
    return results[:_MOST]


def _find_impure(value: Any, place: str, problems: list[str]) -> None:
    if len(problems) >= _MOST:
        return
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) not in _LEAVES:
                problems.append(f"{place} has a key of type {_name(key)}")
            _find_impure(item, f"{place}[{key!r}]", problems)
    elif kind is list:
        for number, item in enumerate(value):
            _find_impure(item, f"{place}[{number}]", problems)
    elif kind not in _LEAVES:
        problems.append(f"{place} is of type {_name(value)}")


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
