"""Forecasts of the steps and evolutions of pulse sequences, beside runs of the engine."""

from typing import Any

import msgspec
import pulser
import pytest
from pulser.waveforms import ConstantWaveform, RampWaveform

from simenv.client.submission.pulses import pack_pulses
from simenv.errors import LimitExceededError, OptionError
from simenv.model import TaskOptions
from simenv.model.calls import decode_call
from simenv.model.pulses import RYDBERG, PulseCall, check_pulses
from simenv.service.program_rules import examined_call
from testbed.pulse_steps import steps_of_run

SHOTS = 5


def sequence(rabi: float, *, pulses: int = 1, local: bool = False, spacing: float = 6.0) -> Any:
    """A chain of four atoms for 400 ns."""
    register = pulser.Register.rectangle(1, 4, spacing=spacing, prefix="q")
    result = pulser.Sequence(register, pulser.MockDevice)
    kind, target = ("rydberg_local", {"initial_target": "q1"}) if local else ("rydberg_global", {})
    result.declare_channel("c", kind, **target)
    length = 400 // pulses
    for number in range(pulses):
        amplitude = ConstantWaveform(length, rabi * (1 + number % 2))
        result.add(pulser.Pulse(amplitude, RampWaveform(length, -8.0, 8.0), 0.0), "c")
    return result


def forecast(packed: bytes) -> tuple[int, int]:
    """Steps of an evolution, and evolutions."""
    _, profile = examined_call(packed, TaskOptions(engine=RYDBERG))
    return profile.gates_1q, profile.gates_2q


@pytest.mark.parametrize(
    "given",
    [
        {"rabi": 0.5}, {"rabi": 40.0}, {"rabi": 5.0, "spacing": 12.0},
        {"rabi": 40.0, "spacing": 12.0}, {"rabi": 3.0, "pulses": 10}, {"rabi": 20.0, "local": True},
    ],
)  # fmt: skip
def test_forecast_steps_are_near_those_of_the_run(given: dict[str, Any]) -> None:
    packed = pack_pulses(sequence(**given), {"shots": SHOTS})
    expected, taken = forecast(packed)[0], steps_of_run(packed, SHOTS)
    assert expected / taken == pytest.approx(1.0, abs=0.9)
    assert taken / expected == pytest.approx(1.0, abs=0.9)


@pytest.mark.parametrize(
    ("noise", "options", "evolutions"),
    [
        ({"relaxation_rate": 0.1}, {}, SHOTS),
        ({"relaxation_rate": 0.1}, {"trajectories": 9}, 9),
        ({"p_false_pos": 0.1}, {}, 1),
        ({"state_prep_error": 1e-3}, {"trajectories": 100}, 2),
        (None, {}, 1),
    ],
)
def test_no_more_evolutions_are_forecast_than_run(
    noise: dict[str, float] | None, options: dict[str, float], evolutions: int
) -> None:
    model = "off" if noise is None else pulser.NoiseModel(**noise)
    packed = pack_pulses(sequence(4.0), {"shots": SHOTS, "noise": model, "options": options})
    expected, number = forecast(packed)
    assert number == evolutions
    taken = steps_of_run(packed, SHOTS)
    assert taken / (evolutions * expected) == pytest.approx(1.0, abs=0.9)


def test_noise_of_a_device_is_forecast_for_the_shots() -> None:
    packed = pack_pulses(sequence(4.0), {"shots": SHOTS, "device": "neutral-atoms-analog"})
    terms = TaskOptions(engine=RYDBERG, device="neutral-atoms-analog", snapshot="0" * 64)
    assert examined_call(packed, terms)[1].gates_2q == SHOTS
    quiet = msgspec.structs.replace(terms, noise=(("all", 0.0),))
    assert examined_call(packed, quiet)[1].gates_2q == 1


def test_figures_of_a_forecast_and_samples_of_channels_are_bounded() -> None:
    call = decode_call(RYDBERG, pack_pulses(sequence(4.0), {}))
    assert isinstance(call, PulseCall)
    for wrong in ({"rate_rad_us": float("nan")}, {"jumps": -1}, {"evolutions": 10**9}):
        with pytest.raises(OptionError):
            check_pulses(msgspec.structs.replace(call, **wrong))
    sizes = msgspec.structs.replace(call.sizes, channels=64, duration_ns=200_000)
    with pytest.raises(LimitExceededError, match="64 channels for 200000 ns"):
        check_pulses(msgspec.structs.replace(call, sizes=sizes))
