"""What counts as another behaviour, and what does not."""

from __future__ import annotations

import msgspec
import pytest

from simenv.cli.qpm_diff.compare import compare
from simenv.cli.qpm_diff.values import (
    CallOutcome,
    Difference,
    PoolObservations,
    RowSubject,
    RunOutcome,
)

RAN = RunOutcome(
    "bell.qasm",
    "COMPLETED",
    states=("queued", "completed"),
    reached=("creation_time", "completion_time"),
    counts={"00": 500, "11": 524},
    form="2 bits",
    engine="statevector",
    route="asked for pool a",
)
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
def test_one_difference_in_behaviour_is_found_in_both_directions(
    changed: dict[str, object],
) -> None:
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
def test_differences_of_noise_counts_and_facts_are_not_behaviour(
    changed: dict[str, object], finding: Difference
) -> None:
    result = compare(SEEN, other(**changed))
    assert result.alike
    assert result.count(finding) == 1


def test_different_intermediate_states_are_alike() -> None:
    assert compare(SEEN, other(runs=ran(states=("queued", "submitted", "completed")))).alike


def test_distance_above_bound_is_not_alike_unless_it_is_noise() -> None:
    far = other(runs=ran(counts=NOISY))
    assert not compare(SEEN, far, 0.05).alike
    assert compare(SEEN, far, 0.5).alike
    noise = other(runs=ran(counts={"00": 530, "11": 494}))
    assert compare(SEEN, noise, 0.0).alike  # no bound is tighter than the shots are many
    (row,) = [row for row in compare(SEEN, far).rows if row.aspect is RowSubject.COUNTS]
    assert row.distance is not None
    assert row.distance.total_variation == pytest.approx(180 / 1024, abs=0.01)


def test_device_info_field_of_one_pool_is_fact_but_other_type_is_behaviour() -> None:
    short = CallOutcome("get_device_info", "returned", {"id": "str"})
    long = CallOutcome("get_device_info", "returned", {"id": "str", "set": "str"})
    wrong = CallOutcome("get_device_info", "returned", {"id": "int", "set": "str"})
    result = compare(other(answers=(short,)), other(answers=(long,)))
    assert result.alike
    assert result.count(Difference.FACT) == 1
    assert not compare(other(answers=(short,)), other(answers=(wrong,))).alike
