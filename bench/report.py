"""Figures, goals and verdicts, printed alike by all benchmarks."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import tomllib
from pathlib import Path

GOALS = Path(__file__).with_name("goals.toml")


INSTALL = "scripts/setup.sh all,bench"  # installs all peers


@functools.cache
def installed(module: str) -> bool:
    """Whether a peer's library is there; where it is not, say once how to install it."""
    if importlib.util.find_spec(module) is not None:
        return True
    print(f"left out: {module} is not installed; type: {INSTALL}")
    return False


class Report:
    """Collects verdicts; `close` returns the exit code."""

    def __init__(self, section: str, what: str) -> None:
        self._goals: dict[str, float] = tomllib.loads(GOALS.read_text())[section]
        self._missed = self._unmeasured = 0
        print(what)
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        print(f"machine: {platform.machine()}, {os.cpu_count()} cores, load {load}\n")

    def verdict(self, goal: str, figure: float, words: str) -> None:
        """One figure that must not exceed its goal."""
        limit = self._goals[goal]
        met = figure <= limit
        self._missed += not met
        print(f"{'met   ' if met else 'MISSED'} {words}: {figure:.3g} (goal <= {limit:g})")

    def at_least(self, goal: str, figure: float, words: str) -> None:
        """One figure that must reach its goal."""
        limit = self._goals[goal]
        met = figure >= limit
        self._missed += not met
        print(f"{'met   ' if met else 'MISSED'} {words}: {figure:,.0f} (goal >= {limit:,.0f})")

    def unmeasured(self, words: str, why: str) -> None:
        """A goal that nobody can judge this time: not met."""
        self._unmeasured += 1
        print(f"NOT MEASURED {words}: {why}")

    def close(self) -> int:
        words = f"{self._missed} goals missed" if self._missed else "all goals met"
        if self._unmeasured:
            words += f", {self._unmeasured} not measured"
        print(f"\n{words}")
        return 1 if self._missed or self._unmeasured else 0
