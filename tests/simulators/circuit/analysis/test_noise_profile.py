"""Profile of noise: weights of errors, and the width that the outputs depend on."""

import math

import numpy as np
import pytest
from arrays import Arrays
from device_models import DeviceModel
from msgspec.structs import replace

from noise_models import channel as channels
from simulators.catalog import builtin_card
from simulators.circuit.analysis.noise_profile import noise_profile
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.noise import CHANNEL, Q1, NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.components import component_qubits
from simulators.circuit.passes.light_cone import OutputSupport, light_cone


def program(*made: channels.Channel) -> NoiseProgram:
    rows = [(0, k, 0, 1 if channel.num_qubits == 2 else -1) for k, channel in enumerate(made)]
    return NoiseProgram(b"", frozenset({"kraus"}), np.array(rows, np.int64).reshape(-1, 4), made)


PAIR = Arrays(2, 0).add("cx", [0, 1]).circuit()


def test_weight_of_a_pauli_channel_is_that_of_its_errors() -> None:
    result = noise_profile(
        program(channels.depolarizing(0.01, 1), channels.depolarizing(0.02, 2)), PAIR
    )
    expected = -math.log1p(-0.0075) - math.log1p(-0.02 * 15 / 16)
    assert result.error_weight == pytest.approx(expected, rel=1e-9)
    assert result.drawn_weight == 0.0
    assert (result.locations, result.pair_locations) == (2, 1)


def test_coherent_errors_have_no_weight_and_relaxation_depends_on_the_state() -> None:
    turn = channels.from_unitary(np.diag(np.exp([-0.1j, 0.1j])))
    assert noise_profile(program(turn), PAIR).error_weight == pytest.approx(0.0, abs=1e-12)
    result = noise_profile(program(channels.relaxation(100.0, 50.0, 60.0)), PAIR)
    assert 0.0 < result.drawn_weight <= result.error_weight < 0.01
    assert noise_profile(program(), PAIR).error_weight == 0.0


def test_width_is_that_of_the_active_part() -> None:
    circuit = Arrays(127, 1).add("h", [3]).add("cx", [3, 70]).add("measure", [70], [0]).circuit()
    noise = attach_noise(circuit, DeviceModel(127))
    result = noise_profile(noise, circuit, ("counts",))
    assert result.num_qubits == 2
    assert noise_profile(noise, circuit).num_qubits == 127
    changed = replace(profile(circuit, ("counts",)), noise=result)
    assert builtin_card("statevector").effective_profile(changed, ("counts",)).num_qubits == 2


@pytest.mark.parametrize("seed", range(20))
def test_profile_of_samples_is_that_of_the_passes_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 9))
    arrays = Arrays(n, 2)
    for _ in range(int(rng.integers(2, 14))):
        name = str(rng.choice(["cx", "sx", "cz", "barrier"]))
        width = 2 if name in ("cx", "cz") else 1
        arrays.add(name, rng.permutation(n)[:width].tolist())
    for clbit in range(2):
        arrays.add("measure", [int(rng.integers(n))], [clbit])
    model = DeviceModel(n, gate_error=0.01, preparation_error=0.02, crosstalk_pairs=((0, 1),))
    circuit = arrays.circuit()
    noise = attach_noise(circuit, model)
    result = noise_profile(noise, circuit, ("counts",))
    assert result == noise_profile(noise, circuit, ("memory",))
    assert result == noise_profile(noise, circuit, ("counts", "memory"))
    assert replace(result, widest=0) == noise_profile(noise, circuit, ("probabilities",))
    support = light_cone(circuit, OutputSupport(True, b""), noise)
    locations = noise.locations[support.acting]
    parts = component_qubits(circuit, support.kept, locations, support.needed)
    assert result.widest == max(part.size for part in parts)
    facts, acting = noise.facts, locations[:, CHANNEL]
    assert result.error_weight == pytest.approx(facts.errors[acting].sum(), rel=1e-12)
    assert result.drawn_weight == pytest.approx(facts.drawn[acting].sum(), rel=1e-12)
    pairs = np.count_nonzero(locations[:, Q1] >= 0)
    assert (result.locations, result.pair_locations) == (len(locations), pairs)
    assert result.num_qubits == support.qubits.size
