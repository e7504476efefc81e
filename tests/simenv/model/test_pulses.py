"""Texts of pulse sequences before anything reads them."""

import json

import pytest

from simenv.errors import LimitExceededError, ProgramError
from simenv.model.pulses import MAX_NESTING, MAX_SEQUENCE_BYTES, check_parts, check_text


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


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "pulse", "amplitude": {"kind": "constant", "duration": 10**9, "value": 1.0}}],
        [{"op": "pulse", "amplitude": {"waveforms": [{"duration": 999_999}] * 9}}],
        [{"op": "enable_eom_mode"}, *[{"op": "add_eom_pulse", "duration": 10**6}] * 9],
        [{"op": "pulse", "amplitude": {"duration": 10**400}}],
    ],
)
def test_endless_pulses_are_refused_before_pulser_makes_their_samples(operations: object) -> None:
    channels = {"a": "rydberg_global", "b": "raman_local"}
    text = json.dumps({"channels": channels, "operations": operations})
    with pytest.raises(LimitExceededError, match="the limit is 8000000"):
        check_parts(text)
    check_parts(json.dumps({"channels": channels, "operations": [{"duration": 10**6}] * 8}))
    for odd in ([[{"duration": "x"}], {"duration": [True]}], {"duration": None}, 5, None):
        check_parts(json.dumps({"channels": 3, "operations": odd}))
