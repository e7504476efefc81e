"""What adapters of other packages' emulators refuse before they load the package."""

from typing import Any

import numpy as np
import pytest
from failing import fails

from simenv.errors import LimitExceededError
from simenv.model import TaskOptions, calls
from simenv.model.pulses import PulseCall, PulseSizes
from simenv.wire.messages.client import AssignedTask
from simenv.worker.analog import emulators
from simenv.worker.analog.emulators import EmulatorEngine
from simulators.engine import RunControl
from simulators.errors import Unsupported

pulser = pytest.importorskip("pulser")
LEAKAGE = [np.array([[0, 0, 0], [0, 0, 0], [0, 1, 0]])]


class Reached(Exception):
    """The package would be loaded."""


def two_bases(atoms: int) -> Any:
    """A sequence with a Raman channel, and pulses between g and r alone."""
    register = pulser.Register.rectangle(1, atoms, spacing=8.0, prefix="q")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.declare_channel("raman", "raman_local", initial_target="q0")
    sequence.add(pulser.Pulse.ConstantPulse(100, 4.0, 0.0, 0.0), "global")
    return sequence


def run(engine: str, atoms: int = 3, trajectories: int = 10, **noise: Any) -> None:
    text = two_bases(atoms).to_abstract_repr()
    model = pulser.NoiseModel(**noise).to_abstract_repr() if noise else ""
    call = PulseCall(
        calls.CALL_FORMAT, text, PulseSizes(atoms, 2, 100), ("occupation",), modulation=False,
        noise=model, trajectories=trajectories,
    )  # fmt: skip
    assigned = AssignedTask(5, 1, 0, b"", 0, 7, b"", 0, trusted=True)
    EmulatorEngine(engine).call(call, assigned, TaskOptions(), RunControl())


@pytest.fixture(autouse=True)
def _without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: Any) -> None:
        raise Reached

    monkeypatch.setattr(emulators._Run, "results", reached)


@pytest.mark.parametrize("engine", ["emu-mps", "emu-sv", "pulser-simulation"])
def test_channels_without_pulses_drive_no_basis(engine: str) -> None:
    fails(Unsupported, "Reached", run, engine)


def test_leakage_is_left_to_engines_that_take_its_operators_as_they_are() -> None:
    leakage: dict[str, Any] = {
        "eff_noise_opers": LEAKAGE, "eff_noise_rates": [1.0], "with_leakage": True,
    }  # fmt: skip
    for engine in ("emu-mps", "emu-sv"):
        fails(Unsupported, "has no leakage", run, engine, **leakage)
    fails(Unsupported, "Reached", run, "pulser-simulation", **leakage)


def test_draws_of_all_trajectories_have_a_limit_of_memory() -> None:
    many: dict[str, Any] = {"atoms": 60, "trajectories": 100_000}
    fails(LimitExceededError, "takes 2867", run, "emu-mps", temperature=50.0, **many)
    phases: dict[str, Any] = {
        "detuning_sigma": 1.0,
        "detuning_hf_psd": (1.0,) * 10_000,
        "detuning_hf_omegas": tuple(np.arange(1.0, 10_001.0)),
    }
    fails(LimitExceededError, "trajectories of 3 atoms", run, "emu-sv", 3, 50_000, **phases)
    fails(Unsupported, "Reached", run, "emu-mps", 60, 100_000, p_false_pos=0.1)
