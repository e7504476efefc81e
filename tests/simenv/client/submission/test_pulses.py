"""Reading of pulse sequences for many bindings."""

from typing import Any

import pytest

from simenv.client.submission.pulses import pack_pulse_sweep, pack_pulses
from simenv.errors import ProgramError

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
