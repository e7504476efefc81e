"""Plot demo.png: counts with theory, energies of the loop, run times, and noisy counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # a backend without a display

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from simenv.cli import demo_runs
from simenv.library import ExpectedOutcomes, ExpectedParities
from simenv.library.algorithm import parity

if TYPE_CHECKING:
    from simenv.cli.demo_runs import DemoRow, EmulatedComparison
    from simenv.cli.demo_variational import VariationalRun

INK, MEASURED, THEORY, QUIET, LATER = "#22303c", "#2a7f9e", "#d1495b", "#c9d3da", "#edae49"
MOST_BARS = 16  # most outcomes of a panel


def draw(
    acts: list[DemoRow],
    run: VariationalRun,
    comparisons: list[EmulatedComparison],
    noisy: VariationalRun,
    path: Path,
) -> Path:
    """Draw nine panels of the demo's results; return the path of the file."""
    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1)  # inches
    figure = Figure(figsize=(15, 12.6), layout=layout, facecolor="white")
    axes = figure.subplots(3, 3)
    by_name = {act.circuit.rpartition("-")[0]: act for act in acts}
    _phase(axes[0, 0], by_name["phase-estimation"], by_name["iterative-phase"])
    _walk(axes[0, 1], by_name["quantum-walk"])
    _spins(axes[0, 2], by_name["ising"])
    _descent(axes[1, 0], run, noisy)
    _times(axes[1, 1], acts)
    _steps(axes[1, 2], run)
    for axis, comparison in zip(axes[2], comparisons, strict=True):
        _compared(axis, comparison)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=9)
        axis.title.set(color=INK, fontsize=11)
    for axis in (axes[0, 2], axes[1, 0], axes[1, 2]):
        axis.xaxis.get_major_locator().set_params(integer=True)
    right = sum(not act.fault for act in acts)
    figure.suptitle(
        f"simenv demo: {right} of {len(acts)} algorithms gave the answer of theory; "
        f"{run.circuits} circuits of a variational loop in {run.wall_s:.2f} s",
        fontsize=14,
        color=INK,
    )
    figure.savefig(path, dpi=110)
    return path


def _expected(act: DemoRow) -> NDArray[np.float64]:
    """Return the theoretical probabilities by outcome, float64 [2^bits]."""
    answer = demo_runs.algorithm(act.circuit).expected
    assert isinstance(answer, ExpectedOutcomes)
    values = np.zeros(2 ** len(next(iter(answer.probabilities))))
    for bits, probability in answer.probabilities.items():
        values[int(bits, 2)] = probability
    return values


def _measured(act: DemoRow, size: int) -> NDArray[np.float64]:
    values = np.zeros(size)
    for bits, count in act.counts.items():
        values[int(bits.replace(" ", ""), 2)] += count
    values /= values.sum()
    return values


def _phase(axis: Any, textbook: DemoRow, iterative: DemoRow) -> None:
    theory = _expected(textbook)
    peak = int(theory.argmax())
    around = np.arange(peak - 5, peak + 7)
    for act, shift, colour, label in (
        (textbook, -0.2, MEASURED, f"{textbook.qubits} qubits, inverse QFT"),
        (iterative, 0.2, LATER, f"{iterative.qubits} qubits, feed-forward"),
    ):
        seen = _measured(act, len(theory))
        axis.bar(around + shift, seen[around], 0.4, color=colour, label=label)
    axis.plot(around, theory[around], "_", color=THEORY, ms=16, mew=2, label="theory")
    axis.set(title="Phase estimation, two ways", xlabel="outcome k", ylabel="share of shots")
    axis.legend(frameon=False, fontsize=9)


def _walk(axis: Any, act: DemoRow) -> None:
    theory = _expected(act)
    nodes = np.arange(len(theory))
    axis.bar(nodes, _measured(act, len(theory)), color=MEASURED, label="counts")
    axis.plot(nodes, theory, "_", color=THEORY, ms=7, mew=2, label="theory")
    axis.set(title="Quantum walk on a ring", xlabel="node", ylabel="share of shots")
    axis.legend(frameon=False, fontsize=9, loc="upper left")


