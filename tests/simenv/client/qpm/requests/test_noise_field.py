"""The field `noise` of a request."""

from __future__ import annotations

import pytest

from simenv.client.qpm.requests import run_request
from simenv.qpm.errors import ExecutionError

X = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;'


def test_factor_that_is_no_number_is_refused_with_its_component() -> None:
    info = {"qasm": X, "num_shots": 10, "noise": {"gate.depolarizing": "a"}}
    with pytest.raises(ExecutionError, match=r"gate.depolarizing = 'a'"):
        run_request.read(info)
