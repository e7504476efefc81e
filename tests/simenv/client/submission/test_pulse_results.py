"""Results of pulse sequences, as they were sent."""

import math

import numpy as np

from simenv.client.submission.pulses import PulseResult
from simenv.model.calls import CALL_FORMAT
from simenv.model.pulses import PulseAnswer
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
