"""Gradient steps of the variational linear solver of examples/vqls.py, taken by several methods.

A step is seven sets of angles with 72 Hadamard tests each; its seconds are scaled to 480 circuits.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.harness.timing import Times, timed

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import vqls as example

Array = NDArray[np.float64]
SHOTS, CIRCUITS = 1_024, 480


def bindings_at(angles: Array) -> Array:
    """Return the parameters of all tests of a step, float64 [504, 11]."""
    return example.bindings_of(example.shifted(angles))


def step(means: Callable[[Array], Any]) -> Callable[[Array], Array]:
    """Return a step at some angles, whose result is the gradient, from a method that returns the
    means of all tests."""

    def taken(angles: Array) -> Array:
        table = np.array(means(bindings_at(angles))).reshape(-1, len(example.ROWS))
        example.cost(table[0])
        return example.gradient(table[0], table[1:])

    return taken


def timed_steps(
    steps: Mapping[str, Callable[[Array], Any]],
    rounds: int,
    check: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Times:
    """Return the seconds of each step in each round, after one that warms up; the steps of a round
    take turns at the same angles. `check`: is given the results of each round."""
    rng = np.random.default_rng(5)
    times: Times = {name: [] for name in steps}
    for number in range(rounds + 1):
        angles = rng.uniform(0, 3, 3)
        results = {}
        for name, call in steps.items():
            seconds, results[name] = timed(lambda call=call: call(angles))  # type: ignore[misc]  # noqa: B023
            if number:
                times[name].append(seconds * CIRCUITS / (7 * len(example.ROWS)))
        check(results)
    return times


def print_times(times: Times) -> None:
    """Print the median and the best of each entry."""
    for name, each in times.items():
        median = statistics.median(each)
        print(f"  {name:30s}{median * 1e3:10.1f} ms  best {min(each) * 1e3:.1f}")
    print()
