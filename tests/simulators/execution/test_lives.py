"""Preparation, reset, measurement and end of a qubit under noise, by all engines, against exact
density matrices that share nothing with them."""

import pytest

from bench.engine import dynamic_noise
from bench.peers import noisy_programs
from bench.peers.noisy_programs import Noise, Program, Step
from noise_models import document
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import simulate

NOISE = Noise(preparation=0.1, reset=0.15, p01=0.02, p10=0.02, one=0.01)
NO_RESET_ERROR = Noise(preparation=0.1)
SHOTS, LEAST_P = 4_000, 1e-6


def x(qubit: int = 0) -> Step:
    return Step("x", (qubit,))


def reset(qubit: int = 0) -> Step:
    return Step("reset", (qubit,))


def measure(clbit: int, qubit: int = 0) -> Step:
    return Step("measure", (qubit,), clbit)


PROGRAMS = {
    "first": (reset(), measure(0)),
    "after_id": (Step("id", (0,)), reset(), measure(0)),
    "twice": (reset(), reset(), x(), measure(0)),
    "between": (measure(0), reset(), measure(1)),
    "id_between": (measure(0), Step("id", (0,)), measure(1)),
    "last": (x(), measure(0), reset()),
    "if_measured": (measure(0, 1), Step("if", (), 0, 0.0, (reset(),)), measure(1)),
    "entangled": (reset(), Step("h", (0,)), Step("cx", (0, 1)), reset(), measure(0), measure(1, 1)),
    "same_bit": (measure(0), x(), measure(0), reset(), measure(1)),
}
MISSED_BY_STIM = {"if_measured"}  # noise under a condition


@pytest.mark.parametrize("noise", [NOISE, NO_RESET_ERROR], ids=["all", "no_reset_error"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_engine_has_the_noise_of_each_reset(name: str, noise: Noise) -> None:
    program = Program(2, 2, PROGRAMS[name], False)
    expected = noisy_programs.exact(program, noise)
    found = dynamic_noise.exact_of(program, noise)
    assert found is not None
    assert dynamic_noise.distance(found, expected) < 1e-9
    for engine in dynamic_noise.ENGINES:
        if engine != "stabilizer" or name not in MISSED_BY_STIM:
            counts = dynamic_noise.sampled(program, noise, engine, SHOTS, 3)
            assert dynamic_noise.fits(expected, counts) > LEAST_P, engine


def test_a_custom_model_acts_on_the_reset_of_an_untouched_qubit() -> None:
    flip = {"paulis": {"I": 0.85, "X": 0.15}}
    values = {"kind": "channels", "name": "mine", "channels": [{"gate": "reset", **flip}]}
    circuit = dynamic_noise.packed(Program(1, 1, (reset(), measure(0)), False))
    model = document.model(document.from_values(values))
    result = simulate(
        circuit, engine="densitymatrix", noise=attach_noise(circuit, model), shots=0,
        outputs=("probabilities",),
    )  # fmt: skip
    assert dynamic_noise.distribution(result.row(0))[1] == pytest.approx(0.15)


@pytest.mark.parametrize("number", range(12))
def test_random_programs_are_exact(number: int) -> None:
    """The short form of `python -m bench run dynamic_noise`."""
    program, noise = dynamic_noise.drawn(20, number)
    expected = noisy_programs.exact(program, noise)
    found = dynamic_noise.exact_of(program, noise)
    assert found is not None
    assert dynamic_noise.distance(found, expected) < 1e-9
    counts = dynamic_noise.sampled(program, noise, "statevector", SHOTS, number)
    assert dynamic_noise.fits(expected, counts) > LEAST_P


@pytest.mark.parametrize("form", [dynamic_noise.of_stim, dynamic_noise.of_links])
def test_a_program_is_the_same_in_stim_and_on_linked_devices(form: object) -> None:
    assert min(form(5, number, SHOTS) for number in range(4)) > LEAST_P  # type: ignore[operator]


def test_the_reference_agrees_with_state_vectors_of_aer() -> None:
    program, noise = dynamic_noise.drawn(20, 1)
    counts = noisy_programs.aer_counts(program, noise, SHOTS, 1)
    assert dynamic_noise.fits(noisy_programs.exact(program, noise), counts) > LEAST_P
