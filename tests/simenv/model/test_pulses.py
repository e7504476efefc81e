"""Texts of pulse sequences before anything reads them."""

import json

import pytest

from simenv.errors import LimitExceededError, ProgramError
from simenv.model.pulse_parts import check_parts
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


@pytest.mark.parametrize(
    "duration",
    [
        {"variable": "d"},
        {"expression": "index", "lhs": {"variable": "many"}, "rhs": 1},
        {"expression": "mul", "lhs": {"variable": "one"}, "rhs": 1e9},
        {"expression": "pow", "lhs": 10, "rhs": {"expression": "add", "lhs": 9, "rhs": 1}},
        {"expression": "div", "lhs": 1.0, "rhs": 1e-9},
        {"expression": "exp", "lhs": {"expression": "abs", "lhs": -50}},
        {"expression": "exp", "lhs": 1e9},
        {"expression": "ceil", "lhs": {"expression": "neg", "lhs": -2e9}},
    ],
)
def test_durations_by_formulas_are_in_the_sum_once_variables_have_values(duration: object) -> None:
    waveform = {"kind": "constant", "duration": duration, "value": 1.0}
    text = json.dumps(
        {"channels": {"a": "x"}, "operations": [{"op": "pulse", "amplitude": waveform}]}
    )
    with pytest.raises(LimitExceededError, match="the limit is 4000000"):
        check_parts(text, {"d": (1e9,), "many": (1.0, 1e9), "one": (1.0,)})
    small = {"d": (100.0,), "many": (1.0, 100.0), "one": (1e-7,)}
    if "variable" in json.dumps(duration):
        check_parts(text, small)
        check_parts(text)  # their values come later


@pytest.mark.parametrize(
    "waveform",
    [
        {"kind": "blackman_max", "max_val": 1e-9, "area": 1.0},
        {"kind": "kaiser_max", "max_val": -1e-9, "area": {"variable": "area"}, "beta": 14.0},
    ],
)
def test_durations_that_follow_from_the_area_are_in_the_sum(waveform: dict[str, object]) -> None:
    def text(**changes: float) -> str:
        return json.dumps(
            {"channels": {"a": "x"}, "operations": [{"amplitude": waveform | changes}]}
        )

    with pytest.raises(LimitExceededError, match="the limit is 4000000"):
        check_parts(text(), {"area": (-1.0,)})
    check_parts(text(max_val=-10.0), {"area": (-1.0,)})
    for odd in (0.0, float("nan")):
        check_parts(text(max_val=odd), {"area": (-1.0,)})


@pytest.mark.parametrize(
    "duration",
    [
        {"variable": "absent"}, {"variable": []}, {"expression": "index", "lhs": 3, "rhs": 7},
        {"expression": "eval", "lhs": "1", "rhs": 2}, {"expression": {}, "lhs": 1}, {}, {"lhs": 1},
        {"expression": "add", "lhs": [1, 2], "rhs": [1]}, {"expression": "mul", "lhs": "x"},
        {"expression": "add", "lhs": [[1], [2, 3]], "rhs": 1}, {"expression": "log", "lhs": -1},
        {"expression": "index", "lhs": [1], "rhs": {"expression": "log", "lhs": -1}},
    ],
)  # fmt: skip
def test_formulas_that_pulser_refuses_count_as_nothing(duration: object) -> None:
    text = json.dumps({"channels": {}, "operations": [{"duration": duration}]})
    check_parts(text, {"d": (1.0,)})
