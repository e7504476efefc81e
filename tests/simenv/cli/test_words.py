"""Small languages of the command line: parameters."""

from __future__ import annotations

import pytest
from failing import fails

from simenv.cli.tasks.circuit_input import bindings_of
from simenv.errors import OptionError


def test_parameters_are_parsed_into_bindings() -> None:
    assert bindings_of([]) is None
    assert bindings_of(["a=0.5", "b=-1e-3"]) == {"a": [0.5], "b": [-1e-3]}


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=pi", "a=1=2"])
def test_malformed_parameter_is_refused(text: str) -> None:
    fails(OptionError, "", bindings_of, [text])
