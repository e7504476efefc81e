"""Sequences of the tests of Pulser's interfaces."""

from __future__ import annotations

import pulser


def hexagon(duration: int | str = 400) -> pulser.Sequence:
    """Two pulses on seven atoms of AnalogDevice; a text: the variable of the first's duration."""
    register = pulser.Register.hexagon(1, 5.5, prefix="q")
    register = register.with_automatic_layout(pulser.AnalogDevice)
    sequence = pulser.Sequence(register, pulser.AnalogDevice)
    sequence.declare_channel("ising", "rydberg_global")
    length = (
        sequence.declare_variable(duration, dtype=int) if isinstance(duration, str) else duration
    )
    sequence.add(pulser.Pulse.ConstantPulse(length, 6.0, -3.0, 0.0), "ising")
    sequence.add(pulser.Pulse.ConstantPulse(200, 4.0, 5.0, 1.0), "ising", protocol="no-delay")
    return sequence


def pair(spacing: float = 7.0) -> pulser.Sequence:
    """One constant pulse on two atoms of MockDevice."""
    register = pulser.Register.from_coordinates([(0, 0), (spacing, 0)], prefix="a")
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("ising", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(400, 5.0, 2.0, 0.0), "ising")
    return sequence
