"""Figures, goals and verdicts of benchmarks, printed as text and collected for JSON."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

GOALS = Path(__file__).parents[1] / "goals.toml"
INSTALL_COMMAND = "scripts/setup.sh all,bench"  # installs all peers


class Figure(msgspec.Struct, frozen=True):
    """One measured value and its goal: at most `goal`, or at least `goal` with `at_least`."""

    benchmark: str
    key: str  # key of the goal in the benchmark's table of goals.toml
    label: str
    value: float | None  # None: not measured
    goal: float
    at_least: bool = False
    seed: int | None = None  # of the run's random inputs
    reason: str = ""  # for which it was not measured

    @property
    def met(self) -> bool:
        """True if the goal is reached; False for a figure that was not measured."""
        if self.value is None:
            return False
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def goals() -> dict[str, dict[str, float]]:
    """Return the goals of each benchmark."""
    return tomllib.loads(GOALS.read_text())


@functools.cache
def installed(module: str) -> bool:
    """Return whether a peer's library is installed; if not, print once how to install it."""
    if importlib.util.find_spec(module) is not None:
        return True
    print(f"left out: {module} is not installed; type: {INSTALL_COMMAND}")
    return False


class Report:
    """Figures of one benchmark, each printed with its goal when it is added."""

    def __init__(
        self,
        benchmark: str,
        title: str = "",
        seed: int | None = None,
        on_figure: Callable[[Figure], object] = lambda _: None,
    ) -> None:
        """`benchmark`: the table of its goals in goals.toml; `seed`: of its random inputs;
        `on_figure`: called with each figure at once, so that those of a run that is ended stay."""
        self.figures: list[Figure] = []
        self.seed, self._benchmark, self._on_figure = seed, benchmark, on_figure
        self._goals = goals().get(benchmark, {})
        print(title)
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        seed = "" if self.seed is None else f", seed {self.seed}"
        print(f"machine: {platform.machine()}, {os.cpu_count()} cores, load {load}{seed}\n")

    def goal(self, key: str) -> float:
        """Return the goal of a figure."""
        return self._goals[key]

    def at_most(self, key: str, value: float, label: str) -> None:
        """Add a figure that must not exceed its goal."""
        self._add(key, value, label, f"{value:.3g} (goal <= {self._goals[key]:g})")

    def p99_ms(self, key: str, seconds: Sequence[float], label: str) -> None:
        """Add the 99th percentile of some times, which must not exceed its goal."""
        self.at_most(key, float(np.percentile(seconds, 99)) * 1e3, f"{label}, p99, ms")

    def at_least(self, key: str, value: float, label: str) -> None:
        """Add a figure that must reach its goal."""
        digits = 0 if self._goals[key] >= 10.0 else 4
        text = f"{value:,.{digits}f} (goal >= {self._goals[key]:,.{digits}f})"
        self._add(key, value, label, text, at_least=True)

    def share(
        self,
        key: str,
        value: float,
        peers: Iterable[float],
        label: str,
        reason: str = "no peer ran to its end",
    ) -> None:
        """Add a value relative to the least of the peers' values; it must not exceed its goal."""
        least = min(peers, default=None)
        if least is None:
            self.not_measured(key, label, reason)
        else:
            self.at_most(key, value / least, label)

    def not_measured(self, key: str, label: str, reason: str) -> None:
        """Add a figure that could not be measured, which counts as a missed goal."""
        goal = self._goals.get(key, 0.0)
        self._keep(Figure(self._benchmark, key, label, None, goal, seed=self.seed, reason=reason))
        print(f"NOT MEASURED {label}: {reason}")

    def close(self) -> bool:
        """Print the summary; return whether all goals are met."""
        missed = sum(not figure.met and figure.value is not None for figure in self.figures)
        unmeasured = sum(figure.value is None for figure in self.figures)
        summary = f"{missed} goals missed" if missed else "all goals met"
        if not self.figures:
            summary = "no goals"
        if unmeasured:
            summary += f", {unmeasured} not measured"
        print(f"\n{summary}")
        return not missed and not unmeasured

    def _add(
        self, key: str, value: float, label: str, text: str, *, at_least: bool = False
    ) -> None:
        goal = self._goals[key]
        figure = Figure(self._benchmark, key, label, float(value), goal, at_least, self.seed)
        self._keep(figure)
        print(f"{'met   ' if figure.met else 'MISSED'} {label}: {text}")

    def _keep(self, figure: Figure) -> None:
        if any((each.key, each.label) == (figure.key, figure.label) for each in self.figures):
            raise ValueError(f"two figures {figure.key!r} of {figure.label!r}: only one is stored")
        self.figures.append(figure)
        self._on_figure(figure)
