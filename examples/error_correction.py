"""Thresholds of the repetition and the surface code under circuit-level noise, as a plot.

    python examples/error_correction.py [threshold.png] [--shots 20000] [--points 6]

Each point is one task: a worker samples the detectors of a memory experiment of `distance` rounds
and decodes them. Below its threshold a larger code has fewer logical errors, above it more.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import stim

import simenv

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CODES = {
    "repetition code": ("repetition_code:memory", (3, 5, 7, 9), (0.01, 0.08)),
    "rotated surface code": ("surface_code:rotated_memory_z", (3, 5, 7), (0.003, 0.013)),
}


def memory(task: str, distance: int, rate: float) -> stim.Circuit:
    """A memory experiment with errors after gates and resets, and before measurements."""
    return stim.Circuit.generated(
        task,
        distance=distance,
        rounds=distance,
        after_clifford_depolarization=rate,
        after_reset_flip_probability=rate,
        before_measure_flip_probability=rate,
        before_round_data_depolarization=rate,
    )


def main(path: Path, shots: int, points: int) -> None:
    """Submit all points, then draw them as they were counted."""
    figure, axes = plt.subplots(1, len(CODES), figsize=(10, 4.2), layout="constrained")
    with simenv.local(workers=2) as client:
        tasks = {}
        for code, (task, distances, (low, high)) in CODES.items():
            for distance in distances:
                for rate in np.geomspace(low, high, points).tolist():
                    circuit = memory(task, distance, rate)
                    tasks[code, distance, rate] = client.submit(
                        circuit, shots=shots, seed=7, decoder="pymatching"
                    )
        results = {point: task.result() for point, task in tasks.items()}
    for axis, code in zip(axes, CODES, strict=True):
        for distance in CODES[code][1]:
            rates = [rate for name, d, rate in results if (name, d) == (code, distance)]
            errors = np.array([results[code, distance, rate].logical_errors for rate in rates])
            deviation = np.sqrt(errors * (1 - errors / shots)) / shots
            value = errors > 0  # what was not seen in so few shots has no place on a log scale
            axis.errorbar(
                np.array(rates)[value],
                errors[value] / shots,
                deviation[value],
                marker="o",
                markersize=4,
                capsize=2,
                label=f"d = {distance}",
            )
            for rate, count in zip(rates, errors.tolist(), strict=True):
                print(f"{code:22}d = {distance}  p = {rate:.4f}  {count / shots:.5f}")
        axis.set(xscale="log", yscale="log", title=code, xlabel="physical error rate")
        ticks = np.geomspace(*CODES[code][2], 4).tolist()
        axis.set_xticks(ticks, labels=[f"{100 * rate:.2g} %" for rate in ticks])
        axis.set_xticks([], minor=True)
        axis.set_ylim(bottom=0.5 / shots)
        axis.grid(which="both", alpha=0.3)
        axis.legend()
    axes[0].set_ylabel(f"logical error rate, {shots:,} shots")
    figure.savefig(path, dpi=150)
    print(f"written: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", type=Path, default=Path("threshold.png"))
    parser.add_argument("--shots", type=int, default=20_000)
    parser.add_argument("--points", type=int, default=6)
    options = parser.parse_args()
    main(options.path, options.shots, options.points)
