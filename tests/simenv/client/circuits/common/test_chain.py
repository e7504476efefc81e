"""The chain rule from slots to parameters, against differences of the slots' values."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from simenv.client.circuits import PackedCircuit, load
from simenv.client.circuits.common.parameters import chain
from simenv.errors import OptionError, ProgramError

A, B = Parameter("a"), Parameter("b")
V = ParameterVector("v", 3)


def turned(*angles: object) -> PackedCircuit:
    circuit = QuantumCircuit(len(angles))
    for qubit, angle in enumerate(angles):
        circuit.ry(angle, qubit)
    return load(circuit)


def matrix(loaded: PackedCircuit, values: np.ndarray) -> np.ndarray:
    """d slots / d parameters, as the chain rule has it."""
    result = chain(loaded.slots, values)
    if result is None:
        return np.eye(len(loaded.parameters))
    dense = np.zeros((loaded.program.num_slots, result.parameters))
    places = np.frombuffer(result.slots, "<i4"), np.frombuffer(result.columns, "<i4")
    dense[places] = np.frombuffer(result.factors)
    return dense


@pytest.mark.parametrize(
    "angles",
    [
        (A, B),
        (B, A, 2 * A),
        (A + 0.5 * B, -A, B - 1.5),
        (V[2], V[0] - V[1], V[1]),
        (A * B, A.sin(), A**2 / (2 + B)),
        (A, A, A),
        (3 * A, 3 * A),
    ],
)
def test_chain_rule_agrees_with_finite_differences(angles: tuple[object, ...]) -> None:
    loaded = turned(*angles)
    values = np.random.default_rng(1).uniform(0.3, 1.5, len(loaded.parameters))
    result = matrix(loaded, values)
    for k in range(len(values)):
        at = np.zeros(len(values))
        at[k] = 1e-5
        slope = (loaded.bind(values + at) - loaded.bind(values - at))[0] / 2e-5
        np.testing.assert_allclose(result[:, k], slope, atol=1e-9)


def test_slots_that_are_parameters_need_no_chain_rule() -> None:
    assert chain(turned(V[0], V[1], V[2]).slots, np.zeros(3)) is None


def test_chain_rule_of_several_bindings_requires_linear_expressions() -> None:
    loaded = turned(A * A, A)
    with pytest.raises(OptionError, match="several bindings"):
        chain(loaded.slots, np.ones((2, 1)))
    linear = turned(2 * A, A)
    result = chain(linear.slots, np.ones((2, 1)))
    assert result is not None
    assert np.frombuffer(result.factors).tolist() == [2.0, 1.0]


def test_derivative_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ProgramError, match="no finite derivative"):
        chain(turned(A**0.5, A).slots, np.zeros(1))
