"""Results of pulse sequences, as they were sent."""

import math

import numpy as np

from simenv.client.submission.pulses import PulseResult
from simenv.model.calls import CALL_FORMAT
from simenv.model.pulses import (
    MAX_TRAJECTORIES,
    PulseAnswer,
    PulseSizes,
    default_trajectories,
    shared_draws,
)
from simenv.wire import codec


def test_outcomes_of_more_than_64_atoms_are_counted_once() -> None:
    atoms = tuple(f"q{k}" for k in range(70))
    outcomes = np.array([[0, 1], [32, 0], [63, 2**64 - 1]], "<u8")
    answer = PulseAnswer(
        format=CALL_FORMAT, shots=10, seed=1, atoms=atoms, basis="ground-rydberg", simulator="s",
        error=math.nan, steps=1, trajectories=1, duration_ns=100, times=(1.0,),
        occupation=np.zeros(70).tobytes(), outcomes=(outcomes.tobytes(),),
        counts=(np.array([5, 3, 2], "<u8").tobytes(),), remark="bond 16",
    )  # fmt: skip
    result = PulseResult(codec.encode(answer))
    assert result.num_outcomes == 3
    assert result.counts["1" * 70] == 2
    assert result.counts["1" + 69 * "0"] == 3
    assert result.to_dict()["remark"] == "bond 16"


def test_expectation_values_have_the_names_of_a_circuits_result() -> None:
    answer = PulseAnswer(
        format=CALL_FORMAT, shots=0, seed=1, atoms=("a", "b"), basis="ground-rydberg",
        simulator="s", error=0.0, steps=1, trajectories=4, duration_ns=100, times=(0.5, 1.0),
        occupation=np.zeros(4).tobytes(), expectation=np.array([0.1, 0.2, 0.3, 0.4]).tobytes(),
        standard_errors=np.arange(8.0).tobytes(),
    )  # fmt: skip
    result = PulseResult(codec.encode(answer))
    assert result.expectations == tuple(result.expectation) == (0.3, 0.4)
    assert result.std_errors == (6.0, 7.0)


def test_each_shot_of_a_small_sequence_has_a_draw_of_the_noise() -> None:
    small, wide, long = PulseSizes(6, 1, 400), PulseSizes(9, 1, 400), PulseSizes(6, 1, 10**6)
    assert default_trajectories(20_000, small) == 20_000
    assert default_trajectories(10**6, small) == MAX_TRAJECTORIES
    assert default_trajectories(20_000, wide) == default_trajectories(20_000) == 200
    assert default_trajectories(20_000, long) == 200
    assert default_trajectories(50, wide) == 50
    assert default_trajectories(0, small) == 200


def test_shots_that_share_draws_of_the_noise_are_named() -> None:
    assert "200 effective samples" in shared_draws(20_000, 200)
    assert not shared_draws(200, 200)
    assert not shared_draws(500, 1)  # nothing is drawn
