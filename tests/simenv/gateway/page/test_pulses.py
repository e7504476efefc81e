"""Pulse sequences as the page draws them: curves are the samples, sizes are bounded."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from failing import fails

from simenv.client.client import Client
from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.gateway.page import pulses as drawings, views
from simenv.gateway.request_process import request_sandbox
from simenv.model import TaskOptions
from simenv.model.calls import AUTO, TRANSPILER
from simenv.model.options import VALUE
from simenv.model.pulses import PULSE_ENGINES, RYDBERG, PulseCall, PulseSizes
from simenv.wire import codec

pulser = pytest.importorskip("pulser")


def call_of(sequence: Any, **fields: Any) -> PulseCall:
    sizes = PulseSizes(2, len(sequence.declared_channels), 1_000)
    return PulseCall(1, sequence.to_abstract_repr(), sizes, ("counts",), **fields)


def drawn(call: PulseCall) -> drawings.PulseDrawing:
    body = drawings.drawn(msgspec.msgpack.encode(call))
    return msgspec.json.decode(body, type=drawings.PulseDrawing)


def two_atoms() -> Any:
    register = pulser.Register({"left": (-2.0, 0.5), "right": (4.0, 0.5)})
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    return sequence


def test_curves_pass_through_every_sample() -> None:
    sequence = two_atoms()
    waveforms = [
        pulser.BlackmanWaveform(250, 3.0),
        pulser.CompositeWaveform(pulser.RampWaveform(60, 1, 9), pulser.ConstantWaveform(90, 4.0)),
        pulser.InterpolatedWaveform(120, [0.0, 5.0, 2.0, 7.0]),
    ]
    for number, waveform in enumerate(waveforms):
        detuning = pulser.RampWaveform(waveform.duration, -8.0, 5.0)
        sequence.add(pulser.Pulse(waveform, detuning, 0.7 * number), "global")
    result = drawn(call_of(sequence))
    samples = pulser.sampler.sample(sequence).channel_samples["global"]
    [channel] = result.channels
    for curve, exact in (
        (channel.amplitude, samples.amp), (channel.detuning, samples.det),
        (channel.phase, samples.phase),
    ):  # fmt: skip
        times, values = curve
        assert len(times) < len(samples.amp)
        between = np.interp(np.arange(len(samples.amp)), times, values)
        assert between == pytest.approx(np.asarray(exact), abs=1e-4)
    assert result.atoms == [("left", -2.0, 0.5), ("right", 4.0, 0.5)]
    largest = float(np.max(np.asarray(samples.amp)))
    assert result.blockade_um == pytest.approx(pulser.MockDevice.rydberg_blockade_radius(largest))


def test_variables_have_their_values_and_local_pulses_their_atoms() -> None:
    sequence = two_atoms()
    sequence.declare_channel("local", "rydberg_local", initial_target="left")
    rabi = sequence.declare_variable("rabi")
    sequence.add(pulser.Pulse.ConstantPulse(40, rabi, 0.0, 0.0), "local")
    sequence.target("right", "local")
    sequence.add(pulser.Pulse.ConstantPulse(60, 2.0, 0.0, 0.0), "local")
    _, local = drawn(call_of(sequence, variables=(("rabi", (5.0,)),))).channels
    assert local.slots == [(0, 40, ["left"]), (40, 100, ["right"])]
    assert local.amplitude == ([0, 39, 40, 99], [5.0, 5.0, 2.0, 2.0])


@pytest.mark.parametrize("channel", ["rydberg_global", "mw_global"])
def test_a_mask_has_its_atoms_and_its_end(channel: str) -> None:
    register = pulser.Register({"left": (-2.0, 0.5), "right": (4.0, 0.5)})
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.config_slm_mask(["right"])
    sequence.declare_channel("global", channel)
    for duration in (40, 60):
        sequence.add(pulser.Pulse.ConstantPulse(duration, 5.0, 0.0, 0.0), "global")
    result = drawn(call_of(sequence))
    assert (result.masked, result.mask_ns) == (["right"], 40)
    plain = two_atoms()
    plain.add(pulser.Pulse.ConstantPulse(40, 5.0, 0.0, 0.0), "global")
    result = drawn(call_of(plain))
    assert (result.masked, result.mask_ns) == ([], 0)


def test_many_bends_keep_the_extremes_and_bound_the_points() -> None:
    values = np.random.default_rng(1).normal(size=50_000)
    times, kept = drawings._curve(values)
    assert len(times) <= drawings.MAX_POINTS
    assert (min(kept), max(kept)) == pytest.approx((values.min(), values.max()), rel=1e-5)
    assert kept == pytest.approx(values[times], rel=1e-5)


def test_a_sequence_is_drawn_as_it_is_on_its_device() -> None:
    """The bandwidth of the device's channel makes pulses longer."""
    sequence = two_atoms()
    sequence.add(pulser.Pulse.ConstantPulse(200, 3.0, 0.0, 0.0), "global")
    call = call_of(sequence)
    machine = pulser.AnalogDevice.to_abstract_repr()
    body = drawings.drawn(msgspec.msgpack.encode(call), machine)
    result = msgspec.json.decode(body, type=drawings.PulseDrawing)
    assert result.device == "AnalogDevice"
    assert result.duration_ns > 200
    times, values = result.channels[0].amplitude
    assert 0.0 < values[0] < 1.0 < max(values) <= 3.0
    assert times[-1] == result.duration_ns - 1
    plain = msgspec.structs.replace(call, modulation=False)
    body = drawings.drawn(msgspec.msgpack.encode(plain), machine)
    assert msgspec.json.decode(body, type=drawings.PulseDrawing).duration_ns == 200


