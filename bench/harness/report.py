"""Figures, goals and verdicts of benchmarks, printed as text and collected for JSON."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

ROOT = Path(__file__).parents[2]
GOALS, TEXTS = ROOT / "bench/goals.toml", ROOT / "docs/data/figures.toml"
INSTALL_COMMAND = "scripts/setup.sh all,bench"  # installs all peers
SCALES = {"ms": 1e3, "us": 1e6}  # of times, by the unit that ends a key


class Figure(msgspec.Struct, frozen=True):
    """One measured value and its goal: at most `goal`, or at least `goal` with `at_least`."""

    benchmark: str
    key: str  # key of the goal in the benchmark's table of goals.toml
    label: str  # the case, of several of one goal
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
    return tomllib.loads(GOALS.read_text())


def catalogue() -> dict[str, Any]:
    """Return the title of each benchmark, and the text and unit of each goal."""
    return tomllib.loads(TEXTS.read_text())


@functools.cache
def installed(module: str) -> bool:
    """Return whether a peer's library is installed; if not, print once how to install it."""
    if importlib.util.find_spec(module) is not None:
        return True
    print(f"left out: {module} is not installed; type: {INSTALL_COMMAND}")
    return False


class Report:
    """Figures of one benchmark, each printed with its text and its goal when it is added."""

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
        self._texts = catalogue().get(benchmark, {}) if TEXTS.exists() else {}
        load = " ".join(f"{x:.1f}" for x in os.getloadavg())
        drawn = "" if seed is None else f", seed {seed}"
        machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load}"
        print(f"{title}\nmachine: {machine}{drawn}\n")

    def goal(self, key: str) -> float:
        return self._goals[key]

    def at_most(self, key: str, value: float, case: str = "") -> None:
        """Add a figure that must not exceed its goal. `case`: of several of the goal."""
        self._add(key, value, case, at_least=False)

    def at_least(self, key: str, value: float, case: str = "") -> None:
        self._add(key, value, case, at_least=True)

    def seconds(self, key: str, seconds: float | Sequence[float], case: str = "") -> None:
        """Add a time, or the median of some, which must not exceed its goal, in the unit that ends
        the key."""
        self.at_most(key, float(np.median(seconds)) * SCALES.get(key.rpartition("_")[2], 1.0), case)

    def p99_ms(self, key: str, seconds: Sequence[float], case: str = "") -> None:
        """Add the 99th percentile of some times, which must not exceed its goal."""
        self.at_most(key, float(np.percentile(seconds, 99)) * 1e3, case)

    def share(
        self,
        key: str,
        value: float,
        peers: Iterable[float],
        case: str = "",
        reason: str = "no peer ran to its end",
    ) -> None:
        """Add a value relative to the least of the peers' values; it must not exceed its goal."""
        least = min(peers, default=None)
        if least is None:
            self.not_measured(key, reason, case)
        else:
            self.at_most(key, value / least, case)

    def not_measured(self, key: str, reason: str, case: str = "") -> None:
        """Add a figure that could not be measured, which counts as a missed goal."""
        goal = self._goals.get(key, 0.0)
        self._keep(Figure(self._benchmark, key, case, None, goal, seed=self.seed, reason=reason))
        print(f"NOT MEASURED {self.text(key, case)}: {reason}")

    def none_measured(self, reason: str, *keys: str) -> None:
        """Add these figures, or without `keys` all that are missing, as not measured."""
        added = {each.key for each in self.figures}
        for key in keys or [key for key in self._goals if key not in added]:
            self.not_measured(key, reason)

    def close(self) -> bool:
        """Print the summary; return whether all goals are met."""
        unmeasured = sum(figure.value is None for figure in self.figures)
        missed = sum(not figure.met for figure in self.figures) - unmeasured
        summary = f"{missed} goals missed" if missed else "all goals met"
        summary = summary if self.figures else "no goals"
        print(f"\n{summary}{f', {unmeasured} not measured' if unmeasured else ''}")
        return not missed and not unmeasured

    def text(self, key: str, case: str) -> str:
        """Return what a figure is, for people."""
        text, unit = self._texts.get(key, (key, ""))
        return ", ".join(filter(None, (f"{text} ({case})" if case else text, unit)))

    def _add(self, key: str, value: float, case: str, *, at_least: bool) -> None:
        goal = self._goals[key]
        figure = Figure(self._benchmark, key, case, float(value), goal, at_least, self.seed)
        self._keep(figure)
        digits = ".3g" if not at_least else ",.0f" if goal >= 10.0 else ",.4f"
        verdict = f"{value:{digits}} (goal {'>=' if at_least else '<='} {goal:{digits}})"
        print(f"{'met   ' if figure.met else 'MISSED'} {self.text(key, case)}: {verdict}")

    def _keep(self, figure: Figure) -> None:
        if any((each.key, each.label) == (figure.key, figure.label) for each in self.figures):
            raise ValueError(f"two figures {figure.key!r} of {figure.label!r}: only one is stored")
        self.figures.append(figure)
        self._on_figure(figure)
