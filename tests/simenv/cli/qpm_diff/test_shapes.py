"""Shapes of answers: names and types are behaviour, values are data."""

from __future__ import annotations

from simenv.cli.qpm_diff.values import form, shape, unlike


def test_outcomes_are_taken_for_names() -> None:
    assert shape({"result": {"counts": {"00": 3}}}) == shape({"result": {"counts": {"11": 5}}})
    assert shape({"result": {"00": 3}}) == shape({"result": {"11": 5, "01": 1}})  # of revision 1
    assert shape({"counts": {"0": 1}}) != shape({"counts": {"0": 1.0}})


def test_a_field_that_one_lacks_is_not_seen() -> None:
    one, other = shape({"cid": "a", "times": {"end": 1.0}}), shape({"cid": "b", "times": {}})
    assert unlike(one, other) == [("times.end", "float", "-")]
    assert unlike(other, one) == [("times.end", "-", "float")]


def test_another_type_is_not_seen() -> None:
    assert unlike(shape({"id": 1}), shape({"id": "1"})) == [("id", "int", "str")]
    assert unlike(shape({"ok": True}), shape({"ok": 1})) == [("ok", "bool", "int")]


def test_what_is_not_known_is_held_to_be_another_type() -> None:
    assert unlike(shape({"error": None}), shape({"error": "why"})) == []
    assert unlike(shape({"set": None}), shape({"set": {"id": "x"}})) == []
    assert unlike(shape({"edges": []}), shape({"edges": [[0, 1]]})) == []
    assert unlike(shape({"edges": ["0"]}), shape({"edges": [0]})) == [("edges[]", "str", "int")]


def test_what_is_the_providers_own_or_the_moments_is_compared() -> None:
    one = {"state": "queued", "wait_estimate": {"available": False}, "extensions": {"a": 1}}
    other = {"state": "queued", "extensions": {"b": {"c": 2}}}
    assert unlike(shape(one), shape(other)) == []


def test_registers_are_not_told_apart() -> None:
    assert form({"01 1": 3, "00 0": 1}) == "2+1 bits"
    assert form({"011": 3}) == "3 bits"
    assert form({}) == ""
