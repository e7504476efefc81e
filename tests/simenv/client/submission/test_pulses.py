"""Reading of pulse sequences for many bindings."""

from typing import Any

import pytest

from simenv.client.submission.pulses import pack_pulse_sweep, pack_pulses
from simenv.errors import OptionError, ProgramError

pulser = pytest.importorskip("pulser")
ROWS = [100, 140, 120]


def sequence() -> str:
    made = pulser.Sequence(pulser.Register({"q0": (0, 0), "q1": (6, 0)}), pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    duration = made.declare_variable("duration", dtype=int)
    made.add(pulser.Pulse.ConstantPulse(duration, 3.0, 0.0, 0.0), "global")
    return str(made.to_abstract_repr())


def test_a_sweep_reads_its_text_once_and_packs_each_binding_as_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, read = sequence(), pulser.Sequence.from_abstract_repr
    texts: list[str] = []

    def counted(given: str) -> Any:
        texts.append(given)
        return read(given)

    monkeypatch.setattr(pulser.Sequence, "from_abstract_repr", staticmethod(counted))
    swept = pack_pulse_sweep(text, {"duration": ROWS}, {"shots": 10})
    assert texts == [text]
    for index, row in enumerate(ROWS):
        pack_pulses(f"{text} ", {"shots": 10, "parameter_values": {"duration": 400}})
        with pytest.raises(ProgramError, match="refused by pulser"):
            pack_pulses(text, {"shots": 10, "parameter_values": {"duration": -1}})
        alone = {"shots": 10, "parameter_values": {"duration": row}, "binding_index": index}
        assert pack_pulses(text, alone) == swept[index]
    assert texts[1:] == 3 * [f"{text} ", text]


@pytest.mark.parametrize("value", [200.5, [200.5], float("inf")])
def test_a_variable_of_integers_takes_no_other_number(value: Any) -> None:
    for whole in (200, 200.0, [200]):
        pack_pulses(sequence(), {"shots": 10, "parameter_values": {"duration": whole}})
    with pytest.raises(OptionError, match="duration="):
        pack_pulses(sequence(), {"shots": 10, "parameter_values": {"duration": value}})


def test_a_measurement_is_of_the_basis_that_is_driven() -> None:
    def measured(basis: str, *channels: str) -> str:
        made = pulser.Sequence(pulser.Register({"q0": (0, 0), "q1": (6, 0)}), pulser.MockDevice)
        for name in channels:
            target = {"initial_target": "q0"} if name.endswith("local") else {}
            made.declare_channel(name, name, **target)
        made.add(pulser.Pulse.ConstantPulse(100, 3.0, 0.0, 0.0), channels[0])
        made.measure(basis)
        return str(made.to_abstract_repr())

    both = ("rydberg_global", "raman_local")
    for text in (measured("ground-rydberg", *both), measured("digital", "raman_local")):
        pack_pulses(text, {"shots": 10})
    with pytest.warns(UserWarning, match="not being addressed"):
        undriven = measured("ground-rydberg", "raman_local")
    for text in (measured("digital", *both), undriven):
        with pytest.raises(ProgramError, match=r"measures .*, and drives"):
            pack_pulses(text, {"shots": 10})
