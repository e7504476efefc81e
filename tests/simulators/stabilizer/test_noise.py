"""Pauli noise by stim: exact distributions, the twirl on request, and refusals by name."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, after_gates, p_value, program
from reference import Operation

from noise_models.channel import Channel, depolarizing, from_paulis, relaxation, tensor
from noise_models.readout import Readout
from simulators.circuit import tokens as tk
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import Request, RunOptions
from simulators.errors import Unsupported
from simulators.results import EngineResult
from simulators.simulate import counts_of
from simulators.stabilizer.engine import StabilizerEngine

SHOTS = 40_000
LEAST_P = 1e-3
TWIRL = (("twirl", 1),)


def _clifford(*, dynamic: bool) -> Circuit:
    random = np.random.default_rng(4)
    arrays = Arrays(4, 4)
    for layer in range(4):
        for q in range(4):
            arrays.add(("h", "s", "sx", "y")[int(random.integers(4))], [q])
        arrays.add(("cx", "cz")[layer % 2], [layer % 4, (layer + 1) % 4])
        if dynamic and layer == 1:
            arrays.add("measure", [2], [3]).add("reset", [1])
            arrays.begin((tk.CLBIT, 3, 0)).add("x", [0]).add("end")
    for q in range(3):
        arrays.add("measure", [q], [q])
    return arrays.circuit()


def _noise(circuit: Circuit, one: Channel, pair: Channel, readout: Readout | None) -> NoiseProgram:
    conditional = [k for k in range(circuit.ops.size) if circuit.table.names[circuit.ops[k]] == "x"]

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if row.name in ("measure", "reset"):
            return [((3,), one)]
        return [(row.qubits, pair if len(row.qubits) == 2 else one)] if row.qubits else []

    located = [item for item in after_gates(circuit, rule) if item[0] not in conditional]
    result = program([*located, (-1, (0,), one)], readout)
    return msgspec.structs.replace(result, kinds=result.kinds - {"kraus"})


def _run(
    circuit: Circuit, noise: NoiseProgram, settings: tuple = (), outputs: tuple = ("counts",)
) -> EngineResult:
    engine, options = StabilizerEngine(), RunOptions(settings=settings)
    plan = engine.plan(circuit, noise, options)
    return engine.run(plan, circuit, Request(SHOTS, 3, outputs), options, RunControl())


ONE = from_paulis(np.array([0.9, 0.05, 0.01, 0.04]))
PAIR = from_paulis(np.random.default_rng(1).dirichlet(np.append(60, np.ones(15))))


@pytest.mark.parametrize("dynamic", [False, True])
def test_pauli_noise_has_the_exact_distribution(dynamic: bool) -> None:
    circuit = _clifford(dynamic=dynamic)
    flips = np.array([0.02, 0.0, 0.05, 0.01])
    readout = Readout(flips, flips if dynamic else flips[::-1].copy())
    noise = _noise(circuit, ONE, PAIR, readout)
    assert p_value(Exact(circuit, noise).probs, counts_of(_run(circuit, noise))) > LEAST_P


def test_other_noise_is_twirled_on_request_and_the_result_says_so() -> None:
    circuit = _clifford(dynamic=False)
    damping = relaxation(300, 2, 3)
    noise = _noise(circuit, damping, depolarizing(0.05, 2).then(tensor(damping, damping)), None)
    noise = msgspec.structs.replace(noise, kinds=frozenset({"kraus", "pauli"}))
    with pytest.raises(Unsupported, match="no kraus noise"):
        _run(circuit, noise)
    result = _run(circuit, noise, TWIRL)
    twirled = tuple(channel.twirled() for channel in noise.channels)
    exact = Exact(circuit, msgspec.structs.replace(noise, channels=twirled, known_facts=None))
    assert p_value(exact.probs, counts_of(result)) > LEAST_P
    assert result.remark == "noise twirled to Paulis"


def test_what_stim_does_not_have_is_refused() -> None:
    circuit = _clifford(dynamic=True)
    noise = _noise(circuit, ONE, PAIR, Readout(np.full(4, 0.1), np.full(4, 0.2)))
    with pytest.raises(Unsupported, match="depends on the outcome"):
        _run(circuit, noise)
    _run(circuit, noise, TWIRL)
    with pytest.raises(Unsupported, match="probabilities of a circuit with noise"):
        _run(circuit, _noise(circuit, ONE, PAIR, None), outputs=("probabilities",))
    place = next(k for k in range(circuit.ops.size) if circuit.table.names[circuit.ops[k]] == "x")
    with pytest.raises(Unsupported, match="noise under a condition"):
        _run(circuit, msgspec.structs.replace(program([(place, (0,), ONE)]), kinds=frozenset()))
