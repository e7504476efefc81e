"""Comparison of two QPMs: answers, distances, shapes."""

import math

import msgspec
import numpy as np
import pytest

from simenv.qpm_check.comparison import (
    CallOutcome,
    Difference,
    PoolObservations,
    RowSubject,
    RunOutcome,
    compare,
    distance,
)
from simenv.qpm_check.shapes import differing_paths, form, shape

RAN = RunOutcome(
    "bell.qasm", "COMPLETED", states=("queued", "completed"),
    reached=("creation_time", "completion_time"), counts={"00": 500, "11": 524}, form="2 bits",
    engine="statevector", route="asked for pool a",
)  # fmt: skip
ANSWER = CallOutcome("sync_run", "COMPLETED", {"cid": "str"})
SEEN = PoolObservations("a", (ANSWER,), (RAN,), {"qubits": "28"})
NOISY = {"00": 420, "11": 424, "01": 90, "10": 90}


def other(**changes: object) -> PoolObservations:
    return msgspec.structs.replace(SEEN, pool="b", **changes)


def ran(**changes: object) -> tuple[RunOutcome, ...]:
    return (msgspec.structs.replace(RAN, **changes),)


def test_pools_with_equal_observations_are_alike() -> None:
    result = compare(SEEN, other())
    assert result.alike
    assert result.count(Difference.SAME) == len(result.rows)


@pytest.mark.parametrize(
    "changed",
    [
        {"answers": (CallOutcome("sync_run", "DEFwExecutionError (invalid-request)"),)},
        {"answers": (CallOutcome("sync_run", "COMPLETED", {"cid": "int"}),)},
        {"answers": (CallOutcome("sync_run", "COMPLETED", {"cid": "str", "more": "str"}),)},
        {"answers": ()},
        {"answers": (ANSWER, CallOutcome("is_ready", "returned"))},
        {"runs": ran(outcome="FAILED", counts={}, words="too wide")},
        {"runs": ran(reached=("completion_time", "creation_time"))},
        {"runs": ran(reached=("creation_time",))},
        {"runs": ran(form="1+1 bits", counts={"0 0": 1024})},
    ],
    ids=["error", "type", "field", "lacks", "more", "failed", "order", "time", "keys"],
)
def test_difference_in_behaviour_is_found_in_both_directions(changed: dict[str, object]) -> None:
    for each in (compare(SEEN, other(**changed)), compare(other(**changed), SEEN)):
        assert not each.alike
        assert each.count(Difference.BEHAVIOUR) == 1


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"runs": ran(counts={"00": 530, "11": 494})}, Difference.NOISE),
        ({"runs": ran(counts=NOISY)}, Difference.COUNTS),
        ({"runs": ran(engine="hardware")}, Difference.FACT),
        ({"facts": {"qubits": "27"}}, Difference.FACT),
        ({"facts": {}}, Difference.FACT),
    ],
    ids=["noise", "counts", "engine", "qubits", "unsaid"],
)
def test_noise_and_facts_no_behaviour(changed: dict[str, object], finding: Difference) -> None:
    result = compare(SEEN, other(**changed))
    assert result.alike
    assert result.count(finding) == 1


def test_distances_facts_and_states_decide_likeness() -> None:
    assert compare(SEEN, other(runs=ran(states=("queued", "submitted", "completed")))).alike
    far = other(runs=ran(counts=NOISY))
    assert not compare(SEEN, far, 0.05).alike
    assert compare(SEEN, far, 0.5).alike
    noise = other(runs=ran(counts={"00": 530, "11": 494}))
    assert compare(SEEN, noise, 0.0).alike  # no bound is tighter than the shots are many
    (row,) = [row for row in compare(SEEN, far).rows if row.aspect is RowSubject.COUNTS]
    assert row.distance.total_variation == pytest.approx(180 / 1024, abs=0.01)
    short = CallOutcome("get_device_info", "returned", {"id": "str"})
    long = CallOutcome("get_device_info", "returned", {"id": "str", "set": "str"})
    wrong = CallOutcome("get_device_info", "returned", {"id": "int", "set": "str"})
    result = compare(other(answers=(short,)), other(answers=(long,)))
    assert result.alike
    assert result.count(Difference.FACT) == 1
    assert not compare(other(answers=(short,)), other(answers=(wrong,))).alike


