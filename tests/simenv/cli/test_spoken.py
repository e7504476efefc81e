"""Errors in the words of the command line."""

from __future__ import annotations

import pytest

from simenv.cli.errors import errors_for_command_line, translate_to_options
from simenv.errors import OptionError


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("shots=None is exact: there are no counts", "--shots 0 is exact: there are no counts"),
        (
            "counts need shots; shots=None (exact) gives none",
            "counts need shots; --shots 0 gives none",
        ),
        (
            "give shots=N, or ask for outputs=('probabilities',)",
            "give --shots N, or ask for --output probabilities",
        ),
        (
            'or ask for outputs=("statevector",), or give observables',
            "or ask for --output statevector, or give --observable",
        ),
        ("give parameter_values= a value for every parameter", "give --param NAME=VALUE"),
        ("queue_timeout_s=-1.0", "--queue-timeout -1.0"),
        ("engine='mps'", "--engine mps"),
        ("text, as opposed to a path, has a newline or ';' in it", ""),
        ("name='No'", "--task-name 'No'"),
        ("the name=x inside stays", "the name=x inside stays"),
    ],
)
def test_python_arguments_in_messages_become_command_line_options(python: str, typed: str) -> None:
    assert translate_to_options(python) == typed


def test_translated_error_keeps_its_type_and_index() -> None:
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError("shots=0", hint="shots=None is exact", index=3)
    assert (caught.value.message, caught.value.hint) == ("--shots 0", "--shots 0 is exact")
    assert caught.value.index == 3
