"""Intervals of fitted values: do they contain the truth, and are values without information marked?

Devices of 3 to 7 qubits are drawn at random with their calibrations, and true devices that differ
from these in all values, some also by rotations of their pairs, by records of two qubits that flip
together, and by their T2* (quasistatic detunings). Counts of random circuits, on some
devices also of sequences of gates on single qubits and of delays, are drawn from exact
distributions and fitted as `simenv calibrate` does. Values without the mark "not identified" count:
the share of their intervals of 95 % that contain the truth.

Some values of each device are held at half and at twice the most likely one and all others are
fitted again (`held_deviance`): where neither is less likely by more than the level of an interval,
the profile is flat, and the value has to be marked.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

import msgspec
import numpy as np

from bench.engine.fit_truths import (
    changed,
    circuits,
    counts_of,
    device,
    read_together,
    with_t2_star,
)
from bench.harness import SEED, Option, Report
from bench.harness.kernels import load_kernels
from noise_models.calibration import CalibrationSnapshot, PauliRotation
from simenv.calibration.data import MeasuredCircuit, body_of
from simenv.calibration.fit.calibrate import FitRefusedError, FittedDevice, calibrate
from simenv.calibration.fit.components import with_gates_of_each_set
from simenv.calibration.fit.identify import LikelihoodFit, ParameterEstimate, identify
from simenv.calibration.fit.likelihood import LEVEL, minimum
from simenv.client.circuits import load

OPTIONS = (
    Option("--truths", default=50, help="number of devices"),
    Option("--qubits", default=7, help="number of qubits of the largest devices"),
    Option("--profiles", default=4, help="values of each device whose profile is fitted anew"),
    SEED,
)
SHOTS = (100, 300, 1_000, 4_000, 20_000)
CIRCUITS = (5, 12, 24, 40)
ANGLE_RAD = 0.05  # standard deviation of the rotations after gates on pairs


def sequences(random: np.random.Generator, num_qubits: int) -> list[MeasuredCircuit]:
    """Circuits of one kind of operation on all qubits: preparations, quarter turns, delays."""
    results = []
    every = range(num_qubits)
    parts = ["", "".join(f"x q[{k}];" for k in every)]
    parts += ["".join(f"sx q[{k}];" for k in every) * (4 * int(random.integers(1, 40)))]
    for _ in range(2):
        time_ns = int(random.integers(5, 80)) * 1_000
        waits = "".join(f"delay[{time_ns}ns] q[{k}];" for k in every)
        parts.append("".join(f"x q[{k}];" for k in every) + waits)
        turns = "".join(f"sx q[{k}];" for k in every)
        parts.append(turns + waits + "".join(f"rz(pi) q[{k}];" for k in every) + turns)
    for number, part in enumerate(parts):
        lines = ["OPENQASM 3.0;", 'include "stdgates.inc";']
        lines += [f"qubit[{num_qubits}] q;", f"bit[{num_qubits}] c;", part]
        lines += [f"c[{k}] = measure q[{k}];" for k in every]
        text = "\n".join(lines) + "\n"
        loaded = load(text)
        results.append(MeasuredCircuit(text, loaded, num_qubits, f"{body_of(loaded)}-{number}"))
    return results


def rotated(snapshot: CalibrationSnapshot, random: np.random.Generator) -> CalibrationSnapshot:
    """Snapshot whose pairs have rotations ZZ and IZ after their gates; errors include them."""
    gates = []
    for gate in snapshot.gates:
        if len(gate.qubits) == 2:
            angles = random.normal(0.0, ANGLE_RAD, 2)
            turns = tuple(
                PauliRotation(p, float(a)) for p, a in zip(("ZZ", "IZ"), angles, strict=True)
            )
            added = 0.2 * float((angles**2).sum())  # infidelity of small rotations of two qubits
            gate = msgspec.structs.replace(gate, rotations=turns, error=(gate.error or 0.0) + added)
        gates.append(gate)
    return msgspec.structs.replace(snapshot, gates=tuple(gates))


def with_joint_flips(
    snapshot: CalibrationSnapshot, random: np.random.Generator
) -> CalibrationSnapshot:
    """Snapshot in which the records of two neighbours flip together; their own readout errors
    include it."""
    result = read_together(snapshot, random)
    (group,) = result.correlated_readout
    qubits = list(result.qubits)
    for each in group.qubits:
        flips = (qubits[each].p01 or 0.0, qubits[each].p10 or 0.0)
        p01, p10 = (p + group.joint_flip * (1.0 - 2.0 * p) for p in flips)
        qubits[each] = msgspec.structs.replace(qubits[each], p01=p01, p10=p10)
    return msgspec.structs.replace(result, qubits=tuple(qubits))


def held_deviance(fit: LikelihoodFit, place: int, value: float) -> float:
    """Least deviance of all values with one quantity held, by a penalty of its difference."""
    likelihood, quantity = fit.likelihood, fit.quantities[place]
    x = fit.best.x
    for weight in (1e2, 1e4, 1e4, 1e4):
        point = likelihood.at(x)
        now, gradient = fit.device.gradient(quantity, likelihood, x)
        scale = weight / max(abs(value), 1e-9) ** 2
        matrix = point.fisher + scale * np.outer(gradient, gradient) + 0.25 * np.eye(len(x))
        slope = point.score + scale * (value - now) * gradient
        x = minimum(matrix, matrix @ x + slope, likelihood.lower)
    now, _ = fit.device.gradient(quantity, likelihood, x)
    return likelihood.at(x).deviance if abs(now - value) < 0.02 * abs(value) else float(np.inf)


def is_flat(fit: LikelihoodFit, place: int) -> bool:
    """Return whether half and twice the most likely value are as likely within the level."""
    value = float(fit.values[place])
    level = fit.best.deviance + LEVEL * fit.likelihood.dispersion
    return all(held_deviance(fit, place, factor * value) < level for factor in (0.5, 2.0))


def truths_of(
    fitted: FittedDevice, calibration: CalibrationSnapshot, truth: CalibrationSnapshot
) -> tuple[ParameterEstimate, ...]:
    """Values of the fit with those of the true device as fitted ones."""
    before, after = with_gates_of_each_set(calibration), with_gates_of_each_set(truth)
    return identify(fitted.likelihood, before, after).parameters


def covers(each: ParameterEstimate) -> bool:
    """Return whether the interval contains the true value."""
    value = each.fitted or 0.0
    low = -np.inf if each.low is None else each.low
    return bool(low <= value) and (each.high is None or value <= each.high)


def run(options: Namespace) -> Report:
    report = Report("fit_intervals", "intervals of the values of fits of known devices")
    load_kernels()
    random = np.random.default_rng(options.seed)
    inside: Counter[str] = Counter()
    total: Counter[str] = Counter()
    marked = flat = refused = 0
    for trial in range(options.truths):
        num_qubits = int(random.integers(3, options.qubits + 1))
        calibration = device(random, num_qubits)
        truth = changed(calibration, random)
        if random.random() < 0.3:
            share = float(random.uniform(0.2, 0.8))
            truth = with_t2_star(truth, share)
            calibration = with_t2_star(calibration, min(share * float(random.uniform(0.6, 1.5)), 1))
        if random.random() < 0.3:
            truth = rotated(truth, random)
        if random.random() < 0.3:
            truth = with_joint_flips(truth, random)
        number, shots = int(random.choice(CIRCUITS)), int(random.choice(SHOTS))
        sources = circuits(random, num_qubits, number)
        if random.random() < 0.5:
            sources += sequences(random, num_qubits)
        data = counts_of(truth, sources, shots, random)
        try:
            fitted = calibrate(data, calibration, "fitted", force=True)
        except FitRefusedError as error:
            refused += 1
            print(f"{trial}: {num_qubits} qubits, {number} x {shots}: {error.message}", flush=True)
            continue
        found = truths_of(fitted, calibration, truth)
        missed = []
        for each in found:
            if each.identified:
                total[each.kind] += 1
                inside[each.kind] += covers(each)
                if not covers(each):
                    missed.append(
                        f"{each.name} {each.low:.3g} to {each.high or np.inf:.3g},"
                        f" truth {each.fitted or 0.0:.3g}"
                    )
        likelihood = fitted.likelihood
        signed = ("angle", "ZZ", "joint flip")
        rates = [k for k, each in enumerate(likelihood.quantities) if each.kind not in signed]
        chosen = random.permutation(rates)[: options.profiles].tolist()
        for place in chosen:
            if likelihood.values[place] > 0.0 and is_flat(likelihood, place):
                flat += 1
                marked += not found[place].identified
        known = sum(each.identified for each in found)
        print(
            f"{trial}: {num_qubits} qubits, {len(sources)} x {shots}, share {fitted.share:g}:"
            f" {known} of {len(found)} values identified, dispersion"
            f" {likelihood.likelihood.dispersion:.2f}; without the truth {'; '.join(missed) or 0}",
            flush=True,
        )
    print(", ".join(f"{kind} {inside[kind]} of {count}" for kind, count in sorted(total.items())))
    count = sum(total.values())
    report.at_least(
        "coverage", sum(inside.values()) / max(count, 1),
        f"of {count} intervals of 95 % of identified values contain the truth"
        f" ({refused} fits refused)",
    )  # fmt: skip
    report.at_least("flat_marked", marked / max(flat, 1), f"of {flat} flat profiles are marked")
    return report
