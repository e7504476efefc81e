"""Time of a pulse sequence on a device of atoms: of the forecast and of the receipt."""

from typing import Any

import pytest

from noise_models import library
from simenv.client.submission.pulses import pack_pulses
from simenv.model import TaskOptions
from simenv.model.calls import decode_call
from simenv.model.pulses import RYDBERG, PulseCall
from simenv.service.devices.context import DeviceContext
from simenv.service.devices.registry import emulated
from simenv.service.program_rules import examined_call
from simenv.wire.messages.client import AssignedTask, NoiseDocument
from simenv.worker.analog.device import on_device
from simenv.worker.noise import Noise
from simulators.engine import RunControl

pulser = pytest.importorskip("pulser")
NAME, SHOTS = "neutral-atoms-analog", 300


@pytest.mark.parametrize("noise", ["on", "off", {"atom.detection": 0.5}, "own"])
@pytest.mark.parametrize("modulation", [0, 1])
def test_the_time_of_the_forecast_is_that_of_the_receipt(noise: Any, modulation: int) -> None:
    device = emulated(NAME, library.load(NAME))
    register = pulser.Register.rectangle(1, 2, spacing=20.0, prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(251, 12.0, 0.0, 0.0), "global")  # no whole cycles
    given = pulser.NoiseModel(p_false_pos=0.1) if noise == "own" else noise
    options = {
        "device": NAME, "shots": SHOTS, "noise": given, "options": {"modulation": modulation},
    }  # fmt: skip
    packed = pack_pulses(sequence, options, device.info)
    factors = (("all", 0.0),) if noise in ("off", "own") else ()
    terms = TaskOptions(engine=RYDBERG, device=NAME, snapshot=device.digest, noise=factors)
    profile = DeviceContext(device.info, device, terms).timed(examined_call(packed, terms)[1])
    assert profile.noise is not None
    forecast_ns = SHOTS * profile.noise.device_shot_ns + profile.noise.device_overhead_ns
    received = Noise()
    received.receive(NoiseDocument(device.digest, device.body))
    call = decode_call(RYDBERG, packed)
    assert isinstance(call, PulseCall)
    assigned = AssignedTask(1, 1, 0, b"", SHOTS, 7, b"", 0, trusted=True)
    _, used = on_device(call, assigned, terms, received, RunControl())
    assert used.time_ns == pytest.approx(forecast_ns, rel=1e-9)
    assert forecast_ns == pytest.approx(SHOTS * 0.2e9, rel=1e-4)
