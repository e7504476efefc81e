"""Predictions of a logical device against memories of an encoder that shares no code with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import pytest

pytest.importorskip("stim")
pymatching = pytest.importorskip("pymatching")

from bench.peers.textbook_surface_code import memory, wrong  # noqa: E402
from bench.service.logical import predicted_memory, random_chip  # noqa: E402
from noise_models.build import build  # noqa: E402
from simenv.calibration.logical.encode import Encoder  # noqa: E402
from simenv.calibration.logical.experiments import DecodedShots, Experiment  # noqa: E402
from simenv.calibration.logical.options import EncodeOptions  # noqa: E402
from simulators.circuit.passes.attach_noise import NoiseAttachment  # noqa: E402
from simulators.stabilizer.device_circuit import DeviceProgram  # noqa: E402
from simulators.stabilizer.device_gates import DeviceGates  # noqa: E402

SHOTS, ROUNDS = 20_000, 8


def sampled(experiments: Sequence[Experiment]) -> list[DecodedShots]:
    """Outcomes of experiments, sampled and decoded in this process."""
    results = []
    for number, each in enumerate(experiments):
        program = DeviceProgram(
            each.circuit, DeviceGates(each.chip), dict(enumerate(each.qubits))
        ).noisy(NoiseAttachment(build(each.chip)))
        count = wrong(program.circuit, SHOTS, 40 + number)
        results.append(DecodedShots((count,), SHOTS, program.duration_ns))
    return results


def test_memories_of_a_chip_with_a_short_t2_are_those_of_the_textbook() -> None:
    """Errors of Z are several times those of X: a memory of X has more errors than one of Z."""
    chip = random_chip(5)
    qubits = tuple(
        msgspec.structs.replace(each, t1_us=3.0 * (each.t1_us or 0.0), t2_us=0.5 * each.t1_us)
        for each in chip.qubits
        if each.t1_us
    )
    chip = msgspec.structs.replace(chip, qubits=qubits)
    options = EncodeOptions(distance=3, qubits=1, decoder="pymatching", shots=SHOTS)
    made = Encoder(chip, options, sampled).snapshot("logical")
    assert made.logical is not None
    rates = []
    for basis in "ZX":
        circuit, _ = memory(chip, made.logical.patches[0], 3, basis, ROUNDS)
        p, q = wrong(circuit, SHOTS, 3) / SHOTS, predicted_memory(made, basis, ROUNDS)
        sigma = math.sqrt(2.0 * p * (1.0 - p) / SHOTS)
        assert abs(q / p - 1.0) < 0.1 or abs(q - p) < 3.0 * sigma, (basis, p, q, sigma)
        rates.append(p)
    assert rates[1] > 1.5 * rates[0]
