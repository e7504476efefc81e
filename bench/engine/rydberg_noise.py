"""Noise of the engine `rydberg`, model by model, compared with pulser-simulation."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.engine.rydberg import Peer, call_of
from bench.harness import SEED, Report, benchmark, installed
from simenv.worker.analog.samples import jumps_of, program_of, sampled
from simulators.engine import RunControl
from simulators.rydberg import outcomes as out
from simulators.rydberg.jumps import TrajectoryRunner, sorted_jumps

SHOTS = 4_000  # of a comparison, each with a trajectory of its own
LEAST = 5  # expected shots of an outcome; rarer ones are put together
TOLERANCE = 1e-5  # of a trajectory
SIGNIFICANCE = 0.05  # of all comparisons together
ALONE = 1e-6  # significance of a comparison without noise with one with noise


@benchmark(seed=SEED, python=sys.executable, shots=(SHOTS, 500), only="")
def rydberg_noise(report: Report, options: Namespace) -> None:
    """Counts of pulse sequences with noise: chi-square tests, one for each noise model.

    Each type of noise of pulser alone, but that of detuning maps, of which pulser 1.9.1 draws one
    for all trajectories, and mixtures, with global and local channels, in each basis.
    Where pulser-simulation draws trajectories, half as many shots of it, each of one trajectory,
    are the other sample of a test of homogeneity; else its density matrix is the expected
    distribution. With k tests, the figure `noise_p` is k times the lowest p-value (Bonferroni),
    which is below 0.05 in at most 5 % of runs of an exact engine. `seen`: share of the models
    whose effect is visible: a run without noise fails the same test. `--python` names an
    interpreter that has pulser-simulation; `--only` a part of the names of models.
    """
    if not installed("pulser"):
        return report.none_measured("pulser is not installed")
    rng = np.random.default_rng(options.seed)
    values, seen = [], 0
    with Peer(options.python) as peer:
        for name, (sequence, model) in noise_models().items():
            seed = int(rng.integers(2**40))
            if options.only not in name:
                continue
            answer = _reference(peer, sequence, model, options.shots // 2)
            if "error" in answer:
                return report.none_measured(f"{name}: {answer['error']}")
            test = _test(answer, (model.p_false_pos, model.p_false_neg))
            value = test(counts(sequence, model, options.shots, seed), True)
            alone = test(counts(sequence, None, options.shots, seed), False)
            print(f"{name}: p = {value:.3g}; without noise {alone:.2g}", flush=True)
            values.append(value)
            seen += alone < ALONE
    report.at_least("noise_p", min(1.0, len(values) * min(values)))
    report.at_least("models", len(values))
    report.at_least("seen", seen / len(values))


def noise_models() -> dict[str, tuple[Any, Any]]:
    """Return a sequence and a NoiseModel for each name."""
    from pulser import NoiseModel

    lost = np.zeros((3, 3))
    lost[2, 0] = 1.0  # of r, g, x
    pumped = np.array([[0.3, 0.2j], [0.9, -0.5 - 0.4j]])  # of r, g; of no special form
    spectrum = {"detuning_hf_psd": (3.0, 5.0, 4.0), "detuning_hf_omegas": (5.0, 20.0, 40.0)}
    thermal = {"temperature": 60.0, "trap_waist": 1.0, "trap_depth": 100.0}
    ising, local, digital, exchange = _resonant(), _local(), _digital(), _exchange()
    masked = _exchange(("q0", "q2"))
    return {
        "preparation": (ising, NoiseModel(state_prep_error=0.2)),
        "detection": (ising, NoiseModel(p_false_pos=0.08, p_false_neg=0.15)),
        "temperature: Doppler shifts": (ising, NoiseModel(temperature=10_000.0)),
        "temperature: positions": (ising, NoiseModel(**thermal, disable_doppler=True)),
        "amplitude": (ising, NoiseModel(amp_sigma=0.3)),
        "waist": (ising, NoiseModel(laser_waist=20.0)),
        "detuning": (ising, NoiseModel(detuning_sigma=9.0)),
        "detuning: spectrum": (ising, NoiseModel(**spectrum)),
        "dephasing": (ising, NoiseModel(dephasing_rate=1.5)),
        "hyperfine dephasing": (digital, NoiseModel(hyperfine_dephasing_rate=4.0)),
        "relaxation": (ising, NoiseModel(relaxation_rate=1.5)),
        "depolarizing": (ising, NoiseModel(depolarizing_rate=1.5)),
        "leakage": (
            ising, NoiseModel(eff_noise_rates=[1.5], eff_noise_opers=[lost], with_leakage=True)
        ),
        "operator": (ising, NoiseModel(eff_noise_rates=[1.2], eff_noise_opers=[pumped])),
        "mixture, global": (
            ising,
            NoiseModel(
                **thermal, amp_sigma=0.1, dephasing_rate=0.5, relaxation_rate=0.7,
                p_false_pos=0.02, p_false_neg=0.05, state_prep_error=0.03,
            ),
        ),
        "mixture, local": (
            local,
            NoiseModel(
                temperature=1_000.0, amp_sigma=0.1, laser_waist=30.0, detuning_sigma=1.0,
                dephasing_rate=0.7, p_false_neg=0.05,
            ),
        ),
        "mixture, digital": (
            digital,
            NoiseModel(amp_sigma=0.1, hyperfine_dephasing_rate=0.8, p_false_pos=0.03),
        ),
        "dephasing, XY": (exchange, NoiseModel(dephasing_rate=2.0)),
        "mixture, XY": (
            exchange,
            # Positions too: else pulser-simulation repeats one run for all equal preparations.
            NoiseModel(
                **thermal, disable_doppler=True, depolarizing_rate=1.0, state_prep_error=0.08,
                p_false_neg=0.06,
            ),
        ),
        "mixture, masked XY": (
            masked,
            NoiseModel(
                **thermal, disable_doppler=True, dephasing_rate=1.5, state_prep_error=0.1,
                p_false_pos=0.04,
            ),
        ),
    }  # fmt: skip


def _register(atoms: int, spacing_um: float) -> Any:
    import pulser

    places = [(spacing_um * k, 3.0 * (k % 2)) for k in range(atoms)]
    return pulser.Register.from_coordinates(places, prefix="q")


def _resonant() -> Any:
    """Pulses of four atoms near resonance, about one and a half turns of a single atom."""
    import pulser
    from pulser.waveforms import BlackmanWaveform

    sequence = pulser.Sequence(_register(4, 6.5), pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(300, 11.0, 1.0, 0.0), "global")
    sequence.delay(60, "global")
    sequence.add(pulser.Pulse.ConstantDetuning(BlackmanWaveform(250, 5.0), 2.0, 0.8), "global")
    return sequence


def _local() -> Any:
    """Global pulses with pulses of two atoms between them."""
    import pulser
    from pulser.waveforms import BlackmanWaveform

    sequence = pulser.Sequence(_register(4, 6.5), pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.declare_channel("local", "rydberg_local", initial_target="q1")
    sequence.add(pulser.Pulse.ConstantDetuning(BlackmanWaveform(120, 1.8), -3.0, 0.0), "global")
    sequence.add(pulser.Pulse.ConstantPulse(70, 9.0, 4.0, 1.0), "local")
    sequence.target("q2", "local")
    sequence.add(pulser.Pulse.ConstantPulse(60, 12.0, 0.0, 0.5), "local")
    sequence.add(pulser.Pulse.ConstantDetuning(BlackmanWaveform(120, 1.3), 5.0, 0.4), "global")
    return sequence


def _digital() -> Any:
    """Raman pulses of three atoms, the last with two phases."""
    import pulser

    sequence = pulser.Sequence(_register(3, 8.0), pulser.MockDevice)
    sequence.declare_channel("raman", "raman_local", initial_target="q0")
    for atom, (length, rabi, shift, phase) in enumerate(
        ((150, 9.0, 2.0, 0.0), (200, 7.0, -4.0, 0.7), (120, 11.0, 1.0, 1.1))
    ):
        sequence.target(f"q{atom}", "raman")
        sequence.add(pulser.Pulse.ConstantPulse(length, rabi, shift, phase), "raman")
    sequence.add(pulser.Pulse.ConstantPulse(130, 10.0, 0.0, 2.2), "raman")
    return sequence


def _exchange(masked: Sequence[str] = ()) -> Any:
    """Microwave pulses of four atoms that exchange excitations; with a mask on some of them during
    the first pulse."""
    import pulser

    sequence = pulser.Sequence(_register(4, 7.0), pulser.MockDevice)
    if masked:
        sequence.config_slm_mask(masked)
    sequence.declare_channel("microwave", "mw_global")
    sequence.add(pulser.Pulse.ConstantPulse(150, 9.0, 0.0, 0.0), "microwave")
    sequence.delay(80, "microwave")
    sequence.add(pulser.Pulse.ConstantPulse(110, 7.0, 0.0, 1.2), "microwave")
    return sequence


def counts(sequence: Any, model: Any, shots: int, seed: int) -> NDArray[np.float64]:
    """Return counts of shots, each with a trajectory of its own, without errors of detection."""
    rng = np.random.default_rng(seed)
    result = np.zeros(1 << len(sequence.register.qubits))
    text = "" if model is None else model.to_abstract_repr()
    runner = None
    call = call_of(sequence, noise=text, draws=shots)
    for batch in sampled(call, seed, RunControl(), trusted=True):
        runner = runner or TrajectoryRunner(sorted_jumps(jumps_of(batch)), TOLERANCE)
        for trajectory in batch.trajectories:
            repeats = trajectory.repeats if runner.is_random else 1
            for _ in range(repeats):
                run = runner.run(program_of(batch, trajectory), rng, RunControl())
                numbers = rng.random(trajectory.repeats // repeats)
                np.add.at(result, out.sample_outcomes(run.state, numbers).astype(int), 1)
    return result


def _reference(peer: Peer, sequence: Any, model: Any, shots: int) -> dict[str, Any]:
    """Return a distribution of pulser-simulation, or counts where it draws trajectories."""
    text = model.to_abstract_repr()
    drawn = {"doppler", "register", "detuning", "dmm_sigma"} & set(model.noise_types)
    if drawn or model.amp_sigma or model.state_prep_error:
        return peer.ask("counts", sequence, noise=text, trajectories=shots)
    return peer.ask("density", sequence, noise=text)


def _test(
    answer: dict[str, Any], rates: tuple[float, float]
) -> Callable[[NDArray[np.float64], bool], float]:
    """Return the p-value of counts without errors of detection, which are drawn for them if the
    second argument is true."""
    from scipy.stats import chi2, chi2_contingency

    rng = np.random.default_rng(SEED)
    values = answer["values"]

    def read(own: NDArray[np.float64]) -> NDArray[np.float64]:
        outcomes = np.repeat(np.arange(own.size), own.astype(int)).astype(np.uint64)
        atoms = own.size.bit_length() - 1
        numbers = rng.random((atoms, outcomes.size))
        return np.bincount(
            out.flipped(outcomes, atoms, rates, numbers).astype(int), minlength=own.size
        ).astype(np.float64)

    def of_samples(own: NDArray[np.float64], is_read: bool) -> float:
        theirs = np.zeros(own.size)
        for bits, count in values.items():
            theirs[int(bits, 2)] += count
        both = np.array([read(own) if is_read else own, theirs])
        rare = both.sum(axis=0) < 4 * LEAST
        both = np.hstack([both[:, ~rare], both[:, rare].sum(axis=1, keepdims=True)])
        return float(chi2_contingency(both[:, both.sum(axis=0) > 0]).pvalue)

    def of_distribution(own: NDArray[np.float64], is_read: bool) -> float:
        own = read(own) if is_read else own
        expected = _flipped(own.sum() * np.array(values), rates)
        rare = expected < LEAST
        cells = [*zip(own[~rare], expected[~rare], strict=True)]
        cells.append((own[rare].sum(), expected[rare].sum()))
        terms = [(a - b) ** 2 / b for a, b in cells if b > 0]
        return float(chi2.sf(sum(terms), len(terms) - 1))

    return of_samples if isinstance(values, dict) else of_distribution


def _flipped(distribution: NDArray[np.float64], rates: tuple[float, float]) -> NDArray[np.float64]:
    """Return a distribution [2**n] with errors of detection: 0 read as 1, 1 as 0."""
    false_positive, false_negative = rates
    matrix = np.array([[1 - false_positive, false_negative], [false_positive, 1 - false_negative]])
    result = distribution
    for bit in range(distribution.size.bit_length() - 1):
        parts = result.reshape(-1, 2, 1 << bit)
        result = np.einsum("ab,xby->xay", matrix, parts).reshape(-1)
    return result
