"""Shapes of answers: names and types are behaviour, values are data."""

from __future__ import annotations

from simenv.cli.qpm_diff.values import differing_paths, form, shape


def test_shape_ignores_outcome_keys_of_counts() -> None:
    assert shape({"result": {"counts": {"00": 3}}}) == shape({"result": {"counts": {"11": 5}}})
    assert shape({"result": {"00": 3}}) == shape({"result": {"11": 5, "01": 1}})  # of revision 1
    assert shape({"counts": {"0": 1}}) != shape({"counts": {"0": 1.0}})


def test_missing_field_is_found_in_both_directions() -> None:
    result, other = shape({"cid": "a", "times": {"end": 1.0}}), shape({"cid": "b", "times": {}})
    assert differing_paths(result, other) == [("times.end", "float", "-")]
    assert differing_paths(other, result) == [("times.end", "-", "float")]


def test_different_field_types_are_found() -> None:
    assert differing_paths(shape({"id": 1}), shape({"id": "1"})) == [("id", "int", "str")]
    assert differing_paths(shape({"ok": True}), shape({"ok": 1})) == [("ok", "bool", "int")]


def test_null_and_empty_list_match_any_type() -> None:
    assert differing_paths(shape({"error": None}), shape({"error": "why"})) == []
    assert differing_paths(shape({"set": None}), shape({"set": {"id": "x"}})) == []
    assert differing_paths(shape({"edges": []}), shape({"edges": [[0, 1]]})) == []
    assert differing_paths(shape({"edges": ["0"]}), shape({"edges": [0]})) == [
        ("edges[]", "str", "int")
    ]


def test_extensions_and_wait_estimates_are_not_compared() -> None:
    table = {"state": "queued", "wait_estimate": {"available": False}, "extensions": {"a": 1}}
    other = {"state": "queued", "extensions": {"b": {"c": 2}}}
    assert differing_paths(shape(table), shape(other)) == []


def test_form_names_width_of_each_register() -> None:
    assert form({"01 1": 3, "00 0": 1}) == "2+1 bits"
    assert form({"011": 3}) == "3 bits"
    assert form({}) == ""
