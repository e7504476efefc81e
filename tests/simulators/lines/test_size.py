"""Sizes of sweeps by which circuits are priced, against the sweeps that run."""

import re

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from noisy_runs import DYNAMIC, dynamic_noise
from swept import GRAPHS, counted, noise_of, random_circuit

from noise_models.build import build
from noise_models.library import load
from simulators.catalog.costs import SWEEP_BITS, sweep_refusal
from simulators.chain.trial import choice_profile
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import Request
from simulators.errors import OutOfMemory
from simulators.lines.size import sweep_size
from simulators.tensornetwork.sweep.engine import SweepEngine


def sizes_of_a_run(circuit: Circuit, noise: NoiseProgram | None) -> tuple[int, int]:
    """Axes of the largest tensor, and layers, as a run reports them."""
    result = run(SweepEngine(), circuit, Request(8, 1), noise)
    found = re.match(r"tensors of 2\^(\d+) values, (\d+) layers", result.remark)
    assert found is not None
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("seed", range(3))
def test_a_priced_size_is_that_of_the_run_with_its_noise(graph: str, seed: int) -> None:
    random = np.random.default_rng([seed, 41])
    circuit = random_circuit(GRAPHS[graph], 2, random)
    noise = noise_of(circuit, random)
    for each in (noise, None):
        size = sweep_size(circuit, circuit.params, ("counts",), noise=each)
        assert size is not None
        assert (size.axes, size.layers) == sizes_of_a_run(circuit, each)


@pytest.mark.parametrize("name", sorted({*DYNAMIC} - {"loop"}))
def test_so_is_that_of_a_dynamic_circuit(name: str) -> None:
    circuit = DYNAMIC[name]().circuit()
    noise = dynamic_noise(circuit, 1.0)
    size = sweep_size(circuit, circuit.params, ("counts",), noise=noise)
    assert size is not None
    assert (size.axes, size.layers) == sizes_of_a_run(circuit, noise)


def in_two_cz(qubits: int, steps: int) -> Circuit:
    """Kicked Ising as compiled gate by gate: each rzz has two cz, with rotations between them."""
    arrays = Arrays(load("fez").num_qubits, qubits)
    for _ in range(steps):
        for qubit in range(qubits):
            arrays.add("sx", [qubit]).add("rz", [qubit], (), [0.6]).add("sx", [qubit])
        for first in (0, 1):
            for a in range(first, qubits - 1, 2):
                arrays.add("sx", [a + 1]).add("rz", [a + 1], (), [np.pi / 2])
                arrays.add("cz", [a, a + 1]).add("sx", [a + 1])
                arrays.add("rz", [a + 1], (), [0.4]).add("sx", [a + 1])
                arrays.add("cz", [a, a + 1])
                arrays.add("rz", [a + 1], (), [np.pi / 2]).add("sx", [a + 1])
    for qubit in range(qubits):
        arrays.add("measure", [qubit], [qubit])
    return arrays.circuit()


def test_relaxation_between_two_cz_keeps_them_apart_when_they_are_priced() -> None:
    circuit = in_two_cz(10, 2)
    noise = attach_noise(circuit, build(load("fez")))
    plain = choice_profile(circuit, ("counts",), engine="sweep").sweep
    noisy = choice_profile(circuit, ("counts",), engine="sweep", noise=noise).sweep
    assert plain is not None
    assert noisy is not None
    assert noisy.layers >= plain.layers + 4
    assert (noisy.axes, noisy.layers) == sizes_of_a_run(circuit, noise)


def test_planner_and_engine_have_one_limit() -> None:
    """Of growing circuits, those whose price is above the limit are those that are not run."""
    refused = []
    for layers in range(3, 8):
        circuit = random_circuit(GRAPHS["all"], layers, np.random.default_rng(layers))
        size = sweep_size(circuit, circuit.params, ("counts",))
        assert size is not None
        if sweep_refusal(size):
            with pytest.raises(OutOfMemory, match=r"would pass over 2\^\d+ values"):
                counted(circuit, None, 1, 1)
            refused.append(size.bits)
        else:
            assert size.bits <= SWEEP_BITS
            assert not refused
    assert refused


def test_a_refused_size_says_how_many_layers_are_within_the_limit() -> None:
    circuit = random_circuit(GRAPHS["all"], 7, np.random.default_rng(7))
    size = sweep_size(circuit, circuit.params, ("counts",))
    assert size is not None
    assert sweep_refusal(size)
    assert 2 <= size.runnable < size.layers
