"""Forecasts of the steps of pulse sequences, compared with runs of the engine `rydberg`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import numpy as np

from bench.engine.rydberg import chain, random_sequence
from bench.harness import SEED, Report, benchmark, installed
from simenv.client.submission.pulses import pack_pulses
from simenv.model import TaskOptions
from simenv.model.pulses import RYDBERG
from simenv.service.program_rules import examined_call
from testbed.pulse_steps import steps_of_run

SHOTS = 5  # of runs with noise: at most one trajectory each
TOLERANCES = 1e-4, 1e-6, 1e-8


@benchmark(seed=SEED, sequences=(60, 10))
def rydberg_forecast(report: Report, options: Namespace) -> None:
    """Forecast steps of random pulse sequences, in shares of the steps of their runs.

    The sequences are those of the benchmark `rydberg`, of all kinds, and chains of 4 to 12 atoms;
    the forecast was fitted to others, of another form. Each runs with a tolerance of 1e-4, 1e-6 or
    1e-8, every third one with noise of a model of pulser, with 5 shots. Steps are counted by the
    engine: no figure is a time.
    """
    if not installed("pulser"):
        return report.none_measured("pulser is not installed")
    rng = np.random.default_rng(options.seed)
    cases = [random_sequence(rng, number) for number in range(options.sequences)]
    cases += [("chain", chain(atoms)) for atoms in range(4, 13, 2)]
    ratios = []
    for number, (kind, sequence) in enumerate(cases):
        settings = {"tolerance": TOLERANCES[number % 3], "modulation": int(kind == "modulated")}
        noise = _model(number // 3, sequence) if number % 3 == 0 else "off"
        packed = pack_pulses(sequence, {"options": settings, "shots": SHOTS, "noise": noise})
        _, profile = examined_call(packed, TaskOptions(engine=RYDBERG))
        forecast, run = profile.gates_1q * profile.gates_2q, steps_of_run(packed, SHOTS)
        ratios.append(forecast / run)
        print(f"{kind:10}{profile.num_qubits:3} atoms: {forecast:7} forecast, {run:7} run")
    report.at_least("forecast_low", float(np.quantile(ratios, 0.05)))
    report.at_most("forecast_high", float(np.quantile(ratios, 0.95)))
    report.at_most("forecast_off", float(np.exp(np.abs(np.log(ratios)).max())))


def _model(number: int, sequence: Any) -> object:
    from pulser import NoiseModel

    models = [{"p_false_pos": 0.02}, {"state_prep_error": 0.05}]
    if "ground-rydberg" in sequence.get_addressed_bases():
        models += [{"relaxation_rate": 0.1}, {"temperature": 50.0, "dephasing_rate": 0.2}]
    return NoiseModel(**models[number % len(models)])