def _spins(axis: Any, act: DemoRow) -> None:
    answer = demo_runs.algorithm(act.circuit).expected
    assert isinstance(answer, ExpectedParities)
    spins = np.arange(len(answer.values))
    measured = [parity(act.counts, bits) for bits, _ in answer.values]
    errors = [(1 - value**2) ** 0.5 / demo_runs.SHOTS**0.5 for value in measured]
    theory = [value for _, value in answer.values]
    axis.plot(spins, theory, color=THEORY, lw=1.5, label="free fermions")
    axis.errorbar(spins, measured, errors, fmt="o", color=MEASURED, ms=5, capsize=3, label="counts")
    axis.set(title="Ising chain: a wall melts", xlabel="spin k", ylabel="$\\langle Z_k \\rangle$")
    axis.legend(frameon=False, fontsize=9)


def _descent(axis: Any, run: VariationalRun, noisy: VariationalRun) -> None:
    axis.plot(run.energies, "o-", color=MEASURED, ms=4, label="measured energy, ideal")
    axis.plot(noisy.energies, "s-", color=LATER, ms=4, label="on the emulated QPU")
    axis.axhline(run.ground, color=THEORY, ls="--", lw=1.5, label=f"ground state {run.ground:.3f}")
    axis.set(title="Variational loop, four Ising spins", xlabel="step", ylabel="energy")
    axis.legend(frameon=False, fontsize=9)


def _compared(axis: Any, each: EmulatedComparison) -> None:
    """Draw the counts of one circuit, ideal and with noise."""
    keys = sorted(each.ideal.keys() | each.emulated.keys())
    if len(keys) > MOST_BARS:
        keys = sorted(sorted(keys, key=lambda key: -each.emulated.get(key, 0))[:MOST_BARS])
    rows = np.arange(len(keys))
    for counts, shift, colour, label in (
        (each.ideal, -0.2, MEASURED, f"ideal: {each.right_ideal:.1%} right"),
        (each.emulated, 0.2, LATER, f"emulated: {each.right_emulated:.1%} right"),
    ):
        shots = sum(counts.values())
        shares = [counts.get(key, 0) / shots for key in keys]
        axis.bar(rows + shift, shares, 0.4, color=colour, label=label)
    axis.set(title=f"{each.circuit} on {each.device}", ylabel="share of shots")
    axis.set_xticks(rows, keys, rotation=60 if len(keys) > 8 else 0, fontsize=8)
    axis.legend(frameon=False, fontsize=9)


def _times(axis: Any, acts: list[DemoRow]) -> None:
    names = [act.circuit for act in acts]
    rows = np.arange(len(acts))
    axis.barh(rows, [act.total_ms for act in acts], color=QUIET, label="submit to counts")
    axis.barh(rows, [act.run_ms for act in acts], 0.45, color=MEASURED, label="in the engine")
    axis.set(title="Time of each circuit, all submitted at once", xlabel="ms", xscale="log")
    axis.set_yticks(rows, names, fontsize=8)
    axis.set_ylim(len(acts) + 0.7, -0.7)  # the legend is in the last row
    axis.legend(frameon=False, fontsize=9, loc="lower center", ncols=2)


def _steps(axis: Any, run: VariationalRun) -> None:
    steps = np.arange(len(run.step_ms))
    axis.bar(steps, run.step_ms, color=QUIET, label="a step: 24 circuits, there and back")
    axis.bar(steps, run.run_ms, 0.5, color=MEASURED, label="in the engine, all workers together")
    axis.set(title="Time of each step of the loop", xlabel="step", ylabel="ms")
    axis.set_ylim(0, 1.25 * max(run.step_ms))
    axis.legend(frameon=False, fontsize=9)
