"""Texts of pulse sequences before anything reads them."""

import json

import pytest

from simenv.errors import LimitExceededError, ProgramError
from simenv.model.pulses import MAX_NESTING, MAX_SEQUENCE_BYTES, check_text


@pytest.mark.timeout(30)
@pytest.mark.parametrize("part", ['\\"', '"', "\\", '"\\'])
def test_a_string_without_an_end_takes_no_longer_than_others(part: str) -> None:
    """Hours if the search begins again at each quote, and the interpreter's lock is held."""
    text = '{"' + part * ((MAX_SEQUENCE_BYTES - 2) // len(part))
    with pytest.raises(ProgramError, match="no JSON object"):
        check_text("the sequence", text)


def test_brackets_within_strings_are_no_nesting() -> None:
    name = '\\"[[{' * 2 * MAX_NESTING
    check_text("the sequence", json.dumps({name: [name, "\\"]}))
    check_text("the sequence", "{" + f'"{name}": 1' + "}")
    deep: object = 1
    for _ in range(MAX_NESTING):
        deep = {name: deep}
    check_text("the sequence", json.dumps(deep))
    with pytest.raises(LimitExceededError, match=f"nested {MAX_NESTING + 1} deep"):
        check_text("the sequence", json.dumps([deep]).replace("[", '{"":', 1)[:-1] + "}")