def test_distances_follow_their_definitions() -> None:
    result = distance({"0": 75, "1": 25}, {"0": 50, "1": 50})
    assert result.total_variation == pytest.approx(0.25)
    overlap = math.sqrt(0.75 * 0.5) + math.sqrt(0.25 * 0.5)
    assert result.hellinger == pytest.approx(math.sqrt(1 - overlap))
    apart = distance({"0": 10}, {"1": 20})
    assert (apart.total_variation, apart.hellinger) == (pytest.approx(1.0), pytest.approx(1.0))
    assert not apart.is_noise
    result = distance({"00": 512, "11": 512}, {"00": 512, "11": 512})
    assert (result.total_variation, result.hellinger) == (0.0, pytest.approx(0.0, abs=1e-7))
    assert result.is_noise


@pytest.mark.parametrize("outcomes", [2, 64, 4096])
def test_two_samples_of_one_distribution_differ_by_noise_only(outcomes: int) -> None:
    rng = np.random.default_rng(outcomes)
    p = rng.dirichlet(np.ones(outcomes))
    for _ in range(5):
        value, other = (
            {str(k): int(n) for k, n in enumerate(rng.multinomial(shots, p)) if n}
            for shots in (1000, 4000)
        )
        assert distance(value, other).is_noise


def test_noise_is_expected_by_shots_and_no_error_of_hardware() -> None:
    # Of two outcomes: E|p - q| = sqrt(2 / pi) sigma, sigma^2 = p(1 - p)(1/n + 1/m).
    shots = 10_000
    result = distance({"0": shots // 2, "1": shots // 2}, {"0": shots // 2, "1": shots // 2})
    expected = math.sqrt(2 / math.pi) * math.sqrt(0.25 * 2 / shots)
    # The mean of 200 half-normal values has a relative spread of 0.756 / sqrt(200) = 5.3 %.
    assert result.noise_total_variation == pytest.approx(expected, rel=5 * 0.053)
    ideal = {"00": 5000, "11": 5000}
    assert not distance(ideal, {"00": 4700, "11": 4650, "01": 330, "10": 320}).is_noise


def test_fields_and_registers_are_compared_by_their_shape() -> None:
    assert shape({"result": {"counts": {"00": 3}}}) == shape({"result": {"counts": {"11": 5}}})
    assert shape({"result": {"00": 3}}) == shape({"result": {"11": 5, "01": 1}})  # of revision 1
    assert shape({"counts": {"0": 1}}) != shape({"counts": {"0": 1.0}})
    result, other = shape({"cid": "a", "times": {"end": 1.0}}), shape({"cid": "b", "times": {}})
    assert differing_paths(result, other) == [("times.end", "float", "-")]
    assert differing_paths(other, result) == [("times.end", "-", "float")]
    assert differing_paths(shape({"id": 1}), shape({"id": "1"})) == [("id", "int", "str")]
    assert differing_paths(shape({"ok": True}), shape({"ok": 1})) == [("ok", "bool", "int")]
    assert differing_paths(shape({"error": None}), shape({"error": "why"})) == []
    assert differing_paths(shape({"set": None}), shape({"set": {"id": "x"}})) == []
    assert differing_paths(shape({"edges": []}), shape({"edges": [[0, 1]]})) == []
    assert differing_paths(shape({"edges": ["0"]}), shape({"edges": [0]})) == [
        ("edges[]", "str", "int")
    ]
    table = {"state": "queued", "wait_estimate": {"available": False}, "extensions": {"a": 1}}
    other = {"state": "queued", "extensions": {"b": {"c": 2}}}
    assert differing_paths(shape(table), shape(other)) == []
    assert (form({"01 1": 3, "00 0": 1}), form({"011": 3}), form({})) == ("2+1 bits", "3 bits", "")
