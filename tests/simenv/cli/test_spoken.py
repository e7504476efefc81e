"""Errors in the words of the command line."""

from __future__ import annotations

import pytest

from simenv.cli.tasks.circuit_input import NAMES, errors_for_command_line
from simenv.errors import OptionError, with_names


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("shots=None is exact: there are no counts", "--shots 0 is exact: there are no counts"),
        (
            "counts need shots; shots=None (exact) gives none",
            "counts need shots; --shots 0 (exact) gives none",
        ),
        (
            "give shots=N, or ask for outputs=('probabilities',)",
            "give --shots N, or ask for --output probabilities",
        ),
        (
            'or ask for outputs=("statevector",), or give observables=',
            "or ask for --output statevector, or give --observable",
        ),
        ("give parameter_values= for each", "give --param NAME=VALUE for each"),
        ("amplitudes=['01', ...]; qubit_mapping=[5, 4]", "--amplitude 01; --qubit-mapping 5,4"),
        (
            'options={"bond": 64}, or leave noise= out',
            "--engine-option bond=64, or leave --noise out",
        ),
        ("compile='never', or leave compile= out", "--compile never, or leave --compile out"),
        ("queue_timeout_s=-1.0", "--queue-timeout -1.0"),
        ("engine='mps'", "--engine mps"),
        ("the name=x inside stays", "the name=x inside stays"),
    ],
)
def test_python_arguments_in_messages_become_command_line_options(python: str, typed: str) -> None:
    assert with_names(python, NAMES) == typed


def test_translated_errors_keep_type_index_and_quotation_marks() -> None:
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError(option="name", value="No x", expected="shots=None is exact", index=3)
    assert (caught.value.message, caught.value.hint) == ("--task-name 'No x'", "--shots 0 is exact")
    assert caught.value.index == 3
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError("prefer='hard ware' is no pool", hint="prefer=['hardware']")
    assert caught.value.message == "--prefer 'hard ware' is no pool"
    assert caught.value.hint == "--prefer hardware"


def test_option_without_a_value_is_named() -> None:
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError("noise needs a device", hint="or leave noise= out", option="noise")
    assert str(caught.value) == "--noise needs a device\n  or leave --noise out"
