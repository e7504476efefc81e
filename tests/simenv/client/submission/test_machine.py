"""Machines that a program describes: values are checked before they are sent."""

from typing import Any

import pytest

from simenv import Link, Machine
from simenv.errors import OptionError

MODULES = {"a": "fez", "b": "torino"}


@pytest.mark.parametrize("name", ["fidelity", "rate_hz", "herald_ns", "latency_ns"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    fields: dict[str, Any] = {"fidelity": 0.97, name: value}
    with pytest.raises(OptionError, match=f"a.0-b.0: {name}={value}"):
        Machine(MODULES, [Link("a.0", "b.0", **fields)])


def test_probabilities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(OptionError, match="IZ=nan"):
        Machine(MODULES, [Link("a.0", "b.0", paulis={"IZ": float("nan")})])


@pytest.mark.parametrize(
    ("modules", "links"),
    [
        (MODULES, None),
        (["fez", "fez"], []),
        ({"a": 1}, []),
        (MODULES, ["a.0-b.0"]),
        (MODULES, [Link("a.0", "b.0", paulis=[("IZ", 0.1)])]),  # type: ignore[arg-type]
    ],
)
def test_values_of_other_types_are_refused(modules: Any, links: Any) -> None:
    with pytest.raises(OptionError):
        Machine(modules, links)
