"""The figures of `simenv bench` and what they should be.

Goals are for two workers on two cores of a 2.5 GHz server, with accepts on disk; `bench/goals.toml`
holds the same ones.
"""

from __future__ import annotations

import statistics

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One row. `goal` 0.0: none."""

    name: str
    value: float
    unit: str
    goal: float
    higher_is_better: bool
    met: str  # yes, no, or - where there is no goal
    rounds: int
    what: str


def figure(
    name: str, rounds: list[float], unit: str, goal: float, what: str, *, less: bool = False
) -> Figure:
    """The median of rounds, judged; `less`: the goal is not to be exceeded."""
    value = statistics.median(rounds)
    good = value <= goal if less else value >= goal
    met = "-" if not goal else "yes" if good else "no"
    return Figure(name, value, unit, goal, not less, met, len(rounds), what)


LATENCY_MS = {"accepted": 0.6, "process": 0.35, "power": 0.0}  # by durability
CIRCUITS = {4: 30_000.0, 8: 15_000.0, 12: 4_000.0}  # a second, by qubits
ALONE = 5_000.0
BINDINGS = {4: 100_000.0, 8: 30_000.0}
LOOP_MS = 1.5
ENGINE_US = {4: 10.0, 8: 15.0, 10: 30.0, 12: 60.0}
