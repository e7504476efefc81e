"""Noise options have one canonical form; unknown and impossible ones are refused by name."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noise_models.errors import NoiseError
from noise_models.options import COMPONENTS, GROUPS, VALUES, NoiseOptions


def test_words_are_short_forms() -> None:
    assert NoiseOptions.parse("on") == NoiseOptions() == NoiseOptions.parse({})
    assert NoiseOptions.parse("off").wire() == (("all", 0.0),)
    assert NoiseOptions.parse("aer").wire() == (("recipe.aer", 1.0),)
    assert NoiseOptions.parse({"recipe": "aer", "idle": False}).wire() == (
        ("recipe.aer", 1.0),
        ("recipe.idle", 0.0),
    )


def test_factors_of_groups_multiply() -> None:
    options = NoiseOptions.parse({"all": 2, "gate": 0.5, "gate.coherent": 3, "qubit.idle": 0})
    assert options.factor("gate.coherent") == 3.0
    assert options.factor("gate.depolarizing") == 1.0
    assert options.factor("qubit.thermal") == 2.0
    assert options.factor("qubit.idle") == 0.0


@given(
    st.dictionaries(st.sampled_from(COMPONENTS + GROUPS), st.floats(0, 10)),
    st.dictionaries(st.sampled_from(sorted(VALUES)), st.floats(0.1, 1)),
    st.sampled_from(["simenv", "aer", "aer-properties"]),
    st.booleans(),
)
def test_wire_form_is_canonical(
    factors: dict[str, float], values: dict[str, float], recipe: str, idle: bool
) -> None:
    mapping = {**factors, **values, "recipe": recipe, "idle": idle}
    options = NoiseOptions.parse(mapping)
    assert NoiseOptions.parse(options.wire()) == options
    assert NoiseOptions.parse(dict(reversed(mapping.items()))).wire() == options.wire()
    for name in COMPONENTS:
        names = ("all", name.split(".")[0], name)
        expected = 1.0
        for each in names:
            expected *= factors.get(each, 1.0)
        assert options.factor(name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("loud", "loud"),
        ({"gate.depolarising": 1}, "did you mean gate.depolarizing"),
        ({"gate": -1}, "gate"),
        ({"gate": float("nan")}, "gate"),
        ({"gate": float("inf")}, "gate"),
        ({"gate": 10**400}, "gate"),
        ({"all": 1e308}, "a number from 0 to 1e+09"),
        ({"gate": "0.5"}, "gate"),
        ({"gate": True}, "gate"),
        ({"qubit.idle": False}, "qubit.idle"),
        ({"qubit.p01": 1.5}, "qubit.p01"),
        ({"qubit.t1_us": 0}, "qubit.t1_us"),
        ({"recipe": "best"}, "best"),
        ({"recipe.aer": 0.5}, "recipe.aer"),
        ({"recipe.best": 1.0}, "best"),
        ({"idle": 2}, "idle"),
        ([("gate", 1.0), ("gate", 1.0)], "twice"),
        ([("gate", 1.0, 2.0)], "pairs"),
        ({3: 1.0}, "pairs"),
    ],
)
def test_wrong_options_are_refused_by_name(value: object, text: str) -> None:
    with pytest.raises(NoiseError) as caught:
        NoiseOptions.parse(value)  # type: ignore[arg-type]
    assert text in caught.value.message + caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"idle": False, "recipe.idle": 1.0}, "'idle' is given twice"),
        ({"recipe": "aer", "recipe.aer-properties": 1.0}, "aer and aer-properties"),
        ({"recipe.idle": 2.0}, "option idle = 2.0"),
        ({"qubit.t1_us": 0}, "qubit.t1_us = 0"),
    ],
)
def test_contradicting_options_are_refused(value: dict[str, object], text: str) -> None:
    with pytest.raises(NoiseError, match=text):
        NoiseOptions.parse(value)


def test_options_travel_in_any_order() -> None:
    pairs = [("gate", 0.5), ("qubit", 2.0), ("recipe.aer", 1.0)]
    names = {NoiseOptions.parse(each).wire() for each in itertools.permutations(pairs)}
    assert len(names) == 1
