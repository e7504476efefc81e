"""Noise by trajectories against the master equation."""

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.rydberg import outcomes as out
from simulators.rydberg.drive import PulseProgram
from simulators.rydberg.jumps import CollapseOperator, Observer, TrajectoryRunner, sorted_jumps

SAMPLES, RABI, SHIFT, COUPLING = 301, 9.0, 3.0, 6.0
NONE = np.zeros((0, 0))
KETS = np.eye(3, dtype=np.complex128)


def operator(row: int, column: int) -> NDArray[np.complex128]:
    return np.outer(KETS[row], KETS[column])


NOISE = {
    "dephasing": [CollapseOperator(1.5, operator(1, 1))],
    "relaxation": [CollapseOperator(2.0, operator(0, 1))],
    "depolarizing": [
        CollapseOperator(0.4, operator(0, 1) + operator(1, 0)),
        CollapseOperator(0.4, 1j * operator(1, 0) - 1j * operator(0, 1)),
        CollapseOperator(0.4, operator(0, 0) - operator(1, 1)),
    ],
    "leakage": [CollapseOperator(1.2, operator(2, 1)), CollapseOperator(0.7, operator(2, 0))],
    "decay to a superposition": [CollapseOperator(1.5, operator(0, 0) + operator(0, 1))],
    "any operator": [
        CollapseOperator(1.3, 0.6 * operator(0, 0) + (0.7 - 0.5j) * operator(0, 1)
                         + 0.2j * operator(1, 0) - (0.1 + 0.4j) * operator(1, 1)),
    ],
    "complex phases": [CollapseOperator(4.0, operator(0, 0) + 0.5j * operator(1, 1))],
    "all": [
        CollapseOperator(1.0, operator(1, 1)), CollapseOperator(1.5, operator(0, 1)),
        CollapseOperator(0.8, operator(2, 1)),
    ],
}  # fmt: skip


def pair() -> PulseProgram:
    rabi = np.full((SAMPLES, 2), RABI, np.complex128)
    return PulseProgram(
        rabi, np.full((SAMPLES, 2), SHIFT), np.array([[0.0, COUPLING], [COUPLING, 0.0]]), NONE
    )


def exact_occupations(
    jumps: list[CollapseOperator], time_ns: float = SAMPLES - 1
) -> NDArray[np.float64]:
    """Occupations of two three-level atoms by the exponential of the Lindblad operator."""
    one = np.eye(3)
    local = RABI / 2 * (operator(0, 1) + operator(1, 0)) - SHIFT * operator(1, 1)
    number = operator(1, 1)
    energy = np.kron(local, one) + np.kron(one, local) + COUPLING * np.kron(number, number)
    eye = np.eye(9)
    total = -1j * (np.kron(energy, eye) - np.kron(eye, energy.T))
    for jump in jumps:
        for full in (np.kron(jump.matrix, one), np.kron(one, jump.matrix)):
            decay = full.conj().T @ full
            total += jump.rate * (
                np.kron(full, full.conj()) - (np.kron(decay, eye) + np.kron(eye, decay.T)) / 2
            )
    begin = np.zeros(81, np.complex128)
    begin[0] = 1.0
    final = (scipy.linalg.expm(total * time_ns * 1e-3) @ begin).reshape(9, 9)
    both = np.kron(number, number)
    single = np.kron(number, one), np.kron(one, number)
    return np.array([np.trace(each @ final).real for each in (*single, both)])


@pytest.mark.parametrize("kind", NOISE)
def test_trajectories_have_the_mean_of_the_master_equation_at_each_time(kind: str) -> None:
    runner = TrajectoryRunner(sorted_jumps(NOISE[kind]), 1e-4)
    times = 100.0, 170.0, float(SAMPLES - 1)
    values = np.zeros((400, len(times), 3))
    row = 0

    def observe(number: int, state: NDArray[np.complex128], _lost: Sequence[int]) -> None:
        values[row, number] = *out.occupations(state), abs(state[3]) ** 2

    for row in range(len(values)):
        rng = np.random.default_rng([7, row])
        runner.run(pair(), rng, RunControl(), Observer(times, observe))
    mean, spread = values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))
    exact = [exact_occupations(NOISE[kind], time) for time in times]
    assert np.all(np.abs(mean - exact) < 5 * spread + 1e-3)


def test_jumps_within_a_step_follow_the_population() -> None:
    """A single atom is driven so fast that its population oscillates within one step."""
    rabi, rate, samples = 62.8, 5.0, 201
    program = PulseProgram(
        np.full((samples, 1), rabi, np.complex128), np.zeros((samples, 1)), np.zeros((1, 1)), NONE
    )
    runner = TrajectoryRunner(sorted_jumps([CollapseOperator(rate, operator(0, 1))]), 1e-3)
    rng, control = np.random.default_rng(1), RunControl()
    values = [abs(runner.run(program, rng, control).state[1]) ** 2 for _ in range(1_000)]
    energy, decay = rabi / 2 * np.array([[0, 1], [1, 0]]), operator(0, 1)[:2, :2]
    one, lost = np.eye(2), rate / 2 * decay.conj().T @ decay
    left = -1j * energy - lost
    total = np.kron(left, one) + np.kron(one, left.conj()) + rate * np.kron(decay, decay.conj())
    exact = (scipy.linalg.expm(total * (samples - 1) * 1e-3) @ [1, 0, 0, 0])[3].real
    assert abs(np.mean(values) - exact) < 3.5 * np.std(values) / np.sqrt(len(values))


def test_progress_counts_a_step_that_is_repeated_for_a_jump_once() -> None:
    class Counted(RunControl):
        __slots__ = ("total",)

        def advance(self, unit: str, done: float = 1, *, before: bool = False) -> None:
            self.total = getattr(self, "total", 0.0) + done

    runner = TrajectoryRunner(sorted_jumps(NOISE["all"]), 1e-5)
    for seed in range(5):
        control = Counted()
        runner.run(pair(), np.random.default_rng(seed), control)
        assert control.total == pytest.approx(SAMPLES - 1)


def test_noise_without_a_trajectory_is_refused() -> None:
    spiral = (1 + 1j) * (operator(0, 1) + operator(1, 0)) + operator(0, 0) - operator(1, 1)
    with pytest.raises(Unsupported, match="not diagonal"):
        sorted_jumps([CollapseOperator(1.0, spiral)])
    with pytest.raises(Unsupported, match="brings lost atoms back"):
        sorted_jumps([CollapseOperator(1.0, operator(0, 2))])
    with pytest.raises(Unsupported, match="two states at once"):
        sorted_jumps([CollapseOperator(1.0, operator(2, 0) + operator(2, 1))])
