"""Priors of a fit: what single qubits say about those without data."""

from __future__ import annotations

import numpy as np
import pytest

from simenv.calibration.fit.components import Component
from simenv.calibration.fit.prior import Prior, PriorMatrix

FITTED = tuple(Component("p01", (qubit,)) for qubit in range(4))
OTHERS = (Component("p01", (9,)), Component("p10", (9,)), Component("ZZ", (8, 9), "cz"))
OWN = np.array([0.5, 0.6, 0.4, 0.5])


def carried(prior: Prior, own: np.ndarray) -> list[float]:
    columns = PriorMatrix(prior, FITTED[: len(own)])
    latent = np.array([own[place[0]] if place else 0.0 for _, place in columns.columns])
    return columns.carried_over((*FITTED, *OTHERS), FITTED, latent).tolist()


def test_a_change_that_fitted_qubits_share_is_carried_over_to_those_without_data() -> None:
    result = carried(Prior(0.1, 1.0), OWN)
    assert result[4] == pytest.approx(0.5, rel=0.02)
    assert result[:4] == [0.0] * 4
    assert result[5:] == [0.0, 0.0]


def test_a_change_that_scatters_is_carried_over_in_part() -> None:
    scattered = carried(Prior(0.1, 1.0), np.array([2.0, 0.5, 0.5, -1.0]))[4]
    assert 0.1 < scattered < 0.4


def test_a_wide_common_prior_or_few_qubits_leave_nothing_to_carry_over() -> None:
    assert not any(carried(Prior(0.5, 1.0), OWN))
    assert not any(carried(Prior(0.1, 1.0), OWN[:2]))