def client_of(call: object, engine: str = RYDBERG) -> Client:
    """Return a client whose only task has this call."""
    terms = TaskOptions(outputs=(VALUE,), engine=engine)
    submitted = SimpleNamespace(terms=terms, spec=SimpleNamespace(program=codec.encode(call)))
    history = SimpleNamespace(submitted=lambda task: submitted)
    return cast(Client, SimpleNamespace(history=history))


def test_text_of_another_user_is_read_in_a_process_of_its_own() -> None:
    sequence = two_atoms()
    sequence.add(pulser.Pulse.ConstantPulse(100, 3.0, 0.0, 0.0), "global")
    call = call_of(sequence)
    broken = msgspec.structs.replace(call, sequence='{"version": "1"}')
    wide = msgspec.structs.replace(call, sizes=PulseSizes(2, 64, 400_000))
    sandbox = request_sandbox()
    try:
        body = drawings.drawing_of(client_of(call), "t-1", sandbox)
        assert msgspec.json.decode(body)["duration_ns"] == 100
        error = fails(
            ProgramError, "pulser cannot sample", drawings.drawing_of, client_of(broken), "t-1",
            sandbox,
        )  # fmt: skip
        assert len(error.message) < 700
    finally:
        sandbox.close()
    fails(LimitExceededError, "64 channels", drawings.drawing_of, client_of(wide), "t-1", sandbox)


def test_a_task_that_is_no_sequence_is_refused_by_name() -> None:
    terms = TaskOptions(outputs=("counts",))
    submitted = SimpleNamespace(terms=terms, spec=SimpleNamespace(program=b""))
    client = cast(Client, SimpleNamespace(history=SimpleNamespace(submitted=lambda _: submitted)))
    fails(OptionError, "t-7 is no pulse", drawings.drawing_of, client, "t-7", request_sandbox())


@pytest.mark.parametrize("engine", [AUTO, *PULSE_ENGINES])
def test_sequences_are_known_as_such_on_every_engine(engine: str) -> None:
    """By this the page asks for a drawing of pulses."""
    call = call_of(two_atoms())
    assert views.operations_of(client_of(call, engine), "t-1", 10).is_pulses
    fails(OptionError, "no circuit", views.operations_of, client_of(call, TRANSPILER), "t-1", 10)
