"""The field `noise` of a request."""

from __future__ import annotations

import numpy as np
import pytest

from simenv.client.qpm.requests import run_request
from simenv.qpm.errors import ExecutionError

X = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;'


def test_factor_that_is_no_number_is_refused_with_its_component() -> None:
    info = {"qasm": X, "num_shots": 10, "noise": {"gate.depolarizing": "a"}}
    with pytest.raises(ExecutionError, match=r"gate.depolarizing = 'a'"):
        run_request.read(info)


@pytest.mark.parametrize("value", [np.float64(0.5), np.zeros(2), [0.5], b"{}", {1: 2.0}, ""])
def test_value_of_another_type_is_refused_with_those_that_a_host_can_send(value: object) -> None:
    with pytest.raises(ExecutionError, match='a recipe such as "aer"') as caught:
        run_request.read({"qasm": X, "num_shots": 10, "noise": value})
    assert "bytes" not in caught.value.hint


def test_noise_model_of_a_host_is_refused_by_name() -> None:
    document = {"kind": "channels", "name": "mine", "channels": []}
    with pytest.raises(ExecutionError, match="noise models of your own are not taken here"):
        run_request.read({"qasm": X, "num_shots": 10, "noise": document})
