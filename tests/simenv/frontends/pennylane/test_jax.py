"""JAX transformations of circuits: values, `jit`, `grad` and `hessian` against exact ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

qml = pytest.importorskip("pennylane")
jax = pytest.importorskip("jax")

# PennyLane calls functions of JAX that newer versions of JAX warn about.
pytestmark = pytest.mark.filterwarnings("ignore:jax:DeprecationWarning")
ANGLES = (0.3, 0.4)
TOLERANCE = 1e-5  # JAX computes in single precision by default
Device = Callable[..., Any]


def cosine(device: Device, method: str, **options: Any) -> Any:
    """A function of two angles with the value cos(a + b)."""

    @qml.qnode(device(1), interface="jax", diff_method=method, **options)
    def circuit(angles: Any) -> Any:
        qml.RY(angles[0], 0)
        qml.RY(angles[1], 0)
        return qml.expval(qml.Z(0))

    return circuit


@pytest.mark.parametrize("method", ["adjoint", "parameter-shift"])
@pytest.mark.parametrize("jit", [False, True], ids=["traced", "jit"])
def test_values_and_gradients_are_exact(device: Device, method: str, jit: bool) -> None:
    transform = jax.jit if jit else lambda function: function
    circuit, angles = cosine(device, method), jax.numpy.array(ANGLES)
    value, gradient = transform(circuit)(angles), transform(jax.grad(circuit))(angles)
    assert float(value) == pytest.approx(np.cos(sum(ANGLES)), abs=TOLERANCE)
    np.testing.assert_allclose(gradient, [-np.sin(sum(ANGLES))] * 2, atol=TOLERANCE)


@pytest.mark.parametrize("jit", [False, True], ids=["traced", "jit"])
def test_hessian_by_parameter_shift_is_exact(device: Device, jit: bool) -> None:
    transform = jax.jit if jit else lambda function: function
    circuit = cosine(device, "parameter-shift", max_diff=2)
    matrix = transform(jax.hessian(circuit))(jax.numpy.array(ANGLES))
    np.testing.assert_allclose(matrix, np.full((2, 2), -np.cos(sum(ANGLES))), atol=TOLERANCE)


def test_jit_with_shots_draws_from_the_distribution(device: Device) -> None:
    circuit = qml.set_shots(cosine(device, "parameter-shift"), 4_000)
    value = float(jax.jit(circuit)(jax.numpy.array(ANGLES)))
    mean = np.cos(sum(ANGLES))
    assert abs(value - mean) < 5 * np.sqrt((1 - mean**2) / 4_000)
